"""Small data sets and runs for the tests of tuning."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from geoaware.runs.settings import parse
from geoaware.training.backbone.config import TuneConfig
from tests.toys import noise
from tests.training.tiny import draw_data, edit

UNLABELLED = ("n03791053_motor_scooter", "n02088364_beagle", "n03792782_mountain_bike")


def draw_sets(folder: Path) -> Path:
    """Write two sets of drawn faces and images without labels.

    The objects of the second set, ``masked``, have polygons; ``unlabelled`` holds coarse noise.
    """
    draw_data(folder / "plain")
    masked = draw_data(folder / "masked")
    for split in ("train", "val"):
        content = json.loads((masked / f"{split}.json").read_text(encoding="utf-8"))
        for annotation in content["annotations"]:
            annotation["segmentation"] = [_octagon(*annotation["bbox"])]
        edit(masked / f"{split}.json", content)
    (folder / "unlabelled").mkdir()
    for seed, name in enumerate(UNLABELLED):
        noise(160, 120, seed).save(folder / "unlabelled" / f"{name}.png")
    return folder


def _octagon(x: float, y: float, width: float, height: float) -> list[float]:
    """A box without its corners, as COCO's x y x y …"""
    shares = ((0.25, 0), (0.75, 0), (1, 0.25), (1, 0.75), (0.75, 1), (0.25, 1), (0, 0.75), (0, 0.25))
    return [value for a, b in shares for value in (x + a * (width - 1), y + b * (height - 1))]


def settings(data: Path, cache: Path, /, **changes: Any) -> dict[str, Any]:
    """A run's settings as plain values; ``changes`` by dotted key with ``__`` for the dot."""
    content: dict[str, Any] = {
        "root": str(data),
        "cache": str(cache),
        "shape": {"descriptor": 8, "width": 16, "context": [1], "detail": 1},
        "data": [
            {"name": "coco", "root": "plain", "split": "train", "objects": 2, "twice": 1},
            {"name": "coco", "root": "masked", "split": "train", "objects": 1},
        ],
        "unlabelled": {"root": "unlabelled", "negatives": 1},
        "size": 64,
        "objective": {"points": 5},
        "steps": 4,
        "warmup": 2,
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


def config(data: Path, cache: Path, /, **changes: Any) -> TuneConfig:
    """The same, checked."""
    return parse(TuneConfig, settings(data, cache, **changes), "tiny")
