from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoaware.method.matching import sample_descriptors
from geoaware.training.backbone.config import Objective
from geoaware.training.backbone.crops import OBJECT, OUTSIDE, UNKNOWN
from geoaware.training.backbone.objective import (
    Criterion,
    gaussians,
    ignored_cells,
    keypoint_entropy,
    own_entropy,
    presence_loss,
    turn_loss,
)
from geoaware.training.backbone.views import Batch
from tests.reference import tuning as slow

GRID, CHANNELS, CLASSES = 6, 4, 3
NEGATIVES = 2


def unit_maps(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, CHANNELS, GRID, GRID, generator=generator), dim=1)


def made_views(seed: int, count: int = 3, points: int = 4, seen: float = 0.7) -> Batch:
    """Three classes and a point on a limb on each view; one other object here and there."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return Batch(
        drawn(count, 3, 8, 8),
        drawn(NEGATIVES, 3, 8, 8),
        (3 * drawn(count, GRID, GRID)).floor(),
        torch.arange(count + NEGATIVES) % 5 - 1,
        (GRID - 1) * drawn(count, CLASSES + 1, 2),
        drawn(count, CLASSES + 1) < seen,
        drawn(count, GRID, GRID) < 0.2,
        (GRID - 1) * drawn(count, 2, CLASSES + 1, 2),
        drawn(count, 2, CLASSES + 1) < 0.4,
        torch.tensor([[0, 1]]),
        (GRID - 1) * drawn(1, 2, points, 2),
        drawn(1, points) < 0.6,
    )


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_agree_with_the_slow_loop(seed: int) -> None:
    views = made_views(seed)
    queries = sample_descriptors(unit_maps(seed, 3), views.xy)
    found = keypoint_entropy(queries, views.xy, views.visible, torch.tensor(7.0))
    wanted = slow.keypoint_entropy(queries, views.xy, views.visible, 7.0, same=1.0)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_searches_agree_with_the_slow_loop(seed: int) -> None:
    views, maps = made_views(seed), unit_maps(seed, 3)
    criterion = Criterion(CLASSES, CHANNELS, Objective())
    with torch.no_grad():
        cells, dense = criterion._searches(maps, views, torch.tensor(7.0))
    wanted = slow.searches(
        maps,
        sample_descriptors(maps, views.xy),
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
    criterion = Criterion(CLASSES, CHANNELS, Objective())
    torch.nn.init.constant_(criterion.prototypes, 0.0)
    criterion.prototypes.data[:, 1] = 1.0
    scale = torch.tensor(50.0)
    wrong = criterion._searches(maps, views, scale)[0]
    elsewhere = views.elsewhere.clone()
    elsewhere[:, 3:, 3:] = True
    fine = criterion._searches(maps, replace(views, elsewhere=elsewhere), scale)[0]
    assert float(wrong.detach() - fine.detach()) == pytest.approx(0.693, abs=0.02)


def test_every_part_has_a_gradient_and_the_total_is_their_weighted_sum() -> None:
    views = made_views(0, seen=1.0)
    weights = Objective(cells=0.5, dense=0.2, keypoints=0.7, own=0.9, presence=1.1, familiar=1.3, upright=1.7)
    criterion = Criterion(CLASSES, CHANNELS, weights)
    maps = unit_maps(0, 3).requires_grad_()
    presence = torch.zeros(3 + NEGATIVES, 1, GRID, GRID).requires_grad_()
    familiarity = torch.zeros(3 + NEGATIVES).requires_grad_()
    turns = torch.zeros(3 + NEGATIVES, 4).requires_grad_()
    parts = criterion(maps, presence, familiarity, turns, views)
    assert set(parts) == {"cells", "dense", "keypoints", "own", "presence", "familiar", "upright"}
    total = criterion.total(parts)
    assert float(total.detach()) == pytest.approx(
        sum(getattr(weights, name) * float(value.detach()) for name, value in parts.items()), rel=1e-5
    )
    total.backward()
    for each in (maps, presence, familiarity, turns, *criterion.parameters()):
        assert each.grad is not None
        assert float(each.grad.abs().sum()) > 0


class TestNegatives:
    """Images that show nothing that is trained on come behind the views."""

    def found(self, presence: Tensor, familiarity: Tensor, views: Batch | None = None) -> dict[str, Tensor]:
        views = views or made_views(0)
        criterion = Criterion(CLASSES, CHANNELS, Objective())
        turns = torch.zeros(len(views.turns), 4)
        return criterion(unit_maps(0, len(views.pixels)), presence, familiarity, turns, views)  # type: ignore[no-any-return]

    def test_familiar_by_hand(self) -> None:
        """Views at log 3, 0 and -log 3, negatives at log 3 and -log 7."""
        logits = torch.tensor([math.log(3), 0.0, -math.log(3), math.log(3), -math.log(7)])
        found = self.found(torch.zeros(5, 1, GRID, GRID), logits)["familiar"]
        wanted = -sum(map(math.log, (3 / 4, 1 / 2, 1 / 4, 1 / 4, 7 / 8))) / 5
        assert float(found) == pytest.approx(wanted, rel=1e-6)

    @pytest.mark.parametrize("seed", range(4))
    def test_familiar_agrees_with_the_slow_loop(self, seed: int) -> None:
        logits = 3 * torch.randn(5, generator=torch.Generator().manual_seed(seed))
        found = self.found(torch.zeros(5, 1, GRID, GRID), logits)["familiar"]
        wanted = slow.familiar(logits.tolist(), [True] * 3 + [False] * 2)
        assert float(found) == pytest.approx(wanted, rel=1e-5)

    def test_a_view_pulls_its_logit_up_and_a_negative_down(self) -> None:
        logits = torch.zeros(5, requires_grad=True)
        self.found(torch.zeros(5, 1, GRID, GRID), logits)["familiar"].backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == pytest.approx([-0.1, -0.1, -0.1, 0.1, 0.1])

    def test_every_cell_of_a_negative_is_outside(self) -> None:
        views = made_views(0)
        presence = torch.randn(5, 1, GRID, GRID, generator=torch.Generator().manual_seed(1))
        found = self.found(presence, torch.zeros(5))["presence"]
        regions = torch.cat([views.regions, torch.full((2, GRID, GRID), float(OUTSIDE))])
        assert float(found) == pytest.approx(slow.presence(presence, regions), rel=1e-5)

    def test_without_negatives_the_views_alone_count(self) -> None:
        views = replace(
            made_views(0), negatives=torch.zeros(0, 3, 8, 8), turns=torch.zeros(3, dtype=torch.long)
        )
        presence = torch.randn(3, 1, GRID, GRID, generator=torch.Generator().manual_seed(1))
        found = self.found(presence, torch.zeros(3), views)
        assert float(found["presence"]) == pytest.approx(slow.presence(presence, views.regions), rel=1e-5)
        assert float(found["familiar"]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("seed", range(4))
def test_points_of_one_object_agree_with_the_slow_loop(seed: int) -> None:
    views, maps = made_views(seed), unit_maps(seed, 3)
    views = replace(
        views,
        pairs=torch.tensor([[0, 1], [1, 2]]),
        own=torch.cat([views.own, views.own.flip(2)]),
        known=torch.cat([views.known, ~views.known]),
    )
    found = own_entropy(maps, views, 0.7, torch.tensor(7.0))
    slowly = slow.own(maps, views.pairs, views.own, views.known, math.log(7.0), 0.7)
    assert float(found) == pytest.approx(slowly, rel=1e-4)


def parts_of(views: Batch, criterion: Criterion, maps: Tensor) -> dict[str, Tensor]:
    """Where presence and familiarity say nothing."""
    count = len(maps) + NEGATIVES
    presence, turns = torch.zeros(count, 1, GRID, GRID), torch.zeros(count, 4)
    return criterion(maps, presence, torch.zeros(count), turns, views)  # type: ignore[no-any-return]


def test_nothing_visible_and_no_object_twice() -> None:
    """A step without a label still has a gradient: none."""
    views = replace(
        made_views(0, seen=0.0),
        pairs=torch.zeros(0, 2, dtype=torch.long),
        own=torch.zeros(0, 2, 4, 2),
        known=torch.zeros(0, 4, dtype=torch.bool),
    )
    criterion = Criterion(CLASSES, CHANNELS, Objective())
    maps = unit_maps(0, 3).requires_grad_()
    parts = parts_of(views, criterion, maps)
    assert [parts[name].item() for name in ("cells", "dense", "keypoints", "own")] == [0, 0, 0, 0]
    criterion.total(parts).backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("log_scale", [2.0, 4.0, 5.0])
def test_the_factor_of_the_cosines_is_learned_up_to_eighty(log_scale: float) -> None:
    views, maps = made_views(0), unit_maps(0, 3)
    criterion = Criterion(CLASSES, CHANNELS, Objective())
    assert criterion.log_scale.exp().item() == pytest.approx(45)
    with torch.no_grad():
        criterion.log_scale.fill_(log_scale)
    parts_of(views, criterion, maps)["cells"].backward()
    assert criterion.log_scale.grad is not None
    assert (float(criterion.log_scale.grad) == 0) == (math.exp(log_scale) > 80)


def test_gradients() -> None:
    """Of everything that is learned, by finite differences."""
    views, criterion = made_views(0, seen=1.0), Criterion(CLASSES, CHANNELS, Objective()).double()
    views = replace(
        views, **{name: getattr(views, name).double() for name in ("xy", "own", "regions", "others")}
    )
    with torch.no_grad():
        criterion.log_scale.fill_(1.0)

    def searches(maps: Tensor, *_: Tensor) -> Tensor:
        return torch.stack(criterion._searches(maps, views, criterion.log_scale.exp()))

    maps = unit_maps(0, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(searches, (maps, *criterion.parameters()), fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda each: own_entropy(each, views, 0.7, criterion.log_scale.exp()), (maps,), fast_mode=True
    )


def logits(seed: int, views: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(views, 1, GRID, GRID, generator=generator, dtype=torch.float64)


class TestPresence:
    @pytest.mark.parametrize("seed", range(5))
    def test_fast_equals_slow(self, seed: int) -> None:
        regions = made_views(seed).regions.double()
        found = presence_loss(logits(seed, 3), regions)
        assert found.item() == pytest.approx(slow.presence(logits(seed, 3), regions), abs=1e-12)

    def test_object_and_outside_weigh_the_same(self) -> None:
        """One cell of an object at log 3, against fifteen outside at 0."""
        regions = torch.full((1, 4, 4), float(OUTSIDE))
        regions[0, 1, 2] = OBJECT
        found = torch.zeros(1, 1, 4, 4)
        found[0, 0, 1, 2] = math.log(3)
        assert presence_loss(found, regions).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)

    @pytest.mark.parametrize(
        ("region", "cost"), [(OBJECT, math.log(2) / 2), (OUTSIDE, math.log(2) / 2), (UNKNOWN, 0)]
    )
    def test_one_kind_of_region_alone(self, region: int, cost: float) -> None:
        regions = torch.full((2, 3, 3), float(region))
        assert presence_loss(torch.zeros(2, 1, 3, 3), regions).item() == pytest.approx(cost)

    def test_gradients(self) -> None:
        regions = made_views(1).regions
        found = logits(1, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda each: presence_loss(each, regions), (found,))
        presence_loss(found, regions).backward()
        assert not found.grad[:, 0][regions == UNKNOWN].any()
        assert (found.grad[:, 0][regions == OBJECT] < 0).all()
        assert (found.grad[:, 0][regions == OUTSIDE] > 0).all()


class TestTurns:
    def test_by_hand(self) -> None:
        """Of the second nobody knows the turn; the others have 3/6 and 1/4 of the softmax."""
        logits = torch.log(torch.tensor([[1.0, 3, 1, 1], [9, 1, 1, 1], [2, 2, 2, 2]]))
        found = turn_loss(logits, torch.tensor([1, -1, 3]))
        assert float(found) == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_where_none_is_known_it_is_nothing_and_has_no_gradient(self) -> None:
        logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        found = turn_loss(logits, torch.full((3,), -1))
        found.backward()
        assert found.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()


class TestGaussians:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(-2, 8), st.floats(-2, 8), st.sampled_from([0.3, 0.7, 3.0]))
    def test_fast_equals_slow(self, x: float, y: float, spread: float) -> None:
        found = gaussians(torch.tensor([[x, y]]).double(), GRID, spread)[0]
        wanted = torch.tensor(slow.wanted(x, y, GRID, spread)).double()
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)

    def test_on_a_cell(self) -> None:
        """Rows are y, columns x; a neighbour has exp(-1 / 2 s²) of the middle's share."""
        found = gaussians(torch.tensor([[[4.0, 1.0]], [[0.0, 5.0]]]), GRID, 0.7)
        assert found.shape == (2, 1, GRID, GRID)
        assert found.sum(dim=(2, 3)).flatten().tolist() == pytest.approx([1, 1])
        assert divmod(int(found[0, 0].argmax()), GRID) == (1, 4)
        ratio = found[0, 0, 1, 3] / found[0, 0, 1, 4]
        assert float(ratio) == pytest.approx(math.exp(-1 / (2 * 0.7**2)), rel=1e-5)

    def test_far_beyond_the_map_it_is_still_a_distribution(self) -> None:
        found = gaussians(torch.tensor([[500.0, -900.0]]), GRID, 0.7)
        assert found.isfinite().all()
        assert float(found.sum()) == pytest.approx(1)
