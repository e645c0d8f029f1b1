"""What a training run of a post-processor does; the defaults are the paper's.

Files that come with the package are known by name (``geoaware train spair71k``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessorSettings
from geoaware.runs import settings
from geoaware.runs.settings import Count, Part, Positive, Weight
from geoaware.training.settings import CONFIGS, DataChoice, RunSettings

SPAIR_PAIRS = 53_339
"""Training pairs of SPair-71k, for which the released schedule is fixed."""


def _with_tuples(given: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where settings of extractors have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


class Loss(Part):
    """The objective of a pair; see `geoaware.method.losses`.

    Attributes:
        dense: weight of the dense loss.
        sparse: weight of the sparse loss.
        distillation: weight of the distillation loss, which holds points that nobody annotated to the
            extractor's own similarities; not in the paper, so 0.
        temperature: of the soft-argmax.
        window: side of its window in cells; the whole map when not given (paper).
        noise: standard deviation of the noise on target positions, as a share of half the longer side of the
            target's box.
        reduction: over a pair's keypoints.
        target: ``"position"``: the annotated one; ``"flow"``: as released, less the fraction of the source's
            position within its cell.
    """

    dense: Weight = 1.0
    sparse: Weight = 1.0
    distillation: Weight = 0.0
    temperature: Positive = 0.02
    window: Count | None = None
    noise: Weight = 0.1
    reduction: Literal["mean", "sum"] = "mean"
    target: Literal["position", "flow"] = "position"


class Flips(Part):
    """Weights of the pose-variant pairs (section 4.3); the pair as it is has weight 1."""

    double: Weight = 1.0
    single: Weight = 1.0
    self: Weight = 0.25

    @property
    def used(self) -> bool:
        """Whether features of mirrored images are needed at all."""
        return max(self.double, self.single, self.self) > 0


class Stage(Part):
    """One schedule over one or several data sets; later stages go on with the weights of earlier ones.

    Attributes:
        data: what to train on.
        images: ``None``: a group is a pair of the data set's list. A number: that many images drawn at
            random, and all ordered pairs between them: each image is refined once for many pairs.
        mix: with ``images``: whether a group keeps to one category, or to one set of keypoint names.
        epochs: over the pairs of all data sets; or
        steps: of the optimiser.
        batch: groups a step, over all processes.
        accumulate: in how many parts a process takes its groups of a step.
        learning_rate: peak of the one-cycle schedule.
        rising: share of the schedule that rises.
        weight_decay: of AdamW.
    """

    data: Annotated[list[DataChoice], Field(min_length=1)]
    images: Annotated[int, Field(ge=2)] | None = None
    mix: Literal["category", "schema"] = "category"
    epochs: Positive | None = None
    steps: Count | None = None
    batch: Count = 1
    accumulate: Count = 1
    learning_rate: Positive = 1.25e-3
    rising: Annotated[float, Field(gt=0, lt=1)] = 0.3
    weight_decay: Weight = 1e-3

    def length(self, groups: int) -> int:
        """Steps of the optimiser, over so many groups."""
        return self.steps or max(1, math.ceil((self.epochs or 0.0) * groups / self.batch))


class Matching(Part):
    """How the trained descriptors are matched: in validation, and by `Matcher` afterwards.

    Attributes:
        window: of the window soft-argmax in cells, odd; the paper's 15 belongs to a grid of 60.
        temperature: of the softmax.
        inside_picture: see `MatchSettings`.
        interpolate: see `MatchSettings`.
        blend: share of the refined descriptors in the similarity, the rest being the extractor's own. The
            loss, too, is of the blended ones: below 1 the network learns what the extractor does not know.
        pose: pose alignment, for `Matcher` only.
        pose_rule: likewise.
    """

    window: Count = 15
    temperature: Positive = 0.02
    inside_picture: bool = False
    interpolate: bool = False
    blend: Annotated[float, Field(gt=0, le=1)] = 1.0
    pose: Literal["off", "flip", "rotate"] = "off"
    pose_rule: str | None = None

    def settings(self) -> MatchSettings:
        """For `match`."""
        return MatchSettings(**self.model_dump(exclude={"blend", "pose", "pose_rule"}))


class TrainConfig(RunSettings):
    """A whole run; see `RunSettings` for what every run has.

    Attributes:
        extractor: name of the features.
        extractor_settings: as for `load_extractor`.
        cache: folder of the features; what is missing is extracted first.
        stored: how the cache stores them.
        network: the post-processor (that of ``start`` must agree); its channels are the extractor's.
        loss: the objective.
        flips: pose-variant pairs.
        stages: in order.
        matching: of the trained descriptors.
        preset: ``"released"`` follows the released code where the paper differs: flow targets, no single
            flip, the schedule fixed at SPair-71k's length.
    """

    renamed: ClassVar[Mapping[str, str]] = {"loss.keep": "distillation", "stages.*.pictures": "images"}

    extractor: str = "sd15+dinov2-base"
    extractor_settings: Annotated[dict[str, Any], AfterValidator(_with_tuples)] = Field(default_factory=dict)
    cache: str = "features"
    stored: Literal["fp16", "fp32", "int8"] = "fp16"
    network: PostProcessorSettings = PostProcessorSettings()
    loss: Loss = Loss()
    flips: Flips = Flips()
    stages: Annotated[list[Stage], Field(min_length=1)]
    matching: Matching = Matching()
    preset: Literal["paper", "released"] = "paper"

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        """Refuse settings that do not go together."""
        if self.network.channels:
            raise ValueError("network.channels are those of the extractor; leave them out")
        for key, window in (("loss", self.loss.window), ("matching", self.matching.window)):
            if window is not None and window % 2 == 0 and window < self.network.grid:
                raise ValueError(f"{key}.window must be odd, or the whole grid, got {window}")
        for number, stage in enumerate(self.stages):
            if (stage.epochs is None) == (stage.steps is None):
                raise ValueError(f"stages.{number} needs either epochs or steps")
            if stage.images is not None and stage.steps is None:
                raise ValueError(f"stages.{number} draws groups of images and so needs steps")
        return self

    def as_released(self) -> TrainConfig:
        """The run with the preset's changes applied."""
        if self.preset == "paper":
            return self
        loss = self.loss.model_copy(update={"target": "flow"})
        flips = self.flips.model_copy(update={"single": 0.0})
        return self.model_copy(update={"loss": loss, "flips": flips})


def load_config(place: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A run's settings from a YAML file, or from one that comes with the package, by its name.

    Changes are values by dotted key (``loss.window``, ``stages.0.steps``), which go before the file's.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that cannot be.
    """
    return settings.load(TrainConfig, place, CONFIGS, changes)
