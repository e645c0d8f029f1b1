from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoaware.method.types import AnnotatedImage
from geoaware.training.post_processor.augment import Example, make_example, place_labels, target_positions
from geoaware.training.post_processor.config import Flips, Loss
from geoaware.training.post_processor.groups import Group
from tests.training.toy_sets import SCHEMA, image

SIZE, GRID = 64, 8
"""A cell is 8 canvas pixels, and its centre lies 4 of them behind its corner."""

PLACES = [(0.0, 0.0), (30.0, 10.0), (127.0, 63.0), (64.0, 32.0), (100.0, 20.0)]
WIDE = image("wide", xy=PLACES, size=(128, 64), box=(20.0, 4.0, 68.0, 44.0))
"""Half a canvas pixel each, with 16 canvas pixels above it."""


def pair(source: AnnotatedImage, target: AnnotatedImage) -> Group:
    return Group(f"{source.id}>{target.id}", 0, (source, target), ((0, 1),), SCHEMA)


def terms(example: Example) -> dict[tuple, tuple[list[int], float, float]]:
    """Source and target view to ids, dense and sparse weight."""
    return {
        (example.views[term.source], example.views[term.target]): (term.ids.tolist(), term.dense, term.sparse)
        for term in example.terms
    }


def test_labels_on_a_image_as_it_is() -> None:
    labels = place_labels(WIDE, SCHEMA, "identity", SIZE, GRID)
    # x / 2, y / 2 + 16 on the canvas; then less 4, by 8.
    wanted = [(-0.5, 1.5), (11 / 8, 17 / 8), (59.5 / 8, 43.5 / 8), (3.5, 3.5), (46 / 8, 22 / 8)]
    torch.testing.assert_close(labels.xy, torch.tensor(wanted))
    assert labels.visible.tolist() == [True] * 5
    # The box is 48 wide and 40 high: half of 48 image pixels are 24, 12 on the canvas, 1.5 cells.
    assert labels.reach == 1.5


def test_labels_on_the_mirrored_image() -> None:
    labels = place_labels(WIDE, SCHEMA, "flip", SIZE, GRID)
    # Image x becomes 127 - x, and each ear and eye takes its partner's id; the nose keeps its own.
    mirrored = [(127.0 - x, y) for x, y in PLACES]
    exchanged = [mirrored[row] for row in (1, 0, 3, 2, 4)]
    wanted = [((x / 2 - 4) / 8, (y / 2 + 16 - 4) / 8) for x, y in exchanged]
    torch.testing.assert_close(labels.xy, torch.tensor(wanted))
    assert labels.xy[1].tolist() == [7.4375, 1.5], (
        "the left ear in the corner is the right ear in the other one"
    )
    assert labels.reach == 1.5


def test_a_tall_image_is_padded_left_and_right() -> None:
    tall = image("tall", xy=[(0.0, 0.0)] * 4 + [(15.0, 31.0)], size=(16, 32), box=None)
    straight = place_labels(tall, SCHEMA, "identity", SIZE, GRID)
    # Twice as large, 16 canvas pixels to its left.
    assert straight.xy[0].tolist() == [(16 - 4) / 8, -0.5]
    assert straight.xy[4].tolist() == [(16 + 30 - 4) / 8, (62 - 4) / 8]
    mirrored = place_labels(tall, SCHEMA, "flip", SIZE, GRID)
    assert mirrored.xy[0].tolist() == [(16 + 30 - 4) / 8, -0.5]
    # Without a box: half of the 31 image pixels between the keypoints, 31 on the canvas, 31 / 8 cells.
    assert straight.reach == mirrored.reach == 31 / 8


def test_what_is_hidden_stays_hidden_under_its_partner_s_id() -> None:
    shown = image("shown", (0, 2, 3), xy=PLACES, size=(128, 64))
    assert place_labels(shown, SCHEMA, "identity", SIZE, GRID).visible.tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert place_labels(shown, SCHEMA, "flip", SIZE, GRID).visible.tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    nothing = image("nothing", (), box=None)
    assert place_labels(nothing, SCHEMA, "identity", SIZE, GRID).reach == 0


def test_reach_without_a_box_is_that_of_the_visible_keypoints() -> None:
    some = image("some", (1, 3), xy=PLACES, size=(128, 64), box=None)
    # (30, 10) and (64, 32): 34 apart in x, half of it 17, on the canvas 8.5, in cells 8.5 / 8.
    assert place_labels(some, SCHEMA, "identity", SIZE, GRID).reach == pytest.approx(8.5 / 8)


def test_a_pair_and_its_flips() -> None:
    a, b = image("a"), image("b", (0, 2, 3, 4))
    example = make_example(pair(a, b), Flips(), SIZE, GRID)
    found = terms(example)
    assert found == {
        ((0, "identity"), (1, "identity")): ([0, 2, 3, 4], 1 / 3.25, 1 / 3.25),
        ((0, "flip"), (1, "flip")): ([1, 2, 3, 4], 1 / 3.25, 0.0),
        ((0, "flip"), (1, "identity")): ([0, 2, 3, 4], 1 / 3.25, 0.0),
        ((0, "flip"), (0, "identity")): ([0, 1, 2, 3, 4], 0.25 / 3.25, 0.0),
    }
    assert len(example.views) == len(example.labels) == 4
    for view, labels in zip(example.views, example.labels, strict=True):
        place, pose = view
        wanted = place_labels((a, b)[place], SCHEMA, pose, SIZE, GRID)
        assert labels.xy.equal(wanted.xy)
        assert labels.visible.equal(wanted.visible)


@pytest.mark.parametrize(
    ("flips", "poses", "weights"),
    [
        (Flips(double=0, single=0, self=0), {"identity"}, [1.0]),
        (Flips(double=2, single=0, self=0), {"identity", "flip"}, [1 / 3, 2 / 3]),
        (Flips(double=0, single=0, self=1), {"identity", "flip"}, [0.5, 0.5]),
        (Flips(single=0), {"identity", "flip"}, [1 / 2.25, 1 / 2.25, 0.25 / 2.25]),
    ],
)
def test_weights_of_flips(flips: Flips, poses: set[str], weights: list[float]) -> None:
    example = make_example(pair(image("a"), image("b")), flips, SIZE, GRID)
    assert {pose for _, pose in example.views} == poses
    assert [term.dense for term in example.terms] == pytest.approx(weights)
    assert [term.sparse for term in example.terms] == pytest.approx([weights[0]] + [0.0] * (len(weights) - 1))


def test_the_target_s_mirror_image_is_not_extracted_for_nothing() -> None:
    example = make_example(pair(image("a"), image("b")), Flips(double=0), SIZE, GRID)
    assert set(example.views) == {(0, "identity"), (1, "identity"), (0, "flip")}


def test_a_flip_without_a_common_keypoint_is_left_out() -> None:
    # Mirrored, the left ear and eye are the right ones, of which the target and the source itself show none.
    a, b = image("a", (0, 2)), image("b", (0, 2))
    found = terms(make_example(pair(a, b), Flips(), SIZE, GRID))
    assert found == {
        ((0, "identity"), (1, "identity")): ([0, 2], 0.5, 0.5),
        ((0, "flip"), (1, "flip")): ([1, 3], 0.5, 0.0),
    }


def test_pairs_that_share_a_self_flip_have_it_once_with_its_weights_summed() -> None:
    images = tuple(image(name) for name in "abc")
    pairs = ((0, 1), (0, 2), (1, 0))
    example = make_example(Group("abc", 0, images, pairs, SCHEMA), Flips(), SIZE, GRID)
    found = terms(example)
    assert found[(0, "flip"), (0, "identity")][1:] == pytest.approx((2 * 0.25 / 3.25 / 3, 0.0))
    assert found[(1, "flip"), (1, "identity")][1:] == pytest.approx((0.25 / 3.25 / 3, 0.0))
    assert ((2, "flip"), (2, "identity")) not in found
    assert len(found) == 3 * 3 + 2
    assert sum(sparse for *_, sparse in found.values()) == pytest.approx(1 / 3.25)
    assert len(example.views) == len(set(example.views)) == 6


def test_a_image_with_itself_is_also_its_self_flip() -> None:
    group = Group("a", 0, (image("a"),), ((0, 0),), SCHEMA)
    found = terms(make_example(group, Flips(), SIZE, GRID))
    everything = [0, 1, 2, 3, 4]
    assert found == {
        ((0, "identity"), (0, "identity")): (everything, 1 / 3.25, 1 / 3.25),
        ((0, "flip"), (0, "flip")): (everything, 1 / 3.25, 0.0),
        ((0, "flip"), (0, "identity")): (everything, 1.25 / 3.25, 0.0),
    }


visible = st.sets(st.integers(0, 4), min_size=2)
weight = st.sampled_from([0.0, 0.25, 1.0, 3.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(visible, min_size=2, max_size=4), st.tuples(weight, weight, weight))
def test_dense_weights_add_up_to_one(seen: list[set[int]], weights: tuple[float, float, float]) -> None:
    images = tuple(image(str(number), sorted(each)) for number, each in enumerate(seen))
    pairs = tuple(
        (i, j) for i in range(len(seen)) for j in range(len(seen)) if i != j and len(seen[i] & seen[j]) >= 2
    )
    if not pairs:
        return
    flips = Flips(double=weights[0], single=weights[1], self=weights[2])
    example = make_example(Group("group", 0, images, pairs, SCHEMA), flips, SIZE, GRID)
    assert sum(term.dense for term in example.terms) == pytest.approx(1.0)
    assert all(term.sparse <= term.dense for term in example.terms)
    assert all(len(term.ids) for term in example.terms)
    used = {place for term in example.terms for place in (term.source, term.target)}
    assert used == set(range(len(example.views)))


def test_positions_to_be_found() -> None:
    example = make_example(pair(image("a"), WIDE), Flips(), SIZE, GRID)
    straight = example.terms[0]
    source, target = example.labels[straight.source], example.labels[straight.target]
    assert target_positions(source, target, straight.ids, Loss()).equal(target.xy[straight.ids])


def test_positions_from_flows_as_released() -> None:
    a = image("a", xy=[(3.0, 4.0), (20.0, 40.0), (63.0, 0.0), (5.0, 60.0), (32.0, 32.0)], size=(64, 64))
    b = image("b", xy=[(60.0, 9.0), (1.0, 2.0), (33.0, 44.0), (6.0, 6.0), (50.0, 50.0)], size=(64, 64))
    example = make_example(pair(a, b), Flips(), SIZE, GRID)
    term = example.terms[0]
    ends = example.labels[term.source], example.labels[term.target]
    found = target_positions(*ends, term.ids, Loss(target="flow"))
    # In patches, positions are canvas pixels by 8; the flow is counted from the source's patch.
    from_patches, to_patches = (each.keypoints.xy / 8 for each in (a, b))
    wanted = to_patches - (from_patches - from_patches.floor())
    torch.testing.assert_close(found, wanted.float())
