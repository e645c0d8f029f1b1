"""Putting images beside each other, and points, lines and numbers on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.drawing.draw import Mark, draw_lines, draw_points, draw_text, shorten, text_size
from geoaware.drawing.palette import RIGHT, WRONG, position_colours
from geoaware.method.geometry import Canvas, PointsLike, as_points, clamp_points
from geoaware.method.types import Box
from geoaware.runs.errors import InputError

_log = logging.getLogger(__name__)

WIDEST = 2.5
"""Largest width of a shown image in units of the wanted height; a panorama is shown lower instead."""

NARROWEST = 0.2
"""Least width of the place of an image in the same units; a sliver is centred in it."""

READABLE = 250
"""So many matches at most are drawn with labels and lines: of more nobody can tell them apart."""

_DIRECTIONS = ((1, -1), (1, 0), (1, 1), (0, -1), (0, 1), (-1, -1), (-1, 0), (-1, 1))
"""Where a label may stand beside its point, the best first: right above, right, right below ..."""


@dataclass(frozen=True)
class Panel:
    """An image shown on a board.

    Attributes:
        canvas: how its pixels are scaled; the canvas's size is the long side as shown.
        corner: board position (x, y) of the image's top left corner.
        place: the part of the board that belongs to it, never smaller; right and bottom are exclusive.
    """

    canvas: Canvas
    corner: tuple[int, int]
    place: Box

    def to_board(self, xy: PointsLike) -> Float[Tensor, "n 2"]:
        """Where pixels of the image lie on the board; points off the image move to its nearest pixel."""
        inside = clamp_points(xy, (self.canvas.width, self.canvas.height)).double()
        shift = torch.tensor(self.corner, dtype=torch.float64) - torch.tensor(self.canvas.offset)
        return self.canvas.to_canvas(inside) + shift


def fit(size: tuple[int, int], width: float, height: float) -> Canvas:
    """The largest scaling of an image of ``size`` that fits a width and height."""
    scale = min(width / size[0], height / size[1])
    return Canvas(*size, max(1, round(max(size) * scale)))


def resized(image: Image.Image, canvas: Canvas) -> Image.Image:
    """The image at the scale of a canvas, without the canvas's padding."""
    filter_ = Image.Resampling.BICUBIC if canvas.scale > 1 else Image.Resampling.LANCZOS
    image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy it in any case
    return image.resize(canvas.inner, filter_)


def side_by_side(
    images: Sequence[Image.Image], *, height: int = 480, gap: int = 12
) -> tuple[Image.Image, list[Panel]]:
    """Images in a row, scaled to one height.

    An image wider than 2.5 times the height is shown lower, so that the row stays of reasonable width; one
    narrower than a fifth of it is centred in a place of that width.

    Args:
        images: from left to right; at least one.
        height: of the images in pixels; less where all are shown lower.
        gap: pixels between and around them.

    Returns:
        the row on white, and where each image lies on it.

    Raises:
        InputError: no image, or a height of less than 32.
    """
    if not images:
        raise InputError("no images to put side by side; give at least one")
    if height < 32:
        raise InputError(f"a height of {height} pixels is too little to draw on; give 32 or more")
    canvases = [fit(image.size, WIDEST * height, height) for image in images]
    widths = [max(canvas.inner[0], round(NARROWEST * height)) for canvas in canvases]
    lines = max(canvas.inner[1] for canvas in canvases)
    board = Image.new("RGB", (sum(widths) + gap * (len(images) + 1), lines + 2 * gap), "white")
    panels, left = [], gap
    for image, canvas, width in zip(images, canvases, widths, strict=True):
        corner = (left + (width - canvas.inner[0]) // 2, gap + (lines - canvas.inner[1]) // 2)
        board.paste(resized(image, canvas), corner)
        panels.append(Panel(canvas, corner, (left, gap, left + width, gap + lines)))
        left += width + gap
    return board, panels


def draw_matches(
    source: Image.Image,
    target: Image.Image,
    queries: PointsLike,
    points: PointsLike,
    *,
    confidence: Sequence[float] | np.ndarray | Tensor | None = None,
    labels: Sequence[str] | None = None,
    correct: Sequence[bool] | np.ndarray | Tensor | None = None,
    lines: bool = True,
    height: int = 480,
    min_confidence: float = 0.0,
) -> Image.Image:
    """Both images side by side, with numbered points in equal colours where they match.

    Points are coloured by their place in the source image: blue to yellow from left to right, light to dark
    from top to bottom. With ``correct`` they are blue discs (right) and orange diamonds (wrong) instead.

    Args:
        source: image of the queries.
        target: image of the matches.
        queries: pixels (x, y) of the source, shape (n, 2).
        points: pixels (x, y) of the target, shape (n, 2). Points off the image are drawn at its edge.
        confidence: of each match, 0 to 1.
        labels: a text for each match, ``""`` for none; their numbers, from 0, when not given. Beyond
            `READABLE` matches there are neither labels nor lines.
        correct: which matches are right.
        lines: whether to join matches by lines.
        height: of the images as shown, in pixels; a frame is added (see `side_by_side`).
        min_confidence: matches below it are drawn hollow, their lines dashed.

    Raises:
        InputError: lengths do not agree, a coordinate is not finite, or there is no confidence to compare.
    """
    here, there = checked_points("queries", queries), checked_points("points", points)
    count = len(here)
    if len(there) != count:
        raise InputError(f"{count} queries but {len(there)} points; each query needs its match")
    texts = [str(each) for each in (range(count) if labels is None else labels)]
    if len(texts) != count:
        raise InputError(f"{len(texts)} labels for {count} matches; give one for each")
    crowd = 1.0 if count <= 20 else 0.75 if count <= READABLE else 0.4
    marks = _marks(here, confidence, correct, min_confidence)
    radius, letters = crowd * max(3.5, height / 72), max(10, crowd * height / 28)
    # The frame is wide enough for the marker of a point on an image's edge.
    board, panels = side_by_side([source, target], height=height, gap=max(8, round(height / 40)))
    starts, ends = panels[0].to_board(here), panels[1].to_board(there)
    if count > READABLE:
        _log.info("%s matches are drawn as points alone, without labels and lines", f"{count:,}")
    elif lines:
        thick, opacity = crowd * max(1.2, height / 240), 0.9 if count <= 20 else 0.6
        board = draw_lines(board, starts, ends, marks, width=thick, opacity=opacity)
    for panel, xy in zip(panels, (starts, ends), strict=True):
        board = draw_points(board, xy, marks, radius=radius)
        if count <= READABLE:
            board = draw_labels(board, xy, texts, panel.place, size=letters, clearance=radius)
    return board


def checked_points(name: str, xy: PointsLike) -> Float[Tensor, "n 2"]:
    """Points as float64 of shape (n, 2); an `InputError` that starts with ``name`` if they are not that."""
    try:
        pixels = as_points(xy).double()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be used: {error}") from None
    if pixels.ndim != 2:
        raise InputError(f"{name} must have shape (n, 2), got {tuple(pixels.shape)}")
    for number in (~pixels.isfinite().all(dim=1)).nonzero()[:1].flatten().tolist():
        raise InputError(f"{name}: number {number} is {tuple(pixels[number].tolist())}; leave it out")
    return pixels


def _marks(
    queries: Float[Tensor, "n 2"],
    confidence: Sequence[float] | np.ndarray | Tensor | None,
    correct: Sequence[bool] | np.ndarray | Tensor | None,
    min_confidence: float,
) -> list[Mark]:
    """What each match looks like."""
    count = len(queries)
    if confidence is None and min_confidence > 0:
        raise InputError(f"min_confidence={min_confidence:g} needs the confidence of each match; give both")
    for name, given in (("confidence", confidence), ("correct", correct)):
        if given is not None and len(given) != count:
            raise InputError(f"{name} has {len(given)} values for {count} matches; give one for each")
    hollow = [False] * count
    if confidence is not None:
        hollow = (~(torch.as_tensor(confidence, dtype=torch.float64) >= min_confidence)).tolist()
    if correct is None:
        return [Mark(each, hollow=ring) for each, ring in zip(position_colours(queries), hollow, strict=True)]
    return [
        Mark(RIGHT if right else WRONG, "circle" if right else "diamond", ring)
        for right, ring in zip(correct, hollow, strict=True)
    ]


def draw_labels(
    image: Image.Image, xy: PointsLike, texts: Sequence[str], place: Box, *, size: float, clearance: float
) -> Image.Image:
    """Write a text beside each point, inside ``place`` and, if possible, clear of points and other texts.

    Points have the radius ``clearance``; texts wider than the place are shortened.
    """
    short = [shorten(text, size, place[2] - place[0]) for text in texts]
    corners = place_labels(xy, [text_size(text, size) for text in short], place, clearance)
    return draw_text(image, corners, short, size=size)


def place_labels(
    xy: PointsLike, sizes: Sequence[tuple[int, int]], place: Box, clearance: float
) -> Float[Tensor, "n 2"]:
    """Top left corners of labels: each takes, in turn, the spot beside its point that covers least.

    Every label lies inside ``place`` unless it is larger. Labels of size (0, 0) take no room.
    """
    points = as_points(xy).double().numpy()
    # What must not be covered: the discs of all points, and the labels that have their place.
    boxes = np.concatenate([points - clearance, points + clearance], axis=1)
    corners = np.zeros((len(points), 2))
    for number, (point, label) in enumerate(zip(points, np.array(sizes, dtype=np.float64), strict=True)):
        if not label.any():
            continue
        spots = np.round(_spots(point, label, place, clearance))
        # The width and height that each spot shares with each box, negative where they lie apart.
        shared = np.minimum(spots[:, None] + label, boxes[:, 2:]) - np.maximum(spots[:, None], boxes[:, :2])
        covered = np.clip(shared, 0, None).prod(axis=-1).sum(axis=1)
        # Of spots that cover the same, the first is the best; a farther one is worth a little covering.
        penalty = np.linspace(0, 0.1, len(spots)) * label.prod()
        best = int(np.argmin(covered + penalty))
        corners[number] = spots[best]
        boxes = np.concatenate([boxes, [[*spots[best], *(spots[best] + label)]]])
    return torch.from_numpy(corners)


def _spots(point: np.ndarray, label: np.ndarray, place: Box, clearance: float) -> np.ndarray:
    """Corners that a label may take, moved into the place; near ones first."""
    directions = np.array(_DIRECTIONS, dtype=np.float64)
    slant = np.where(np.abs(directions).sum(axis=1) == 2, 0.6, 1.0)[:, None]  # corners touch the disc earlier
    reach = np.concatenate([slant * distance for distance in (clearance + 3, 2.2 * clearance + 8)])
    directions = np.tile(directions, (2, 1))
    centres = point + directions * (reach + label / 2)
    low = np.array(place[:2], dtype=np.float64)
    high = np.maximum(low, np.array(place[2:]) - label)
    return np.clip(centres - label / 2, low, high)
