"""Trained here, tested there (paper, tables 10 and 11), and on keypoints that training never saw.

What lies in the folder:

    runs/trained-on-lspet/                                         a run, as `training.loop` leaves it
    predictions/badja/training/trained-on-lspet-blend-0-6.jsonl    its predictions on a data set
    predictions/badja/training/zero-shot.jsonl                     those of the plain features
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geoaware.data.dataset import with_keypoints
from geoaware.evaluation import score_file
from geoaware.evaluation.averages import LABELS
from geoaware.evaluation.comparison import compared, verdict
from geoaware.evaluation.predict import matching_settings
from geoaware.evaluation.statistics import Estimate
from geoaware.evaluation.tables import MISSING, Grid, plain
from geoaware.method.post_processor import PostProcessor
from geoaware.report.plots import intervals
from geoaware.runs.errors import InputError
from geoaware.studies.case import PREDICTIONS, Outcome, Run, slug
from geoaware.studies.metrics import METRICS
from geoaware.studies.study import StudySet, keep_out_of_git
from geoaware.studies.trained import Trainer
from geoaware.studies.wording import HEADLINE, HEADLINE_AWARE, figures_of, pck_cells, pck_columns, sentence
from geoaware.training.post_processor.config import TrainConfig

RUNS = "runs"
_PART = "training"
# Below a study's folders, whose zero-shot files are matched as the extractor's defaults have it, with poses.

ZERO_SHOT = "zero-shot"

BLENDS = (1.0, 0.6)
"""Shares of the refined descriptors: they alone, and as the shipped weights are matched."""

WEIGHTS = (0.0, 0.6)
"""Weights of the distillation: the paper's, and that of the shipped weights."""

TIGHT = "pck@0.05"
_GAINS = (TIGHT, HEADLINE, HEADLINE_AWARE)
# A gain at the usual threshold may hide a loss at a tighter one: maps of a coarse grid blur.

_LABELS = {metric.key: metric.label for metric in METRICS}


def transfer_table(
    trainer: Trainer, tests: Sequence[StudySet], out: Path, blends: Sequence[float] = BLENDS
) -> Outcome:
    """Train once, and compare with zero-shot on every data set, pose alignment off (paper, appendix D.3).

    The trainer's configuration is the training run; the validation of it is left out. Tests may be on the
    trained data set's other splits. ``blends`` are shares of the refined descriptors, each a row.

    Raises:
        InputError: no data set to test on, a setting or data set does not fit, or the folder holds
            other runs.
        DivergedError: the loss of the run became NaN or infinite.
    """
    if not tests:
        raise InputError("there is no data set to test on; name one", "dataset")
    choices = [choice for stage in trainer.config.stages for choice in stage.data]
    names = dict.fromkeys(Path(choice.root).name or choice.name for choice in choices)
    run = f"trained on {' + '.join(names)}"
    tables = _measure(trainer, {run: trainer.config}, tests, out, blends)
    said = []
    for row in tables[0].gains:
        found = [f"{table.test.title}: {verdict(table.gains[row][HEADLINE])}" for table in tables]
        said.append(sentence(f"{row}, against zero-shot at {_LABELS[HEADLINE]}: {'; '.join(found)}"))
    return _outcome(tables, " ".join(said), f"{run[0].upper()}{run[1:]}, tested on each data set")


def unseen(
    trainer: Trainer,
    test: StudySet,
    out: Path,
    weights: Sequence[float] = WEIGHTS,
    blends: Sequence[float] = BLENDS,
) -> Outcome:
    """Train on some keypoints, and compare with zero-shot on these and on the others, pose alignment off.

    As in `transfer_table`, but every data set of the configuration names its ``keypoints``, and ``weights``
    of the distillation are a training run each with everything else the same.

    Raises:
        InputError: the configuration names no keypoints, or none of the tested ones is left out or trained.
        DivergedError: the loss of a run became NaN or infinite.
    """
    config = trainer.config
    halves = _halves(config, test)
    losses = {each: config.loss.model_copy(update={"distillation": each}) for each in weights}
    runs = {f"distillation {each:g}": config.model_copy(update={"loss": of}) for each, of in losses.items()}
    seen, never = _measure(trainer, runs, halves, out, blends)
    said = [
        sentence(f"{table.test.title}, against zero-shot at {_LABELS[key]}: {'; '.join(table.verdicts(key))}")
        for table, key in ((seen, HEADLINE), (never, TIGHT), (never, HEADLINE))
    ]
    # The runs' refined features against those of the first run, unblended.
    alone = {run: never.rows[run] for run in runs if run in never.rows}
    first, *others = alone or [""]
    apart = [compared(f"{run},", first, alone[run].minus(alone[first])[HEADLINE]) for run in others]
    said.append(sentence(f"there, {apart[0]}", *apart[1:]) if apart else "")
    return _outcome([seen, never], " ".join(said).strip())


@dataclass(frozen=True)
class _Table:
    """One data set; its rows are zero-shot, then what was trained."""

    test: StudySet
    rows: Mapping[str, Run]

    @cached_property
    def gains(self) -> dict[str, dict[str, Estimate]]:
        """Each trained row less zero-shot, by the keys that are shown."""
        apart = {row: run.minus(self.rows[ZERO_SHOT]) for row, run in self.rows.items() if row != ZERO_SHOT}
        return {row: {key: each[key] for key in _GAINS} for row, each in apart.items()}

    def lines(self) -> list[tuple[str, Run, dict[str, Estimate]]]:
        """Every row with its gains; none of zero-shot."""
        return [(row, run, self.gains.get(row, {})) for row, run in self.rows.items()]

    def verdicts(self, key: str) -> list[str]:
        """Every trained row against zero-shot."""
        return [f"{row}: {verdict(gains[key])}" for row, gains in self.gains.items()]


def _measure(
    trainer: Trainer,
    runs: Mapping[str, TrainConfig],
    tests: Sequence[StudySet],
    out: Path,
    blends: Sequence[float],
) -> list[_Table]:
    """Every data set with the features as they are and with each run's weights in each blend."""
    keep_out_of_git(out / RUNS)
    keep_out_of_git(out / PREDICTIONS)
    rows: dict[str, tuple[PostProcessor | None, float]] = {ZERO_SHOT: (None, 0.0)}
    for name, config in runs.items():
        network = trainer.network(config, out / RUNS / slug(name), name)
        rows |= {name if each == 1 else f"{name}, blend {each:g}": (network, each) for each in blends}
    return [
        _Table(test, {row: _predicted(trainer, test, row, out, *how) for row, how in rows.items()})
        for test in tests
    ]


def _predicted(
    trainer: Trainer, test: StudySet, row: str, out: Path, network: PostProcessor | None, blend: float
) -> Run:
    """Predictions on a data set; on the extractor's own grid matched as was measured for the extractor.

    So zero-shot and a blend, which lie on that grid, are matched alike, and differ in nothing but features.
    """
    protocol = test.protocol.name
    own = network if network is not None and blend == network.info["matching"]["blend"] else None
    settings = matching_settings(trainer.extractor.name, protocol, post_processor=own)
    path = out / PREDICTIONS / test.config.label / _PART / f"{slug(row)}.jsonl"
    trainer.predict(test.data, path, protocol, settings, network, blend, f"{test.title}: {row}")
    return Run(row, path, score_file(path))


def _halves(config: TrainConfig, test: StudySet) -> list[StudySet]:
    """The test pairs with the keypoints that are trained, and with the others; there must be both kinds."""
    choices = [choice for stage in config.stages for choice in stage.data]
    if not all(choice.keypoints for choice in choices):
        raise InputError(
            "unseen needs a configuration that leaves keypoints out: name those to train on, under keypoints "
            "of every data set of every stage (see analysis-unseen.yaml)"
        )
    trained = {name for choice in choices for name in choice.keypoints or ()}
    schemas = [test.data.schemas[category] for category in test.data.categories]
    known = list(dict.fromkeys(str(name) for schema in schemas for name in schema.names))
    halves = []
    for key, what in (("seen", "trained on"), ("unseen", "never trained on")):
        names = [name for name in known if (name in trained) == (key == "seen")]
        if not names:
            raise InputError(
                f"{test.title}: none of its keypoints was {what} ({', '.join(known)}); train on some of "
                "them, named under keypoints of the configuration's data, and leave some out"
            )
        called = {"label": f"{test.config.label}-{key}", "title": f"Keypoints {what}"}
        half = test.config.model_copy(update=called)
        halves.append(StudySet(half, with_keypoints(test.data, names), test.protocol))
    return halves


def _outcome(tables: Sequence[_Table], finding: str, title: str = "") -> Outcome:
    figures = {
        table.test.config.label: {
            name: {**figures_of(run), "gain": {key: vars(each) for key, each in gains.items()}}
            for name, run, gains in table.lines()
        }
        for table in tables
    }
    gains = [
        (table.test.title, {row: each[HEADLINE] for row, each in table.gains.items()}) for table in tables
    ]
    label = f"{_LABELS[HEADLINE]} less zero-shot, in points (95 % interval)"
    return Outcome(
        grids=tuple(map(_grid, tables)),
        finding=finding,
        plots={"": intervals(gains, label)},
        figures=plain(figures),
        predictions=tuple(run.path for table in tables for run in table.rows.values()),
        left_out=tuple(
            f"{table.test.title}: no subgroups of alike keypoints, so no geometry-aware figures"
            for table in tables
            if table.test.lacks("subgroups")
        ),
        title=title,
    )


def _grid(table: _Table) -> Grid:
    first, data = table.rows[ZERO_SHOT].result, table.test.data
    rows = tuple(
        (name, *pck_cells(run.result), *(_gain(gains.get(key)) for key in _GAINS))
        for name, run, gains in table.lines()
    )
    columns = ("features", *pck_columns(first), *(f"gain, {_LABELS[key]}" for key in _GAINS))
    note = (
        f"PCK in per cent, protocol {first.protocol}, {LABELS[first.averaging]}, pose alignment off; "
        f"{len(data):,} pairs of {len(data.images):,} images. Gain: less zero-shot, pair by pair, in "
        "points, with its 95 % interval over the choice of images; of one training, so the interval says "
        "nothing on other seeds."
    )
    return Grid(table.test.title, columns, rows, note)


def _gain(gain: Estimate | None) -> str:
    if gain is None or math.isnan(gain.value):
        return MISSING
    value, low, high = (f"{100 * each + 0.0:+.1f}" for each in (gain.value, gain.low, gain.high))
    return f"{value} ({low} to {high})"
