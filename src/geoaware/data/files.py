"""Reading the files of data sets.

Every function raises an `InputError` that names the file, and the line in it, where something is wrong: the
file is missing or may not be read, is damaged, or holds something else than expected.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geoaware.runs.errors import InputError


@contextmanager
def reading(path: Path, expected: str = "") -> Iterator[None]:
    """Turn what the system says of a path (missing, a folder, not permitted, …) into an `InputError`.

    Args:
        path: what is read, named where the system names nothing.
        expected: what should be there, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of the system: a decoder's
            raise
        named = Path(error.filename or path)
        if isinstance(error, FileNotFoundError):
            what = "is a link to a file that is missing" if named.is_symlink() else "no such file"
        elif isinstance(error, IsADirectoryError):
            what = "is a folder, not a file"
        else:
            what = f"cannot be read ({error.strerror})"
        raise InputError(f"{named}: {what}" + (f"; expected {expected}" if expected else "")) from None


def read_text(path: Path, expected: str) -> str:
    """A UTF-8 text file, with or without a byte-order mark."""
    try:
        with reading(path, expected):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; expected {expected}") from None


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file; ``expected`` says in messages what should be in it."""
    with reading(path, expected):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged, no valid JSON ({error}); fetch or write it again") from None


def read_lines(path: Path, expected: str) -> list[tuple[str, str]]:
    """Lines of a text file that are not blank, stripped, each after its place: ``FILE, line NUMBER``."""
    numbered = enumerate(read_text(path, expected).split("\n"), start=1)
    return [(f"{path}, line {number}", line.strip()) for number, line in numbered if line.strip()]


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (``FILE, line NUMBER``) and object of every line that is not blank."""
    for where, line in read_lines(path, expected):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: no valid JSON ({error}); expected {expected}") from None
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {line[:40]!r} is no JSON object; expected {expected}")
        yield where, entry


def read_csv(path: Path, min_columns: int, expected: str) -> list[tuple[str, list[str]]]:
    """Place (``FILE, line NUMBER``) and columns of every row below the header that is not blank."""
    reader = csv.reader(io.StringIO(read_text(path, expected)))
    # A quoted text may run over several lines: the reader knows where each row ends.
    rows = [(f"{path}, line {reader.line_num}", row) for row in reader if any(map(str.strip, row))][1:]
    if not rows:
        raise InputError(f"{path}: has no rows below its header; expected {expected}")
    for where, row in rows:
        if len(row) < min_columns:
            raise InputError(f"{where}: {len(row)} columns; expected {expected}")
    return rows


def numbers(texts: Sequence[str], where: str) -> list[float]:
    """Texts as numbers."""
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected numbers") from None


def read_mat(path: Path, key: str, columns: int, rows: int = 0) -> np.ndarray:
    """One matrix of a MATLAB file as float64, with exactly so many columns and at least so many rows."""
    from scipy.io import loadmat

    try:
        with reading(path, f"a MAT file with {key!r}"), path.open("rb") as file:
            content = loadmat(file, variable_names=[key])
    except InputError:
        raise
    # scipy raises whatever a broken byte leads to: ValueError, TypeError, struct.error, zlib.error, …
    except Exception as error:
        raise InputError(f"{path}: damaged, no valid MAT file ({error}); fetch it again") from None
    try:
        values = np.asarray(content[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: has no matrix {key!r}; is it of this data set?") from None
    if values.ndim != 2 or values.shape[1] != columns or len(values) < rows:
        raise InputError(
            f"{path}: {key!r} has shape {values.shape}; expected {rows or 'some'} rows of {columns} numbers"
        )
    return values


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
