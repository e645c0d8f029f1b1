from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from geoaware.method.types import AnnotatedImage, Keypoints, longer_side


def test_the_extent_of_an_object_is_its_box_or_that_of_its_visible_keypoints() -> None:
    xy = torch.tensor([[3.0, 9.0], [8.5, 2.0], [100.0, 100.0]], dtype=torch.float64)
    points = Keypoints((0, 1, 2), xy, torch.tensor([True, True, False]))
    image = AnnotatedImage("a", Path("a.png"), (120, 120), "cat", points)
    assert image.extent == points.box == (3.0, 2.0, 8.5, 9.0)
    assert longer_side(image.extent) == 7.0
    assert replace(image, box=(1.0, 2.0, 30.0, 4.0)).extent == (1.0, 2.0, 30.0, 4.0)
    unseen = replace(points, visible=torch.zeros(3, dtype=torch.bool))
    assert replace(image, keypoints=unseen).extent == (0.0, 0.0, 0.0, 0.0)
