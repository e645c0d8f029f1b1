from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from geoaware.method.keypoints import Schema
from geoaware.method.metrics import pair_mask, relative_gap
from geoaware.method.types import AnnotatedImage, Keypoints, Pair
from geoaware.runs.errors import InputError


def image(name: str, ids: tuple[int, ...], visible: tuple[int, ...]) -> AnnotatedImage:
    seen = torch.tensor([each in visible for each in ids])
    points = Keypoints(ids, torch.zeros(len(ids), 2, dtype=torch.float64), seen)
    return AnnotatedImage(name, Path(name), (10, 10), "cat", points)


def test_by_annotation_id_with_keypoints_missing():
    schema = Schema([f"part {each}" for each in range(10)], {"wheel": (4, 7, 8), "light": (1, 2)})
    source = image("a", (1, 2, 4, 7, 9), (1, 4, 7, 9))
    # The target shows two wheels but one light; 8 is not in the source, so not evaluated.
    target = image("b", (1, 2, 4, 7, 8, 9), (1, 4, 8, 9))
    pair = Pair("p", "cat", source, target)
    assert pair.common_ids == (1, 4, 9)
    assert pair_mask(pair, schema).tolist() == [False, True, False]


def test_unknown_keypoint_names_the_pair():
    pair = Pair("p7", "cat", image("a", (0, 5), (0, 5)), image("b", (0, 5), (0, 5)))
    with pytest.raises(InputError, match="pair p7"):
        pair_mask(pair, Schema(["x", "y"], {}))


def test_relative_gap():
    assert relative_gap(0.5, 0.4) == pytest.approx(0.2)
    assert relative_gap(0.5, 0.6) == pytest.approx(-0.2)
    assert math.isnan(relative_gap(0.0, 0.0))
    assert math.isnan(relative_gap(0.5, math.nan))
