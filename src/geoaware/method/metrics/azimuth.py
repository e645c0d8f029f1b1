"""Sensitivity to a change of viewpoint (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

SUBSETS: tuple[int, ...] = (0, 1, 2, 3, 4)
"""Azimuth differences in steps of 45 degrees: 0 same side, 4 opposite sides."""


def sensitivity(values: Iterable[float]) -> float:
    """``(max - min) / max`` over the PCK of the azimuth subsets; NaN (empty) ones are left out.

    0: the same from every side; 1: nothing is found in the worst subset. NaN with fewer than two subsets (the
    paper leaves such categories out) or when nothing is found in any.

    Example:
        >>> sensitivity([0.8, 0.6, float("nan"), 0.4])
        0.5
    """
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or max(known) == 0:
        return math.nan
    return (max(known) - min(known)) / max(known)
