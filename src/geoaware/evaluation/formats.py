"""A `PCKResult` as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
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
    errors: dict[str, Any] | None = None
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
    writer.writerows(_lines("all", "", result.overall, pck))
    for name, each in result.by_category.items():
        writer.writerows(_lines("category", name, each, pck, _WITHIN))
    for step, each in result.by_azimuth.items():
        writer.writerows(_lines("azimuth", str(step), each, pck))
    if result.errors is not None:
        types = [(kind, result.error_alpha) for kind in ERROR_TYPES]
        writer.writerows(_lines("all", "", result.errors, types))
    for name, sets in result.sensitivity.items():
        for kind, values in sets.items():
            for alpha, value in zip(result.alphas, values, strict=True):
                head = ["category", name, kind, "azimuth_sensitivity", "", alpha]
                writer.writerow([*head, _cell(value), "", "", "", ""])
    for point in result.by_keypoint:
        for kind, values in point.values.items():
            for alpha, value in zip(result.alphas, values, strict=True):
                head = [
                    "keypoint",
                    f"{point.category}/{point.id} {point.name}",
                    kind,
                    "pck",
                    "per_point",
                    alpha,
                ]
                writer.writerow([*head, _cell(value), "", "", "", point.keypoints[kind]])
    return out.getvalue()


def _lines(
    scope: str,
    name: str,
    both: BothSets,
    metrics: Sequence[tuple[str, float]],
    averagings: Sequence[Averaging] = AVERAGINGS,
) -> Iterator[list[Any]]:
    for kind, scores in both.sets.items():
        for averaging in averagings:
            spans: Sequence[Estimate | None] = scores.intervals.get(averaging, [None] * len(metrics))
            columns = zip(metrics, scores.values[averaging], spans, strict=True)
            for (metric, alpha), value, span in columns:
                bounds = ["", ""] if span is None else [_cell(span.low), _cell(span.high)]
                head = [scope, name, kind, metric, averaging, alpha]
                yield [*head, _cell(value), *bounds, scores.pairs, scores.keypoints]


def _cell(value: float) -> str:
    return "" if isnan(value) else repr(value)


def _both(both: BothSets) -> dict[str, Any]:
    sets = {
        kind: {
            "pairs": scores.pairs,
            "keypoints": scores.keypoints,
            **scores.values,
            "intervals": {name: [[i.low, i.high] for i in spans] for name, spans in scores.intervals.items()},
        }
        for kind, scores in both.sets.items()
    }
    return {
        **sets,
        "relative_gap": {name: both.gap(name) for name in AVERAGINGS},
        "geometry_aware_pair_share": both.pair_share,
        "geometry_aware_keypoint_share": both.keypoint_share,
    }


def _breakdowns(result: PCKResult, by: By) -> list[Grid]:
    alphas = [f"{alpha:g}" for alpha in result.alphas]
    if by == "category":
        return [_by_part(result, "category", result.by_category)]
    if by == "keypoint":
        columns = ("keypoint", "id", "points", *alphas, "geo. points", *(f"geo. {alpha}" for alpha in alphas))
        rows = [
            (f"{each.category}: {each.name}", str(each.id), *_cells(each.keypoints, each.values))
            for each in result.by_keypoint
        ]
        return [Grid("PCK by keypoint in per cent, all points pooled", columns, tuple(rows))]
    if not result.by_azimuth:
        raise InputError(
            "these predictions hold no azimuth difference (the data set gives none), so there are no azimuth "
            "subsets; break the figures down by category or keypoint",
            parameter="by",
        )
    heads = [f"{kind} {alpha}" for kind in ("standard", "geo.") for alpha in alphas]
    rows = [
        (name, *(percent(value) for kind in SETS for value in sets[kind]))
        for name, sets in result.sensitivity.items()
    ]
    return [
        _by_part(
            result,
            "azimuth difference",
            {f"{step} ({45 * step}°)": each for step, each in result.by_azimuth.items()},
        ),
        Grid(
            "Sensitivity to azimuth, (max - min) / max over the subsets, in per cent",
            ("category", *heads),
            tuple(rows),
            f"{MISSING}: fewer than two azimuth differences occur.",
        ),
    ]


def _by_part(result: PCKResult, what: str, parts: Mapping[str, BothSets]) -> Grid:
    """One row per part, in the two averages that are defined within it."""
    headline = result.column(result.headline_alpha)
    rows = [
        (
            name,
            LABELS[averaging],
            *_cells(
                {kind: scores.pairs for kind, scores in both.sets.items()},
                {kind: scores.values[averaging] for kind, scores in both.sets.items()},
            ),
            percent(both.gap(averaging)[headline]),
        )
        for averaging in _WITHIN
        for name, both in parts.items()
    ]
    alphas = [f"{alpha:g}" for alpha in result.alphas]
    aware = [f"geo. {alpha}" for alpha in alphas]
    columns = (what, "average", "pairs", *alphas, "geo. pairs", *aware, f"gap {result.headline_alpha:g}")
    return Grid(f"PCK by {what} in per cent", columns, tuple(rows))


def _cells(counts: Mapping[str, int], values: Mapping[str, Sequence[float]]) -> list[str]:
    """Of each set how many there are, and its shares in per cent."""
    return [cell for kind in SETS for cell in (f"{counts[kind]:,}", *map(percent, values[kind]))]
