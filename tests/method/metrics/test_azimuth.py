from __future__ import annotations

import math

import pytest

from geoaware.method.metrics import sensitivity


def test_by_hand():
    assert sensitivity([0.8, 0.7, 0.2, 0.6, 0.4]) == pytest.approx(0.75)
    assert sensitivity([0.5, 0.5]) == 0
    assert sensitivity([0.5, 0.0]) == 1


def test_subsets_without_pairs_are_left_out():
    assert sensitivity([0.8, math.nan, 0.4]) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan], [0.0, 0.0]])
def test_undefined(values):
    assert math.isnan(sensitivity(values))
