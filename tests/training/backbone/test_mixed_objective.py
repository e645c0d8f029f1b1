from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.training.backbone.mixed_objective import (
    MixedCriterion,
    MixedWeights,
    halved,
    ignored_cells,
    keypoint_entropy,
    relation_loss,
)
from geoaware.training.backbone.mixture import Views, Windows
from geoaware.training.backbone.objective import gaussians, read
from tests.reference import mixed as slow

GRID, CHANNELS, CLASSES = 6, 4, 3


def unit_maps(seed: int, count: int, channels: int = CHANNELS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, channels, GRID, GRID, generator=generator), dim=1)


def made_views(seed: int, count: int = 3, points: int = 4, seen: float = 0.7) -> Views:
    """Three classes and a point on a limb on each view; one other object here and there."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return Views(
        drawn(count, 3, 8, 8),
        (3 * drawn(count, GRID, GRID)).floor(),
        (GRID - 1) * drawn(count, CLASSES + 1, 2),
        drawn(count, CLASSES + 1) < seen,
        drawn(count, GRID, GRID) < 0.2,
        (GRID - 1) * drawn(count, 2, CLASSES + 1, 2),
        drawn(count, 2, CLASSES + 1) < 0.4,
        torch.tensor([[0, 1]]),
        (GRID - 1) * drawn(1, 2, points, 2),
        drawn(1, points) < 0.6,
        torch.tensor([0, 0, 1]),
    )


@pytest.mark.parametrize("seed", range(4))
def test_relations_agree_with_the_slow_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = unit_maps(seed, 2), unit_maps(seed + 10, 2, channels=7)
    inside = torch.rand(2, GRID, GRID, generator=generator) < 0.4
    found = relation_loss(ours, theirs, inside, 0.1)
    assert float(found) == pytest.approx(slow.relation_loss(ours, theirs, inside, 0.1), rel=1e-4)


def test_relations_are_met_by_a_rotation_of_the_descriptors_and_by_nothing_else() -> None:
    theirs = unit_maps(0, 3)
    turn = torch.linalg.qr(torch.randn(9, CHANNELS, generator=torch.Generator().manual_seed(1)))[0]
    everywhere = torch.ones(3, GRID, GRID, dtype=torch.bool)
    turned = torch.einsum("kc,wchv->wkhv", turn, theirs)
    assert float(relation_loss(turned, theirs, everywhere, 0.05)) == pytest.approx(0, abs=1e-5)
    assert float(relation_loss(unit_maps(1, 3), theirs, everywhere, 0.05)) > 0.5


def test_relations_of_no_cell_are_nothing_and_an_empty_window_is_passed_over() -> None:
    ours, theirs = unit_maps(0, 2), unit_maps(1, 2)
    inside = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    assert float(relation_loss(ours, theirs, inside, 0.05)) == 0
    inside[0] = True
    alone = relation_loss(ours[:1], theirs[:1], inside[:1], 0.05)
    assert float(relation_loss(ours, theirs, inside, 0.05)) == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_agree_with_the_slow_loop(seed: int) -> None:
    views = made_views(seed)
    queries = read(unit_maps(seed, 3), views.xy)
    found = keypoint_entropy(queries, views.xy, views.visible, torch.tensor(7.0))
    wanted = slow.keypoint_entropy(queries, views.xy, views.visible, 7.0, same=1.0)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_searches_agree_with_the_slow_loop(seed: int) -> None:
    views, maps = made_views(seed), unit_maps(seed, 3)
    criterion = MixedCriterion(CLASSES, CHANNELS, MixedWeights())
    with torch.no_grad():
        cells, dense = criterion._searches(maps, views, torch.tensor(7.0))
    wanted = slow.searches(
        maps,
        read(maps, views.xy),
        views.xy,
        views.visible,
        F.normalize(criterion.prototypes.detach(), dim=1),
        ignored_cells(views, GRID),
        gaussians(views.xy, GRID, 0.7),
        7.0,
    )
    assert (float(cells), float(dense)) == pytest.approx(wanted, rel=1e-3)


def test_another_animal_is_no_wrong_place_but_the_true_place_is_never_ignored() -> None:
    views = made_views(0)
    elsewhere = torch.zeros(3, GRID, GRID, dtype=torch.bool)
    elsewhere[0, :, 3:] = True
    others = torch.full((3, 2, CLASSES + 1, 2), 5.0)
    visible = torch.zeros(3, 2, CLASSES + 1, dtype=torch.bool)
    visible[1, 0, 2] = True
    xy = torch.zeros(3, CLASSES + 1, 2)
    xy[0, 1] = torch.tensor([4.0, 0.0])
    found = ignored_cells(
        replace(views, elsewhere=elsewhere, others=others, others_visible=visible, xy=xy), GRID
    )
    assert torch.equal(found[0, 0], elsewhere[0])
    assert not found[0, 1, 0, 4]
    assert found[0, 1, 3, 4]
    # Only around the other's keypoint of the same class.
    assert found[1, 2, 5, 5]
    assert found[1, 2, 5, 3]
    assert not found[1, 2, 5, 2]
    assert not found[1, 1].any()
    assert not found[2].any()


def test_a_match_on_another_animal_costs_nothing() -> None:
    """The same descriptor twice: a mistake, unless another object of the kind is there."""
    views = replace(
        made_views(0),
        xy=torch.full((3, CLASSES + 1, 2), 1.0),
        visible=torch.ones(3, CLASSES + 1, dtype=torch.bool),
        elsewhere=torch.zeros(3, GRID, GRID, dtype=torch.bool),
        others_visible=torch.zeros(3, 2, CLASSES + 1, dtype=torch.bool),
    )
    maps = torch.zeros(3, CHANNELS, GRID, GRID)
    maps[:, 0] = 1.0
    maps[:, :, 0:3, 0:3] = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(4, 1, 1)
    maps[:, :, 3:, 3:] = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(4, 1, 1)
    criterion = MixedCriterion(CLASSES, CHANNELS, MixedWeights())
    torch.nn.init.constant_(criterion.prototypes, 0.0)
    criterion.prototypes.data[:, 1] = 1.0
    scale = torch.tensor(50.0)
    wrong = criterion._searches(maps, views, scale)[0]
    elsewhere = views.elsewhere.clone()
    elsewhere[:, 3:, 3:] = True
    fine = criterion._searches(maps, replace(views, elsewhere=elsewhere), scale)[0]
    assert float(wrong) - float(fine) == pytest.approx(0.693, abs=0.02)


def test_every_part_has_a_gradient_and_the_total_is_their_weighted_sum() -> None:
    views, weights = made_views(0, seen=1.0), MixedWeights()
    criterion = MixedCriterion(CLASSES, CHANNELS, weights)
    maps, presence = unit_maps(0, 3).requires_grad_(), torch.zeros(3, 1, GRID, GRID).requires_grad_()
    plain, joined = unit_maps(1, 2).requires_grad_(), unit_maps(2, 2).requires_grad_()
    seen = torch.zeros(2, 1, GRID, GRID).requires_grad_()
    windows = Windows(
        torch.zeros(2, 3, 8, 8),
        halved(unit_maps(3, 2)),
        torch.ones(2, GRID // 2, GRID // 2, dtype=torch.bool),
        torch.tensor([True, False]),
    )
    parts = criterion(maps, presence, views, plain, joined, seen, windows)
    total = criterion.total(parts)
    assert float(total) == pytest.approx(
        sum(getattr(weights, name) * float(value) for name, value in parts.items()), rel=1e-5
    )
    total.backward()
    for each in (maps, presence, plain, joined, seen):
        assert each.grad is not None
        assert float(each.grad.abs().sum()) > 0
    # A window that may show an animal says nothing of presence, and its joined descriptors are free.
    assert float(seen.grad[1].abs().sum()) == 0
    assert float(joined.grad[1].abs().sum()) == 0
