"""What a training run of the backbone does.

Files that come with the package are known by name (``geoaware tune lite``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from geoaware.features.tuned import GRID
from geoaware.runs import settings
from geoaware.runs.settings import Count, Part, Positive, Weight
from geoaware.training import settings as common
from geoaware.training.settings import DataChoice, RunSettings, Validation

CONFIGS = common.CONFIGS / "tuning"
"""Folder of the configurations that come with the package."""

Chance = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0)]


class Shape(Part):
    """Of the decoder; see `geoaware.features.tuned.TunedShape`."""

    descriptor: Count = 128
    width: Count = 256
    context: tuple[Count, ...] = (1, 2, 4, 1, 2, 4)
    detail: Number = 2


class Views(Part):
    """How an image is shown; every image of a step is shown twice.

    Attributes:
        smaller: least scale of the object, relative to the image on its canvas.
        larger: greatest.
        turn: degrees of rotation to either side.
        upside: chance of a rotation by any angle instead.
        mirror: chance of showing the mirror image.
        colour: strength of the changes of light and colour.
        recolour: chance of another coat for an object that has a mask: blotches of colour, or of a
            photograph.
        background: chance of another image behind an object that has a mask.
        cover: chance of a rectangle of noise before the object.
        styles: chance of a view that takes on some of another's style inside the network: the mean and
            deviation of the channels of early maps (MixStyle, Zhou et al. 2021).
        shuffle: chance of a view cut into tiles that change places: it shows no object and has no keypoints.
    """

    smaller: Positive = 0.5
    larger: Positive = 1.7
    turn: Weight = 40.0
    upside: Chance = 0.25
    mirror: Chance = 0.5
    colour: Weight = 0.4
    recolour: Chance = 0.5
    background: Chance = 0.7
    cover: Chance = 0.4
    styles: Chance = 0.5
    shuffle: Chance = 0.05

    @model_validator(mode="after")
    def _ordered(self) -> Views:
        if self.smaller > self.larger:
            raise ValueError(f"smaller ({self.smaller}) must not be above larger ({self.larger})")
        return self


class Objective(Part):
    """Weights of the parts of the loss; see `geoaware.training.backbone.objective`.

    Attributes:
        cells: cross-entropy over the target's cells, for annotated keypoints.
        dense: the paper's dense loss, in cells.
        own: cross-entropy for points that nobody annotated, between two views of one image.
        distillation: cross-entropy for points that nobody annotated, between one image and another, where
            the plain descriptors find them and find them back.
        presence: of being on an object.
        spread: standard deviation of the wanted distribution around a keypoint, in cells.
        points: that nobody annotated, an image.
        limbs: points between two keypoints that a limb joins, a step and set of keypoints; they count as
            keypoints.
    """

    cells: Weight = 1.0
    dense: Weight = 0.05
    own: Weight = 0.5
    distillation: Weight = 0.3
    presence: Weight = 0.3
    spread: Positive = 0.7
    points: Number = 48
    limbs: Number = 6


def _odd_or_whole(window: int) -> int:
    if window % 2 == 0 and window < GRID:
        raise ValueError(f"must be odd, or the whole map, got {window}")
    return window


class Checks(Validation):
    """Validation sets, matched by the trained descriptors alone; see `Validation` for the rest.

    Attributes:
        window: of the window soft-argmax, in cells.
        temperature: of the softmax.
    """

    window: Annotated[Count, AfterValidator(_odd_or_whole)] = 9
    temperature: Positive = 0.04


class TuneConfig(RunSettings):
    """A whole run; see `RunSettings` for what every run has.

    Attributes:
        shape: of the decoder.
        data: what to train on; ``share`` is a data set's part of the images of a step.
        images: a step.
        steps: of the optimiser.
        views: how images are shown.
        objective: the loss.
        learning_rate: peak of the schedule, of the decoder.
        backbone_rate: of the backbone, relative to it.
        weight_decay: of AdamW.
        rising: share of the schedule that rises.
        average: decay of the moving average of the weights, which is what is saved.
        memory: GiB of decoded images kept.
        workers: threads that decode images; the number of cores when not given.
    """

    renamed: ClassVar[Mapping[str, str]] = {"objective.keep": "distillation", "pictures": "images"}

    shape: Shape = Shape()
    data: Annotated[list[DataChoice], Field(min_length=1)]
    images: Annotated[int, Field(ge=2)] = 32
    steps: Count
    views: Views = Views()
    objective: Objective = Objective()
    learning_rate: Positive = 1e-3
    backbone_rate: Weight = 0.3
    weight_decay: Weight = 0.02
    rising: Annotated[float, Field(gt=0, lt=1)] = 0.1
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    memory: Positive = 8.0
    workers: Count | None = None
    validation: Checks = Checks()
    log_every: Count = 20


def load_config(place: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TuneConfig:
    """A run's settings from a YAML file or of a shipped name; see `geoaware.runs.settings.load`."""
    return settings.load(TuneConfig, place, CONFIGS, changes)


def run_folder(place: str | os.PathLike[str]) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / f"tune-{Path(place).stem}"
