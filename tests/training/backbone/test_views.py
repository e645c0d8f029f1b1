"""Views of images made so that every pixel tells where it comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.method.geometry import Canvas
from geoaware.method.keypoints import Schema
from geoaware.training.backbone.images import OBJECT, OUTSIDE, UNKNOWN, Shown
from geoaware.training.backbone.views import Batch, restyled
from tests.training.backbone.tiny import PLACES, SIZE, batch_of, left_half, shown, slopes
from tests.training.toy_sets import SCHEMA

LOUD = {"colour": 0.4, "recolour": 0.5, "background": 0.7, "shuffle": 0.1}
"""The defaults of what `batch_of` leaves out, but for covers."""


def on_canvas(grid_xy: Tensor, grid: int = 32) -> Tensor:
    return Canvas(SIZE, SIZE, SIZE).from_grid(grid_xy, grid)


def spots(places: tuple[tuple[float, float], ...]) -> Tensor:
    """A canvas with a soft spot at each place, the first red, the second green, the third blue."""
    along = torch.arange(float(SIZE))
    away = [(along[None] - x) ** 2 + (along[:, None] - y) ** 2 for x, y in places]
    return torch.stack([255 * torch.exp(-each / (2 * 3.0**2)) for each in away])


def middle(channel: Tensor) -> Tensor:
    """Where the spot of a channel lies."""
    along = torch.arange(float(SIZE))
    return (
        torch.stack([(channel.sum(dim=0) * along).sum(), (channel.sum(dim=1) * along).sum()]) / channel.sum()
    )


def read(pixels: Tensor, xy: Tensor) -> Tensor:
    """Colours (n, 3) at canvas positions (n, 2), between pixels."""
    places = (2 * xy.float() + 1) / SIZE - 1
    return F.grid_sample(pixels[None], places[None, None], align_corners=False)[0, :, 0].T


def mirrored(batch: Batch, row: int) -> bool:
    """Whether a view of `slopes` is a mirror image: its red then rises anticlockwise of its green."""
    red, green, there = batch.pixels[row]
    inside = (there[:-1, :-1] > 0.999) & (there[:-1, 1:] > 0.999) & (there[1:, :-1] > 0.999)

    def rise(channel: Tensor) -> tuple[float, float]:
        across, down = channel[:-1, 1:] - channel[:-1, :-1], channel[1:, :-1] - channel[:-1, :-1]
        return float(across[inside].mean()), float(down[inside].mean())

    (a, b), (c, d) = rise(red), rise(green)
    return a * d - b * c < 0


class TestLabels:
    @pytest.mark.parametrize(("mirror", "labels"), [(0.0, (0, 1, 4)), (1.0, (1, 0, 4))])
    def test_they_lie_where_the_pixels_went_under_the_mirror_s_names(
        self, mirror: float, labels: tuple[int, int, int]
    ) -> None:
        """The left ear's spot is red, the right ear's green, the nose's blue; a mirror exchanges the ears."""
        made = shown(spots((PLACES[0], PLACES[1], PLACES[4])))
        found = 0
        for seed in range(12):
            batch = batch_of([made], seed, mirror=mirror)
            for row in range(2):
                for channel, label in enumerate(labels):
                    place = on_canvas(batch.labels[row])[label]
                    if not bool(((place > 18) & (place < SIZE - 19)).all()):
                        continue  # The spot may be cut off.
                    assert batch.visible[row][label]
                    torch.testing.assert_close(middle(batch.pixels[row, channel]), place, atol=0.1, rtol=0)
                    found += 1
        assert found > 20

    @pytest.mark.parametrize("mirror", [0.0, 1.0])
    def test_every_keypoint_shows_the_pixels_of_its_partner_in_the_mirror(self, mirror: float) -> None:
        """Red and green are the place on the image."""
        wanted = torch.tensor(PLACES)[list(SCHEMA.partners) if mirror else slice(None)] / 255
        seen = 0
        for seed in range(10):
            batch = batch_of([shown(slopes())], seed, mirror=mirror)
            for row in range(2):
                visible = batch.visible[row]
                there = read(batch.pixels[row], on_canvas(batch.labels[row]))[visible, :2]
                torch.testing.assert_close(there, wanted[visible], atol=1e-3, rtol=0)
                seen += int(visible.sum())
        assert seen > 60

    @pytest.mark.parametrize("mirror", [0.0, 1.0])
    def test_what_was_not_visible_is_not(self, mirror: float) -> None:
        """Without a left eye (2), a mirror image has no right one (3)."""
        for seed in range(5):
            batch = batch_of([shown(visible=(0, 1, 2, 4))], seed, mirror=mirror, smaller=0.5, larger=0.6)
            for visible in batch.visible:
                assert visible.tolist() == [True, True, not mirror, bool(mirror), True]

    def test_what_leaves_the_view_is_not_visible(self) -> None:
        hidden = 0
        for seed in range(10):
            batch = batch_of([shown()], seed, smaller=2.0, larger=3.0)
            for labels, visible in zip(batch.labels, batch.visible, strict=True):
                places = on_canvas(labels)
                inside = ((places >= 0) & (places <= SIZE - 1)).all(dim=1)
                assert torch.equal(visible, inside)
                hidden += int((~visible).sum())
        assert hidden > 0

    def test_rows_are_two_views_of_each_image_with_its_group(self) -> None:
        batch = batch_of([shown(group=1), shown(group=0), shown(group=1)])
        assert batch.groups == [1, 1, 0, 0, 1, 1]
        assert batch.pixels.shape == (6, 3, SIZE, SIZE)
        assert batch.regions.shape == (6, 32, 32)
        assert not torch.equal(batch.labels[0], batch.labels[1]), "two views differ"


JOINED = replace(SCHEMA, skeleton=((0, 2), (1, 3), (4, 4)))
"""Ears joined to eyes, and the nose to itself."""


class TestLimbs:
    @pytest.mark.parametrize("mirror", [0.0, 1.0])
    def test_they_show_the_pixels_between_the_ends_of_one_limb(self, mirror: float) -> None:
        """The same limb and place on every view; in a mirror, of the partners."""
        seen = 0
        names = torch.tensor(PLACES)[list(SCHEMA.partners) if mirror else slice(None)]
        for seed in range(10):
            batch = batch_of([shown(slopes())], seed, schema=JOINED, limbs=4, mirror=mirror)
            places = []
            for row in range(2):
                assert len(batch.labels[row]) == len(batch.visible[row]) == 9
                there = 255 * read(batch.pixels[row], on_canvas(batch.labels[row]))[5:, :2]
                places.append(there)
                for place, visible in zip(there, batch.visible[row][5:], strict=True):
                    away = []
                    for first, second in JOINED.skeleton:
                        start, along = names[first], names[second] - names[first]
                        share = ((place - start) @ along / (along @ along).clamp(min=1)).clamp(0, 1)
                        away.append(float(torch.dist(place, start + share * along)))
                    assert not visible or min(away) < 0.3
                    seen += int(visible)
            both = batch.visible[0][5:] & batch.visible[1][5:]
            torch.testing.assert_close(places[0][both], places[1][both], atol=0.3, rtol=0)
        assert seen > 40

    def test_both_ends_must_be_visible(self) -> None:
        """Without the left ear (0) nothing on its limb, but all of the rest."""
        for seed in range(8):
            batch = batch_of(
                [shown(visible=(1, 2, 3, 4))], seed, schema=JOINED, limbs=12, mirror=0.0,
                smaller=0.5, larger=0.6,
            )  # fmt: skip
            labels, visible = on_canvas(batch.labels[0]), batch.visible[0]
            start, end = labels[0], labels[2]
            for place, there in zip(labels[5:], visible[5:], strict=True):
                apart = torch.dist(place, start) + torch.dist(place, end) - torch.dist(start, end)
                assert bool(there) == (float(apart) > 1e-3)

    def test_what_leaves_the_view_or_is_covered_is_not_visible(self) -> None:
        hidden = 0
        for seed in range(10):
            batch = batch_of([shown()], seed, schema=JOINED, limbs=6, smaller=2.0, larger=3.0)
            for labels, visible in zip(batch.labels, batch.visible, strict=True):
                places = on_canvas(labels)[5:]
                inside = ((places >= 0) & (places <= SIZE - 1)).all(dim=1)
                assert not bool((visible[5:] & ~inside).any())
                hidden += int((~inside).sum())
        assert hidden > 0

    @pytest.mark.parametrize(("schema", "limbs"), [(SCHEMA, 3), (JOINED, 0)])
    def test_none_without_a_skeleton_or_if_none_are_wanted(self, schema: Schema, limbs: int) -> None:
        batch = batch_of([shown()], schema=schema, limbs=limbs)
        assert [len(each) for each in batch.labels] == [5, 5]


class TestStyles:
    def test_by_hand(self) -> None:
        """Mean 2 and deviation 1 against mean 10 and deviation 4, and halfway between."""
        first, second = torch.tensor([1.0, 3.0]), torch.tensor([6.0, 14.0])
        maps = torch.stack([first, second]).view(2, 1, 1, 2)
        ratio = 2.0**0.5  # Deviations are those of a sample.
        order = torch.tensor([1, 0])
        found = restyled(maps, order, torch.tensor([0.0, 1.0]))[:, 0, 0]
        torch.testing.assert_close(found, torch.tensor([[6.0, 14.0], [6.0, 14.0]]), atol=0.02, rtol=0)
        half = restyled(maps, order, torch.tensor([0.5, 1.0]))[0, 0, 0]
        torch.testing.assert_close(half, torch.tensor([3.5, 8.5]), atol=0.02, rtol=0)
        assert float(half.std() / ratio) == pytest.approx(2.5, abs=0.02)

    def test_views_that_keep_all_of_theirs_are_the_same(self) -> None:
        maps = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
        order = torch.tensor([2, 3, 1, 0])
        assert restyled(maps, order, torch.ones(4)) is maps
        found = restyled(maps, order, torch.tensor([1.0, 0.2, 1.0, 0.7]))
        torch.testing.assert_close(found[::2], maps[::2])
        assert not torch.allclose(found[1::2], maps[1::2], atol=0.01)

    def test_gradients_pass_through_the_maps_alone(self) -> None:
        """The statistics are taken as given: the slope is the factor."""
        maps = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
        found = restyled(maps, torch.tensor([1, 0]), torch.tensor([0.0, 1.0]))
        found.sum().backward()
        deviations = maps.detach().std(dim=(1, 2, 3)) + 1e-3
        ratio = float(deviations[1] / deviations[0])
        torch.testing.assert_close(maps.grad[0], torch.full((1, 3, 3), ratio))

    @pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
    def test_chances(self, chance: float) -> None:
        drawn = [batch_of([shown()] * 4, seed, styles=chance).styles for seed in range(20)]
        kept = torch.cat([share for _, share in drawn])
        assert float((kept < 1).float().mean()) == pytest.approx(chance, abs=0.12)
        assert bool((kept >= 0).all())
        for order, _ in drawn:
            assert sorted(order.tolist()) == list(range(8))


class TestPlaces:
    def apart(self, batch: Batch, row: int) -> float:
        """Of the first and the last keypoint, in canvas pixels."""
        labels = on_canvas(batch.labels[row])
        return float(torch.dist(labels[0], labels[4]))

    def test_objects_are_scaled_between_the_limits(self) -> None:
        was = float(torch.dist(torch.tensor(PLACES[0]), torch.tensor(PLACES[4])))
        scales = [
            self.apart(batch_of([shown()], seed, smaller=0.7, larger=1.3, mirror=0.0), row) / was
            for seed in range(40)
            for row in range(2)
        ]
        assert min(scales) == pytest.approx(0.7, abs=0.05)
        assert max(scales) == pytest.approx(1.3, abs=0.05)
        assert min(scales) >= 0.7 - 1e-4
        assert max(scales) <= 1.3 + 1e-4

    @pytest.mark.parametrize(("side", "scale"), [(8.0, 0.2 * SIZE / 8), (300.0, 1.15 * SIZE / 300)])
    def test_tiny_and_huge_ones_are_brought_to_the_view_s_size(self, side: float, scale: float) -> None:
        """A fifth of the view at least, a little more than it at most."""
        made = shown(box=(60.0, 60.0, 60.0 + side, 62.0))
        was = float(torch.dist(torch.tensor(PLACES[0]), torch.tensor(PLACES[4])))
        found = self.apart(batch_of([made], smaller=1.0, larger=1.0, mirror=0.0), 0) / was
        assert found == pytest.approx(scale, rel=1e-4)

    @pytest.mark.parametrize(("upside", "most"), [(0.0, 20.0), (1.0, 180.0)])
    def test_turns_keep_to_their_limit_unless_any_angle_is_wanted(self, upside: float, most: float) -> None:
        first, last = torch.tensor(PLACES[0]), torch.tensor(PLACES[4])
        straight = torch.atan2(*(last - first).flip(0))
        angles = []
        for seed in range(60):
            batch = batch_of([shown()], seed, mirror=0.0, turn=20.0, upside=upside)
            for labels in batch.labels:
                angle = torch.rad2deg(torch.atan2(*(labels[4] - labels[0]).flip(0)) - straight)
                angles.append(abs((float(angle) + 180) % 360 - 180))
        assert max(angles) <= most + 1e-3
        assert max(angles) > 0.85 * most

    def test_the_middle_of_the_object_stays_on_the_view(self) -> None:
        """Also of one in the image's corner."""
        made = shown(xy=[(4.0, 4.0)] * 5, box=(-6.0, -6.0, 14.0, 14.0))
        for seed in range(20):
            batch = batch_of([made], seed)
            assert all(bool(visible.all()) for visible in batch.visible)

    def test_chances_of_mirror_images(self) -> None:
        count = sum(
            mirrored(batch_of([shown(slopes())] * 2, seed, mirror=0.25), row)
            for seed in range(40)
            for row in range(4)
        )
        assert count == pytest.approx(40, abs=20)


class TestPoints:
    def test_both_views_show_the_same_pixels_there(self) -> None:
        counted = 0
        for seed in range(20):
            batch = batch_of([shown(slopes()), shown(slopes())], seed, points=20)
            for row in range(2):
                known = batch.known[row]
                first, second = (
                    read(batch.pixels[2 * row + view], on_canvas(batch.own[row, view]))[known]
                    for view in (0, 1)
                )
                torch.testing.assert_close(first, second, atol=1e-3, rtol=0)
                counted += int(known.sum())
        assert counted > 100

    def test_they_lie_between_two_keypoints(self) -> None:
        """Of three visible keypoints on a line, all points are on it, between the outer ones."""
        places = ((40.0, 50.0), (90.0, 50.0), (60.0, 50.0), (5.0, 5.0), (100.0, 110.0))
        made = shown(slopes(), xy=places, visible=(0, 1, 2))
        for seed in range(10):
            batch = batch_of([made], seed, points=30, mirror=0.0)
            there = 255 * read(batch.pixels[0], on_canvas(batch.own[0, 0]))[batch.known[0]]
            assert bool(((there[:, 1] - 50).abs() < 0.2).all())
            assert bool(((there[:, 0] > 39.8) & (there[:, 0] < 90.2)).all())

    def test_mirror_images_of_each_other_have_none(self) -> None:
        """A left paw and a right one would be taught to be the same."""
        seen = set()
        for seed in range(20):
            batch = batch_of([shown(slopes())], seed, smaller=0.5, larger=0.6, points=8, mirror=0.5)
            turned = [mirrored(batch, row) for row in range(2)]
            assert bool(batch.known.all()) == bool(batch.known.any()) == (turned[0] == turned[1])
            seen.add(tuple(turned))
        assert len(seen) == 4

    def test_what_leaves_a_view_does_not_count(self) -> None:
        lost = 0
        for seed in range(10):
            batch = batch_of([shown()], seed, smaller=2.0, larger=3.0, mirror=0.0, points=20)
            places = on_canvas(batch.own[0])
            inside = ((places >= 0) & (places <= SIZE - 1)).all(dim=-1).all(dim=0)
            assert torch.equal(batch.known[0], inside)
            lost += int((~inside).sum())
        assert lost > 0

    def test_with_a_mask_they_lie_on_the_object(self) -> None:
        """The left half of the image; keypoints lie in both."""
        inside = outside = 0
        for seed in range(10):
            batch = batch_of(
                [shown(slopes(), left_half())], seed, points=30, mirror=0.0, smaller=0.5, larger=0.6
            )
            x = 255 * read(batch.pixels[0], on_canvas(batch.own[0, 0]))[:, 0]
            sure = (x - 63.5).abs() > 0.3
            assert torch.equal(batch.known[0][sure], (x < 63.5)[sure])
            inside, outside = inside + int((x < 63).sum()), outside + int((x > 64).sum())
        assert inside > 50
        assert outside > 50

    def test_none_at_all(self) -> None:
        batch = batch_of([shown()], points=0)
        assert batch.own.shape == (1, 2, 0, 2)
        assert batch.known.shape == (1, 0)


class TestCovers:
    def covered(self, seed: int) -> tuple[Batch, Batch]:
        """The same views without and with covers; no spot of the images is as they are."""
        images = [shown()] * 2
        return batch_of(images, seed, mirror=0.0), batch_of(images, seed, mirror=0.0, cover=1.0)

    def test_covered_keypoints_are_not_visible(self) -> None:
        hidden = 0
        for seed in range(25):
            bare, batch = self.covered(seed)
            for row in range(4):
                rows, columns = (bare.pixels[row] != batch.pixels[row]).any(dim=0).nonzero().unbind(dim=1)
                assert len(rows), "every object is covered"
                low = torch.tensor([int(columns.min()), int(rows.min())])
                high = torch.tensor([int(columns.max()), int(rows.max())])
                places = on_canvas(bare.labels[row])
                assert torch.equal(batch.labels[row], bare.labels[row])
                inside = ((places > low + 1) & (places < high - 1)).all(dim=1)
                apart = ((places < low - 1) | (places > high + 1)).any(dim=1)
                assert not bool((batch.visible[row] & inside).any())
                assert torch.equal(batch.visible[row][apart], bare.visible[row][apart])
                hidden += int((inside & bare.visible[row]).sum())
        assert hidden > 5

    def test_a_cover_is_a_rectangle_a_third_as_large_as_the_object_at_most(self) -> None:
        for seed in range(10):
            bare, batch = self.covered(seed)
            for row in range(4):
                changed = (bare.pixels[row] != batch.pixels[row]).any(dim=0)
                rows, columns = changed.nonzero().unbind(dim=1)
                whole = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert float(whole.float().mean()) > 0.95
                labels = on_canvas(bare.labels[row])
                first, last = torch.tensor(PLACES[0]), torch.tensor(PLACES[4])
                side = 64 * float(torch.dist(labels[0], labels[4]) / torch.dist(first, last))
                assert max(whole.shape) <= 0.35 * side + 2

    def test_regions_and_points_stay(self) -> None:
        bare, batch = self.covered(3)
        assert torch.equal(bare.regions, batch.regions)
        assert torch.equal(bare.own, batch.own)
        assert torch.equal(bare.known, batch.known)


def halves(pixels: Tensor | None = None) -> Shown:
    """An image with a mask whose red says how much of it the object is."""
    if pixels is None:
        pixels = shown().pixels.clone()
        pixels[0] = 255 * (left_half() == OBJECT)
    return shown(pixels, left_half())


class TestShuffled:
    def test_they_show_no_object_and_have_no_keypoints(self) -> None:
        images = [halves(), shown(regions=left_half())]
        whole, batch = batch_of(images, 4), batch_of(images, 4, shuffle=1.0)
        assert not any(bool(each.any()) for each in batch.visible)
        assert not bool(batch.known.any())
        assert bool((whole.regions == OBJECT).any())
        expected = torch.where(
            whole.regions == OBJECT, torch.full_like(whole.regions, OUTSIDE), whole.regions
        )
        assert torch.equal(batch.regions, expected)

    def test_nobody_knows_more_than_before(self) -> None:
        unknown = shown(regions=torch.full((SIZE, SIZE), UNKNOWN))
        assert bool((batch_of([unknown] * 2, 1, shuffle=1.0).regions == UNKNOWN).any())

    def test_the_same_pixels_in_another_order(self) -> None:
        whole, batch = batch_of([shown()] * 2, 4), batch_of([shown()] * 2, 4, shuffle=1.0)
        for row in range(4):
            before, after = whole.pixels[row].flatten(1), batch.pixels[row].flatten(1)
            assert torch.equal(before.sort(dim=1).values, after.sort(dim=1).values)
            assert float((before != after).float().mean()) > 0.5

    def test_one_of_two_views_is_enough_for_points_not_to_count(self) -> None:
        halved = 0
        for seed in range(20):
            images = [shown(slopes())] * 2
            whole, batch = (batch_of(images, seed, mirror=0.0, shuffle=each) for each in (0.0, 0.5))
            for row in range(2):
                views = slice(2 * row, 2 * row + 2)
                changed = (whole.pixels[views] != batch.pixels[views]).flatten(1).any(dim=1)
                assert [bool(each.any()) for each in batch.visible[views]] == (~changed).tolist()
                expected = whole.known[row] & ~changed.any()
                assert torch.equal(batch.known[row], expected)
                halved += int(changed.sum()) == 1
        assert halved > 5


class TestBackground:
    def test_it_replaces_what_is_outside_the_mask_and_nothing_else(self) -> None:
        """By a view of an image that has no mask."""
        images = [halves(), shown()]
        replaced = set()
        for seed in range(6):
            bare, batch = batch_of(images, seed), batch_of(images, seed, background=1.0)
            assert torch.equal(bare.pixels[2:], batch.pixels[2:]), "images without a mask"
            for row in range(2):
                alpha = bare.pixels[row, 0]
                inside, outside = alpha == 1, alpha == 0
                assert torch.equal(bare.pixels[row][:, inside], batch.pixels[row][:, inside])
                behind = [
                    each
                    for each in (2, 3)
                    if torch.equal(batch.pixels[row][:, outside], bare.pixels[each][:, outside])
                ]
                assert len(behind) == 1
                replaced.update(behind)
                assert int(inside.sum()) > 100
                assert int(outside.sum()) > 100
        assert replaced == {2, 3}

    def test_what_stands_there_may_be_of_a_taught_kind(self) -> None:
        images = [halves(), shown()]
        bare, batch = batch_of(images, 2), batch_of(images, 2, background=1.0)
        expected = torch.where(bare.regions == OUTSIDE, torch.full_like(bare.regions, UNKNOWN), bare.regions)
        assert torch.equal(batch.regions[:2], expected[:2])
        assert torch.equal(batch.regions[2:], bare.regions[2:])
        for a, b in zip(bare.labels, batch.labels, strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("image", ["masked", "plain"])
    def test_without_a_mask_or_another_image_nothing_is_replaced(self, image: str) -> None:
        images = [halves() if image == "masked" else shown()] * 2
        bare, batch = batch_of(images, 2), batch_of(images, 2, background=1.0)
        assert torch.equal(bare.pixels, batch.pixels)
        assert torch.equal(bare.regions, batch.regions)

    def test_another_coat_is_the_object_s_alone(self) -> None:
        images = [halves(), shown()]
        for seed in range(4):
            bare, batch = batch_of(images, seed), batch_of(images, seed, recolour=1.0)
            assert torch.equal(bare.pixels[2:], batch.pixels[2:])
            assert torch.equal(bare.regions, batch.regions)
            outside = bare.pixels[:2, 0] == 0
            changed = (bare.pixels != batch.pixels).any(dim=1)[:2]
            assert not bool((changed & outside).any())
            assert float(changed[bare.pixels[:2, 0] == 1].float().mean()) > 0.9


def around_cells(channel: Tensor) -> Tensor:
    """Mean of the four pixels around the middle of each of the grid's cells."""
    return F.avg_pool2d(channel[..., 1:-1, 1:-1], 2, stride=4)[:, 0]


class TestRegions:
    @pytest.mark.parametrize("mirror", [0.0, 1.0])
    def test_they_are_those_of_the_pixels_at_the_cells(self, mirror: float) -> None:
        """A cell's four pixels around its middle are all on the object, or none is, or it is at the edge."""
        batch = batch_of([halves(), halves()], 5, mirror=mirror)
        share = around_cells(batch.pixels[:, :1])
        assert share.shape == batch.regions.shape
        assert bool((batch.regions[share > 0.99] == OBJECT).all())
        assert bool((batch.regions[share < 0.01] == OUTSIDE).all())
        assert min(float((share > 0.99).float().mean()), float((share < 0.01).float().mean())) > 0.1

    def test_beyond_the_image_nothing_is(self) -> None:
        """Even of one that is all object."""
        made = shown(255 * torch.ones(3, SIZE, SIZE), torch.full((SIZE, SIZE), OBJECT))
        batch = batch_of([made] * 2, 5, smaller=0.5, larger=0.5)
        beyond = around_cells(batch.pixels[:, :1]) == 0
        assert bool((batch.regions[beyond] == OUTSIDE).all())
        assert float(beyond.float().mean()) > 0.1


def same(a: Batch, b: Batch) -> bool:
    tensors = all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "regions", "own", "known")
    )
    rows = all(
        torch.equal(x, y)
        for name in ("labels", "visible")
        for x, y in zip(getattr(a, name), getattr(b, name), strict=True)
    )
    return tensors and rows and a.groups == b.groups


class TestRandomness:
    @pytest.mark.parametrize("cover", [0.0, 1.0])
    def test_the_generator_alone_decides(self, cover: float) -> None:
        """Bit for bit: what else was drawn in the process does not matter."""
        images, batches = [halves(), shown(), shown(regions=left_half())], []
        for number in range(2):
            torch.manual_seed(number)
            batches.append(batch_of(images, 7, cover=cover, **LOUD))
        assert same(*batches)
        assert not same(batches[0], batch_of(images, 8, cover=cover, **LOUD))

    def test_the_images_are_left_as_they_are(self) -> None:
        images = [halves(), shown()]
        before = [replace(each, pixels=each.pixels.clone(), regions=each.regions.clone()) for each in images]
        batch_of(images, 1, cover=1.0, **{**LOUD, "shuffle": 1.0})
        for a, b in zip(images, before, strict=True):
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.regions, b.regions)

    def test_pixels_stay_between_nought_and_one(self) -> None:
        """Whatever the light."""
        for seed in range(5):
            pixels = batch_of([halves(), shown()], seed, cover=1.0, **{**LOUD, "colour": 2.0}).pixels
            assert float(pixels.min()) >= 0
            assert float(pixels.max()) <= 1
            assert bool(pixels.isfinite().all())

    def test_light_changes_pixels_and_no_label(self) -> None:
        bare, batch = (batch_of([halves(), shown()], 3, colour=each) for each in (0.0, 0.4))
        assert not torch.equal(bare.pixels, batch.pixels)
        assert same(bare, replace(batch, pixels=bare.pixels))
