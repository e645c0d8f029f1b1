"""What the configurations of both trainings have in common: data sets, their shares, validation, the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geoaware.runs.errors import InputError
from geoaware.runs.settings import Count, Part, Positive, Seed

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Folder of the configurations that come with the package."""


def loadable(choice: Any) -> Any:
    """Make sure that the loader of a data set takes the options given.

    Raises:
        InputError: there is no such data set, or an option is unknown or of another kind.
    """
    from geoaware.data import checked

    if choice.options:
        checked(choice.name, choice.options)
    return choice


class DataChoice(Part):
    """A split of a data set.

    Attributes:
        name: as `geoaware.data.load` knows it.
        root: the data set's folder, relative to the run's ``root``.
        split: to load.
        options: of the loader.
        keypoints: names of those to use; the others count as not annotated. All when not given.
        share: of the groups or images that are drawn from this data set; see `shares_of`.
    """

    name: str
    root: str
    split: str = "trn"
    options: dict[str, Any] = Field(default_factory=dict)
    keypoints: Annotated[list[str], Field(min_length=1)] | None = None
    share: Positive | None = None

    _loadable = model_validator(mode="after")(loadable)


class Validation(Part):
    """What is measured during a run: mean PCK over data sets, per image, pose alignment off.

    Attributes:
        data: validation splits; never test splits.
        every: steps between two validations; there is one at each stage's end in any case.
        pairs: of each data set, chosen by the seed; all when not given.
        alpha: of the PCK.
    """

    data: list[DataChoice] = Field(default_factory=list)
    every: Count = 1000
    pairs: Count | None = None
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1


class RunSettings(Part):
    """What every run has.

    Attributes:
        root: folder that the data sets' roots are relative to.
        start: weights to go on from, a name or a folder; new ones when not given.
        validation: what is measured on the way.
        precision: of the network; the losses are float32.
        seed: of everything drawn.
        save_every: steps between two checkpoints, beside those at validations.
        log_every: steps that a line of the log averages over.
    """

    root: str = "."
    start: str | None = None
    validation: Validation = Validation()
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Seed = 0
    save_every: Count = 500
    log_every: Count = 50


def shares_of(choices: Sequence[float | None], sizes: Sequence[int]) -> list[float]:
    """The part of the draws that each data set has; they add up to 1.

    Without any share each data set has as many draws as it has pairs (or images), which are its size. Where
    every data set has a share, only their ratios count. Where some have none, the shares given are parts of
    the whole, and the other data sets divide what is left by their sizes.

    Raises:
        InputError: some data sets have no share, and the others leave nothing to them.
    """
    given = sum(share for share in choices if share is not None)
    missing = sum(size for share, size in zip(choices, sizes, strict=True) if share is None)
    if None not in choices:
        return [share / given for share in choices if share is not None]
    if given >= 1:
        raise InputError(
            f"the shares given add up to {given:g} and leave nothing to the data sets without one; give "
            "every data set a share, or let those given add up to less than 1"
        )
    left, both = 1.0 - given, zip(choices, sizes, strict=True)
    return [left * size / missing if share is None else share for share, size in both]
