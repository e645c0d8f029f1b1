from __future__ import annotations

import pytest

from geoaware.method.keypoints import AP10K, Schema
from geoaware.runs.errors import InputError
from geoaware.training.backbone.vocabulary import Vocabulary, class_names, with_own_names
from tests.training.toy_sets import SCHEMA, data_set, image, pairs_of

ANIMAL = Schema(
    ("left_eye", "right_eye", "left_front_elbow", "right_front_elbow", "tailbase"),
    flip_pairs=((0, 1), (2, 3)),
    skeleton=((0, 2),),
)
PERSON = Schema(("left_knee", "right_knee", "head_top"), flip_pairs=((0, 1),))


def test_ap10k_keypoints_are_classes_of_animal_pose_where_they_mean_the_same() -> None:
    named = dict(zip(AP10K.names, class_names(AP10K), strict=True))
    assert named["root_of_tail"] == "tailbase"
    assert named["left_shoulder"] == "left_front_elbow"
    assert named["right_knee"] == "right_back_knee"
    assert named["left_front_paw"] == "left_front_paw"
    assert named["neck"] == "neck"
    assert len(set(named.values())) == 17


def test_people_keep_classes_of_their_own() -> None:
    assert class_names(PERSON) == ("person left_knee", "person right_knee", "person head_top")


def test_data_sets_share_classes_and_their_mirror_partners() -> None:
    made = Vocabulary.of([ANIMAL, AP10K, PERSON])
    assert len(made) == 5 + (17 - 5) + 3
    at = {name: number for number, name in enumerate(made.names)}
    for schema in (ANIMAL, AP10K, PERSON):
        rows = made.rows(schema)
        assert [made.partners[row] for row in rows] == [rows[each] for each in schema.partners]
    assert made.partners[at["left_front_elbow"]] == at["right_front_elbow"]
    assert made.partners[at["tailbase"]] == at["tailbase"]
    assert (at["left_eye"], at["left_front_elbow"]) in made.limbs


def test_contradicting_flip_pairs_are_refused() -> None:
    other = Schema(("left_eye", "right_eye"))
    with pytest.raises(InputError, match="left_eye"):
        Vocabulary.of([ANIMAL, other])


def test_numbered_keypoints_are_those_of_their_category() -> None:
    """Keypoint 2 is no image's, nor is its partner 3: they are one class, whatever the category."""
    schema = Schema({4: "ear 4"}, flip_pairs=((0, 1), (2, 3)))
    cats = [image(name, visible) for name, visible in (("a", (0, 4)), ("b", (4,)))]
    data = data_set([*pairs_of(cats), *pairs_of([image("c", (2,), category="fox")] * 2)], schema)
    named = with_own_names(data).schemas
    assert named["cat"].names == ("cat keypoint 0", "cat keypoint 1", "unseen", "unseen", "cat ear 4")
    assert named["fox"].names == ("unseen", "unseen", "fox keypoint 2", "fox keypoint 3", "unseen")
    made = Vocabulary.of(named.values())
    assert len(made) == 3 + 2 + 1
    assert [made.names[each] for each in made.partners][:3] == ["cat keypoint 1", "cat keypoint 0", "unseen"]
    assert with_own_names(data_set(pairs_of(cats))).schemas["cat"].names == SCHEMA.names
