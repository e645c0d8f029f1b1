"""A `PCKResult` as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from math import isnan
from typing import Any, Literal

from geoaware.evaluation.averages import AVERAGINGS, LABELS, Averaging
from geoaware.evaluation.result import SETS, BothSets, PCKResult
from geoaware.evaluation.statistics import Estimate
from geoaware.evaluation.tables import MISSING, Grid, as_markdown, as_text, percent, plain
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.runs.errors import InputError

By = Literal["category", "azimuth", "keypoint"]

_COLUMNS = "scope,name,set,metric,averaging,alpha,value,low,high,pairs,keypoints"
_WITHIN: tuple[Averaging, ...] = AVERAGINGS[:2]
"""The averages that say something within one category, where the category means are the same again."""


def to_text(result: PCKResult, by: By | None = None) -> str:
    """The main tables as plain text, and those that break the figures down.

    Raises:
        InputError: a breakdown by azimuth of pairs whose data set gives none.
    """
    return as_text([*result.grids(), *(_breakdowns(result, by) if by else ())])


def to_markdown(result: PCKResult) -> str:
    """Every table in Markdown, the breakdowns included."""
    grids = [*result.grids(), *_breakdowns(result, "category"), *_breakdowns(result, "keypoint")]
    if result.by_azimuth:
        grids += _breakdowns(result, "azimuth")
    return "\n\n".join(map(as_markdown, grids)) + "\n"


def to_dict(result: PCKResult) -> dict[str, Any]:
    """Everything as plain Python values; NaN becomes ``None``."""
    errors = None
    if result.errors is not None:
        errors = {"alpha": result.error_alpha, "types": ERROR_TYPES, **_both(result.errors)}
    return plain(
        {
            "protocol": result.protocol,
            "averaging": result.averaging,
            "alphas": result.alphas,
            "about": result.about,
            "overall": _both(result.overall),
            "by_category": {name: _both(each) for name, each in result.by_category.items()},
            "by_azimuth": {str(step): _both(each) for step, each in result.by_azimuth.items()},
            "azimuth_sensitivity": result.sensitivity,
            "by_keypoint": [vars(each) for each in result.by_keypoint],
            "errors": errors,
            "bootstrap_draws": result.draws,
        }
    )


def to_json(result: PCKResult) -> str:
    """`to_dict` as JSON."""
    return json.dumps(to_dict(result), indent=2, ensure_ascii=False, allow_nan=False)


def to_csv(result: PCKResult) -> str:
    """One figure a line, with what it is a figure of; empty where there is nothing to average."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS.split(","))
    pck = [("pck", alpha) for alpha in result.alphas]
    lines = [_lines("all", "", result.overall, pck)]
    lines += [_lines("category", name, each, pck, _WITHIN) for name, each in result.by_category.items()]
    lines += [_lines("azimuth", str(step), each, pck) for step, each in result.by_azimuth.items()]
    if result.errors is not None:
        lines.append(_lines("all", "", result.errors, [(kind, result.error_alpha) for kind in ERROR_TYPES]))
    writer.writerows(chain.from_iterable(lines))
    # What has no bounds, and points of its own or none.
    shares: list[tuple[Any, ...]] = [
        ("category", name, "azimuth_sensitivity", "", sets, {}) for name, sets in result.sensitivity.items()
    ]
    for each in result.by_keypoint:
        point = f"{each.category}/{each.id} {each.name}"
        shares.append(("keypoint", point, "pck", "per_point", each.values, each.keypoints))
    for scope, name, metric, averaging, sets, points in shares:
        for kind, values in sets.items():
            for alpha, value in zip(result.alphas, values, strict=True):
                head = [scope, name, kind, metric, averaging, alpha]
                writer.writerow([*head, _cell(value), "", "", "", points.get(kind, "")])
    return out.getvalue()


def _lines(
    scope: str,
    name: str,
    both: BothSets,
    metrics: Sequence[tuple[str, float]],
    averagings: Sequence[Averaging] = AVERAGINGS,
) -> Iterator[list[Any]]:
    for (kind, scores), averaging in product(both.sets.items(), averagings):
        spans: Sequence[Estimate | None] = scores.intervals.get(averaging, [None] * len(metrics))
        for (metric, alpha), value, span in zip(metrics, scores.values[averaging], spans, strict=True):
            bounds = ["", ""] if span is None else [_cell(span.low), _cell(span.high)]
            head = [scope, name, kind, metric, averaging, alpha]
            yield [*head, _cell(value), *bounds, scores.pairs, scores.keypoints]


def _cell(value: float) -> str:
    return "" if isnan(value) else repr(value)


def _both(both: BothSets) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    for kind, scores in both.sets.items():
        bounds = {name: [[i.low, i.high] for i in spans] for name, spans in scores.intervals.items()}
        sets[kind] = {"pairs": scores.pairs, "keypoints": scores.keypoints}
        sets[kind].update(scores.values, intervals=bounds)
    return {
        **sets,
        "relative_gap": {name: both.gap(name) for name in AVERAGINGS},
        "geometry_aware_pair_share": both.pair_share,
        "geometry_aware_keypoint_share": both.keypoint_share,
    }


def _breakdowns(result: PCKResult, by: By) -> list[Grid]:
    if by == "category":
        return [_by_part(result, "category", result.by_category)]
    if by == "keypoint":
        rows = []
        for each in result.by_keypoint:
            cells = _cells((each.keypoints[kind], each.values[kind]) for kind in SETS)
            rows.append((f"{each.category}: {each.name}", str(each.id), *cells))
        columns = ("keypoint", "id", *_columns(result, "points"))
        return [Grid("PCK by keypoint in per cent, all points pooled", columns, tuple(rows))]
    if not result.by_azimuth:
        raise InputError(
            "these predictions hold no azimuth difference (the data set gives none), so there are no azimuth "
            "subsets; break the figures down by category or keypoint",
            parameter="by",
        )
    steps = {f"{step} ({45 * step}°)": each for step, each in result.by_azimuth.items()}
    title = "Sensitivity to azimuth, (max - min) / max over the subsets, in per cent"
    heads = [f"{kind} {alpha:g}" for kind in ("standard", "geo.") for alpha in result.alphas]
    found = result.sensitivity.items()
    rows = [(name, *(percent(value) for kind in SETS for value in sets[kind])) for name, sets in found]
    note = f"{MISSING}: fewer than two azimuth differences occur."
    sensitivity = Grid(title, ("category", *heads), tuple(rows), note)
    return [_by_part(result, "azimuth difference", steps), sensitivity]


def _by_part(result: PCKResult, what: str, parts: Mapping[str, BothSets]) -> Grid:
    """One row per part, in the two averages that are defined within it."""
    alpha = result.headline_alpha
    rows = [
        (
            name,
            LABELS[averaging],
            *_cells((each.pairs, each.values[averaging]) for each in both.sets.values()),
            percent(both.gap(averaging)[result.column(alpha)]),
        )
        for averaging, (name, both) in product(_WITHIN, parts.items())
    ]
    columns = (what, "average", *_columns(result, "pairs"), f"gap {alpha:g}")
    return Grid(f"PCK by {what} in per cent", columns, tuple(rows))


def _columns(result: PCKResult, counted: str) -> list[str]:
    """Headings of `_cells`."""
    heads = [counted, *(f"{alpha:g}" for alpha in result.alphas)]
    return [*heads, *(f"geo. {each}" for each in heads)]


def _cells(sets: Iterable[tuple[int, Sequence[float]]]) -> list[str]:
    """Of each set how many there are, and its shares in per cent."""
    return [cell for count, shares in sets for cell in (f"{count:,}", *map(percent, shares))]
