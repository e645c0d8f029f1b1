from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from geoaware.features.framed import UPRIGHT
from geoaware.features.tuned import STRIDE
from geoaware.method.geometry import pose_image
from geoaware.method.keypoints import Schema
from geoaware.training.backbone.config import Views
from geoaware.training.backbone.crops import OBJECT, OTHERS, SIZE, UNKNOWN, Crops
from geoaware.training.backbone.unlabelled import CANVAS, Unlabelled
from geoaware.training.backbone.views import Batch, Camera, Share, _turn_back, to_device
from geoaware.training.backbone.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of(
    [Schema(("left_ear", "right_ear", "nose"), flip_pairs=((0, 1),), skeleton=((0, 2), (1, 2)))]
)
LEFT, RIGHT, NOSE = 0, 1, 2
COLOURS = {LEFT: 0, RIGHT: 1, NOSE: 2}
"""Channel in which the spot of each keypoint shines."""

EVEN: dict[str, Any] = {"colour": 0, "background": 0, "recolour": 0}
"""Light and colours tell which spot is which."""

STILL = {**EVEN, "smaller": 0.5, "larger": 0.9, "cover": 0, "mirror": 0, "turn": 0, "upside": 0}
VIEW = 160

PAINT = [(204, 0, 0), (0, 204, 0), (204, 0, 204), (0, 0, 204)]
"""Of each image without labels."""


def made_crops(count: int = 2, masked: bool = False) -> Crops:
    """An ear on the left, red, one on the right, green, a blue nose between and below; a neighbour's nose."""
    places = {LEFT: (110, 120), RIGHT: (210, 120), NOSE: (160, 200)}
    pixels = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    xy = np.zeros((count, 3, 2), np.float32)
    for keypoint, (x, y) in places.items():
        pixels[:, y - 10 : y + 11, x - 10 : x + 11, COLOURS[keypoint]] = 255
        xy[:, keypoint] = x, y
    others_xy = np.zeros((count, OTHERS, 3, 2), np.float32)
    others_visible = np.zeros((count, OTHERS, 3), bool)
    others_box = np.zeros((count, OTHERS, 4), np.float32)
    others_xy[:, 0, NOSE], others_visible[:, 0, NOSE] = (280, 280), True
    others_box[:, 0] = 240, 240, 319, 319
    regions = np.full((count, SIZE, SIZE), UNKNOWN, np.uint8)
    regions[:, 107:214, 107:214] = OBJECT
    return Crops(
        pixels, regions, xy, np.ones((count, 3), bool),
        np.tile(np.array([107, 107, 213, 213], np.float32), (count, 1)),
        np.full(count, masked), others_xy, others_visible, others_box,
        (np.arange(0, count, 2), np.arange(1, count, 2)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def others() -> Unlabelled:
    """A dog, a motorbike, a child and a violin, each of one colour: the negatives are green and blue."""
    return Unlabelled(
        np.broadcast_to(np.array(PAINT, np.uint8)[:, None, None], (4, CANVAS, CANVAS, 3)), np.array([1, 3])
    )


def camera(
    others: Unlabelled, seed: int = 0, vocabulary: Vocabulary = VOCABULARY, size: int = VIEW, **views: Any
) -> Camera:
    return Camera(Views(**views), vocabulary, others, size, torch.Generator().manual_seed(seed))


def drawn(
    crops: Crops, others: Unlabelled, seed: int = 0, twice: int = 1, negatives: int = 2, **views: Any
) -> Batch:
    return camera(others, seed, **views).batch([Share(crops, 2, twice)], 2, 5, negatives)


def shines(views: Batch, row: int, keypoint: int, channel: int) -> bool:
    x, y = (STRIDE * views.xy[row, keypoint] + STRIDE // 2).round().long().clamp(0, VIEW - 1).tolist()
    pixel = views.pixels[row, :, y, x]
    return int(pixel.argmax()) == channel


@pytest.mark.parametrize("seed", range(6))
def test_labels_move_with_the_pixels_and_change_names_in_the_mirror(others: Unlabelled, seed: int) -> None:
    views = drawn(made_crops(), others, seed, **EVEN, cover=0, smaller=0.5, larger=0.9)
    mirrored = 0
    for row in range(len(views.pixels)):
        if not views.visible[row, :3].all():
            continue
        here = shines(views, row, LEFT, COLOURS[LEFT])
        # In the mirror the red ear is the right one.
        mirrored += not here
        assert shines(views, row, LEFT, COLOURS[LEFT] if here else COLOURS[RIGHT])
        assert shines(views, row, RIGHT, COLOURS[RIGHT] if here else COLOURS[LEFT])
        assert shines(views, row, NOSE, COLOURS[NOSE])
        # The ears, seen from the nose, turn the other way round in the mirror.
        ears = views.xy[row, :2] - views.xy[row, NOSE]
        turn = float(ears[0, 0] * ears[1, 1] - ears[0, 1] * ears[1, 0])
        assert turn > 0
    assert 0 <= mirrored <= len(views.pixels)


def test_mirror_images_and_turns_occur(others: Unlabelled) -> None:
    angles = []
    for seed in range(8):
        xy = drawn(made_crops(), others, seed, **EVEN, cover=0, upside=1.0).xy
        across = xy[:, RIGHT] - xy[:, LEFT]
        angles += torch.atan2(across[:, 1], across[:, 0]).tolist()
    assert min(angles) < -2
    assert max(angles) > 2


def test_an_object_shown_twice_has_its_points_on_both_views(others: Unlabelled) -> None:
    views = drawn(made_crops(), others, **EVEN, cover=0, smaller=0.5, larger=0.8)
    assert len(views.pixels) == 3
    assert views.pairs.tolist() == [[0, 1]]
    assert views.known.shape == (1, 5)
    assert views.known.any()
    # Where in the triangle of the keypoints a point lies does not change.
    for place in views.known[0].nonzero().flatten().tolist():
        shares = []
        for side, row in enumerate((0, 1)):
            corners = torch.cat([views.xy[row, :3].T, torch.ones(1, 3)])
            point = torch.cat([views.own[0, side, place], torch.ones(1)])
            shares.append(torch.linalg.solve(corners, point))
        turned = shares[1][list(VOCABULARY.partners)] if not torch.allclose(*shares, atol=0.05) else shares[1]
        assert torch.allclose(shares[0], turned, atol=0.05)


def test_points_on_limbs_are_visible_where_both_ends_are(others: Unlabelled) -> None:
    views = drawn(made_crops(), others, **STILL)
    assert views.xy.shape[1] == 3 + 2
    assert views.visible.all()
    for row in range(len(views.xy)):
        for limb in (3, 4):
            nose, point = views.xy[row, NOSE], views.xy[row, limb]
            apart = [torch.dist(views.xy[row, ear], point) + torch.dist(point, nose) for ear in (LEFT, RIGHT)]
            whole = [torch.dist(views.xy[row, ear], nose) for ear in (LEFT, RIGHT)]
            assert min(float(a - b) for a, b in zip(apart, whole, strict=True)) == pytest.approx(0, abs=1e-3)


def test_the_neighbour_is_elsewhere(others: Unlabelled) -> None:
    views = drawn(made_crops(), others, **{**STILL, "smaller": 0.4, "larger": 0.41})
    seen = 0
    for row in range(len(views.pixels)):
        x, y = views.others[row, 0, NOSE].round().long().tolist()
        if views.others_visible[row, 0, NOSE]:
            seen += 1
            assert views.elsewhere[row, y, x]
        for keypoint in range(3):
            column, line = views.xy[row, keypoint].round().long().tolist()
            assert not views.elsewhere[row, line, column]
    assert seen


def test_a_background_leaves_the_object_and_hides_the_rest(others: Unlabelled) -> None:
    views = drawn(made_crops(masked=True), others, **{**STILL, "background": 1.0})
    assert float(views.pixels.std()) > 0.1
    assert set(views.regions.unique().tolist()) == {OBJECT, UNKNOWN}
    assert shines(views, 0, NOSE, COLOURS[NOSE])


def test_what_is_covered_is_not_visible(others: Unlabelled) -> None:
    crops = made_crops()
    wide = Crops(**{**vars(crops), "visible": np.ones((2, 3), bool)})
    assert drawn(wide, others, **{**STILL, "cover": 1.0}).visible.all()  # fewer than 4: none
    five = Vocabulary.of([Schema(tuple("abcd"))])
    big = Crops(
        **{
            **vars(crops),
            "xy": np.tile(np.array([[110, 110], [210, 110], [110, 210], [210, 210]], np.float32), (2, 1, 1)),
            "visible": np.ones((2, 4), bool),
            "others_xy": np.zeros((2, OTHERS, 4, 2), np.float32),
            "others_visible": np.zeros((2, OTHERS, 4), bool),
        }
    )
    hidden = 0
    for seed in range(6):
        views = camera(others, seed, five, **{**STILL, "cover": 1.0}).batch([Share(big, 2, 0)], 0, 3, 1)
        hidden += int((~views.visible).sum())
    assert 0 < hidden < 6 * 2 * 4


def test_a_step_is_decided_by_its_seed(others: Unlabelled) -> None:
    first, again, other = (drawn(made_crops(), others, seed) for seed in (3, 3, 4))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.xy, again.xy)
    assert torch.equal(first.negatives, again.negatives)
    assert not torch.equal(first.pixels, other.pixels)
    assert not torch.equal(first.negatives, other.negatives)


class TestNegatives:
    def test_they_come_from_the_negatives_alone(self, others: Unlabelled) -> None:
        seen = set()
        for seed in range(6):
            found = drawn(made_crops(), others, seed, negatives=5, colour=0).negatives
            assert found.shape == (5, 3, VIEW, VIEW)
            for each in found:
                # One image is one colour.
                assert torch.equal(each, each[:, :1, :1].expand_as(each))
                seen.add(tuple((255 * each[:, 0, 0]).round().int().tolist()))
        assert seen == {PAINT[1], PAINT[3]}

    def test_a_background_may_be_any_image(self, others: Unlabelled) -> None:
        chosen = camera(others)
        seen = {tuple((255 * chosen._backdrop(8)[:, 0, 0]).round().int().tolist()) for _ in range(40)}
        assert seen == set(PAINT)

    def test_each_is_a_part_of_the_image_and_its_turn_makes_it_upright(self) -> None:
        """Pixels that say where they lie: red grows to the right, green downwards."""
        ramp = np.zeros((1, CANVAS, CANVAS, 3), np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(CANVAS) // 2, np.arange(CANVAS)[:, None] // 2
        corners, turned = set(), set()
        for seed in range(4):
            found = drawn(made_crops(), Unlabelled(ramp, np.array([0])), seed, negatives=3, **STILL)
            views = (255 * found.negatives).round().byte().permute(0, 2, 3, 1).numpy()
            for pixels, turn in zip(views, found.turns[-3:].tolist(), strict=True):
                upright = np.asarray(pose_image(Image.fromarray(pixels), UPRIGHT[turn])).astype(int)
                turned.add(turn)
                # Of two neighbours with one value the first may be cut off.
                x, y = 2 * int(upright[0, 0, 0]), 2 * int(upright[0, 0, 1])
                assert 0 <= min(x, y) <= max(x, y) <= CANVAS - VIEW
                assert upright[0, -1, 0] in ((x + VIEW - 1) // 2, (x + VIEW) // 2)
                assert upright[-1, 0, 1] in ((y + VIEW - 1) // 2, (y + VIEW) // 2)
                corners.add((x, y))
        assert len(corners) > 4
        assert turned == {0, 1, 2, 3}

    def test_their_light_changes(self, others: Unlabelled) -> None:
        found = drawn(made_crops(), others, negatives=4, colour=0.4).negatives
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert float(found.std(dim=(2, 3)).max()) > 0

    def test_none_at_0_and_nothing_else_of_the_step_changes(self, others: Unlabelled) -> None:
        """Also where no image is a negative."""
        none = drawn(made_crops(), others, negatives=0)
        assert none.negatives.shape == (0, 3, VIEW, VIEW)
        bare = Unlabelled(others.pixels, np.array([], int))
        for other in (drawn(made_crops(), bare, negatives=0), drawn(made_crops(), others, negatives=3)):
            for name, each in vars(none).items():
                found = getattr(other, name)[: len(each)] if name == "turns" else getattr(other, name)
                assert name == "negatives" or torch.equal(found, each), name


class TestTurns:
    @pytest.mark.parametrize(
        ("degrees", "turn"),
        [
            (0, 0), (30, 0), (-30, 0), (31, -1), (59, -1), (60, 1), (90, 1), (120, 1), (-90, 3), (-60, 3),
            (150, 2), (180, 2), (-180, 2), (-149, -1),
        ],
    )  # fmt: skip
    def test_what_undoes_a_clockwise_turn(self, degrees: float, turn: int) -> None:
        assert _turn_back(float(degrees)) == turn

    @pytest.mark.parametrize("mirror", [0, 1])
    def test_it_makes_the_view_stand_upright(self, others: Unlabelled, mirror: float) -> None:
        """The nose is below the ears, in the mirror as well."""
        known = set()
        for seed in range(12):
            chosen = {**STILL, "upside": 1.0, "mirror": mirror}
            views = drawn(made_crops(), others, seed, negatives=0, **chosen)
            for xy, turn in zip(views.xy, views.turns.tolist(), strict=True):
                x, y = (xy[NOSE] - xy[:NOSE].mean(dim=0)).tolist()
                # A turn counterclockwise takes (x, y) to (y, -x), as y points down.
                for _ in range(turn):
                    x, y = y, -x
                known.add(turn)
                assert turn < 0 or y > 0.8 * math.hypot(x, y)
        assert known == {-1, 0, 1, 2, 3}

    def test_before_another_image_nobody_knows(self, others: Unlabelled) -> None:
        views = drawn(made_crops(masked=True), others, negatives=0, **{**STILL, "background": 1.0})
        assert views.turns.tolist() == [-1, -1, -1]
        assert drawn(made_crops(masked=True), others, negatives=0, **STILL).turns.tolist() == [0, 0, 0]


def test_light_changes_pixels_and_no_label(others: Unlabelled) -> None:
    bright, even = (drawn(made_crops(), others, **{**STILL, "colour": colour}) for colour in (0.4, 0.0))
    assert not torch.allclose(bright.pixels, even.pixels, atol=0.05)
    assert torch.equal(bright.xy, even.xy)
    assert 0 <= float(bright.pixels.min()) <= float(bright.pixels.max()) <= 1


def test_another_coat_is_the_object_s_alone(others: Unlabelled) -> None:
    changed = []
    for seed in range(6):
        coat, own = (
            drawn(made_crops(masked=True), others, seed, **{**STILL, "recolour": each}) for each in (1.0, 0.0)
        )
        change = F.max_pool2d((coat.pixels[0] - own.pixels[0]).abs().amax(dim=0)[None], STRIDE)[0]
        # The object with the cells around it, which its edge may touch.
        near = F.max_pool2d((coat.regions[:1] == OBJECT).float(), 3, stride=1, padding=1)[0] > 0
        assert not change[~near].any()
        assert (~near).any()
        changed.append(float(change[near].mean()))
    assert sum(each > 0.02 for each in changed) >= 4


def test_on_a_device_what_says_what_counts_stays(others: Unlabelled) -> None:
    moved = to_device(drawn(made_crops(), others), torch.device("meta"))
    assert moved.pixels.device.type == moved.negatives.device.type == moved.own.device.type == "meta"
    assert moved.visible.device.type == moved.pairs.device.type == "cpu"


def test_of_few_categories_a_step() -> None:
    """Four categories of one object each; a step of six objects shows those of two."""
    crops = replace(made_crops(4), members=tuple(np.array([row]) for row in range(4)))
    seen = set()
    for seed in range(12):
        rows = [row for row, _ in camera(Unlabelled.none(), seed)._objects(Share(crops, 6, 0, 2))]
        assert len(set(rows)) == 2
        assert all(rows.count(row) == 3 for row in rows)
        seen |= set(rows)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(("stride", "size"), [(14, 112), (16, 160)])
def test_on_a_grid_of_patches_and_without_other_images(stride: int, size: int) -> None:
    """Places are those on the map of the network; objects with masks stay where they are."""
    views = {**STILL, "background": 1.0, "recolour": 1.0}
    made, usual = (
        Camera(Views(**views), VOCABULARY, Unlabelled.none(), side, torch.Generator().manual_seed(1), each)
        for side, each in ((size, stride), (size, STRIDE))
    )
    shares = [Share(made_crops(masked=True), 2, 1)]
    coarse, fine = (each.batch(shares, 2, 5, 0) for each in (made, usual))
    assert torch.equal(coarse.pixels, fine.pixels)
    assert coarse.regions.shape[-1] == size // stride
    pixels = (stride * (coarse.xy + 0.5), STRIDE * (fine.xy + 0.5))
    torch.testing.assert_close(*pixels, atol=0.2, rtol=0)
    nose = (stride * coarse.xy[0, NOSE] + stride / 2).round().long()
    assert int(coarse.pixels[0, :, nose[1], nose[0]].argmax()) == COLOURS[NOSE]
