"""From runs to cells and sentences, so that all analyses print and say the same things in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from geoaware.evaluation.averages import LABELS
from geoaware.evaluation.result import SETS, PCKResult
from geoaware.evaluation.tables import MISSING, Grid, interval, percent
from geoaware.report.plots import dumbbells
from geoaware.studies.case import Run
from geoaware.studies.paper import PaperRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADLINE, HEADLINE_AWARE = "pck@0.1", "geometry_aware_pck@0.1"
"""Keys of `METRICS` that sentences are about."""


def pck_values(result: PCKResult, kind: str = "standard") -> tuple[float, ...]:
    """PCK by alpha, in the protocol's average."""
    return result.overall.sets[kind].values[result.averaging]


def pck_cells(result: PCKResult, kinds: Sequence[str] = SETS) -> list[str]:
    """PCK in per cent by alpha, first of all keypoints, then of the geometry-aware ones."""
    return [percent(value) for kind in kinds for value in pck_values(result, kind)]


def pck_columns(result: PCKResult, *between: str) -> list[str]:
    """Headings of `pck_cells`, with what stands between the two sets."""
    alphas = [f"{alpha:g}" for alpha in result.alphas]
    return [*alphas, *between, *(f"geo. {alpha}" for alpha in alphas)]


def headline_pair(result: PCKResult) -> tuple[float, float]:
    """PCK of all keypoints and of the geometry-aware ones at the headline alpha."""
    column = result.column(result.headline_alpha)
    return pck_values(result)[column], pck_values(result, "geometry_aware")[column]


def headline_interval(result: PCKResult, kind: str = "standard") -> str:
    """95 % interval at the headline alpha, in the protocol's average."""
    return interval(result.overall.sets[kind], result.averaging, result.column(result.headline_alpha))


def gap(result: PCKResult) -> float:
    """Relative gap from standard to geometry-aware at the headline alpha, in the protocol's average."""
    return result.overall.gap(result.averaging)[result.column(result.headline_alpha)]


def paper_cells(figures: Mapping[Any, float], keys: Iterable[Any]) -> list[str]:
    """The paper's per cents by alpha, or by whatever else they are known."""
    return [f"{figures[key]:.1f}" if key in figures else MISSING for key in keys]


def figures_of(run: Run) -> dict[str, Any]:
    """The figures that tables show of a run, as plain values, with the file they are of."""
    result = run.result
    sets = {kind: result.overall.sets[kind].values for kind in SETS}
    return {
        "predictions": run.place,
        "protocol": result.protocol,
        "averaging": result.averaging,
        "alphas": result.alphas,
        **sets,
        "relative_gap": result.overall.gap(result.averaging),
    }


def figure_rows(rows: Iterable[tuple[str, Run]]) -> list[dict[str, Any]]:
    """`figures_of` several runs by the names of their rows."""
    return [{"row": name, **figures_of(run)} for name, run in rows]


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


def pck_rows(rows: Iterable[tuple[str, Run]]) -> Figure:
    """A row a run: all keypoints and the geometry-aware ones, at the headline alpha."""
    return pck_groups([(name, {"": run}) for name, run in rows])


def pck_groups(groups: Sequence[tuple[str, Mapping[str, Run]]]) -> Figure:
    """Likewise, several runs a group, which may be of different data sets."""
    result = next(run.result for _, runs in groups for run in runs.values())
    ends = [(name, {each: headline_pair(run.result) for each, run in runs.items()}) for name, runs in groups]
    return dumbbells(ends, f"PCK@{result.headline_alpha:g} in % ({LABELS[result.averaging]})")


def pck_grid(title: str, what: str, rows: Sequence[tuple[str, Run]], paper: Sequence[PaperRow]) -> Grid:
    """PCK of both sets, a row a run, then the paper's rows; intervals at the headline alpha."""
    first = rows[0][1].result
    columns = (what, *pck_columns(first, "95 % CI"), "geo. 95 % CI")
    lines = []
    for name, run in rows:
        sets = ((*pck_cells(run.result, [kind]), headline_interval(run.result, kind)) for kind in SETS)
        lines.append((name, *chain.from_iterable(sets)))
    for each in paper:
        known = ((*paper_cells(of, first.alphas), MISSING) for of in (each.standard, each.geometry_aware))
        lines.append((each.label, *chain.from_iterable(known)))
    label = LABELS[first.averaging]
    note = f"{label[:1].upper()}{label[1:]}; 95 % CI at {first.headline_alpha:g}, a bootstrap over pairs."
    return Grid(title, columns, tuple(lines), note)
