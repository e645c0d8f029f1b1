"""Position embeddings of DINOv2 on another canvas, one number at a time, from the formula of its own code."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positions(trained: Tensor, grid: int, offset: float) -> Tensor:
    """The lattice scaled by (grid + offset) / P with Keys' cubic of a = -0.75; edges are repeated."""
    side = math.isqrt(trained.shape[1] - 1)
    if side == grid:
        return trained
    lattice = trained[0, 1:].reshape(side, side, -1).double()
    found = torch.zeros(grid, grid, lattice.shape[-1], dtype=torch.float64)
    for row in range(grid):
        for column in range(grid):
            y, x = ((each + 0.5) * side / (grid + offset) - 0.5 for each in (row, column))
            for below in range(math.floor(y) - 1, math.floor(y) + 3):
                for right in range(math.floor(x) - 1, math.floor(x) + 3):
                    weight = _cubic(y - below) * _cubic(x - right)
                    place = (min(max(each, 0), side - 1) for each in (below, right))
                    found[row, column] += weight * lattice[tuple(place)]
    return torch.cat([trained[:, :1], found.reshape(1, grid * grid, -1).float()], dim=1)


def _cubic(distance: float, a: float = -0.75) -> float:
    """Keys (1981), equation 4."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0
