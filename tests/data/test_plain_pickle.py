from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from geoaware.data.plain_pickle import read_plain_pickle
from geoaware.runs.errors import InputError

VALUES = [
    {"a1": {"nose": (1, 2.5), "bbox": [1, 2, 300, 70_000]}, "é": None, 3: True},
    [[], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), False, "x" * 300, 2**80, -1, "text", "text"],
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol(tmp_path: Path, value: Any, protocol: int) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_plain_pickle(path, "values") == value


def test_what_stands_twice_is_the_same(tmp_path: Path) -> None:
    shared = [1]
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps([shared, shared]))
    first, second = read_plain_pickle(path, "values")
    assert first == [1]
    assert first is second


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "is no pickle of plain values"),
        (b"cposix\nmkdir\n(S'pwned'\ntR.", r"is no pickle of plain values \(the operation GLOBAL\)"),
        (b"(S'pwned'\nios\nmkdir\n.", r"is no pickle of plain values \(the operation INST\)"),
        (b"}(KdK\x01)s.", "damaged, no valid pickle|no pickle of plain values"),
        (pickle.dumps({(1, 2): 3}), "a key that is no text or number"),
        (b"", "damaged, no valid pickle"),
        (b"N", "damaged, no valid pickle"),
        (b".", "damaged, no valid pickle"),
        (b"j\xff\xff\xff\x7f.", "damaged, no valid pickle"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged, no valid pickle"),
        (b"e.", "damaged, no valid pickle"),
        (b"NK\x01a.", "damaged, no valid pickle"),
        (b"X\xff\xff\xff\x7fabc.", "damaged, no valid pickle"),
        (bytes(17 << 20), "17,825,792 bytes are too many"),
    ],
)
def test_nothing_runs_and_damage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pickle"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.pickle: .*({message})"):
        read_plain_pickle(path, "values")
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; expected values"):
        read_plain_pickle(tmp_path / "a.pickle", "values")
