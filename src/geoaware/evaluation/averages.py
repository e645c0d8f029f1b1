"""From counts to shares: the four averages of the field, and their bootstrap confidence intervals.

* **per image**: the share of each pair's points, averaged over the pairs;
* **per point**: all points pooled;
* **category mean**: either of the two within each category, averaged over the categories.

Pairs without a point of the set (no geometry-aware one, say) count nowhere in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from geoaware.evaluation.counts import Counts
from geoaware.evaluation.statistics import Estimate, multiplicities

Averaging = Literal["per_image", "per_point", "category_per_image", "category_per_point"]

AVERAGINGS: tuple[Averaging, ...] = get_args(Averaging)

LABELS: dict[Averaging, str] = {
    "per_image": "per image",
    "per_point": "per point",
    "category_per_image": "category mean, per image",
    "category_per_point": "category mean, per point",
}

_DRAWS_AT_ONCE = 50
_DECIMALS = 6


def within_category(averaging: Averaging) -> Averaging:
    """The average that is defined inside one category, of an average that may be over the categories."""
    return "per_point" if averaging.endswith("per_point") else "per_image"


@dataclass(frozen=True)
class Scores:
    """One set of points in every average.

    Attributes:
        pairs: those with at least one point of the set.
        keypoints: points of the set.
        values: by averaging, one share (0 to 1) per column (alpha or error type); NaN without a point.
        intervals: the values with their bounds; empty where none were computed.
    """

    pairs: int
    keypoints: int
    values: Mapping[Averaging, tuple[float, ...]]
    intervals: Mapping[Averaging, tuple[Estimate, ...]] = field(default_factory=dict)


Bounds = Mapping[Averaging, Float[np.ndarray, "2 s a"]]
"""Lower and upper bounds by averaging, on a set and an alpha axis."""


def average(
    points: Int[np.ndarray, " p"],
    hits: Int[np.ndarray, "p c"],
    category: Int[np.ndarray, " p"],
    bounds: Mapping[Averaging, Float[np.ndarray, "2 c"]] | None = None,
) -> Scores:
    """All four averages of ``hits`` out of ``points``; exact sums, so the order of pairs is free."""
    present = points > 0
    points, hits, category = points[present], hits[present], category[present]
    ratios = hits / points[:, None]
    groups = [category == each for each in np.unique(category)]
    values: dict[Averaging, tuple[float, ...]] = {
        "per_image": tuple(_mean(column) for column in ratios.T),
        "per_point": tuple(_pooled(column, points) for column in hits.T),
        "category_per_image": tuple(_mean([_mean(column[g]) for g in groups]) for column in ratios.T),
        "category_per_point": tuple(
            _mean([_pooled(column[g], points[g]) for g in groups]) for column in hits.T
        ),
    }
    intervals = {
        name: tuple(map(Estimate, values[name], *both.tolist())) for name, both in (bounds or {}).items()
    }
    return Scores(len(points), int(points.sum()), values, intervals)


def bootstrap(counts: Counts, draws: int, seed: int) -> tuple[Bounds, dict[str, Bounds]]:
    """95 % percentile intervals from resampling pairs with replacement: of all pairs, and by category.

    Pairs are the unit because the points of one pair succeed and fail together.

    Args:
        counts: of all pairs, in their canonical order.
        draws: number of resamples.
        seed: of the generator; the same pairs and seed give the same intervals.
    """
    ratio_sum, images, hits, points = _resampled_sums(counts, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        image_shares, point_shares = ratio_sum / images[..., None], hits / points[..., None]
        overall: Bounds = {
            "per_image": _percentiles(ratio_sum.sum(axis=1) / images.sum(axis=1)[..., None]),
            "per_point": _percentiles(hits.sum(axis=1) / points.sum(axis=1)[..., None]),
            "category_per_image": _percentiles(_nanmean(image_shares)),
            "category_per_point": _percentiles(_nanmean(point_shares)),
        }
    by_category: dict[str, Bounds] = {
        name: {"per_image": _percentiles(image_shares[:, c]), "per_point": _percentiles(point_shares[:, c])}
        for c, name in enumerate(counts.names)
    }
    return overall, by_category


def _resampled_sums(counts: Counts, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """Per draw, category and set: sum of the pairs' shares, their number, correct points, points.

    The first and third have alphas as their last axis.
    """
    pairs, alphas = len(counts.category), counts.correct.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.nan_to_num(counts.correct / counts.points[..., None])
    columns = np.concatenate(
        [
            ratios.reshape(pairs, -1),
            (counts.points > 0).astype(np.float64),
            counts.correct.reshape(pairs, -1),
            counts.points,
        ],
        axis=1,
    )
    edges = np.searchsorted(counts.category, np.arange(len(counts.names) + 1))
    sums = np.empty((draws, len(counts.names), columns.shape[1]))
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        weights = multiplicities(generator, size, pairs)
        for c, (low, high) in enumerate(pairwise(edges)):
            sums[start : start + size, c] = weights[:, low:high] @ columns[low:high]
    shares, images, hits, points = np.split(sums, np.cumsum([2 * alphas, 2, 2 * alphas]), axis=-1)
    shape = (*sums.shape[:2], 2, alphas)
    return shares.reshape(shape), images, hits.reshape(shape), points


def _percentiles(values: Float[np.ndarray, "d s a"]) -> Float[np.ndarray, "2 s a"]:
    """Bounds over the draws in which there is a value.

    Rounded far below what is printed, so that the last bits of a matrix product cannot show.
    """
    known = ~np.isnan(values)
    if known.all() and len(values):
        return np.round(np.percentile(values, [2.5, 97.5], axis=0), _DECIMALS)
    bounds = np.full((2, *values.shape[1:]), np.nan)
    for place in np.argwhere(known.any(axis=0)):
        column = (slice(None), *place)
        bounds[column] = np.percentile(values[column][known[column]], [2.5, 97.5])
    return np.round(bounds, _DECIMALS)


def _nanmean(values: Float[np.ndarray, "d c s a"]) -> Float[np.ndarray, "d s a"]:
    """Mean over the categories that occur in a draw; NaN where none does."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def _mean(values: Sequence[float] | Float[np.ndarray, " n"]) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan


def _pooled(hits: Int[np.ndarray, " n"], points: Int[np.ndarray, " n"]) -> float:
    return int(hits.sum()) / int(points.sum()) if len(points) else math.nan
