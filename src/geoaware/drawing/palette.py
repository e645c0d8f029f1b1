"""The colours of everything that the library shows: images, plots, the gallery and the demo.

Named colours are hexadecimal, as matplotlib, CSS and Pillow read them. The series are the palette of Okabe
and Ito (2008), whose colours stay apart for colour-blind readers.
"""

from __future__ import annotations

import numpy as np

from geoaware.method.geometry import PointsLike, as_points

Colour = str | tuple[int, int, int]
"""A hexadecimal code, or red, green and blue from 0 to 255."""

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, BLACK = "#56B4E9", "#E69F00", "#000000"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK)
"""Of things that a plot or a list tells apart, in this order."""

RIGHT, WRONG, UNJUDGED = BLUE, ORANGE, PURPLE
"""Of matches. Right and wrong also differ in lightness, so they stay apart in greyscale."""

DARK, LIGHT = "#101014", "#FFFFFF"
"""The rims that make marks and texts stand out on any image."""

SIDES = {"left": SKY, "right": ORANGE, "middle": LIGHT}
"""Of keypoints and limbs: the object's own left and right. Both are light enough for any image."""

POINT = "#00AAFF"
"""The marked point on a heat map, whose colours have no such blue."""

MAJOR_GRID, MINOR_GRID, QUIET = "#DDDDDD", "#EEEEEE", "#555555"
"""Lines and secondary marks of plots."""

_PAGE = {
    "back": ("#F6F6F4", "#17171A"),
    "card": ("#FFFFFF", "#222226"),
    "text": ("#1C1C1E", "#ECECF0"),
    "faint": ("#5C5C62", "#A6A6AE"),
    "edge": ("#CFCFD4", "#3D3D44"),
    "empty": ("#D8D8DC", "#38383E"),
    "focus": (BLUE, SKY),
}
"""Shades of a web page on a light and on a dark ground."""


def css_variables(dark: bool = False) -> str:
    """The colours of a page as CSS declarations, ``--back: #F6F6F4; …``, for the rule of its root element."""
    shades = {name: pair[dark] for name, pair in _PAGE.items()}
    marks = {"right": RIGHT, "wrong": WRONG, "open": UNJUDGED, "dark": DARK, "light": LIGHT}
    return " ".join(f"--{name}: {colour};" for name, colour in {**shades, **marks}.items())


# Lightness, chroma and hue in OKLCh: columns from left to right, rows from top to bottom. Lightness falls
# from top to bottom and blue turns to yellow from left to right: differences that every eye sees.
_PLANE = (
    ((0.86, 0.11, 205), (0.89, 0.16, 150), (0.91, 0.17, 102)),
    ((0.66, 0.16, 248), (0.72, 0.18, 345), (0.74, 0.16, 58)),
    ((0.44, 0.20, 275), (0.46, 0.20, 325), (0.50, 0.18, 28)),
)

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


def position_colours(xy: PointsLike) -> list[tuple[int, int, int]]:
    """A colour for each point by its place in the bounding box of all: neighbours are alike, corners are not.

    Blue to the left and yellow to the right, light above and dark below. Where the box has no width (or
    height) the middle column (or row) is used.
    """
    points = as_points(xy).double().numpy()
    if not len(points):
        return []
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    place = 2 * np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)
    # Bilinear between the four colours of the plane around each place.
    plane = _lch_to_lab(np.array(_PLANE))
    cell = np.minimum(np.floor(place), 1).astype(np.int64)
    (x, y), (u, v) = cell.T, (place - cell).T[..., None]
    above = plane[y, x] * (1 - u) + plane[y, x + 1] * u
    below = plane[y + 1, x] * (1 - u) + plane[y + 1, x + 1] * u
    colours = np.rint(_lab_to_rgb(above * (1 - v) + below * v)).astype(int).tolist()
    return [(red, green, blue) for red, green, blue in colours]


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


def _lch_to_lab(lch: np.ndarray) -> np.ndarray:
    lightness, chroma, hue = np.moveaxis(lch, -1, 0)
    angle = np.deg2rad(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)


def _lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    linear = np.clip((lab @ _LAB_TO_CONES.T) ** 3 @ _CONES_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * encoded
