"""`PCKResult`: every figure of one evaluation, and how it is built from points."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoaware.evaluation.averages import (
    AVERAGINGS,
    Averaging,
    Intervals,
    Scores,
    average,
    bootstrap,
)
from geoaware.evaluation.counts import GEOMETRY_AWARE, STANDARD, Counts, PointTable, correct_points, count
from geoaware.method.metrics.azimuth import SUBSETS, sensitivity
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.method.metrics.geometry_aware import relative_gap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE: tuple[float, ...] = tuple(step / 200 for step in range(1, 41))
"""Alphas of the curve of PCK against alpha: 0.005 … 0.2."""


@dataclass(frozen=True)
class Comparison:
    """The standard set and the geometry-aware subset side by side.

    Attributes:
        standard: all evaluated points.
        geometry_aware: those that only geometry tells apart.
    """

    standard: Scores
    geometry_aware: Scores

    @property
    def sets(self) -> dict[str, Scores]:
        """Both by name."""
        return {"standard": self.standard, "geometry_aware": self.geometry_aware}

    @property
    def pair_share(self) -> float:
        """Share of the pairs that have a geometry-aware point."""
        return self.geometry_aware.pairs / self.standard.pairs if self.standard.pairs else math.nan

    @property
    def keypoint_share(self) -> float:
        """Share of the points that are geometry-aware."""
        return (
            self.geometry_aware.keypoints / self.standard.keypoints if self.standard.keypoints else math.nan
        )

    def gap(self, averaging: Averaging) -> tuple[float, ...]:
        """Relative gap from standard to geometry-aware, by alpha."""
        both = zip(self.standard.values[averaging], self.geometry_aware.values[averaging], strict=True)
        return tuple(relative_gap(a, b) for a, b in both)


@dataclass(frozen=True)
class KeypointScore:
    """PCK of one keypoint of one category over all pairs.

    Attributes:
        category: whose keypoint it is.
        id: annotation id.
        name: what the schema calls it.
        keypoints: how often it was evaluated, in each set.
        values: share correct by alpha, in each set.
    """

    category: str
    id: int
    name: str
    keypoints: Mapping[str, int]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class PCKResult:
    """Every figure of one evaluation; ``print`` shows the main table.

    Shares are 0 to 1 (printed in per cent); NaN stands where there is nothing to average, ``null`` in JSON.

    Attributes:
        protocol: name of the protocol.
        averaging: the average that the protocol's papers quote.
        alphas: thresholds as shares of the base; the order of all tuples of values.
        error_alpha: threshold of the error types.
        about: what was predicted with what (dataset, split, extractor, settings …), for the headings.
        overall: all pairs, with confidence intervals.
        by_category: each category, with confidence intervals.
        by_azimuth: each azimuth difference that occurs; empty where the data set gives none.
        sensitivity: by category and set, by alpha; categories of which fewer than two subsets occur are NaN.
        by_keypoint: each keypoint of each category.
        errors: columns in the order of `ERROR_TYPES`; ``None`` where the file has no target keypoints.
        curve: PCK against the alphas of `CURVE`.
        draws: bootstrap resamples behind the intervals.
    """

    protocol: str
    averaging: Averaging
    alphas: tuple[float, ...]
    error_alpha: float
    about: Mapping[str, Any]
    overall: Comparison
    by_category: Mapping[str, Comparison]
    by_azimuth: Mapping[int, Comparison]
    sensitivity: Mapping[str, Mapping[str, tuple[float, ...]]]
    by_keypoint: Sequence[KeypointScore]
    errors: Comparison | None
    curve: Comparison
    draws: int

    def value(
        self, alpha: float = 0.1, averaging: Averaging | None = None, geometry_aware: bool = False
    ) -> float:
        """One figure of the whole evaluation.

        Raises:
            ValueError: PCK was not computed at this alpha.
        """
        scores = self.overall.geometry_aware if geometry_aware else self.overall.standard
        return scores.values[averaging or self.averaging][self.column(alpha)]

    def column(self, alpha: float) -> int:
        """Position of an alpha in every tuple of values.

        Raises:
            ValueError: PCK was not computed at this alpha.
        """
        if alpha not in self.alphas:
            known = ", ".join(f"{each:g}" for each in self.alphas)
            raise ValueError(f"no PCK at alpha {alpha:g} here; computed at {known}")
        return self.alphas.index(alpha)

    @property
    def headline_alpha(self) -> float:
        """0.1 where it was computed (the figure most papers quote), else the largest."""
        return 0.1 if 0.1 in self.alphas else max(self.alphas)

    def __str__(self) -> str:
        from geoaware.evaluation.tables import to_text

        return to_text(self)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from geoaware.evaluation.tables import tables

        yield from tables(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values; NaN becomes ``None``."""
        from geoaware.evaluation.tables import to_dict

        return to_dict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON."""
        from geoaware.evaluation.tables import to_json

        return to_json(self, indent)

    def to_csv(self) -> str:
        """One figure a line, with what it is a figure of; comma-separated, header first."""
        from geoaware.evaluation.tables import to_csv

        return to_csv(self)

    def to_markdown(self) -> str:
        """The tables, in Markdown."""
        from geoaware.evaluation.tables import to_markdown

        return to_markdown(self)

    def figures(self) -> dict[str, Figure]:
        """The plots that this result has data for, by file name without suffix; see `metrics.plots`."""
        from geoaware.report.plots import figures

        return figures(self)

    def save_plots(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the plots as PNG files into a folder; returns their paths."""
        from geoaware.report.plots import save

        return save(self.figures(), folder)


@dataclass(frozen=True)
class Scoring:
    """What to compute.

    Attributes:
        protocol: name of the protocol, for the headings.
        strict: correct is ``<``, else ``<=``.
        averaging: quoted first.
        alphas: thresholds, at least one.
        error_alpha: threshold of the error types.
        draws: bootstrap resamples; 0 for no intervals.
        seed: of the bootstrap.
    """

    protocol: str
    strict: bool
    averaging: Averaging
    alphas: tuple[float, ...]
    error_alpha: float = 0.1
    draws: int = 1000
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def build(
    table: PointTable, scoring: Scoring, keypoint_names: Mapping[str, Mapping[int, str]] | None = None
) -> PCKResult:
    """Compute every figure from predicted and true points.

    Args:
        table: the points.
        scoring: what to compute.
        keypoint_names: by category and annotation id; a number stands for those not given.
    """
    correct = correct_points(table, scoring.alphas + CURVE, scoring.strict)
    counts = count(table, correct, scoring.error_alpha, scoring.strict)
    columns = len(scoring.alphas)
    asked = _columns(counts, slice(0, columns))
    intervals = bootstrap(asked, scoring.draws, scoring.seed) if scoring.draws else None
    by_azimuth = {
        each: _compare(asked.where(asked.azimuth == each))
        for each in SUBSETS
        if (asked.azimuth == each).any()
    }
    return PCKResult(
        protocol=scoring.protocol,
        averaging=scoring.averaging,
        alphas=scoring.alphas,
        error_alpha=scoring.error_alpha,
        about=dict(scoring.about),
        overall=_compare(asked, intervals),
        by_category={
            name: _compare(asked.where(asked.category == index), intervals, name)
            for index, name in enumerate(asked.names)
        },
        by_azimuth=by_azimuth,
        sensitivity=_sensitivities(asked, scoring.averaging) if by_azimuth else {},
        by_keypoint=_by_keypoint(table, correct[:, :columns], keypoint_names or {}),
        errors=_compare_columns(counts, counts.errors) if table.has_targets else None,
        curve=_compare(_columns(counts, slice(columns, None))),
        draws=scoring.draws,
    )


def _columns(counts: Counts, columns: slice) -> Counts:
    return replace(counts, correct=counts.correct[..., columns])


def _compare(counts: Counts, intervals: Intervals | None = None, category: str | None = None) -> Comparison:
    comparison = _compare_columns(counts, counts.correct)
    if intervals is None:
        return comparison
    found = intervals.overall if category is None else intervals.by_category[category]
    return Comparison(
        replace(comparison.standard, intervals=found[STANDARD]),
        replace(comparison.geometry_aware, intervals=found[GEOMETRY_AWARE]),
    )


def _compare_columns(counts: Counts, hits: np.ndarray) -> Comparison:
    standard, geometry_aware = (
        average(counts.points[:, each], hits[:, each], counts.category) for each in (STANDARD, GEOMETRY_AWARE)
    )
    return Comparison(standard, geometry_aware)


def _sensitivities(counts: Counts, averaging: Averaging) -> dict[str, dict[str, tuple[float, ...]]]:
    """Sensitivity of each category, by set and alpha, in the protocol's average."""
    within: Averaging = "per_point" if averaging.endswith("per_point") else "per_image"
    found = {}
    for index, name in enumerate(counts.names):
        here = counts.where(counts.category == index)
        subsets = [_compare(here.where(here.azimuth == each)).sets for each in SUBSETS]
        found[name] = {
            kind: tuple(
                sensitivity(column) for column in zip(*(s[kind].values[within] for s in subsets), strict=True)
            )
            for kind in ("standard", "geometry_aware")
        }
    return found


def _by_keypoint(
    table: PointTable, correct: np.ndarray, names: Mapping[str, Mapping[int, str]]
) -> tuple[KeypointScore, ...]:
    keys = np.stack([table.category[table.pair], table.keypoint], axis=1)
    found, place = np.unique(keys, axis=0, return_inverse=True)
    everything = np.concatenate([np.ones((len(keys), 1), dtype=bool), correct], axis=1)
    # Columns: how many, then how many are correct at each alpha.
    sums = {
        kind: np.stack(
            [np.bincount(place.ravel()[column], minlength=len(found)) for column in flags.T], axis=1
        )
        for kind, flags in (
            ("standard", everything),
            ("geometry_aware", everything & table.geometry_aware[:, None]),
        )
    }
    return tuple(
        KeypointScore(
            category=table.names[c],
            id=k,
            name=names.get(table.names[c], {}).get(k) or f"keypoint {k}",
            keypoints={kind: int(each[row, 0]) for kind, each in sums.items()},
            values={
                kind: tuple(_share(hits, int(each[row, 0])) for hits in each[row, 1:].tolist())
                for kind, each in sums.items()
            },
        )
        for row, (c, k) in enumerate(found.tolist())
    )


def _share(hits: int, points: int) -> float:
    return hits / points if points else math.nan


__all__ = [
    "AVERAGINGS",
    "CURVE",
    "ERROR_TYPES",
    "Comparison",
    "KeypointScore",
    "PCKResult",
    "Scoring",
    "build",
]
