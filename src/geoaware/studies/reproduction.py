"""The paper from nothing: data, weights, features, predictions, trainings, tables; each step once.

    ROOT/SPair-71k  ROOT/PF-PASCAL  ROOT/ap-10k   the data sets; the first two are fetched where they are not
    OUT/features                                  unless another cache is given
    OUT/predictions/spair71k/zero-shot.jsonl …    as of every study
    OUT/runs/spair71k/ …                          training runs
    OUT/ablation/ OUT/ablation.json               the leave-one-out rows
    OUT/rates.json                                what steps took here, for estimates

Every step is what another command does as well: `data get`, `data build-ap10k`, `extract`, `train`,
`ablation`, and `reproduce` of the tables one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from geoaware.data.ap10k_pairs import Rules
from geoaware.evaluation.predict import PredictSettings
from geoaware.features import load_extractor
from geoaware.features.captioner import CLIP_HUB_ID
from geoaware.features.refined import load_post_processor
from geoaware.features.stable_diffusion import HUB_IDS
from geoaware.method.geometry import Pose
from geoaware.method.post_processor import PostProcessor, PostProcessorSettings
from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing
from geoaware.runs.progress import Tell, silent
from geoaware.runs.weights import Source
from geoaware.store.extraction import free_disk
from geoaware.store.feature_store import MANIFEST, CachedExtractor, FeatureStore
from geoaware.store.stored_file import encoded_size
from geoaware.studies.ablation import ablate
from geoaware.studies.ablation_table import ROWS, to_json, trained_rows
from geoaware.studies.case import slug
from geoaware.studies.catalogue import choose
from geoaware.studies.conduct import Report, conduct, wanted
from geoaware.studies.costs import Rates, Work, kind_of, note_rate
from geoaware.studies.paper_data import IMAGES, PaperData, published_pairs
from geoaware.studies.planned import (
    EXTRACTOR,
    WIDTHS,
    Widths,
    map_shapes,
    planned_extractor,
    planned_network,
)
from geoaware.studies.steps import Step
from geoaware.studies.study import PAPER, SetConfig, Study, StudyConfig, TrainingConfig
from geoaware.studies.trained import is_of
from geoaware.studies.variants import POST_PROCESSOR, ZERO_SHOT, Bench, Variant
from geoaware.training.post_processor.augment import POSES
from geoaware.training.post_processor.config import TrainConfig, load_config
from geoaware.training.post_processor.features import complete
from geoaware.training.post_processor.groups import make_groups
from geoaware.training.post_processor.loop import BEST, LAST, train
from geoaware.training.settings import DataChoice

TABLES = ("table2", "table3", "table4", "table5", "table9", "table12", "table13")
"""What is made, by the names of the analyses."""

ABLATION, RUNS = "ablation", "runs"

_VALIDATION_ROOM = 3 << 30
# Bytes of feature maps that validation keeps (`training.validation`).


@dataclass(frozen=True)
class Choices:
    """How the steps are done.

    Attributes:
        settings: of the extractor, as for `load_extractor`.
        training: whether anything is trained.
        post_processor: ``"auto"``: those that are trained; ``"none"``; or the place of one for all data sets.
        ablation: the JSON of an ablation that is there, instead of one that is made.
        pairs, seed: how many pairs of each data set are tested, and which; all if not given.
        protocol: other than the data sets' own.
        matching: see `evaluation.predict.matching_settings`.
        predict: settings of the predictions, but for protocol and masks.
        memory: bytes of features that variants share.
        device, dtype: that compute.
        changes: of the configurations that are trained, by dotted key.
        rules: of AP-10K's pairs.
        widths: channels of the raw maps.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    training: bool = True
    post_processor: str = "auto"
    ablation: Path | None = None
    pairs: int | None = None
    seed: int = 0
    protocol: str | None = None
    matching: str = "auto"
    predict: PredictSettings = field(default_factory=PredictSettings)
    memory: int = 2 << 30
    device: str = "auto"
    dtype: str = "fp32"
    changes: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    widths: Widths = WIDTHS


@dataclass
class Reproduction:
    """The steps to the paper's tables, each found done or not by what lies on disk.

    Attributes:
        root: folder of the data sets.
        out: folder of everything that is made.
        cache: folder of the features.
        study: the paper's data sets, and what is trained for them.
        rates: what a unit of work takes.
    """

    root: Path
    out: Path
    cache: Path
    study: StudyConfig
    choices: Choices
    rates: Rates
    tell: Tell = silent
    say: Callable[[str], None] = lambda _: None
    _extractor: CachedExtractor | None = field(default=None, init=False)
    _was_loaded: bool = field(default=False, init=False)
    _whole: set[Path] = field(default_factory=set, init=False)

    def check(self) -> None:
        """Find out before anything is computed what is missing; this loads the networks.

        Raises:
            InputError: something is missing that is not fetched; the message says what to do.
        """
        missing = [step.missing for step in self.steps() if step.missing]
        if missing:
            more = f" (a dry run lists {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(f"{missing[0]}{more}")
        size, free = sum(each.line.left.disk for each in self._extracting()), free_disk(self.cache)
        if free is not None and size > free:
            raise InputError(
                f"{self.cache}: features take {size / 1e9:,.1f} GB more, {free / 1e9:,.1f} GB are free; make "
                "room, or choose another folder",
                "cache",
            )
        self.extractor()

    def steps(self) -> list[Step]:
        """All of them, in order."""
        return [
            self._weights(),
            *self.data.steps(self.rates, self.tell),
            *self._extracting(),
            *self._predicting(ZERO_SHOT),
            *map(self._training, self.trained),
            *self._predicting(POST_PROCESSOR),
            *([self._ablation()] if self._ablates else []),
        ]

    def report(self) -> Report:
        """The tables, of predictions and runs that are there."""
        found = conduct(self._study(), PAPER, self._tables, about=self.study.about)
        path = self.choices.ablation or (self._ablation_file if self._ablates else None)
        rows = () if path is None else (trained_rows(path),)
        return replace(found, outcomes=(*found.outcomes, *rows))

    # What there is.

    @property
    def _tables(self) -> list[Any]:
        return [each for name in TABLES for each in choose(name)]

    @property
    def trained(self) -> list[str]:
        """Names of the post-processors that are trained for the data sets, in order."""
        if not self.choices.training or self.choices.post_processor != "auto":
            return []
        return list(self.study.networks)

    @property
    def _ablates(self) -> bool:
        return self.choices.training and self.choices.ablation is None and self.study.ablation is not None

    @property
    def _ablation_file(self) -> Path:
        return self.out / f"{ABLATION}.json"

    @cached_property
    def configs(self) -> dict[str, TrainConfig]:
        """Configurations of what is trained, by name."""
        given = {name: self.study.networks[name] for name in self.trained}
        if self._ablates and self.study.ablation is not None:
            given[ABLATION] = self.study.ablation
        return {name: self._config(name, each) for name, each in given.items()}

    def _config(self, name: str, given: TrainingConfig) -> TrainConfig:
        changes = {
            "root": str(self.root),
            "cache": str(self.cache),
            "extractor_settings": dict(self.choices.settings),
            **self.choices.changes,
        }
        if given.start in self.trained:
            changes["start"] = str(self._run(given.start) / LAST)
        config = load_config(given.config, changes)
        if name != ABLATION:
            return config
        # Its rows are compared on the data set of the tables.
        data = [
            DataChoice(name=each.name, root=str(each.root), split=each.split, options=each.options)
            for each in self.study.sets
            if each.label in given.tests
        ]
        tested = config.validation.model_copy(update={"data": data, "pairs": self.choices.pairs})
        return config.model_copy(update={"validation": tested})

    @cached_property
    def data(self) -> PaperData:
        """The data sets."""
        chosen = self.choices
        splits = [
            choice
            for config in self.configs.values()
            for choice in (*(one for stage in config.stages for one in stage.data), *config.validation.data)
        ]
        return PaperData(
            self.root, self.study.sets, splits, chosen.pairs, chosen.seed, chosen.protocol, chosen.rules
        )

    def _run(self, name: str) -> Path:
        return self.out / RUNS / name

    def extractor(self) -> CachedExtractor:
        """The paper's, reading features from the cache and keeping there what it computes.

        Raises:
            InputError: its weights are not there.
        """
        if self._extractor is None:
            chosen = self.choices
            plain = load_extractor(EXTRACTOR, chosen.device, chosen.dtype, **chosen.settings)
            store = FeatureStore.of(self.cache, plain)
            self._extractor, self._store, self._was_loaded = CachedExtractor(plain, store), store, True
        return self._extractor

    @cached_property
    def _store(self) -> FeatureStore | None:
        """Where the features are: before the networks are loaded, the newest set of the cache."""
        found = self.cache.glob(f"{EXTRACTOR}-fp16-*/{MANIFEST}")
        newest = max(found, key=lambda each: each.stat().st_mtime, default=None)
        return None if newest is None else FeatureStore.open(newest.parent)

    # The networks and the features.

    def _weights(self) -> Step:
        given = self.choices.settings
        captioner = given.get("sd15.captioner")
        places = [("sd15", "sd15.weights", HUB_IDS["sd15"]),
                  ("dinov2-base", "dinov2-base.weights", "facebook/dinov2-base"),
                  *([("sd15", "sd15.clip_weights", CLIP_HUB_ID)] if captioner else [])]  # fmt: skip
        here = all(Source(name, given.get(key) or hub, hub).is_here for name, key, hub in places)
        missing = ""
        if "sd15.captioner" not in given or (captioner and not Path(captioner).is_file()):
            what = f"{captioner}: no such file" if captioner else "no implicit captioner is given"
            missing = (
                f"{what}; the paper's features need the one of ODISE's checkpoint: `geoaware info "
                "--convert-captioner odise_label_coco_50e-b67d2efc.pth --out captioner.safetensors`, then "
                "give the setting sd15.captioner=captioner.safetensors (or =null, to do without)"
            )
        size = 0 if here else self.rates.size.get("weights", 0)
        done = here or self._was_loaded
        return Step("weights", self.extractor, int(done), left=Work(disk=size), missing=missing)

    def _files(self) -> dict[Path, set[tuple[Path, Pose]]]:
        """Feature files that are needed, by the folder of their data set, as far as that is there."""
        found: dict[Path, set[tuple[Path, Pose]]] = {root: set() for root in self.data.names}

        def add(root: str | Path, paths: Iterable[Path], poses: Sequence[Pose]) -> None:
            found[Path(root)] |= {(path, pose) for path in paths for pose in poses}

        for config in self.study.sets:
            data = self.data.of(config).data
            add(config.root, (image.path for image in data.images), POSES[:1])
            add(config.root, (pair.source.path for pair in data.pairs), POSES)
        for run in self.configs.values():
            poses = POSES if run.flips.used else POSES[:1]
            chosen = [(choice, poses) for stage in run.stages for choice in stage.data]
            for choice, turned in (*chosen, *((each, POSES[:1]) for each in run.validation.data)):
                if (split := self.data.split(choice)) is not None:
                    add(choice.root, (image.path for image in split.images), turned)
        return found

    def _extracting(self) -> Iterator[Step]:
        size = encoded_size(map_shapes(self.choices.settings, self.choices.widths), "fp16")
        needed = self._files()
        for root, name in self.data.names.items():
            files = needed[root]
            total = len(files) or len(POSES) * IMAGES.get(name, 0)
            done = total if root in self._whole else self._stored(files)
            if files and done == total:
                self._whole.add(root)
            work = Work({"extract": total - done}, (total - done) * size)
            yield Step(f"features of {root}", partial(self._extract, root), done, total, "files", work)

    def _stored(self, files: set[tuple[Path, Pose]]) -> int:
        """How many of the files are in the store, as far as that is known without opening the images."""
        store = self._store
        if store is None:
            return 0
        known = {path: store.index.known(path) for path, _ in files}
        return sum((image := known[path]) is not None and store.has(image, pose) for path, pose in files)

    def _extract(self, root: Path) -> None:
        extractor, files = self.extractor(), self._files()[root]
        assert isinstance(extractor.store, FeatureStore)
        turned = {path for path, pose in files if pose != POSES[0]}
        start, made = time.monotonic(), 0
        for paths, poses in ((turned, POSES), ({path for path, _ in files} - turned, POSES[:1])):
            made += complete(extractor.store, extractor.extractor, paths, poses, self.tell)
        self._whole.add(root)
        self._note("extract", made, start)

    def _note(self, kind: str, units: int, start: float) -> None:
        """Write down what work took that began at ``start``, for estimates."""
        if units > 0:
            note_rate(self.out, kind, units, time.monotonic() - start)

    # Predictions.

    def _predicting(self, subject: str) -> Iterator[Step]:
        """A step for each data set: all variants of plain features, or all of refined ones."""
        study, plain = self._planned, subject == ZERO_SHOT
        needed: dict[str, list[Variant]] = {of.config.label: [] for of in study.sets}
        for of, variant in wanted(study, self._tables):
            if (variant.subject == ZERO_SHOT) == plain:
                needed[of.config.label].append(variant)
        for of in study.sets:
            variants, pairs = needed[of.config.label], self.data.count(of)
            left = [each for each in variants if not study.is_there(of, each)]
            units: dict[str, int] = {}
            for kind in _kinds(left):
                units[kind] = units.get(kind, 0) + pairs
            size = len(left) * pairs * self.rates.size.get("record", 0)
            work = Work(units, size, self._loaded_size + 2 * self.choices.memory)
            run, done = partial(self._predict, of.config, left), len(variants) - len(left)
            if variants:
                name = f"predictions of {of.config.label}, {subject}"
                yield Step(name, run, done, len(variants), "variants", work)

    def _predict(self, config: SetConfig, variants: Sequence[Variant]) -> None:
        study, of = self._study(), self.data.of(config)
        for number, (each, kind) in enumerate(zip(variants, _kinds(variants), strict=True), start=1):
            start = time.monotonic()
            study.run(of, each, f"({number} of {len(variants)})")
            self._note(kind, len(of.data), start)

    @property
    def _loaded_size(self) -> int:
        """Bytes of the extractor's networks."""
        return self.rates.size.get("weights", 0)

    @cached_property
    def _given(self) -> PostProcessor | None:
        """The post-processor that is given for all data sets."""
        place = self.choices.post_processor
        return None if place in ("auto", "none") else load_post_processor(place)

    @property
    def _planned(self) -> Study:
        """The study, but for its networks: it names its predictions, and makes none."""
        sets, (main, benches) = tuple(map(self.data.of, self.study.sets)), self._planned_benches
        return Study(sets, main, self.out, as_in_paper=True, benches=benches)

    @cached_property
    def _planned_benches(self) -> tuple[Bench, dict[str, Bench]]:
        widths, given = self.choices.widths, self._given
        plain = planned_extractor(self.choices.settings, widths)

        made: dict[str, Bench] = {}

        def bench(settings: PostProcessorSettings, matching: Mapping[str, Any]) -> Bench:
            if (key := repr((settings, matching))) not in made:
                network = planned_network(settings, matching, widths)
                made[key] = Bench(plain, network, self.choices.matching)
            return made[key]

        main = Bench(plain, matching=self.choices.matching)
        if given is not None:
            main = bench(given.settings, given.info.get("matching", {}))
        return main, {
            label: bench(config.network, config.matching.model_dump(exclude_none=True))
            for label, config in self._config_of.items()
        }

    @property
    def _config_of(self) -> dict[str, TrainConfig]:
        """By the label of a data set, the training whose post-processor it is matched with."""
        return {label: self.configs[name] for name in self.trained for label in self._labels(name)}

    def _labels(self, name: str) -> list[str]:
        """Data sets that are matched with a training's post-processor."""
        tests = self.study.networks[name].tests
        return [each.label for each in self.study.sets if each.label in tests]

    def _study(self) -> Study:
        """The study with the networks that there are."""
        chosen = self.choices
        bench = partial(Bench, self.extractor(), matching=chosen.matching, memory=chosen.memory)
        networks = {
            label: PostProcessor.from_pretrained(self._run(name) / BEST)
            for name in self.trained
            if _is_trained(self.configs[name], self._run(name), self._length(name))
            for label in self._labels(name)
        }
        return Study(
            tuple(map(self.data.of, self.study.sets)),
            bench(self._given),
            self.out,
            chosen.predict,
            tell=self.tell,
            say=self.say,
            as_in_paper=True,
            benches={label: bench(each) for label, each in networks.items()},
        )

    # Trainings.

    def _length(self, name: str) -> int | None:
        """Steps of a run; ``None`` while its pairs cannot be counted."""
        total = 0
        for number, stage in enumerate(self.configs[name].stages):
            splits = [self.data.split(each) for each in stage.data]
            loaded = [each for each in splits if each is not None]
            if len(loaded) == len(splits):
                groups = len(make_groups(stage, loaded, f"plan/{number}"))
            else:
                counts = [published_pairs(each.name, each.split, each.options) for each in stage.data]
                if None in counts:
                    return None
                groups = sum(each for each in counts if each is not None)
            total += stage.length(groups)
        return total

    def _training(self, name: str) -> Step:
        config, folder, length = self.configs[name], self._run(name), self._length(name)
        done = _steps_done(config, folder)
        left = None if length is None else max(0, length - done)
        validations = 0 if left is None else -(-left // config.validation.every)
        pairs = config.validation.pairs or 0
        units = None if left is None else {"step": left, kind_of(POST_PROCESSOR, "off"): validations * pairs}
        work = Work(units, self.rates.size.get("run", 0), self._loaded_size + _VALIDATION_ROOM)
        parts = (0, 1, "") if length is None else (done, length, "steps")
        return Step(f"training {name}", partial(self._train, name), *parts, work)

    def _train(self, name: str) -> None:
        config, folder, start = self.configs[name], self._run(name), time.monotonic()
        before = _steps_done(config, folder)
        self._extractor = None  # the run loads it for itself

        def tell(what: str, done: int, total: int, note: str = "", /) -> None:
            self.tell(f"{name}, {what}", done, total, note)

        train(config, folder, device=self.choices.device, tell=tell, say=self.say)
        self._note("step", _steps_done(config, folder) - before, start)

    def _ablation(self) -> Step:
        config, length = self.configs[ABLATION], self._length(ABLATION)
        runs = dict.fromkeys(each.trained_as for each in ROWS)
        tests = () if self.study.ablation is None else self.study.ablation.tests
        tested = [self.data.of(each) for each in self.study.sets if each.label in tests]
        folders = [self.out / ABLATION / slug(each) / f"seed{config.seed}" for each in runs]
        done, units = 0, None
        if length is not None:
            found = (checkpoint.position(each) for each in folders)
            done = sum(min(length, position.total) for position in found if position is not None)
            pairs = len(ROWS) * sum(map(self.data.count, tested))
            units = {"step": len(runs) * length - done, kind_of(POST_PROCESSOR, "off"): pairs}
        size = len(runs) * self.rates.size.get("run", 0)
        work = Work(units, size, 2 * self._loaded_size + self.choices.memory)
        made = self._ablation_file.is_file()
        total = len(runs) * (length or 0)
        return Step("ablation", self._ablate, total + 1 if made else done, total + 1, "steps", work)

    def _ablate(self) -> None:
        self._extractor = None
        where, device = self.out / ABLATION, self.choices.device
        found = ablate(self.configs[ABLATION], where, seeds=1, device=device, tell=self.tell, say=self.say)
        with replacing(self._ablation_file) as draft:
            draft.write_text(to_json(found) + "\n", encoding="utf-8")


def _kinds(variants: Sequence[Variant]) -> list[str]:
    """The kind of work of each variant, in the order in which they are made."""
    chosen = set[tuple[str, str]]()
    kinds = []
    for each in variants:
        kinds.append(kind_of(each.subject, each.pose, (each.subject, each.pose) in chosen))
        chosen.add((each.subject, each.pose))
    return kinds


def _steps_done(config: TrainConfig, folder: Path) -> int:
    """Steps that a run has done; 0 where the folder is of another one, which then says so itself."""
    found = checkpoint.position(folder) if is_of(config, folder) else None
    return 0 if found is None else found.total


def _is_trained(config: TrainConfig, folder: Path, length: int | None) -> bool:
    return length is not None and _steps_done(config, folder) >= length
