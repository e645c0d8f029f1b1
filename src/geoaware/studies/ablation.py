"""What each part of the method is worth: the leave-one-out rows of the paper's table 9, trained and compared.

A row is the run of a configuration with one part left out. All rows are matched on the same pairs, those of
the configuration's validation sets, with the weights of their last step: nothing is chosen on the images
that the table is about. What lies in the folder:

    full/seed0/                   a training run, as `training.loop` leaves it
    full/seed0/NAME-window.jsonl  its predictions on a validation set, as `evaluation.predict` leaves them
    without-dense/seed0/ …

Both parts go on where they were stopped, and what is finished is not done again.

Example:
    >>> table = ablate(load_config("ablation-lite"), Path("runs/ablation"))    # doctest: +SKIP
    >>> print("\\n".join(table.sentences()))                                    # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geoaware.data import DataSet
from geoaware.evaluation.comparison import Verdict, judge, points
from geoaware.evaluation.counts import GEOMETRY_AWARE, STANDARD, correct_points, count
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.predictions import read
from geoaware.evaluation.protocols import FOR_BASE, get_protocol
from geoaware.evaluation.statistics import Estimate, estimate
from geoaware.evaluation.tables import ERROR_LABELS
from geoaware.features import Extractor
from geoaware.matcher import Matcher
from geoaware.method.matching import Mode
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from geoaware.training.post_processor.config import Flips, TrainConfig, load_config
from geoaware.training.post_processor.features import Bar, cached_extractor
from geoaware.training.post_processor.loop import CONFIG, LAST, load_validation, train
from geoaware.training.settings import Validation

ALPHAS = (0.05, 0.1)
"""Thresholds of the PCK; the kinds of mistake are told at the last."""

Show = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Metric:
    """A column of the table: a share of a pair's points, averaged over the pairs.

    Attributes:
        key: in JSON.
        label: in tables.
        higher_is_better: which way is good.
    """

    key: str
    label: str
    higher_is_better: bool


METRICS: tuple[Metric, ...] = (
    *(Metric(f"pck@{alpha:g}", f"PCK@{alpha:.2f}", True) for alpha in ALPHAS),
    *(Metric(f"geometry_aware_pck@{alpha:g}", f"geo. PCK@{alpha:.2f}", True) for alpha in ALPHAS),
    *(Metric(each, ERROR_LABELS[each], each == "pck_dagger") for each in ERROR_TYPES),
)

HEADLINE = METRICS[len(ALPHAS) - 1]
"""PCK at the larger threshold: what rows are called better or worse by."""


@dataclass(frozen=True)
class Row:
    """A row of the table: what of the method is left in.

    Attributes:
        name: as in the table.
        dense: the dense loss. Without it nothing is gained from flips either: mirrored pairs carry the dense
            loss only (section 4.3), so they are not computed.
        flips: pose-variant pairs.
        noise: noise on the target positions, and dropout.
        mode: how similarity becomes position; it needs no training of its own.
        paper: the paper's figures on SPair-71k in per cent (table 9), by `Metric.key`.
    """

    name: str
    dense: bool = True
    flips: bool = True
    noise: bool = True
    mode: Mode = "window"
    paper: Mapping[str, float] = field(default_factory=dict)

    def configure(self, config: TrainConfig, seed: int) -> TrainConfig:
        """The row's training run; no validation, because its last weights are those that count."""
        loss, flips, network = config.loss, config.flips, config.network
        if not self.dense:
            loss = loss.model_copy(update={"dense": 0.0})
        if not (self.dense and self.flips):
            flips = Flips(double=0.0, single=0.0, self=0.0)
        if not self.noise:
            loss = loss.model_copy(update={"noise": 0.0})
            network = replace(network, dropout=0.0)
        changes = {"loss": loss, "flips": flips, "network": network, "validation": Validation(), "seed": seed}
        return config.model_copy(update=changes)

    @property
    def trained_as(self) -> str:
        """Name of the first row with the same weights."""
        return next(each.name for each in ROWS if each._parts == self._parts)

    @property
    def _parts(self) -> tuple[bool, bool, bool]:
        return self.dense, self.flips, self.noise


def _paper(*figures: float) -> dict[str, float]:
    """A line of table 9, without PCK@0.01."""
    return dict(zip((*ERROR_TYPES, "pck@0.05", "pck@0.1"), figures, strict=True))


ROWS: tuple[Row, ...] = (
    Row("full", paper=_paper(6.9, 9.3, 12.0, 7.0, 78.7, 72.6, 82.9)),
    Row("without dense", dense=False, paper=_paper(8.3, 11.8, 13.7, 8.5, 74.5, 64.5, 78.3)),
    Row("without flips", flips=False, paper=_paper(7.4, 10.0, 13.9, 8.7, 76.1, 70.3, 81.5)),
    Row("without noise and dropout", noise=False, paper=_paper(6.9, 9.9, 12.3, 7.2, 77.8, 71.8, 82.3)),
    Row("without window", mode="soft", paper=_paper(8.1, 9.8, 14.1, 8.7, 76.1, 69.3, 81.3)),
    Row("sparse only", dense=False, flips=False, noise=False, mode="argmax",
        paper=_paper(9.7, 13.7, 15.8, 9.4, 70.5, 57.7, 74.6)),
)  # fmt: skip
"""In the order of the table. The last is the paper's supervised baseline."""

FULL = ROWS[0]


def choose_rows(names: Sequence[str] | None = None) -> tuple[Row, ...]:
    """Rows by name, in the order of the table; "full" is always among them, for the others to compare with.

    Args:
        names: with spaces or hyphens; all rows when not given.

    Raises:
        InputError: there is no such row; the message lists them.
    """
    if names is None:
        return ROWS
    wanted = {" ".join(name.replace("-", " ").split()).lower(): name for name in names}
    unknown = [name for plain, name in wanted.items() if plain not in {row.name for row in ROWS}]
    if unknown:
        raise InputError(f"there is no row {unknown[0]!r}; choose {', '.join(row.name for row in ROWS)}")
    return tuple(row for row in ROWS if row is FULL or row.name in wanted)


@dataclass(frozen=True)
class Figure:
    """One cell of the table, shares.

    Attributes:
        level: of the row.
        difference: row less "full", pair by pair and seed by seed; of "full" itself 0.
        verdict: what the interval of the difference says.
    """

    level: Estimate
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class SetFigures:
    """The table of one data set.

    Attributes:
        name: of the data set and its split.
        protocol: that the figures are of.
        pairs: how many.
        images: how many they share.
        figures: by name of the row and key of the metric.
    """

    name: str
    protocol: str
    pairs: int
    images: int
    figures: Mapping[str, Mapping[str, Figure]]

    def order(self) -> list[str]:
        """Names of the rows, best first by `HEADLINE`."""
        return sorted(self.figures, key=lambda row: -self.figures[row][HEADLINE.key].level.value)


@dataclass(frozen=True)
class Ablation:
    """Every figure of an ablation.

    Attributes:
        rows: in the order of the table.
        seeds: of the training runs of each row.
        sets: one table for each validation set.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    sets: tuple[SetFigures, ...]

    def sentences(self) -> list[str]:
        """One on each row but "full", then the order of the rows on each data set and in the paper."""
        said = [_sentence(row, self.sets) for row in self.rows if row is not FULL]
        by_paper = sorted(self.rows, key=lambda row: -row.paper[HEADLINE.key])
        orders = [f"{each.name}: {', '.join(each.order())}" for each in self.sets]
        orders.append(f"paper: {', '.join(row.name for row in by_paper)}")
        return [*said, f"Order by {HEADLINE.label}, best first. {'; '.join(orders)}."]


def compare(
    values: Mapping[str, Float[np.ndarray, "s p m"]], source: Sequence[str], target: Sequence[str]
) -> dict[str, dict[str, Figure]]:
    """Figures of every row from the values of every pair.

    Args:
        values: by name of the row, of each seed, pair and metric; that of "full" among them.
        source: id of each pair's source image.
        target: id of its target image.

    Returns:
        By name of the row and key of the metric.
    """
    full = values[FULL.name]
    found = {}
    for name, each in values.items():
        cells = zip(
            METRICS,
            estimate(each, source, target),
            estimate(each - full, source, target),
            strict=True,
        )
        found[name] = {
            metric.key: Figure(level, difference, judge(difference, metric.higher_is_better))
            for metric, level, difference in cells
        }
    return found


def paper_verdict(row: Row) -> Verdict:
    """What the paper's figures, which have no intervals, say of a row."""
    apart = row.paper[HEADLINE.key] - FULL.paper[HEADLINE.key]
    return judge(Estimate(apart, apart, apart), HEADLINE.higher_is_better)


def pair_values(path: Path) -> Float[np.ndarray, "p m"]:
    """Shares of each pair of a predictions file, in its order; columns as `METRICS`, NaN without a point.

    Raises:
        InputError: the file cannot be used, see `predictions.read`.
    """
    header, table = read(path)
    strict = get_protocol(header.protocol).strict
    # Counts come in the order of categories: a category for each pair keeps the pairs in theirs.
    apart = replace(table, category=np.arange(len(table.category)))
    counts = count(apart, correct_points(table, ALPHAS, strict), ALPHAS[-1], strict)
    with np.errstate(invalid="ignore"):
        correct = counts.correct / counts.points[..., None]
        errors = counts.errors / counts.points[..., None]
    return np.concatenate([correct[:, STANDARD], correct[:, GEOMETRY_AWARE], errors[:, STANDARD]], axis=1)


def ablate(
    config: TrainConfig,
    out: Path,
    *,
    seeds: int = 3,
    rows: Sequence[str] | None = None,
    device: str = "auto",
    restart: bool = False,
    show: Show = lambda what, done, total: None,
    say: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Train and match every row with every seed, and compare them with "full".

    Args:
        config: of "full"; its validation sets are what the rows are compared on.
        out: folder of the runs.
        seeds: how many, from the configuration's on.
        rows: see `choose_rows`.
        device: as for `load_extractor`.
        restart: throw away what an earlier ablation left of these rows and seeds.
        show: shows the progress.
        say: takes lines on what happens.

    Raises:
        InputError: an unknown row, a configuration that cannot be ablated, or a folder of another one.
        DivergedError: the loss of a run became NaN or infinite.
    """
    work = _Work(config.as_released(), choose_rows(rows), out, device, restart, show, say)
    _check(work, seeds)
    chosen = tuple(range(work.config.seed, work.config.seed + seeds))
    found: dict[str, list[list[np.ndarray]]] = {row.name: [] for row in work.rows}
    runs = [(name, seed) for seed in chosen for name in work.runs]
    for number, (name, seed) in enumerate(runs, start=1):
        title = f"run {number} of {len(runs)}: {name}, seed {seed}"
        for row, paths in _run(work, work.runs[name], seed, title).items():
            found[row].append([pair_values(path) for path in paths])
    tables = []
    for place, (data, name) in enumerate(zip(work.sets, work.names, strict=True)):
        values = {row: np.stack([each[place] for each in of_seeds]) for row, of_seeds in found.items()}
        ends = [pair.source.id for pair in data.pairs], [pair.target.id for pair in data.pairs]
        protocol = FOR_BASE[data.threshold_base]
        tables.append(SetFigures(name, protocol, len(data), len(data.images), compare(values, *ends)))
    return Ablation(work.rows, chosen, tuple(tables))


@dataclass(frozen=True)
class _Work:
    """Everything that all rows and seeds share, loaded when first needed."""

    config: TrainConfig
    rows: tuple[Row, ...]
    out: Path
    device: str
    restart: bool
    show: Show
    say: Callable[[str], None]

    @cached_property
    def runs(self) -> dict[str, list[Row]]:
        """Rows by the name of the training run that their weights come from."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.trained_as, []).append(row)
        return found

    @cached_property
    def sets(self) -> list[DataSet]:
        """The validation sets, with the same pairs for every row and seed."""
        return load_validation(self.config)

    @cached_property
    def names(self) -> list[str]:
        """What to call the validation sets; numbered where two are called the same."""
        chosen = [(Path(self.config.root) / each.root, each) for each in self.config.validation.data]
        names = [f"{folder.name or each.name} {each.split}" for folder, each in chosen]
        times = Counter(map(slug, names))
        return [f"{name} {row + 1}" if times[slug(name)] > 1 else name for row, name in enumerate(names)]

    @cached_property
    def grid(self) -> int:
        """Cells a side of the maps that are matched, as a `RefinedExtractor` has it of a trained network."""
        own = self.config.network.grid
        return own if self.config.matching.blend == 1 else max(own, self.extractor.layout.grid)

    @cached_property
    def extractor(self) -> Extractor:
        """Reads the features of the cache."""
        return cached_extractor(self.config, self.device)


def _check(work: _Work, seeds: int) -> None:
    """Find out before hours of training what would make the table meaningless.

    Raises:
        InputError: it would be.
    """
    config = work.config
    if seeds < 1:
        raise InputError(f"at least one seed is needed, got {seeds}")
    if not config.validation.data:
        raise InputError("there is no validation.data in the configuration to compare the rows on; add it")
    if not config.loss.sparse and not all(row.dense for row in work.rows):
        raise InputError(
            "without the dense loss nothing is left to train, because loss.sparse is 0; set it above 0, or "
            "leave these rows out (--rows)"
        )
    for row in work.rows:
        if row is not FULL and _same_as_full(row, work):
            raise InputError(
                f"the row {row.name!r} would be the same as 'full': the configuration does not use what it "
                "leaves out; use it, or leave the row out (--rows)"
            )
    for data in work.sets:
        for note in data.notes:
            work.say(f"note: {note}")


def _same_as_full(row: Row, work: _Work) -> bool:
    config = work.config
    if row.configure(config, config.seed) != FULL.configure(config, config.seed):
        return False
    return row.mode == "window" or (row.mode == "soft" and config.matching.window >= work.grid)


def _run(work: _Work, rows: Sequence[Row], seed: int, title: str) -> dict[str, list[Path]]:
    """Predictions of the rows that share a training run, by name of the row; what is not there is made."""
    folder = work.out / slug(rows[0].trained_as) / f"seed{seed}"
    paths = {row.name: [folder / f"{slug(name)}-{row.mode}.jsonl" for name in work.names] for row in rows}
    wanted = rows[0].configure(work.config, seed)
    finished = all(path.is_file() for each in paths.values() for path in each)
    if work.restart or not (finished and _is_of(wanted, folder)):
        train(
            wanted,
            folder,
            device=work.device,
            restart=work.restart,
            bar=_bar(work.show, title),
            show=lambda done, total, _: work.show(f"{title}, training", done, total),
        )
    network = PostProcessor.from_pretrained(folder / LAST)
    for row in rows:
        for data, path in zip(work.sets, paths[row.name], strict=True):
            _predict(work, row, network, data, path, title)
    return paths


def _predict(work: _Work, row: Row, network: PostProcessor, data: DataSet, path: Path, title: str) -> None:
    settings = replace(work.config.matching.settings(), mode=row.mode)
    blend = work.config.matching.blend
    matcher = Matcher(work.extractor, settings, pose="off", post_processor=network, blend=blend)
    predict(
        data,
        matcher,
        path,
        PredictSettings(FOR_BASE[data.threshold_base]),
        restart=work.restart,
        progress=lambda done, total: work.show(f"{title}, {path.stem}", done, total),
    )


def _is_of(config: TrainConfig, folder: Path) -> bool:
    """Whether a run's folder says that it is of this configuration."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    return load_config(path).model_dump(mode="json") == config.model_dump(mode="json")


def _bar(show: Show, title: str) -> Bar:
    """What `train` shows the progress of its preparations with."""

    @contextmanager
    def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(f"{title}, {what}", done, total)

        yield advance

    return bar


def _sentence(row: Row, sets: Sequence[SetFigures]) -> str:
    """What the intervals say of a row on each data set, and whether the paper says the same."""
    expected = paper_verdict(row)
    found, agreement = [], []
    for each in sets:
        figure = each.figures[row.name][HEADLINE.key]
        found.append(f"{_against_full(figure.verdict)} on {each.name} ({points(figure.difference)})")
        agreement.append(f"{_agreement(figure.verdict, expected)} on {each.name}")
    here, there = row.paper[HEADLINE.key], FULL.paper[HEADLINE.key]
    return (
        f"{row.name}, by {HEADLINE.label}: {'; '.join(found)}. The paper has it {expected} ({here} against "
        f"{there} on SPair-71k): {', '.join(agreement)}."
    )


def _against_full(found: Verdict) -> str:
    return f"{found} from full" if found == "not distinguishable" else f"{found} than full"


def _agreement(found: Verdict, expected: Verdict) -> str:
    if found == expected:
        return "borne out"
    return "left open" if found == "not distinguishable" else "contradicted"


def slug(name: str) -> str:
    """A name as part of a path, the same on every file system."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
