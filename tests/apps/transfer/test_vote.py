from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geoaware.apps.transfer.vote import (
    Queries,
    VoteSettings,
    against_rivals,
    choose_poses,
    mean_descriptors,
    source_distances,
    source_weights,
    vote,
)
from geoaware.method.geometry import Canvas
from geoaware.method.matching import MatchSettings, positions, soft_argmax, window_mass
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from tests.reference.transfer import other_peaks, voted_maps

POSES = ("identity", "flip")


def feature_map(data: torch.Tensor) -> FeatureMap:
    side = 10 * data.shape[-1]
    return FeatureMap(data, Canvas(side, side, side), "toy")


def queries(seed: int, sources: int = 4, keypoints: int = 3, channels: int = 6) -> Queries:
    generator = torch.Generator().manual_seed(seed)
    data = F.normalize(torch.randn(sources, 2, keypoints, channels, generator=generator), dim=-1)
    known = torch.rand(sources, 2, keypoints, generator=generator) < 0.7
    known[:, 0, 0] = True
    return Queries(POSES, data, known)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nearest", [0, 2])
def test_the_vote_is_that_of_the_slow_reference(seed: int, nearest: int) -> None:
    asked = queries(seed)
    target = feature_map(torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(100 + seed)))
    settings, match = VoteSettings(softness=0.2, rivals=0.3, nearest=nearest), MatchSettings(window=3)
    found = vote(asked, target, match, settings, pose_margin=0.05)
    sim, judged, chosen, distances = voted_maps(
        asked.descriptors.numpy(), asked.known.tolist(), target.data.numpy(), 0.2, 0.3, nearest, 0.05
    )
    slow = torch.tensor(judged).float()
    cells = positions(slow, match).double()
    best = int(np.argmin(distances))
    assert found.source == best
    assert found.pose == POSES[chosen[best]]
    assert found.distance == pytest.approx(distances[best], abs=1e-5)
    known = found.known
    assert known.any()
    # A map of 5 cells on a canvas of 50: cell g stands for 10 g + 5.
    torch.testing.assert_close(found.points[known], cells[known] * 10 + 5, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        found.evidence.mass[known], window_mass(slow, 3, 0.02)[known], atol=1e-4, rtol=0
    )
    for k in range(3):
        if not known[k] or known.sum() < 2:
            continue
        row, column = np.unravel_index(judged[k].argmax(), judged[k].shape)
        others = max(sim[j, row, column] for j in range(3) if j != k and known[j])
        assert float(found.evidence.peak[k]) == pytest.approx(sim[k, row, column], abs=1e-5)
        assert float(found.evidence.margin[k]) == pytest.approx(sim[k, row, column] - others, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_other_places_are_the_next_peaks_of_the_map(seed: int) -> None:
    """Read from the cells around each, with evidence as the first place has it."""
    asked = queries(seed)
    target = feature_map(torch.randn(6, 9, 9, generator=torch.Generator().manual_seed(100 + seed)))
    settings, match = VoteSettings(softness=0.2, rivals=0.3), MatchSettings(window=3)
    plain, found = (vote(asked, target, match, settings, 0.05, others=each) for each in (0, 3))
    assert plain.others is None
    torch.testing.assert_close(plain.points, found.points, rtol=0, atol=0)
    assert found.others is not None
    assert found.others.points.shape == (3, 3, 2)
    sim, judged, *_ = voted_maps(
        asked.descriptors.numpy(), asked.known.tolist(), target.data.numpy(), 0.2, 0.3, 0, 0.05
    )
    for k in found.known.nonzero().flatten().tolist():
        share = torch.tensor(judged[k] / 0.02).flatten().softmax(dim=0).view(9, 9)
        rivals = [j for j in range(3) if j != k and found.known[j]]
        for number, (y, x) in enumerate(other_peaks(judged[k], 3)):
            around = torch.full((1, 9, 9), -torch.inf)
            near = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
            around[0][near] = torch.tensor(judged[k]).float()[near]
            place = soft_argmax(around, 0.02)[0].double() * 10 + 5
            torch.testing.assert_close(found.others.points[k, number], place, atol=1e-2, rtol=0)
            evidence = [float(each[3 * k + number]) for each in vars(found.others.evidence).values()]
            margin = sim[k, y, x] - max((sim[j, y, x] for j in rivals), default=sim[k, y, x])
            assert evidence == pytest.approx([float(share[near].sum()), sim[k, y, x], margin], abs=1e-4)


def test_distances_by_hand() -> None:
    # cos 1 is distance 0, cos 0 is the root of 2, cos -1 is 2.
    peaks = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]])
    known = torch.tensor([[[True, True, False], [False, False, False]]])
    distances = source_distances(peaks, known)
    torch.testing.assert_close(distances, torch.tensor([[math.sqrt(2) / 2, math.inf]]))


def test_poses_by_hand() -> None:
    distances = torch.tensor([[1.0, 0.95], [1.0, 0.85], [1.0, math.inf], [math.inf, 0.5]])
    assert choose_poses(POSES, distances, 0.1).tolist() == [0, 1, 0, 1]
    assert choose_poses(POSES, distances, 0.0).tolist() == [1, 1, 0, 1]


def test_weights_by_hand() -> None:
    distances = torch.tensor([0.5, 0.4, 0.6, 0.4])
    expected = [math.exp(-1), 1.0, math.exp(-2), 1.0]
    assert source_weights(distances, VoteSettings(softness=0.1)).tolist() == pytest.approx(expected, abs=1e-6)
    assert source_weights(distances, VoteSettings(softness=0.1, nearest=3)).tolist() == pytest.approx(
        [math.exp(-1), 1.0, 0.0, 1.0], abs=1e-6
    )
    # Of two that are equally near, the first votes.
    assert source_weights(distances, VoteSettings(nearest=1)).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert source_weights(distances, VoteSettings(nearest=9)).min() > 0


def test_mean_descriptors_by_hand() -> None:
    descriptors = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    known = torch.tensor([[True, False], [True, False]])
    mean, there = mean_descriptors(descriptors, known, torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(mean, torch.tensor([[0.75, 0.25], [0.0, 0.0]]))
    assert there.tolist() == [True, False]


def test_rivals_by_hand() -> None:
    sim = torch.tensor([[[0.9, 0.2]], [[0.5, 0.6]], [[9.0, 9.0]]])
    known = torch.tensor([True, True, False])
    found = against_rivals(sim, known, 0.5)
    torch.testing.assert_close(found[:2], torch.tensor([[[0.65, -0.1]], [[0.05, 0.5]]]))
    assert against_rivals(sim, known, 0.0) is sim
    assert against_rivals(sim, torch.tensor([True, False, False]), 0.5) is sim


def test_equal_rivals_take_off_each_other() -> None:
    sim = torch.tensor([[[0.8]], [[0.8]]])
    torch.testing.assert_close(
        against_rivals(sim, torch.tensor([True, True]), 0.5), torch.tensor([[[0.4]], [[0.4]]])
    )


def test_sources_that_agree_outvote_one_that_does_not() -> None:
    data = torch.zeros(3, 4, 4)
    data[0] += 0.1
    data[:, 1, 2] = torch.tensor([0.0, 1.0, 0.0])
    data[:, 3, 0] = torch.tensor([0.0, 0.0, 1.0])
    descriptors = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[:, None, None]
    asked = Queries(("identity",), descriptors, torch.ones(3, 1, 1, dtype=torch.bool))
    found = vote(asked, feature_map(data), MatchSettings(window=1))
    assert found.points.tolist() == [[25.0, 15.0]]
    assert float(found.evidence.peak) == pytest.approx(2 / 3)
    alone = vote(asked, feature_map(data), MatchSettings(window=1), VoteSettings(nearest=1))
    assert float(alone.evidence.peak) == pytest.approx(1.0)
    assert vote(asked.without(0).without(0), feature_map(data)).source == 0


def test_nothing_is_found_outside_the_mask() -> None:
    target = feature_map(torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0)))
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[3, 1] = True
    found = vote(queries(1), target, MatchSettings(window=3), inside=inside)
    assert found.points.tolist() == pytest.approx(torch.tensor([[15.0, 35.0]] * 3), abs=1e-6)
    assert found.evidence.mass.tolist() == pytest.approx([1.0] * 3)


def test_a_keypoint_that_no_source_has_is_not_known() -> None:
    asked = queries(2)
    known = asked.known.clone()
    known[..., 1] = False
    target = feature_map(torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(5)))
    found = vote(replace(asked, known=known), target)
    assert found.known.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"softness": 0.0}, "softness must be above 0, got 0"),
        ({"rivals": 1.0}, "rivals must be 0 or more and less than 1, got 1"),
        ({"nearest": -1}, "nearest sources must be 0 .all. or more, got -1"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VoteSettings(**given)
