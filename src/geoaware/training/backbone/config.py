"""What a training run of the backbone does.

Files that come with the package are known by name (``geoaware tune lite``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from geoaware.features.tuned import STRIDE, TunedSettings
from geoaware.runs import settings
from geoaware.runs.settings import Count, Part, Positive, Weight
from geoaware.training import settings as common
from geoaware.training.settings import DataChoice, RunSettings, Validation

CONFIGS = common.CONFIGS / "tuning"
"""Folder of the configurations that come with the package."""

EMBEDDED = "efficientnet-lite0"
"""The backbone of `lite`."""

WHOLE = 448
"""Side of an image without labels on its canvas."""

Chance = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Shape(Part):
    """Of the network; see `geoaware.features.tuned.TunedShape`."""

    descriptor: Count = 128
    width: Count = 256
    context: tuple[Count, ...] = (1, 2, 4, 1, 2, 4)
    detail: Number = 2


class Lora(Part):
    """Low-rank updates of a transformer's linear layers (Hu et al. 2021), in all of its blocks.

    Attributes:
        rank: of the updates.
        alpha: an update counts alpha / rank times.
        targets: layers of the attention, of the MLP, or of both.
        dropout: share of an update's inputs that is left out at random in a step.
    """

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Positive = 16.0
    targets: Annotated[tuple[Literal["attention", "mlp"], ...], Field(min_length=1)] = ("attention",)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Trained(DataChoice):
    """A split that is trained on; see `DataChoice` for the rest.

    Attributes:
        objects: annotated objects a step, every category as often.
        twice: how many of them are shown twice.
        categories: how many categories the objects of a step are of at most; any number when not given.
    """

    share: None = None
    objects: Count
    twice: Number = 0
    categories: Count | None = None

    @model_validator(mode="after")
    def _fewer(self) -> Trained:
        if self.twice > self.objects:
            raise ValueError(f"twice ({self.twice}) must not be above objects ({self.objects})")
        return self


class Views(Part):
    """How annotated objects are shown.

    Attributes:
        smaller: longer side of an object on a view, least share of the view's side.
        larger: greatest share.
        turn: degrees of rotation to either side.
        upside: chance of a rotation by any angle instead.
        mirror: chance of the mirror image.
        colour: strength of the changes of light and colour.
        cover: chance of a rectangle of noise before the object.
        background: chance of another image behind an object that has a mask.
        recolour: chance of another coat for an object that has a mask: blotches of colour, or of a
            photograph.
    """

    smaller: Positive = 0.4
    larger: Positive = 1.3
    turn: Weight = 30.0
    upside: Chance = 0.3
    mirror: Chance = 0.5
    colour: Weight = 0.4
    cover: Chance = 0.3
    background: Chance = 0.7
    recolour: Chance = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> Views:
        if self.smaller > self.larger:
            raise ValueError(f"smaller ({self.smaller}) must not be above larger ({self.larger})")
        return self


class Unlabelled(Part):
    """Images without labels: backgrounds, and what shows nothing that is trained on.

    Attributes:
        root: their folder, relative to the run's ``root``. Those whose names begin with the ImageNet class of
            an object (``n03792782_mountain_bike.jpg``) count as negatives.
        every: one of so many is used, in the order of their names, from the first on.
        negatives: views of such images, a step.
    """

    root: str
    every: Count = 1
    negatives: Number = 2


class Objective(Part):
    """Weights of the parts of the loss; see `geoaware.training.backbone.objective`.

    A transformer has no ``presence``, ``familiar`` and ``upright``: by these the embedded network weighs its
    two kinds of descriptors, of which a transformer has one.

    Attributes:
        cells: cross-entropy over the target's cells, for annotated keypoints.
        dense: the paper's dense loss, in cells.
        keypoints: cross-entropy over the other view's keypoints.
        own: cross-entropy for points that nobody annotated, between two views of one object.
        presence: of being on an object.
        familiar: of showing one at all.
        upright: of the turn that makes a view stand upright.
        spread: standard deviation of the wanted distribution around a keypoint, in cells.
        points: that nobody annotated, on each object shown twice.
        limbs: points between two keypoints that a limb joins, a step; they count as keypoints.
    """

    cells: Weight = 1.0
    dense: Weight = 0.05
    keypoints: Weight = 0.5
    own: Weight = 0.3
    presence: Weight = 0.3
    familiar: Weight = 0.1
    upright: Weight = 0.1
    spread: Positive = 0.7
    points: Number = 48
    limbs: Number = 8


def _odd_or_whole(window: int) -> int:
    if window % 2 == 0 and window < TunedSettings().canvas // STRIDE:
        raise ValueError(f"must be odd, or the whole map, got {window}")
    return window


class Checks(Validation):
    """Validation sets, and how they are matched; see `Validation` for the rest.

    Attributes:
        window: of the window soft-argmax, in cells.
        temperature: of the softmax.
    """

    window: Annotated[Count, AfterValidator(_odd_or_whole)] = 9
    temperature: Positive = 0.03


class TuneConfig(RunSettings):
    """A whole run; see `RunSettings` for what every run has.

    Attributes:
        backbone: what is trained: the embedded network, or a transformer (``dinov2-base``, ``dinov3-base``,
            ``hub:ORGANISATION/NAME`` and their like).
        backbone_settings: of a transformer, as for `load_extractor`: weights, revision, canvas, block, ….
        lora: train low-rank updates of a transformer.
        unfreeze: train so many of a transformer's last blocks instead.
        checkpointing: compute a transformer's blocks again in the backward pass instead of keeping what is
            inside them: less memory, more time.
        shape: of the embedded network's decoder.
        data: what to train on.
        without: categories that are left out.
        unlabelled: images without labels; a transformer can do without them, and then no object is shown
            before another background or in another coat.
        cache: folder of decoded objects and images; what is missing is made first.
        views: how objects are shown.
        crop: side of the decoded objects in pixels.
        size: side of views in pixels: a multiple of 32, of a transformer of its patch.
        objective: the loss.
        steps: of the optimiser.
        warmup: steps in which the rate rises.
        cooling: last steps, in which the rate falls to 0.
        learning_rate: of the decoder.
        backbone_rate: of the backbone, also of what is trained of a transformer, relative to it.
        prototype_rate: of what the loss learns and of the network's `familiar`, relative to it.
        weight_decay: of AdamW.
        average: decay of the moving average of the weights, which is what is saved.
        workers: threads that decode images and make views; the number of cores when not given.
    """

    backbone: str = EMBEDDED
    backbone_settings: dict[str, Any] = Field(default_factory=dict)
    lora: Lora | None = None
    unfreeze: Number = 0
    checkpointing: bool = False
    shape: Shape = Shape()
    data: Annotated[list[Trained], Field(min_length=1)]
    without: list[str] = Field(default_factory=list)
    unlabelled: Unlabelled | None = None
    cache: str = "cache"
    views: Views = Views()
    crop: Annotated[int, Field(ge=32, le=2048)] = 320
    size: Annotated[int, Field(ge=32)] = 256
    objective: Objective = Objective()
    steps: Count
    warmup: Count = 50
    cooling: Number = 0
    learning_rate: Positive = 5e-4
    backbone_rate: Weight = 0.1
    prototype_rate: Weight = 6.0
    weight_decay: Weight = 0.02
    average: Annotated[float, Field(ge=0, lt=1)] = 0.995
    workers: Count | None = None
    validation: Checks = Checks()
    log_every: Count = 20

    @model_validator(mode="after")
    def _of_one_kind(self) -> TuneConfig:
        if self.size > self.crop:
            raise ValueError(f"size: input should be less than or equal to {self.crop} (got {self.size})")
        if self.unlabelled and self.crop > WHOLE:
            raise ValueError(f"crop: can be {WHOLE} at most with images without labels, got {self.crop}")
        wrong = _not_of_embedded(self) if self.backbone == EMBEDDED else _not_of_transformer(self)
        if wrong:
            raise ValueError(wrong)
        return self

    @property
    def use(self) -> str:
        """Options by which a command takes the weights of the run; their folder is to follow."""
        if self.backbone == EMBEDDED:
            return "--extractor lite --set weights="
        own = [f"--set {key}={value}" for key, value in self.backbone_settings.items()]
        return " ".join(["--extractor", self.backbone, *own, "--set adapter="])


def _not_of_embedded(config: TuneConfig) -> str | None:
    """What is wrong with the settings of a run of the embedded network."""
    if config.size % 32:
        return f"size: input should be a multiple of 32 (got {config.size})"
    if config.unlabelled is None:
        return "unlabelled: field required"
    for name in ("backbone_settings", "lora", "unfreeze", "checkpointing"):
        if getattr(config, name):
            return f"{name}: is for transformers; leave it out, or set backbone (dinov2-base, …)"
    return None


def _not_of_transformer(config: TuneConfig) -> str | None:
    """What is wrong with the settings of a run of a transformer."""
    if (config.lora is None) == (config.unfreeze == 0):
        return f"backbone: of {config.backbone} either lora or unfreeze is trained; set one of them"
    if config.shape != Shape():
        return f"shape: is of the decoder of {EMBEDDED}; leave it out"
    if config.unlabelled and config.unlabelled.negatives:
        return f"unlabelled.negatives: only {EMBEDDED} learns from them; set it to 0"
    for name in ("presence", "familiar", "upright"):
        if getattr(config.objective, name) not in (0, getattr(Objective(), name)):
            return f"objective.{name}: only {EMBEDDED} learns it; leave it out"
    if "adapter" in config.backbone_settings:
        return "backbone_settings.adapter: give it as start, to go on from it"
    if config.backbone_settings.get("facet", "token") != "token":
        return "backbone_settings.facet: only token can be trained"
    return None


def load_config(place: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TuneConfig:
    """A run's settings from a YAML file or of a shipped name; see `geoaware.runs.settings.load`."""
    return settings.load(TuneConfig, place, CONFIGS, changes)


def run_folder(place: str | os.PathLike[str]) -> Path:
    """Where a run goes that was given no folder."""
    return Path("runs") / f"tune-{Path(place).stem}"
