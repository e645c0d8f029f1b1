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


@dataclass(frozen=True)
class Interval:
    """Bounds of a 95 % confidence interval, shares."""

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """One set of points in every average.

    Attributes:
        pairs: those with at least one point of the set.
        keypoints: points of the set.
        values: by averaging, one share (0 to 1) per column (alpha or error type); NaN without a point.
        intervals: by averaging, one per column; empty where none was computed.
    """

    pairs: int
    keypoints: int
    values: Mapping[Averaging, tuple[float, ...]]
    intervals: Mapping[Averaging, tuple[Interval, ...]] = field(default_factory=dict)


def average(
    points: Int[np.ndarray, " p"], hits: Int[np.ndarray, "p c"], category: Int[np.ndarray, " p"]
) -> Scores:
    """All four averages of ``hits`` out of ``points``; exact sums, so the order of pairs is free."""
    present = points > 0
    points, hits, category = points[present], hits[present], category[present]
    ratios = hits / points[:, None]
    groups = [category == each for each in np.unique(category)]
    return Scores(
        pairs=len(points),
        keypoints=int(points.sum()),
        values={
            "per_image": tuple(_mean(column) for column in ratios.T),
            "per_point": tuple(_pooled(column, points) for column in hits.T),
            "category_per_image": tuple(_mean([_mean(column[g]) for g in groups]) for column in ratios.T),
            "category_per_point": tuple(
                _mean([_pooled(column[g], points[g]) for g in groups]) for column in hits.T
            ),
        },
    )


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals on a set axis, then as `Scores.intervals`; of all pairs and of each category."""

    overall: tuple[Mapping[Averaging, tuple[Interval, ...]], ...]
    by_category: Mapping[str, tuple[Mapping[Averaging, tuple[Interval, ...]], ...]]


def bootstrap(counts: Counts, draws: int, seed: int) -> Intervals:
    """95 % percentile intervals from resampling pairs with replacement.

    Pairs are the unit because the points of one pair succeed and fail together.

    Args:
        counts: of all pairs, in their canonical order.
        draws: number of resamples.
        seed: of the generator; the same pairs and seed give the same intervals.
    """
    sums = _resampled_sums(counts, draws, seed)
    ratio_sum, images, hits, points = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        image_shares, point_shares = ratio_sum / images[..., None], hits / points[..., None]
        overall: dict[Averaging, np.ndarray] = {
            "per_image": ratio_sum.sum(axis=1) / images.sum(axis=1)[..., None],
            "per_point": hits.sum(axis=1) / points.sum(axis=1)[..., None],
            "category_per_image": _nanmean(image_shares),
            "category_per_point": _nanmean(point_shares),
        }
    by_category = {
        name: _as_intervals({"per_image": image_shares[:, c], "per_point": point_shares[:, c]})
        for c, name in enumerate(counts.names)
    }
    return Intervals(_as_intervals(overall), by_category)


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
        weights = _multiplicities(generator, size, pairs)
        for c, (low, high) in enumerate(pairwise(edges)):
            sums[start : start + size, c] = weights[:, low:high] @ columns[low:high]
    shares, images, hits, points = np.split(sums, np.cumsum([2 * alphas, 2, 2 * alphas]), axis=-1)
    shape = (*sums.shape[:2], 2, alphas)
    return shares.reshape(shape), images, hits.reshape(shape), points


def _multiplicities(generator: np.random.Generator, draws: int, pairs: int) -> Float[np.ndarray, "d p"]:
    """How often each pair is drawn in each resample."""
    chosen = generator.integers(0, max(pairs, 1), size=(draws, pairs))
    flat = (chosen + np.arange(draws)[:, None] * pairs).ravel()
    return np.bincount(flat, minlength=draws * pairs).reshape(draws, pairs).astype(np.float64)


def _as_intervals(
    drawn: Mapping[Averaging, Float[np.ndarray, "d s a"]],
) -> tuple[Mapping[Averaging, tuple[Interval, ...]], ...]:
    """Percentiles over the draws (in which the set occurs), split by set.

    Rounded far below what is printed, so that the last bits of a matrix product cannot show.
    """
    bounds = {name: np.round(_percentiles(values), _DECIMALS) for name, values in drawn.items()}
    return tuple(
        {
            name: tuple(Interval(float(low), float(high)) for low, high in b[:, s].T)
            for name, b in bounds.items()
        }
        for s in (0, 1)
    )


def _percentiles(values: Float[np.ndarray, "d s a"]) -> Float[np.ndarray, "2 s a"]:
    known = ~np.isnan(values)
    if known.all() and len(values):
        return np.percentile(values, [2.5, 97.5], axis=0)
    bounds = np.full((2, *values.shape[1:]), np.nan)
    for place in np.argwhere(known.any(axis=0)):
        column = (slice(None), *place)
        bounds[column] = np.percentile(values[column][known[column]], [2.5, 97.5])
    return bounds


def _nanmean(values: Float[np.ndarray, "d c s a"]) -> Float[np.ndarray, "d s a"]:
    """Mean over the categories that occur in a draw; NaN where none does."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def _mean(values: Sequence[float] | Float[np.ndarray, " n"]) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan


def _pooled(hits: Int[np.ndarray, " n"], points: Int[np.ndarray, " n"]) -> float:
    return int(hits.sum()) / int(points.sum()) if len(points) else math.nan
