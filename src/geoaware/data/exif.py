"""EXIF orientation: from the pixels that a file stores to the upright image, and back.

Everything in the library is in pixels of the upright image. Annotations may have been made on the stored
pixels; they are turned when they are read.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.method.types import Box
from geoaware.runs.errors import InputError

Exif = Literal["upright", "stored"]
"""What points and boxes are given in: pixels of the upright image, or those that the file stores."""

TAG = 0x0112
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""For each orientation the one that undoes it."""

SAME_SIZE = (2, 3, 4)
"""Orientations that leave width and height as they are."""


def check_exif(given: str) -> Exif:
    """The setting, if it is one."""
    found = next((each for each in get_args(Exif) if each == given), None)
    if found is None:
        raise InputError(f"exif={given}: choose upright or stored", parameter="exif")
    return found


def orientation_of(image: Image.Image) -> int:
    """How an opened file that is not decoded yet is to be turned: 1 (as it is) to 8."""
    found = image.getexif().get(TAG, 1)
    return found if found in INVERSE else 1


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of the upright image."""
    return size if orientation < 5 else (size[1], size[0])


def turned_points(
    xy: Float[Tensor, "k 2"], size: tuple[int, int], orientation: int, last: int = 1
) -> Float[Tensor, "k 2"]:
    """Points of an image of this ``size`` in the turned image; ``last`` is 0 for pixels' edges."""
    turned = xy.flip(-1) if orientation > 4 else xy
    limit = torch.tensor(turned_size(size, orientation), dtype=xy.dtype) - last
    mirrored = torch.tensor([orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)])
    return torch.where(mirrored, limit - turned, turned)


def turned_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box's corners in the turned image."""
    corners = turned_points(torch.tensor(box, dtype=torch.float64).reshape(2, 2), size, orientation, last=0)
    x1, y1, x2, y2 = torch.cat([corners.amin(dim=0), corners.amax(dim=0)]).tolist()
    return x1, y1, x2, y2


def turned_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image or mask (h, w) or (h, w, c) of the stored pixels as the upright one."""
    turned = pixels.swapaxes(0, 1) if orientation > 4 else pixels
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    return np.ascontiguousarray(turned[::-1] if orientation in (3, 4, 7, 8) else turned)
