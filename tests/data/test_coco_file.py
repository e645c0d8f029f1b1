"""What exporters write: each convention with the right value, and the sentence that says how it was read."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from geoaware.data import load
from geoaware.data.check import check
from geoaware.data.coco_file import read_coco
from geoaware.runs.errors import InputError
from tests.data.test_coco import NAMES, made_up

SPIDER = ["a1", "b1", "a2", "b2"]


def changed(root: Path, place: int = 0, **changes: Any) -> Path:
    """The made-up folder with one annotation changed."""
    file = made_up(root) / "annotations.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][place] |= changes
    file.write_text(json.dumps(content), encoding="utf-8")
    return root


def content_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made_up(root) / "annotations.json").read_text(encoding="utf-8"))
    return found


def written(root: Path, content: dict[str, Any]) -> Path:
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def first(root: Path, **options: Any) -> Any:
    data_set = load("coco", root, "all", pairs="all", **options)
    return next(image for image in data_set.images if image.id.startswith("1.png")), data_set.notes


def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    root = changed(tmp_path, bbox=["1", "2", "30", "20"], keypoints=["5", "7", "2"] * 3, image_id="0001")
    image, _ = first(root)
    assert image.box == (1.0, 2.0, 31.0, 22.0)
    assert image.keypoints.at([0]).tolist() == [[5.0, 7.0]]
    content = content_of(tmp_path)
    for each in content["images"]:
        each |= {"id": f"00{each['id']}", "width": "50", "height": 40.0}
    for each in content["annotations"]:
        each |= {"id": float(each["id"]), "category_id": "4", "iscrowd": "0"}
    image, _ = first(written(tmp_path, content))
    assert (image.size, image.box) == ((50, 40), (1.0, 2.0, 31.0, 22.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": ["1", "2", "wide", "20"]}, "annotation 10: bbox, number 3 is 'wide'; expected a number"),
        ({"bbox": [1, 2, True, 20]}, "annotation 10: bbox, number 3 is True"),
        ({"bbox": [1, 2, 10**400, 20]}, "annotation 10: bbox, number 3 is 1000"),
        ({"bbox": {"x": 1}}, "annotation 10: bbox is {'x': 1}; expected x, y, width, height"),
        ({"iscrowd": "some"}, r"annotations\[0\]: iscrowd is 'some'; expected 0 or 1"),
        ({"id": "a7"}, r"annotations\[0\]: id is 'a7'; expected a whole number"),
        ({"image_id": 1.5}, r"annotations\[0\]: image_id is 1.5; expected a whole number"),
        ({"category_id": [4]}, r"annotations\[0\]: category_id is \[4\]; expected a whole number"),
        ({"keypoints": [5, 7, 0.93] * 3}, "the flag 0.93 of a keypoint is not 0, 1 or 2; if flags are conf"),
        ({"keypoints": [5, 7, 3] * 3}, "the flag 3 of a keypoint is not 0, 1 or 2"),
        ({"keypoints": [None, 7, 2] * 3}, "annotation 10: keypoint 0: x is None; expected a number"),
        ({"keypoints": [[5, 7]] * 3}, r"annotation 10: a keypoint is not \[x, y, flag\]"),
        ({"keypoints": 7}, "annotation 10 must have 9 numbers"),
        ({"azimuth_id": "west"}, r"annotation 1\.png: azimuth_id is 'west'; expected a whole number"),
        ({"azimuth_id": 9}, r"annotation 1\.png: azimuth_id is 9; expected 0 … 7, steps of 45 degrees"),
    ],
)
def test_what_cannot_be_understood(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    root = changed(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load("coco", root, "all", pairs="all")
    assert any(problem for problem in check("coco", root, pairs="all").problems)


def test_only_flags_0_and_1(tmp_path: Path) -> None:
    content = content_of(tmp_path)
    for each in content["annotations"]:
        each["keypoints"][2::3] = [min(flag, 1.0) for flag in each["keypoints"][2::3]]
    image, notes = first(written(tmp_path, content))
    assert image.keypoints.visible_ids == (0, 1, 2)
    assert "no keypoint has flag 2, so flag 1 counts as visible" in notes
    assert check("coco", tmp_path).fine


def test_hidden_keypoints_are_counted(tmp_path: Path) -> None:
    said = "1 keypoints are marked as hidden (flag 1) and do not count; the option hidden counts them"
    root = made_up(tmp_path)
    assert said in first(root)[1]
    assert not any("hidden" in note for note in first(root, hidden=True)[1])
    assert f"all: {said}" in check("coco", root).facts


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_missing_coordinates_with_flag_0(tmp_path: Path, missing: Any) -> None:
    image, _ = first(changed(tmp_path, keypoints=[5, 7, 2, missing, missing, 0, 6, 7, 2]))
    assert image.keypoints.visible_ids == (0, 2)


def test_triples_in_lists_of_their_own(tmp_path: Path) -> None:
    image, _ = first(changed(tmp_path, keypoints=[[5, 7, 2], None, ["6", 8, 2.0]]))
    assert image.keypoints.visible_ids == (0, 2)
    assert image.keypoints.at([0, 2]).tolist() == [[5.0, 7.0], [6.0, 8.0]]


@pytest.mark.parametrize("empty", [[], None])
def test_annotations_without_keypoints_are_counted(tmp_path: Path, empty: Any) -> None:
    data_set = load("coco", changed(tmp_path, keypoints=empty), "all")
    assert {image.id for image in data_set.images} == {"2.png", "3.png"}
    said = "1 annotations have no list of keypoints and are not used"
    assert any(note.startswith(said) for note in data_set.notes)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [4, 5, 0, 9], [4, 5, 9, 0.0]])
def test_a_box_without_extent_is_none_and_counted(tmp_path: Path, box: list[float]) -> None:
    root = changed(tmp_path, bbox=box)
    image, notes = first(root)
    assert image.box is None
    assert any(note.startswith("left out: 1 boxes without extent, which count as none") for note in notes)
    assert any("annotation 10" in problem and "extent" in problem for problem in check("coco", root).problems)


def test_a_box_much_larger_than_its_image_is_a_problem(tmp_path: Path) -> None:
    root = changed(tmp_path, bbox=[1, 2, 3000, 20])
    (problem,) = check("coco", root).problems
    assert "doubtful: 1 boxes that lie mostly outside their image" in problem
    assert "annotation 10: box (1, 2, 3001, 22), image 50x40" in problem


@pytest.mark.parametrize("outline", [[[]], [[3, 4]], [[3, 4, 5, 6]]])
def test_polygons_without_an_area_are_none(tmp_path: Path, outline: Any) -> None:
    root = changed(tmp_path, segmentation=outline)
    image, notes = first(root)
    assert not image.attributes["segmentation"]
    assert any("1 annotations have polygons of less than three points" in note for note in notes)
    assert check("coco", root).fine


def test_an_annotation_twice_counts_once(tmp_path: Path) -> None:
    content = content_of(tmp_path)
    content["images"].append({**content["images"][0], "id": 99})
    content["annotations"].append({**content["annotations"][0], "id": 77, "image_id": 99})
    root = written(tmp_path, content)
    data_set = load("coco", root, "all", pairs="all")
    assert sorted(image.id for image in data_set.images) == ["1.png", "2.png", "3.png"]
    (problem,) = check("coco", root).problems
    assert "left out: 1 annotations that stand there twice" in problem
    assert "annotation 77 of 1.png" in problem
    # Two objects of an image, each with an entry of its own for the image, are two.
    content["annotations"][-1]["bbox"] = [3, 3, 10, 10]
    found = load("coco", written(tmp_path, content), "all", pairs="all").images
    assert {"1.png#10", "1.png#77"} <= {image.id for image in found}


def test_missing_ids_follow_the_largest(tmp_path: Path) -> None:
    content = content_of(tmp_path)
    for each in content["annotations"]:
        del each["id"]
    file = read_coco(written(tmp_path, content) / "annotations.json")
    assert [each["id"] for each in file.annotations] == [1, 2, 3]
    content["annotations"][1]["id"] = 7
    file = read_coco(written(tmp_path, content) / "annotations.json")
    assert [each["id"] for each in file.annotations] == [8, 7, 9]


@pytest.mark.parametrize("by_name", [False, True])
def test_lists_as_objects(tmp_path: Path, by_name: bool) -> None:
    content = content_of(tmp_path)
    images = content["images"]
    content["images"] = {
        each["file_name"] if by_name else str(each["id"]): {
            key: value for key, value in each.items() if key not in ("id", "file_name")
        }
        | ({} if by_name else {"file_name": each["file_name"]})
        for each in images
    }
    content["annotations"] = {str(each.pop("id")): each for each in content["annotations"]}
    image, _ = first(written(tmp_path, content))
    assert (image.id, image.size) == ("1.png", (50, 40))


@pytest.mark.parametrize("listed", [True, False])
def test_one_category_for_each_keypoint(tmp_path: Path, listed: bool) -> None:
    content = content_of(tmp_path)
    single = []
    for each in content["annotations"]:
        for number in range(3):
            x, y, flag = each["keypoints"][3 * number : 3 * number + 3]
            single.append(
                {
                    "id": len(single),
                    "image_id": each["image_id"],
                    "category_id": number,
                    "keypoints": [x, y, flag],
                }
            )
    content["annotations"] = single
    content["categories"] = [
        {"id": number, "name": name, **({"keypoints": [name]} if listed else {})}
        for number, name in enumerate(NAMES)
    ]
    data_set = load("coco", written(tmp_path, content), "all", pairs="all", hidden=True)
    assert data_set.categories == ("object",)
    assert data_set.schemas["object"].names == tuple(NAMES)
    assert data_set.schemas["object"].flip_pairs == ((0, 1),)
    assert {image.id: image.keypoints.visible_ids for image in data_set.images} == {
        "1.png": (0, 1, 2),
        "2.png": (0, 1, 2),
        "3.png": (0, 1),
    }
    assert any("every category is a single keypoint, so 3 categories are read" in n for n in data_set.notes)


@pytest.mark.parametrize("at_top", [True, False])
@pytest.mark.parametrize(
    ("names", "given", "pairs", "said"),
    [
        (NAMES, {"flip_pairs": [[0, 1]]}, ((0, 1),), ""),
        (NAMES, {"flip_pairs": [[1, 2]]}, ((0, 1),), "flip pairs count from 1"),
        (NAMES, {"flip_pairs": [["left_ear", "right_ear"]]}, ((0, 1),), ""),
        (NAMES, {"flip_pairs": [["0", 1.0]]}, ((0, 1),), ""),
        (NAMES, {"flip_pairs": [[0, 2]]}, ((0, 2),), "used as given, though the names pair other keypoints"),
        (NAMES, {"flip_idx": [1, 0, 2]}, ((0, 1),), ""),
        (SPIDER, {"flip_pairs": [[1, 2], [3, 4]]}, ((0, 1), (2, 3)), "flip pairs count from 1"),
        (SPIDER, {"flip_idx": [1, 0, 3, 2]}, ((0, 1), (2, 3)), ""),
    ],
)
def test_mirror_partners(
    tmp_path: Path, names: list[str], given: Any, pairs: Any, said: str, at_top: bool
) -> None:
    category = {"id": 4, "name": "cat", "keypoints": names, **({} if at_top else given)}
    content = content_of(tmp_path) | {"categories": [category]} | (given if at_top else {})
    for each in content["annotations"]:
        each["keypoints"] = [5, 6, 2] * len(names)
    data_set = load("coco", written(tmp_path, content), "all")
    assert data_set.schemas["cat"].flip_pairs == pairs
    assert any(said in note for note in data_set.notes) if said else "flip pairs" not in str(data_set.notes)


def test_groups_beside_pairs_from_1_count_from_1_too(tmp_path: Path) -> None:
    root = made_up(tmp_path, flip_pairs=[[1, 2]], keypoint_groups=[[1, 2]])
    assert load("coco", root, "all").schemas["cat"].subgroups == {"ear": (0, 1)}


def test_groups_and_outlines_of_no_numbers(tmp_path: Path) -> None:
    for wrong in ([[float("nan")] * 3], {"paws": [0, float("inf")]}):
        with pytest.raises(InputError, match="keypoint_groups holds numbers that are none"):
            load("coco", made_up(tmp_path, keypoint_groups=wrong), "all")
    content = content_of(tmp_path)
    content["annotations"][0]["segmentation"] = [[0, 0, 5, 0, float("nan"), 5]]
    with pytest.raises(InputError, match=r"annotation \d+: segmentation holds numbers that are none"):
        load("coco", made_up(tmp_path, **content), "all")


@pytest.mark.parametrize(
    "given",
    [
        {"flip_idx": [1, 2, 0]},
        {"flip_idx": [1, 1, 2]},
        {"flip_idx": [[1], 0, 2]},
        {"flip_idx": 3},
        {"keypoint_groups": [[]]},
        {"keypoint_groups": {"ear": []}},
        {"keypoint_groups": [["x"]]},
        {"keypoint_groups": 5},
        {"keypoint_groups": [[0, 9e99]]},
        {"flip_pairs": {"0": 1}},
        {"flip_pairs": [[0, 10**300]]},
        {"flip_pairs": [[-1, 0]]},
    ],
)
def test_partners_and_groups_that_cannot_be_used(tmp_path: Path, given: Any) -> None:
    category = {"id": 4, "name": "cat", "keypoints": NAMES, **given}
    with pytest.raises(InputError, match=r"category 'cat': (flip_pairs or keypoint_groups|flip_idx)"):
        load("coco", made_up(tmp_path, categories=[category]), "all")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize(
    "entry", [7, "x", None, [], {}, [[]], {"id": {}}, {"id": "1", "name": [], "file_name": []}]
)
def test_entries_of_mixed_types(tmp_path: Path, key: str, entry: Any) -> None:
    content = content_of(tmp_path)
    content[key].append(entry)
    with pytest.raises(InputError, match=r"annotations\.json"):
        load("coco", written(tmp_path, content), "all")


@pytest.mark.parametrize("depth", [200, 900, 980, 1500, 100_000])
@pytest.mark.parametrize("field", ["bbox", "keypoints", "segmentation", "note"])
def test_deep_nesting(tmp_path: Path, field: str, depth: int) -> None:
    root = changed(tmp_path, **{field: "DEEP"})
    file = root / "annotations.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"DEEP"', "[" * depth + "]" * depth), encoding="utf-8")
    with suppress(InputError):
        load("coco", root, "all", pairs="all")
    assert all(len(problem) < 400 for problem in check("coco", root).problems)


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    for digits, message in ((5000, "no valid JSON"), (4000, "expected a whole number")):
        content = content_of(tmp_path)
        text = json.dumps(content).replace('"width": 50', '"width": ' + "7" * digits)
        (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message) as caught:
            load("coco", tmp_path, "all")
        assert len(str(caught.value)) < 400
