"""Percentage of correct keypoints (paper, section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike


def pck(
    predicted: ArrayLike, truth: ArrayLike, size: float, alphas: ArrayLike, *, strict: bool = True
) -> Float[np.ndarray, "*a"]:
    """Share (0 to 1) of the predicted points that lie closer than ``alpha * size`` to the true ones.

    Args:
        predicted: points (x, y), shape (k, 2); array, CPU tensor or list.
        truth: where they should be, same shape and pixels.
        size: threshold base in the same pixels (longer side of the target's box, in the paper's protocol).
        alphas: shares of the base, one or several; the result has their shape, NaN with no point (k = 0).
        strict: ``<``, as in the paper; else ``<=``.

    Raises:
        ValueError: the shapes do not agree or the base is not a positive number.

    Example:
        >>> pck([(0, 0), (3, 4)], [(0, 1), (0, 0)], size=50, alphas=[0.05, 0.11]).tolist()
        [0.5, 1.0]
    """
    found, wanted = as_xy(predicted, "predicted"), as_xy(truth, "truth")
    if found.shape != wanted.shape:
        raise ValueError(f"{len(found)} predicted and {len(wanted)} true points do not agree")
    check_size(size)
    thresholds = np.asarray(alphas, dtype=np.float64)
    if not len(found):
        return np.full(thresholds.shape, np.nan)
    apart = distances(found, wanted)
    return np.asarray(within(apart, thresholds[..., None] * size, strict).mean(axis=-1))


def distances(a: Float[np.ndarray, "k 2"], b: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, " k"]:
    """Euclidean distances, by operations that IEEE 754 rounds the same on every machine (unlike hypot)."""
    x, y = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    return np.sqrt(x * x + y * y)


def within(distance: Float[np.ndarray, ...], limit: Any, strict: bool) -> Bool[np.ndarray, ...]:
    """``distance < limit``, or ``<=`` where a protocol says so."""
    return distance < limit if strict else distance <= limit


def as_xy(points: ArrayLike, name: str) -> Float[np.ndarray, "k 2"]:
    """Points as float64 of shape (k, 2); an empty list is k = 0, and any other shape a `ValueError`."""
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0 and array.ndim < 3:
        return array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have shape (k, 2), x then y, but came as {array.shape}")
    return array


def check_size(size: float) -> None:
    """`ValueError` where a threshold base is zero, negative, infinite or not a number."""
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"the threshold base must be a positive number of pixels, got {size}")
