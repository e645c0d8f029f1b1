from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoaware.method.keypoints import Schema
from geoaware.method.types import Pair
from geoaware.runs.errors import InputError
from geoaware.training.post_processor.config import Stage
from geoaware.training.post_processor.groups import Group, ImageGroups, PairGroups, make_groups
from geoaware.training.settings import DataChoice
from tests.training.toy_sets import SCHEMA, data_set, image, pairs_of

FOUR = data_set(pairs_of([image(name) for name in "abcd"]))


def names(groups: PairGroups | ImageGroups, numbers: range) -> list[str]:
    return [groups.group(number).name for number in numbers]


def test_an_epoch_is_a_permutation_and_the_next_one_another() -> None:
    groups = PairGroups([FOUR], [None], "0/0")
    assert len(groups) == 12
    epochs = [names(groups, range(start, start + 12)) for start in (0, 12, 24)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(pair.id for pair in FOUR.pairs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != [pair.id for pair in FOUR.pairs]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=20))
def test_a_group_depends_on_its_number_alone(order: list[int]) -> None:
    straight = names(PairGroups([FOUR], [None], "7/0"), range(61))
    groups = PairGroups([FOUR], [None], "7/0")
    assert [groups.group(number).name for number in order] == [straight[number] for number in order]


def test_another_seed_or_stage_gives_another_order() -> None:
    orders = {tuple(names(PairGroups([FOUR], [None], key), range(12))) for key in ("0/0", "1/0", "0/1")}
    assert len(orders) == 3


def test_a_pair_as_a_group() -> None:
    found = PairGroups([FOUR], [None], "0/0").group(17)
    assert isinstance(found, Group)
    assert found.name == ">".join(each.id for each in found.images)
    assert (found.number, found.pairs, found.schema) == (17, ((0, 1),), SCHEMA)


def test_a_image_with_itself() -> None:
    same = image("a")
    groups = PairGroups([data_set([Pair("self", "cat", same, same)])], [None], "0/0")
    found = groups.group(0)
    assert (found.images, found.pairs) == ((same,), ((0, 0),))


def test_pairs_without_shares_come_as_often_as_there_are() -> None:
    more = data_set(pairs_of([image(name) for name in "xyz"]))
    groups = PairGroups([FOUR, more], [None, None], "0/0")
    assert sorted(names(groups, range(18))) == sorted(pair.id for each in (FOUR, more) for pair in each.pairs)


def test_shares_of_pairs() -> None:
    few = data_set(pairs_of([image(name) for name in "xy"]))
    groups = PairGroups([FOUR, few], [1.0, 3.0], "0/0")
    drawn = Counter(names(groups, range(4000)))
    assert sum(drawn[pair.id] for pair in few.pairs) == pytest.approx(3000, abs=100)
    assert set(drawn) == {pair.id for each in (FOUR, few) for pair in each.pairs}
    for pair in FOUR.pairs:
        assert drawn[pair.id] == pytest.approx(1000 / 12, abs=40)
    again = PairGroups([FOUR, few], [1.0, 3.0], "0/0")
    assert [again.group(number).name for number in (3999, 5)] == [groups.group(n).name for n in (3999, 5)]


def test_a_data_set_without_a_share_has_what_is_left() -> None:
    few = data_set(pairs_of([image(name) for name in "xy"]))
    groups = PairGroups([FOUR, few], [0.75, None], "0/0")
    drawn = Counter(names(groups, range(2000)))
    assert sum(drawn[pair.id] for pair in few.pairs) == pytest.approx(500, abs=80)


def test_pairs_with_fewer_than_two_common_keypoints_never_come_up() -> None:
    images = [image("a", (0, 1, 2)), image("b", (2, 3, 4)), image("c", (0, 1)), image("d", (4,))]
    groups = PairGroups([data_set(pairs_of(images))], [None], "0/0")
    assert set(names(groups, range(10))) == {"a>c", "c>a"}
    assert {each.id for each in groups.images} == {"a", "c"}
    lonely = data_set(pairs_of([image("a", (0, 1)), image("b", (1, 2))]))
    with pytest.raises(InputError, match="toy, split trn: no pair has 2 visible keypoints in common"):
        PairGroups([FOUR, lonely], [None, None], "0/0")


def test_images_of_two_data_sets_with_the_same_ids_are_two() -> None:
    other = data_set(pairs_of([image(name, folder="elsewhere") for name in "abcd"]))
    for groups in (
        PairGroups([FOUR, other], [None, None], "0"),
        ImageGroups([FOUR, other], [None, None], "0", 2, False),
    ):
        assert len({each.path for each in groups.images}) == len(groups.images) == 8


def test_a_group_of_images_has_all_ordered_pairs_with_two_common_keypoints() -> None:
    seen = {"a": (0, 1, 2), "b": (1, 2, 3), "c": (3, 4), "d": (0, 2, 4), "e": (4,)}
    groups = ImageGroups([data_set(pairs_of([image(*each) for each in seen.items()]))], [None], "0", 3, False)
    drawn = set()
    for number in range(100):
        group = groups.group(number)
        ids = [each.id for each in group.images]
        assert len(set(ids)) == 3
        assert "e" not in ids, "one keypoint is not enough"
        wanted = [(i, j) for i, j in permutations(range(3), 2) if len({*seen[ids[i]]} & {*seen[ids[j]]}) >= 2]
        assert wanted, "a group without a pair"
        assert list(group.pairs) == wanted
        assert group.name == " ".join(ids)
        drawn.add(frozenset(ids))
    # b, c and d have one keypoint in common each, so that this group is drawn again.
    assert drawn == {frozenset(each) for each in ("abc", "abd", "acd")}


def test_groups_of_images_depend_on_seed_and_number_alone() -> None:
    first = ImageGroups([FOUR], [None], "3/0", 2, False)
    again = ImageGroups([FOUR], [None], "3/0", 2, False)
    straight = names(first, range(50))
    assert [again.group(number).name for number in (41, 0, 7)] == [straight[number] for number in (41, 0, 7)]
    assert names(ImageGroups([FOUR], [None], "4/0", 2, False), range(50)) != straight
    assert len(first) == 2


def test_groups_keep_to_one_category_or_to_one_set_of_names() -> None:
    cats = pairs_of([image(name) for name in "abcd"])
    foxes = pairs_of([image(name, category="fox") for name in "uvw"])
    birds = pairs_of([image(name, category="bird") for name in "xyz"])
    beaked = Schema(("beak", "left wing", "right wing", "left foot", "right foot"))
    mixed = data_set([*cats, *foxes, *birds])
    mixed.schemas["bird"] = beaked  # type: ignore[index]
    by_category = ImageGroups([mixed], [None], "0", 3, by_schema=False)
    by_schema = ImageGroups([mixed], [None], "0", 3, by_schema=True)
    together = set()
    for number in range(200):
        assert len({each.category for each in by_category.group(number).images}) == 1
        group = by_schema.group(number)
        kinds = frozenset(each.category for each in group.images)
        assert group.schema == (beaked if "bird" in kinds else SCHEMA)
        together.add(kinds)
    assert together == {
        frozenset({"cat"}),
        frozenset({"fox"}),
        frozenset({"cat", "fox"}),
        frozenset({"bird"}),
    }


def test_shares_of_images_and_of_categories_within() -> None:
    many = data_set(
        [*pairs_of([image(n) for n in "abcdef"]), *pairs_of([image(n, category="fox") for n in "uv"])]
    )
    few = data_set(pairs_of([image(name, folder="few", category="dog") for name in "xy"]))

    def drawn(shares: list[float | None]) -> Counter[str]:
        groups = ImageGroups([many, few], shares, "0", 2, False)
        return Counter(groups.group(number).images[0].category for number in range(2000))

    by_size = drawn([None, None])
    assert by_size["cat"] == pytest.approx(1200, abs=100)
    assert by_size["fox"] == pytest.approx(400, abs=80)
    by_share = drawn([1.0, 4.0])
    assert by_share["dog"] == pytest.approx(1600, abs=100)
    assert by_share["cat"] == pytest.approx(300, abs=80)


def test_nothing_to_group() -> None:
    with pytest.raises(InputError, match="toy, split trn: nowhere 5 images with 2 visible keypoints that go"):
        ImageGroups([FOUR], [None], "0", 5, False)
    apart = data_set(pairs_of([image("a", (0, 1)), image("b", (2, 3)), image("c", (1, 4))]))
    with pytest.raises(
        InputError, match="of 100 draws none had two images with 2 visible keypoints in common"
    ):
        ImageGroups([apart], [None], "0", 3, False).group(0)


def test_a_stage_says_which_groups() -> None:
    choices = [DataChoice(name="coco", root="a", share=0.5), DataChoice(name="coco", root="b")]
    pairs = make_groups(Stage(data=choices, epochs=1), [FOUR, FOUR], "0/0")
    assert isinstance(pairs, PairGroups)
    images = make_groups(Stage(data=choices, steps=1, images=3, mix="schema"), [FOUR, FOUR], "0/0")
    assert isinstance(images, ImageGroups)
    assert len(images.group(0).images) == 3


def test_what_is_drawn_is_fixed_for_ever() -> None:
    # Written down on purpose: a resumed run must go on with the same groups under every Python.
    few = data_set(pairs_of([image(name) for name in "xy"]))
    pairs = PairGroups([FOUR, few], [1.0, 3.0], "0/0")
    assert names(pairs, range(6)) == FIXED_PAIRS
    foxes = data_set(pairs_of([image(name, category="fox") for name in "uvw"]))
    images = ImageGroups([FOUR, foxes], [None, None], "0/0", 3, False)
    assert names(images, range(9)) == FIXED_IMAGES


FIXED_PAIRS = ["x>y", "x>y", "y>x", "y>x", "y>x", "y>x"]
FIXED_IMAGES = ["u w v", "v w u", "w u v", "w v u", "w u v", "u w v", "u w v", "b a c", "c d b"]
