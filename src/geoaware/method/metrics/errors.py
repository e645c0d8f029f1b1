"""Error types of a prediction: jitter, miss and swap (Aygün & Mac Aodha 2022; paper, table 9).

Every prediction is held against all visible keypoints of the target, at one alpha:

* **miss**: even the nearest one is not within alpha * size;
* **swap**: the nearest one is within, and is another keypoint than the one wanted;
* **PCK†** (`pck_dagger`): the nearest one is within, and is the one wanted. These three add up to 1;
* **swap LR**: a swap whose nearest keypoint is the flip partner of the one wanted;
* **jitter**: the one wanted is beyond alpha * size but within 2 * alpha * size (may be a swap or miss too).

Where two keypoints are equally near, the one wanted wins, then its partner: no dependence on order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from geoaware.method.metrics.pck import as_xy, check_size, distances, within

_POINTS_AT_ONCE = 16_384


@dataclass(frozen=True)
class ErrorRates:
    """Shares of the predictions, 0 to 1; NaN where there is none. ``pck_dagger + miss + swap`` is 1."""

    jitter: float
    miss: float
    swap: float
    swap_lr: float
    pck_dagger: float


ERROR_TYPES: tuple[str, ...] = tuple(each.name for each in fields(ErrorRates))
"""Order of the columns of `classify`."""


def error_types(
    predicted: ArrayLike,
    truth_all: ArrayLike,
    index: ArrayLike,
    size: float,
    alpha: float,
    flip_partner: ArrayLike | None = None,
    *,
    strict: bool = True,
) -> ErrorRates:
    """Share of each error type among the predictions of one pair.

    Args:
        predicted: points (x, y), shape (k, 2).
        truth_all: all visible keypoints of the target, shape (t, 2), same pixels.
        index: for each prediction, the row of ``truth_all`` that it should have found, shape (k).
        size: threshold base in the same pixels.
        alpha: share of the base.
        flip_partner: for each prediction, the row of ``truth_all`` of the wanted keypoint's flip partner, -1
            where it has none or it is not visible, shape (k); none at all: no swap counts as left-right.
        strict: "within" is ``<``, else ``<=``.

    Raises:
        ValueError: shapes do not agree, a row is out of range, or the base is not a positive number.
    """
    found, there = as_xy(predicted, "predicted"), as_xy(truth_all, "truth_all")
    check_size(size)
    count, targets = len(found), len(there)
    wanted = _rows(index, count, 0, targets, "index")
    given = [-1] * count if flip_partner is None else flip_partner
    partner = _rows(given, count, -1, targets, "flip_partner")
    first, limit = np.zeros(count, dtype=np.int64), np.full(count, alpha * size, dtype=np.float64)
    flags = classify(found, there, first, first + targets, wanted, partner, limit, strict)
    with np.errstate(invalid="ignore"):
        return ErrorRates(*(flags.sum(axis=0) / np.float64(count)).tolist())


def classify(
    predicted: Float[np.ndarray, "n 2"],
    targets: Float[np.ndarray, "t 2"],
    first: Int[np.ndarray, " n"],
    last: Int[np.ndarray, " n"],
    wanted: Int[np.ndarray, " n"],
    partner: Int[np.ndarray, " n"],
    limit: Float[np.ndarray, " n"],
    strict: bool,
) -> Bool[np.ndarray, "n 5"]:
    """Error types of many predictions at once; columns in the order of `ERROR_TYPES`.

    Rows ``first[i]`` to ``last[i]`` (exclusive) of ``targets`` are the visible keypoints of prediction i's
    target image, at least one; ``wanted`` and ``partner`` are rows too (partner -1: none).
    """
    flags = np.zeros((len(predicted), len(ERROR_TYPES)), dtype=bool)
    for start in range(0, len(predicted), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        own = distances(predicted[part], targets[wanted[part]])
        other = np.where(partner[part] >= 0, distances(predicted[part], targets[partner[part]]), np.inf)
        # All targets of a prediction stand in a row, one prediction's after the other's.
        counts = last[part] - first[part]
        starts = np.cumsum(counts) - counts
        rows = np.arange(counts.sum()) + np.repeat(first[part] - starts, counts)
        apart = distances(np.repeat(predicted[part], counts, axis=0), targets[rows])
        nearest = np.minimum.reduceat(apart, starts)
        hit = within(nearest, limit[part], strict)
        swap = hit & (own > nearest)
        jitter = within(own, 2 * limit[part], strict) & ~within(own, limit[part], strict)
        flags[part] = np.stack([jitter, ~hit, swap, swap & (other == nearest), hit & ~swap], axis=1)
    return flags


def _rows(rows: ArrayLike, count: int, low: int, high: int, name: str) -> Int[np.ndarray, " k"]:
    array = np.asarray(rows).astype(np.int64).reshape(-1)
    if len(array) != count:
        raise ValueError(f"{name} has {len(array)} rows for {count} predictions")
    if count and not (low <= array.min() and array.max() < high):
        raise ValueError(f"{name} must hold rows from {low} to {high - 1} of truth_all, got {array.tolist()}")
    return array
