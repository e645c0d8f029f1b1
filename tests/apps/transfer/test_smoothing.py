"""The likeliest paths and the steadying of keypoints in videos."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoaware.apps.transfer.smoothing import PEAKS, Frame, Motion, Smoothed, likeliest_paths, steadied
from geoaware.apps.transfer.targets import Target
from geoaware.apps.transfer.videos import Shot
from geoaware.data.video import Video
from tests.reference import smoothing as reference

NAN = math.nan
NONE = (NAN, NAN, 0.0)


def frames(*places: Sequence[tuple[float, float, float]], numbers: Sequence[int] = ()) -> list[Frame]:
    """Frames of one keypoint."""
    made = []
    for number, each in zip(numbers or range(len(places)), places, strict=True):
        table = np.array([each], dtype=np.float64)
        made.append(Frame(number, table[..., :2], table[..., 2]))
    return made


def path(*places: Sequence[tuple[float, float, float]], **options: Any) -> list[int]:
    return likeliest_paths(frames(*places), 100, Motion(**options))[:, 0].tolist()


NEAR, FAR = (10.0, 10.0), (70.0, 90.0)


def test_a_jump_that_is_hardly_likelier_is_not_taken() -> None:
    """By hand: 0.5 against 0.45 is worth log(0.55 / 0.5) = 0.1, and two jumps cost 2 x 0.5."""
    likely, flip = [(*NEAR, 0.6), (*FAR, 0.3)], [(*FAR, 0.5), (*NEAR, 0.45)]
    assert path(likely, flip, likely) == [0, 1, 0]
    # One that is much likelier is: log(0.95 / 0.1) = 2.25.
    assert path(likely, [(*FAR, 0.9), (*NEAR, 0.05)], likely) == [0, 0, 0]
    # Where moves cost nothing, every frame is for itself.
    assert path(likely, flip, likely, limit=0.0) == [0, 0, 0]


def test_the_costs_are_as_computed_by_hand() -> None:
    """A move of 8 pixels of 100 in one frame costs 8² / 4² / 2 = 2, in four frames 0.5; its place wins 1."""
    start, choice = [(0.0, 0.0, 0.95), NONE], [(0.0, 0.0, 0.95 / math.e - 0.05 / math.e * (math.e - 1)), NONE]
    there = (8.0, 0.0, 0.95)
    assert math.log((0.05 + 0.95) / (0.05 + choice[0][2])) == pytest.approx(1.0)
    for number, wanted in ((1, 1), (4, 0)):
        made = frames(start, [there, choice[0]], numbers=[0, number])
        assert likeliest_paths(made, 100, Motion(limit=3.0))[:, 0].tolist() == [0, wanted]


@pytest.mark.parametrize("seed", range(12))
def test_the_path_is_the_cheapest_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count, places, keypoints = int(generator.integers(1, 6)), 4, 3
    numbers = np.cumsum(generator.integers(1, 7, count)).tolist()
    points = generator.uniform(0, 60, (count, keypoints, places, 2))
    chance = generator.uniform(0, 1, (count, keypoints, places))
    points[generator.random((count, keypoints, places)) < 0.2] = NAN
    points[generator.random((count, keypoints)) < 0.2] = NAN
    motion = Motion(floor=0.03, step=0.1, limit=float(generator.uniform(0.2, 3)))
    made = [Frame(*each) for each in zip(numbers, points, chance, strict=True)]
    found = likeliest_paths(made, 100, motion)
    assert found.shape == (count, keypoints)
    for keypoint in range(keypoints):
        kept = [row for row in range(count) if np.isfinite(points[row, keypoint]).all(axis=-1).any()]
        there = {row: np.isfinite(points[row, keypoint]).all(axis=-1).nonzero()[0].tolist() for row in kept}
        offered = [
            (numbers[row], [(*points[row, keypoint, n], chance[row, keypoint, n]) for n in there[row]])
            for row in kept
        ]
        constants = (100, motion.floor, motion.step, motion.limit)
        _, least = reference.cheapest_path(offered, *constants)
        own = [there[row].index(found[row, keypoint]) for row in kept]
        assert reference.path_cost(offered, own, *constants) == pytest.approx(least)


def test_nothing_and_one_frame() -> None:
    assert likeliest_paths([], 100).shape == (0, 0)
    assert path([(1.0, 1.0, 0.2), (5.0, 5.0, 0.6)]) == [1]
    assert path([NONE, NONE]) == [0]


def test_where_a_keypoint_is_absent_the_path_goes_on_behind() -> None:
    here, gap, both = [(*NEAR, 0.9), NONE], [NONE, NONE], [(*FAR, 0.5), (*NEAR, 0.45)]
    assert path(here, gap, gap, both) == [0, 0, 0, 1]
    assert path(gap, both, gap) == [0, 0, 0]
    assert path(gap, gap) == [0, 0]


def test_a_keypoint_at_constant_velocity_stays_as_it_is() -> None:
    numbers = [0, 1, 2, 5, 9, 10]
    line = np.array([[[10 + 3.0 * each, 50 - 2.0 * each]] for each in numbers])
    assert steadied(numbers, line, np.full((6, 1), 0.7), 100) == pytest.approx(line, abs=1e-3)


def test_an_improbable_place_follows_its_neighbours() -> None:
    points = np.zeros((7, 1, 2))
    points[3] = 20.0
    moved = [
        float(steadied(range(7), points, np.array([[0.9]] * 3 + [[each]] + [[0.9]] * 3), 100)[3, 0, 0])
        for each in (0.9, 0.3, 0.05)
    ]
    assert 20 > moved[0] > moved[1] > moved[2] > 0
    assert moved[2] < 1 < 5 < moved[0]


@pytest.mark.parametrize("seed", range(8))
def test_steadying_is_least_squares(seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = np.cumsum(generator.integers(1, 6, 9)).tolist()
    points, chance = generator.normal(50, 20, (9, 3, 2)), generator.uniform(0, 1, (9, 3))
    points[generator.random((9, 3)) < 0.25] = NAN
    points[:, 2] = NAN if seed == 0 else points[:, 2]
    motion = Motion()
    found = steadied(numbers, points, chance, 80.0, motion)
    for keypoint in range(3):
        for axis in range(2):
            wanted = reference.steadied(
                numbers, points[:, keypoint, axis].tolist(), chance[:, keypoint].tolist(), 80.0,
                motion.floor, motion.change, motion.noise,
            )  # fmt: skip
            assert found[:, keypoint, axis] == pytest.approx(wanted, abs=1e-4, nan_ok=True)


def test_steadying_nothing_and_one_frame() -> None:
    assert steadied([], np.zeros((0, 2, 2)), np.zeros((0, 2)), 100).shape == (0, 2, 2)
    one = np.array([[[3.0, 4.0], [NAN, NAN]]])
    assert steadied([7], one, np.array([[0.5, 0.0]]), 100) == pytest.approx(one, abs=1e-4, nan_ok=True)


class Kept:
    """Records in memory."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self.head, self._records = {"run": {}}, records

    def lines(self) -> Iterator[bytes]:
        return iter([json.dumps(each).encode() + b"\n" for each in self._records])


def record(number: int, *keypoints: Sequence[Sequence[float]] | None, **more: Any) -> dict[str, Any]:
    """A record whose keypoints have these places, with their probabilities."""
    return {
        "n": number,
        "size": [100, 100],
        "points": [each and each[0][:2] for each in keypoints],
        "probability": [each[0][2] if each else 0.0 for each in keypoints],
        "peaks": [each[1:] if each else [] for each in keypoints],
        **more,
    }


def targets(*names: str | None) -> list[Target]:
    """Frames of these videos, or images."""
    count, made = dict[str | None, int](), list[Target]()
    for number, name in enumerate(names, start=1):
        count[name] = count.get(name, -1) + 1
        shot = name and Shot(Video(Path(name), len(names), array("q"), name), name, count[name])
        made.append(Target(number, f"{number}.png", Path(f"{number}.png"), number, shot=shot or None))
    return made


def test_records_of_videos_take_the_likeliest_path() -> None:
    """Two videos, an image and a failure between them; corners that do not move give the object's size."""
    corner, near, far = [[90, 90, 0.9]], [10, 10, 0.6], [70, 30, 0.5]
    jump = [far, [10, 10, 0.45]]
    kept = Kept(
        record(1, [near, far], corner, None),
        record(2, jump, corner, None),
        {"n": 3, "failed": "cannot be decoded"},
        record(4, [near, far], corner, None),
        record(5, jump, corner, None),
        record(6, jump, corner, None),
    )
    lines = list(Smoothed(kept, targets("a.mp4", "a.mp4", "a.mp4", "a.mp4", None, "b.mp4")).lines())
    found = [json.loads(each) for each in lines]
    assert found[1]["points"] == [[10, 10], [90, 90], None]
    assert found[1]["probability"] == [0.45, 0.9, 0.0]
    assert found[5]["points"][0] == [70, 30]
    assert [lines[2], lines[4]] == [list(kept.lines())[place] for place in (2, 4)]
    assert found[1]["peaks"] == record(2, jump, corner, None)["peaks"]


def test_points_stay_in_the_image() -> None:
    places = [[[x, 50, 0.9]] for x in (80, 90, 99, 99, 99)]
    kept = Kept(*(record(row + 1, each, [[10, 10, 0.9]]) for row, each in enumerate(places)))
    found = [json.loads(each)["points"][0][0] for each in Smoothed(kept, targets(*["a.mp4"] * 5)).lines()]
    assert max(found) == 99


def test_fewer_places_than_usual_are_fine() -> None:
    many = [[float(each), 5.0, 0.1] for each in range(1 + PEAKS)]
    kept = Kept(record(1, many, [[1, 1, 0.9]]), record(2, many[:2], None))
    assert len(list(Smoothed(kept, targets("a.mp4", "a.mp4")).lines())) == 2
    assert list(Smoothed(Kept(), []).lines()) == []
