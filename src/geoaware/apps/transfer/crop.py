"""Which part of an image to encode when the object's box is known, and where in it to look."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from geoaware.method.geometry import Canvas
from geoaware.method.types import Box, longer_side
from geoaware.runs.errors import InputError

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels, right and bottom exclusive: what PIL's ``crop`` takes.

A pixel (x, y) of the image is the pixel (x - left, y - top) of the crop.
"""

ALWAYS = float("inf")
"""For ``below``: objects are cut out of whatever size they are."""


def crop_window(
    box: Box | None, size: tuple[int, int], margin: float = 0.3, below: float = 0.5, where: str = "the box"
) -> Window:
    """The part of an image to encode: the whole image, or the box of a small object with a margin.

    Args:
        box: the object's, or ``None``.
        size: width and height of the image.
        margin: added on every side, as a share of the box's longer side.
        below: the box is cut out if its longer side is less than this share of the image's; 0: never.
        where: what to call the box in messages.

    Raises:
        InputError: the box lies outside the image.
    """
    width, height = size
    whole = (0, 0, width, height)
    if box is None:
        return whole
    x1, y1, x2, y2 = box
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise InputError(
            f"{where} ({x1:g}, {y1:g}, {x2:g}, {y2:g}) lies outside the image of {width}x{height} pixels"
        )
    longer = longer_side(box)
    if longer >= below * max(size):
        return whole
    extra = margin * longer
    left, top = max(0, int(x1 - extra)), max(0, int(y1 - extra))
    right, bottom = min(width, int(x2 + extra) + 1), min(height, int(y2 + extra) + 1)
    return left, top, right, bottom


def cells_of_mask(mask: np.ndarray, canvas: Canvas, grid: int) -> Bool[Tensor, "p p"]:
    """The cells of a map that hold a pixel of an object, from its mask (h, w) on the canvas's image.

    Where the canvas shows nothing of the object, they are the cells nearest to it.
    """
    pixels = np.stack(np.nonzero(mask)[::-1], axis=1)
    held = canvas.holds(pixels).numpy()
    cells = canvas.patch(canvas.to_canvas(pixels[held] if held.any() else pixels), grid)
    inside = torch.zeros(grid, grid, dtype=torch.bool)
    inside[cells[:, 1], cells[:, 0]] = True
    return inside
