"""What the two Proposal Flow data sets share: lists of pairs as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from geoaware.data.dataset import read_lines
from geoaware.runs.errors import InputError


def read_csv(path: Path, min_columns: int, expected: str) -> list[list[str]]:
    """Rows below the header line.

    Raises:
        InputError: the file is missing or has no rows, or a row is too short; the message names the line.
    """
    rows = list(csv.reader(io.StringIO("\n".join(read_lines(path, expected)))))
    if len(rows) < 2:
        raise InputError(f"{path}: has no rows below its header; expected {expected}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) < min_columns:
            raise InputError(f"{path}, line {number}: {len(row)} columns; expected {expected}")
    return rows[1:]


def numbers(texts: list[str], where: str) -> list[float]:
    """Texts as numbers.

    Raises:
        InputError: one is no number.
    """
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected numbers") from None


def first_file(folder: Path, names: list[str]) -> Path | None:
    """The first of the names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
