"""Data sets from disk to pairs: one loader a layout, all of them returning a `DataSet`.

>>> data_set = load("spair71k", "SPair-71k", "test")                    # doctest: +SKIP
>>> data_set.pairs[0].common_ids, data_set.notes                        # doctest: +SKIP
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from geoaware.data.dataset import DataSet, ThresholdBase
from geoaware.data.files import reading
from geoaware.data.masks import object_mask
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

LOADERS: Mapping[str, str] = {
    "spair71k": "spair",
    "pf-pascal": "pf_pascal",
    "pf-willow": "pf_willow",
    "ap10k": "ap10k",
    "spair-u": "spair_u",
    "cub": "cub",
    "awa-pose": "awa_pose",
    "tss": "tss",
    "soco": "soco",
    "coco": "coco",
    "pairs": "pairs",
}
"""Module of each data set's loader by the data set's name; it is imported when the data set is asked for."""

__all__ = ["LOADERS", "DataSet", "ThresholdBase", "load", "object_mask", "options"]


def load(name: str, root: str | os.PathLike[str], split: str, **given: Any) -> DataSet:
    """Load a split of a data set.

    Args:
        name: one of `LOADERS`.
        root: the data set's folder.
        split: trn, val or test where the data set has these; see the loaders.
        given: options of the loader; an option that is ``None`` counts as not given.

    Raises:
        InputError: unknown name or option, or the data set is incomplete or damaged.
    """
    wanted = checked(name, given)
    # Loaders ask whether files are there, which the system may refuse to say.
    with reading(place(root)):
        return _loader(name)(place(root), split, **wanted)


def checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given for a loader's options, without ``None``, each of the kind that the loader takes.

    Raises:
        InputError: there is no such data set or option, or a value is of another kind.
    """
    from geoaware.runs.settings import of_types

    known = _parameters(name)
    wanted = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise InputError(f"data set {name} has no option {unknown[0]!r}; its options: {listed}")
    return of_types(known, wanted, f"data set {name}")


def options(name: str) -> tuple[str, ...]:
    """Names of a loader's options.

    Raises:
        InputError: there is no such data set.
    """
    return tuple(_parameters(name))


def _parameters(name: str) -> dict[str, Any]:
    """Types of a loader's options by name."""
    parameters = inspect.signature(_loader(name), eval_str=True).parameters.values()
    return {each.name: each.annotation for each in parameters if each.kind is each.KEYWORD_ONLY}


def _loader(name: str) -> Callable[..., DataSet]:
    """What reads a data set: takes the root folder, the split, and options by keyword."""
    if name not in LOADERS:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(LOADERS)}")
    found: Callable[..., DataSet] = import_module(f"{__name__}.{LOADERS[name]}").load
    return found
