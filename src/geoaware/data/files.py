"""Reading the files of data sets.

Every function raises an `InputError` that names the file, and the line in it, where something is wrong: the
file is missing or may not be read, is damaged, or holds something else than expected.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geoaware.data.fields import missing, number
from geoaware.data.names import alike
from geoaware.runs.errors import InputError, reason, shortened
from geoaware.runs.files import refuse_pretender
from geoaware.runs.places import place

Rows = list[tuple[str, list[str]]]
"""Place (``FILE, line NUMBER``) and columns of each row of a table."""

VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf"}
    | {".flv", ".ogv", ".3gp"}
)
"""How the names of video files end; see `data.video`."""

_VALUE = re.compile(r"^[-+]?[0-9.]+$|^nan$|\.[a-z]\w{2,3}$")
"""A number or a file name, as headers have none."""

_log = logging.getLogger(__name__)


@contextmanager
def reading(path: Path, expected: str = "") -> Iterator[None]:
    """Turn what the system says of a path (missing, a folder, not permitted, …) into an `InputError`.

    Args:
        path: what is read, named where the system names nothing.
        expected: what should be there, for the message.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, InputError) or not (isinstance(error, UnicodeEncodeError) or "\0" in str(path)):
            raise
        raise InputError(f"{path}: no file can have a name of such characters") from None
    except OSError as error:
        if error.errno is None:  # not of the system: a decoder's
            raise
        named = place(error.filename or path)
        if isinstance(error, FileNotFoundError):
            what = (
                "is a link to a file that is missing" if named.is_symlink() else f"no such file{alike(named)}"
            )
        elif isinstance(error, IsADirectoryError):
            what = "is a folder, not a file"
        else:
            what = f"cannot be read ({error.strerror})"
        raise InputError(f"{named}: {what}" + (f"; expected {expected}" if expected else "")) from None


def read_text(path: Path, expected: str) -> str:
    """A text file: UTF-8 or, with a byte-order mark, UTF-16; else Windows' Latin-1, which is noted."""
    with reading(path, expected):
        content = path.read_bytes()
    refuse_pretender(path)
    wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    for encoding in ["utf-16"] if wide else ["utf-8-sig", "cp1252"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            _log.warning("%s: is not UTF-8 text; read as Latin-1", path)
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise InputError(f"{path}: is no text in UTF-8, UTF-16 or Latin-1; expected {expected}")


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file; ``expected`` says in messages what should be in it."""
    with reading(path, expected):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        if known := file_known_as(path):
            raise InputError(f"{path}: is no {expected.removeprefix('a ')}{known}") from None
        refuse_pretender(path)
        raise InputError(
            f"{path}: damaged, no valid JSON ({reason(error)}); fetch or write it again"
        ) from None


def read_lines(path: Path, expected: str) -> list[tuple[str, str]]:
    """Lines of a text file that are not blank, stripped, each after its place: ``FILE, line NUMBER``."""
    numbered = enumerate(read_text(path, expected).split("\n"), start=1)
    return [(f"{path}, line {number}", line.strip()) for number, line in numbered if line.strip()]


def read_columns(path: Path, columns: int, expected: str) -> Iterator[tuple[str, list[str]]]:
    """Place (``FILE, line NUMBER``) and columns, set off by white space, of every line that is not blank.

    There are exactly so many; what follows the last but one is the last, with its white space.
    """
    for where, line in read_lines(path, expected):
        parts = line.split(maxsplit=columns - 1)
        if len(parts) != columns:
            raise InputError(f"{where}: {shortened(line)!r}; expected {expected}")
        yield where, parts


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (``FILE, line NUMBER``) and object of every line that is not blank."""
    for where, line in read_lines(path, expected):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"no valid JSON ({reason(error)}){file_known_as(path)}"
            raise InputError(f"{where}: {what}; expected {expected}") from None
        if not isinstance(entry, dict):
            what = f"{shortened(line)!r} is no JSON object{file_known_as(path)}"
            raise InputError(f"{where}: {what}; expected {expected}")
        yield where, entry


def separator(text: str) -> str:
    """What separates columns of a CSV text: a tab or a semicolon, if the first row has one, or a comma."""
    head = re.sub(r'"[^"]*"', "", text.lstrip(" \n").partition("\n")[0])
    return next((each for each in "\t;" if each in head), ",")


def csv_rows(path: Path, text: str, expected: str, mark: str = "") -> Rows:
    """Place (``FILE, line NUMBER``) and columns of every row of a CSV text that is not blank.

    ``mark`` separates the columns; `separator` says which one it is, if none is given.
    """
    csv.field_size_limit(2**31 - 1)  # a field may be as long as the file
    reader = csv.reader(io.StringIO(text), delimiter=mark or separator(text))
    try:
        # A quoted text may run over several lines: the reader knows where each row ends.
        return [(f"{path}, line {reader.line_num}", row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected {expected}") from None


def read_csv(path: Path, min_columns: int, expected: str, columns: Sequence[str] = ()) -> Rows:
    """Place (``FILE, line NUMBER``) and columns of every row below the header that is not blank.

    A first row with a number or a file name in it is no header. Where a header has all of ``columns``, rows
    are put in their order; else they are as they stand.
    """
    text = read_text(path, expected)
    # A semicolon after a comma stands within a column.
    rows = csv_rows(path, text, expected, "," if "," in text.lstrip().partition("\n")[0] else "")
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    rows = rows if any(map(_VALUE.search, header)) else rows[1:]
    if not rows:
        raise InputError(f"{path}: has no rows below its header; expected {expected}")
    places = [header.index(each) for each in columns] if {*columns} <= {*header} else []
    needed = max([min_columns, *(place + 1 for place in places)])
    for where, row in rows:
        if len(row) < needed:
            raise InputError(f"{where}: {len(row)} columns; expected {expected}")
    return [(where, [row[place] for place in places] or row) for where, row in rows]


_KINDS: Sequence[tuple[set[str], str]] = (
    ({"images", "annotations"}, "a COCO annotation file"),
    ({"shapes"}, "a labelme file"),
    ({"_via_img_metadata"}, "a VIA project"),
    ({"predicted", "keypoint_ids"}, "a part of a predictions file"),
    ({"source_size", "matches"}, "what `geoaware match` writes"),
    ({"image_id", "keypoints", "score"}, "a COCO results file"),
    ({"overall", "averaging"}, "figures of `geoaware score`"),
    ({"source", "target"}, "a list of pairs"),
    ({"type", "features"}, "a GeoJSON file"),
)
"""By the keys that the object, or the first one in a list or in lines, has at least."""

_FORMATS = {"geoaware predictions": "a predictions file", "geoaware poses": "what `geoaware pose` writes"}


def known_as(content: Any) -> str:
    """``", which is a COCO annotation file"`` or the like for messages that refuse JSON; empty if unknown."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return ""
    kind = _FORMATS.get(str(first.get("format"))) or next(
        (name for keys, name in _KINDS if keys <= first.keys()), None
    )
    return "" if kind is None else f", but it is {kind}"


def file_known_as(path: Path) -> str:
    """`known_as` of a file of JSON or JSON lines; empty if it is neither."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.lstrip()
        try:
            return known_as(json.loads(text))
        except ValueError:
            return known_as(json.loads(first.partition("\n")[0]))
    except (OSError, ValueError, RecursionError):
        return ""


def numbers(texts: Sequence[str], where: str) -> list[float]:
    """Texts as numbers; NaN where nothing is written."""
    return [math.nan if missing(text) else number(text, f"{where}: a coordinate") for text in texts]


def read_mat(path: Path, key: str, columns: int, rows: int = 0) -> np.ndarray:
    """One matrix of a MATLAB file as float64, with exactly so many columns and at least so many rows."""
    from geoaware.data.mat import read_matrix

    with reading(path, f"a MAT file with {key!r}"):
        raw = path.read_bytes()
    try:
        values = read_matrix(raw, key)
    except ValueError as error:
        refuse_pretender(path)
        raise InputError(f"{path}: damaged, no valid MAT file ({error}); fetch it again") from None
    if values is None:
        raise InputError(f"{path}: has no matrix {key!r}; is it of this data set?")
    if values.ndim != 2 or values.shape[1] != columns or len(values) < rows:
        raise InputError(
            f"{path}: {key!r} has shape {values.shape}; expected {rows or 'some'} rows of {columns} numbers"
        )
    return values


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
