from __future__ import annotations

import math

import pytest

from geoaware.evaluation.comparison import compared, judge, points, verdict
from geoaware.evaluation.statistics import Estimate, proportion
from geoaware.evaluation.tables import MISSING, bounds

UP, DOWN, OPEN = Estimate(0.02, 0.005, 0.035), Estimate(-0.02, -0.035, -0.005), Estimate(0.01, -0.01, 0.03)
UNKNOWN = Estimate(0.01, math.nan, math.nan)


@pytest.mark.parametrize(
    ("difference", "high_is_good", "low_is_good"),
    [
        (UP, "better", "worse"),
        (DOWN, "worse", "better"),
        (OPEN, "not distinguishable", "not distinguishable"),
        (UNKNOWN, "not distinguishable", "not distinguishable"),
    ],
)
def test_the_whole_interval_decides(difference, high_is_good, low_is_good):
    assert judge(difference) == high_is_good
    assert judge(difference, higher_is_better=False) == low_is_good


def test_sentences():
    assert verdict(UP) == "higher (+2.0 points, 95 % +0.5 to +3.5)"
    assert verdict(DOWN) == "lower (-2.0 points, 95 % -3.5 to -0.5)"
    assert verdict(OPEN) == "no clear difference (+1.0 points, 95 % -1.0 to +3.0)"
    assert verdict(UNKNOWN) == "cannot be compared"
    assert verdict(Estimate(0.0, 0.0, 0.0)) == "the same"
    assert points(Estimate(-0.0, -0.0, 0.0)) == "+0.0 points, 95 % +0.0 to +0.0"
    assert (
        compared("window", "argmax", DOWN) == "window against argmax: lower (-2.0 points, 95 % -3.5 to -0.5)"
    )


def test_the_interval_of_a_share():
    # The centre is (0.8 + 0.19207) / 1.38415 and half the width 0.31362 / 1.38415, with z = 1.95996.
    found = proportion(8, 10)
    assert found.value == 0.8
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)
    assert proportion(0, 5).low == 0.0
    assert proportion(5, 5).high == 1.0
    assert all(map(math.isnan, vars(proportion(0, 0)).values()))


def test_bounds_as_a_cell():
    assert bounds(UP) == "0.5 to 3.5"
    assert bounds(UNKNOWN) == MISSING
