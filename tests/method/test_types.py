from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from geoaware.method.geometry import Pose
from geoaware.method.types import AnnotatedImage, Keypoints, Matches, longer_side


def test_the_extent_of_an_object_is_its_box_or_that_of_its_visible_keypoints() -> None:
    xy = torch.tensor([[3.0, 9.0], [8.5, 2.0], [100.0, 100.0]], dtype=torch.float64)
    points = Keypoints((0, 1, 2), xy, torch.tensor([True, True, False]))
    image = AnnotatedImage("a", Path("a.png"), (120, 120), "cat", points)
    assert image.extent == points.box == (3.0, 2.0, 8.5, 9.0)
    assert longer_side(image.extent) == 7.0
    assert replace(image, box=(1.0, 2.0, 30.0, 4.0)).extent == (1.0, 2.0, 30.0, 4.0)
    unseen = replace(points, visible=torch.zeros(3, dtype=torch.bool))
    assert replace(image, keypoints=unseen).extent == (0.0, 0.0, 0.0, 0.0)


def test_matches_of_two_kinds_are_brought_together_in_order() -> None:
    def matches(first: float, count: int, pose: Pose) -> Matches:
        numbers = first + torch.arange(count)
        places = torch.stack([numbers, numbers], dim=1).double()
        return Matches(
            places, numbers / 100, numbers / 10, places + 0.5, numbers % 2 == 0, pose, {pose: first}
        )

    own, others = matches(10.0, 2, "flip"), matches(20.0, 3, "identity")
    both = own.among(others, torch.tensor([False, True, False, False, True]))
    numbers = torch.tensor([20.0, 10.0, 21.0, 22.0, 11.0])
    assert torch.equal(both.points, torch.stack([numbers, numbers], dim=1).double())
    assert torch.equal(both.confidence, numbers / 100)
    assert torch.equal(both.cycle_error, numbers / 10)
    assert torch.equal(both.read_at, both.points + 0.5)
    assert both.turned.tolist() == [True, True, False, True, False]
    assert (both.pose, both.distances) == ("flip", {"flip": 10.0})
    assert torch.equal(matches(0.0, 0, "flip").among(others, torch.zeros(3) > 0).points, others.points)
