from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from geoaware.data.mat import read_matrix
from tests.shared_data import shared


def saved(folder: Path, content: dict[str, Any], **options: Any) -> bytes:
    path = folder / "some.mat"
    savemat(path, content, **options)
    return path.read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_numbers_of_every_kind(tmp_path: Path, kind: str, compressed: bool) -> None:
    values = np.arange(12).reshape(3, 4).astype(kind)
    raw = saved(tmp_path, {"other": [1.5], "kps": values, "text": "kps"}, do_compression=compressed)
    found = read_matrix(raw, "kps")
    assert found is not None
    assert found.dtype == np.float64
    assert found.tolist() == values.astype(float).tolist()
    assert read_matrix(raw, "Kps") is None


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (0, 3), (2, 3, 4)])
def test_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    found = read_matrix(saved(tmp_path, {"pts_coord": values}), "pts_coord")
    assert found is not None
    assert np.array_equal(found, values)


def test_bytes_in_the_other_order(tmp_path: Path) -> None:
    """A matrix [[1, 2]] of doubles, named a, written by hand as a machine of that order does."""
    element = b"".join(
        [
            bytes.fromhex("0000000600000008 0000000600000000"),  # flags: double
            bytes.fromhex("0000000500000008 0000000100000002"),  # 1 x 2
            bytes.fromhex("00010001 61000000"),  # the name, in its tag
            bytes.fromhex("0000000900000010 3ff0000000000000 4000000000000000"),
        ]
    )
    raw = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + (14).to_bytes(4, "big") + len(element).to_bytes(4, "big")
    found = read_matrix(raw + element, "a")
    assert found is not None
    assert found.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "value",
    [np.array([1j]), "text", {"a": 1}, np.array([1, "x"], dtype=object)],
    ids=["complex", "text", "struct", "cell"],
)
def test_other_variables_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="kps is no matrix of real numbers"):
        read_matrix(saved(tmp_path, {"kps": value}), "kps")


def test_files_that_are_none(tmp_path: Path) -> None:
    raw = saved(tmp_path, {"kps": np.ones((9, 9))})
    for cut in (0, 100, 127):
        with pytest.raises(ValueError, match="no MATLAB 5 file"):
            read_matrix(raw[:cut], "kps")
    for cut in (130, 150, len(raw) - 1):
        with pytest.raises(ValueError, match=r"cut off|do not fit together"):
            read_matrix(raw[:cut], "kps")
    assert read_matrix(raw[:128], "kps") is None
    bomb = zlib.compress(bytes(1 << 27))
    with pytest.raises(ValueError, match="more than 64 MB"):
        read_matrix(raw[:128] + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb, "kps")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_bytes_are_an_error_or_numbers(tmp_path: Path, compressed: bool) -> None:
    raw = saved(tmp_path, {"kps": np.random.default_rng(0).normal(size=(7, 2))}, do_compression=compressed)
    dice = random.Random(1)
    refused = 0
    for _ in range(3000):
        changed = bytearray(raw)
        for _ in range(dice.choice([1, 1, 2, 8])):
            changed[dice.randrange(120, len(changed))] = dice.choice([0, 1, 255, dice.randrange(256)])
        try:
            found = read_matrix(bytes(changed), "kps")
        except ValueError:
            refused += 1
        else:
            assert found is None or found.dtype == np.float64
    assert refused > 500


def test_real_files_are_read_as_scipy_reads_them() -> None:
    paths = sorted(shared("PF-dataset-WILLOW").rglob("*.mat"))
    assert paths
    for path in paths:
        found = read_matrix(path.read_bytes(), "pts_coord")
        assert found is not None
        assert np.array_equal(found, loadmat(path)["pts_coord"])
