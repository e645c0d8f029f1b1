"""The result: records are put together to a COCO-keypoints file, which is never in memory.

The result is written with one entry a line, so that it can be read back line by line. Its first line says of
which run it is, and ends where the list of failed images begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import compress, groupby
from pathlib import Path
from typing import Any, TextIO

from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.data import fields
from geoaware.data.formats.hub import HIDDEN, VISIBLE, Result, box_around, mean_score
from geoaware.data.names import printable
from geoaware.runs.errors import InputError
from geoaware.runs.files import as_json, reading_part
from geoaware.runs.records import Lines
from geoaware.runs.tables import is_table, read_about

DESCRIPTION = "Keypoints carried over by geoaware transfer"

BEGIN = f'{{"info":{{"description":"{DESCRIPTION}"'
"""How every result begins, white space aside."""

Record = Mapping[str, Any]
"""A line of a part file: ``target`` (its key), then ``failed`` (why), or ``size`` (of the image),
``points`` ([x, y] or null, by keypoint), ``probability``, ``source`` (row), ``pose`` and ``distance``, and
``mask`` (COCO's run lengths) where one was carried; of a
frame of a video also ``peaks``, the other places ([x, y, probability]) of each keypoint. Where an image has
any number of objects, there are ``size`` and ``objects``: the same for each, with ``box`` and ``detection``
(the box's score)."""


@dataclass
class Counts:
    """What a result has.

    Attributes:
        failed_targets: targets that failed.
        empty_targets: targets without a keypoint above the threshold.
        shown_keypoints: keypoints above it.
        sought_keypoints: keypoints that the sources know, in all targets that did not fail.
        objects: that were detected or found, in all images; ``None`` where every target is one.
        bare_images: images without any, likewise.
    """

    failed_targets: int = 0
    empty_targets: int = 0
    shown_keypoints: int = 0
    sought_keypoints: int = 0
    objects: int | None = None
    bare_images: int | None = None

    def add(self, record: Record, threshold: float) -> None:
        """Count the record of a target."""
        if "failed" in record:
            self.failed_targets += 1
            return
        if "objects" in record:
            found = record["objects"]
            self.objects = (self.objects or 0) + len(found)
            self.bare_images = (self.bare_images or 0) + (not found)
            for each in found:
                self.add(each, threshold)
            return
        shown = sum(shown_points(record, threshold))
        self.empty_targets += shown == 0
        self.shown_keypoints += shown
        self.sought_keypoints += sum(point is not None for point in record["points"])


def each_object(pairs: Iterable[tuple[Record, Target]]) -> Iterator[tuple[Record, Target]]:
    """Records of one object each: as they are, or those inside the records of images, with new ids."""
    number = 0
    for record, target in pairs:
        if "objects" not in record:
            yield record, target
        for found in record.get("objects", ()):
            number += 1
            given = {"id": number, "bbox": found["box"]}
            yield {"size": record["size"], **found}, replace(target, annotation=given)


def shown_points(record: Record, threshold: float) -> list[bool]:
    """Which keypoints of a target are probable enough."""
    return [
        point is not None and chance >= threshold
        for point, chance in zip(record["points"], record["probability"], strict=True)
    ]


def paired(lines: Lines, targets: Targets, failed: bool = False) -> Iterator[tuple[Record, Target]]:
    """The records of the targets that did not fail, or of those that did, with these."""
    for record, target in zip(map(json.loads, lines.lines()), targets, strict=True):
        if ("failed" in record) == failed:
            yield record, target


def failures(lines: Lines, targets: Targets) -> Iterator[dict[str, str]]:
    """``file_name`` and ``reason`` of every target that failed."""
    for record, target in paired(lines, targets, failed=True):
        yield {"file_name": printable(target.name), "reason": record["failed"]}


def count(lines: Lines) -> dict[str, int]:
    """The `Counts` of a result, by name."""
    counted, threshold = Counts(), lines.head["run"]["settings"]["threshold"]
    for record in map(json.loads, lines.lines()):
        counted.add(record, threshold)
    return {name: value for name, value in asdict(counted).items() if value is not None}


def write_result(draft: Path, lines: Lines, sources: Sources, targets: Targets) -> None:
    """Put the records of all targets together."""
    entry, settings = category_entry(sources, targets), lines.head["run"]["settings"]

    def images() -> Iterator[Any]:
        # The objects of an image follow each other.
        for number, objects in groupby(paired(lines, targets), lambda pair: pair[1].image_id):
            record, target = next(objects)
            width, height = record["size"]
            entry = {"id": number, "file_name": target.name, "width": width, "height": height}
            shot = target.shot
            yield entry if shot is None else {**entry, "video": shot.name, "frame": shot.number}

    info = {"description": DESCRIPTION, **lines.head, **count(lines)}
    extra = {"flip_pairs": entry["flip_pairs"]}
    if sources.keypoint_groups is not None:
        extra["keypoint_groups"] = sources.keypoint_groups
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info":' + as_json(info)[:-1] + ',"failed":[\n')
        _write_list(file, failures(lines, targets))
        file.write(']},\n"licenses":[],\n')
        for key, value in extra.items():
            file.write(f'"{key}":{as_json(value)},\n')
        objects = each_object(paired(lines, targets))
        found = (annotation(*each, entry["id"], sources, settings) for each in objects)
        for key, values in (("categories", [entry]), ("images", images()), ("annotations", found)):
            file.write(f'"{key}":[\n')
            _write_list(file, values)
            file.write("]}\n" if key == "annotations" else "],\n")


def read_run(path: Path) -> dict[str, Any] | None:
    """``info`` of a result without the failures; ``None`` if `transfer` did not write the file."""
    if is_table(path):
        found = read_about(path)
        return found if isinstance(found, dict) and isinstance(found.get("run"), dict) else None
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline(1 << 24) + "]}}")["info"]
        return found if found["description"] == DESCRIPTION and isinstance(found["run"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_failures(path: Path) -> Iterator[dict[str, str]]:
    """``file_name`` and ``reason`` of every target that failed, from a result."""
    if is_table(path):
        yield from read_about(path)["failed"]
        return
    with path.open(encoding="utf-8") as file, reading_part(str(path)):
        file.readline()
        yield from _entries(file)


def read_results(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Image and annotation of every target that did not fail, from a result, in the order of the targets."""
    for image, objects in _read_images(path):
        for each in objects:
            yield image, each


def as_result(path: Path, targets: Targets, mark: str) -> Result:
    """A result as writers of other formats take it, read line by line."""
    with path.open(encoding="utf-8") as file, reading_part(str(path)):
        _seek(file, "categories", path)
        videos = {each.name: (each.video.path, each.video.count) for each in targets.shots.values()}
        return Result([*_entries(file)], partial(_read_images, path), mark, targets.folder, videos)


def _read_images(path: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every image of a result with its annotations, of which there may be none."""
    with path.open(encoding="utf-8") as above, path.open(encoding="utf-8") as below, reading_part(str(path)):
        _seek(above, "images", path)
        _seek(below, "annotations", path)
        groups = groupby(_entries(below), lambda each: each["image_id"])
        number, objects = next(groups, (None, iter(())))
        for image in _entries(above):
            if image["id"] == number:
                yield image, list(objects)
                number, objects = next(groups, (None, iter(())))
            else:
                yield image, []
        if number is not None:
            raise ValueError(number)  # the image of an annotation is missing


def category_entry(sources: Sources, targets: Targets) -> dict[str, Any]:
    """The category of the result: the sources', under the id that the targets' file has for it."""
    own = sources.category
    return {
        "id": own["id"] if targets.category_id is None else targets.category_id,
        "name": sources.name,
        "supercategory": str(own.get("supercategory") or sources.name),
        "keypoints": list(sources.schema.names),
        "skeleton": [[a + 1, b + 1] for a, b in sources.schema.skeleton],
        "flip_pairs": [list(pair) for pair in sources.schema.flip_pairs],
    }


def annotation(
    record: Record, target: Target, category_id: int, sources: Sources, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The annotation of one target; keypoints below the threshold are 0, 0, 0 as COCO wants it, or hidden."""
    points, chances = record["points"], record["probability"]
    guesses = [
        None if point is None else [*point, chance] for point, chance in zip(points, chances, strict=True)
    ]
    shown = shown_points(record, settings["threshold"])
    below = settings.get("unshown") == "hidden"
    flags = [
        VISIBLE if each else HIDDEN * (below and place is not None)
        for each, place in zip(shown, points, strict=True)
    ]
    given = target.annotation or {}
    # What is shown counts, else every guess.
    around = [*compress(points, shown)] or [point for point in points if point is not None]
    box = given["bbox"] if target.box else box_around(around, record["size"])
    mask, area = record.get("mask"), given.get("area")
    entry: dict[str, Any] = {
        "id": target.id,
        "image_id": target.image_id,
        "category_id": category_id,
        "keypoints": [
            value
            for point, flag in zip(points, flags, strict=True)
            for value in ((*point, flag) if flag else (0, 0, 0))
        ],
        "num_keypoints": sum(map(bool, flags)),
        "bbox": box,
        "area": area if area and fields.are_numbers([area]) else round(box[2] * box[3], 2),
        "segmentation": mask or given.get("segmentation") or [],
        "iscrowd": 0,
        "score": mean_score(chances, shown),
        "keypoint_scores": chances,
        "source": sources.images[record["source"]].id,
        "pose": record["pose"],
        "distance": record["distance"],
    }
    if record.get("detection") is not None:
        entry["detection_score"] = record["detection"]
    if settings["keep_guesses"]:
        entry["guesses"] = guesses
    return entry


def _write_list(file: TextIO, values: Iterable[Any]) -> None:
    """One entry a line, with commas between."""
    before = ""
    for value in values:
        file.write(before + as_json(value))
        before = ",\n"
    file.write("\n" if before else "")


def _entries(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The entries of a list whose opening line has been read."""
    for line in file:
        if line.startswith("]"):
            return
        yield json.loads(line.rstrip("\n").removesuffix(","))


def _seek(file: Iterable[str], key: str, path: Path) -> None:
    for line in file:
        if line == f'"{key}":[\n':
            return
    raise InputError(f"{path}: is not as geoaware transfer wrote it; make it anew", parameter="restart")
