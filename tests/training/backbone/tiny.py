"""Small data sets, images and views for the tests of tuning."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoaware.method.keypoints import Schema
from geoaware.training.backbone.config import TuneConfig, Views
from geoaware.training.backbone.images import OBJECT, OUTSIDE, Shown
from geoaware.training.backbone.views import Batch, Camera
from tests.toys import noise
from tests.training.tiny import draw_data, edit
from tests.training.toy_sets import SCHEMA

CANVAS, GRID = 96, 12
"""In place of the network's own 448 and 56: a step takes a twentieth of the time."""

STILL: dict[str, float] = {
    "colour": 0, "recolour": 0, "background": 0, "cover": 0, "shuffle": 0, "styles": 0
}  # fmt: skip
"""Views that are only placed."""

Box = tuple[float, float, float, float]


def draw_sets(folder: Path) -> Path:
    """Write two sets of drawn faces, ``plain`` and ``masked``; the objects of the latter have polygons."""
    draw_data(folder / "plain")
    masked = draw_data(folder / "masked")
    for split in ("train", "val"):
        content = json.loads((masked / f"{split}.json").read_text(encoding="utf-8"))
        for annotation in content["annotations"]:
            annotation["segmentation"] = [_octagon(*annotation["bbox"])]
        edit(masked / f"{split}.json", content)
    return folder


def _octagon(x: float, y: float, width: float, height: float) -> list[float]:
    """A box without its corners, as COCO's x y x y …"""
    shares = ((0.25, 0), (0.75, 0), (1, 0.25), (1, 0.75), (0.75, 1), (0.25, 1), (0, 0.75), (0, 0.25))
    return [value for a, b in shares for value in (x + a * (width - 1), y + b * (height - 1))]


def settings(data: Path, /, **changes: Any) -> dict[str, Any]:
    """A run's settings as plain values; ``changes`` by dotted key with ``__`` for the dot."""
    content: dict[str, Any] = {
        "root": str(data),
        "shape": {"descriptor": 8, "width": 16, "context": [1], "detail": 1},
        "data": [
            {"name": "coco", "root": "plain", "split": "train"},
            {"name": "coco", "root": "masked", "split": "train"},
        ],
        "images": 2,
        "steps": 4,
        "objective": {"points": 6},
        "memory": 0.1,
        "workers": 2,
        "save_every": 2,
        "log_every": 2,
    }
    for key, value in changes.items():
        *way, last = key.split("__")
        inside = content
        for step in way:
            inside = inside.setdefault(step, {})
        inside[last] = copy.deepcopy(value)
    return content


def config(data: Path, /, **changes: Any) -> TuneConfig:
    """The same, checked."""
    return TuneConfig.model_validate(settings(data, **changes))


# Images on their canvas that no file holds


SIZE = 128
PLACES = ((44.0, 40.0), (84.0, 42.0), (52.0, 64.0), (78.0, 66.0), (66.0, 88.0))
"""Keypoints of `shown`, those of `SCHEMA` in their order."""


def shown(
    pixels: Tensor | None = None,
    regions: Tensor | None = None,
    xy: Sequence[tuple[float, float]] = PLACES,
    visible: Sequence[int] = (0, 1, 2, 3, 4),
    box: Box = (36.0, 32.0, 92.0, 96.0),
    group: int = 0,
) -> Shown:
    """Noise around five keypoints; with regions, an image with a mask."""
    if pixels is None:
        pixels = torch.tensor(list(noise(SIZE, SIZE, 0).tobytes())).view(SIZE, SIZE, 3).permute(2, 0, 1)
    seen = torch.tensor([each in visible for each in range(len(xy))])
    masked = regions is not None
    if regions is None:
        regions = torch.full(pixels.shape[1:], OUTSIDE)
    return Shown(pixels.byte(), regions.byte(), masked, torch.tensor(xy), seen, box, group)


def slopes(size: int = SIZE) -> Tensor:
    """Pixels whose red says how far to the right they lie, whose green how far down; their blue is full."""
    along = torch.arange(size).expand(size, size)
    return torch.stack([along, along.T, torch.full((size, size), 255)])


def left_half(size: int = SIZE) -> Tensor:
    """Regions: object on the left, outside on the right."""
    regions = torch.full((size, size), OUTSIDE)
    regions[:, : size // 2] = OBJECT
    return regions


def batch_of(
    images: Sequence[Shown],
    seed: int = 0,
    points: int = 5,
    grid: int = 32,
    schema: Schema = SCHEMA,
    limbs: int = 0,
    **views: float,
) -> Batch:
    """Views that are only placed, but for what is changed."""
    generator = torch.Generator().manual_seed(seed)
    chosen = Views(**{**STILL, **views})
    schemas = [schema] * (1 + max(each.group for each in images))
    size = images[0].pixels.shape[-1]
    camera = Camera(chosen, schemas, size, grid, torch.device("cpu"), generator)
    return camera.batch(images, points, limbs)
