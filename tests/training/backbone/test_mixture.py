from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geoaware.method.keypoints import Schema
from geoaware.training.backbone import mixture
from geoaware.training.backbone.crops import OTHERS, SIZE, Crops
from geoaware.training.backbone.images import OBJECT, UNKNOWN
from geoaware.training.backbone.mixture import (
    STRIDE,
    Plain,
    Share,
    Turning,
    Views,
    draw_views,
    is_negative,
)
from geoaware.training.backbone.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of(
    [Schema(("left_ear", "right_ear", "nose"), flip_pairs=((0, 1),), skeleton=((0, 2), (1, 2)))]
)
LEFT, RIGHT, NOSE = 0, 1, 2
COLOURS = {LEFT: 0, RIGHT: 1, NOSE: 2}
"""Channel in which the spot of each keypoint shines."""

STILL = Turning(0.5, 0.9, cover=0, background=0, recolour=0, mirror=0, turn=0, anyhow=0)
VIEW = 160


@pytest.fixture(autouse=True)
def even_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that colours tell which spot is which."""
    monkeypatch.setattr(mixture, "_LIGHT", 0.0)


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
        np.full(count, masked), np.arange(count) % 2, others_xy, others_visible, others_box,
        ("cat", "dog"), tuple(str(each) for each in range(count)),
    )  # fmt: skip


@pytest.fixture
def plain(tmp_path: Path) -> Plain:
    """Two images without labels, a motorbike and a dog, and one with; their maps say where a cell is."""
    generator = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", generator.integers(0, 256, (3, 448, 448, 3), dtype=np.uint8))
    along = np.tile(np.arange(28, dtype=np.float16), (28, 1))
    np.save(tmp_path / "maps.npy", np.stack([np.stack([along + 1, along.T + 1])] * 3))
    inside = np.array([[0, 28, 0, 28], [4, 24, 0, 28], [0, 28, 7, 21]], np.int16)
    np.savez(tmp_path / "about.npz", insides=inside, unlabelled=2)
    paths = ["unlabelled/n03791053_motor.jpg", "unlabelled/n02088364_beagle.jpg", "lspet/images/1.jpg"]
    (tmp_path / "paths.json").write_text(json.dumps(paths), encoding="utf-8")
    return Plain(tmp_path)


def drawn(crops: Crops, turning: Turning, plain: Plain, seed: int = 0, twice: int = 1) -> Views:
    return draw_views(
        [Share(crops, 2, twice)], VOCABULARY, turning, plain, VIEW, 2, 5,
        torch.Generator().manual_seed(seed),
    )  # fmt: skip


def shines(views: Views, row: int, keypoint: int, channel: int) -> bool:
    x, y = (STRIDE * views.xy[row, keypoint] + STRIDE // 2).round().long().clamp(0, VIEW - 1).tolist()
    pixel = views.pixels[row, :, y, x]
    return int(pixel.argmax()) == channel


@pytest.mark.parametrize("seed", range(6))
def test_labels_move_with_the_pixels_and_change_names_in_the_mirror(plain: Plain, seed: int) -> None:
    turning = Turning(cover=0, background=0, recolour=0, smaller=0.5, larger=0.9)
    views = drawn(made_crops(), turning, plain, seed)
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
    turning = Turning(cover=0, background=0, recolour=0, anyhow=1.0)
    angles = []
    for seed in range(8):
        xy = drawn(made_crops(), turning, plain, seed).xy
        across = xy[:, RIGHT] - xy[:, LEFT]
        angles += torch.atan2(across[:, 1], across[:, 0]).tolist()
    assert min(angles) < -2
    assert max(angles) > 2


def test_an_object_shown_twice_has_its_points_on_both_views(plain: Plain) -> None:
    views = drawn(made_crops(), Turning(cover=0, smaller=0.5, larger=0.8), plain)
    assert views.image.tolist() == [0, 0, 1]
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
    views = drawn(made_crops(), STILL, plain)
    assert views.xy.shape[1] == 3 + 2
    assert views.visible.all()
    for row in range(len(views.xy)):
        for limb in (3, 4):
            nose, point = views.xy[row, NOSE], views.xy[row, limb]
            apart = [torch.dist(views.xy[row, ear], point) + torch.dist(point, nose) for ear in (LEFT, RIGHT)]
            whole = [torch.dist(views.xy[row, ear], nose) for ear in (LEFT, RIGHT)]
            assert min(float(a - b) for a, b in zip(apart, whole, strict=True)) == pytest.approx(0, abs=1e-3)


def test_the_neighbour_is_elsewhere(plain: Plain) -> None:
    views = drawn(made_crops(), Turning(**{**vars(STILL), "smaller": 0.4, "larger": 0.41}), plain)
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
    views = drawn(made_crops(masked=True), Turning(**{**vars(STILL), "background": 1.0}), plain)
    assert float(views.pixels.std()) > 0.1
    assert set(views.regions.unique().tolist()) == {OBJECT, UNKNOWN}
    assert shines(views, 0, NOSE, COLOURS[NOSE])


def test_what_is_covered_is_not_visible(plain: Plain) -> None:
    crops = made_crops()
    wide = Crops(**{**vars(crops), "visible": np.ones((2, 3), bool)})
    assert drawn(wide, Turning(**{**vars(STILL), "cover": 1.0}), plain).visible.all()  # fewer than 4: none
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
        views = draw_views(
            [Share(big, 2, 0)], five, Turning(**{**vars(STILL), "cover": 1.0}), plain, VIEW, 0, 3,
            torch.Generator().manual_seed(seed),
        )  # fmt: skip
        hidden += int((~views.visible).sum())
    assert 0 < hidden < 6 * 2 * 4


def test_a_step_is_decided_by_its_seed(plain: Plain) -> None:
    first, again, other = (drawn(made_crops(), Turning(), plain, seed) for seed in (3, 3, 4))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.xy, again.xy)
    assert not torch.equal(first.pixels, other.pixels)


def test_windows_have_the_descriptors_of_their_place(plain: Plain) -> None:
    windows = plain.windows(6, 256, 4, torch.Generator().manual_seed(0))
    assert windows.pixels.shape == (6, 3, 256, 256)
    assert windows.plain.shape == (6, 2, 16, 16)
    assert torch.linalg.vector_norm(windows.plain, dim=1).allclose(torch.ones(6, 16, 16))
    # Column over row of the corner: the map says where a cell of the whole image is.
    tangent = windows.plain[:, 0] / windows.plain[:, 1]
    assert bool((tangent[:, 0, 1:] > tangent[:, 0, :-1]).all())
    assert windows.inside.flatten(1).float().mean(dim=1).min() >= 0.5
    assert not windows.negative[4:].any()


def test_negatives_are_objects_without_mammals_or_labels(plain: Plain) -> None:
    assert plain.negative.tolist() == [True, False, False]
    assert is_negative("unlabelled/n01514668_cock.jpg")
    assert not is_negative("unlabelled/n02391049_zebra.jpg")
    assert not is_negative("unlabelled/n10565667_scuba_diver.jpg")
    assert not is_negative("animalpose/images/1.jpg")
