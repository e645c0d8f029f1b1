from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoaware.method.keypoints import AP10K, SPAIR71K, Schema, flip_partners
from geoaware.method.types import Keypoints
from tests.reference.keypoints import geometry_aware
from tests.shared_data import shared


def seen(ids: set[int], count: int = 30) -> torch.Tensor:
    return torch.tensor([each in ids for each in range(count)], dtype=torch.bool)


def ids_of(mask: torch.Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def test_bus_with_missing_keypoints_is_right_by_annotation_id() -> None:
    # Subgroups of a bus: light 2 3 5 6; licence plate 4 7; wheel 11 14 21 24; window top corner 16 17 26 27.
    source = seen({2, 4, 7, 11, 14, 16, 26})
    target = seen({2, 6, 7, 11, 16, 17, 26})
    # 2: lights 2, 6 in the target. 7: its mate 4 is hidden there. 11: no other wheel there. 16, 26: corners.
    assert ids_of(SPAIR71K["bus"].geometry_aware_mask(source, target)) == [2, 16, 26]


def test_tvmonitor_with_missing_keypoints_is_right_by_annotation_id() -> None:
    # outer corner 0 2 4 6; outer side 1 3 5 7; inner corner 8 10 12 14; inner side 9 11 13 15.
    source = seen({0, 1, 3, 8, 9, 14})
    target = seen({0, 1, 5, 7, 8, 9, 14, 15})
    assert ids_of(SPAIR71K["tvmonitor"].geometry_aware_mask(source, target)) == [1, 8, 9, 14]


def test_the_target_decides_not_the_source() -> None:
    cat = SPAIR71K["cat"]
    alone, both = seen({2}), seen({2, 3})
    assert ids_of(cat.geometry_aware_mask(alone, both)) == [2]
    assert ids_of(cat.geometry_aware_mask(both, alone)) == []


def test_no_subgroups_and_no_keypoints() -> None:
    assert not Schema(("a", "b")).geometry_aware_mask(seen({0, 1}, 2), seen({0, 1}, 2)).any()
    assert Schema(()).geometry_aware_mask(seen(set(), 0), seen(set(), 0)).shape == (0,)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[bool], list[bool]]:
    count = draw(st.integers(2, 12))
    ids = st.integers(0, count - 1)
    groups = draw(st.lists(st.lists(ids, min_size=2, max_size=count, unique=True), max_size=4))
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    return groups, draw(flags), draw(flags)


@given(cases())
def test_mask_is_the_paper_definition(case: tuple[list[list[int]], list[bool], list[bool]]) -> None:
    groups, source, target = case
    named = {str(place): tuple(group) for place, group in enumerate(groups)}
    schema = Schema(tuple(map(str, range(len(source)))), named)
    mask = schema.geometry_aware_mask(torch.tensor(source), torch.tensor(target))
    assert mask.tolist() == geometry_aware(schema.subgroups, source, target)


def test_mask_wants_one_value_per_annotation_id() -> None:
    with pytest.raises(ValueError, match=r"source visibility has shape \(3,\).*\(17,\)"):
        AP10K.geometry_aware_mask(seen(set(), 3), seen(set(), 3))


def test_ids_of_a_pair_whose_images_annotate_different_ids() -> None:
    place = torch.zeros(3, 2, dtype=torch.float64)
    source = Keypoints((5, 8, 9), place, torch.tensor([True, True, True]))
    target = Keypoints((5, 8, 6), place, torch.tensor([True, False, True]))
    assert AP10K.visibility(target).nonzero().flatten().tolist() == [5, 6]
    assert AP10K.geometry_aware_ids(source, target) == ()
    target = Keypoints((5, 8, 6), place, torch.tensor([True, True, True]))
    assert AP10K.geometry_aware_ids(source, target) == (5, 8)
    with pytest.raises(KeyError, match="not all in 0 … 16"):
        AP10K.visibility(Keypoints((17,), place[:1], torch.tensor([True])))


def test_flip_mirrors_places_and_exchanges_labels() -> None:
    schema = Schema(("left", "right", "nose"), {}, ((0, 1),))
    xy = torch.tensor([[1.0, 2.0], [8.0, 3.0], [4.0, 5.0]], dtype=torch.float64)
    flipped = schema.flip(Keypoints((0, 1, 2), xy, torch.tensor([True, False, True])), size=(10, 20))
    assert flipped.ids == (0, 1, 2)
    assert flipped.xy.tolist() == [[1.0, 3.0], [8.0, 2.0], [5.0, 5.0]]
    assert flipped.visible.tolist() == [False, True, True]


def test_flip_of_a_point_whose_partner_is_not_annotated_takes_the_partners_id() -> None:
    schema = Schema(("left", "right", "nose"), {}, ((0, 1),))
    flipped = schema.flip(Keypoints((0,), torch.tensor([[1.0, 2.0]]), torch.tensor([True])), size=(10, 20))
    assert flipped.ids == (1,)
    assert flipped.xy.tolist() == [[8.0, 2.0]]


@given(st.sampled_from(sorted(SPAIR71K)), st.data())
def test_flipping_twice_changes_nothing(category: str, data: st.DataObject) -> None:
    ids = tuple(sorted(data.draw(st.sets(st.integers(0, 29), max_size=10))))
    xy = torch.rand(len(ids), 2, generator=torch.Generator().manual_seed(len(ids)), dtype=torch.float64) * 50
    keypoints = Keypoints(ids, xy, torch.tensor([each % 2 == 0 for each in ids], dtype=torch.bool))
    twice = SPAIR71K[category].flip(SPAIR71K[category].flip(keypoints, (64, 48)), (64, 48))
    assert twice.ids == keypoints.ids
    assert torch.allclose(twice.xy, xy)
    assert twice.visible.tolist() == keypoints.visible.tolist()


def test_partner() -> None:
    assert [AP10K.partner(each) for each in (0, 2, 13)] == [1, 2, 16]
    with pytest.raises(KeyError, match="no keypoint 17"):
        AP10K.partner(17)


@pytest.mark.parametrize(
    ("subgroups", "flip_pairs", "message"),
    [
        ({"ear": (0,)}, (), "'ear' needs at least two"),
        ({"ear": (0, 0)}, (), "'ear' needs at least two"),
        ({"ear": (0, 9)}, (), "only 0 … 2"),
        ({}, ((0, 3),), "outside 0 … 2"),
        ({}, ((0, 1), (1, 2)), "an id twice"),
    ],
)
def test_wrong_schemas(subgroups: dict[str, tuple[int, ...]], flip_pairs: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema(("a", "b", "c"), subgroups, flip_pairs)


def test_a_skeleton_joins_keypoints_that_there_are() -> None:
    assert Schema(("a", "b", "c"), skeleton=((0, 2), (2, 1))).skeleton == ((0, 2), (2, 1))
    with pytest.raises(ValueError, match=r"skeleton \(\(0, 3\),\) names ids outside 0 … 2"):
        Schema(("a", "b", "c"), skeleton=((0, 3),))


def test_names_by_id() -> None:
    assert Schema({0: "ear", 2: "tail"}).names == ("ear", "keypoint 1", "tail")


def test_tables_are_the_facts_of_the_data_sets() -> None:
    path = shared("SPair-mini").parents[1] / "keypoints.json"
    if not path.is_file():
        pytest.skip("needs the table of subgroups and flip pairs beside the annotated images")
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert set(facts["spair71k"]) == set(SPAIR71K)
    for category, entry in facts["spair71k"].items():
        assert {k: list(v) for k, v in SPAIR71K[category].subgroups.items()} == entry["subgroups"], category
        assert [list(pair) for pair in SPAIR71K[category].flip_pairs] == entry["flip_pairs"], category
        assert len(SPAIR71K[category]) == 30
    assert list(AP10K.names) == facts["ap10k"]["keypoints"]
    assert {k: list(v) for k, v in AP10K.subgroups.items()} == facts["ap10k"]["subgroups"]
    assert [list(pair) for pair in AP10K.flip_pairs] == facts["ap10k"]["flip_pairs"]


def test_flip_partners() -> None:
    assert flip_partners(5, [(0, 3), (1, 2)]) == (3, 2, 1, 0, 4)
    with pytest.raises(ValueError, match="outside"):
        flip_partners(2, [(0, 2)])
    with pytest.raises(ValueError, match="more than one"):
        flip_partners(3, [(0, 1), (1, 2)])
