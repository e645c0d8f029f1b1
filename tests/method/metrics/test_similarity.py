from __future__ import annotations

import math

import numpy as np
import pytest

from geoaware.method.metrics import keypoint_similarity
from geoaware.method.metrics.similarity import SIGMA
from tests.reference import metrics as slow


def test_by_hand():
    # 5 pixels of an object of 50 x 50: exp(-25 / (2 * 2500 * 0.01)) = exp(-0.5).
    assert keypoint_similarity([(3, 4)], [(0, 0)], 2500, 0.05) == pytest.approx(math.exp(-0.5))
    both = keypoint_similarity([(3, 4), (9, 9)], [(0, 0), (9, 9)], 2500, 0.05)
    assert both == pytest.approx((math.exp(-0.5) + 1) / 2)
    weighted = keypoint_similarity([(3, 4), (9, 9)], [(0, 0), (9, 9)], 2500, 0.05, weights=[3, 1])
    assert weighted == pytest.approx((3 * math.exp(-0.5) + 1) / 4)


def test_against_the_slow_reference():
    rng = np.random.default_rng(0)
    for count in (1, 5, 17):
        predicted, truth = rng.uniform(0, 100, (2, count, 2))
        sigmas, weights = rng.uniform(0.02, 0.1, count), rng.uniform(0, 1, count)
        found = keypoint_similarity(predicted, truth, 3000.0, sigmas, weights)
        assert found == pytest.approx(slow.keypoint_similarity(predicted, truth, 3000.0, sigmas, weights))


def test_as_cocos_own_evaluation():
    coco = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(1)
    truth, predicted = rng.uniform(0, 100, (17, 2)), rng.uniform(0, 100, (17, 2))
    evaluation = coco.COCOeval(iouType="keypoints")
    given = {"keypoints": np.c_[truth, np.full(17, 2)].ravel().tolist(), "bbox": [0, 0, 100, 100]}
    evaluation._gts[1, 1] = [{**given, "area": 5000.0, "ignore": 0}]
    evaluation._dts[1, 1] = [{"keypoints": np.c_[predicted, np.ones(17)].ravel().tolist(), "score": 1.0}]
    evaluation.params.maxDets = [20]
    ((expected,),) = evaluation.computeOks(1, 1)
    sigmas = evaluation.params.kpt_oks_sigmas
    assert keypoint_similarity(predicted, truth, 5000.0, sigmas) == pytest.approx(expected)
    assert pytest.approx(sigmas.mean(), abs=1e-3) == SIGMA


def test_nothing_to_compare_is_nan():
    assert math.isnan(keypoint_similarity([], [], 10))
    assert math.isnan(keypoint_similarity([(0, 0)], [(0, 0)], 10, weights=[0]))


def test_what_cannot_be_used():
    with pytest.raises(ValueError, match="1 predicted and 2 true points"):
        keypoint_similarity([(0, 0)], [(0, 0), (1, 1)], 10)
    with pytest.raises(ValueError, match="positive number of pixels, got 0"):
        keypoint_similarity([(0, 0)], [(0, 0)], 0)
