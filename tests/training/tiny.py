"""A small data set of drawn faces, and runs on it with the real embedded network on a tiny canvas."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from geoaware.runs.settings import parse
from geoaware.training.post_processor.config import TrainConfig
from tests.toys import face

NAMES = ("left ear", "right ear", "left eye", "right eye", "nose")
FLIP_PAIRS = [[0, 1], [2, 3]]
GROUPS = [[0, 1], [2, 3]]
SHAPE = ((0.85, 0.1), (0.15, 0.1), (0.65, 0.5), (0.35, 0.5), (0.5, 0.68))
"""Where `face` draws them, as shares of its sides; a face looks at us, so its left is on our right."""

EXTRACTOR = {"canvas": 64, "coarse_canvas": 64, "grid": 8, "blocks": (7,), "coarse_blocks": (13,)}
CHANNELS = (80, 192)

COLOURS = ("orange", "khaki", "lightgray", "tan", "white", "sienna")
TRAIN, VAL = 8, 4


def draw_data(folder: Path) -> Path:
    """Write ``train.json``, ``val.json`` and their images of two kinds of animals."""
    (folder / "images").mkdir(parents=True)
    for split, numbers in (("train", range(TRAIN)), ("val", range(TRAIN, TRAIN + VAL))):
        drawn = [_draw(folder / "images", number) for number in numbers]
        content = {
            "images": [image for image, _ in drawn],
            "annotations": [annotation for _, annotation in drawn],
            "categories": [
                {"id": number, "name": name, "keypoints": list(NAMES), "skeleton": [[1, 3], [2, 4], [4, 5]]}
                for number, name in enumerate(("cat", "fox"))
            ],
            "flip_pairs": FLIP_PAIRS,
            "keypoint_groups": GROUPS,
        }
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _draw(folder: Path, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A turned face somewhere in an image that is not square; every third image is mirrored."""
    width, height = 84 + 11 * (number * 5 % 7), 96 + 9 * (number * 3 % 7)
    side = round((0.65 + 0.08 * (number % 4)) * min(width, height))
    left, top = (width - side) * (number % 3) // 2, (height - side) * (number % 4) // 3
    image = Image.new("RGB", (width, height), "seagreen")
    image.paste(_turned(side, COLOURS[number % len(COLOURS)]), (left, top))
    points = [(left + _turn(x) * side, top + y * side) for x, y in SHAPE]
    mirrored = number % 3 == 2
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        points = [(width - 1 - x, y) for x, y in points]
        points = [points[row] for row in (1, 0, 3, 2, 4)]
        left = width - left - side
    name = f"{number}.png"
    image.save(folder / name)
    # The second image hides an ear, the fourth an eye.
    flags = [1 if (number, row) in ((1, 0), (3, 3)) else 2 for row in range(len(points))]
    keypoints = [
        value for (x, y), flag in zip(points, flags, strict=True) for value in (round(x), round(y), flag)
    ]
    return (
        {"id": number, "file_name": name, "width": width, "height": height},
        {
            "id": number, "image_id": number, "category_id": number % 2, "keypoints": keypoints,
            "bbox": [left, top, side, side],
        },
    )  # fmt: skip


_NEAR = 0.65
"""Share of a turned face's width that the nearer half takes."""


def _turned(side: int, colour: str) -> Image.Image:
    """A face whose one half is wider than the other, so that a mirrored one is another."""
    straight = face(2 * side, 2 * side, colour=colour)
    middle = round(_NEAR * side)
    turned = Image.new("RGB", (side, side))
    turned.paste(straight.crop((0, 0, side, 2 * side)).resize((middle, side)), (0, 0))
    turned.paste(straight.crop((side, 0, 2 * side, 2 * side)).resize((side - middle, side)), (middle, 0))
    return turned


def _turn(x: float) -> float:
    return 2 * _NEAR * x if x < 0.5 else _NEAR + 2 * (1 - _NEAR) * (x - 0.5)


def settings(data: Path, cache: Path, /, **changes: Any) -> dict[str, Any]:
    """A run's settings as plain values; ``changes`` by dotted key with ``__`` for the dot."""
    content: dict[str, Any] = {
        "extractor": "efficientnet-lite0",
        "extractor_settings": {key: _plain(value) for key, value in EXTRACTOR.items()},
        "root": str(data),
        "cache": str(cache),
        "network": {"width": 128, "grid": 8},
        "stages": [{"data": [{"name": "coco", "root": ".", "split": "train"}], "steps": 6, "batch": 2}],
        "validation": {"data": [{"name": "coco", "root": ".", "split": "val"}], "every": 3},
        "save_every": 2,
        "log_every": 2,
    }
    for key, value in changes.items():
        _put(content, key.split("__"), value)
    return content


def config(data: Path, cache: Path, /, **changes: Any) -> TrainConfig:
    """The same, checked."""
    return parse(TrainConfig, settings(data, cache, **changes), "tiny")


def _put(content: Any, way: list[str], value: Any) -> None:
    for step in way[:-1]:
        content = content[int(step)] if isinstance(content, list) else content.setdefault(step, {})
    content[int(way[-1]) if isinstance(content, list) else way[-1]] = copy.deepcopy(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def edit(path: Path, change: Mapping[str, Any]) -> None:
    """Change entries of a JSON file; ``None`` takes one away."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content = {key: value for key, value in {**content, **change}.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")
