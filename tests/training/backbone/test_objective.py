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
from geoaware.training.backbone.images import OBJECT, OUTSIDE, UNKNOWN
from geoaware.training.backbone.objective import (
    Criterion,
    Parts,
    far_from_labels,
    following,
    gaussians,
    plain_searches,
    presence_loss,
    searches,
)
from geoaware.training.backbone.views import Batch
from tests.reference import tuning as slow

GRID, CHANNELS, COUNTS = 6, 4, [3, 2]
"""A small map, and two kinds of objects of three and of two keypoints."""


def maps(seed: int, views: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(views, CHANNELS, GRID, GRID, generator=generator, dtype=dtype), dim=1)


def made_batch(
    seed: int, groups: tuple[int, ...] = (0, 1, 0), seen: float = 0.7, known: float = 0.6, points: int = 3
) -> Batch:
    """Two views of an image of each of these groups; places reach a little beyond the map."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    rows = [group for group in groups for _ in range(2)]
    return Batch(
        drawn(len(rows), 3, 8, 8),
        (3 * drawn(len(rows), GRID, GRID)).floor(),
        [(GRID + 1) * drawn(COUNTS[group], 2) - 1 for group in rows],
        [drawn(COUNTS[group]) < seen for group in rows],
        rows,
        (GRID - 1) * drawn(len(groups), 2, points, 2),
        drawn(len(groups), points) < known,
        (torch.arange(len(rows)), torch.ones(len(rows))),
    )


def criterion(seed: int = 0, **weights: float) -> Criterion:
    torch.manual_seed(seed)
    return Criterion(COUNTS, CHANNELS, Objective(**weights)).double()


def expected(made: Criterion, descriptors: Tensor, presence: Tensor, batch: Batch) -> list[float]:
    scale, spread = made.log_scale.item(), made.weights.spread
    prototypes = [each.detach() for each in made.prototypes]
    return [
        *slow.annotated(descriptors, batch.labels, batch.visible, batch.groups, prototypes, scale, spread),
        slow.own(descriptors, batch.own, batch.known, scale, spread),
        slow.presence(presence, batch.regions),
    ]


def values(parts: Parts) -> list[float]:
    """All but what is kept of plain descriptors."""
    return [each.item() for each in (parts.cells, parts.dense, parts.own, parts.presence)]


def logits(seed: int, views: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(views, 1, GRID, GRID, generator=generator, dtype=torch.float64)


class TestCriterion:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.sampled_from([0.4, 0.7, 2.0]))
    def test_fast_equals_slow(self, seed: int, share: float, spread: float) -> None:
        batch, made = made_batch(seed, seen=share, known=share), criterion(seed, spread=spread)
        descriptors, presence = maps(seed, 6), logits(seed, 6)
        found = values(made(descriptors, presence, batch))
        assert found == pytest.approx(expected(made, descriptors, presence, batch), abs=1e-9)

    @pytest.mark.parametrize("log_scale", [-1.0, 2.0, 4.0, 5.0])
    def test_the_factor_of_the_cosines_is_learned_up_to_sixty(self, log_scale: float) -> None:
        batch, made, descriptors = made_batch(3), criterion(), maps(3, 6)
        with torch.no_grad():
            made.log_scale.fill_(log_scale)
        parts = made(descriptors, logits(3, 6), batch)
        assert values(parts) == pytest.approx(expected(made, descriptors, logits(3, 6), batch), abs=1e-8)
        parts.cells.backward()
        assert (made.log_scale.grad == 0) == (math.exp(log_scale) > 60)

    def test_it_begins_at_twenty(self) -> None:
        assert criterion().log_scale.exp().item() == pytest.approx(20)

    def test_in_single_precision(self) -> None:
        """Labels are in float64 or in float32, as they come."""
        batch, made = made_batch(5), criterion().float()
        found = values(made(maps(5, 6, torch.float32), logits(5, 6).float(), batch))
        wanted = expected(made, maps(5, 6, torch.float32), logits(5, 6), batch)
        assert found == pytest.approx(wanted, abs=1e-4)

    def test_prototypes_of_other_lengths_are_the_same(self) -> None:
        batch, made, descriptors = made_batch(5), criterion(), maps(5, 6)
        before = values(made(descriptors, logits(5, 6), batch))
        with torch.no_grad():
            for each in made.prototypes:
                each.mul_(7)
        assert values(made(descriptors, logits(5, 6), batch)) == pytest.approx(before)

    def test_groups_do_not_search_each_other(self) -> None:
        """What views of the second kind look like is nothing to the first; the mean is over all searches."""
        batch, made, descriptors = made_batch(6, (0, 1, 0), 1.0), criterion(), maps(6, 6)

        def cells(descriptors: Tensor, *kinds: int) -> float:
            visible = [
                each & (group in kinds) for each, group in zip(batch.visible, batch.groups, strict=True)
            ]
            return made(descriptors, logits(6, 6), replace(batch, visible=visible)).cells.item()

        changed = descriptors.clone()
        changed[2:4] = maps(7, 2)
        assert cells(changed, 0) == pytest.approx(cells(descriptors, 0))
        assert cells(changed, 1) != pytest.approx(cells(descriptors, 1))
        # Three keypoints on four views, looked for from the other three and from a prototype; two on two.
        first, second = 3 * 4 * 4, 2 * 2 * 2
        mean = (first * cells(descriptors, 0) + second * cells(descriptors, 1)) / (first + second)
        assert cells(descriptors, 0, 1) == pytest.approx(mean)

    def test_no_visible_keypoint(self) -> None:
        batch, made = made_batch(2, seen=0.0), criterion()
        descriptors = maps(2, 6).requires_grad_()
        parts = made(descriptors, logits(2, 6), batch)
        assert (parts.cells.item(), parts.dense.item()) == (0, 0)
        assert parts.own.item() > 0
        parts.total(made.weights).backward()
        assert descriptors.grad.isfinite().all()

    def test_a_keypoint_on_one_view_alone_is_searched_from_its_prototype(self) -> None:
        batch, made, descriptors = made_batch(2, (1,), seen=0.0, known=0.0), criterion(), maps(2, 2)
        batch.visible[1][0] = True
        query = F.normalize(made.prototypes[1][0].detach(), dim=0).tolist()
        entropy, far = slow.search(query, descriptors[1], *batch.labels[1][0].tolist(), 20.0, 0.7)
        parts = made(descriptors, logits(2, 2), batch)
        assert values(parts)[:3] == pytest.approx([entropy, far, 0.0])

    @pytest.mark.parametrize("points", [0, 3])
    def test_no_point_that_counts(self, points: int) -> None:
        batch, made = made_batch(2, known=0.0, points=points), criterion()
        parts = made(maps(2, 6), logits(2, 6), batch)
        assert parts.own.item() == 0
        assert parts.cells.item() > 0

    def test_nothing_at_all(self) -> None:
        """A step without a label still has a gradient: none."""
        batch = replace(
            made_batch(2, seen=0.0, known=0.0), regions=torch.full((6, GRID, GRID), float(UNKNOWN)).double()
        )
        descriptors, presence = maps(2, 6).requires_grad_(), logits(2, 6).requires_grad_()
        made = criterion()
        parts = made(descriptors, presence, batch)
        assert values(parts) == [0, 0, 0, 0]
        parts.total(made.weights).backward()
        assert torch.equal(presence.grad, torch.zeros_like(presence))

    def test_parts_of_weight_zero_are_not_computed(self) -> None:
        batch, descriptors = made_batch(4), maps(4, 6)
        full = criterion()(descriptors, logits(4, 6), batch)
        none = criterion(dense=0, own=0)(descriptors, logits(4, 6), batch)
        assert (none.dense.item(), none.own.item()) == (0, 0)
        assert none.cells.item() == pytest.approx(full.cells.item())
        assert none.presence.item() == pytest.approx(full.presence.item())

    def test_total_by_hand(self) -> None:
        parts = Parts(*(torch.tensor(each) for each in (1.0, 10.0, 100.0, 10_000.0, 1000.0)))
        weights = Objective(cells=2, dense=0.5, own=0.25, presence=0.125, distillation=0.5)
        assert parts.total(weights).item() == 2 + 5 + 25 + 5000 + 125

    def test_gradients(self) -> None:
        """Of everything that is learned, by finite differences."""
        batch, made = made_batch(9, (0, 1), 0.8), criterion(9, spread=0.9)

        def total(descriptors: Tensor, presence: Tensor, *_: Tensor) -> Tensor:
            return made(descriptors, presence, batch).total(made.weights)

        with torch.no_grad():
            made.log_scale.fill_(1.0)
        inputs = maps(9, 4).requires_grad_(), logits(9, 4).requires_grad_()
        assert torch.autograd.gradcheck(total, (*inputs, *made.parameters()), fast_mode=True)

    def test_a_point_on_a_limb_is_a_keypoint_without_a_prototype(self) -> None:
        """One more label on each view of the second kind: two searches more, none from a prototype."""
        batch, made, descriptors = made_batch(6, (1,), 0.0), criterion(), maps(6, 2)
        places = torch.tensor([[1.0, 2.5], [3.5, 0.0]]).double()
        more = replace(
            batch,
            labels=[torch.cat([each, places[row : row + 1]]) for row, each in enumerate(batch.labels)],
            visible=[torch.cat([each, torch.tensor([True])]) for each in batch.visible],
        )
        searched = []
        for row in range(2):
            query = slow.unit(slow.read(descriptors[row], *places[row].tolist()))
            searched.append(slow.search(query, descriptors[1 - row], *places[1 - row].tolist(), 20.0, 0.7))
        parts = made(descriptors, logits(6, 2), more)
        assert parts.cells.item() == pytest.approx((searched[0][0] + searched[1][0]) / 2)
        assert parts.dense.item() == pytest.approx((searched[0][1] + searched[1][1]) / 2)

    def test_a_view_s_own_keypoint_teaches_nothing(self) -> None:
        """With a prototype alone to search it, nothing pulls at the descriptor that is read."""
        batch, made = made_batch(2, (1,), seen=0.0, known=0.0), criterion()
        batch.visible[0][1] = True
        batch.labels[0][1] = torch.tensor([2.0, 3.0])
        descriptors = maps(2, 2).requires_grad_()
        made(descriptors, logits(2, 2), batch).cells.backward()
        assert torch.equal(descriptors.grad[1], torch.zeros(CHANNELS, GRID, GRID).double())
        query = F.normalize(made.prototypes[1][1].detach(), dim=0)
        shares = (20 * torch.einsum("d,dhw->hw", query, descriptors[0].detach())).flatten().softmax(dim=0)
        goal = gaussians(torch.tensor([[2.0, 3.0]]).double(), GRID, 0.7)[0]
        pull = 20 * (shares.view(GRID, GRID) - goal) * query[:, None, None]
        torch.testing.assert_close(descriptors.grad[0], pull)


def plain_maps(seed: int, views: int) -> Tensor:
    """Of three channels that change slowly over the map, so that points are found back."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(views, 3, 2, 2, generator=generator, dtype=torch.float64)
    return F.normalize(F.interpolate(coarse, size=(GRID, GRID), mode="bilinear", align_corners=True), dim=1)


class TestKept:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from([(0, 1, 0), (0, 0, 0), (1,)]), st.sampled_from([0.0, 0.4]))
    def test_fast_equals_slow(self, seed: int, groups: tuple[int, ...], seen: float) -> None:
        views = 2 * len(groups)
        batch, made = made_batch(seed, groups, seen, 0.8, 6), criterion(seed)
        descriptors, plain = maps(seed, views), plain_maps(seed, views)
        wanted = slow.keep(
            descriptors, plain, batch.own, batch.known, batch.labels, batch.visible, batch.groups,
            made.log_scale.item(),
        )  # fmt: skip
        found = made(descriptors, logits(seed, views), batch, plain).distillation.item()
        assert found == pytest.approx(wanted, abs=1e-9)

    def test_some_points_are_kept(self) -> None:
        """Or the comparison above would be one of zeros."""
        found = [
            criterion()(
                maps(seed, 6), logits(seed, 6), made_batch(seed, seen=0.2), plain_maps(seed, 6)
            ).distillation
            for seed in range(10)
        ]
        assert sum(each.item() > 0 for each in found) > 5

    def test_without_plain_descriptors_nothing_is_kept(self) -> None:
        assert criterion()(maps(1, 6), logits(1, 6), made_batch(1)).distillation.item() == 0

    def test_no_point_that_counts(self) -> None:
        batch = made_batch(2, known=0.0)
        assert criterion()(maps(2, 6), logits(2, 6), batch, plain_maps(2, 6)).distillation.item() == 0

    def test_gradients(self) -> None:
        batch, made = made_batch(9, (0, 1), 0.0, 1.0, 6), criterion(9)
        plain = plain_maps(9, 4)
        with torch.no_grad():
            made.log_scale.fill_(1.0)
        descriptors = maps(9, 4).requires_grad_()

        def kept(descriptors: Tensor, _: Tensor) -> Tensor:
            return made(descriptors, logits(9, 4), batch, plain).distillation

        assert kept(descriptors, made.log_scale).item() > 0
        assert torch.autograd.gradcheck(kept, (descriptors, made.log_scale), fast_mode=True)

    def test_the_next_image_of_the_group(self) -> None:
        """A lone one is its own: its second view."""
        assert following([0, 0, 1, 1, 0, 0, 2, 2, 0, 0]) == [5, 3, 9, 7, 1]

    def test_where_points_are_found_by_hand(self) -> None:
        """Each cell of the target looks like one of the source, the columns exchanged."""
        source = torch.eye(4).view(1, 4, 2, 2)
        found, back = plain_searches(source, source.flip(3), torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
        assert found.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
        assert back.tolist() == [[[0.0, 0.0], [1.0, 1.0]]]

    def test_annotated_points_teach_themselves(self) -> None:
        """Three cells around a visible keypoint of the first view are left to it."""
        batch = made_batch(3, (0,), 0.0, points=3)
        batch.own[0, 0] = torch.tensor([[1.0, 1.0], [1.0, 4.5], [5.0, 1.0]])
        batch.labels[0][1] = torch.tensor([1.0, 1.5])
        batch.visible[0][1] = True
        assert far_from_labels(batch).tolist() == [[False, False, True]]
        batch.visible[0][1] = False
        assert far_from_labels(batch).tolist() == [[True, True, True]]


class TestSearches:
    def case(self, seed: int, q: int = 3, t: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        queries = F.normalize(torch.randn(q, CHANNELS, generator=generator, dtype=torch.float64), dim=1)
        xy = GRID * torch.rand(t, 2, generator=generator, dtype=torch.float64) - 0.5
        return queries, maps(seed, t), gaussians(xy, GRID, 0.7), xy

    @pytest.mark.parametrize("scale", [0.5, 20.0, 60.0])
    def test_fast_equals_slow(self, scale: float) -> None:
        queries, targets, goal, xy = self.case(1)
        entropy, far = searches(queries, targets, goal, xy, torch.tensor(scale).double())
        for row, query in enumerate(queries.tolist()):
            for column, target in enumerate(targets):
                found = entropy[row, column].item(), far[row, column].item()
                wanted = slow.search(query, target, *xy[column].tolist(), scale, 0.7)
                assert found == pytest.approx(wanted, abs=1e-9)

    def test_without_distances(self) -> None:
        case, scale = self.case(1), torch.tensor(20.0).double()
        (entropy, _), (same, far) = searches(*case, scale), searches(*case, scale, dense=False)
        assert torch.equal(entropy, same)
        assert torch.equal(far, torch.zeros(3, 2).double())

    def test_by_hand(self) -> None:
        """Four cells of which one is alike: weights e² to three ones; half of what is wanted lies there."""
        cells = torch.eye(4).view(1, 4, 2, 2)
        goal = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])
        entropy, far = searches(cells[:, :, 0, 0], cells, goal, torch.tensor([[0.5, 0.0]]), torch.tensor(2.0))
        total = math.exp(2) + 3
        assert entropy.item() == pytest.approx(math.log(total) - 0.5 * 2)
        found = 2 / total
        assert far.item() == pytest.approx(math.hypot(found - 0.5, found))

    def test_alike_everywhere_is_a_guess(self) -> None:
        """The cross-entropy is that of all cells, the place found the middle of the map."""
        alike = torch.ones(1, 1, GRID, GRID)
        xy = torch.tensor([[1.0, 4.0]])
        entropy, far = searches(torch.ones(2, 1), alike, gaussians(xy, GRID, 0.7), xy, torch.tensor(9.0))
        torch.testing.assert_close(entropy, torch.full((2, 1), math.log(GRID * GRID)))
        torch.testing.assert_close(far, torch.full((2, 1), math.hypot(1.5, 1.5)))

    def test_gradients(self) -> None:
        queries, targets, goal, xy = self.case(4)
        scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

        def both(queries: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
            return searches(queries, targets, goal, xy, scale)

        assert torch.autograd.gradcheck(both, (queries.requires_grad_(), targets.requires_grad_(), scale))


class TestPresence:
    @pytest.mark.parametrize("seed", range(5))
    def test_fast_equals_slow(self, seed: int) -> None:
        regions = made_batch(seed).regions
        found = presence_loss(logits(seed, 6), regions)
        assert found.item() == pytest.approx(slow.presence(logits(seed, 6), regions), abs=1e-12)

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
        regions = made_batch(1).regions
        found = logits(1, 6).requires_grad_()
        assert torch.autograd.gradcheck(lambda each: presence_loss(each, regions), (found,))
        presence_loss(found, regions).backward()
        assert not found.grad[:, 0][regions == UNKNOWN].any()
        assert (found.grad[:, 0][regions == OBJECT] < 0).all()
        assert (found.grad[:, 0][regions == OUTSIDE] > 0).all()


class TestReading:
    def test_between_cells_by_hand(self) -> None:
        cells = torch.tensor([[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]]])
        xy = torch.tensor([[[0.0, 0.0], [2.0, 1.0], [0.5, 0.0], [1.25, 1.5], [-3.0, 0.0], [9.0, 9.0]]])
        expected = torch.tensor([0.0, 5.0, 0.5, 5.75, 0.0, 8.0])
        torch.testing.assert_close(sample_descriptors(cells, xy)[0, :, 0], expected)

    def test_fast_equals_slow(self) -> None:
        views = maps(3, 4)
        xy = 9 * torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(1)).double() - 2
        found = sample_descriptors(views, xy)
        for view in range(4):
            for point in range(5):
                wanted = slow.read(views[view], *xy[view, point].tolist())
                assert found[view, point].tolist() == pytest.approx(wanted, abs=1e-9)

    def test_gradients(self) -> None:
        views = maps(3, 2).requires_grad_()
        xy = GRID * torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)).double()
        assert torch.autograd.gradcheck(lambda each: sample_descriptors(each, xy), (views,))

    def test_no_points(self) -> None:
        assert sample_descriptors(maps(3, 2), torch.zeros(2, 0, 2).double()).shape == (2, 0, CHANNELS)


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
