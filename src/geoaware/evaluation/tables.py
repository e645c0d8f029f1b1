"""Tables as text, rich tables and Markdown; a `PCKResult` as these, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from geoaware.evaluation.averages import AVERAGINGS, LABELS, Averaging, Scores
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from geoaware.evaluation.result import Comparison, PCKResult

By = Literal["category", "azimuth", "keypoint"]

ERROR_LABELS = {
    "jitter": "jitter",
    "miss": "miss",
    "swap": "swap",
    "swap_lr": "swap LR",
    "pck_dagger": "PCK†",
}
MISSING = "–"
"""Stands where there is no figure."""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn: the one source of the rich and the Markdown form."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def grids(result: PCKResult, by: By | None = None) -> list[Grid]:
    """The main tables, and the one that breaks the figures down.

    Raises:
        InputError: a breakdown by azimuth of pairs whose data set gives none.
    """
    found = [_main(result)]
    if result.errors is not None:
        found.append(_errors(result))
    if by == "category":
        found.append(_categories(result))
    elif by == "azimuth":
        found += _azimuth(result)
    elif by == "keypoint":
        found.append(_keypoints(result))
    return found


def tables(result: PCKResult, by: By | None = None) -> Iterator[Table]:
    """`grids` as rich tables."""
    return map(as_table, grids(result, by))


def as_table(grid: Grid) -> Table:
    """A grid as a rich table."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=grid.title,
        caption=grid.note or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for number, name in enumerate(grid.columns):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in grid.rows:
        table.add_row(*row)
    return table


def to_text(result: PCKResult, by: By | None = None) -> str:
    """The tables as plain text, as wide as they need: no figure is ever cut."""
    return as_text(grids(result, by))


def as_text(several: Sequence[Grid]) -> str:
    """Grids as plain text, as wide as they need."""
    from rich.console import Console
    from rich.measure import Measurement

    out = io.StringIO()
    console = Console(file=out, width=10_000, force_terminal=False, color_system=None)
    for table in map(as_table, several):
        console.print(table, width=Measurement.get(console, console.options, table).maximum)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def to_markdown(result: PCKResult) -> str:
    """Every table in Markdown, the breakdowns included."""
    found = [*grids(result, "category"), _keypoints(result)]
    if result.by_azimuth:
        found += _azimuth(result)
    return "\n\n".join(as_markdown(grid) for grid in found) + "\n"


def to_dict(result: PCKResult) -> dict[str, Any]:
    """Plain values; NaN becomes ``None``."""
    return plain(
        {
            "protocol": result.protocol,
            "averaging": result.averaging,
            "alphas": result.alphas,
            "about": result.about,
            "overall": _comparison(result.overall),
            "by_category": {name: _comparison(each) for name, each in result.by_category.items()},
            "by_azimuth": {str(step): _comparison(each) for step, each in result.by_azimuth.items()},
            "azimuth_sensitivity": result.sensitivity,
            "by_keypoint": [vars(each) for each in result.by_keypoint],
            "errors": None
            if result.errors is None
            else {"alpha": result.error_alpha, "types": ERROR_TYPES, **_comparison(result.errors)},
            "bootstrap_draws": result.draws,
        }
    )


def to_json(result: PCKResult, indent: int | None = 2) -> str:
    """`to_dict` as JSON."""
    return json.dumps(to_dict(result), indent=indent, ensure_ascii=False, allow_nan=False)


def to_csv(result: PCKResult) -> str:
    """One figure a line; empty where there is nothing to average."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["scope", "name", "set", "metric", "averaging", "alpha", "value", "low", "high", "pairs", "keypoints"]
    )
    pck = tuple(("pck", alpha) for alpha in result.alphas)
    scopes = [("all", "", result.overall)]
    scopes += [("category", name, each) for name, each in result.by_category.items()]
    scopes += [("azimuth", str(step), each) for step, each in result.by_azimuth.items()]
    for scope, name, comparison in scopes:
        writer.writerows(_lines(scope, name, comparison, pck))
    if result.errors is not None:
        kinds = tuple((kind, result.error_alpha) for kind in ERROR_TYPES)
        writer.writerows(_lines("all", "", result.errors, kinds))
    for name, sets in result.sensitivity.items():
        for kind, values in sets.items():
            for alpha, value in zip(result.alphas, values, strict=True):
                writer.writerow(
                    ["category", name, kind, "azimuth_sensitivity", "", alpha, _cell(value), *[""] * 4]
                )
    for point in result.by_keypoint:
        for kind, values in point.values.items():
            for alpha, value in zip(result.alphas, values, strict=True):
                label = f"{point.category}/{point.id} {point.name}"
                head = ["keypoint", label, kind, "pck", "per_point", alpha]
                writer.writerow([*head, _cell(value), "", "", "", point.keypoints[kind]])
    return out.getvalue()


def _lines(
    scope: str, name: str, comparison: Comparison, metrics: Sequence[tuple[str, float]]
) -> Iterator[list[Any]]:
    for kind, scores in comparison.sets.items():
        for averaging, values in _averages(scope, scores):
            spans = scores.intervals.get(averaging, ())  # type: ignore[call-overload]
            for number, ((metric, alpha), value) in enumerate(zip(metrics, values, strict=True)):
                bounds = [_cell(spans[number].low), _cell(spans[number].high)] if spans else ["", ""]
                head = [scope, name, kind, metric, averaging, alpha]
                yield [*head, _cell(value), *bounds, scores.pairs, scores.keypoints]


def _averages(scope: str, scores: Scores) -> list[tuple[str, tuple[float, ...]]]:
    """The averages that say something: within one category the category means are the other two."""
    names = AVERAGINGS[:2] if scope == "category" else AVERAGINGS
    return [(name, scores.values[name]) for name in names]


def _main(result: PCKResult) -> Grid:
    sets = result.overall
    rows = []
    for averaging in AVERAGINGS:
        for number, alpha in enumerate(result.alphas):
            standard, aware = sets.standard, sets.geometry_aware
            mark = " *" if averaging == result.averaging else ""
            rows.append(
                (
                    (LABELS[averaging] + mark) if number == 0 else "",
                    f"{alpha:g}",
                    percent(standard.values[averaging][number]),
                    interval(standard, averaging, number),
                    percent(aware.values[averaging][number]),
                    interval(aware, averaging, number),
                    percent(sets.gap(averaging)[number]),
                )
            )
    note = (
        f"* the average that protocol {result.protocol} quotes. "
        f"{sets.standard.pairs:,} pairs, {sets.standard.keypoints:,} keypoints; "
        f"geometry-aware: {percent(sets.pair_share)} % of the pairs, "
        f"{percent(sets.keypoint_share)} % of the keypoints."
    )
    columns = ("average", "alpha", "standard", "95 % CI", "geometry-aware", "95 % CI", "relative gap")
    return Grid(_title(result), columns, tuple(rows), note)


def _title(result: PCKResult) -> str:
    what = [str(result.about[key]) for key in ("dataset", "split", "extractor") if result.about.get(key)]
    return " · ".join(["PCK in per cent", f"protocol {result.protocol}", *what])


def _errors(result: PCKResult) -> Grid:
    assert result.errors is not None
    rows = []
    for averaging in AVERAGINGS[:2]:
        for kind, scores in result.errors.sets.items():
            values = [percent(value) for value in scores.values[averaging]]
            rows.append((f"{LABELS[averaging]}, {_set_label(kind)}", *values))
    title = f"Kinds of mistake at alpha {result.error_alpha:g} in per cent (PCK† + miss + swap = 100)"
    return Grid(title, ("average, set", *(ERROR_LABELS[each] for each in ERROR_TYPES)), tuple(rows))


def _categories(result: PCKResult) -> Grid:
    return _breakdown(result, "category", list(result.by_category.items()), "PCK by category in per cent")


def _azimuth(result: PCKResult) -> list[Grid]:
    if not result.by_azimuth:
        raise InputError(
            "these predictions hold no azimuth difference (the data set gives none), so there are no azimuth "
            "subsets; leave out --by azimuth"
        )
    named = [(f"{step} ({45 * step}°)", each) for step, each in result.by_azimuth.items()]
    rows = [
        (name, *(percent(v) for v in sets["standard"]), *(percent(v) for v in sets["geometry_aware"]))
        for name, sets in result.sensitivity.items()
    ]
    heads = [f"{kind} {alpha:g}" for kind in ("standard", "geo.") for alpha in result.alphas]
    return [
        _breakdown(result, "azimuth difference", named, "PCK by azimuth difference in per cent"),
        Grid(
            "Sensitivity to azimuth, (max - min) / max over the subsets, in per cent",
            ("category", *heads),
            tuple(rows),
            f"{MISSING}: fewer than two azimuth differences occur.",
        ),
    ]


def _breakdown(result: PCKResult, what: str, named: Sequence[tuple[str, Comparison]], title: str) -> Grid:
    """One row per part, in the two averages that are defined within it."""
    rows = []
    for averaging in AVERAGINGS[:2]:
        for name, each in named:
            rows.append(
                (
                    name,
                    LABELS[averaging],
                    f"{each.standard.pairs:,}",
                    *(percent(v) for v in each.standard.values[averaging]),
                    f"{each.geometry_aware.pairs:,}",
                    *(percent(v) for v in each.geometry_aware.values[averaging]),
                    percent(each.gap(averaging)[result.column(result.headline_alpha)]),
                )
            )
    alphas = tuple(f"{alpha:g}" for alpha in result.alphas)
    aware = tuple(f"geo. {alpha}" for alpha in alphas)
    columns = (what, "average", "pairs", *alphas, "geo. pairs", *aware, f"gap {result.headline_alpha:g}")
    return Grid(title, columns, tuple(rows))


def _keypoints(result: PCKResult) -> Grid:
    alphas = tuple(f"{alpha:g}" for alpha in result.alphas)
    rows = tuple(
        (
            f"{each.category}: {each.name}",
            str(each.id),
            f"{each.keypoints['standard']:,}",
            *(percent(v) for v in each.values["standard"]),
            f"{each.keypoints['geometry_aware']:,}",
            *(percent(v) for v in each.values["geometry_aware"]),
        )
        for each in result.by_keypoint
    )
    columns = ("keypoint", "id", "points", *alphas, "geo. points", *(f"geo. {alpha}" for alpha in alphas))
    return Grid("PCK by keypoint in per cent, all points pooled", columns, rows)


def _comparison(comparison: Comparison) -> dict[str, Any]:
    sets = {
        kind: {
            "pairs": scores.pairs,
            "keypoints": scores.keypoints,
            **scores.values,
            "intervals": {name: [[i.low, i.high] for i in spans] for name, spans in scores.intervals.items()},
        }
        for kind, scores in comparison.sets.items()
    }
    return {
        **sets,
        "relative_gap": {name: comparison.gap(name) for name in AVERAGINGS},
        "geometry_aware_pair_share": comparison.pair_share,
        "geometry_aware_keypoint_share": comparison.keypoint_share,
    }


def plain(value: Any) -> Any:
    """A value as JSON takes it: tuples as lists, NaN as ``None``."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def as_markdown(grid: Grid) -> str:
    """A grid as a Markdown table below its title, the note last."""
    rule = [":---", *["---:"] * (len(grid.columns) - 1)]
    lines = [f"**{grid.title}**", "", _row(grid.columns), _row(rule), *(_row(row) for row in grid.rows)]
    return "\n".join([*lines, "", grid.note] if grid.note else lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def percent(share: float) -> str:
    """A share as per cent with one digit; `MISSING` for NaN."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f}"


def interval(scores: Scores, averaging: Averaging, number: int) -> str:
    """The 95 % interval of a column in per cent; `MISSING` where none was computed."""
    spans = scores.intervals.get(averaging)
    if not spans or math.isnan(spans[number].low):
        return MISSING
    return f"{percent(spans[number].low)} to {percent(spans[number].high)}"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _set_label(kind: str) -> str:
    return kind.replace("_", "-")
