from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoaware.method.metrics import ErrorRates, error_types
from tests.reference import metrics as reference

TARGET = [(0, 0), (100, 0), (50, 50)]  # left, right, middle
PARTNER = [1, 0, -1]


def one(point, wanted, strict=True):
    return error_types([point], TARGET, [wanted], 100, 0.1, [PARTNER[wanted]], strict=strict)


@pytest.mark.parametrize(
    ("point", "wanted", "expected"),
    [
        ((5, 0), 0, ErrorRates(jitter=0, miss=0, swap=0, swap_lr=0, pck_dagger=1)),
        ((15, 0), 0, ErrorRates(jitter=1, miss=1, swap=0, swap_lr=0, pck_dagger=0)),
        ((25, 0), 0, ErrorRates(jitter=0, miss=1, swap=0, swap_lr=0, pck_dagger=0)),
        ((95, 0), 0, ErrorRates(jitter=0, miss=0, swap=1, swap_lr=1, pck_dagger=0)),
        ((50, 45), 0, ErrorRates(jitter=0, miss=0, swap=1, swap_lr=0, pck_dagger=0)),
        ((95, 0), 2, ErrorRates(jitter=0, miss=0, swap=1, swap_lr=0, pck_dagger=0)),
    ],
)
def test_each_kind_by_hand(point, wanted, expected):
    assert one(point, wanted) == expected


def test_a_swap_can_be_a_jitter_and_pck_can_exceed_pck_dagger():
    # 12 from the wanted one (jitter), 3 from another (swap).
    both = error_types([(12, 0)], [(0, 0), (15, 0)], [0], 100, 0.1, [1])
    assert both == ErrorRates(jitter=1, miss=0, swap=1, swap_lr=1, pck_dagger=0)
    # 8 from the wanted one (correct for PCK), nearer to another: not correct for PCK†.
    near = error_types([(8, 0)], [(0, 0), (12, 0)], [0], 100, 0.1)
    assert (near.swap, near.swap_lr, near.pck_dagger) == (1, 0, 0)


def test_the_limit_itself_belongs_to_the_protocol():
    assert one((10, 0), 0).miss == 1
    assert one((10, 0), 0, strict=False).pck_dagger == 1
    assert one((20, 0), 0).jitter == 0
    assert one((20, 0), 0, strict=False).jitter == 1


def test_shares_and_ties():
    # Half way between two: the one wanted wins.
    tied = error_types([(5, 0), (5, 0)], [(0, 0), (10, 0)], [0, 1], 100, 0.1, [1, 0])
    assert tied == ErrorRates(jitter=0, miss=0, swap=0, swap_lr=0, pck_dagger=1)
    mixed = error_types([(0, 0), (100, 0), (100, 0), (30, 30)], TARGET, [0, 1, 0, 2], 100, 0.1, [1, 0, 1, -1])
    assert mixed == ErrorRates(jitter=0, miss=0.25, swap=0.25, swap_lr=0.25, pck_dagger=0.5)


def test_no_predictions_is_nan():
    assert all(math.isnan(each) for each in vars(error_types([], TARGET, [], 1, 0.1)).values())


@pytest.mark.parametrize(
    ("index", "partner", "message"),
    [
        ([0, 1], None, "index has 2 rows for 1 predictions"),
        ([3], None, "index must hold rows from 0 to 2"),
        ([-1], None, "index must hold rows from 0 to 2"),
        ([0], [5], "flip_partner must hold rows from -1 to 2"),
    ],
)
def test_rows_that_do_not_exist(index, partner, message):
    with pytest.raises(ValueError, match=message):
        error_types([(0, 0)], TARGET, index, 10, 0.1, partner)


POINT = st.tuples(st.integers(0, 40), st.integers(0, 40))


@given(
    targets=st.lists(POINT, min_size=1, max_size=6),
    predicted=st.lists(POINT, min_size=1, max_size=6),
    alpha=st.sampled_from([0.05, 0.1, 0.25]),
    strict=st.booleans(),
    data=st.data(),
)
def test_kinds_add_up_and_agree_with_the_loops(targets, predicted, alpha, strict, data):
    count = len(targets)
    wanted = [data.draw(st.integers(0, count - 1)) for _ in predicted]
    partners = {each: (each ^ 1) for each in range(count) if (each ^ 1) < count}
    found = error_types(
        predicted, targets, wanted, 40, alpha, [partners.get(each, -1) for each in wanted], strict=strict
    )
    assert found.pck_dagger + found.miss + found.swap == pytest.approx(1, abs=1e-12)
    assert found.swap_lr <= found.swap
    record = {
        "keypoint_ids": wanted,
        "predicted": predicted,
        "size": 40,
        "target_keypoints": {str(number): place for number, place in enumerate(targets)},
    }
    for kind, value in vars(found).items():
        flags = reference.error_flags(record, kind, alpha, strict, partners)
        assert value == sum(flags) / len(flags)
