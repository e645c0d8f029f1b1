"""Crops around annotated animals and people, decoded once.

Each annotated object is one crop: a square around its box, several objects of an image being several crops.
What else of the same kind a crop shows is kept with it, because a keypoint found on a neighbour is no mistake
that the network should learn from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from geoaware.data import DataSet
from geoaware.data.images import load_annotated
from geoaware.data.masks import object_mask
from geoaware.method.types import AnnotatedImage, Box, longer_side
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell
from geoaware.training.backbone.records import file_state, made_by_threads, records
from geoaware.training.backbone.vocabulary import Vocabulary

SIZE = 320
"""Side of a crop in pixels, unless another is asked for."""

OTHERS = 6
"""At most so many other objects of an image are kept with a crop."""

OUTSIDE, OBJECT, UNKNOWN = 0, 1, 2
"""What a pixel shows: none of the objects that are trained on, one of them, or nobody knows."""

_SEEN = 2
"""Keypoints that an object must show: with one there is nothing to tell apart."""

_AROUND, _SMALLEST = 1.5, 16.0
"""Side of a crop, relative to the longer side of the object's box; at least so many pixels of the image."""

_DISC, _MARGIN, _EDGE = 0.06, 0.3, 9
"""Around a keypoint is object, beyond the boxes grown by so much is outside (shares of a box's longer side);
along a mask's edge so many pixels of the crop are unknown."""


@dataclass(frozen=True)
class Crops:
    """Crops of one data set; all places are in pixels of the crop.

    Attributes:
        pixels: (n, s, s, 3), RGB, on the disk.
        regions: (n, s, s), what each pixel shows: `OBJECT`, `OUTSIDE` or `UNKNOWN`; on the disk.
        xy: (n, k, 2), keypoints by class of the vocabulary.
        visible: (n, k).
        box: (n, 4), x1, y1, x2, y2.
        masked: (n,), whether the regions come from a mask.
        others_xy: (n, OTHERS, k, 2), keypoints of other objects.
        others_visible: (n, OTHERS, k).
        others_box: (n, OTHERS, 4), empty (all 0) where there is none.
        members: rows of each category that is trained on.
    """

    pixels: np.ndarray
    regions: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    box: np.ndarray
    masked: np.ndarray
    others_xy: np.ndarray
    others_visible: np.ndarray
    others_box: np.ndarray
    members: tuple[np.ndarray, ...]


def make_crops(
    data: DataSet,
    vocabulary: Vocabulary,
    folder: Path,
    workers: int,
    tell: Tell,
    without: Collection[str] = (),
    size: int = SIZE,
) -> Crops:
    """The crops of a data set's objects that show two keypoints, from the disk if they are there.

    Args:
        data: with its images.
        vocabulary: of the classes.
        folder: of the files of crops.
        workers: threads that decode.
        tell: is told how far this is.
        without: categories that are not trained on.
        size: side of a crop in pixels.

    Raises:
        InputError: no object is left, or an image or mask cannot be read.
    """
    images = [image for image in data.images if len(image.keypoints.visible_ids) >= _SEEN]
    categories = sorted({image.category for image in images} - set(without))
    if not categories:
        raise InputError(f"{data.name}, split {data.split}: no object to train on has two visible keypoints")
    maker = _Maker(data, vocabulary, size)
    decided = [vocabulary.names, maker.state(images)]
    what = f"crops of {data.name}, {data.split}"

    def fill(made: np.ndarray) -> None:
        for row, record in enumerate(made_by_threads(maker.make, images, workers, tell, what)):
            made[row] = record

    kept = records(folder, f"crops-{data.name}-{data.split}", decided, maker.dtype, len(images), fill)
    # Labels are small, and lie in memory; pixels stay on the disk until they are needed.
    labels = {name: np.ascontiguousarray(kept[name]) for name in maker.dtype.names[2:]}
    members = tuple(
        np.array([row for row, image in enumerate(images) if image.category == each]) for each in categories
    )
    return Crops(kept["pixels"], kept["regions"], **labels, members=members)


class _Maker:
    """Makes the crop of any object of a data set."""

    def __init__(self, data: DataSet, vocabulary: Vocabulary, size: int) -> None:
        self.size = size
        self.rows = {category: vocabulary.rows(schema) for category, schema in data.schemas.items()}
        self.together: dict[Path, list[AnnotatedImage]] = defaultdict(list)
        for image in data.images:
            self.together[image.path].append(image)
        k = len(vocabulary)
        self.dtype: Any = np.dtype(
            [
                ("pixels", "u1", (size, size, 3)), ("regions", "u1", (size, size)),
                ("xy", "f4", (k, 2)), ("visible", "?", (k,)), ("box", "f4", (4,)), ("masked", "?"),
                ("others_xy", "f4", (OTHERS, k, 2)), ("others_visible", "?", (OTHERS, k)),
                ("others_box", "f4", (OTHERS, 4)),
            ]
        )  # fmt: skip

    def state(self, images: Sequence[AnnotatedImage]) -> list[Any]:
        """All that the crops of these follow from, but for the classes."""
        annotated = [
            (
                image.id, image.size, image.extent, self.rows[image.category], image.keypoints.ids,
                image.keypoints.xy.tolist(), image.keypoints.visible.tolist(),
                image.attributes.get("segmentation"), image.mask_path and file_state(image.mask_path),
            )
            for together in self.together.values()
            for image in together
        ]  # fmt: skip
        files = [file_state(path) for path in self.together]
        ways = _AROUND, _SMALLEST, _DISC, _MARGIN, _EDGE
        return [ways, annotated, [image.id for image in images], files]

    def make(self, image: AnnotatedImage) -> np.ndarray:
        """The record of an object."""
        made, cut = np.zeros((), self.dtype), _Cut.around(image.extent, self.size)
        made["pixels"] = np.asarray(cut(load_annotated(image)))
        made["box"] = cut.corners(image.extent)
        self._label(made["xy"], made["visible"], image, cut)
        others = [each for each in self.together[image.path] if each.id != image.id]
        # The nearest matter most: they are in the crop.
        others.sort(key=lambda each: _apart(image.extent, each.extent))
        for place, other in enumerate(others[:OTHERS]):
            self._label(made["others_xy"][place], made["others_visible"][place], other, cut)
            made["others_box"][place] = cut.corners(other.extent)
        mask = object_mask(image)
        made["masked"] = mask is not None
        if mask is None:
            made["regions"] = _discs(made, len(others[:OTHERS]), self.size)
        else:
            made["regions"] = _masked(cut(Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB")))
        return made

    def _label(self, xy: np.ndarray, visible: np.ndarray, image: AnnotatedImage, cut: _Cut) -> None:
        """Write keypoints in the order of the classes."""
        points, rows = image.keypoints, self.rows[image.category]
        for place, number in enumerate(points.ids):
            if points.visible[place]:
                xy[rows[number]] = (points.xy[place].numpy() - cut.corner) * cut.scale
                visible[rows[number]] = True


@dataclass(frozen=True)
class _Cut:
    """A square of an image: its top left corner, crop pixels per pixel of the image, and these a side."""

    corner: tuple[float, float]
    scale: float
    size: int

    @classmethod
    def around(cls, box: Box, size: int) -> _Cut:
        x1, y1, x2, y2 = box
        side = max(_AROUND * longer_side(box), _SMALLEST)
        return cls(((x1 + x2 - side) / 2, (y1 + y2 - side) / 2), size / side, size)

    def corners(self, box: Box) -> np.ndarray:
        """A box on the crop."""
        return ((np.array(box).reshape(2, 2) - self.corner) * self.scale).reshape(4).astype(np.float32)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The crop, black beyond the image."""
        side = self.size / self.scale
        x, y = self.corner
        across = down = 1.0
        if self.scale < 1:
            # Shrinking in two steps keeps it smooth: transform alone takes no mean over the pixels.
            smaller = max(1, round(image.width * self.scale)), max(1, round(image.height * self.scale))
            across, down = smaller[0] / image.width, smaller[1] / image.height
            image = image.resize(smaller, Image.Resampling.LANCZOS)
        matrix = (side * across / self.size, 0, x * across, 0, side * down / self.size, y * down)
        return image.transform(
            (self.size, self.size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )


def _apart(one: Box, other: Box) -> float:
    return abs(one[0] + one[2] - other[0] - other[2]) + abs(one[1] + one[3] - other[1] - other[3])


def _discs(made: np.ndarray, others: int, size: int) -> np.ndarray:
    """Regions without a mask: discs around all keypoints are object, far from every box is outside."""
    boxes = np.stack([made["box"], *made["others_box"][:others]])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    board = Image.new("L", (size, size), OUTSIDE)
    pen = ImageDraw.Draw(board)
    for (x1, y1, x2, y2), margin in zip(boxes, _MARGIN * sides, strict=True):
        pen.rectangle((x1 - margin, y1 - margin, x2 + margin, y2 + margin), fill=UNKNOWN)
    shown = [made["xy"][made["visible"]]]
    shown += [xy[seen] for xy, seen in zip(made["others_xy"], made["others_visible"], strict=True)]
    for points, radius in zip(shown, _DISC * sides, strict=False):
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=OBJECT)
    return np.array(board)


def _masked(cut: Image.Image) -> np.ndarray:
    """Regions of a mask: along its edge nobody knows."""
    board = cut.convert("L").point(lambda value: 255 if value >= 128 else 0)
    grown = board.filter(ImageFilter.MaxFilter(_EDGE))
    return np.where(np.array(board) > 0, OBJECT, np.where(np.array(grown) > 0, UNKNOWN, OUTSIDE))
