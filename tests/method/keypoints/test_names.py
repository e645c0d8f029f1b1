from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoaware.method.keypoints import AP10K, Schema, infer_flip_pairs, infer_subgroups, part_name
from geoaware.method.keypoints.names import sides


@pytest.mark.parametrize(
    "names",
    [
        ("left_ear", "right_ear"),
        ("l_eye", "r_eye"),
        ("L ear", "R ear"),
        ("earLeft", "earRight"),
        ("ear.L", "ear.R"),
        ("LEar", "REar"),
        ("earL", "earR"),
        ("Left Front Paw", "Right Front Paw"),
        ("L_F_Paw", "R_F_Paw"),
        ("leftear", "rightear"),
        ("ear-left-2", "ear-right-2"),
        ("left", "right"),
    ],
)
def test_pairs_are_found(names: tuple[str, str]) -> None:
    assert infer_flip_pairs(["nose", *names, "tail"]) == ((1, 2),)
    assert infer_flip_pairs([names[1], "nose", names[0]]) == ((0, 2),)


@pytest.mark.parametrize(
    "names",
    [
        ["bright", "collar", "leftover", "tail"],
        ["bright", "bleed", "light", "right back"],
        ["left_ear", "right_eye"],
        ["left_ear", "left_ear", "right_ear"],
        ["left right ear", "right left ear"],
        list("abcdefghijklmnopqrstuvwxyz"),
        ["lamp", "ramp", "lead", "read"],
        [],
    ],
)
def test_nothing_is_found_where_nothing_is(names: list[str]) -> None:
    assert infer_flip_pairs(names) == ()


@given(st.lists(st.text(alphabet="leftrigh_ LR", max_size=12), max_size=8))
def test_every_name_is_in_one_pair_at_most(names: list[str]) -> None:
    paired = [each for pair in infer_flip_pairs(names) for each in pair]
    assert len(set(paired)) == len(paired)
    Schema.infer(names)


def test_ap10k_flip_pairs_follow_from_its_names() -> None:
    assert set(infer_flip_pairs(AP10K.names)) == {(min(pair), max(pair)) for pair in AP10K.flip_pairs}


def test_subgroups_join_what_differs_in_front_and_back_only() -> None:
    schema = Schema.infer(AP10K.names)
    assert schema.subgroups["paw"] == (7, 10, 13, 16)
    assert schema.subgroups["shoulder"] == (5, 8)


def test_subgroups_keep_a_part_that_is_called_back() -> None:
    names = ["left back", "right back", "left rear mirror", "right rear mirror"]
    assert infer_subgroups(names, infer_flip_pairs(names)) == {"back": (0, 1), "rear mirror": (2, 3)}


def test_subgroups_of_given_pairs_without_common_words() -> None:
    assert infer_subgroups(["bow", "stern"], [(0, 1)]) == {"part 1": (0, 1)}


def test_given_pairs_and_groups_are_kept() -> None:
    schema = Schema.infer(["left a", "right a", "x", "y"], [(2, 3)], {"z": [0, 3]})
    assert schema.flip_pairs == ((2, 3),)
    assert schema.subgroups == {"z": (0, 3)}


def test_part_name() -> None:
    assert part_name(["right_front_paw", "left_front_paw", "left_back_paw"], (0, 1, 2)) == "paw"
    assert part_name(["bow", "stern"], (0, 1)) == ""


@pytest.mark.parametrize(
    ("names", "pairs", "wanted"),
    [
        (["left ear", "nose", "R_ear"], [(0, 2)], ["left", "middle", "right"]),
        (["rightear", "leftear"], [(0, 1)], ["right", "left"]),
        (["ear", "left ear"], [(0, 1)], ["right", "left"]),
        (["a", "b", "right a"], [(0, 2)], ["left", "middle", "right"]),
        (["front", "back"], [(1, 0)], ["right", "left"]),
        (["left ear", "right ear"], [], ["middle", "middle"]),
    ],
)
def test_sides_by_the_names_else_by_the_order(
    names: list[str], pairs: list[tuple[int, int]], wanted: list[str]
) -> None:
    assert sides(names, pairs) == wanted
