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
from geoaware.data.images import load_annotated
from geoaware.data.masks import object_mask
from geoaware.data.sampling import permutation, pick
from geoaware.method.geometry import Canvas
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Box
from geoaware.runs.errors import InputError
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
    box: tuple[float, float, float, float]
    group: int


@dataclass(frozen=True)
class Trained:
    """Images with one set of keypoints.

    Attributes:
        schema: of the keypoints.
        images: with at least two visible ones.
        share: of the images of a step.
    """

    schema: Schema
    images: tuple[AnnotatedImage, ...]
    share: float


class Images:
    """All that a run is trained on; decoded images are kept while there is room.

    Args:
        sets: data sets.
        shares: of the images of a step; see `shares_of`.
        size: side of the canvas.
        room: bytes to keep decoded images in.
        workers: threads that decode.

    Raises:
        InputError: a data set has no image with two visible keypoints, or no flip pairs.
    """

    def __init__(
        self,
        sets: Sequence[DataSet],
        shares: Sequence[float | None],
        size: int,
        room: int,
        workers: int,
    ) -> None:
        self.size = size
        self.groups = _groups(sets, shares)
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
    box = _box(annotated, canvas)
    mask = object_mask(annotated)
    regions = _discs(xy[visible], box, size) if mask is None else _masked(mask, canvas)
    return Shown(
        _as_tensor(canvas.render(image)).permute(2, 0, 1).contiguous(),
        _as_tensor(regions),
        mask is not None,
        xy,
        visible,
        box,
        group,
    )


def _groups(sets: Sequence[DataSet], shares: Sequence[float | None]) -> tuple[Trained, ...]:
    """Groups of images by their keypoints: those of one data set with the same names go together."""
    groups: list[Trained] = []
    sizes = [len(each.images) for each in sets]
    for data, part in zip(sets, shares_of(shares, sizes), strict=True):
        by_schema: dict[tuple[str, ...], list[AnnotatedImage]] = {}
        schemas: dict[tuple[str, ...], Schema] = {}
        for image in data.images:
            schema = data.schemas[image.category]
            if int(image.keypoints.visible.sum()) >= 2:
                names = tuple(schema.names[each] for each in range(len(schema)))
                by_schema.setdefault(names, []).append(image)
                schemas[names] = schema
        where = f"{data.name}, split {data.split}"
        if not by_schema:
            raise InputError(f"{where}: no image has two visible keypoints; there is nothing to learn")
        if not any(schema.flip_pairs for schema in schemas.values()):
            raise InputError(
                f"{where}: has no flip pairs, so mirrored images cannot be labelled; add flip_pairs to the "
                "annotation file"
            )
        total = sum(len(images) for images in by_schema.values())
        groups += [
            Trained(schemas[names], tuple(images), part * len(images) / total)
            for names, images in by_schema.items()
        ]
    return tuple(groups)


def _box(image: AnnotatedImage, canvas: Canvas) -> Box:
    """Around the object, in canvas pixels, at least a pixel wide and high."""
    corners = canvas.to_canvas([image.extent[:2], image.extent[2:]]).float()
    x1, y1, x2, y2 = corners.flatten().tolist()
    return x1, y1, max(x2, x1 + 1.0), max(y2, y1 + 1.0)


def _discs(seen: Float[Tensor, "k 2"], box: tuple[float, float, float, float], size: int) -> Image.Image:
    """Regions without a mask: discs around keypoints are object, what is far from the box is outside."""
    reach = max(box[2] - box[0], box[3] - box[1])
    board = Image.new("L", (size, size), OUTSIDE)
    pen = ImageDraw.Draw(board)
    margin = _AROUND * reach
    pen.rectangle((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin), fill=UNKNOWN)
    radius = _DISC * reach
    for x, y in seen.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=OBJECT)
    return board


def _masked(mask: np.ndarray, canvas: Canvas) -> Image.Image:
    """Regions of a mask: along its edge nobody knows."""
    image = Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB")
    board = canvas.render(image).convert("L").point(lambda value: 255 if value >= 128 else 0)
    grown = board.filter(ImageFilter.MaxFilter(_EDGE))
    regions = np.where(np.array(board) > 0, OBJECT, np.where(np.array(grown) > 0, UNKNOWN, OUTSIDE))
    return Image.fromarray(regions.astype(np.uint8))


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))
