"""The figures that runs are compared by, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geoaware.evaluation.counts import GEOMETRY_AWARE, STANDARD, correct_points, count
from geoaware.evaluation.predictions import read
from geoaware.evaluation.tables import ERROR_LABELS
from geoaware.method.metrics.errors import ERROR_TYPES

ALPHAS = (0.05, 0.1)
"""Thresholds of the PCK; the error types are told at the last."""


@dataclass(frozen=True)
class Metric:
    """A share of a pair's points, averaged over the pairs; the key stands in JSON, the label in tables."""

    key: str
    label: str
    higher_is_better: bool


METRICS: tuple[Metric, ...] = (
    *(Metric(f"pck@{alpha:g}", f"PCK@{alpha:.2f}", True) for alpha in ALPHAS),
    *(Metric(f"geometry_aware_pck@{alpha:g}", f"geo. PCK@{alpha:.2f}", True) for alpha in ALPHAS),
    *(Metric(each, ERROR_LABELS[each], each == "pck_dagger") for each in ERROR_TYPES),
)


def pair_values(path: Path) -> Float[np.ndarray, "p m"]:
    """Shares of each pair of a predictions file, in its order; columns as `METRICS`, NaN without a point."""
    header, table = read(path)
    strict = header.rules.strict
    # Counts come in the order of categories: a category for each pair keeps the pairs in theirs.
    apart = replace(table, category=np.arange(len(table.category)))
    counts = count(apart, correct_points(table, ALPHAS, strict), ALPHAS[-1], strict)
    with np.errstate(invalid="ignore"):
        correct, errors = (each / counts.points[..., None] for each in (counts.correct, counts.errors))
    return np.concatenate([correct[:, STANDARD], correct[:, GEOMETRY_AWARE], errors[:, STANDARD]], axis=1)
