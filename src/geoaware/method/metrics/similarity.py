"""How alike two sets of an object's keypoints are (COCO's object keypoint similarity)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geoaware.method.metrics.pck import as_xy, check_size

SIGMA = 0.067
"""Mean of the 17 standard deviations that COCO gives for people, as shares of the root of the area."""


def keypoint_similarity(
    predicted: ArrayLike, truth: ArrayLike, area: float, sigmas: Any = SIGMA, weights: ArrayLike | None = None
) -> float:
    """Mean of ``exp(-d² / (2 area (2 sigma)²))`` over the keypoints, 0 to 1; NaN where there is none.

    Args:
        predicted: points (x, y), shape (k, 2).
        truth: where they should be, same shape and pixels.
        area: of the object, in square pixels.
        sigmas: how far annotators differ, one for all keypoints or one for each.
        weights: of the keypoints in the mean, not negative; alike if not given.

    Raises:
        ValueError: the shapes do not agree, or the area is not a positive number.

    Example:
        >>> round(keypoint_similarity([(0, 0), (10, 0)], [(0, 0), (10, 5)], area=2500, sigmas=0.05), 4)
        0.8033
    """
    found, wanted = as_xy(predicted, "predicted"), as_xy(truth, "truth")
    if found.shape != wanted.shape:
        raise ValueError(f"{len(found)} predicted and {len(wanted)} true points do not agree")
    check_size(area)
    share = np.ones(len(found)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not share.sum() > 0:
        return float("nan")
    squared = ((found - wanted) ** 2).sum(axis=1)
    alike = np.exp(-squared / (2 * area * (2 * np.asarray(sigmas, dtype=np.float64)) ** 2))
    return float((alike * share).sum() / share.sum())
