from __future__ import annotations

import hashlib
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoaware.data.sampling import draw, permutation, pick


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


def test_pick_is_fixed_for_ever() -> None:
    # Written down on purpose: a training run must draw the same groups with every Python.
    assert [pick([1.0, 2.0, 5.0], str(key)) for key in range(12)] == FIXED_PICKS


FIXED_PICKS = [2, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2]


def test_pick_follows_the_weights_and_never_takes_what_has_none() -> None:
    counts = [0] * 5
    for key in range(8000):
        counts[pick([0.0, 1.0, 0.0, 3.0, 0.0], str(key))] += 1
    assert counts[0] == counts[2] == counts[4] == 0
    assert counts[1] == pytest.approx(2000, abs=160)  # four standard deviations
    assert pick([0.25], "any") == 0


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=8), st.integers(0, 100))
def test_pick_is_always_a_place_with_a_weight(weights: list[float], key: int) -> None:
    if sum(weights) > 0:
        assert weights[pick(weights, str(key))] > 0


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [2.0, -1.0]])
def test_nothing_to_pick(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be 0 or more, one at least above 0"):
        pick(weights, "key")
