"""Trained here, tested there (paper, tables 10 and 11), and on keypoints that training never saw.

What lies in the folder:

    runs/trained-on-lspet/                                         a run, as `training.loop` leaves it
    predictions/badja/training/trained-on-lspet-blend-0-6.jsonl    its predictions on a data set
    predictions/badja/training/zero-shot.jsonl                     those of the plain features

Runs have no validation and are matched with the weights of their last step: nothing is chosen on the images
that the tables are about. What is finished is not done again, what was stopped goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaware.data.dataset import with_keypoints
from geoaware.evaluation import score_file
from geoaware.evaluation.averages import LABELS
from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.predict import PredictSettings, matching_settings, predict
from geoaware.evaluation.statistics import Estimate
from geoaware.evaluation.tables import MISSING, Grid, plain
from geoaware.features import Extractor
from geoaware.matcher import Matcher
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from geoaware.studies.ablation import METRICS, slug
from geoaware.studies.outcome import Outcome
from geoaware.studies.study import PREDICTIONS, Run, StudySet, Telling, keep_out_of_git
from geoaware.studies.wording import (
    HEADLINE,
    HEADLINE_AWARE,
    SETS,
    alpha_columns,
    figures_of,
    pck_cells,
    sentence,
)
from geoaware.training.post_processor.config import TrainConfig
from geoaware.training.post_processor.features import Bar, cached_extractor, silent
from geoaware.training.post_processor.loop import LAST, Show, train
from geoaware.training.settings import Validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = "runs"
_PART = "training"
# Below a study's folders, whose zero-shot files are matched as the extractor's defaults have it, with poses.

ZERO_SHOT = "zero-shot"

BLENDS = (1.0, 0.6)
"""Shares of the refined descriptors: they alone, and as the shipped weights are matched."""

KEEP = (0.0, 0.6)
"""Weights of the distillation: the paper's, and that of the shipped weights."""


_ABOUT_TRANSFER = (
    "Trained on one data set and tested on each, against the same features without training. The paper does "
    "this with PF-PASCAL (table 10) and SPair-71k (table 11), appendix D.3, and finds its method ahead of "
    "other trained ones everywhere; its text as it is at hand lacks the figures of both tables, so no row of "
    "the paper stands here."
)
_ABOUT_UNSEEN = (
    "Trained on some of the keypoints, tested on these and on the others, which the training takes for not "
    "annotated. Supervised features are known to fall below zero-shot there: on SPair-U 56.9 against 59.4 at "
    "PCK@0.10 (Mariotti et al. 2025). Keep is the weight of the distillation that holds unannotated points "
    "to the extractor's own similarities (`loss.distillation`; not in the paper); the runs differ in nothing "
    "else."
)

TIGHT = "pck@0.05"
_GAINS = (TIGHT, HEADLINE, HEADLINE_AWARE)
# A gain at the usual threshold may hide a loss at a tighter one: maps of a coarse grid blur.

_LABELS = {metric.key: metric.label for metric in METRICS}

_COLOURS, _MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), "osD^"
# Of the Okabe-Ito palette.


@dataclass(frozen=True)
class Transfer:
    """One of the paper's tables of this kind.

    Attributes:
        config: shipped configuration of the training.
        tests: labels of the data sets in the shipped study of the paper's data.
        small: a configuration of the same kind for the data that geoaware is developed on.
    """

    config: str
    tests: tuple[str, ...]
    small: str


TRANSFERS: Mapping[str, Transfer] = {
    "table10": Transfer("pf-pascal", ("spair71k", "ap10k-intra"), "analysis-quaternius"),
    "table11": Transfer("spair71k", ("pf-pascal", "ap10k-intra"), "analysis-lspet"),
}
"""What the paper trains on and tests on, by the name of the table."""

UNSEEN = "analysis-unseen"
"""Shipped configuration for `unseen`."""


def transfer_table(
    name: str,
    config: TrainConfig,
    tests: Sequence[StudySet],
    out: Path,
    *,
    blends: Sequence[float] = BLENDS,
    device: str = "auto",
    restart: bool = False,
    bar: Bar | None = None,
    show: Show | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train once, and compare with zero-shot on every data set, pose alignment off (paper, appendix D.3).

    Args:
        name: of the analysis: ``table10`` or ``table11``.
        config: the training run; its validation is left out.
        tests: data sets, which may be the trained one's other splits.
        out: folder of runs and predictions.
        blends: shares of the refined descriptors to match with, each a row.
        device: as for `load_extractor`.
        restart: throw away what an earlier call left of this run and its predictions.
        bar: see `training.loop.train`; shows the progress of predictions too.
        show: see `training.loop.train`.
        say: likewise.

    Raises:
        InputError: no data set to test on, a setting or data set does not fit, or the folder holds
            other runs.
        DivergedError: the loss of the run became NaN or infinite.
    """
    if not tests:
        raise InputError(f"{name} needs a data set to test on; name one (--dataset)")
    work = _Work(config, out, device, restart, bar or silent, show, say)
    run = f"trained on {_trained_on(config)}"
    tables = _measure(work, {run: config}, tests, blends)
    said = [_verdicts(tables, row) for row in tables[0].trained]
    return _outcome(
        name,
        f"Trained on {_trained_on(config)}, tested on each data set",
        _ABOUT_TRANSFER,
        tables,
        " ".join(said),
    )


def unseen(
    config: TrainConfig,
    test: StudySet,
    out: Path,
    *,
    keep: Sequence[float] = KEEP,
    blends: Sequence[float] = BLENDS,
    device: str = "auto",
    restart: bool = False,
    bar: Bar | None = None,
    show: Show | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train on some keypoints, and compare with zero-shot on these and on the others, pose alignment off.

    Args:
        config: the training run; every data set of it names its ``keypoints``.
        test: pairs with keypoints of both kinds.
        out: see `transfer_table`, as the rest.
        keep: weights of the distillation (``loss.distillation``), a training run each with everything else
            the same.

    Raises:
        InputError: the configuration names no keypoints, or none of the tested ones is left out or trained.
        DivergedError: the loss of a run became NaN or infinite.
    """
    halves = _halves(config, test)
    work = _Work(config, out, device, restart, bar or silent, show, say)
    runs = {
        f"keep {each:g}": config.model_copy(
            update={"loss": config.loss.model_copy(update={"distillation": each})}
        )
        for each in keep
    }
    tables = _measure(work, runs, halves, blends)
    return _outcome(
        "unseen",
        "Keypoints never trained",
        _ABOUT_UNSEEN,
        tables,
        " ".join(
            [
                _of_half(tables[0], HEADLINE),
                _of_half(tables[1], TIGHT),
                _of_half(tables[1], HEADLINE),
                _of_keep(tables[1], list(runs)),
            ]
        ).strip(),
        data=test.title,
    )


@dataclass(frozen=True)
class _Work:
    """What all runs and predictions share, loaded when first needed."""

    config: TrainConfig
    out: Path
    device: str
    restart: bool
    bar: Bar
    show: Show | None
    say: Callable[[str], None]

    @cached_property
    def extractor(self) -> Extractor:
        """Reads the features of the cache."""
        return cached_extractor(self.config, self.device)


@dataclass(frozen=True)
class _Table:
    """One data set, every row.

    Attributes:
        test: the data set.
        rows: zero-shot, then what was trained.
    """

    test: StudySet
    rows: Mapping[str, Run]

    @property
    def trained(self) -> list[str]:
        """Names of the rows but zero-shot."""
        return [row for row in self.rows if row != ZERO_SHOT]

    @cached_property
    def gains(self) -> dict[str, dict[str, Estimate]]:
        """Each trained row less zero-shot, by the keys of `training.ablation.METRICS`."""
        return {row: self.rows[row].minus(self.rows[ZERO_SHOT]) for row in self.trained}


def _measure(
    work: _Work, runs: Mapping[str, TrainConfig], tests: Sequence[StudySet], blends: Sequence[float]
) -> list[_Table]:
    """Every data set with the features as they are and with each run's weights in each blend."""
    networks = {name: _trained(work, name, config) for name, config in runs.items()}
    tables = []
    for test in tests:
        rows = {ZERO_SHOT: _predicted(work, test, ZERO_SHOT, None, 0.0)}
        for name, network in networks.items():
            for blend in blends:
                row = name if blend == 1 else f"{name}, blend {blend:g}"
                rows[row] = _predicted(work, test, row, network, blend)
        tables.append(_Table(test, rows))
    return tables


def _trained(work: _Work, name: str, config: TrainConfig) -> PostProcessor:
    """The weights of a run's last step."""
    keep_out_of_git(work.out / RUNS)
    folder = work.out / RUNS / slug(name)
    train(
        config.model_copy(update={"validation": Validation()}),
        folder,
        device=work.device,
        restart=work.restart,
        bar=work.bar,
        show=work.show,
        say=work.say,
    )
    return PostProcessor.from_pretrained(folder / LAST)


def _predicted(work: _Work, test: StudySet, row: str, network: PostProcessor | None, blend: float) -> Run:
    """Predictions on a data set; on the extractor's own grid matched as was measured for the extractor.

    So zero-shot and a blend, which lie on that grid, are matched alike, and differ in nothing but features.
    """
    protocol = test.protocol.name
    own = network if network is not None and blend == network.info["matching"]["blend"] else None
    settings = matching_settings(work.extractor.name, protocol, post_processor=own)
    matcher = Matcher(work.extractor, settings, pose="off", post_processor=network, blend=blend)
    keep_out_of_git(work.out / PREDICTIONS)
    path = work.out / PREDICTIONS / test.config.label / _PART / f"{slug(row)}.jsonl"
    with Telling(work.bar).progress(f"{test.title}: {row}", len(test.data)) as follow:
        predict(test.data, matcher, path, PredictSettings(protocol), restart=work.restart, progress=follow)
    return Run(row, path, score_file(path))


def _halves(config: TrainConfig, test: StudySet) -> list[StudySet]:
    """The test pairs with the keypoints that are trained, and with the others.

    Raises:
        InputError: there are not both kinds.
    """
    choices = [choice for stage in config.stages for choice in stage.data]
    if not all(choice.keypoints for choice in choices):
        raise InputError(
            "unseen needs a configuration that leaves keypoints out: name those to train on, under keypoints "
            f"of every data set of every stage (see {UNSEEN}.yaml)"
        )
    trained = {name for choice in choices for name in choice.keypoints or ()}
    schemas = [test.data.schemas[category] for category in test.data.categories]
    known = list(dict.fromkeys(str(name) for schema in schemas for name in schema.names))
    parts: dict[str, tuple[str, list[str]]] = {
        "seen": ("trained", [name for name in known if name in trained]),
        "unseen": ("never trained", [name for name in known if name not in trained]),
    }
    for what, names in parts.values():
        if not names:
            raise InputError(
                f"{test.title}: none of its keypoints was {what} ({', '.join(known)}); train on some of "
                "them, named under keypoints of the configuration's data, and leave some out"
            )
    return [
        StudySet(
            test.config.model_copy(
                update={"label": f"{test.config.label}-{key}", "title": f"Keypoints {what}"}
            ),
            with_keypoints(test.data, names),
            test.protocol,
        )
        for key, (what, names) in parts.items()
    ]


def _trained_on(config: TrainConfig) -> str:
    """The data sets of all stages by the names of their folders."""
    choices = [choice for stage in config.stages for choice in stage.data]
    return " + ".join(dict.fromkeys(Path(choice.root).name or choice.name for choice in choices))


def _verdicts(tables: Sequence[_Table], row: str) -> str:
    """A row against zero-shot on every data set."""
    said = [f"{table.test.title}: {verdict(table.gains[row][HEADLINE])}" for table in tables]
    return sentence(f"{row}, against zero-shot at {_LABELS[HEADLINE]}: {'; '.join(said)}")


def _of_half(table: _Table, key: str) -> str:
    """Every row against zero-shot on one half of the keypoints."""
    said = [f"{row}: {verdict(table.gains[row][key])}" for row in table.trained]
    return sentence(f"{table.test.title}, against zero-shot at {_LABELS[key]}: {'; '.join(said)}")


def _of_keep(table: _Table, runs: Sequence[str]) -> str:
    """The runs' refined features against those of the first run, unblended."""
    alone = [run for run in runs if run in table.rows]
    gains = [(run, table.rows[run].minus(table.rows[alone[0]])[HEADLINE]) for run in alone[1:]]
    said = [f"{run}, against {alone[0]}: {verdict(gain)}" for run, gain in gains]
    return sentence(f"there, {'; '.join(said)}") if said else ""


def _outcome(
    name: str, title: str, about: str, tables: Sequence[_Table], finding: str, data: str = ""
) -> Outcome:
    return Outcome(
        name=name,
        title=title,
        about=about,
        grids=tuple(_grid(table) for table in tables),
        finding=finding,
        plots={"": _plot(tables)},
        figures=plain({table.test.config.label: _figures(table) for table in tables}),
        predictions=tuple(run.path for table in tables for run in table.rows.values()),
        left_out=tuple(
            f"{table.test.title}: no subgroups of alike keypoints, so no geometry-aware figures"
            for table in tables
            if table.test.lacks("subgroups")
        ),
        data=data,
    )


def _grid(table: _Table) -> Grid:
    first = table.rows[ZERO_SHOT].result
    columns = (
        "features",
        *alpha_columns(first),
        *alpha_columns(first, "geo. "),
        *(f"gain, {_LABELS[key]}" for key in _GAINS),
    )
    rows = []
    for name, run in table.rows.items():
        gains = table.gains.get(name, {})
        cells = [cell for kind in SETS for cell in pck_cells(run.result, kind)]
        rows.append((name, *cells, *(_gain(gains.get(key)) for key in _GAINS)))
    data = table.test.data
    note = (
        f"PCK in per cent, protocol {first.protocol}, {LABELS[first.averaging]}, pose alignment off; "
        f"{len(data):,} pairs of {len(data.images):,} images. Gain: less zero-shot, pair by pair, in "
        "points, with its 95 % interval over the choice of images; of one training, so the interval says "
        "nothing on other seeds."
    )
    return Grid(table.test.title, columns, tuple(rows), note)


def _gain(gain: Estimate | None) -> str:
    if gain is None or math.isnan(gain.value):
        return MISSING
    value, low, high = (f"{100 * each + 0.0:+.1f}" for each in (gain.value, gain.low, gain.high))
    return f"{value} ({low} to {high})"


def _figures(table: _Table) -> dict[str, Any]:
    """The figures of every row, and the gains over zero-shot with their bounds."""
    return {
        name: {
            **figures_of(run),
            "gain": {key: vars(gain) for key, gain in table.gains.get(name, {}).items() if key in _GAINS},
        }
        for name, run in table.rows.items()
    }


def _plot(tables: Sequence[_Table]) -> Figure:
    """Gains over zero-shot with their intervals: a group of lines a data set, a colour and mark a row."""
    from matplotlib.figure import Figure

    rows = tables[0].trained
    figure = Figure(figsize=(7.0, 1.2 + 0.28 * (len(rows) + 1) * len(tables)))
    axes = figure.subplots()
    for number, row in enumerate(rows):
        gains = [table.gains[row][HEADLINE] for table in tables]
        places = [place * (len(rows) + 1) + number for place in range(len(tables))]
        axes.errorbar(
            [100 * gain.value for gain in gains],
            places,
            xerr=[100 * gain.margin for gain in gains],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            capsize=3,
            label=row,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    middle = (len(rows) - 1) / 2
    axes.set_yticks(
        [place * (len(rows) + 1) + middle for place in range(len(tables))],
        [table.test.title for table in tables],
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("PCK@0.10 less zero-shot, in points (95 % interval)")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure
