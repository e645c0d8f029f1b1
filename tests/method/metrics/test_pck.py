from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geoaware.method.metrics import pck


def test_by_hand():
    truth = [(0, 0), (10, 0), (0, 10), (10, 10)]
    predicted = [(0, 0), (10, 3), (4, 10), (10, 20)]  # 0, 3, 4 and 10 away
    assert pck(predicted, truth, 20, [0.1, 0.2, 0.3, 0.6]).tolist() == [0.25, 0.5, 0.75, 1.0]


def test_threshold_is_strict_unless_said():
    predicted, truth = [(3.0, 4.0)], [(0.0, 0.0)]
    assert pck(predicted, truth, 50, [0.1]).tolist() == [0.0]
    assert pck(predicted, truth, 50, [0.1], strict=False).tolist() == [1.0]


def test_tensors_arrays_and_a_single_alpha():
    predicted, truth = torch.tensor([[1.0, 1.0]]), np.array([[1.0, 2.0]])
    found = pck(predicted, truth, 100, 0.05)
    assert found.shape == ()
    assert float(found) == 1.0


def test_no_points_is_nan():
    found = pck([], [], 10, [0.1, 0.2])
    assert found.shape == (2,)
    assert all(math.isnan(each) for each in found)


@pytest.mark.parametrize(
    ("predicted", "truth", "size", "message"),
    [
        ([(0, 0)], [(0, 0), (1, 1)], 1, "1 predicted and 2 true points"),
        ([(0, 0, 0)], [(0, 0, 0)], 1, r"predicted must have shape \(k, 2\)"),
        ([(0, 0)], [(0, 0)], 0, "positive number of pixels, got 0"),
        ([(0, 0)], [(0, 0)], float("nan"), "positive number of pixels, got nan"),
    ],
)
def test_what_cannot_be_used(predicted, truth, size, message):
    with pytest.raises(ValueError, match=message):
        pck(predicted, truth, size, [0.1])
