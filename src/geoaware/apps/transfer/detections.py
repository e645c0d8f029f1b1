"""Boxes of objects in the targets, as a detector wrote them: COCO results, MegaDetector, or annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from geoaware.apps.transfer.targets import Detected, Targets
from geoaware.data import fields
from geoaware.data.coco_file import read_coco
from geoaware.data.dataset import FLAT, LEFT_OUT, shortened
from geoaware.data.files import known_as, read_json
from geoaware.data.names import Names
from geoaware.runs.errors import InputError

MINIMUM = 0.2
"""Boxes of a smaller score are not used, as MegaDetector's authors advise."""

ANIMAL = "animal"
"""The category that is used if there is none of the sources' name."""

_SLACK = 0.01
"""By so much of the image may MegaDetector's boxes leave it, from rounding."""

_WANTED = "boxes of a detector (COCO results, or MegaDetector's JSON)"


class _Box(NamedTuple):
    """A box of a file: its image by name or by id, its category, x, y, width and height, and its score."""

    image: str
    category: str
    xywh: tuple[float, ...]
    score: float | None


@dataclass
class _File:
    """What a file says.

    Attributes:
        boxes: all of them.
        shares: whether they are shares of the image's sides, not pixels.
        ids: whether images are named by ids.
        images: names of those that it lists, also without a box.
        failures: why images could not be looked at, by name.
        categories: names by what stands for them in the boxes; empty where the file does not say.
    """

    boxes: list[_Box]
    shares: bool = False
    ids: bool = False
    images: Sequence[str] = ()
    failures: Mapping[str, str] | None = None
    categories: Mapping[str, str] | None = None


def with_detections(
    targets: Targets,
    path: Path,
    category: str,
    *,
    chosen: str | None = None,
    least: float = MINIMUM,
) -> Targets:
    """The targets with the boxes of a file; an image of which it has none has no object.

    Args:
        targets: images.
        path: COCO results, MegaDetector's JSON, or a file of annotations with boxes.
        category: the sources'. Its boxes are used or, where the file has no such category, those of animals.
        chosen: category to use instead, by its name or id in the file.
        least: boxes of a smaller score are not used.

    Raises:
        InputError: the file is missing or of another kind, lists nothing, has boxes outside of their image,
            names none of the targets, or several categories of which none is meant.
    """
    if not 0 <= least <= 1:
        raise InputError(f"the smallest score is 0 to 1, got {least:g}", "min_detection")
    file = _read(path)
    kept, notes = _of_category(file, path, category, chosen, targets)
    probable = [each for each in kept if each.score is None or each.score >= least]
    notes += [f"{LEFT_OUT}: {len(kept) - len(probable)} boxes of scores below {least:g}"] * (
        len(probable) < len(kept)
    )
    flat = [each for each in probable if min(each.xywh[2:]) <= 0]
    notes += [f"{FLAT} ({len(flat)}, {flat[0].image})"] if flat else []
    named, unknown, spelled = _named(file, path, targets)
    listed = dict[str, list[_Box]]()
    for each in probable:
        if each.image in named and min(each.xywh[2:]) > 0:
            listed.setdefault(named[each.image], []).append(each)
    found = {
        name: Detected(tuple(each.xywh for each in boxes), tuple(each.score for each in boxes), file.shares)
        for name, boxes in listed.items()
    }
    for name, why in (file.failures or {}).items():
        if name in named:
            found[named[name]] = Detected(failure=f"the detector failed on it ({why})")
    notes += spelled
    notes += [f"{len(unknown)} images of {path} are no targets ({unknown[0]})"] if unknown else []
    bare = [name for name, *_ in targets.rows if name not in found]
    notes += [f"{len(bare)} images without a box, so without an object ({bare[0]})"] if bare else []
    return replace(targets, detected=found, detector=path, notes=(*targets.notes, *notes))


def _read(path: Path) -> _File:
    if path.is_dir() or path.suffix.lower() != ".json":
        return _annotated(path)
    content = read_json(path, _WANTED)
    if isinstance(content, list):
        return _results(path, content)
    listed = content.get("images") if isinstance(content, dict) else None
    if isinstance(listed, list) and all(isinstance(each, dict) and "file" in each for each in listed):
        return _megadetector(path, content)
    if isinstance(listed, list | dict):
        return _annotated(path)
    raise InputError(f"{path}: holds no {_WANTED}{known_as(content)}")


def _results(path: Path, content: Sequence[Any]) -> _File:
    """``[{"image_id" or "file_name", "category_id", "bbox", "score"}, …]``."""
    if not content:
        raise InputError(f"{path}: is an empty list; run the detector again")
    key = "file_name" if isinstance(content[0], dict) and "file_name" in content[0] else "image_id"
    boxes = []
    for number, each in enumerate(content):
        where = f"{path}: entry {number}"
        if not isinstance(each, dict) or fields.missing(each.get(key)) or "bbox" not in each:
            raise InputError(f"{where} lacks {key} or bbox, so is no {_WANTED}{known_as(each)}")
        boxes.append(_box(each, str(each[key]), each.get("category_id"), where))
    if all(max(each.xywh) <= 1 for each in boxes):
        raise InputError(f"{path}: its boxes are shares of the images; COCO's are in pixels")
    return _File(boxes, ids=key == "image_id")


def _megadetector(path: Path, content: Mapping[str, Any]) -> _File:
    """``{"images": [{"file", "detections": [{"category", "conf", "bbox"}]}], "detection_categories"}``."""
    if not content["images"]:
        raise InputError(f"{path}: lists no images; run the detector again")
    boxes, failures = list[_Box](), dict[str, str]()
    for image in content["images"]:
        name = str(image["file"])
        where = f"{path}: image {name!r}"
        found = image.get("detections")
        if image.get("failure") or found is None:
            failures[name] = str(image.get("failure") or "no detections")
        elif not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise InputError(f"{where}: detections must be a list of objects")
        for each in found or ():
            box = _box({**each, "score": each.get("conf")}, name, each.get("category"), where)
            x, y, width, height = box.xywh
            if min(x, y) < -_SLACK or max(x + width, y + height) > 1 + _SLACK:
                raise InputError(
                    f"{where}: the box {fields.shown(list(box.xywh))} lies outside the image; boxes are "
                    "shares of its sides, 0 to 1"
                )
            boxes.append(box)
    names = content.get("detection_categories")
    categories = {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else None
    return _File(boxes, True, False, [str(each["file"]) for each in content["images"]], failures, categories)


def _annotated(path: Path) -> _File:
    """Annotations of any format that have boxes."""
    file = read_coco(path, objects=True)
    names = {key: str(each["file_name"]) for key, each in file.images.items()}
    boxes = [
        _box(each, names[each["image_id"]], each["category_id"], f"{path}: annotation {each['id']}")
        for each in file.annotations
        if not fields.missing(each.get("bbox"))
    ]
    if not boxes:
        raise InputError(f"{path}: no annotation in it has a box; give a detector's result")
    categories = {str(key): str(each["name"]) for key, each in file.categories.items()}
    return _File(boxes, images=list(names.values()), categories=categories or None)


def _box(entry: Mapping[str, Any], image: str, category: Any, where: str) -> _Box:
    xywh = fields.numbers(entry.get("bbox"), f"{where}: bbox", 4, "x, y, width, height")
    score = entry.get("score")
    chance = None if fields.missing(score) else fields.number(score, f"{where}: score")
    return _Box(image, "" if fields.missing(category) else str(category), tuple(xywh), chance)


def _of_category(
    file: _File, path: Path, category: str, chosen: str | None, targets: Targets
) -> tuple[list[_Box], list[str]]:
    """The boxes of the category that is meant, and what is said of the others."""
    names = file.categories or {}
    there = Counter(each.category for each in file.boxes)
    called = {key: names.get(key, key) for key in [*names, *there]}
    wanted = _choose(called, category, chosen, None if file.categories else targets.category_id)
    if wanted is None:
        given = category if chosen is None else chosen
        raise InputError(
            f"{path}: has boxes of {shortened(sorted({called[each] for each in there}))}, none called "
            f"{given!r}; choose one",
            "detection_category",
        )
    kept = [each for each in file.boxes if each.category in wanted]
    others = [f"{count} of {called[each]}" for each, count in sorted(there.items()) if each not in wanted]
    return kept, [f"{LEFT_OUT}: boxes of other categories ({shortened(others)})"] if others else []


def _choose(
    called: Mapping[str, str], category: str, chosen: str | None, number: int | None
) -> set[str] | None:
    """What stands in the boxes for the category that is meant; ``None``: nobody can tell."""
    if chosen is not None:
        return {key for key, name in called.items() if chosen in (key, name)} or None
    for wanted in (category, ANIMAL):
        if alike := {key for key, name in called.items() if name.lower() == wanted.lower()}:
            return alike
    if number is not None and str(number) in called:
        return {str(number)}
    return set(called) if len(called) <= 1 else None


def _named(file: _File, path: Path, targets: Targets) -> tuple[dict[str, str], list[str], list[str]]:
    """Names of targets by how the file names them, those that are no targets, and notes on spelling."""
    known = list(dict.fromkeys(name for name, *_ in targets.rows))
    asked = list(dict.fromkeys([*file.images, *(each.image for each in file.boxes)]))
    ids = {str(number): name for name, number, _ in targets.rows if number is not None} if file.ids else {}
    if file.ids and not ids:
        ids = {_number(PurePosixPath(each).stem): each for each in known}
    names, ends = Names(known, str(path)), dict[str, list[str]]()
    for each in known:
        ends.setdefault(PurePosixPath(each).name, []).append(each)

    def find(name: str) -> str | None:
        if (found := ids.get(_number(name)) or names.find(name)) is not None:
            return found
        # Relative to a folder inside that of the targets.
        ending = f"/{name}".replace("\\", "/").replace("/./", "/")
        alike = [each for each in ends.get(PurePosixPath(ending).name, ()) if f"/{each}".endswith(ending)]
        return alike[0] if len(alike) == 1 else None

    found = {each: name for each in asked if (name := find(each)) is not None}
    if not found:
        what, remedy = "images", "give the images that the detector saw"
        if file.ids:
            what, remedy = "image ids", "give the COCO file that lists its images as targets"
        raise InputError(f"{path}: none of its {len(asked)} {what} is a target ({asked[0]}); {remedy}")
    return found, [each for each in asked if each not in found], names.notes()


def _number(text: str) -> str:
    """An id or the stem of a file's name, a number without zeros before it."""
    return str(int(text)) if text.isdecimal() else text
