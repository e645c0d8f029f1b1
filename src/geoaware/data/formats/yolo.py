"""YOLO-pose: ``data.yaml``, and a text file of shares of the image beside each image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geoaware.data import fields
from geoaware.data.files import read_lines, read_text
from geoaware.data.formats.hub import Head, Hub, Point, Result, box_of, understanding
from geoaware.data.images import SUFFIXES, image_size
from geoaware.data.names import FileNames
from geoaware.runs.errors import InputError
from geoaware.runs.settings import read_yaml

WHAT = "a YOLO data set"

_SPLITS = ("train", "val", "valid", "test")
_DIGITS = 8


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    lines = {line.partition(":")[0] for line in head.text.splitlines()}
    return path.suffix.lower() in (".yaml", ".yml") and ("kpt_shape" in lines or {"names", "train"} <= lines)


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in the images of all splits, with their labels."""
    (path,) = paths
    with understanding(str(path), "YOLO"):
        content = read_yaml(read_text(path, WHAT))
        if content.get("kpt_shape") is None:
            raise InputError(
                f"{path}: has no kpt_shape, so is no data set of keypoints; add it, or export poses"
            )
        count, width = (fields.whole(each, f"{path}: kpt_shape") for each in content["kpt_shape"])
        if width not in (2, 3) or count < 1:
            raise InputError(f"{path}: kpt_shape [{count}, {width}]; expected [number of keypoints, 2 or 3]")
        classes = [str(each) for each in _listed(content["names"])]
        names = _keypoints(content, count)
        flips = _flips(content.get("flip_idx"), names, str(path))
        for each in classes:
            hub.category(each, names, flip_pairs=flips)
    hub.folder = top = _top(path, content)
    for image in dict.fromkeys(_images(path, top, content)):
        label = _label(path, image, top)
        if label is not None:
            size = image_size(image)
            name = image.relative_to(top).as_posix() if image.is_relative_to(top) else str(image)
            entry = hub.image(name, size)
            for where, line in read_lines(label, "labels of YOLO"):
                with understanding(where, "YOLO"):
                    _object(where, line.split(), entry, size, classes, names, width, hub)


def _listed(names: Any) -> list[Any]:
    """A list, or a mapping by number from 0, as a list."""
    return [names[each] for each in sorted(names)] if isinstance(names, Mapping) else list(names)


def _keypoints(content: Mapping[str, Any], count: int) -> list[str]:
    """The names of the keypoints, which are numbered from 1 if the file has none."""
    given = content.get("kpt_names") or content.get("keypoint_names") or ()
    if isinstance(given, Mapping):  # by class: all have the same
        given = (
            next(iter(given.values()))
            if all(isinstance(each, list) for each in given.values())
            else _listed(given)
        )
    names = [str(each) for each in given]
    return names if len(names) == count else [f"point {each + 1}" for each in range(count)]


def _flips(partners: Any, names: Sequence[str], where: str) -> list[tuple[str, str]] | None:
    """Flip pairs by name; none are known where every keypoint is its own partner, as exporters fill it in."""
    if partners is None or list(partners) == list(range(len(names))):
        return None
    places = range(len(names))
    if len(partners) != len(names) or any(
        each not in places or partners[each] != own for own, each in enumerate(partners)
    ):
        raise InputError(
            f"{where}: flip_idx {fields.shown(partners)} does not give each keypoint its partner"
        )
    return [(names[own], names[each]) for own, each in enumerate(partners) if own < each]


def _top(path: Path, content: Mapping[str, Any]) -> Path:
    """The folder that names of splits are relative to: ``path`` if it is there, else that of the file."""
    given = content.get("path")
    if given:
        for folder in (path.parent / str(given), path.parent.parent / str(given)):
            if folder.is_dir():
                return folder
    return path.parent


def _images(path: Path, top: Path, content: Mapping[str, Any]) -> Iterator[Path]:
    """The images of all splits, in folders or lists; else those beside the file."""
    given = [content.get(each) for each in _SPLITS]
    places = [str(one) for each in given if each for one in (each if isinstance(each, list) else [each])]
    places = [each.replace("\\", "/") for each in places]
    found = False
    for place in places:
        # Roboflow begins them with ../ though they lie beside the file.
        folder = next(
            (each for each in (top / place, path.parent / place.lstrip("./")) if each.exists() and place),
            None,
        )
        if folder is None:
            continue
        found = True
        if folder.is_dir():
            yield from _inside(folder)
        else:
            names = FileNames(folder.parent)
            for _, line in read_lines(folder, "a list of images"):
                yield names.path(line.removeprefix("./"))
    if not found:
        yield from _inside(path.parent)


def _inside(folder: Path, depth: int = 3) -> list[Path]:
    found: list[Path] = []
    for each in sorted(folder.iterdir()):
        if each.suffix.lower() in SUFFIXES and each.is_file():
            found.append(each)
        elif depth and each.is_dir():
            found += _inside(each, depth - 1)
    return found


def _label(path: Path, image: Path, top: Path) -> Path | None:
    """The labels of an image: in ``labels`` beside ``images``, beside ``data.yaml``, or beside the image."""
    parts = image.with_suffix(".txt").parts
    last = max((place for place, each in enumerate(parts) if each == "images"), default=None)
    tried = [] if last is None else [type(image)(*parts[:last], "labels", *parts[last + 1 :])]
    if image.is_relative_to(top):
        tried.append(path.parent / "labels" / image.relative_to(top).with_suffix(".txt"))
    return next((each for each in (*tried, image.with_suffix(".txt")) if each.is_file()), None)


def _object(
    where: str,
    row: Sequence[str],
    image: dict[str, Any],
    size: tuple[int, int],
    classes: Sequence[str],
    names: Sequence[str],
    width: int,
    hub: Hub,
) -> None:
    """One line: class, box (middle, width, height), and the keypoints."""
    wanted = 5 + len(names) * width
    if len(row) not in (wanted, wanted + 1):  # the last may be a probability
        raise InputError(
            f"{where}: {len(row)} columns; expected {wanted} (class, box, {len(names)} keypoints)"
        )
    kind = fields.whole(row[0], f"{where}: class")
    if not 0 <= kind < len(classes):
        raise InputError(f"{where}: class {kind}, and data.yaml names {len(classes)}")
    values = [
        fields.number(each, f"{where}: column {place}") for place, each in enumerate(row[1:wanted], start=2)
    ]
    x, y, w, h = (_round(value * size[place % 2]) for place, value in enumerate(values[:4]))
    points = {}
    for name, (px, py, *flag) in zip(names, zip(*[iter(values[4:])] * width, strict=True), strict=True):
        seen = flag[0] if flag else 2 * bool(px or py)
        if seen not in (0, 1, 2):
            raise InputError(
                f"{where}: the flag {seen:g} of {name!r} is not 0, 1 or 2; predictions are no annotations"
            )
        if seen:
            points[name] = Point(_round(px * size[0]), _round(py * size[1]), int(seen))
    hub.add(image, classes[kind], points, [x - w / 2, y - h / 2, w, h])


def _round(value: float) -> float:
    return round(value, 4)


def write(draft: Path, result: Result) -> None:
    """Write ``data.yaml`` and ``labels``; the images stay where they are."""
    counts = {len(each["keypoints"]) for each in result.categories}
    if len(counts) != 1:
        raise InputError(
            "YOLO holds categories with the same number of keypoints only; choose one category", "to"
        )
    order = {each["id"]: place for place, each in enumerate(result.categories)}
    first = result.categories[0]
    partners = list(range(counts.pop()))
    for a, b in first.get("flip_pairs") or ():
        partners[a], partners[b] = b, a
    config = {
        "path": str(result.folder or "."),
        "train": ".",
        "val": ".",
        "kpt_shape": [len(partners), 3],
        "flip_idx": partners,
        "names": {order[each["id"]]: each["name"] for each in result.categories},
        "kpt_names": {order[each["id"]]: each["keypoints"] for each in result.categories},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None)
    (draft / "data.yaml").write_text(text, encoding="utf-8")
    for path, image, objects in result.files(draft / "labels", ".txt", "labels in YOLO"):
        lines = [_line(each, image, order, result) for each in objects]
        path.write_text("".join(lines), encoding="utf-8")


def _line(annotation: dict[str, Any], image: dict[str, Any], order: Mapping[int, int], result: Result) -> str:
    category, points = result.named(annotation)
    width, height = image["width"], image["height"]
    x, y, w, h = box_of(annotation, points) or (0, 0, 0, 0)
    values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    texts = [f"{each:.{_DIGITS}f}" for each in values]
    for name in category["keypoints"]:
        point = points.get(name, Point(0, 0, 0))
        texts += [f"{point.x / width:.{_DIGITS}f}", f"{point.y / height:.{_DIGITS}f}", str(point.flag)]
    return " ".join([str(order[annotation["category_id"]]), *texts]) + "\n"


LABELS = re.compile(r"\d+( -?[\d.]+(e-?\d+)?){4,}\s*(\n|$)")
"""A line of labels, by which they are known where they are given alone."""
