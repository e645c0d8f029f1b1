"""From runs to cells and sentences, so that all analyses print and say the same things in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geoaware.evaluation.averages import LABELS, Averaging
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.tables import MISSING, Grid, interval, percent
from geoaware.report.plots import dumbbells
from geoaware.studies.paper import PaperRow
from geoaware.studies.study import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETS = ("standard", "geometry_aware")

HEADLINE, HEADLINE_AWARE = "pck@0.1", "geometry_aware_pck@0.1"
"""Keys of `training.ablation.METRICS` that sentences are about."""


def pck_cells(result: PCKResult, kind: str = "standard", averaging: Averaging | None = None) -> list[str]:
    """PCK in per cent by alpha."""
    return [percent(each) for each in pck_values(result, kind, averaging)]


def pck_values(
    result: PCKResult, kind: str = "standard", averaging: Averaging | None = None
) -> tuple[float, ...]:
    """PCK by alpha, in the protocol's average if none is given."""
    return result.overall.sets[kind].values[averaging or result.averaging]


def headline_interval(result: PCKResult, kind: str = "standard") -> str:
    """95 % interval at the headline alpha, in the protocol's average."""
    return interval(result.overall.sets[kind], result.averaging, result.column(result.headline_alpha))


def gap(result: PCKResult) -> float:
    """Relative gap from standard to geometry-aware at the headline alpha, in the protocol's average."""
    return result.overall.gap(result.averaging)[result.column(result.headline_alpha)]


def paper_cells(figures: Mapping[float, float], alphas: Sequence[float]) -> list[str]:
    """The paper's per cents at our alphas."""
    return [f"{figures[alpha]:.1f}" if alpha in figures else MISSING for alpha in alphas]


def alpha_columns(result: PCKResult, prefix: str = "") -> list[str]:
    """Headings of the columns of alphas."""
    return [f"{prefix}{alpha:g}" for alpha in result.alphas]


def figures_of(run: Run) -> dict[str, Any]:
    """The figures that tables show of a run, as plain values, with the file they are of."""
    result = run.result
    return {
        "predictions": run.place,
        "protocol": result.protocol,
        "averaging": result.averaging,
        "alphas": list(result.alphas),
        **{
            kind: {name: list(values) for name, values in result.overall.sets[kind].values.items()}
            for kind in SETS
        },
        "relative_gap": list(result.overall.gap(result.averaging)),
    }


def names_of(several: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([*([", ".join(several[:-1])] if several[1:] else []), *several[-1:]])


def count_of(things: Sequence[object], one: str, several: str) -> str:
    """``1 category``, ``2 categories``."""
    return f"{len(things)} {one if len(things) == 1 else several}"


def sentence(*parts: str) -> str:
    """Parts joined by semicolons, begun with a capital, ended with a full stop; nothing of nothing."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def known(values: Iterable[float]) -> list[float]:
    """Those that are not NaN."""
    return [each for each in values if not math.isnan(each)]


def pck_rows(rows: Iterable[tuple[str, Run]]) -> Figure:
    """A row a run: all keypoints and the geometry-aware ones, at the headline alpha."""
    return pck_groups([(name, {"": run}) for name, run in rows])


def pck_groups(groups: Sequence[tuple[str, Mapping[str, Run]]]) -> Figure:
    """Likewise, several runs a group, which may be of different data sets."""
    result = next(run.result for _, runs in groups for run in runs.values())
    ends = [(name, {each: _both_sets(run.result) for each, run in runs.items()}) for name, runs in groups]
    return dumbbells(ends, f"PCK@{result.headline_alpha:g} in % ({LABELS[result.averaging]})")


def _both_sets(result: PCKResult) -> tuple[float, float]:
    column = result.column(result.headline_alpha)
    standard, aware = (pck_values(result, kind)[column] for kind in SETS)
    return standard, aware


def pck_grid(title: str, what: str, rows: Sequence[tuple[str, Run]], paper: Sequence[PaperRow]) -> Grid:
    """PCK of both sets, a row a run, then the paper's rows; intervals at the headline alpha.

    Args:
        title: of the table.
        what: heads the first column.
        rows: names and runs, at least one.
        paper: rows of the paper.
    """
    first = rows[0][1].result
    alphas = first.alphas
    columns = [what]
    for prefix in ("", "geo. "):
        columns += [*alpha_columns(first, prefix), f"{prefix}95 % CI"]
    ours = [
        (
            name,
            *(
                cell
                for kind in SETS
                for cell in (*pck_cells(run.result, kind), headline_interval(run.result, kind))
            ),
        )
        for name, run in rows
    ]
    theirs = [
        (
            each.label,
            *(c for of in (each.standard, each.geometry_aware) for c in (*paper_cells(of, alphas), MISSING)),
        )
        for each in paper
    ]
    note = f"{LABELS[first.averaging]}; 95 % CI at {first.headline_alpha:g}, a bootstrap over pairs."
    return Grid(title, tuple(columns), (*ours, *theirs), note[:1].upper() + note[1:])
