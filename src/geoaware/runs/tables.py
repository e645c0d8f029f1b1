"""Results as Parquet, where the name of the result ends in ``.parquet`` (package ``pyarrow``).

Rows are written group by group, so that a table may be larger than memory. The schema's metadata holds one
entry, ``geoaware``: a JSON object that says of which run the table is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from geoaware.runs.errors import InputError
from geoaware.runs.files import as_json, check_own
from geoaware.runs.optional import require

GROUP = 20_000
"""Rows that are written together."""

_KEY = b"geoaware"

Columns = Mapping[str, str]
"""Kinds of the columns by their names, as pyarrow calls them: string, int64, double, bool."""


def is_table(path: Path) -> bool:
    """Whether a result of this name is Parquet."""
    return path.suffix.lower() == ".parquet"


def write_table(
    draft: Path, columns: Columns, rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    """Write rows in their order; ``about`` says of which run they are."""
    arrow, parquet = _arrow()
    schema = arrow.schema([(name, _kind(arrow, kind)) for name, kind in columns.items()])
    left = iter(rows)
    with parquet.ParquetWriter(str(draft), schema, compression="zstd") as file:
        while group := list(islice(left, GROUP)):
            file.write_table(arrow.Table.from_pylist([_printable(each) for each in group], schema))
        file.add_key_value_metadata({_KEY: as_json(about).encode(errors="backslashreplace")})


def read_about(path: Path) -> Any:
    """What the metadata say of the run; ``None`` if geoaware did not write the file, or it is damaged."""
    with path.open("rb") as raw, closing(raw):
        try:
            return json.loads(_arrow()[1].ParquetFile(raw).metadata.metadata[_KEY])
        except (ValueError, KeyError, TypeError, OSError):
            return None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in their order, a group at a time in memory.

    Raises:
        InputError: the file is damaged.
    """
    with path.open("rb") as raw:
        try:
            for group in _arrow()[1].ParquetFile(raw).iter_batches(GROUP):
                yield from group.to_pylist()
        except (ValueError, OSError) as error:
            why = str(error).partition("\n")[0][:80]
            raise InputError(f"{path}: damaged Parquet ({why}); fetch or write it again") from None


def check_own_table(path: Path, begin: str) -> None:
    """As `check_own`, by the beginning of what the metadata say; a missing package is found too.

    Raises:
        InputError: the file is no Parquet, or of another program or command.
    """
    _arrow()
    check_own(path, "PAR1")
    if path.exists():
        text = json.dumps(read_about(path), ensure_ascii=False, separators=(",", ":"))
        if not text.startswith(begin):
            raise InputError(
                f"{path}: exists and was not written by this command of geoaware; choose another file", "out"
            )


def _printable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row whose texts can be written: bytes that are not UTF-8 stand in them as ``\\udce9``."""
    return {
        key: each.encode(errors="backslashreplace").decode() if isinstance(each, str) else each
        for key, each in row.items()
    }


def _arrow() -> tuple[Any, Any]:
    return require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")


def _kind(arrow: Any, kind: str) -> Any:
    """A type by its name; ``list<…>`` of what the names in it are."""
    if kind.startswith("list<"):
        inside = (part.split(":") for part in kind[5:-1].split(","))
        return arrow.list_(arrow.struct([(name, arrow.type_for_alias(each)) for name, each in inside]))
    return arrow.type_for_alias(kind)
