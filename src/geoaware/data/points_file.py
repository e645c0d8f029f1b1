"""Query points from a CSV or JSON file, with names and flip pairs where the file gives them."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoaware.data import fields
from geoaware.data.files import csv_rows, known_as, read_text, separator
from geoaware.data.pairs import rebased
from geoaware.method.keypoints import flip_partners
from geoaware.runs.errors import InputError, reason, shortened
from geoaware.runs.places import place

_log = logging.getLogger(__name__)

_FORMS = (
    "CSV lines 'x,y' or 'name,x,y' (in any order below a header), or JSON [[x, y], …], "
    '{"name": [x, y], …} or {"points": [[x, y], …], "names": […], "flip_pairs": [[i, j], …]}'
)

_NAMES = frozenset(
    "name names label keypoint bodypart bodyparts landmark point part joint id".split()  # noqa: SIM905
)
"""Words in the header of a column of names."""

_NAPARI = {"axis-1": "x", "axis-0": "y"}
"""Columns of napari's points, where there are no more axes than these."""


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
    source = place(path)
    text = read_text(source, _FORMS)
    found = _from_json(source, text) if text.lstrip()[:1] in ("[", "{") else _from_csv(source, text)
    if not found.points:
        raise InputError(f"{source}: no points in this file; expected {_FORMS}")
    return found


def check_pixels(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> None:
    """Refuse points that look like shares of an image of this width and height.

    Raises:
        InputError: all lie within 0…1, not all on whole numbers, and the image is large.
    """
    if fields.shares([value for point in points for value in point], size):
        raise InputError(
            f"all points lie within 0…1, on an image of {size[0]}x{size[1]} pixels; points are pixels, so "
            "multiply shares of the width and height by these"
        )


def _from_csv(source: Path, text: str) -> QueryPoints:
    rows = [(where, [cell.strip() for cell in row]) for where, row in csv_rows(source, text, _FORMS)]
    if not rows:
        return QueryPoints([])
    if separator(text) == ",":
        for where, row in rows:
            if any("," in cell and _number(cell) is not None for cell in row):
                raise InputError(
                    f"{where}: a comma within a number; write 120.5, or separate columns by semicolons"
                )
    # A first row with a number in it is data, so that a typo in it is found.
    has_header = not any(_number(cell) is not None for cell in rows[0][1])
    x, y, name = _named_columns(source, rows) if has_header else _usual_columns(source, rows)
    points, names = [], []
    for where, row in rows[has_header:]:
        if len(row) != len(rows[0][1]):
            raise InputError(f"{where}: {len(row)} columns, but {len(rows[0][1])} before; expected {_FORMS}")
        point = _number(row[x]), _number(row[y])
        if point[0] is None or point[1] is None:
            shown = shortened(",".join(row))
            raise InputError(f"{where}: {shown!r} is not a point; expected {_FORMS}")
        points.append((point[0], point[1]))
        names.append("" if name is None else row[name])
    return QueryPoints(points, None if name is None else names)


def _number(text: str) -> float | None:
    """A finite number, also one with a decimal comma; ``None`` for any other text."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _usual_columns(source: Path, rows: Sequence[tuple[str, list[str]]]) -> tuple[int, int, int | None]:
    """Places of x, y and the name in a file without a header."""
    where, first = rows[0]
    if len(first) not in (2, 3):
        raise InputError(f"{where}: {len(first)} columns and no header; expected {_FORMS}")
    if len(first) == 2:
        return 0, 1, None
    numeric = next((at for at, row in rows if len(row) == 3 and _number(row[0]) is not None), None)
    if numeric is not None:
        raise InputError(
            f"{numeric}: three numbers can be a number, x and y, or x, y and a likelihood; begin the file "
            "with a header, such as name,x,y"
        )
    return 1, 2, 0


def _named_columns(source: Path, rows: Sequence[tuple[str, list[str]]]) -> tuple[int, int, int | None]:
    """Places of x, y and the name by the header; what else there is, is named in a note."""
    header = [cell.lower() for cell in rows[0][1]]
    if {cell for cell in header if cell.startswith("axis-")} == _NAPARI.keys():
        header = [_NAPARI.get(cell, cell) for cell in header]
    words = [set(re.split(r"[^a-z0-9]+", cell)) for cell in header]
    found = [[place for place, each in enumerate(words) if each & {"x", "y"} == {axis}] for axis in "xy"]
    for axis, places in zip("xy", found, strict=True):
        if len(places) != 1:
            raise InputError(
                f"{source}: the first row, {shortened(','.join(rows[0][1]))!r}, names "
                f"{len(places) or 'no'} column{'s' * bool(places)} {axis}; write name,x,y or x,y there, or "
                "leave a header out"
            )
    (x,), (y,) = found
    rest = [place for place in range(len(header)) if place not in (x, y)]
    # The only column of texts is that of names, whatever it is called.
    texts = [at for at in rest if any(at < len(row) and _number(row[at]) is None for _, row in rows[1:])]
    name = next((at for at in rest if words[at] & _NAMES), texts[0] if len(texts) == 1 else None)
    left = [rows[0][1][at] for at in rest if at != name and words[at] not in ({"index"}, {""})]
    if left:
        what = "x, y" if name is None else "x, y and the name"
        _log.warning("%s: read %s; not read: %s", source, what, shortened(", ".join(left)))
    return x, y, name


def _from_json(source: Path, text: str) -> QueryPoints:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON ({reason(error)}); expected {_FORMS}") from None
    if isinstance(content, dict) and {"x", "y"} == {key.lower() for key in content}:
        raise InputError(f"{source}: x and y are columns here, not points; expected {_FORMS}")
    if isinstance(content, dict) and "points" not in content:
        if None in map(_point, content.values()) and known_as(content):
            raise InputError(f"{source}: is no file of points{known_as(content)}; expected {_FORMS}")
        content = {"points": list(content.values()), "names": list(content)}
    elif isinstance(content, list):
        content = {"points": content}
    points = content["points"]
    if not isinstance(points, list):
        raise InputError(f"{source}: the points are not a list; expected {_FORMS}")
    found = [point for point in map(_point, points) if point is not None]
    if len(found) < len(points):
        number, entry = next(each for each in enumerate(points) if _point(each[1]) is None)
        shown = shortened(json.dumps(entry))
        what = known_as(points)
        raise InputError(f"{source}, point {number}: {shown} is not [x, y]{what}; expected {_FORMS}")
    names, pairs = content.get("names"), content.get("flip_pairs")
    if names is not None and (not isinstance(names, list) or len(names) != len(points)):
        raise InputError(f'{source}: "names" must be a list of {len(points)} names, one a point')
    labels = [""] * len(points) if names is None else [str(name) for name in names]
    flips, _, note = rebased(labels, pairs, None)
    if note:
        _log.warning("%s: %s", source, note)
    try:
        ends = [[range(len(points)).index(fields.whole(end, "")) for end in pair] for pair in flips or ()]
        flip_pairs = [(a, b) for a, b in ends]
        flip_partners(len(points), flip_pairs)
    except (TypeError, ValueError):
        raise InputError(
            f'{source}: "flip_pairs" must be a list of [i, j], two points by name or number, each in one '
            f"pair at most, and none is outside 0…{len(points) - 1}"
        ) from None
    return QueryPoints(found, None if names is None else labels, None if pairs is None else flip_pairs)


def _point(entry: Any) -> tuple[float, float] | None:
    """Two numbers of a list; ``None`` for anything else."""
    with suppress(InputError):
        x, y = fields.numbers(entry, "", 2)
        return float(x), float(y)
    return None
