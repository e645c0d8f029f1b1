"""The table of an ablation: its rows, their figures with what sets them apart from "full", and its JSON.

The rows are those of the paper's table 9, which leaves out one part of the method at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from geoaware.data.files import file_known_as
from geoaware.evaluation.comparison import Verdict, judge, points
from geoaware.evaluation.statistics import Estimate, estimate
from geoaware.evaluation.tables import MISSING, Grid, percent, plain
from geoaware.method.matching import Mode
from geoaware.runs.errors import InputError, reason
from geoaware.studies.case import Outcome
from geoaware.studies.metrics import ALPHAS, METRICS
from geoaware.studies.paper import DATA, TABLE_9
from geoaware.studies.paper import row as paper_row
from geoaware.studies.wording import paper_cells
from geoaware.training.post_processor.config import Flips, TrainConfig
from geoaware.training.settings import Validation

HEADLINE = METRICS[len(ALPHAS) - 1]
"""PCK at the larger threshold: what rows are called better or worse by."""

_LABELS = tuple(metric.label for metric in METRICS)
_PARTS = attrgetter("dense", "flips", "noise")
_MARKS = {"better": " ▲", "worse": " ▼", "not distinguishable": ""}


@dataclass(frozen=True)
class Row:
    """A row of the table: what of the method is left in.

    Without the dense loss nothing is gained from flips either: mirrored pairs carry the dense loss only
    (section 4.3), so they are not computed. ``noise`` is noise on the target positions, and dropout;
    ``mode``, how similarity becomes position, needs no training of its own; ``printed`` is the row's name in
    the paper's table 9, if it is another.
    """

    name: str
    dense: bool = True
    flips: bool = True
    noise: bool = True
    mode: Mode = "window"
    printed: str = ""

    def configure(self, config: TrainConfig, seed: int) -> TrainConfig:
        """The row's training run; no validation, because its last weights are those that count."""
        off = {part: 0.0 for part in ("dense", "noise") if not getattr(self, part)}
        changes = {
            "loss": config.loss.model_copy(update=off),
            "flips": config.flips if self.dense and self.flips else Flips(double=0.0, single=0.0, self=0.0),
            "network": config.network if self.noise else replace(config.network, dropout=0.0),
            "validation": Validation(),
            "seed": seed,
        }
        return config.model_copy(update=changes)

    @property
    def trained_as(self) -> str:
        """Name of the first row with the same weights."""
        return next(each.name for each in ROWS if _PARTS(each) == _PARTS(self))

    @property
    def paper(self) -> dict[str, float]:
        """The paper's figures on SPair-71k in per cent, by `Metric.key`."""
        figures = paper_row(self.printed or self.name).figures
        return {metric.key: figures[metric.key] for metric in METRICS if metric.key in figures}


ROWS: tuple[Row, ...] = (
    Row("full", printed="supervised"),
    Row("without dense", dense=False),
    Row("without flips", flips=False),
    Row("without noise and dropout", noise=False),
    Row("without window", mode="soft"),
    Row("sparse only", dense=False, flips=False, noise=False, mode="argmax", printed="supervised baseline"),
)
"""In the order of the table. The last is the paper's supervised baseline."""

FULL = ROWS[0]


def choose_rows(names: Sequence[str] | None = None) -> tuple[Row, ...]:
    """Rows by name, with spaces or hyphens, in the order of the table; all when no names are given.

    "full" is always among them, for the others to compare with.
    """
    if names is None:
        return ROWS
    wanted = {" ".join(name.replace("-", " ").split()).lower(): name for name in names}
    known = [row.name for row in ROWS]
    if unknown := [name for plain, name in wanted.items() if plain not in known]:
        raise InputError(f"there is no row {unknown[0]!r}; choose {', '.join(known)}")
    return tuple(row for row in ROWS if row is FULL or row.name in wanted)


@dataclass(frozen=True)
class Figure:
    """One cell of the table, shares; the difference is row less "full", pair by pair and seed by seed."""

    level: Estimate
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class SetFigures:
    """The table of one data set: figures by name of the row and key of the metric, and what they are of."""

    name: str
    protocol: str
    pairs: int
    images: int
    figures: Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class Ablation:
    """Every figure of an ablation: rows in order, the seeds of each row's trainings, a table a data set."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    sets: tuple[SetFigures, ...]

    def sentences(self) -> list[str]:
        """One on each row but "full", then the order of the rows on each data set and in the paper."""
        said = [_sentence(row, self.sets) for row in self.rows if row is not FULL]
        levels = {
            each.name: {row: of[HEADLINE.key].level.value for row, of in each.figures.items()}
            for each in self.sets
        }
        levels["paper"] = {row.name: row.paper[HEADLINE.key] for row in self.rows}
        orders = [f"{name}: {', '.join(sorted(of, key=lambda row: -of[row]))}" for name, of in levels.items()]
        return [*said, f"Order by {HEADLINE.label}, best first. {'; '.join(orders)}."]


def compare(
    values: Mapping[str, Float[np.ndarray, "s p m"]], source: Sequence[str], target: Sequence[str]
) -> dict[str, dict[str, Figure]]:
    """Figures by name of the row and key of the metric.

    Args:
        values: by name of the row, of each seed, pair and metric; that of "full" among them.
        source: id of each pair's source image.
        target: id of its target image.
    """
    full = values[FULL.name]
    found = {}
    for name, each in values.items():
        levels, differences = (estimate(of, source, target) for of in (each, each - full))
        found[name] = {
            metric.key: Figure(level, difference, judge(difference, metric.higher_is_better))
            for metric, level, difference in zip(METRICS, levels, differences, strict=True)
        }
    return found


def paper_verdict(row: Row) -> Verdict:
    """What the paper's figures, which have no intervals, say of a row."""
    apart = row.paper[HEADLINE.key] - FULL.paper[HEADLINE.key]
    return judge(Estimate(apart, apart, apart), HEADLINE.higher_is_better)


def _sentence(row: Row, sets: Sequence[SetFigures]) -> str:
    """What the intervals say of a row on each data set, and whether the paper says the same."""
    expected = paper_verdict(row)
    found, agreement = [], []
    for each in sets:
        figure = each.figures[row.name][HEADLINE.key]
        than = "from" if figure.verdict == "not distinguishable" else "than"
        found.append(f"{figure.verdict} {than} full on {each.name} ({points(figure.difference)})")
        same = "left open" if figure.verdict == "not distinguishable" else "contradicted"
        agreement.append(f"{'borne out' if figure.verdict == expected else same} on {each.name}")
    here, there = row.paper[HEADLINE.key], FULL.paper[HEADLINE.key]
    return (
        f"{row.name}, by {HEADLINE.label}: {'; '.join(found)}. The paper has it {expected} ({here} against "
        f"{there} on {DATA}): {', '.join(agreement)}."
    )


def ablation_grids(found: Ablation) -> list[Grid]:
    """Of each data set the figures of every row, then its differences to full; last what the paper has."""
    grids = []
    for data in found.sets:
        title = f"{data.name}: {data.pairs:,} pairs of {data.images:,} images, protocol {data.protocol}"
        grids.append(_grid(f"{title}, in per cent", data, lambda each: _shown(each.level)))
        apart = _grid(
            f"{data.name}: difference to full, in points",
            data,
            lambda each: _shown(each.difference, "+") + _MARKS[each.verdict],
        )
        grids.append(replace(apart, rows=tuple(row for row in apart.rows if row[0] != FULL.name)))
    known = {metric.key: metric.label for metric in METRICS if metric.key in FULL.paper}
    rows = tuple((row.name, *paper_cells(row.paper, known)) for row in found.rows)
    title = f"{DATA}, in per cent, as the paper has it (table 9)"
    return [*grids, Grid(title, ("row", *known.values()), rows)]


def _grid(title: str, data: SetFigures, cell: Callable[[Figure], str], note: str = "") -> Grid:
    rows = [(row, *(cell(of[metric.key]) for metric in METRICS)) for row, of in data.figures.items()]
    return Grid(title, ("row", *_LABELS), tuple(rows), note)


def _shown(found: Estimate, sign: str = "") -> str:
    """A share as per cent with the margin of its interval."""
    if np.isnan(found.value):
        return MISSING
    margin = "" if np.isnan(found.margin) else f" ± {100 * found.margin:.1f}"
    # Adding 0 takes the sign off a rounded -0.0.
    return f"{round(100 * found.value, 1) + 0:{sign}.1f}{margin}"


def explanation(found: Ablation) -> str:
    """What the figures are, in a paragraph."""
    one = len(found.seeds) == 1
    seeds = f"seed {found.seeds[0]}" if one else f"seeds {', '.join(map(str, found.seeds))}"
    trainings = "not of other seeds, because there is only one" if one else "of other seeds"
    return (
        f"Per image, pose alignment off; error types at alpha {ALPHAS[-1]:g}; {seeds}. ± is half the 95 % "
        f"interval, over the choice of images, which pairs share, and {trainings}. ▲ better, ▼ worse than "
        "full: the whole interval of the difference is on one side of 0; where nothing differs, about one "
        "figure in twenty is marked by chance."
    )


def to_json(found: Ablation) -> str:
    """Every figure, with the paper's and the sentences."""

    def cells(of: Mapping[str, Figure]) -> dict[str, Any]:
        return {
            key: {**vars(each.level), "difference": vars(each.difference), "verdict": each.verdict}
            for key, each in of.items()
        }

    content = {
        "rows": [row.name for row in found.rows],
        "seeds": found.seeds,
        "sets": [
            {**vars(each), "figures": {row: cells(of) for row, of in each.figures.items()}}
            for each in found.sets
        ],
        "paper": {row.name: row.paper for row in found.rows},
        "sentences": found.sentences(),
    }
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def _from_json(content: dict[str, Any]) -> Ablation:
    def value(of: Mapping[str, Any]) -> Estimate:
        return Estimate(*(float("nan" if of[key] is None else of[key]) for key in ("value", "low", "high")))

    sets = []
    for data in content["sets"]:
        figures = {
            row: {key: Figure(value(of), value(of["difference"]), of["verdict"]) for key, of in cells.items()}
            for row, cells in data["figures"].items()
        }
        sets.append(SetFigures(data["name"], data["protocol"], data["pairs"], data["images"], figures))
    return Ablation(choose_rows(content["rows"]), tuple(content["seeds"]), tuple(sets))


def trained_rows(path: Path) -> Outcome:
    """What an ablation found (tables 5 and 9), from the JSON that it printed: a table for each data set.

    Raises:
        InputError: the file is missing, or is not what `to_json` made.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = _from_json(content)
        grids, said = [_marked_grid(data, found) for data in found.sets], found.sentences()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the JSON of an ablation", "ablation"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: is not the JSON of an ablation ({reason(error)}){file_known_as(path)}",
            "ablation",
        ) from None
    keys = [metric.key for metric in METRICS]
    paper = tuple((each.label, *paper_cells(each.figures, keys)) for each in TABLE_9)
    return Outcome(
        grids=(*grids, Grid("The paper's rows (table 9), in per cent", ("row", *_LABELS), paper)),
        finding=" ".join(said),
        figures={"sets": content["sets"], "seeds": content["seeds"]},
        name="ablation",
        title="Leave-one-out rows, trained",
        about="Every part of the training left out in turn, as `geoaware ablation` trained and compared "
        "them (tables 5 and 9).",
    )


def _marked_grid(data: SetFigures, found: Ablation) -> Grid:
    return _grid(
        f"{data.name}: {data.pairs:,} pairs, protocol {data.protocol}, in per cent",
        data,
        lambda each: percent(each.level.value) + _MARKS[each.verdict],
        f"Per image, pose alignment off, mean of {len(found.seeds)} training runs. ▲ better, ▼ worse than "
        "full: the whole 95 % interval of the difference is on one side of 0.",
    )
