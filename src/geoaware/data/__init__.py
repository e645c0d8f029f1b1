"""Data sets from disk to pairs: one loader a layout, all of them returning a `DataSet`.

>>> data_set = load("spair71k", "SPair-71k", "test")                    # doctest: +SKIP
>>> data_set.pairs[0].common_ids, data_set.notes                        # doctest: +SKIP
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geoaware.data import ap10k, coco, pairs, pf_pascal, pf_willow, spair
from geoaware.data.dataset import DataSet, ThresholdBase
from geoaware.data.masks import object_mask
from geoaware.runs.errors import InputError

LOADERS: Mapping[str, Callable[..., DataSet]] = {
    module.NAME: module.load for module in (spair, pf_pascal, pf_willow, ap10k, coco, pairs)
}
"""Loader of each data set by name; all take the root folder, the split, and options by keyword."""

__all__ = ["LOADERS", "DataSet", "ThresholdBase", "load", "object_mask", "options"]


def load(name: str, root: str | os.PathLike[str], split: str, **given: Any) -> DataSet:
    """Load a split of a data set.

    Args:
        name: spair71k, pf-pascal, pf-willow, ap10k, coco or pairs.
        root: the data set's folder.
        split: trn, val or test where the data set has these; see the loaders.
        given: options of the loader; an option that is ``None`` counts as not given.

    Raises:
        InputError: unknown name or option, or the data set is incomplete or damaged.
    """
    known = options(name)
    wanted = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise InputError(f"data set {name} has no option {unknown[0]!r}; its options: {listed}")
    return LOADERS[name](Path(root), split, **wanted)


def options(name: str) -> tuple[str, ...]:
    """Names of a loader's options.

    Raises:
        InputError: there is no such data set.
    """
    if name not in LOADERS:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(LOADERS)}")
    parameters = inspect.signature(LOADERS[name]).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
