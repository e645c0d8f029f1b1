from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geoaware.method.alignment import (
    PoseRule,
    best_pose,
    instance_matching_distance,
    match_posed,
    mirror_points,
    mutual_nn_distance,
    partner_points,
    pose_distances,
)
from geoaware.method.geometry import Canvas, pose_points
from geoaware.method.matching import MatchSettings, match
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from tests.reference import alignment as slow

ARGMAX = MatchSettings("argmax")


def random_map(seed: int, side: int, channels: int = 8) -> torch.Tensor:
    return torch.randn(channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("restricted", [False, True])
def test_imd_equals_its_loop(restricted: bool) -> None:
    source, target = random_map(0, 6), random_map(1, 5)
    source_mask = torch.zeros(20, 30)
    source_mask[4:15, 10:25] = 1
    target_mask = torch.ones(7, 7)
    target_mask[:3] = 0
    given = target_mask if restricted else None
    fast = instance_matching_distance(source, target, source_mask, given, resolution=8)
    loop = slow.instance_matching_distance(source, target, source_mask, given, 8)
    assert fast == pytest.approx(loop, abs=1e-5)


@pytest.mark.parametrize("zeros", [False, True])
def test_released_imd_equals_its_loop(zeros: bool) -> None:
    source, target = random_map(0, 6), random_map(1, 5)
    if zeros:
        # A channel that is zero in both plays no part, one that is zero in places counts for thousands.
        source[0] = target[0] = 0
        source[1, :2, :2] = target[1, 3:, 2:] = 0
    source_mask, target_mask = torch.zeros(20, 30), torch.ones(7, 7)
    source_mask[4:15, 10:25] = 1
    target_mask[:3] = 0
    given = source, target, source_mask, target_mask
    fast = instance_matching_distance(*given, resolution=8, released=True)
    assert fast == pytest.approx(slow.released_instance_matching_distance(*given, 8), rel=1e-5)
    plain = instance_matching_distance(*given, resolution=8)
    assert abs(fast - plain) > 0.05


def test_released_imd_by_hand() -> None:
    # Left (0, 1), right (1, 0): of four columns the second is (1/4, 3/4), which is no unit vector.
    source = torch.tensor([[[0.0, 1.0]] * 2, [[1.0, 0.0]] * 2])
    cell, there = torch.tensor([0.25, 0.75]), torch.tensor([1.0, 1.0]) / math.sqrt(2)
    second = torch.tensor([[0, 1, 0, 0]])
    for released, read in ((True, cell), (False, F.normalize(cell, dim=0))):
        found = instance_matching_distance(source, torch.ones(2, 4, 4), second, None, 4, released)
        assert found == pytest.approx((read - there).norm().item(), abs=1e-6)


def test_imd_by_hand() -> None:
    # Two cells: one has its equal in the target (distance 0), the other is at right angles to all (sqrt 2).
    source = torch.zeros(3, 1, 2)
    source[0, 0, 0] = source[1, 0, 1] = 1
    target = torch.zeros(3, 1, 2)
    target[0, 0, 0] = target[2, 0, 1] = 1
    source, target = (F.interpolate(each[None], size=(2, 2))[0] for each in (source, target))
    assert instance_matching_distance(source, target, resolution=2) == pytest.approx(math.sqrt(2) / 2)
    left = torch.tensor([[1, 0]])
    assert instance_matching_distance(source, target, left, resolution=2) == pytest.approx(0)


def test_imd_refuses_an_empty_mask() -> None:
    with pytest.raises(ValueError, match="source mask is empty"):
        instance_matching_distance(random_map(0, 4), random_map(1, 4), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="target mask is empty"):
        instance_matching_distance(random_map(0, 4), random_map(1, 4), torch.ones(4, 4), torch.zeros(4, 4))


@pytest.mark.parametrize("seed", range(4))
def test_mutual_nn_equals_its_loop(seed: int) -> None:
    source, target = random_map(seed, 6), random_map(seed + 100, 7)
    assert mutual_nn_distance(source, target) == pytest.approx(
        slow.mutual_nn_distance(source, target), abs=1e-5
    )


def test_mutual_nn_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = random_map(3, 7), random_map(4, 7)
    whole = mutual_nn_distance(source, target)
    monkeypatch.setattr("geoaware.method.alignment._ROWS_AT_ONCE", 10)
    assert mutual_nn_distance(source, target) == pytest.approx(whole, abs=1e-6)


def test_mutual_nn_leaves_zero_descriptors_out() -> None:
    source, target = random_map(3, 4), random_map(4, 4)
    padded_source, padded_target = (F.pad(each, (0, 2, 0, 2)) for each in (source, target))
    assert mutual_nn_distance(padded_source, padded_target) == pytest.approx(
        mutual_nn_distance(source, target)
    )
    assert mutual_nn_distance(torch.zeros(3, 2, 2), source[:3]) == 2.0


def test_best_pose_prefers_the_identity_on_ties_and_within_the_margin() -> None:
    assert best_pose({"identity": 1.0, "flip": 1.0}) == "identity"
    assert best_pose({"identity": 1.0, "flip": 0.97}) == "flip"
    assert best_pose({"identity": 1.0, "flip": 0.97}, margin=0.05) == "identity"
    assert best_pose({"identity": 1.0, "flip": 0.9, "rot90": 0.5}) == "rot90"


@pytest.fixture
def scene() -> dict:
    """A source whose cells are all different but for left/right: column x and its mirror look alike.

    Channels: a code for each (row, |x - middle|), and one for the side, small. The target shows the mirror
    image of the source, as of an animal that walks the other way.
    """
    side = 8
    codes = torch.eye(side * side // 2).reshape(-1, side, side // 2)
    half = torch.cat([codes, codes.flip(2)], dim=2)
    which = torch.where(torch.arange(side) < side // 2, -0.4, 0.4).expand(1, side, side)
    canvas = Canvas(side, side, side)
    source = FeatureMap(torch.cat([half, which]), canvas, "toy")
    # A network that knows left from right sees the mirrored image's left side as left again.
    mirrored = source
    return {"identity": source, "flip": mirrored}


def test_labelled_flip_reads_each_point_at_the_mirrored_place_of_its_partner(scene) -> None:
    points = [(1.0, 2.0), (6.0, 2.0), (3.0, 5.0)]
    mirrored = mirror_points(points, (8, 8), [1, 0, 2])
    found = match_posed(scene, scene["identity"], points, "flip", ARGMAX, mirrored)
    # partner of point 0 is (6, 2), mirrored to (1, 2); point 2 has no partner and is mirrored itself
    assert found.read_at.tolist() == [[1, 2], [6, 2], [4, 5]]
    assert found.pose == "flip"
    assert found.turned.all()
    expected = match(scene["flip"], scene["identity"], found.read_at, ARGMAX).points
    assert found.points.tolist() == expected.tolist()


def test_a_point_whose_partner_is_not_annotated_keeps_its_straight_match(scene) -> None:
    points = [(1.0, 2.0), (6.0, 2.0), (3.0, 5.0)]
    visible = torch.tensor([True, False, True])
    mirrored = mirror_points(points, (8, 8), [1, 0, 2], visible)
    found = match_posed(scene, scene["identity"], points, "flip", ARGMAX, mirrored)
    assert found.turned.tolist() == [False, True, True]
    straight = match(scene["identity"], scene["identity"], points, ARGMAX)
    assert found.points[0].tolist() == straight.points[0].tolist()
    assert found.read_at[0].tolist() == [1, 2]


def test_partners_are_found_without_labels(scene) -> None:
    # The side channel makes the mirrored image's left cell the nearest to the left cell.
    partners = partner_points(scene["identity"], scene["flip"], [(1, 2), (6, 2)], ARGMAX)
    assert partners.tolist() == [[1, 2], [6, 2]]
    found = match_posed(scene, scene["identity"], [(1, 2), (6, 2)], "flip", ARGMAX)
    assert found.points.tolist() == [[1, 2], [6, 2]]


def test_rotation_carries_the_points_along() -> None:
    data = torch.eye(16).reshape(16, 4, 4)
    straight = FeatureMap(data, Canvas(4, 4, 4), "toy")
    turned = FeatureMap(torch.rot90(data, 1, dims=(1, 2)), Canvas(4, 4, 4), "toy")
    found = match_posed({"identity": straight, "rot90": turned}, turned, [(3.0, 1.0)], "rot90", ARGMAX)
    assert found.points.tolist() == pose_points([(3.0, 1.0)], (4, 4), "rot90").tolist() == [[1.0, 0.0]]


def test_pose_distances_choose_by_mask_or_by_mutual_neighbours() -> None:
    maps = {
        pose: FeatureMap(random_map(seed, 8), Canvas(8, 8, 8), "toy")
        for seed, pose in enumerate(("identity", "flip"))
    }
    target = maps["flip"]
    assert best_pose(pose_distances(maps, target)) == "flip"
    mask = torch.zeros(8, 8)
    mask[2:4, 2:4] = 1
    by_mask = pose_distances(maps, target, {"identity": mask, "flip": mask})
    assert by_mask["flip"] == pytest.approx(0, abs=1e-3)
    assert by_mask["identity"] == pytest.approx(
        instance_matching_distance(maps["identity"].data, target.data, mask)
    )


def test_pose_rules_are_parsed() -> None:
    assert PoseRule.parse("mutual-nn") == PoseRule("mutual-nn", 0.0)
    assert PoseRule.parse("imd:0.01") == PoseRule("imd", 0.01)
    rule = PoseRule.parse("imd+padding+released:0.01")
    assert (rule.metric, rule.padding, rule.released, rule.margin) == ("imd", True, True, 0.01)
    assert PoseRule.parse("imd+released+padding:0.01") == rule
    assert PoseRule("imd", 0.01).as_released() == rule == rule.as_released()
    plain = PoseRule.parse("mutual-nn")
    assert (plain.metric, plain.padding, plain.released) == ("mutual-nn", False, False)
    for text in ("imd+", "imd+all", "padding", "", "nearest", "imd:", "imd:x", "imd:-1", "imd:2"):
        with pytest.raises(InputError, match="unknown pose rule"):
            PoseRule.parse(text)


@pytest.mark.parametrize("metric", ["mutual-nn", "imd"])
def test_rules_as_released(metric: str) -> None:
    canvas = Canvas(8, 4, 8)
    source, target = (FeatureMap(random_map(seed, 8), canvas, "toy") for seed in (0, 1))
    everywhere = torch.ones(8, 8)

    def distance(rule: str, masks: dict | None = None) -> float:
        return pose_distances({"identity": source}, target, masks, rule=PoseRule(rule))["identity"]

    whole = (
        slow.mutual_nn_distance(source.data, target.data)
        if metric == "mutual-nn"
        else slow.instance_matching_distance(source.data, target.data, everywhere, None, 8)
    )
    assert distance(f"{metric}+padding") == pytest.approx(whole, abs=1e-5)
    assert distance(metric) != pytest.approx(whole, abs=1e-3)
    released = instance_matching_distance(source.data, target.data, released=True)
    both = released if metric == "imd" else whole
    assert distance(f"{metric}+padding+released") == pytest.approx(both, abs=1e-5)
    mask = torch.zeros(8, 8)
    mask[3:5, 2:6] = 1
    on_mask = instance_matching_distance(source.data, target.data, mask, released=True)
    assert distance(f"{metric}+padding+released", {"identity": mask}) == on_mask


def test_whole_image_rule_is_the_imd_without_a_mask() -> None:
    source, target = (FeatureMap(random_map(seed, 8), Canvas(8, 8, 8), "toy") for seed in (0, 1))
    distance = pose_distances({"identity": source}, target, rule=PoseRule("imd"))["identity"]
    everywhere = torch.ones(8, 8)
    loop = slow.instance_matching_distance(source.data, target.data, everywhere, None, 8)
    assert distance == pytest.approx(loop, abs=1e-5)


def test_mutual_neighbours_ignore_the_padding() -> None:
    source, target = (FeatureMap(random_map(seed, 8), Canvas(8, 4, 8), "toy") for seed in (0, 1))
    inside = mutual_nn_distance(source.data[:, 2:6], target.data[:, 2:6])
    assert pose_distances({"identity": source}, target)["identity"] == pytest.approx(inside)
