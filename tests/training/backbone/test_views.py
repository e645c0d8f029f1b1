from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from geoaware.features.tuned import STRIDE
from geoaware.method.keypoints import Schema
from geoaware.training.backbone.config import Views
from geoaware.training.backbone.crops import OBJECT, OTHERS, SIZE, UNKNOWN, Crops
from geoaware.training.backbone.plain import Plain
from geoaware.training.backbone.views import Batch, Camera, Share, to_device
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
def plain() -> Plain:
    """Two images without labels, a motorbike and a dog, and one with; their maps say where a cell is."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 448, 448, 3), dtype=np.uint8)
    along = np.tile(np.arange(28, dtype=np.float16), (28, 1))
    maps = np.stack([np.stack([along + 1, along.T + 1])] * 3)
    inside = np.array([[0, 28, 0, 28], [4, 24, 0, 28], [0, 28, 7, 21]], np.int16)
    return Plain(pixels, maps, inside, np.array([True, False, False]), 2)


def camera(
    plain: Plain, seed: int = 0, vocabulary: Vocabulary = VOCABULARY, size: int = VIEW, **views: Any
) -> Camera:
    return Camera(Views(**views), vocabulary, plain, size, torch.Generator().manual_seed(seed))


def drawn(crops: Crops, plain: Plain, seed: int = 0, twice: int = 1, **views: Any) -> Batch:
    return camera(plain, seed, **views).batch([Share(crops, 2, twice)], 2, 5)


def shines(views: Batch, row: int, keypoint: int, channel: int) -> bool:
    x, y = (STRIDE * views.xy[row, keypoint] + STRIDE // 2).round().long().clamp(0, VIEW - 1).tolist()
    pixel = views.pixels[row, :, y, x]
    return int(pixel.argmax()) == channel


@pytest.mark.parametrize("seed", range(6))
def test_labels_move_with_the_pixels_and_change_names_in_the_mirror(plain: Plain, seed: int) -> None:
    views = drawn(made_crops(), plain, seed, **EVEN, cover=0, smaller=0.5, larger=0.9)
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


def test_mirror_images_and_turns_occur(plain: Plain) -> None:
    angles = []
    for seed in range(8):
        xy = drawn(made_crops(), plain, seed, **EVEN, cover=0, upside=1.0).xy
        across = xy[:, RIGHT] - xy[:, LEFT]
        angles += torch.atan2(across[:, 1], across[:, 0]).tolist()
    assert min(angles) < -2
    assert max(angles) > 2


def test_an_object_shown_twice_has_its_points_on_both_views(plain: Plain) -> None:
    views = drawn(made_crops(), plain, **EVEN, cover=0, smaller=0.5, larger=0.8)
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


def test_points_on_limbs_are_visible_where_both_ends_are(plain: Plain) -> None:
    views = drawn(made_crops(), plain, **STILL)
    assert views.xy.shape[1] == 3 + 2
    assert views.visible.all()
    for row in range(len(views.xy)):
        for limb in (3, 4):
            nose, point = views.xy[row, NOSE], views.xy[row, limb]
            apart = [torch.dist(views.xy[row, ear], point) + torch.dist(point, nose) for ear in (LEFT, RIGHT)]
            whole = [torch.dist(views.xy[row, ear], nose) for ear in (LEFT, RIGHT)]
            assert min(float(a - b) for a, b in zip(apart, whole, strict=True)) == pytest.approx(0, abs=1e-3)


def test_the_neighbour_is_elsewhere(plain: Plain) -> None:
    views = drawn(made_crops(), plain, **{**STILL, "smaller": 0.4, "larger": 0.41})
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


def test_a_background_leaves_the_object_and_hides_the_rest(plain: Plain) -> None:
    views = drawn(made_crops(masked=True), plain, **{**STILL, "background": 1.0})
    assert float(views.pixels.std()) > 0.1
    assert set(views.regions.unique().tolist()) == {OBJECT, UNKNOWN}
    assert shines(views, 0, NOSE, COLOURS[NOSE])


def test_what_is_covered_is_not_visible(plain: Plain) -> None:
    crops = made_crops()
    wide = Crops(**{**vars(crops), "visible": np.ones((2, 3), bool)})
    assert drawn(wide, plain, **{**STILL, "cover": 1.0}).visible.all()  # fewer than 4: none
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
        views = camera(plain, seed, five, **{**STILL, "cover": 1.0}).batch([Share(big, 2, 0)], 0, 3)
        hidden += int((~views.visible).sum())
    assert 0 < hidden < 6 * 2 * 4


def test_a_step_is_decided_by_its_seed(plain: Plain) -> None:
    first, again, other = (drawn(made_crops(), plain, seed) for seed in (3, 3, 4))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.xy, again.xy)
    assert not torch.equal(first.pixels, other.pixels)


def test_windows_have_the_descriptors_of_their_place(plain: Plain) -> None:
    windows = camera(plain, size=256).windows(6, 4)
    assert windows.pixels.shape == (6, 3, 256, 256)
    assert windows.plain.shape == (6, 2, 16, 16)
    assert torch.linalg.vector_norm(windows.plain, dim=1).allclose(torch.ones(6, 16, 16))
    # Column over row of the corner: the map says where a cell of the whole image is.
    tangent = windows.plain[:, 0] / windows.plain[:, 1]
    assert bool((tangent[:, 0, 1:] > tangent[:, 0, :-1]).all())
    assert windows.inside.flatten(1).float().mean(dim=1).min() >= 0.5
    assert not windows.negative[4:].any()


def test_light_changes_pixels_and_no_label(plain: Plain) -> None:
    bright, even = (drawn(made_crops(), plain, **{**STILL, "colour": colour}) for colour in (0.4, 0.0))
    assert not torch.allclose(bright.pixels, even.pixels, atol=0.05)
    assert torch.equal(bright.xy, even.xy)
    assert 0 <= float(bright.pixels.min()) <= float(bright.pixels.max()) <= 1


def test_another_coat_is_the_object_s_alone(plain: Plain) -> None:
    coat, own = (drawn(made_crops(masked=True), plain, **{**STILL, "recolour": each}) for each in (1.0, 0.0))
    x, y = (STRIDE * coat.xy[0, NOSE] + STRIDE // 2).round().long().tolist()
    # The middle of the object is black without a coat, and what lies beyond its edge in any case.
    found = coat.pixels[0, :, y - 20 : y + 20, x - 20 : x + 20]
    assert float(found.mean()) > float(own.pixels[0, :, y - 20 : y + 20, x - 20 : x + 20].mean())
    assert float(coat.pixels[0, :, :4].max()) == float(own.pixels[0, :, :4].max())


def test_on_a_device_what_says_what_counts_stays(plain: Plain) -> None:
    moved = to_device(drawn(made_crops(), plain), torch.device("meta"))
    assert moved.pixels.device.type == moved.own.device.type == "meta"
    assert moved.visible.device.type == moved.pairs.device.type == "cpu"
