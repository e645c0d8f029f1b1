"""labelme: one JSON beside each image, with points and rectangles that a group number holds together."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoaware.data import fields
from geoaware.data.files import read_json, read_lines
from geoaware.data.formats.hub import (
    HIDDEN,
    VISIBLE,
    Entry,
    Head,
    Hub,
    Point,
    Result,
    box_of,
    joined,
    understanding,
)
from geoaware.runs.errors import InputError

WHAT = "a labelme file"

LABELS = "labels.txt"
"""Names in their order, as labelme takes them by ``--labels``."""

_Object = tuple[Entry, str, Mapping[str, Point], Sequence[float] | None]

_OWN = re.compile(r'"(imagePath|version|flags|imageData)"\s*:')


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return head.text.startswith("{") and '"shapes"' in head.text and _OWN.search(head.text) is not None


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in the files of a folder, in the order of their names, or a single one."""
    hub.folder = top = paths[0].parent if len({each.parent for each in paths}) == 1 else hub.path
    order = [line for _, line in read_lines(top / LABELS, LABELS)] if (top / LABELS).is_file() else []
    found: list[_Object] = []
    for path in paths:
        content = read_json(path, WHAT)
        with understanding(str(path), "labelme"):
            place = path.parent.relative_to(top).as_posix()
            name = content.get("imagePath") or path.with_suffix(".jpg").name
            alone = re.match(r"([A-Za-z]:|[\\/])", name) is not None
            size = (content.get("imageWidth"), content.get("imageHeight"))
            image = hub.image(name if alone else joined(place, name), size)
            found += _objects(str(path), image, content["shapes"])
    for label in dict.fromkeys(each[1] for each in found):
        used = {name for each in found if each[1] == label for name in each[2]}
        hub.category(label, [each for each in order if each in used])
    for each in found:
        hub.add(*each)


def _objects(where: str, image: Entry, shapes: Iterable[Mapping[str, Any]]) -> Iterable[_Object]:
    """The objects of an image, by group; what has no group is of one object."""
    points: dict[Any, dict[str, Point]] = {}
    boxes: dict[Any, tuple[str, list[float]]] = {}
    for number, each in enumerate(shapes, start=1):
        place = f"{where}: shape {number}"
        label, kind, group = str(each["label"]), each.get("shape_type"), each.get("group_id")
        if kind not in ("point", "rectangle"):
            continue
        listed = each["points"]
        corners = [fields.numbers(xy, f"{place}: points", 2, "x, y") for xy in listed]
        known = points if kind == "point" else boxes
        if label in points.get(group, {}) or (known is boxes and group in boxes):
            raise InputError(
                f"{place}: a second {label!r} in one group; give each object a group id of its own"
            )
        if kind == "point":
            hidden = bool((each.get("flags") or {}).get("hidden") or each.get("difficult"))
            score = each.get("score")
            points.setdefault(group, {})[label] = Point(
                corners[0][0], corners[0][1], HIDDEN if hidden else VISIBLE, score
            )
        else:
            (left, right), (above, below) = ((min(axis), max(axis)) for axis in zip(*corners, strict=True))
            boxes[group] = label, [left, above, right - left, below - above]
    for group in dict.fromkeys((*boxes, *points)):
        label, box = boxes.get(group, ("object", None))
        yield image, label, points.get(group, {}), box


def write(draft: Path, result: Result) -> None:
    """Write a JSON for each image, which it names as seen from the folder, and the list of labels."""
    names = [each["name"] for each in result.categories]
    names += [name for each in result.categories for name in each["keypoints"]]
    (draft / LABELS).write_text("".join(f"{each}\n" for each in dict.fromkeys(names)), encoding="utf-8")
    for path, image, objects in result.files(draft, ".json", "a file in labelme"):
        shapes = [
            each for group, entry in enumerate(objects, start=1) for each in _shapes(group, entry, result)
        ]
        content: Entry = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": _seen_from(path.parent, image["file_name"], result.folder),
            "imageData": None,
            "imageHeight": image.get("height"),
            "imageWidth": image.get("width"),
        }
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _seen_from(folder: Path, name: str, images: Path | None) -> str:
    """Where an image is, from the folder of its labels."""
    return name if images is None else Path(os.path.relpath(images / name, folder)).as_posix()


def _shapes(group: int, annotation: Entry, result: Result) -> Iterable[Entry]:
    category, points = result.named(annotation)
    box = box_of(annotation, points)
    if box is not None:
        x, y, width, height = box
        yield _shape(category["name"], "rectangle", [[x, y], [x + width, y + height]], group)
    for name, point in points.items():
        flags = {"hidden": True} if point.flag == HIDDEN else {}
        yield _shape(name, "point", [[point.x, point.y]], group, flags)


def _shape(
    label: str, kind: str, points: Sequence[Sequence[float]], group: int, flags: Entry | None = None
) -> Entry:
    return {
        "label": label,
        "points": points,
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": flags or {},
        "mask": None,
    }
