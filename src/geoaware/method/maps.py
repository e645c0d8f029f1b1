"""Feature maps brought to another resolution."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resized(
    maps: Float[Tensor, "b c h w"], side: int, antialias: bool = False
) -> Float[Tensor, "b c side side"]:
    """Maps scaled bilinearly to ``side`` cells a side; those that have this size come back as they are.

    Cells are areas, not points: the corners of the two maps coincide, the centres of their corner cells do
    not (``align_corners=False``).

    Args:
        maps: square or not.
        side: width and height of the result.
        antialias: whether neighbours are averaged when a map is made smaller, as images need it.

    Example:
        >>> import torch
        >>> resized(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]), 4)[0, 0, 0]
        tensor([0., 1., 3., 4.])
    """
    if maps.shape[-2:] == (side, side):
        return maps
    return F.interpolate(maps, size=(side, side), mode="bilinear", antialias=antialias)
