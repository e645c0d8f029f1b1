from __future__ import annotations

import hashlib
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoaware.data.sampling import draw, permutation


@given(st.integers(0, 200), st.text(max_size=5))
def test_permutation_holds_every_number_once(total: int, key: str) -> None:
    assert sorted(permutation(total, key)) == list(range(total))


def test_order_is_fixed_for_ever() -> None:
    # Written down on purpose: published lists of pairs must not change with Python or numpy.
    assert list(permutation(10, "0")) == FIXED
    assert list(islice(permutation(10**12, "a"), 2)) == FIXED_LARGE


FIXED = [2, 5, 9, 4, 3, 7, 1, 0, 8, 6]
FIXED_LARGE = [699799516564, 784068977334]


def shuffled(total: int, key: str) -> list[int]:
    """Fisher-Yates as in the books, on a whole list."""
    numbers = list(range(total))
    for place in range(total):
        draws = int(hashlib.sha256(f"{key}/{place}".encode()).hexdigest()[:32], 16)
        other = place + draws % (total - place)
        numbers[place], numbers[other] = numbers[other], numbers[place]
    return numbers


@given(st.integers(0, 100), st.integers(0, 10**6))
def test_permutation_is_fisher_yates(total: int, seed: int) -> None:
    assert list(permutation(total, str(seed))) == shuffled(total, str(seed))


def test_draw_takes_what_is_accepted_and_no_more_than_there_is() -> None:
    assert draw(20, 5, "key", lambda number: number % 2 == 0) == sorted(
        [number for number in permutation(20, "key") if number % 2 == 0][:5]
    )
    assert draw(20, 50, "key", lambda number: number % 7 == 0) == [0, 7, 14]
    assert draw(0, 5, "key") == []
    assert draw(5, 0, "key") == []


def test_first_draw_is_uniform() -> None:
    counts = [0] * 5
    for seed in range(5000):
        counts[next(permutation(5, str(seed)))] += 1
    assert counts == pytest.approx([1000] * 5, abs=120)  # four standard deviations
