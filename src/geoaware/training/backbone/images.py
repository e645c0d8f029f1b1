"""Annotated images as training reads them: on canvases, with regions, decoded once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from geoaware.data import DataSet
from geoaware.data.dataset import grouped
from geoaware.data.images import load_annotated
from geoaware.data.masks import object_mask
from geoaware.data.sampling import permutation, pick
from geoaware.method.geometry import Canvas
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Box, longer_side
from geoaware.runs.errors import InputError
from geoaware.training.kit import require_flip_pairs
from geoaware.training.settings import shares_of

OUTSIDE, OBJECT, UNKNOWN = 0, 1, 2
"""What a pixel shows: none of the objects that are trained on, one of them, or nobody knows."""

_DISC, _AROUND, _EDGE = 0.06, 0.3, 9
"""Around a keypoint is object, beyond the box grown by so much is outside (shares of the box's longer side);
along a mask's edge so many canvas pixels are unknown."""


@dataclass(frozen=True)
class Shown:
    """An image on its canvas.

    Attributes:
        pixels: RGB.
        regions: `OUTSIDE`, `OBJECT` or `UNKNOWN`, by pixel.
        masked: whether the regions come from a mask of the object.
        xy: keypoints by annotation id, in canvas pixels; undefined where not visible.
        visible: which keypoints are there.
        box: (x1, y1, x2, y2) around the object, in canvas pixels.
        group: number of its set of keypoints.
    """

    pixels: UInt8[Tensor, "3 s s"]
    regions: UInt8[Tensor, "s s"]
    masked: bool
    xy: Float[Tensor, "k 2"]
    visible: Bool[Tensor, " k"]
    box: Box
    group: int


@dataclass(frozen=True)
class Trained:
    """Images with one set of keypoints, at least two of them visible, and their share of a step's images."""

    schema: Schema
    images: tuple[AnnotatedImage, ...]
    share: float


class Images:
    """All that a run is trained on, on canvases of a side of ``size``, drawn by shares as in `shares_of`.

    So many ``workers`` decode images, which are kept while there is ``room``, in bytes.

    Raises:
        InputError: a data set has no image with two visible keypoints, or no flip pairs.
    """

    def __init__(
        self, sets: Sequence[DataSet], shares: Sequence[float | None], size: int, room: int, workers: int
    ) -> None:
        self.size = size
        self.groups: list[Trained] = []
        for data, share in zip(sets, shares_of(shares, [len(each.images) for each in sets]), strict=True):
            # Images of one data set whose keypoints have the same names go together.
            together = grouped(data, by_schema=True, min_visible=2)
            if not together:
                where = f"{data.name}, split {data.split}"
                raise InputError(f"{where}: no image has two visible keypoints; there is nothing to learn")
            require_flip_pairs(data)
            total = sum(len(images) for images in together)
            self.groups += [
                Trained(data.schemas[images[-1].category], tuple(images), share * len(images) / total)
                for images in together
            ]
        self._room = room // (4 * size * size)
        self._kept: dict[str, Shown] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(workers)

    def draw(self, count: int, key: str) -> list[tuple[int, AnnotatedImage]]:
        """Images of a step with the number of their group, decided by ``key`` alone."""
        drawn = []
        for place in range(count):
            group = pick([each.share for each in self.groups], f"{key}/{place}/group")
            images = self.groups[group].images
            drawn.append((group, images[next(permutation(len(images), f"{key}/{place}"))]))
        return drawn

    def read(self, drawn: Sequence[tuple[int, AnnotatedImage]]) -> list[Shown]:
        """Decode images, or take them from memory.

        Raises:
            InputError: one cannot be read.
        """
        return list(self._pool.map(lambda each: self._read(*each), drawn))

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, group: int, image: AnnotatedImage) -> Shown:
        key = f"{group}/{image.path}#{image.id}"
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        shown = show(image, self.groups[group].schema, group, self.size)
        with self._lock:
            if len(self._kept) < self._room:
                self._kept[key] = shown
        return shown


def show(annotated: AnnotatedImage, schema: Schema, group: int, size: int) -> Shown:
    """An image on its canvas, with labels and regions.

    Raises:
        InputError: the image or its mask cannot be read.
    """
    image = load_annotated(annotated)
    canvas = Canvas(*image.size, size)
    xy = torch.zeros(len(schema), 2)
    xy[list(annotated.keypoints.ids)] = canvas.to_canvas(annotated.keypoints.xy).float()
    visible = schema.visibility(annotated.keypoints)
    # The object's box is at least a pixel wide and high.
    corners = canvas.to_canvas([annotated.extent[:2], annotated.extent[2:]]).float()
    x1, y1, x2, y2 = corners.flatten().tolist()
    box = x1, y1, max(x2, x1 + 1.0), max(y2, y1 + 1.0)
    mask = object_mask(annotated)
    regions = _discs(xy[visible], box, size) if mask is None else _masked(mask, canvas)
    pixels = torch.from_numpy(np.array(canvas.render(image))).permute(2, 0, 1).contiguous()
    return Shown(pixels, torch.from_numpy(regions), mask is not None, xy, visible, box, group)


def _discs(seen: Float[Tensor, "k 2"], box: Box, size: int) -> np.ndarray:
    """Regions without a mask: discs around keypoints are object, what is far from the box is outside."""
    x1, y1, x2, y2 = box
    margin, radius = _AROUND * longer_side(box), _DISC * longer_side(box)
    board = Image.new("L", (size, size), OUTSIDE)
    pen = ImageDraw.Draw(board)
    pen.rectangle((x1 - margin, y1 - margin, x2 + margin, y2 + margin), fill=UNKNOWN)
    for x, y in seen.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=OBJECT)
    return np.array(board)


def _masked(mask: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Regions of a mask: along its edge nobody knows."""
    board = canvas.render(Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB")).convert("L")
    grown = board.filter(ImageFilter.MaxFilter(_EDGE))
    inside, near = (np.array(each) >= 128 for each in (board, grown))
    return np.where(inside, OBJECT, np.where(near, UNKNOWN, OUTSIDE)).astype(np.uint8)
