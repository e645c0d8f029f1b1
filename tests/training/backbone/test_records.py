from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from geoaware.runs.progress import silent
from geoaware.training.backbone.records import file_state, made_by_threads, records

DTYPE = np.dtype([("name", "i4"), ("pair", "f4", (2,))])


def test_records_are_filled_once_and_read_from_then_on(tmp_path: Path) -> None:
    filled = []

    def fill(made: np.ndarray) -> None:
        filled.append(len(made))
        made["name"] = [3, 4]
        made["pair"][1] = 0.5, 0.25

    for _ in range(2):
        found = records(tmp_path, "some", ["why"], DTYPE, 2, fill)
        assert found["name"].tolist() == [3, 4]
        assert found["pair"].tolist() == [[0, 0], [0.5, 0.25]]
    assert filled == [2]
    records(tmp_path, "some", ["why not"], DTYPE, 2, fill)
    assert filled == [2, 2]
    assert len(list(tmp_path.glob("some-*.npy"))) == 2


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def fill(made: np.ndarray) -> None:
        made["name"] = 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        records(tmp_path, "some", [], DTYPE, 2, fill)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_make_things_in_order(workers: int) -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number**2

    told: list[int] = []
    found = made_by_threads(make, range(20), workers, lambda what, done, *_: told.append(done), "squares")
    assert list(found) == [each**2 for each in range(20)]
    assert told == list(range(21))


def test_what_goes_wrong_in_a_thread_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        list(made_by_threads(lambda each: 1 // each, [2, 1, 0, 3], 2, silent, "quotients"))


def test_the_state_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before = file_state(path)
    assert before == file_state(path)
    path.write_text("three")
    assert file_state(path) != before
