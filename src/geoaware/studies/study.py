"""A study: data sets, a bench of matchers, and a folder where every predictions file is kept and found again.

    OUT/predictions/lspet/zero-shot.jsonl
    OUT/predictions/lspet/zero-shot-window-5-pose-off.jsonl
    OUT/features/                                             unless another cache is given

A file is made by `evaluation.predict.predict` when an analysis first needs it: an interrupted one is gone on
with, a whole one of the same work is only read. Both folders may be deleted; they are made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geoaware.data import DataSet, load, options
from geoaware.data.masks import has_mask
from geoaware.evaluation import score_file
from geoaware.evaluation.predict import PredictSettings, Progress, choose_pairs, predict
from geoaware.evaluation.protocols import FOR_BASE, Protocol, get_protocol
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.statistics import Estimate, estimate
from geoaware.runs.errors import InputError
from geoaware.studies.ablation import METRICS, pair_values
from geoaware.studies.variants import Bench, Variant
from geoaware.training.post_processor.config import TrainConfig
from geoaware.training.post_processor.features import Bar, silent
from geoaware.training.post_processor.loop import Show as Steps

STUDIES = Path(__file__).resolve().parents[1] / "configs" / "studies"
"""Shipped studies, a YAML file each."""

PAPER = "paper"
"""The shipped study of the paper's own data sets."""

PREDICTIONS, FEATURES = "predictions", "features"

Requirement = Literal["azimuth", "masks", "subgroups"]

_LACKS: Mapping[Requirement, str] = {
    "azimuth": "no azimuth_id, so pairs have no difference of viewpoint",
    "masks": "no object masks (mask files, or segmentation in the annotations)",
    "subgroups": "no subgroups of alike keypoints, so there is no geometry-aware subset",
}


class SetConfig(BaseModel):
    """One data set of a study.

    Attributes:
        label: names its folder of predictions; small letters, digits, - and _.
        title: for headings; the label if not given.
        about: what a reader should know of it, in a sentence.
        name: of the loader: spair71k, coco …
        root: folder relative to the study's root.
        split: of the data set.
        options: of the loader.
        protocol: name; the data set's usual one if not given.
        skip: analyses that cannot be made of it, with the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str = ""
    about: str = ""
    name: str
    root: Path = Path()
    split: str
    options: dict[str, Any] = {}
    protocol: str | None = None
    skip: dict[str, str] = {}


class TrainingConfig(BaseModel):
    """What an analysis trains, and what it tests on.

    Attributes:
        config: a YAML file of a training run, or the name of a shipped one.
        tests: labels of the data sets to test on; all of the study if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str
    tests: tuple[str, ...] = ()


class StudyConfig(BaseModel):
    """Several data sets to measure alike.

    Attributes:
        about: what they have in common, in a sentence.
        sets: the data sets; labels differ.
        trainings: what the analyses that train take, by the name of the analysis.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = ""
    sets: tuple[SetConfig, ...]
    trainings: dict[str, TrainingConfig] = {}


@dataclass(frozen=True)
class Run:
    """A variant that was predicted and scored.

    Attributes:
        name: of the variant; the file's name without suffix.
        path: the predictions file.
        result: every figure of it.
    """

    name: str
    path: Path
    result: PCKResult

    @property
    def place(self) -> str:
        """The file below the study's folder of predictions, the same on every machine."""
        parts = self.path.parts
        below = len(parts) - parts[::-1].index(PREDICTIONS) if PREDICTIONS in parts else -1
        return "/".join(parts[below:])

    @cached_property
    def values(self) -> Float[np.ndarray, "p m"]:
        """Of each pair, in the file's order; columns as `training.ablation.METRICS`."""
        return pair_values(self.path)

    @cached_property
    def ends(self) -> tuple[list[str], list[str]]:
        """Ids of the source and of the target images."""
        records = list(_records(self.path))
        return [str(each["source"]) for each in records], [str(each["target"]) for each in records]

    @cached_property
    def turned(self) -> float:
        """Share of the pairs whose source was turned."""
        return float(np.mean([each["pose"] != "identity" for each in _records(self.path)]))

    def minus(self, other: Run) -> dict[str, Estimate]:
        """Difference to another run on the same pairs, pair by pair, by the keys of `METRICS`.

        Raises:
            ValueError: the pairs are not the same.
        """
        if self.ends != other.ends:
            raise ValueError(f"{self.path} and {other.path} hold different pairs")
        found = estimate((self.values - other.values)[None], *self.ends)
        return {metric.key: each for metric, each in zip(METRICS, found, strict=True)}


@dataclass(frozen=True)
class Case:
    """What an analysis is computed from: the runs of one data set.

    Attributes:
        label: of the data set, for file names.
        title: for headings.
        runs: by variant, in the order that the analysis asked for them.
    """

    label: str
    title: str
    runs: Mapping[Variant, Run]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every predictions file once."""
        return tuple(dict.fromkeys(run.path for run in self.runs.values()))


@dataclass(frozen=True)
class Training:
    """A training run that an analysis makes.

    Attributes:
        config: of the run.
        tests: labels of the data sets to test on; all if empty.
    """

    config: TrainConfig
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Telling:
    """How the progress of long work is shown.

    Attributes:
        bar: see `training.features.Bar`.
        steps: see `training.loop.train`.
        say: takes lines on what happens.
    """

    bar: Bar = silent
    steps: Steps = lambda done, total, figures: None
    say: Callable[[str], None] = lambda _: None

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """The bar as what is told how much is done."""
        with self.bar(title, total) as advance:
            done = 0

            def follow(finished: int, _: int) -> None:
                nonlocal done
                advance(finished - done)
                done = finished

            yield follow


@dataclass(frozen=True)
class StudySet:
    """A loaded data set with its protocol.

    Attributes:
        config: as the study has it.
        data: its pairs.
        protocol: under which they are scored.
    """

    config: SetConfig
    data: DataSet
    protocol: Protocol

    @property
    def title(self) -> str:
        """For headings."""
        return self.config.title or self.config.label

    def lacks(self, what: Requirement) -> str | None:
        """Why the data set cannot fulfil a requirement; ``None`` if it can."""
        pairs = self.data.pairs
        if what == "azimuth":
            there = any(pair.azimuth_difference is not None for pair in pairs)
        elif what == "masks":
            there = all(has_mask(pair.source) for pair in pairs)
        else:
            there = any(self.data.schema(pair).subgroups for pair in pairs)
        return None if there else f"{self.title}: {_LACKS[what]}"


class Study:
    """Data sets, each matched in many variants.

    Args:
        sets: the data sets.
        bench: makes the matchers.
        out: folder; predictions go below it.
        settings: of the predictions, but for protocol and masks.
        trainings: for the analyses that train, by name.
        telling: shows the progress.
        restart: throw away what earlier runs left, each file when it is first needed.
        as_in_paper: give each analysis only the data sets that the paper makes it of.
    """

    def __init__(
        self,
        sets: Sequence[StudySet],
        bench: Bench,
        out: Path,
        settings: PredictSettings | None = None,
        *,
        trainings: Mapping[str, Training] | None = None,
        telling: Telling | None = None,
        restart: bool = False,
        as_in_paper: bool = False,
    ) -> None:
        self.sets = tuple(sets)
        self.bench = bench
        self.out = out
        self.settings = settings or PredictSettings()
        self.trainings = trainings or {}
        self.telling = telling or Telling()
        self.restart = restart
        self.as_in_paper = as_in_paper
        self._done: dict[Path, Run] = {}

    def run(self, of: StudySet, variant: Variant, count: str = "") -> Run:
        """The predictions of a variant, made if they are not there, and their score.

        Args:
            of: one of the data sets.
            variant: what to predict.
            count: which of how many this is, for the bar.

        Raises:
            InputError: a file of another run is in the way, or the data set cannot be predicted so.
        """
        setup = self.bench.setup(variant, of.protocol.name)
        path = self.out / PREDICTIONS / of.config.label / f"{setup.name}.jsonl"
        if path not in self._done:
            keep_out_of_git(self.out / PREDICTIONS)
            settings = replace(self.settings, protocol=of.protocol.name, masks=setup.masks)
            with self.telling.progress(f"{of.config.label}/{setup.name} {count}", len(of.data)) as follow:
                predict(of.data, setup.matcher, path, settings, restart=self.restart, progress=follow)
            self._done[path] = Run(setup.name, path, score_file(path))
        return self._done[path]


def load_study(place: str | Path) -> StudyConfig:
    """A study from a YAML file or by the name of a shipped one.

    Raises:
        InputError: there is none, it is no YAML, or a key is unknown, missing or of the wrong kind.
    """
    path = _find(place)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        study = StudyConfig.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(each) for each in first["loc"]) or "the file"
        raise InputError(f"{path}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    labels = [each.label for each in study.sets]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"{path}: a study needs sets whose labels differ, got {labels}")
    for each in study.sets:
        if each.protocol is not None:
            get_protocol(each.protocol)
    return study


def is_study(place: str) -> bool:
    """Whether ``--dataset`` names a study rather than a data set."""
    return place.lower().endswith((".yaml", ".yml")) or (STUDIES / f"{place}.yaml").is_file()


def load_set(
    config: SetConfig, root: Path, *, pairs: int | None = None, seed: int = 0, protocol: str | None = None
) -> StudySet:
    """Load a data set of a study.

    Args:
        config: as the study has it.
        root: of the study; where it has no folder of the set's root, it is taken for the set's own.
        pairs: so many instead, of each category where the loader draws them by category.
        seed: of the choice of pairs.
        protocol: name, instead of the study's.

    Raises:
        InputError: the data set is not there or damaged; the message says what is needed.
    """
    folder = root / config.root
    given, draws_pairs = dict(config.options), "seed" in options(config.name)
    if pairs is not None and draws_pairs:
        given |= {"pairs": pairs, "seed": seed}
    try:
        data = load(config.name, folder if folder.is_dir() else root, config.split, **given)
    except InputError as error:
        raise InputError(
            f"{config.title or config.label} (--dataset {config.name}, split {config.split}) is needed: "
            f"{error}\nremedy: give the folder that holds {config.root} as --root (`geoaware data check "
            f"{config.name} DIR` says what is missing and where to get it), or other data with --dataset"
        ) from None
    if pairs is not None and not draws_pairs:
        data = choose_pairs(data, pairs, seed)
    name = protocol or config.protocol or FOR_BASE[data.threshold_base]
    return StudySet(config, data, get_protocol(name))


def keep_out_of_git(folder: Path) -> None:
    """Make a folder that git passes over: what is in it is large and can be made again."""
    mark = folder / ".gitignore"
    if not mark.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); choose another --out"
            ) from None


def _find(place: str | Path) -> Path:
    path, shipped = Path(place), STUDIES / f"{place}.yaml"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(each.stem for each in STUDIES.glob("*.yaml")))
    raise InputError(f"{path}: no such file; give a YAML file of data sets or a shipped study: {names}")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a predictions file that was read before."""
    with path.open(encoding="utf-8") as file:
        next(file)
        yield from map(json.loads, file)
