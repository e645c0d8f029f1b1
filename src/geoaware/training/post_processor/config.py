"""What a training run does: defaults < YAML file < ``--set``; an unknown key is an error that lists the rest.

A file states only what differs from the defaults, which are the paper's. Files that ship with the package are
known by name (``geoaware train spair71k``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from geoaware.method.matching import MatchSettings
from geoaware.runs.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
"""Folder of the configurations that come with the package."""

SPAIR_PAIRS = 53_339
"""Training pairs of SPair-71k, for which the released schedule is fixed."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Model = TypeVar("Model", bound=BaseModel)


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where settings of extractors have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


ExtractorSettings = Annotated[dict[str, Any], AfterValidator(_with_tuples)]


class Part(BaseModel):
    """Settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataChoice(Part):
    """A split of a data set.

    Attributes:
        name: as `geoaware.data.load` knows it.
        root: the data set's folder, relative to the run's ``root``.
        split: to load.
        options: of the loader.
        keypoints: names of those to use; the others count as not annotated. All when not given.
        share: of the groups that are drawn from this data set, relative to the others of its stage; by
            default each has as many as it has pairs (images, when groups are drawn from images).
    """

    name: str
    root: str
    split: str = "trn"
    options: dict[str, Any] = {}
    keypoints: Annotated[list[str], Field(min_length=1)] | None = None
    share: Positive | None = None


class Network(Part):
    """Shape of the post-processor, beside the channels, which are the extractor's."""

    width: Count = 768
    grid: Count = 60
    dropout: Share = 0.2
    context: tuple[Count, ...] = ()
    centred: bool = False


class Loss(Part):
    """The objective of a pair; see `geoaware.method.losses`.

    Attributes:
        dense: weight of the dense loss.
        sparse: weight of the sparse loss.
        keep: weight of the distillation loss, which holds points that nobody annotated to the extractor's own
            similarities; not in the paper, so 0.
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
    keep: Weight = 0.0
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


class Validation(Part):
    """What decides which weights are the best: mean PCK over data sets, per image, pose alignment off.

    Attributes:
        data: validation splits; never test splits.
        every: steps between two validations; one at each stage's end in any case.
        pairs: of each data set, chosen by the seed; all when not given.
        alpha: of the PCK.
    """

    data: list[DataChoice] = []
    every: Count = 1000
    pairs: Count | None = None
    alpha: Positive = 0.1


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
        chosen = self.model_dump(include={"window", "temperature", "inside_picture", "interpolate"})
        return MatchSettings(**chosen)


class TrainConfig(Part):
    """A whole run.

    Attributes:
        extractor: name of the features.
        extractor_settings: as for `load_extractor`.
        root: folder that the data sets' roots are relative to.
        cache: folder of the features; what is missing is extracted first.
        stored: how the cache stores them.
        start: a post-processor to go on from, as for `PostProcessor.from_pretrained`.
        network: shape of the post-processor (that of ``start`` must agree).
        loss: the objective.
        flips: pose-variant pairs.
        stages: in order.
        validation: of the whole run.
        matching: of the trained descriptors.
        preset: ``"released"`` follows the released code where the paper differs: flow targets, no single
            flip, the schedule fixed at SPair-71k's length.
        precision: of the network; the losses are float32.
        seed: of everything drawn.
        save_every: steps between two checkpoints, beside those at validations.
        log_every: steps that a line of the log averages over.
    """

    extractor: str = "sd15+dinov2-base"
    extractor_settings: ExtractorSettings = {}
    root: str = "."
    cache: str = "features"
    stored: Literal["fp16", "fp32", "int8"] = "fp16"
    start: str | None = None
    network: Network = Network()
    loss: Loss = Loss()
    flips: Flips = Flips()
    stages: Annotated[list[Stage], Field(min_length=1)]
    validation: Validation = Validation()
    matching: Matching = Matching()
    preset: Literal["paper", "released"] = "paper"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Seed = 0
    save_every: Count = 500
    log_every: Count = 50

    def as_released(self) -> TrainConfig:
        """The run with the preset's changes applied."""
        if self.preset == "paper":
            return self
        return self.model_copy(
            update={
                "loss": self.loss.model_copy(update={"target": "flow"}),
                "flips": self.flips.model_copy(update={"single": 0.0}),
            }
        )


def load_config(place: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A run's settings from a YAML file.

    Args:
        place: a file, or the name of a configuration that ships with the package.
        changes: values by dotted key (``loss.window``, ``stages.0.steps``), which go before the file's.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that cannot be.
    """
    path = find_config(place)
    return parse_config(_read_yaml(path, TrainConfig, changes), str(path))


def load_model(
    model: type[Model], place: str | os.PathLike[str], changes: Mapping[str, Any] | None, folder: Path
) -> Model:
    """Settings of any class from a YAML file or one that ships in a folder, checked by the class alone.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that cannot be.
    """
    path = find_config(place, folder)
    try:
        return model.model_validate(_read_yaml(path, model, changes))
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error, model)}") from None


def _read_yaml(path: Path, model: type[BaseModel], changes: Mapping[str, Any] | None) -> dict[Any, Any]:
    """A file's content with values changed by dotted key.

    Raises:
        InputError: it cannot be read, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no valid YAML ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no configuration; expected keys such as {', '.join(_keys(model))}")
    for key, value in (changes or {}).items():
        _change(content, key, value)
    return content


def parse_config(content: Mapping[Any, Any], where: str) -> TrainConfig:
    """A run's settings from plain values.

    Raises:
        InputError: an unknown key, or a value that cannot be; names ``where``.
    """
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error, TrainConfig)}") from None
    for key, window in (("loss", config.loss.window), ("matching", config.matching.window)):
        if window is not None and window % 2 == 0 and window < config.network.grid:
            raise InputError(f"{where}: {key}.window must be odd, or the whole grid, got {window}")
    for number, stage in enumerate(config.stages):
        if (stage.epochs is None) == (stage.steps is None):
            raise InputError(f"{where}: stages.{number} needs either epochs or steps")
        if stage.images is not None and stage.steps is None:
            raise InputError(f"{where}: stages.{number} draws groups of images and so needs steps")
    return config


def find_config(place: str | os.PathLike[str], folder: Path = CONFIGS) -> Path:
    """A file, or by its name a configuration that ships in ``folder``.

    Raises:
        InputError: neither exists.
    """
    path = Path(place)
    shipped = folder / f"{place}.yaml"
    if path.is_file() or not shipped.is_file():
        if not path.is_file():
            names = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
            raise InputError(f"{path}: no such file; give a YAML file or one that is shipped: {names}")
        return path
    return shipped


def _change(content: dict[Any, Any], key: str, value: Any) -> None:
    """Set a dotted key; numbers are places in a list.

    Raises:
        InputError: the key leads through something that is neither a mapping nor a list.
    """
    *way, last = key.split(".")
    inside: Any = content
    for step in way:
        if isinstance(inside, dict):
            inside = inside.setdefault(step, {})
        elif isinstance(inside, list) and step.isdecimal() and int(step) < len(inside):
            inside = inside[int(step)]
        else:
            raise InputError(f"--set {key}: there is no {step!r} to set something in")
    if isinstance(inside, list) and last.isdecimal() and int(last) < len(inside):
        inside[int(last)] = value
    elif isinstance(inside, dict):
        inside[last] = value
    else:
        raise InputError(f"--set {key}: there is no {last!r} to set")


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem in one line; an unknown key, with the valid ones, goes before others it may cause."""
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(each) for each in first["loc"])
    if first["type"] != "extra_forbidden":
        came = "" if first["type"] == "missing" else f" (got {first.get('input')!r})"
        return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}{came}"
    return f"unknown key {key!r}; there are {', '.join(_keys(_model_at(model, first['loc'][:-1])))}"


def _model_at(model: type[BaseModel], way: Sequence[int | str]) -> type[BaseModel]:
    """The settings class that a key's way leads to, from ``model`` on."""
    for step in way:
        if isinstance(step, int):
            continue
        annotation: Any = model.model_fields[step].annotation
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            annotation = next(each for each in annotation.__args__ if each is not type(None))
        model = annotation
    return model


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)
