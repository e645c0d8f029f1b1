"""From counts to shares: the four averages of the field, and their bootstrap confidence intervals.

* **per image**: the share of each pair's points, averaged over the pairs;
* **per point**: all points pooled;
* **category mean**: either of the two within each category, averaged over the categories.

Pairs without a point of the set (no geometry-aware one, say) count nowhere in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from geoaware.evaluation.counts import Counts
from geoaware.evaluation.statistics import DECIMALS, Estimate, resamples

Averaging = Literal["per_image", "per_point", "category_per_image", "category_per_point"]

AVERAGINGS: tuple[Averaging, ...] = get_args(Averaging)

_NAMES = ("per image", "per point", "category mean, per image", "category mean, per point")
LABELS: dict[Averaging, str] = dict(zip(AVERAGINGS, _NAMES, strict=True))


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


def average(counts: Counts, number: int, bounds: Bounds | None = None) -> Scores:
    """All four averages of the correct points of one set; exact sums, so the order of pairs is free."""
    present = counts.points[:, number] > 0
    points, hits = counts.points[present, number], counts.correct[present, number]
    category = counts.category[present]
    ratios = hits / points[:, None]
    groups = [category == each for each in np.unique(category)]
    by_category = [(_mean(ratios[each]), _pooled(hits[each], points[each])) for each in groups]
    of_images, of_points = np.array(by_category).reshape(-1, 2, hits.shape[1]).swapaxes(0, 1)
    values: dict[Averaging, tuple[float, ...]] = {
        "per_image": _mean(ratios),
        "per_point": _pooled(hits, points),
        "category_per_image": _mean(of_images),
        "category_per_point": _mean(of_points),
    }
    intervals = {
        name: tuple(map(Estimate, values[name], *both[:, number].tolist()))
        for name, both in (bounds or {}).items()
    }
    return Scores(len(points), int(points.sum()), values, intervals)


def bootstrap(counts: Counts, draws: int, seed: int) -> tuple[Bounds, dict[str, Bounds]]:
    """95 % percentile intervals from resampling pairs with replacement: of all pairs, and by category.

    Pairs are the unit because the points of one pair succeed and fail together. The same counts and seed give
    the same intervals.
    """
    pairs, alphas = len(counts.category), counts.correct.shape[-1]
    points = counts.points[..., None]
    # Of each pair and set: shares by alpha, whether it has a point, correct points by alpha, points.
    columns = [counts.correct / np.maximum(points, 1), points > 0, counts.correct, points]
    flat = np.concatenate(columns, axis=-1, dtype=np.float64).reshape(pairs, -1)
    edges = np.searchsorted(counts.category, np.arange(len(counts.names) + 1)).tolist()
    blocks = [
        np.stack([weights[:, low:high] @ flat[low:high] for low, high in pairwise(edges)], axis=1)
        for (weights,) in resamples(draws, seed, pairs)
    ]
    sums = np.concatenate(blocks).reshape(draws, len(counts.names), 2, -1)
    shares, images, hits, points = np.split(sums, [alphas, alphas + 1, 2 * alphas + 1], axis=-1)
    with warnings.catch_warnings():
        # A draw without a point gives the NaN that is wanted, and numpy warns of it.
        warnings.simplefilter("ignore", RuntimeWarning)
        per_image, per_point = shares / images, hits / points
        overall: Bounds = {
            "per_image": _percentiles(shares.sum(axis=1) / images.sum(axis=1)),
            "per_point": _percentiles(hits.sum(axis=1) / points.sum(axis=1)),
            "category_per_image": _percentiles(np.nanmean(per_image, axis=1)),
            "category_per_point": _percentiles(np.nanmean(per_point, axis=1)),
        }
        by_category: dict[str, Bounds] = {
            name: {"per_image": _percentiles(per_image[:, c]), "per_point": _percentiles(per_point[:, c])}
            for c, name in enumerate(counts.names)
        }
    return overall, by_category


def _percentiles(values: Float[np.ndarray, "d s a"]) -> Float[np.ndarray, "2 s a"]:
    """Bounds over the draws in which there is a value."""
    return np.round(np.nanpercentile(values, [2.5, 97.5], axis=0), DECIMALS)


def _mean(rows: Float[np.ndarray, "n c"]) -> tuple[float, ...]:
    return tuple(math.fsum(column) / len(rows) if len(rows) else math.nan for column in rows.T)


def _pooled(hits: Int[np.ndarray, "n c"], points: Int[np.ndarray, " n"]) -> tuple[float, ...]:
    total = int(points.sum())
    return tuple(each / total if total else math.nan for each in hits.sum(axis=0).tolist())
