"""A `PCKResult` as text, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from geoaware.evaluation.averages import AVERAGINGS, LABELS, Scores
from geoaware.evaluation.result import Comparison, PCKResult
from geoaware.evaluation.tables import MISSING, Grid, as_markdown, as_text, percent, plain
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.runs.errors import InputError

By = Literal["category", "azimuth", "keypoint"]


def grids(result: PCKResult, by: By | None = None) -> list[Grid]:
    """The main tables, and the one that breaks the figures down.

    Raises:
        InputError: a breakdown by azimuth of pairs whose data set gives none.
    """
    found = result.grids()
    if by == "category":
        found.append(_categories(result))
    elif by == "azimuth":
        found += _azimuth(result)
    elif by == "keypoint":
        found.append(_keypoints(result))
    return found


def to_text(result: PCKResult, by: By | None = None) -> str:
    """The tables as plain text, as wide as they need: no figure is ever cut."""
    return as_text(grids(result, by))


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


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
