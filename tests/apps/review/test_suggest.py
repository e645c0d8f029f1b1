"""Which images to annotate next."""

from __future__ import annotations

from geoaware.apps.review.suggest import Doubt, doubt, suggest


def test_unsure_and_unlike_the_sources_come_first() -> None:
    doubts = [Doubt(0.9, 0.1, "a"), Doubt(0.2, 0.8, "b"), Doubt(0.5, 0.9, "c"), Doubt(0.8, 0.2, "d")]
    assert suggest(doubts, 3) == [1, 2, 3]
    assert suggest(doubts) == [1, 2, 3, 0]


def test_not_ten_of_a_kind() -> None:
    alike = [Doubt(0.1 + 0.01 * each, 0.9, "a") for each in range(5)]
    other = [Doubt(0.6, 0.95, "b"), Doubt(0.7, 0.4, "c")]
    assert suggest([*alike, *other], 3) == [0, 5, 1]
    assert suggest([each._replace(kind=row) for row, each in enumerate([*alike, *other])], 3) == [0, 5, 1]
    assert suggest([each._replace(kind="a") for each in [*alike, *other]], 3) == [0, 5, 1]


def test_without_distances_confidence_decides_and_without_both_the_order() -> None:
    assert suggest([Doubt(0.9, None), Doubt(0.1, None), Doubt(0.5, None)], 2) == [1, 2]
    assert suggest([Doubt(None, None)] * 3, 2) == [0, 1]
    assert suggest([]) == []


def test_of_an_annotation() -> None:
    entry = {"keypoints": [1, 1, 2], "keypoint_scores": [0.3], "distance": 0.4, "source": "s", "pose": "flip"}
    found = doubt(entry)
    assert found[:2] == (0.3, 0.4)
    assert found.kind == doubt({**entry, "distance": "far"}).kind != doubt({**entry, "pose": "identity"}).kind
    assert doubt({"keypoints": []})[:2] == (None, None)
