"""A dense correspondence as colours: what has the same colour in two images is the same place."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.drawing.draw import as_image
from geoaware.drawing.layout import resized, side_by_side
from geoaware.drawing.palette import position_colours

_SHARE = 0.65
"""Of the colour, over the image in grey."""

_PLANE = 48
"""Colours across and down the target, between which they are bilinear."""


def draw_field(
    source: Image.Image,
    target: Image.Image,
    points: Float[Tensor, "h w 2"],
    shown: Bool[Tensor, "h w"],
    height: int = 480,
) -> Image.Image:
    """Both images side by side: the target coloured by place, each pixel of the source as its counterpart.

    Pixels that are not ``shown``, or whose counterpart is NaN, stay grey.

    Args:
        source: the image that the field covers.
        target: the image of the counterparts.
        points: pixels (x, y) of the target.
        shown: which of them to colour.
        height: of the images, in pixels.
    """
    board, panels = side_by_side([source, target], height=height)
    colours = _plane()
    places = (points.nan_to_num().cpu().numpy() / (np.array(target.size) - 1).clip(1)).clip(0, 1)
    there = shown.cpu().numpy() & np.isfinite(points.cpu().numpy()).all(axis=-1)
    rows, columns = (np.rint(places[..., each] * (len(colours) - 1)).astype(int) for each in (1, 0))
    coloured = (colours[rows, columns], there), (colours, np.ones(colours.shape[:2], bool))
    for image, panel, (colour, mask) in zip((source, target), panels, coloured, strict=True):
        view = panel.canvas
        grey = np.asarray(resized(image, view).convert("L"), dtype=np.float64)[..., None]
        laid = np.asarray(as_image(colour).resize(view.inner, Image.Resampling.BILINEAR), np.float64)
        share = Image.fromarray((255 * mask).astype(np.uint8)).resize(view.inner, Image.Resampling.NEAREST)
        weight = _SHARE * np.asarray(share, dtype=np.float64)[..., None] / 255
        board.paste(as_image(weight * laid + (1 - weight) * grey), panel.corner)
    return board


def _plane() -> np.ndarray:
    """Colours (256, 256, 3) by place, from 0 to 255."""
    places = np.stack(np.meshgrid(np.arange(_PLANE), np.arange(_PLANE)), axis=-1).reshape(-1, 2)
    colours = np.array(position_colours(places), np.uint8).reshape(_PLANE, _PLANE, 3)
    return np.asarray(Image.fromarray(colours).resize((256, 256), Image.Resampling.BILINEAR), np.float64)
