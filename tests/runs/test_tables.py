from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from geoaware.runs import tables
from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.runs.places import place
from geoaware.runs.tables import check_own_table, is_table, read_about, read_rows, write_table

COLUMNS = {"name": "string", "x": "double", "there": "bool", "near": "list<set:string,left:double>"}
ABOUT = {"format": "numbers", "of": "caf\udce9"}


def rows(count: int = 5) -> Iterator[dict[str, Any]]:
    for each in range(count):
        near = [{"set": "a", "left": each / 2}] * each
        yield {"name": f"é{each}", "x": each / 3 if each else None, "there": each > 2, "near": near}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    write_table(path, COLUMNS, rows(), ABOUT)
    return path


def test_rows_come_back_and_other_programs_read_them(table: Path) -> None:
    assert list(read_rows(table)) == list(rows())
    assert read_about(table) == ABOUT
    frame = pandas.read_parquet(table)
    assert list(frame.columns) == list(COLUMNS)
    assert frame.name.tolist() == [f"é{each}" for each in range(5)]
    assert frame.x.sum() == pytest.approx(10 / 3)


def test_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "GROUP", 2)
    path = tmp_path / "t.parquet"
    write_table(path, COLUMNS, rows(), ABOUT)
    found = pyarrow.parquet.ParquetFile(path)
    assert [found.metadata.row_group(each).num_rows for each in range(found.num_row_groups)] == [2, 2, 1]
    assert read_about(path) == ABOUT
    assert list(read_rows(path)) == list(rows())


def test_no_row(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", COLUMNS, [], ABOUT)
    assert not list(read_rows(tmp_path / "t.parquet"))
    assert list(pandas.read_parquet(tmp_path / "t.parquet").columns) == list(COLUMNS)


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, {"name": "string"}, [{"name": "caf\udce9"}], ABOUT)
    assert list(read_rows(path)) == [{"name": "caf\\udce9"}]


def test_at_a_url(table: Path) -> None:
    path = place(f"memory://{uuid.uuid4().hex}/t.parquet")
    path.write_bytes(table.read_bytes())
    assert list(read_rows(path)) == list(rows())
    assert read_about(path) == ABOUT


def test_only_own_tables_may_go(table: Path, tmp_path: Path) -> None:
    check_own_table(table, '{"format":"numbers"')
    check_own_table(tmp_path / "none.parquet", "{")
    refused = "exists and was not written by"
    with pytest.raises(InputError, match=refused):
        check_own_table(table, '{"format":"others"')
    foreign = tmp_path / "foreign.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), foreign)
    with pytest.raises(InputError, match=refused):
        check_own_table(foreign, "{")
    assert read_about(foreign) is None
    foreign.write_bytes(b"no Parquet")
    with pytest.raises(InputError, match=refused):
        check_own_table(foreign, "{")
    table.write_bytes(table.read_bytes()[:-9])
    assert read_about(table) is None
    with pytest.raises(InputError, match=r"t.parquet: damaged Parquet \(.*\); fetch or write it again"):
        list(read_rows(table))


def test_the_name_tells(tmp_path: Path) -> None:
    assert is_table(tmp_path / "A.PARQUET")
    assert not is_table(tmp_path / "parquet.json")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingDependencyError, match=r"'pyarrow' is not installed: pip install 'geoaware\[parquet\]'"
    ):
        check_own_table(tmp_path / "t.parquet", "{")
