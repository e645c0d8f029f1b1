from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.data import DataSet, load
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.training.backbone.images import OBJECT, OUTSIDE, UNKNOWN, Images, Shown, show
from tests.toys import noise
from tests.training.backbone.tiny import draw_sets
from tests.training.toy_sets import SCHEMA, data_set, image, pairs_of

SIZE = 64
PLACES = ((12.0, 8.0), (28.0, 6.0), (15.0, 16.0), (25.0, 15.0), (20.0, 22.0))
RECTANGLE = [[10, 5, 29, 5, 29, 24, 10, 24]]
"""Pixels 10 … 29 across and 5 … 24 down."""


def on_disc(folder: Path, name: str, size: tuple[int, int] = (64, 32), **changes: Any) -> AnnotatedImage:
    """An image whose file exists, 64 x 32 pixels: on a canvas of 64 not scaled but moved down by 16."""
    noise(*size, seed=sum(map(ord, name))).save(folder / name, format="PNG")
    changes = {"xy": PLACES, "box": (10.0, 5.0, 30.0, 25.0), **changes}
    return image(name, size=size, folder=str(folder), **changes)


def masked(made: AnnotatedImage, polygons: Any = RECTANGLE) -> AnnotatedImage:
    return replace(made, attributes={"segmentation": polygons})


def some(folder: Path, *names: str, **changes: Any) -> list[AnnotatedImage]:
    return [on_disc(folder, name, **changes) for name in names]


@contextmanager
def opened(
    sets: Sequence[DataSet],
    shares: Sequence[float | None] | None = None,
    room: int = 2**30,
    size: int = SIZE,
    workers: int = 2,
) -> Iterator[Images]:
    made = Images(sets, shares or [None] * len(sets), size, room, workers)
    try:
        yield made
    finally:
        made.close()


def assert_same(a: Shown, b: Shown) -> None:
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.regions, b.regions)
    assert torch.equal(a.xy, b.xy)
    assert torch.equal(a.visible, b.visible)
    assert (a.masked, a.box, a.group) == (b.masked, b.box, b.group)


class TestShow:
    def test_labels_and_box_by_hand(self, tmp_path: Path) -> None:
        """Half as large and, as 96 pixels become 48, moved down by 8."""
        made = on_disc(tmp_path, "a.png", (128, 96), visible=(0, 1, 2, 4))
        found = show(made, SCHEMA, 3, SIZE)
        expected = torch.tensor([[x / 2, y / 2 + 8] for x, y in PLACES])
        torch.testing.assert_close(found.xy[found.visible], expected[[0, 1, 2, 4]])
        assert found.visible.tolist() == [True, True, True, False, True]
        assert found.box == (5.0, 10.5, 15.0, 20.5)
        assert found.group == 3
        assert not found.masked

    def test_pixels_lie_as_the_canvas_has_them(self, tmp_path: Path) -> None:
        made = on_disc(tmp_path, "a.png")
        found = show(made, SCHEMA, 0, SIZE).pixels
        expected = torch.from_numpy(np.array(Image.open(made.path))).permute(2, 0, 1)
        assert torch.equal(found[:, 16:48], expected)
        assert not found[:, :16].any()
        assert not found[:, 48:].any()

    def test_keypoints_that_are_not_annotated_are_not_there(self, tmp_path: Path) -> None:
        """Rows are annotation ids, also where the image lists only some of them."""
        made = on_disc(tmp_path, "a.png")
        points = replace(made.keypoints, ids=(1, 4), xy=made.keypoints.xy[[1, 4]], visible=torch.ones(2) > 0)
        found = show(replace(made, keypoints=points), SCHEMA, 0, SIZE)
        assert found.visible.tolist() == [False, True, False, False, True]
        assert found.xy[[1, 4]].tolist() == [[28.0, 22.0], [20.0, 38.0]]

    def test_without_a_box_the_visible_keypoints_span_it(self, tmp_path: Path) -> None:
        made = on_disc(tmp_path, "a.png", box=None, visible=(0, 2, 3, 4))
        assert show(made, SCHEMA, 0, SIZE).box == (12.0, 24.0, 25.0, 38.0)
        alike = on_disc(tmp_path, "b.png", box=None, xy=[(7.0, 9.0)] * 5)
        assert show(alike, SCHEMA, 0, SIZE).box == (7.0, 25.0, 8.0, 26.0), "a pixel at least"

    def test_regions_of_a_mask(self, tmp_path: Path) -> None:
        """The mask as it is, four pixels around it of which nobody knows, the rest outside."""
        found = show(masked(on_disc(tmp_path, "a.png")), SCHEMA, 0, SIZE)
        expected = torch.full((SIZE, SIZE), OUTSIDE)
        expected[21 - 4 : 41 + 4, 10 - 4 : 30 + 4] = UNKNOWN
        expected[21:41, 10:30] = OBJECT
        assert torch.equal(found.regions.long(), expected)
        assert found.masked

    def test_regions_of_a_mask_scale_with_the_image(self, tmp_path: Path) -> None:
        polygons = [[20, 10, 59, 10, 59, 49, 20, 49]]
        found = show(masked(on_disc(tmp_path, "a.png", (128, 96)), polygons), SCHEMA, 0, SIZE).regions
        rows, columns = (found == OBJECT).nonzero().unbind(dim=1)
        assert (int(columns.min()), int(columns.max())) == (10, 29)
        assert (int(rows.min()), int(rows.max())) == (8 + 5, 8 + 24)
        assert int((found == OBJECT).sum()) == 400

    def test_regions_without_a_mask(self, tmp_path: Path) -> None:
        """Box (4, 2) to (54, 52) of a square image: discs of radius 3, nothing known up to 15 around it."""
        places = [(14.0, 20.0), (44.0, 10.0), (20.0, 40.0), (0.0, 63.0), (30.0, 30.0)]
        made = on_disc(
            tmp_path, "a.png", (SIZE, SIZE), box=(4.0, 2.0, 54.0, 52.0), xy=places, visible=(0, 1, 2, 4)
        )
        regions = show(made, SCHEMA, 0, SIZE).regions
        for y in range(SIZE):
            for x in range(SIZE):
                away = min(math.dist((x, y), place) for place in [*places[:3], places[4]])
                if 2.5 < away < 3.5:
                    continue  # The rim of a disc, whichever way it is drawn.
                around = x <= 54 + 15 and y <= 52 + 15
                assert regions[y, x] == (OBJECT if away < 3 else UNKNOWN if around else OUTSIDE), (x, y)

    def test_what_is_far_from_the_box_is_outside(self, tmp_path: Path) -> None:
        """Box (10, 21) to (30, 41) on the canvas, grown by 6."""
        regions = show(on_disc(tmp_path, "a.png"), SCHEMA, 0, SIZE).regions
        expected = torch.ones(SIZE, SIZE, dtype=torch.bool)
        expected[15:48, 4:37] = False
        assert torch.equal(regions == OUTSIDE, expected)
        assert all(regions[int(y) + 16, int(x)] == OBJECT for x, y in PLACES)

    def test_an_annotation_of_another_size_than_the_file(self, tmp_path: Path) -> None:
        made = replace(on_disc(tmp_path, "a.png"), size=(32, 64))
        with pytest.raises(InputError) as caught:
            show(made, SCHEMA, 0, SIZE)
        expected = "has 64x32 pixels, its annotation is for 32x64; give the image as it was annotated"
        assert str(caught.value) == f"{made.path}: {expected}"

    def test_a_image_that_cannot_be_read(self, tmp_path: Path) -> None:
        made = on_disc(tmp_path, "a.png")
        made.path.write_bytes(b"no image")
        with pytest.raises(InputError, match=r"a\.png"):
            show(made, SCHEMA, 0, SIZE)

    def test_a_mask_of_another_size(self, tmp_path: Path) -> None:
        Image.new("L", (5, 5), 255).save(tmp_path / "mask.png")
        made = replace(on_disc(tmp_path, "a.png"), mask_path=tmp_path / "mask.png")
        with pytest.raises(InputError, match=r"mask\.png: mask of 5x5 pixels, image of 64x32"):
            show(made, SCHEMA, 0, SIZE)


OTHER = Schema(("left hand", "right hand", "head"), {}, ((0, 1),))


def three_points(folder: Path, *names: str) -> list[AnnotatedImage]:
    return some(folder, *names, xy=PLACES[:3], visible=(0, 1, 2), category="man")


class TestGroups:
    def test_categories_with_the_same_names_go_together(self, tmp_path: Path) -> None:
        cats, dogs = some(tmp_path, "a", "b"), some(tmp_path, "c", "d", category="dog")
        with opened([data_set(pairs_of(cats) + pairs_of(dogs))]) as images:
            (group,) = images.groups
        assert {each.id for each in group.images} == {"a", "b", "c", "d"}
        assert group.schema == SCHEMA
        assert group.share == 1.0

    def test_other_names_are_another_group(self, tmp_path: Path) -> None:
        """A set of keypoints has its part of its data set's share: 3 of 5 images, 2 of 5."""
        cats, men = some(tmp_path, "a", "b", "c"), three_points(tmp_path, "d", "e")
        data = replace(
            data_set(pairs_of(cats) + pairs_of(men)), schemas={"cat": SCHEMA, "man": OTHER}
        )  # fmt: skip
        with opened([data, data_set(pairs_of(some(tmp_path, "f", "g")))], [0.5, 0.5]) as images:
            found = {group.schema.names: group for group in images.groups[:2]}
        assert found[SCHEMA.names].share == pytest.approx(0.3)
        assert found[OTHER.names].share == pytest.approx(0.2)
        assert [each.id for each in found[OTHER.names].images] == ["d", "e"]

    def test_two_sets_with_the_same_names_keep_their_shares(self, tmp_path: Path) -> None:
        sets = [
            data_set(pairs_of(some(tmp_path, *names)), name=name)
            for name, names in (("one", "ab"), ("two", "cde"))
        ]
        with opened(sets, [0.9, 0.1]) as images:
            assert [group.share for group in images.groups] == pytest.approx([0.9, 0.1])
        with opened(sets) as images:
            found = [group.share for group in images.groups]
        assert found == pytest.approx([0.4, 0.6]), "as many as there are images"

    def test_images_with_one_visible_keypoint_teach_nothing(self, tmp_path: Path) -> None:
        made = [*some(tmp_path, "a", "b"), *some(tmp_path, "c", visible=(1,))]
        with opened([data_set(pairs_of(made))]) as images:
            assert {each.id for each in images.groups[0].images} == {"a", "b"}

    def test_nothing_to_learn(self, tmp_path: Path) -> None:
        data = data_set(pairs_of(some(tmp_path, "a", "b", visible=(2,))), name="faces")
        with pytest.raises(
            InputError,
            match="faces, split trn: no image has two visible keypoints; there is nothing to learn",
        ):
            Images([data], [None], SIZE, 0, 1)

    def test_no_flip_pairs(self, tmp_path: Path) -> None:
        good = data_set(pairs_of(some(tmp_path, "a", "b")), name="good")
        bad = data_set(pairs_of(some(tmp_path, "c", "d")), Schema(SCHEMA.names), name="bad")
        with pytest.raises(InputError, match=r"bad, split trn: has no flip pairs, .*; add flip_pairs to the"):
            Images([good, bad], [None, None], SIZE, 0, 1)


class TestDraw:
    @pytest.fixture
    def sets(self, tmp_path: Path) -> list[DataSet]:
        return [
            data_set(pairs_of(some(tmp_path, *names)), name=name)
            for name, names in (("one", "abc"), ("two", "de"))
        ]

    def test_the_key_alone_decides(self, sets: list[DataSet]) -> None:
        def ids(images: Images, key: str) -> list[tuple[int, str]]:
            return [(group, each.id) for group, each in images.draw(12, key)]

        with opened(sets) as first, opened(sets) as second:
            assert ids(first, "0/7") == ids(first, "0/7") == ids(second, "0/7")
            assert len({tuple(ids(first, f"0/{step}")) for step in range(20)}) == 20
            assert ids(first, "0/7")[:5] == [(group, each.id) for group, each in first.draw(5, "0/7")]

    def test_shares_are_followed_and_images_are_alike(self, sets: list[DataSet]) -> None:
        with opened(sets, [0.25, 0.75]) as images:
            drawn = images.draw(2000, "key")
        counts = Counter(each.id for _, each in drawn)
        assert all((each.id in "abc") == (group == 0) for group, each in drawn)
        # Within four standard deviations.
        for name in "abc":
            assert counts[name] == pytest.approx(2000 / 12, abs=50)
        for name in "de":
            assert counts[name] == pytest.approx(750, abs=90)

    def test_shares_need_not_add_up_to_one(self, sets: list[DataSet]) -> None:
        with opened(sets, [1.0, 3.0]) as images:
            groups = Counter(group for group, _ in images.draw(1000, "key"))
        assert groups[1] == pytest.approx(750, abs=60)


ROOM = 4 * SIZE * SIZE
"""Of one image."""


class TestRead:
    @pytest.mark.parametrize("room", [0, ROOM, 2 * ROOM, 2**30])
    def test_the_right_images_whatever_is_kept(self, tmp_path: Path, room: int) -> None:
        cats, dogs = some(tmp_path, "a", "b"), some(tmp_path, "c", "d", category="dog")
        sets = [data_set(pairs_of(cats), name="cats"), data_set(pairs_of(dogs), name="dogs")]
        wanted = [(0, cats[1]), (1, dogs[0]), (0, cats[0]), (1, dogs[1]), (0, cats[1])]
        with opened(sets, room=room, workers=3) as images:
            for _ in range(3):
                found = images.read(wanted)
                for shown, (group, made) in zip(found, wanted, strict=True):
                    assert_same(shown, show(made, SCHEMA, group, SIZE))

    def test_what_is_kept_is_not_decoded_again(self, tmp_path: Path) -> None:
        made = some(tmp_path, "a", "b", "c")
        with opened([data_set(pairs_of(made))], room=2 * ROOM, workers=1) as images:
            images.read([(0, each) for each in made])
            for each in made:
                each.path.unlink()
            kept = images.read([(0, made[0]), (0, made[1])])
            assert [torch.equal(a.pixels, b.pixels) for a in kept for b in kept] == [True, False, False, True]
            with pytest.raises(InputError, match="no such"):
                images.read([(0, made[2])])

    def test_instances_of_one_file_are_kept_apart(self, tmp_path: Path) -> None:
        first = on_disc(tmp_path, "a")
        second = replace(first, id="a#2", box=(0.0, 0.0, 9.0, 9.0))
        with opened([data_set(pairs_of([first, second]))]) as images:
            # One after the other, so that each finds what is kept of those before it.
            boxes = [images.read([(0, each)])[0].box for each in (first, second, first)]
        assert boxes == [(10.0, 21.0, 30.0, 41.0), (0.0, 16.0, 9.0, 25.0), (10.0, 21.0, 30.0, 41.0)]

    def test_a_drawn_data_set(self, tmp_path: Path) -> None:
        """From files, as a run reads them: one with polygons, one without."""
        draw_sets(tmp_path)
        sets = [load("coco", tmp_path / name, "train") for name in ("plain", "masked")]
        with opened(sets, size=96) as images:
            assert [len(group.images) for group in images.groups] == [8, 8]
            drawn = images.draw(12, "key")
            found = images.read(drawn)
        assert {each.masked for each in found} == {True, False}
        for (group, _), each in zip(drawn, found, strict=True):
            assert each.group == group
            assert each.masked == (group == 1)
            columns, rows = each.xy[each.visible].round().long().unbind(dim=1)
            if group == 0:
                assert bool((each.regions[rows, columns] == OBJECT).all())
            assert {OBJECT, UNKNOWN} <= set(each.regions.unique().tolist())
