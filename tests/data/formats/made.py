"""Two cats and a third on two images, as every format can hold them, and what formats leave out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from geoaware.data import formats
from geoaware.data.formats.hub import Result

# Neither in alphabetical order, nor in that of sides.
NAMES = ["tail", "right ear", "left ear", "nose"]
SKELETON = [[1, 4], [4, 2], [4, 3]]
FLIPS = [[1, 2]]
SIZES = {"a/1.jpg": (120, 80), "b/ü 2.jpg": (64, 48)}
KEYPOINTS = {
    "a/1.jpg": [
        [30.25, 20.5, 2, 40, 11.125, 1, 0, 0, 0, 50, 30, 2],
        [70, 60, 2, 80, 51, 2, 75, 52, 2, 77, 55, 2],
    ],
    "b/ü 2.jpg": [[10, 12, 2, 20, 14, 2, 22, 16, 1, 0, 0, 0]],
}
BOXES = {"a/1.jpg": [[20, 5, 40, 30], [65, 50, 20, 12]], "b/ü 2.jpg": [[5, 6, 20.5, 15]]}
SCORES = [0.5, 0.25, 0.0, 0.75]


def category(**changes: Any) -> dict[str, Any]:
    return {"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": SKELETON, "flip_pairs": FLIPS, **changes}


def images(folder: Path) -> Path:
    """The images, in a folder."""
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, 90, 10)).save(folder / name)
    return folder


def rows(scored: bool = False) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    number = 0
    for place, (name, (width, height)) in enumerate(SIZES.items(), start=1):
        objects = []
        for points, box in zip(KEYPOINTS[name], BOXES[name], strict=True):
            number += 1
            entry = {"id": number, "image_id": place, "category_id": 3, "keypoints": points, "bbox": box}
            if scored:
                entry |= {"keypoint_scores": SCORES, "score": 0.5}
            objects.append(entry)
        yield {"id": place, "file_name": name, "width": width, "height": height}, objects


def result(folder: Path | None, scored: bool = False, **changes: Any) -> Result:
    return Result([category(**changes)], lambda: rows(scored), "0123456789abcdef", folder)


def as_result(read: formats.Read, folder: Path) -> Result:
    """What was read, to be written again, with images called as seen from their folder."""
    content = read.content

    def images() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        for image in content["images"]:
            name = re.split("(?:images|labeled-data)/", image["file_name"])[-1]
            width, height = SIZES[name]
            yield (
                {"width": width, "height": height, **image, "file_name": name},
                [each for each in content["annotations"] if each["image_id"] == image["id"]],
            )

    categories = [each for each in content["categories"] if each["keypoints"]]
    numbered = [{**each, **_by_number(each)} for each in categories]
    return Result(numbered, images, "0123456789abcdef", folder)


def _by_number(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Skeleton and flip pairs of names as COCO's numbers."""
    names, found = entry["keypoints"], {}
    for key, first in (("skeleton", 1), ("flip_pairs", 0)):
        pairs = entry.get(key) or []
        found[key] = [
            [names.index(end) + first if isinstance(end, str) else end for end in pair] for pair in pairs
        ]
    return found


class Holds(NamedTuple):
    """What a format can hold."""

    boxes: bool
    hidden: bool
    skeleton: bool
    flips: bool
    category: bool = True
    scores: bool = False
    order: bool = True
    files: bool = False
    """Whether it renames images."""


HOLDS = {
    "coco": Holds(True, True, True, True, scores=True),
    "cvat": Holds(False, True, True, False),
    "labelstudio": Holds(True, False, False, False, scores=True, order=False),
    "dlc": Holds(False, False, True, False, files=True),
    "slp": Holds(False, True, True, True, scores=True),
    "yolo": Holds(True, True, False, True),
    "labelme": Holds(True, True, False, False),
}


def path_of(name: str, folder: Path) -> Path:
    return folder / f"out-{name}{'' if name in formats.FOLDERS else formats.SUFFIXES.get(name, '.json')}"


def write(name: str, folder: Path, given: Result) -> Path:
    out = path_of(name, folder)
    if name == "coco":
        listed = list(given.images())
        objects = [each for _, several in listed for each in several]
        images = [image for image, _ in listed]
        return dumped(out, {"images": images, "annotations": objects, "categories": given.categories})
    formats.write(name, out, given)
    if name == "dlc":  # where DeepLabCut has them
        for each in SIZES:
            image = out / "labeled-data" / ("-".join(Path(each).parent.parts)) / Path(each).name
            Image.new("RGB", SIZES[each]).save(image)
    return out


def told(read: formats.Read, holds: Holds) -> Any:
    """What was read as far as another format holds it: by image the objects, with the keypoints by name."""
    content = as_result(read, Path())
    found: dict[str, Any] = {}
    for image, objects in content.images():
        name = Path(image["file_name"]).name if holds.files else image["file_name"]
        there = []
        for each in objects:
            kind, points = content.named(each)
            places = {
                key: (round(point.x, 3), round(point.y, 3), point.flag)
                for key, point in points.items()
                if holds.hidden or point.flag == 2
            }
            box = [round(side, 3) for side in each["bbox"]] if holds.boxes else None
            there.append((kind["name"], places, box))
        found[name] = there
    (kind,) = content.categories
    names = [kind["keypoints"]] * 2
    limbs, flips = (
        sorted(sorted(names[first][end - first] for end in each) for each in kind[key]) if held else None
        for key, first, held in (("skeleton", 1, holds.skeleton), ("flip_pairs", 0, holds.flips))
    )
    order = kind["keypoints"] if holds.order else sorted(kind["keypoints"])
    return found, order, limbs, flips


def both(one: Holds, other: Holds) -> Holds:
    held = [a and b for a, b in zip(one, other, strict=True)]
    return Holds(*held[:-1], files=one.files or other.files)


def dumped(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
