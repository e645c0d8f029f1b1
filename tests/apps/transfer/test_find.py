from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoaware.apps.transfer import TransferSettings, Voters, read_sources, read_targets, transfer
from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.find import Finder, Layout, Region, apart, layout, overlap, placed
from geoaware.data.images import load_image
from geoaware.matcher import Matcher
from geoaware.method.types import longer_side
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import SIDE, finding, matcher, on_black, write_sources
from tests.shared_data import shared


def test_overlap_by_hand() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_of_boxes_that_overlap_the_first_stays() -> None:
    one, same, other = Region((0, 0, 10, 10), 0.9), Region((1, 0, 11, 10), 0.8), Region((6, 0, 16, 10), 0.7)
    assert apart([one, same, other], 0.5) == [one, other]
    assert apart([same, one, other], 0.9) == [same, one, other]
    part = Region((2, 2, 6, 11), 0.5)  # 32 of its 36 pixels are in the first
    assert apart([one, part], 0.5) == [one, part]
    assert apart([one, part], 0.5, 0.9) == [one, part]
    assert apart([one, part], 0.5, 0.85) == [one]


def test_a_layout_and_its_mirror_image(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path, hide={0: [1]}))
    (image,) = sources.images
    # The box is 80 wide from (20, 20), so its centre is (60, 60).
    straight = layout(sources, image, "identity")
    assert straight.known.tolist() == [True, False, True, True, True]
    assert straight.sides == (1.0, 1.0)
    assert straight.offsets[0].tolist() == pytest.approx([-20 / 80, -20 / 80])
    assert straight.offsets[4].tolist() == pytest.approx([20 / 80, 25 / 80])
    # In the mirror image the left paw (3) is where the right one was, on the other side, and of the ears the
    # right one alone is known.
    mirrored = layout(sources, image, "flip")
    assert mirrored.known.tolist() == [False, True, True, True, True]
    assert mirrored.offsets[3].tolist() == pytest.approx([-20 / 80, 25 / 80])
    assert mirrored.offsets[1].tolist() == pytest.approx([20 / 80, -20 / 80])


def slow_best(maps: np.ndarray, offsets: np.ndarray, longer: float, play: int) -> np.ndarray:
    """The score of every centre, as a loop: mean over the keypoints of the best similarity nearby."""
    count, grid, _ = maps.shape
    found = np.zeros((grid, grid))
    for y in range(grid):
        for x in range(grid):
            for k in range(count):
                cx, cy = x + round(float(offsets[k, 0]) * longer), y + round(float(offsets[k, 1]) * longer)
                near = [-0.3]
                if 0 <= cx < grid and 0 <= cy < grid:
                    near = [
                        maps[k, v, u]
                        for v in range(max(0, cy - play // 2), min(grid, cy + play // 2 + 1))
                        for u in range(max(0, cx - play // 2), min(grid, cx + play // 2 + 1))
                    ]
                found[y, x] += max(near) / count
    return found


def test_layouts_are_placed_as_a_slow_loop_does() -> None:
    rng = np.random.default_rng(0)
    maps = rng.uniform(-0.2, 0.8, (3, 12, 12)).astype(np.float32)
    offsets = np.array([(-0.4, 0.0), (0.4, 0.1), (0.0, 0.4)])
    one = Layout(torch.from_numpy(offsets), torch.ones(3, dtype=torch.bool), (1.0, 0.5))
    expected = slow_best(maps, offsets, 5.0, 1)
    found = list(placed(torch.from_numpy(maps), [one], 5.0))
    assert found
    for score, (x1, y1, x2, y2) in found:
        x, y = (x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5
        assert (x2 - x1, y2 - y1) == pytest.approx((5.0, 2.5))
        assert score == pytest.approx(expected[round(y), round(x)], abs=1e-6)
    assert max(score for score, _ in found) == pytest.approx(expected.max(), abs=1e-6)


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    sources = read_sources(write_sources(tmp_path / "s"))
    # Probabilities as they were found for features that agree less with each other than those of lite.
    return Finder(
        Voters(sources, finding(), TransferSettings(find=0.5)), Calibration(0.3, 9.0, 3.5, -8.0, "toy")
    )


@pytest.mark.parametrize("corners", [[(0, 0)], [(0, 100), (230, 0)]])
def test_each_object_gets_a_box(finder: Finder, corners: list[tuple[int, int]]) -> None:
    found = finder.find(on_black(*corners))
    assert len(found) == len(corners)
    assert all(min(each.box) >= 0 and each.box[2] <= 351 and each.box[3] <= 234 for each in found)
    for x, y in corners:
        assert max(overlap(each.box, (x, y, x + SIDE, y + SIDE)) for each in found) > 0.8
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_no_object_is_a_result(finder: Finder) -> None:
    assert finder.find(on_black()) == []


def test_what_cannot_see_is_refused_before_any_work(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path / "s"))
    (tmp_path / "images.json").write_text('{"images": [{"id": 1, "file_name": "s/images/s1.png"}]}')
    targets = read_targets(tmp_path / "images.json", sources)
    with pytest.raises(InputError, match=r"sided does not see where objects are, as lite does; give boxes"):
        transfer(sources, targets, matcher(), tmp_path / "out.json", TransferSettings(find=0.5))
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(InputError, match="by a probability, 0 to 1, got 2"):
        TransferSettings(find=2)


def test_lite_finds_real_animals_and_none_on_a_plain_image() -> None:
    data = shared("animalpose")
    sources = read_sources(data / "train.json", category="sheep")
    large = [
        each
        for each in sources.images
        if each.box is not None
        and 0.5 < longer_side(each.box) / max(each.size) < 0.9
        and len(each.keypoints.visible_ids) >= 14
    ]
    few = replace(sources, images=tuple(large[:5]))
    voters = Voters(few, Matcher.from_pretrained("lite", device="cpu"))
    finder = Finder(voters, voters.calibrate())
    for image in large[5:7]:
        found = finder.find(load_image(image.path))
        assert image.box is not None
        assert max((overlap(each.box, image.box) for each in found), default=0) > 0.5
    assert finder.find(load_image(np.full((200, 300, 3), 120, dtype=np.uint8))) == []
