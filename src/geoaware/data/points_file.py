"""Query points from a CSV or JSON file, with names and flip pairs where the file gives them."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoaware.data.files import read_text
from geoaware.runs.errors import InputError

_FORMS = (
    "CSV lines 'x,y' or 'name,x,y', or JSON [[x, y], …], {\"name\": [x, y], …} or "
    '{"points": [[x, y], …], "names": […], "flip_pairs": [[i, j], …]}'
)


@dataclass(frozen=True)
class QueryPoints:
    """Points of one image as a user gives them.

    Attributes:
        points: pixels (x, y).
        names: one a point, or ``None``.
        flip_pairs: indices of points that exchange in a mirror, or ``None`` when the file says nothing.
    """

    points: list[tuple[float, float]]
    names: list[str] | None = None
    flip_pairs: list[tuple[int, int]] | None = None


def parse_point(text: str) -> tuple[float, float]:
    """``"120,85"`` to ``(120.0, 85.0)``."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{text!r} is not a point of the form x,y (two numbers, e.g. 120,85.5)", parameter="point"
        ) from None
    return x, y


def read_points(path: str | os.PathLike[str]) -> QueryPoints:
    """Read points from JSON, or from CSV with or without a header line; an error names the line or entry."""
    source = Path(path)
    text = read_text(source, _FORMS)
    found = _from_json(source, text) if text.lstrip()[:1] in ("[", "{") else _from_csv(source, text)
    if not found.points:
        raise InputError(f"{source}: no points in this file; expected {_FORMS}")
    return found


def _from_csv(source: Path, text: str) -> QueryPoints:
    points: list[tuple[float, float]] = []
    names: list[str] = []
    reader = csv.reader(io.StringIO(text))
    rows = [(reader.line_num, row) for row in reader if any(row)]
    for position, (line, row) in enumerate(rows):
        try:
            x, y = float(row[-2]), float(row[-1])
        except (ValueError, IndexError):
            if position == 0:
                continue  # a header
            raise InputError(
                f"{source}, line {line}: {','.join(row)!r} is not a point; expected {_FORMS}"
            ) from None
        if len(row) > 3:
            raise InputError(f"{source}, line {line}: {len(row)} columns; expected {_FORMS}")
        points.append((x, y))
        names.extend(row[:-2])
    if names and len(names) != len(points):
        raise InputError(f"{source}: some lines have a name and some do not; expected {_FORMS}")
    return QueryPoints(points, [name.strip() for name in names] or None)


def _from_json(source: Path, text: str) -> QueryPoints:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: not valid JSON ({error}); expected {_FORMS}") from None
    if isinstance(content, dict) and "points" not in content:
        content = {"points": list(content.values()), "names": list(content)}
    elif isinstance(content, list):
        content = {"points": content}
    points = content["points"]
    if not isinstance(points, list):
        raise InputError(f"{source}: the points are not a list; expected {_FORMS}")
    for number, entry in enumerate(points):
        if not _is_pair(entry, (int, float)):
            raise InputError(
                f"{source}, point {number}: {json.dumps(entry)} is not [x, y]; expected {_FORMS}"
            )
    names, pairs = content.get("names"), content.get("flip_pairs")
    if names is not None and (not isinstance(names, list) or len(names) != len(points)):
        raise InputError(f'{source}: "names" must be a list of {len(points)} names, one a point')
    if pairs is not None and not (isinstance(pairs, list) and all(_is_pair(pair, int) for pair in pairs)):
        raise InputError(f'{source}: "flip_pairs" must be a list of [i, j], indices of points')
    if any(not 0 <= index < len(points) for pair in pairs or () for index in pair):
        raise InputError(f'{source}: "flip_pairs" names a point outside 0…{len(points) - 1}')
    return QueryPoints(
        [(float(x), float(y)) for x, y in points],
        None if names is None else [str(name) for name in names],
        None if pairs is None else [(a, b) for a, b in pairs],
    )


def _is_pair(entry: Any, kind: type | tuple[type, ...]) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in entry)
