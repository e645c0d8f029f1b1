"""From matches on a lattice to a field: values between its places, without averages across jumps.

A correspondence jumps where one part of the object hides another, and where the features are unsure. The
mean of two places on either side of a jump is a place of neither. Between four places that lie close together
in the target the field is therefore bilinear, and elsewhere it takes the nearest one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

JUMP = 2.0
"""Places of neighbours that lie farther apart, in cells of the target, do not belong together."""


def lattice(size: int, step: int) -> Float[Tensor, " n"]:
    """Places from 0 to ``size - 1``, evenly, at most ``step`` apart, both ends among them.

    Example:
        >>> lattice(10, 4).tolist()
        [0.0, 3.0, 6.0, 9.0]
    """
    return torch.linspace(0, size - 1, math.ceil((size - 1) / step) + 1, dtype=torch.float64)


def mesh(across: Tensor, down: Tensor) -> Float[Tensor, "r c 2"]:
    """Every (x, y) of these, in rows and columns."""
    return torch.stack(torch.meshgrid(across.double(), down.double(), indexing="xy"), dim=-1)


def read(values: Float[Tensor, "r c k"], places: Float[Tensor, "*n 2"], jump: float) -> Float[Tensor, "*n k"]:
    """Values between the points of a lattice.

    Args:
        values: one row for each point; the first two of a row are its place in the target.
        places: (x, y) in columns and rows of the lattice, moved to its edge where they lie beyond.
        jump: where two of the four points around a place are farther apart than this in the target, along x
            or y, the nearest point is read. So it is where one of them is NaN.
    """
    rows, columns, count = values.shape
    ends = torch.tensor([columns - 1, rows - 1], dtype=places.dtype)
    place = places.reshape(-1, 2).clamp(torch.zeros_like(ends), ends)
    low = torch.minimum(place.floor(), (ends - 1).clamp_min(0))
    x, y = (torch.stack([each, (each + 1).clamp(max=end)]) for each, end in zip(low.T, ends, strict=True))
    corners = values.reshape(-1, count)[(y[:, None] * columns + x[None]).flatten(0, 1).long()]
    part = (place - low).to(values.dtype)
    across, down = (torch.stack([1 - each, each]) for each in part.T)
    shares = (down[:, None] * across[None]).flatten(0, 1)
    mean = torch.einsum("fn,fnk->nk", shares, corners)
    nearest = corners.gather(0, shares.argmax(dim=0)[None, :, None].expand(1, -1, count))[0]
    apart = (corners[..., :2].amax(dim=0) - corners[..., :2].amin(dim=0)).amax(dim=-1)
    # Written so that NaN counts as far apart.
    found = torch.where((apart <= jump)[:, None], mean, nearest)
    return found.reshape(*places.shape[:-1], count)


def enlarge(values: Float[Tensor, "r c k"], width: int, height: int, jump: float) -> Float[Tensor, "h w k"]:
    """Values at every pixel of an image that a lattice covers from edge to edge; see `read`."""
    rows, columns = values.shape[:2]
    across, down = torch.linspace(0, columns - 1, width), torch.linspace(0, rows - 1, height)
    return read(values, mesh(across, down), jump)
