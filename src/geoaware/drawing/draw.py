"""Three drawing primitives (points, lines, text) and the colours they use.

Each primitive takes an image and returns a new RGB one. Positions are pixels (x, y), fractional. Points and
lines are shaded by the distance of every pixel to their outline, so they are smooth at any position, and they
carry a dark and a light rim, so they stand out on any background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geoaware.method.geometry import PointsLike, as_points
from geoaware.runs.errors import InputError

Colour = tuple[int, int, int]
Shape = Literal["circle", "diamond"]

DARK: Colour = (16, 16, 20)
LIGHT: Colour = (255, 255, 255)
RIGHT: Colour = (0, 125, 135)
WRONG: Colour = (248, 138, 0)
"""Dark teal and light orange: they differ in blue against yellow and in lightness, which every eye sees."""

_DARK_RIM = 2.4
_LIGHT_RIM = 1.2
_CHUNK = 64


@dataclass(frozen=True)
class Mark:
    """How one match is drawn: a point on each image and the line between them.

    Attributes:
        colour: red, green and blue, 0 to 255.
        shape: of the points.
        hollow: points are rings and the line is dashed.
    """

    colour: Colour
    shape: Shape = "circle"
    hollow: bool = False

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise InputError(f"unknown shape {self.shape!r}; the shapes are {', '.join(get_args(Shape))}")


def draw_points(
    image: Image.Image, xy: PointsLike, marks: Sequence[Mark], *, radius: float = 6.0
) -> Image.Image:
    """Draw one marker at each of the points.

    Args:
        image: any mode; not changed.
        xy: centres, pixels, shape (n, 2). What lies off the image is cut off.
        marks: one for each point.
        radius: of the coloured part, in pixels; the rim adds 2.4.

    Raises:
        InputError: as many marks as points are needed.
    """
    centres = as_points(xy).double().numpy()
    _check_count("marks", len(marks), len(centres))
    pixels = _to_array(image)
    for (x, y), mark in zip(centres, marks, strict=True):
        reach = 1.6 * radius + _DARK_RIM + 1
        region, (columns, rows) = _window(pixels, (x - reach, y - reach, x + reach, y + reach))
        _paint_marker(region, _distance_to_shape(columns - x, rows - y, mark.shape, radius), mark, radius)
    return _to_image(pixels)


def draw_lines(
    image: Image.Image,
    starts: PointsLike,
    ends: PointsLike,
    marks: Sequence[Mark],
    *,
    width: float = 2.0,
    opacity: float = 1.0,
) -> Image.Image:
    """Draw straight lines, later ones over earlier ones; those of hollow marks are dashed.

    Args:
        image: any mode; not changed.
        starts: pixels, shape (n, 2).
        ends: pixels, shape (n, 2).
        marks: one for each line.
        width: of the coloured part, in pixels; the dark rim adds 1 on each side.
        opacity: 0 (nothing) to 1 (solid).

    Raises:
        InputError: as many ends and marks as starts are needed.
    """
    first, last = (as_points(each).double().numpy() for each in (starts, ends))
    _check_count("line ends", len(last), len(first))
    _check_count("marks", len(marks), len(first))
    pixels = _to_array(image)
    for start, end, mark in zip(first, last, marks, strict=True):
        for box in _boxes_along(start, end, width / 2 + 2):
            region, (columns, rows) = _window(pixels, box)
            along, across = _distance_to_line(columns, rows, start, end)
            dash = _distance_to_dash(along, 5 * width) if mark.hollow else np.full_like(along, -np.inf)
            rim = np.maximum(across - width / 2 - 1, dash - 1)
            _blend(region, _inside(rim) * opacity * 0.6, DARK)
            _blend(region, _inside(np.maximum(across - width / 2, dash)) * opacity, mark.colour)
    return _to_image(pixels)


def draw_text(
    image: Image.Image,
    xy: PointsLike,
    texts: Sequence[str],
    *,
    size: float = 16.0,
    colour: Colour = LIGHT,
    rim: Colour | None = DARK,
) -> Image.Image:
    """Write one-line texts; ``xy`` is the top left corner of each one's box (`text_size`), rim included.

    Raises:
        InputError: as many texts as positions are needed.
    """
    corners = as_points(xy).double().numpy()
    _check_count("texts", len(texts), len(corners))
    board = image.convert("RGB").copy()
    pen = ImageDraw.Draw(board)
    for (x, y), text in zip(corners.round(), texts, strict=True):
        if text:
            font, stroke = _font(size, text), _stroke(size)
            left, top, _, _ = font.getbbox(text, stroke_width=stroke)
            if rim is not None:
                pen.text((x - left, y - top), text, fill=rim, font=font, stroke_width=stroke, stroke_fill=rim)
            pen.text((x - left, y - top), text, fill=colour, font=font)
    return board


def text_size(text: str, size: float) -> tuple[int, int]:
    """Width and height in pixels of a text as `draw_text` writes it, rim included; (0, 0) if empty."""
    if not text:
        return 0, 0
    left, top, right, bottom = _font(size, text).getbbox(text, stroke_width=_stroke(size))
    return int(right - left), int(bottom - top)


def shorten(text: str, size: float, width: float) -> str:
    """The text, cut with an ellipsis where it would be wider than ``width`` pixels; empty if nothing fits."""
    if text_size(text, size)[0] <= width:
        return text
    for length in range(len(text) - 1, 0, -1):
        cut = text[:length].rstrip() + "…"
        if text_size(cut, size)[0] <= width:
            return cut
    return ""


# Lightness, chroma and hue in OKLCh: columns from left to right, rows from top to bottom. Lightness falls
# from top to bottom and blue turns to yellow from left to right: differences that every eye sees.
_PLANE = (
    ((0.86, 0.11, 205), (0.89, 0.16, 150), (0.91, 0.17, 102)),
    ((0.66, 0.16, 248), (0.72, 0.18, 345), (0.74, 0.16, 58)),
    ((0.44, 0.20, 275), (0.46, 0.20, 325), (0.50, 0.18, 28)),
)


def position_colours(xy: PointsLike) -> list[Colour]:
    """A colour for each point by its place in the bounding box of all: neighbours are alike, corners are not.

    Blue to the left and yellow to the right, light above and dark below. Where the box has no width (or
    height) the middle column (or row) is used.
    """
    points = as_points(xy).double().numpy()
    if not len(points):
        return []
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    share = np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)
    plane = _lch_to_lab(np.array(_PLANE))
    return [_as_colour(rgb) for rgb in _lab_to_rgb(_sample_plane(plane, 2 * share))]


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours (..., 3), 0 to 255, of values (...) from 0 to 1: dark violet, pink, orange, light yellow.

    Lightness rises in equal steps (OKLab), so equal differences of value look equal, in greyscale too.
    """
    steps = np.linspace(0, 1, 256)
    lightness = 0.22 + 0.73 * steps
    chroma = 0.17 * np.sin(np.pi * (0.18 + 0.64 * steps)) ** 0.8
    hue = 285 + 180 * steps
    table = _lab_to_rgb(_lch_to_lab(np.stack([lightness, chroma, hue], axis=-1)))
    return table[np.rint(np.clip(values, 0, 1) * 255).astype(np.int64)]


def _sample_plane(plane: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear values of a (rows, columns, 3) plane at positions (x, y)."""
    cell = np.minimum(np.floor(xy), 1).astype(np.int64)
    (x, y), (u, v) = cell.T, (xy - cell).T[..., None]
    above = plane[y, x] * (1 - u) + plane[y, x + 1] * u
    below = plane[y + 1, x] * (1 - u) + plane[y + 1, x + 1] * u
    return above * (1 - v) + below * v


def _lch_to_lab(lch: np.ndarray) -> np.ndarray:
    lightness, chroma, hue = np.moveaxis(lch, -1, 0)
    angle = np.deg2rad(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)


# OKLab (B. Ottosson, 2020) to linear sRGB.
_LAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    linear = np.clip((lab @ _LAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * encoded


def _as_colour(rgb: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.rint(rgb))
    return red, green, blue


def _distance_to_shape(dx: np.ndarray, dy: np.ndarray, shape: Shape, radius: float) -> np.ndarray:
    """Signed distance to the outline, negative inside; shapes of one radius look equally large."""
    if shape == "diamond":
        return (np.abs(dx) + np.abs(dy) - 1.4 * radius) / np.sqrt(2)
    return np.hypot(dx, dy) - radius


def _paint_marker(region: np.ndarray, distance: np.ndarray, mark: Mark, radius: float) -> None:
    hole = -max(1.5, 0.3 * radius) if mark.hollow else -np.inf
    for outer, inner, colour in (
        (_DARK_RIM, hole - 1, DARK),
        (_LIGHT_RIM, 0.0 if mark.hollow else -np.inf, LIGHT),
        (0.0, hole, mark.colour),
    ):
        _blend(region, _inside(distance - outer) * (1 - _inside(distance - inner)), colour)


def _boxes_along(
    start: np.ndarray, end: np.ndarray, margin: float
) -> Iterator[tuple[float, float, float, float]]:
    """Boxes that hold a line and share no pixel: a long slanted line would else be one huge box."""
    axis = int(abs(end - start)[1] > abs(end - start)[0])
    low, high = (start, end) if start[axis] <= end[axis] else (end, start)
    edges = np.arange(np.floor(low[axis] - margin), high[axis] + margin + 1, _CHUNK)
    for edge in edges:
        near = np.clip([edge - margin, edge + _CHUNK + margin], low[axis], high[axis])
        share = (near - low[axis]) / max(high[axis] - low[axis], 1e-9)
        other = low[1 - axis] + share * (high[1 - axis] - low[1 - axis])
        across = (other.min() - margin, other.max() + margin)
        if axis:
            yield across[0], edge, across[1], edge + _CHUNK - 1
        else:
            yield edge, across[0], edge + _CHUNK - 1, across[1]


def _distance_to_line(
    columns: np.ndarray, rows: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: how far along the line its nearest point is, and how far away."""
    span = end - start
    length = float(np.hypot(*span))
    unit = span / length if length > 0 else span
    along = np.clip((columns - start[0]) * unit[0] + (rows - start[1]) * unit[1], 0, length)
    return along, np.hypot(columns - start[0] - along * unit[0], rows - start[1] - along * unit[1])


def _distance_to_dash(along: np.ndarray, period: float) -> np.ndarray:
    """Signed distance to the nearest dash of a line whose dashes fill half of each period."""
    return np.abs(along % period - period / 2) - period / 4


def _inside(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel that a shape covers, from the signed distance of its centre to the outline."""
    return np.clip(0.5 - distance, 0, 1)


def _blend(region: np.ndarray, share: np.ndarray, colour: Colour) -> None:
    region += share[..., None].astype(np.float32) * (np.array(colour, dtype=np.float32) - region)


def _window(
    pixels: np.ndarray, box: tuple[float, float, float, float]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The part of the image under a box (left, top, right, bottom; inclusive), and its pixel positions."""
    left, top = (max(0, int(np.floor(side))) for side in box[:2])
    right, bottom = (max(0, int(np.floor(side)) + 1) for side in box[2:])
    region = pixels[top:bottom, left:right]
    rows, columns = np.mgrid[top : top + region.shape[0], left : left + region.shape[1]].astype(np.float64)
    return region, (columns, rows)


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float32).copy()


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _stroke(size: float) -> int:
    return max(1, round(size / 9))


@lru_cache(maxsize=64)
def _load_font(size: float, plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if plain:
        return ImageFont.load_default(size)
    from matplotlib import get_data_path  # its font knows accents, Greek and Cyrillic; Pillow's does not

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _font(size: float, text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _load_font(size, text.replace("…", "").isascii())


def _check_count(what: str, given: int, wanted: int) -> None:
    if given != wanted:
        raise InputError(f"{given} {what} for {wanted} points; give one for each")
