"""A dense field read one place at a time."""

from __future__ import annotations

import math

from torch import Tensor


def read(values: Tensor, x: float, y: float, jump: float) -> list[float]:
    """The values at a place between four points, or those of the nearest one where they are far apart."""
    rows, columns, count = values.shape
    x, y = min(max(x, 0.0), columns - 1.0), min(max(y, 0.0), rows - 1.0)
    left, above = (max(min(math.floor(v), n - 2), 0) for v, n in ((x, columns), (y, rows)))
    right, below = min(left + 1, columns - 1), min(above + 1, rows - 1)
    u, v = x - left, y - above
    corners = [
        ((1 - u) * (1 - v), values[above, left].tolist()),
        (u * (1 - v), values[above, right].tolist()),
        ((1 - u) * v, values[below, left].tolist()),
        (u * v, values[below, right].tolist()),
    ]
    spans = [
        max(corner[axis] for _, corner in corners) - min(corner[axis] for _, corner in corners)
        for axis in (0, 1)
    ]
    known = not any(math.isnan(corner[axis]) for _, corner in corners for axis in (0, 1))
    if known and max(spans) <= jump:
        return [sum(share * corner[k] for share, corner in corners) for k in range(count)]
    return max(corners, key=lambda each: each[0])[1]
