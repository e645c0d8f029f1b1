"""Three drawing primitives: points, lines, text.

Each primitive takes an image of any mode and returns a new RGB one. Positions are pixels (x, y), fractional.
Points and lines are shaded by the distance of every pixel to their outline, so they are smooth at any
position, and they carry a dark and a light rim, so they stand out on any background.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from geoaware.drawing.palette import DARK, LIGHT, Colour
from geoaware.method.geometry import PointsLike, as_points
from geoaware.method.types import Box
from geoaware.runs.errors import InputError

Shape = Literal["circle", "diamond"]
_SHAPES = get_args(Shape)

RADIUS, DARK_RIM, LIGHT_RIM = 6.0, 2.4, 1.2
"""Pixels: of the coloured part of a point, and of the rims around it."""

_CHUNK = 64
_TOGETHER = 256
"""So many markers are computed at once."""


@dataclass(frozen=True)
class Mark:
    """How one match is drawn: a point on each image and the line between them.

    Attributes:
        colour: see `palette.Colour`.
        shape: of the points.
        hollow: points are rings and the line is dashed.
    """

    colour: Colour
    shape: Shape = "circle"
    hollow: bool = False

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise InputError(f"unknown shape {self.shape!r}; the shapes are {', '.join(_SHAPES)}")


def draw_points(
    image: Image.Image, xy: PointsLike, marks: Sequence[Mark], *, radius: float = RADIUS
) -> Image.Image:
    """Draw one marker at each of the points, pixels (x, y) of shape (n, 2); what is off the image is cut off.

    ``radius`` is that of the coloured part, in pixels; the rim adds 2.4. Another number of marks than of
    points is an `InputError`.
    """
    centres = _points(xy, marks=len(marks))
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    side = 2 * math.ceil(1.6 * radius + DARK_RIM + 1) + 1
    corners = np.floor(centres).astype(np.int64) - side // 2
    for start in range(0, len(centres), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        # Of each pixel around each centre, its x and y from there.
        away = (corners[some, :, None] + np.arange(side) - centres[some, :, None]).astype(np.float32)
        kept, added = _markers(away[:, 0, None, :], away[:, 1, :, None], marks[some], radius)
        for (left, top), keep, add in zip(corners[some].tolist(), kept, added, strict=True):
            region = pixels[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
            y, x, (height, width) = max(0, -top), max(0, -left), region.shape[:2]
            region *= keep[y : y + height, x : x + width]
            region += add[y : y + height, x : x + width]
    return as_image(pixels)


def draw_lines(
    image: Image.Image,
    starts: PointsLike,
    ends: PointsLike,
    marks: Sequence[Mark],
    *,
    width: float = 2.0,
    opacity: float = 1.0,
) -> Image.Image:
    """Draw straight lines between pixels (x, y) of shape (n, 2), later ones over earlier ones.

    Those of hollow marks are dashed. ``width`` is that of the coloured part, in pixels; the dark rim adds 1
    on each side. ``opacity`` goes from 0 (nothing) to 1 (solid). Another number of ends or of marks than of
    starts is an `InputError`.
    """
    last = _points(ends)
    first = _points(starts, **{"line ends": len(last), "marks": len(marks)})
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    for start, end, mark in zip(first, last, marks, strict=True):
        for box in _boxes_along(start, end, width / 2 + 2):
            region, columns, rows = _window(pixels, box)
            along, across = _distance_to_line(columns, rows, start, end)
            dash = np.full_like(along, -np.inf)
            if mark.hollow:
                # Signed distance to the nearest dash; dashes fill half of each period.
                dash = np.abs(along % (5 * width) - 2.5 * width) - 1.25 * width
            rim = np.maximum(across - width / 2 - 1, dash - 1)
            _blend(region, _inside(rim) * opacity * 0.6, DARK)
            _blend(region, _inside(np.maximum(across - width / 2, dash)) * opacity, mark.colour)
    return as_image(pixels)


def draw_text(image: Image.Image, xy: PointsLike, texts: Sequence[str], *, size: float = 16.0) -> Image.Image:
    """Write one-line texts; ``xy`` is the top left corner of each one's box (`text_size`), rim included.

    Another number of texts than of corners is an `InputError`.
    """
    corners = _points(xy, texts=len(texts))
    board = image.convert("RGB").copy()
    pen = ImageDraw.Draw(board)
    for corner, text in zip(corners.round(), texts, strict=True):
        font, stroke = _font(size, text)
        x, y = corner - font.getbbox(text, stroke_width=stroke)[:2]
        pen.text((x, y), text, fill=DARK, font=font, stroke_width=stroke, stroke_fill=DARK)
        pen.text((x, y), text, fill=LIGHT, font=font)
    return board


def text_size(text: str, size: float) -> tuple[int, int]:
    """Width and height in pixels of a text as `draw_text` writes it, rim included; (0, 0) if empty."""
    if not text:
        return 0, 0
    font, stroke = _font(size, text)
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    return int(right - left), int(bottom - top)


def shorten(text: str, size: float, width: float) -> str:
    """The text, cut with an ellipsis where it would be wider than ``width`` pixels; empty if nothing fits."""
    cuts = (text[:length].rstrip() + "…" for length in range(len(text) - 1, 0, -1))
    return next((each for each in chain([text], cuts) if text_size(each, size)[0] <= width), "")


def _markers(
    dx: np.ndarray, dy: np.ndarray, marks: Sequence[Mark], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """What each marker keeps of the pixels around it (n, h, w, 1), and the colour it adds (n, h, w, 3)."""

    def of_each(values: Iterable[object]) -> np.ndarray:
        return np.array(list(values), dtype=np.float32).reshape(len(marks), 1, 1, -1)

    # Signed distance to the outline, negative inside; shapes of one radius look equally large.
    distance = np.hypot(dx, dy) - np.float32(radius)
    for row in [row for row, mark in enumerate(marks) if mark.shape == "diamond"]:
        distance[row] = (np.abs(dx[row]) + np.abs(dy[row]) - 1.4 * radius) / np.sqrt(2)
    distance, hollow = distance[..., None], of_each(mark.hollow for mark in marks) > 0
    hole = np.where(hollow, np.float32(-max(1.5, 0.3 * radius)), -np.inf).astype(np.float32)
    edge = np.where(hollow, 0, -np.inf).astype(np.float32)
    kept, added = np.ones_like(distance), np.zeros((*distance.shape[:3], 3), dtype=np.float32)
    for outer, inner, colour in (
        (DARK_RIM, hole - 1, of_each([_rgb(DARK)] * len(marks))),
        (LIGHT_RIM, edge, of_each([_rgb(LIGHT)] * len(marks))),
        (0.0, hole, of_each(_rgb(mark.colour) for mark in marks)),
    ):
        share = _inside(distance - np.float32(outer)) * (1 - _inside(distance - inner))
        kept *= 1 - share
        added += share * (colour - added)
    return kept, added


def _boxes_along(start: np.ndarray, end: np.ndarray, margin: float) -> Iterator[Box]:
    """Boxes that hold a line and share no pixel: a long slanted line would else be one huge box."""
    # The line is cut along the axis on which it is longer, x (0) or y (1).
    axis = int(abs(end - start)[1] > abs(end - start)[0])
    low, high = (start, end) if start[axis] <= end[axis] else (end, start)
    for edge in np.arange(np.floor(low[axis] - margin), high[axis] + margin + 1, _CHUNK):
        # Where the line enters and leaves the piece says how far it reaches on the other axis.
        near = np.clip([edge - margin, edge + _CHUNK + margin], low[axis], high[axis])
        share = (near - low[axis]) / max(high[axis] - low[axis], 1e-9)
        other = low[1 - axis] + share * (high[1 - axis] - low[1 - axis])
        sides = [(edge, edge + _CHUNK - 1), (other.min() - margin, other.max() + margin)]
        (left, right), (top, bottom) = sides[::-1] if axis else sides
        yield left, top, right, bottom


def _distance_to_line(
    columns: np.ndarray, rows: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: how far along the line its nearest point is, and how far away."""
    span = end - start
    length = float(np.hypot(*span))
    unit = span / length if length > 0 else span
    along = np.clip((columns - start[0]) * unit[0] + (rows - start[1]) * unit[1], 0, length)
    return along, np.hypot(columns - start[0] - along * unit[0], rows - start[1] - along * unit[1])


def _inside(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel that a shape covers, from the signed distance of its centre to the outline."""
    return np.clip(0.5 - distance, 0, 1)


def _blend(region: np.ndarray, share: np.ndarray, colour: Colour) -> None:
    region += share[..., None].astype(np.float32) * (np.array(_rgb(colour), dtype=np.float32) - region)


def _rgb(colour: Colour) -> tuple[int, ...]:
    return ImageColor.getrgb(colour) if isinstance(colour, str) else colour


def _window(pixels: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of the image under a box, its edges included, and the x and y of its pixels."""
    left, top = (max(0, int(np.floor(side))) for side in box[:2])
    right, bottom = (max(0, int(np.floor(side)) + 1) for side in box[2:])
    region = pixels[top:bottom, left:right]
    rows, columns = np.mgrid[top : top + region.shape[0], left : left + region.shape[1]].astype(np.float64)
    return region, columns, rows


def as_image(pixels: np.ndarray) -> Image.Image:
    """Colours (h, w, 3), 0 to 255, as an image."""
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


@lru_cache(maxsize=64)
def _load_font(size: float, plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if plain:
        return ImageFont.load_default(size)
    from matplotlib import get_data_path  # its font knows accents, Greek and Cyrillic; Pillow's does not

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _font(size: float, text: str) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int]:
    """The font that has the text's letters, and the width of the rim around them."""
    return _load_font(size, text.replace("…", "").isascii()), max(1, round(size / 9))


def _points(xy: PointsLike, **counts: int) -> np.ndarray:
    """The points as float64; of everything named there must be one for each of them."""
    points = as_points(xy).double().numpy()
    for what, count in counts.items():
        if count != len(points):
            raise InputError(f"{count} {what} for {len(points)} points; give one for each")
    return points
