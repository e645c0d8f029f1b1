"""Crops around annotated animals and people, decoded once into memory-mapped arrays.

Each annotated object is one crop: a square around its box, several objects of an image being several crops.
What else of the same kind a crop shows is kept with it, because a keypoint found on a neighbour is no mistake
that the network should learn from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from geoaware.data import DataSet
from geoaware.data.dataset import unique_images
from geoaware.data.images import load_image
from geoaware.data.masks import object_mask
from geoaware.method.types import AnnotatedImage
from geoaware.training.backbone.images import OBJECT, OUTSIDE, UNKNOWN
from geoaware.training.backbone.vocabulary import Vocabulary

SIZE = 320
"""Side of a crop in pixels."""

OTHERS = 6
"""At most so many other objects of an image are kept with a crop."""

_AROUND = 1.5
"""Side of a crop, relative to the longer side of the object's box."""

_DISC, _MARGIN, _EDGE = 0.06, 0.3, 9
"""As in `training.backbone.images`."""


@dataclass(frozen=True)
class Crops:
    """Crops of one data set; all places are in pixels of the crop.

    Attributes:
        pixels: (n, SIZE, SIZE, 3), RGB.
        regions: (n, SIZE, SIZE), what each pixel shows: `OBJECT`, `OUTSIDE` or `UNKNOWN`.
        xy: (n, k, 2), keypoints by class of the vocabulary.
        visible: (n, k).
        box: (n, 4), x1, y1, x2, y2.
        masked: (n,), whether the regions come from a mask.
        category: (n,), number of the category in ``categories``.
        others_xy: (n, OTHERS, k, 2), keypoints of other objects.
        others_visible: (n, OTHERS, k).
        others_box: (n, OTHERS, 4), empty (all 0) where there is none.
        categories: names.
        names: of the images.
    """

    pixels: np.ndarray
    regions: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    box: np.ndarray
    masked: np.ndarray
    category: np.ndarray
    others_xy: np.ndarray
    others_visible: np.ndarray
    others_box: np.ndarray
    categories: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


_SMALL = ("xy", "visible", "box", "masked", "category", "others_xy", "others_visible", "others_box")


def write_crops(
    data: DataSet, vocabulary: Vocabulary, folder: Path, say: Callable[[str], None] = lambda _: None
) -> None:
    """Decode every image of a data set that shows two keypoints, once.

    Args:
        data: with its images.
        vocabulary: of the classes.
        folder: to write to.
        say: takes lines on the progress.

    Raises:
        InputError: an image or mask cannot be read.
    """
    images = list(unique_images(data.pairs))
    together: dict[Path, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        together[image.path].append(image)
    images = [image for image in images if int(image.keypoints.visible.sum()) >= 2]
    categories = sorted({image.category for image in images})
    folder.mkdir(parents=True, exist_ok=True)
    count, classes = len(images), len(vocabulary)
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3)
    )
    regions = np.lib.format.open_memmap(
        folder / "regions.npy", mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE)
    )
    small = {
        "xy": np.zeros((count, classes, 2), np.float32),
        "visible": np.zeros((count, classes), bool),
        "box": np.zeros((count, 4), np.float32),
        "masked": np.zeros(count, bool),
        "category": np.zeros(count, np.int64),
        "others_xy": np.zeros((count, OTHERS, classes, 2), np.float32),
        "others_visible": np.zeros((count, OTHERS, classes), bool),
        "others_box": np.zeros((count, OTHERS, 4), np.float32),
    }
    for row, image in enumerate(images):
        classes_of = vocabulary.rows(data.schemas[image.category])
        corner, scale = _square(image)
        pixels[row] = np.asarray(_cut(load_image(image.path), corner, scale))
        xy, visible = _labels(image, classes_of, classes, corner, scale)
        small["xy"][row], small["visible"][row] = xy, visible
        small["box"][row] = _box(image, corner, scale)
        small["category"][row] = categories.index(image.category)
        others = [each for each in together[image.path] if each.id != image.id]
        # The nearest matter most: they are in the crop.
        others.sort(key=lambda each: _apart(image, each))
        for place, other in enumerate(others[:OTHERS]):
            rows = vocabulary.rows(data.schemas[other.category])
            found = _labels(other, rows, classes, corner, scale)
            small["others_xy"][row, place], small["others_visible"][row, place] = found
            small["others_box"][row, place] = _box(other, corner, scale)
        mask = object_mask(image)
        small["masked"][row] = mask is not None
        if mask is None:
            board = _discs(small, row)
        else:
            cut = _cut(Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB"), corner, scale)
            board = _masked(cut)
        regions[row] = np.asarray(board)
        if row % 500 == 0:
            say(f"{data.name} {data.split}: {row} of {count}")
    pixels.flush()
    regions.flush()
    np.savez(folder / "labels.npz", **small)  # type: ignore[arg-type]
    about = {
        "categories": categories,
        "names": [image.id for image in images],
        "classes": list(vocabulary.names),
        "size": SIZE,
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def read_crops(folder: Path) -> Crops:
    """Crops that `write_crops` wrote; pixels stay on the disk until they are needed."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    with np.load(folder / "labels.npz") as labels:
        small = {name: labels[name] for name in _SMALL}
    return Crops(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        np.load(folder / "regions.npy", mmap_mode="r"),
        **small,
        categories=tuple(about["categories"]),
        names=tuple(about["names"]),
    )


def _square(image: AnnotatedImage) -> tuple[tuple[float, float], float]:
    """Top left corner of the crop in the image's pixels, and crop pixels per image pixel."""
    x1, y1, x2, y2 = _corners(image)
    side = max(_AROUND * max(x2 - x1, y2 - y1), 16.0)
    return ((x1 + x2 - side) / 2, (y1 + y2 - side) / 2), SIZE / side


def _corners(image: AnnotatedImage) -> tuple[float, float, float, float]:
    if image.box is not None:
        return image.box
    seen = image.keypoints.xy[image.keypoints.visible]
    (x1, y1), (x2, y2) = seen.amin(dim=0).tolist(), seen.amax(dim=0).tolist()
    return x1, y1, x2, y2


def _box(image: AnnotatedImage, corner: tuple[float, float], scale: float) -> np.ndarray:
    corners = np.array(_corners(image)).reshape(2, 2)
    return ((corners - corner) * scale).reshape(4).astype(np.float32)


def _apart(image: AnnotatedImage, other: AnnotatedImage) -> float:
    (x1, y1, x2, y2), (u1, v1, u2, v2) = _corners(image), _corners(other)
    return abs(x1 + x2 - u1 - u2) + abs(y1 + y2 - v1 - v2)


def _cut(image: Image.Image, corner: tuple[float, float], scale: float) -> Image.Image:
    """The crop, black beyond the image."""
    side = SIZE / scale
    x, y = corner
    # Shrinking in two steps keeps it smooth: transform alone takes no mean over the pixels.
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        factor_x, factor_y = size[0] / image.width, size[1] / image.height
        image = image.resize(size, Image.Resampling.LANCZOS)
        data = (side * factor_x / SIZE, 0, x * factor_x, 0, side * factor_y / SIZE, y * factor_y)
    else:
        data = (side / SIZE, 0, x, 0, side / SIZE, y)
    return image.transform((SIZE, SIZE), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)


def _labels(
    image: AnnotatedImage, rows: Sequence[int], classes: int, corner: tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    xy, visible = np.zeros((classes, 2), np.float32), np.zeros(classes, bool)
    points = image.keypoints
    for place, number in enumerate(points.ids):
        if points.visible[place]:
            xy[rows[number]] = (points.xy[place].numpy() - corner) * scale
            visible[rows[number]] = True
    return xy, visible


def _discs(small: dict[str, np.ndarray], row: int) -> Image.Image:
    """Regions without a mask: discs around all keypoints are object, far from every box is outside."""
    board = Image.new("L", (SIZE, SIZE), OUTSIDE)
    pen = ImageDraw.Draw(board)
    boxes = [small["box"][row], *(each for each in small["others_box"][row] if each.any())]
    for box in boxes:
        margin = _MARGIN * max(box[2] - box[0], box[3] - box[1])
        pen.rectangle((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin), fill=UNKNOWN)
    shown = [(small["xy"][row], small["visible"][row])]
    shown += list(zip(small["others_xy"][row], small["others_visible"][row], strict=True))
    for (xy, visible), box in zip(shown, boxes, strict=False):
        radius = _DISC * max(box[2] - box[0], box[3] - box[1])
        for x, y in xy[visible]:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=OBJECT)
    return board


def _masked(cut: Image.Image) -> Image.Image:
    board = cut.convert("L").point(lambda value: 255 if value >= 128 else 0)
    grown = board.filter(ImageFilter.MaxFilter(_EDGE))
    regions = np.where(np.array(board) > 0, OBJECT, np.where(np.array(grown) > 0, UNKNOWN, OUTSIDE))
    return Image.fromarray(regions.astype(np.uint8))


def rows_of(crops: Crops, rows: Sequence[int]) -> dict[str, torch.Tensor]:
    """The labels of some crops as tensors."""
    return {name: torch.from_numpy(np.asarray(getattr(crops, name)[list(rows)])) for name in _SMALL}
