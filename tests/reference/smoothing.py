"""Slow forms of apps/transfer/smoothing.py, from the description there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

Places = Sequence[tuple[float, float, float]]
"""x, y and probability of each place that a frame offers."""


def path_cost(
    frames: Sequence[tuple[int, Places]],
    path: Sequence[int],
    size: float,
    floor: float,
    step: float,
    limit: float,
) -> float:
    """What a path through the frames of one keypoint costs; frames without a place are not among them."""
    total, before = 0.0, None
    for (number, places), chosen in zip(frames, path, strict=True):
        x, y, chance = places[chosen]
        total -= math.log(floor + chance)
        if before is not None:
            spread = size * step * math.sqrt(max(number - before[0], 1))
            total += min(math.hypot(x - before[1], y - before[2]) ** 2 / spread**2 / 2, limit)
        before = (number, x, y)
    return total


def cheapest_path(
    frames: Sequence[tuple[int, Places]], size: float, floor: float, step: float, limit: float
) -> tuple[list[int], float]:
    """The path that costs least of all that there are, and its cost."""
    paths = product(*(range(len(places)) for _, places in frames))
    best = min(paths, key=lambda path: path_cost(frames, path, size, floor, step, limit))
    return list(best), path_cost(frames, best, size, floor, step, limit)


def steadied(
    numbers: Sequence[int], values: Sequence[float], chances: Sequence[float], size: float,
    floor: float, change: float, noise: float,
) -> np.ndarray:  # fmt: skip
    """One coordinate of one keypoint, NaN where it was not found: all equations at once, by least squares.

    The unknowns are position and velocity in each frame. Each observed place is an equation, and so is that
    each frame follows from the one before; each weighs as its covariance says.
    """
    count = len(numbers)
    rows, wanted = [], []
    for frame, (value, chance) in enumerate(zip(values, chances, strict=True)):
        if not math.isnan(value):
            row = np.zeros(2 * count)
            row[2 * frame] = 1.0
            weight = math.sqrt(min(1.0, max(floor, chance))) / noise
            rows.append(weight * row)
            wanted.append(weight * value / size)
    for frame in range(count - 1):
        dt = numbers[frame + 1] - numbers[frame]
        covariance = change**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        root = np.linalg.inv(np.linalg.cholesky(covariance))
        block = np.zeros((2, 2 * count))
        block[:, 2 * frame : 2 * frame + 2] = -np.array([[1.0, dt], [0.0, 1.0]])
        block[:, 2 * frame + 2 : 2 * frame + 4] = np.eye(2)
        rows.extend(root @ block)
        wanted.extend([0.0, 0.0])
    # Beforehand almost nothing is known.
    rows.extend(1e-2 * np.eye(2 * count)[:2])
    wanted.extend([0.0, 0.0])
    found = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return np.where(np.isnan(values), np.nan, size * found[::2])
