"""DeepLabCut: a project, or a folder or table of it (CSV, or HDF5 as pandas writes it)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import yaml

from geoaware.data import fields
from geoaware.data.files import csv_rows, read_text, reading
from geoaware.data.formats.hub import (
    VISIBLE,
    Entry,
    Head,
    Hub,
    Point,
    Result,
    hdf5_names,
    inside,
    skeleton_of,
    understanding,
    whole,
)
from geoaware.runs.errors import InputError
from geoaware.runs.optional import require
from geoaware.runs.settings import read_yaml

WHAT = "a DeepLabCut project"

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_KEYS = ("df_with_missing", "keypoints")
_SINGLE, _PROJECT, _DATA = "single", "config.yaml", "labeled-data"
_SCORER = "geoaware"

Column = dict[str, str]
Rows = Iterator[tuple[str, str, Sequence[Any]]]
"""Place, name of the image, and values by column."""


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    if path.suffix.lower() in (".yaml", ".yml"):
        lines = {line.partition(":")[0] for line in head.text.splitlines()}
        return "bodyparts" in lines and bool(lines & {"Task", "scorer", "project_path"})
    if hdf5_names(path, head) & {*_KEYS}:
        return True
    return head.text.startswith("scorer,") and "\nbodyparts," in head.text.replace("\r", "\n")


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in a project with its tables, or tables alone, whose project is looked for above them."""
    project = next(
        (each for each in paths if each.name == _PROJECT or each.suffix in (".yaml", ".yml")), None
    )
    tables = [each for each in paths if each != project]
    if project is None:
        above = tables[0].parents
        known = len(above) > 2 and tables[0].parent.parent.name == _DATA
        project = above[2] / _PROJECT if known and (above[2] / _PROJECT).is_file() else None
        hub.folder = above[2] if known else above[0]
    else:
        hub.folder = project.parent
        tables = [each for each in tables if _DATA in each.parts] or _tables(project.parent / _DATA)
    task = "animal" if project is None else _project(project, hub)
    if not tables:
        raise InputError(f"{hub.path}: no table CollectedData_….csv in {_DATA}; label some frames first")
    marked = [each for each in tables if each.name.startswith("CollectedData")]
    for table in marked or tables:
        columns, rows = _hdf(table) if table.suffix.lower() == ".h5" else _csv(table)
        for column in columns:
            hub.category(_owner(task, column.get("individuals")), [column["bodyparts"]])
        for where, name, values in rows:
            with understanding(where, "DeepLabCut"):
                _row(where, name, columns, values, task, hub)


def _tables(folder: Path) -> list[Path]:
    """The tables of a project: of each video the CSV or, where it is missing, the HDF5."""
    found = []
    for video in sorted(folder.iterdir()) if folder.is_dir() else ():
        inside_it = sorted(video.iterdir()) if video.is_dir() else []
        named = [each for each in inside_it if each.name.startswith(("CollectedData", "machinelabels"))]
        texts = [each for each in named if each.suffix == ".csv"]
        found += texts or [each for each in named if each.suffix == ".h5"]
    return found


def _project(path: Path, hub: Hub) -> str:
    """The name of the animal; the hub takes its keypoints, in the order of the project."""
    with understanding(str(path), "DeepLabCut"):
        content = read_yaml(read_text(path, WHAT))
        names = (
            content.get("multianimalbodyparts") if content.get("multianimalproject") else content["bodyparts"]
        )
        if not isinstance(names, list) or not names:
            raise InputError(f"{path}: its bodyparts are no list of names")
        names, task = [str(each) for each in names], str(content.get("Task") or "animal")
        limbs = [[str(end) for end in each] for each in content.get("skeleton") or () if len(each) == 2]
        hub.category(task, names, [each for each in limbs if {*each} <= {*names}])
        return task


def _row(
    where: str, name: str, columns: Sequence[Column], values: Sequence[Any], task: str, hub: Hub
) -> None:
    """The animals of one image."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for column, value in zip(columns, values, strict=True):
        if not fields.missing(value):
            parts = found.setdefault(column.get("individuals", ""), {})
            number = fields.number(value, f"{where}: {column['coords']} of {column['bodyparts']}")
            parts.setdefault(column["bodyparts"], {})[column["coords"]] = number
    image = hub.image(name)
    for animal, parts in found.items():
        there = {part: each for part, each in parts.items() if {"x", "y"} <= each.keys()}
        points = {
            part: Point(each["x"], each["y"], VISIBLE, each.get("likelihood")) for part, each in there.items()
        }
        if points:
            hub.add(image, _owner(task, animal), points)


def _owner(task: str, animal: str | None) -> str:
    """The category of an animal; parts that only one has are of one for themselves."""
    return f"{task} ({_SINGLE})" if animal == _SINGLE else task


def _csv(path: Path) -> tuple[list[Column], Rows]:
    """The columns of a table, and its rows."""
    rows = csv_rows(path, read_text(path, WHAT), "a table of DeepLabCut", ",")
    head = [row for _, row in rows[: len(_LEVELS)] if row[0] in _LEVELS]
    levels = {row[0]: row for row in head}
    if not {"bodyparts", "coords"} <= levels.keys() or len({*map(len, head)}) > 1:
        raise InputError(f"{path}: has no rows bodyparts and coords at its beginning, of the same length")
    first = next((place for place, each in enumerate(levels["coords"]) if place and each), len(head[0]))
    columns = [
        {level: row[place] for level, row in levels.items()} for place in range(first, len(levels["coords"]))
    ]

    def values() -> Rows:
        for where, row in rows[len(head) :]:
            if len(row) != len(columns) + first:
                raise InputError(f"{where}: {len(row)} columns; expected {len(columns) + first}")
            yield where, "/".join(row[:first]).replace("\\", "/"), row[first:]

    return columns, values()


def _hdf(path: Path) -> tuple[list[Column], Rows]:
    """The same of a table that pandas wrote in its fixed format; nothing is unpickled."""
    h5py = require("h5py", "formats")
    with reading(path, "a table of DeepLabCut"), path.open("rb") as raw:
        try:
            with h5py.File(raw) as file:
                group = next(file[each] for each in _KEYS if each in file)
                columns = _index(group, "block0_items")
                names = _index(group, "axis1")
                values = whole(group["block0_values"]).tolist()
        except (LookupError, ValueError, OSError, RuntimeError, AttributeError, StopIteration):
            raise InputError(
                f"{path}: is no table of pandas in its fixed format, or damaged; give the CSV "
                "that DeepLabCut writes beside it"
            ) from None
    levels = (
        _LEVELS if len(columns[0]) == len(_LEVELS) else [each for each in _LEVELS if each != "individuals"]
    )
    if len(columns[0]) != len(levels):
        raise InputError(f"{path}: has {len(columns[0])} levels of columns; expected {len(levels)}")
    named = [dict(zip(levels, each, strict=True)) for each in columns]
    rows = (
        (f"{path}, row {number}", "/".join(name).replace("\\", "/"), each)
        for number, (name, each) in enumerate(zip(names, values, strict=True), start=1)
    )
    return named, rows


def _index(group: Any, key: str) -> list[tuple[str, ...]]:
    """The entries of an index of pandas, with one level or several."""

    def text(values: Any) -> list[str]:
        return [each.decode() if isinstance(each, bytes) else str(each) for each in whole(values).tolist()]

    if key in group:
        return [(each,) for each in text(group[key])]
    levels = range(sum(f"{key}_level{each}" in group for each in range(9)))
    entries = [text(group[f"{key}_level{each}"]) for each in levels]
    codes = [whole(group[f"{key}_label{each}"]).tolist() for each in levels]
    return [
        tuple(level[code] for level, code in zip(entries, row, strict=True))
        for row in zip(*codes, strict=True)
    ]


def write(draft: Path, result: Result) -> None:
    """Write a project: tables of what is visible and, beside them, of all with probabilities."""
    category = result.only("DeepLabCut")
    names = category["keypoints"]
    most = max((len(objects) for _, objects in result.images()), default=1)
    animals = [f"individual{each + 1}" for each in range(most)] if most > 1 else []
    config = {
        "Task": category["name"],
        "scorer": _SCORER,
        "multianimalproject": bool(animals),
        "individuals": animals,
        "uniquebodyparts": [],
        "multianimalbodyparts": names if animals else [],
        "bodyparts": "MULTI!" if animals else names,
        "skeleton": [list(each) for each in skeleton_of(category)],
    }
    (draft / _PROJECT).write_text(
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    for image, objects in result.images():
        path = inside(image["file_name"])
        if len(path.parts) == 3 and path.parts[0] == _DATA:
            video = path.parts[1]
        else:
            video = "-".join(path.parent.parts) or "images"
        folder = draft / _DATA / video
        folder.mkdir(parents=True, exist_ok=True)
        points = [result.named(each)[1] for each in objects]
        scored = any("keypoint_scores" in each for each in objects)
        row = [_DATA, video, path.name]
        _append(folder / f"CollectedData_{_SCORER}.csv", row, names, animals, points, ("x", "y"))
        if scored:
            every = [_scored(each, names, result) for each in objects]
            _append(folder / "machinelabels-iter0.csv", row, names, animals, every, ("x", "y", "likelihood"))


def _scored(annotation: Entry, names: Sequence[str], result: Result) -> dict[str, Point]:
    return {name: each for name, each in result.named(annotation)[1].items() if each.score is not None}


def _append(
    path: Path,
    row: Sequence[str],
    names: Sequence[str],
    animals: Sequence[str],
    points: Sequence[Mapping[str, Point]],
    coords: Sequence[str],
) -> None:
    """Add a row to a table, which is begun if it is not there."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        if new:
            _begin(file, names, animals, coords)
        values: list[float | str] = []
        for number in range(max(1, len(animals))):
            for name in names:
                point = points[number].get(name) if number < len(points) else None
                there = point is not None and (point.flag == VISIBLE or "likelihood" in coords)
                triple = (point.x, point.y, point.score) if point and there else (math.nan,) * 3
                values += ["" if each is None or each != each else each for each in triple[: len(coords)]]
        csv.writer(file, lineterminator="\n").writerow([*row, *values])


def _begin(file: TextIO, names: Sequence[str], animals: Sequence[str], coords: Sequence[str]) -> None:
    """The rows that say what the columns are."""
    columns = [(animal, name, coord) for animal in animals or [""] for name in names for coord in coords]
    rows = {
        "scorer": [_SCORER] * len(columns),
        "individuals": [animal for animal, _, _ in columns],
        "bodyparts": [name for _, name, _ in columns],
        "coords": [coord for _, _, coord in columns],
    }
    if not animals:
        del rows["individuals"]
    csv.writer(file, lineterminator="\n").writerows([level, "", "", *row] for level, row in rows.items())
