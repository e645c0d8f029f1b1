"""A study: data sets, a bench of matchers, and a folder where every predictions file is kept and found again.

    OUT/predictions/lspet/zero-shot.jsonl
    OUT/predictions/lspet/zero-shot-window-5-pose-off.jsonl
    OUT/features/                                             unless another cache is given

A file is made by `evaluation.predict.predict` when an analysis first needs it: an interrupted one is gone on
with, a whole one of the same work is only read. Both folders may be deleted; they are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from geoaware.data import DataSet, load, options
from geoaware.data.masks import has_mask
from geoaware.evaluation import score_file
from geoaware.evaluation.predict import PredictSettings, choose_pairs, predict
from geoaware.evaluation.protocols import Protocol, get_protocol, usual_protocol
from geoaware.runs import settings
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell, renamed, silent
from geoaware.runs.settings import Part
from geoaware.studies.case import PREDICTIONS, Run
from geoaware.studies.variants import Bench, Setup, Variant
from geoaware.training.post_processor.config import TrainConfig
from geoaware.training.settings import loadable

STUDIES = Path(__file__).resolve().parents[1] / "configs" / "studies"
"""Shipped studies, a YAML file each."""

PAPER = "paper"
"""The shipped study of the paper's own data sets."""

FEATURES = "features"
"""Folder of a study's features, where no other is given."""

Requirement = Literal["azimuth", "masks", "subgroups"]

_LACKS: Mapping[Requirement, str] = {
    "azimuth": "no azimuth_id, so pairs have no difference of viewpoint",
    "masks": "no object masks (mask files, or segmentation in the annotations)",
    "subgroups": "no subgroups of alike keypoints, so there is no geometry-aware subset",
}


class SetConfig(Part):
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

    label: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str = ""
    about: str = ""
    name: str
    root: Path = Path()
    split: str
    options: dict[str, Any] = Field(default_factory=dict)
    protocol: Annotated[str, AfterValidator(lambda name: get_protocol(name).name)] | None = None
    skip: dict[str, str] = Field(default_factory=dict)

    _loadable = model_validator(mode="after")(loadable)


def _labels_differ(sets: tuple[SetConfig, ...]) -> tuple[SetConfig, ...]:
    labels = [each.label for each in sets]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"a study needs sets whose labels differ, got {labels}")
    return sets


class TrainingConfig(Part):
    """What an analysis trains, a YAML file or the name of a shipped one, and the labels that it tests on.

    ``start`` names another one of the study's networks, from whose weights it goes on.
    """

    config: str
    tests: tuple[str, ...] = ()
    start: str = ""


class StudyConfig(Part):
    """Several data sets to measure alike: what they have in common, in a sentence, and one by one.

    What the analyses that train take is given by the name of the analysis. ``networks`` are the
    post-processors that `reproduce paper` trains for the data sets, in order, and ``ablation`` is what it
    trains for the leave-one-out rows.
    """

    about: str = ""
    sets: Annotated[tuple[SetConfig, ...], AfterValidator(_labels_differ)]
    trainings: dict[str, TrainingConfig] = Field(default_factory=dict)
    networks: dict[str, TrainingConfig] = Field(default_factory=dict)
    ablation: TrainingConfig | None = None


@dataclass(frozen=True)
class Training:
    """A training run that an analysis makes, and labels of the data sets to test on; all if empty."""

    config: TrainConfig
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudySet:
    """A data set of a study, loaded, with the protocol under which it is scored."""

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


@dataclass
class Study:
    """Data sets, each matched in many variants.

    Attributes:
        sets: the data sets.
        bench: makes the matchers.
        benches: instead of it, of data sets that have a post-processor of their own, by label.
        out: folder; predictions go below it.
        settings: of the predictions, but for protocol and masks.
        trainings: for the analyses that train, by name.
        restart: throw away what earlier runs left, each file when it is first needed.
        as_in_paper: give each analysis only the data sets that the paper makes it of.
    """

    sets: tuple[StudySet, ...]
    bench: Bench
    out: Path
    settings: PredictSettings = field(default_factory=PredictSettings)
    trainings: Mapping[str, Training] = field(default_factory=dict)
    tell: Tell = silent
    say: Callable[[str], None] = lambda _: None
    restart: bool = False
    as_in_paper: bool = False
    benches: Mapping[str, Bench] = field(default_factory=dict)
    _done: dict[Path, Run] = field(default_factory=dict, init=False)

    def bench_of(self, of: StudySet) -> Bench:
        """What makes the matchers of a data set."""
        return self.benches.get(of.config.label, self.bench)

    def is_there(self, of: StudySet, variant: Variant) -> bool:
        """Whether the predictions of a variant are made."""
        return self._place(of, self.bench_of(of).setup(variant, of.protocol.name)).is_file()

    def _place(self, of: StudySet, setup: Setup) -> Path:
        return self.out / PREDICTIONS / of.config.label / f"{setup.name}.jsonl"

    def forget(self) -> None:
        """Let go of all features."""
        for bench in (self.bench, *self.benches.values()):
            bench.forget()

    def run(self, of: StudySet, variant: Variant, count: str = "") -> Run:
        """The predictions of a variant on one of the data sets, made if they are not there, and their score.

        ``count``, which of how many this is, is for the progress.
        """
        setup = self.bench_of(of).setup(variant, of.protocol.name)
        path = self._place(of, setup)
        if path not in self._done:
            keep_out_of_git(self.out / PREDICTIONS)
            settings = replace(self.settings, protocol=of.protocol.name, masks=setup.masks)
            tell = renamed(self.tell, f"{of.config.label}/{setup.name} {count}")
            predict(of.data, setup.matcher, path, settings, restart=self.restart, progress=tell)
            self._done[path] = Run(setup.name, path, score_file(path))
        return self._done[path]


def load_study(place: str | Path) -> StudyConfig:
    """A study from a YAML file or by the name of a shipped one."""
    return settings.load(StudyConfig, place, STUDIES)


def is_study(place: str) -> bool:
    """Whether a place is that of a study rather than the name of a data set."""
    return place.lower().endswith((".yaml", ".yml")) or (STUDIES / f"{place}.yaml").is_file()


def load_set(
    config: SetConfig, root: Path, *, pairs: int | None = None, seed: int = 0, protocol: str | None = None
) -> StudySet:
    """Load a data set of a study, with other pairs or under another protocol where these are given.

    Where ``root`` has no folder of the set's root, it is taken for the set's own. ``pairs`` is a number, of
    each category where the loader draws them by category.

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
            f"{config.title or config.label} (data set {config.name}, split {config.split}) is needed: "
            f"{error}\nremedy: choose another data set, or give the folder that holds {config.root}; "
            f"`geoaware data check {config.name} DIR` says what is missing and where to get it",
            "root",
        ) from None
    if pairs is not None and not draws_pairs:
        data = choose_pairs(data, pairs, seed)
    name = protocol or config.protocol or usual_protocol(data).name
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
                f"{folder}: cannot be written ({error.strerror}); choose another", "out"
            ) from None
