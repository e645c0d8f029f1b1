"""What a tuning run does: defaults < YAML file < ``--set``; an unknown key's error lists the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geoaware.training.post_processor.config import CONFIGS as TRAINING
from geoaware.training.post_processor.config import (
    Count,
    DataChoice,
    Part,
    Positive,
    Seed,
    Weight,
    load_model,
)

CONFIGS = TRAINING / "tuning"
"""Folder of the configurations that come with the package."""

Chance = Annotated[float, Field(ge=0, le=1)]


class Shape(Part):
    """Of the decoder; see `geoaware.features.tuned.TunedShape`."""

    descriptor: Count = 128
    width: Count = 256
    context: tuple[Count, ...] = (1, 2, 4, 1, 2, 4)
    detail: Annotated[int, Field(ge=0)] = 2


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
        keep: cross-entropy for points that nobody annotated, between one image and another, where the plain
            descriptors find them and find them back.
        presence: of being on an object.
        spread: standard deviation of the wanted distribution around a keypoint, in cells.
        points: that nobody annotated, an image.
        limbs: points between two keypoints that a limb joins, a step and set of keypoints; they count as
            keypoints.
    """

    cells: Weight = 1.0
    dense: Weight = 0.05
    own: Weight = 0.5
    keep: Weight = 0.3
    presence: Weight = 0.3
    spread: Positive = 0.7
    points: Annotated[int, Field(ge=0)] = 48
    limbs: Annotated[int, Field(ge=0)] = 6


class Checks(Part):
    """Validation sets, matched by the tuned descriptors alone.

    Attributes:
        data: validation splits.
        every: steps between two validations.
        window: of the window soft-argmax, in cells.
        temperature: of the softmax.
        alpha: of the PCK.
    """

    data: list[DataChoice] = Field(default_factory=list)
    every: Count = 1000
    window: Count = 9
    temperature: Positive = 0.04
    alpha: Positive = 0.1


class TuneConfig(Part):
    """A whole run.

    Attributes:
        root: folder that the data sets' roots are relative to.
        start: weights to go on from (a name or folder); ImageNet's when not given.
        shape: of the decoder.
        data: what to learn from; ``share`` is a data set's part of the images of a step.
        images: a step.
        steps: of the optimiser.
        views: how images are shown.
        objective: the loss.
        learning_rate: peak of the schedule, of the decoder.
        backbone_rate: of the backbone, relative to it.
        weight_decay: of AdamW.
        rising: share of the schedule that rises.
        average: decay of the moving average of the weights, which is what is saved.
        precision: of the network; the losses are float32.
        memory: GiB of decoded images kept.
        workers: threads that decode images; the number of cores when not given.
        validation: what is measured on the way.
        seed: of everything drawn.
        save_every: steps between two checkpoints.
        log_every: steps that a line of the log averages over.
    """

    root: str = "."
    start: str | None = None
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
    precision: Literal["fp32", "bf16"] = "fp32"
    memory: Positive = 8.0
    workers: Count | None = None
    validation: Checks = Checks()
    seed: Seed = 0
    save_every: Count = 500
    log_every: Count = 20


def load_config(place: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TuneConfig:
    """A run's settings from a YAML file, or a configuration that ships with the package by its name.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that cannot be.
    """
    return load_model(TuneConfig, place, changes, CONFIGS)


def run_folder(place: str | os.PathLike[str]) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / f"tune-{Path(place).stem}"
