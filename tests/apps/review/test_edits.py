"""What a correction makes of an annotation, in values."""

from __future__ import annotations

from typing import Any

import pytest

from geoaware.apps.review.edits import check_points, confidence, corrected, points_of
from geoaware.data.formats.hub import box_around
from geoaware.runs.errors import InputError

SIZE = (100, 80)


def given(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1, "keypoints": [10, 10.123456, 2, 50, 40, 1, 0, 0, 0], "num_keypoints": 2,
        "bbox": [5, 5, 60, 60], "area": 3600, "score": 0.7, "keypoint_scores": [0.7, 0.4, 0.1],
        "source": "s.png", **changes,
    }  # fmt: skip


def moved(row: int, x: float, y: float, flag: int = 2) -> list[Any]:
    points = points_of(given())
    points[row] = (x, y, flag)
    return points


def test_points_of_absent_keypoints_have_no_place() -> None:
    assert points_of({"keypoints": [1, 2, 2, 3, 4, 0, 5, 6, -1]}) == [(1, 2, 2), (0, 0, 0), (0, 0, 0)]


def test_without_a_change_nothing_changes() -> None:
    entry = given(keypoints=[10, 10.123456, 2, 50, 40, 1, 3, 4, 0])
    assert corrected(entry, points_of(entry), SIZE) == entry


def test_a_moved_keypoint() -> None:
    made = corrected(given(), moved(1, 20.12345, 30.0), SIZE)
    assert made["keypoints"] == [10, 10.123456, 2, 20.12, 30.0, 2, 0, 0, 0]
    assert made["num_keypoints"] == 2
    assert made["keypoint_scores"] == [0.7, 1.0, 0.1]
    assert made["score"] == 0.85, "of what is visible"
    assert made["source"] == "s.png"
    assert (made["bbox"], made["area"]) == ([5, 5, 60, 60], 3600), (
        "a given box that holds the keypoints stays"
    )


def test_a_keypoint_that_is_removed_and_one_that_appears() -> None:
    made = corrected(given(), [(0, 0, 0), (50, 40, 1), (30, 20, 2)], SIZE)
    assert made["keypoints"] == [0, 0, 0, 50, 40, 1, 30, 20, 2]
    assert made["keypoint_scores"] == [0.0, 0.4, 1.0]
    assert (made["num_keypoints"], made["score"]) == (2, 1.0)


def test_a_given_box_is_only_enlarged() -> None:
    made = corrected(given(), moved(0, 90, 70), SIZE)
    assert (made["bbox"], made["area"]) == ([5, 5, 85, 65], 5525)
    assert corrected(given(area=7), moved(0, 90, 70), SIZE)["area"] == 7, "an area of another origin stays"


def test_a_box_around_the_keypoints_is_made_again() -> None:
    entry = given(keypoints=[10, 10, 2, 50, 40, 2, 0, 0, 0], bbox=box_around([(10, 10), (50, 40)], SIZE))
    assert entry["bbox"] == [6.0, 6.0, 48.0, 38.0]
    made = corrected(entry, [(20, 10, 2), (50, 40, 2), (0, 0, 0)], SIZE)
    assert made["bbox"] == box_around([(20, 10), (50, 40)], SIZE) == [17.0, 7.0, 36.0, 36.0]


def test_an_annotation_with_keypoints_alone() -> None:
    entry = {"id": 1, "keypoints": [10, 10, 2]}
    assert corrected(entry, [(11, 10, 2)], SIZE) == {"id": 1, "keypoints": [11, 10, 2], "num_keypoints": 1}


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"keypoints": [0] * 6, "keypoint_scores": [0.2, 0.6], "score": 0.9}, 0.4),
        ({"keypoints": [0] * 6, "keypoint_scores": [0.2], "score": 0.9}, 0.9),
        ({"keypoints": [0] * 6, "score": 0.9}, 0.9),
        ({"keypoints": [0] * 6, "score": "high"}, None),
        ({"keypoints": [0] * 6}, None),
    ],
)
def test_confidence(entry: dict[str, Any], wanted: float | None) -> None:
    assert confidence(entry) == wanted


def test_what_a_page_sends_is_checked() -> None:
    assert check_points([[1, 2, 2], [-5, 200, 1], [7, 7, 0]], 3, SIZE) == [(1, 2, 2), (0, 80, 1), (0, 0, 0)]
    for wrong in ([[1, 2, 2]], "x", None):
        with pytest.raises(InputError, match="there must be 2 keypoints"):
            check_points(wrong, 2, SIZE)
    for wrong in ([1, 2], [1, 2, 3], ["1", 2, 2], [1, None, 2], [float("nan"), 1, 2], 7, [1, 2, 1.5]):
        with pytest.raises(InputError, match=r"a keypoint is not \[x, y, flag\]"):
            check_points([wrong], 1, SIZE)
