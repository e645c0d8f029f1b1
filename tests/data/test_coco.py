from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.data import load
from geoaware.data.check import check
from geoaware.runs.errors import InputError
from tests.shared_data import shared

NAMES = ["left_ear", "right_ear", "nose"]


def made_up(root: Path, **changes: Any) -> Path:
    """Three cats on images of 50x40 pixels: all keypoints; the nose hidden; the ears only."""
    shown = {1: (2, 2, 2), 2: (2, 2, 1), 3: (2, 2, 0)}
    content: dict[str, Any] = {
        "images": [{"id": each, "file_name": f"{each}.png", "width": 50, "height": 40} for each in shown],
        "annotations": [
            {
                "id": 10 * each,
                "image_id": each,
                "category_id": 4,
                "bbox": [1, 2, 30, 20],
                "azimuth_id": each,
                "keypoints": [
                    value for place, flag in enumerate(flags) for value in (5 + place, 6 + each, flag)
                ],
            }
            for each, flags in shown.items()
        ],
        "categories": [{"id": 4, "name": "cat", "keypoints": NAMES}],
        **changes,
    }
    (root / "images").mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        Image.new("RGB", (50, 40)).save(root / "images" / image["file_name"])
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_the_layout_of_mp100(tmp_path: Path) -> None:
    """Many categories of their own numbers of keypoints, a folder of images for each, splits 1 to 5."""
    kinds = {"fox_body": 3, "sofa": 5, "human_hand": 4}
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for category, (name, count) in enumerate(kinds.items(), start=1):
        names = [f"{each}" for each in "abcde"[:count]] if name != "human_hand" else []
        content["categories"].append({"id": category, "name": name, "keypoints": names, "skeleton": []})
        for each in range(2):
            number = 10 * category + each
            file = f"{name}/{each:06}.jpg"
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (50, 40)).save(tmp_path / file)
            content["images"].append({"id": number, "file_name": file, "width": 50, "height": 40})
            places = [value for point in range(count) for value in (category, point + each, 2)]
            content["annotations"].append(
                {"id": number, "image_id": number, "category_id": category, "bbox": [0, 0, 30, 20]}
                | {"keypoints": places, "num_keypoints": count}
            )
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/mp100_split1_test.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    data = load("coco", tmp_path, "mp100_split1_test", pairs="all")
    assert [pair.id for pair in data.pairs if pair.category == "sofa"] == [
        "sofa/000000.jpg--sofa/000001.jpg",
        "sofa/000001.jpg--sofa/000000.jpg",
    ]
    assert {name: len(data.schemas[name]) for name in data.categories} == kinds
    assert data.schemas["human_hand"].names == ("0", "1", "2", "3")
    (hand,) = (image for image in data.images if image.id == "human_hand/000001.jpg")
    assert hand.path == tmp_path / "human_hand/000001.jpg"
    assert hand.keypoints.at([0, 3]).tolist() == [[3.0, 1.0], [3.0, 4.0]]
    assert "human_hand: names no keypoints, so they are called by their numbers from 0" in data.notes
    assert check("coco", tmp_path, "mp100_split1_test").problems == []


def test_images_and_pairs(tmp_path: Path) -> None:
    data_set = load("coco", made_up(tmp_path), "all", pairs="all")
    assert [pair.id for pair in data_set.pairs] == [
        f"{a}.png--{b}.png" for a in (1, 2, 3) for b in (1, 2, 3) if a != b
    ]
    pair = data_set.pairs[1]
    assert (pair.category, pair.common_ids, pair.azimuth_difference) == ("cat", (0, 1), 2)
    assert pair.source.box == (1.0, 2.0, 31.0, 22.0)
    assert pair.source.keypoints.at([0, 2]).tolist() == [[5.0, 7.0], [7.0, 7.0]]
    assert pair.source.attributes == {"azimuth_id": 1}
    schema = data_set.schema(pair)
    assert (schema.flip_pairs, schema.subgroups) == (((0, 1),), {"ear": (0, 1)})
    assert data_set.notes[:2] == (
        "cat: flip pairs inferred from the names: left_ear / right_ear",
        "cat: subgroups inferred from the names: ear (left_ear, right_ear)",
    )


def test_hidden_keypoints_do_not_count_unless_asked(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    seen = {image.id: image.keypoints.visible_ids for image in load("coco", root, "all").images}
    assert seen == {"1.png": (0, 1, 2), "2.png": (0, 1), "3.png": (0, 1)}
    shown = load("coco", root, "all", hidden=True).images
    assert {image.id: image.keypoints.visible_ids for image in shown}["2.png"] == (0, 1, 2)


def test_common_keypoints(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    found = load("coco", root, "all", pairs="all", min_common=3, hidden=True)
    assert [pair.id for pair in found.pairs] == ["1.png--2.png", "2.png--1.png"]
    with pytest.raises(InputError, match="has no pairs"):
        load("coco", root, "all", pairs=50, min_common=3)


def test_given_flip_pairs_and_groups(tmp_path: Path) -> None:
    root = made_up(tmp_path, flip_pairs=[[0, 2], [5, 6]], keypoint_groups=[[2, 1]])
    data_set = load("coco", root, "all")
    schema = data_set.schemas["cat"]
    assert (schema.flip_pairs, schema.subgroups) == (((0, 2),), {"group 1": (1, 2)})
    assert not any("inferred" in note for note in data_set.notes)
    for wrong in ([[0, 0]], [[0]], 7, [["a", "b"]], [[0, 1], [1, 2]]):
        with pytest.raises(InputError, match="category 'cat': flip_pairs or keypoint_groups cannot be used"):
            load("coco", made_up(tmp_path, flip_pairs=wrong), "all")


@pytest.mark.parametrize(
    ("skeleton", "limbs"),
    [
        ([[1, 3], [2, 3]], ((0, 2), (1, 2))),
        ([[1, 3], [0, 2], [2, 4], [1], [1, 2, 3], "1 2", [1.0, 2], None], ((0, 2), (0, 1))),
        ([[0, 2], [1, 2]], ((0, 2), (1, 2))),
        ([["nose", "left_ear"], ["right_ear", "nose"]], ((2, 0), (1, 2))),
        ([["nose", "left_ear"], ["nose", "tial"], [3, "right_ear"]], ((2, 0), (2, 1))),
        ([], ()),
        (None, ()),
        ({"1": 2}, ()),
    ],
)
def test_the_skeleton_counts_from_one_or_zero_or_has_names_and_may_be_sloppy(
    tmp_path: Path, skeleton: Any, limbs: tuple[tuple[int, int], ...]
) -> None:
    """It decides nothing that is scored, so what joins no two keypoints is passed over."""
    category = {"id": 4, "name": "cat", "keypoints": NAMES, "skeleton": skeleton}
    found = load("coco", made_up(tmp_path, categories=[category]), "all")
    assert found.schemas["cat"].skeleton == limbs


def test_random_pairs_follow_from_the_seed(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    chosen = [
        tuple(pair.id for pair in load("coco", root, "all", pairs=3, seed=seed).pairs) for seed in range(8)
    ]
    assert all(len(pairs) == 3 for pairs in chosen)
    assert len(set(chosen)) > 1
    assert chosen[2] == tuple(pair.id for pair in load("coco", root, "all", pairs="3", seed=2).pairs)
    with pytest.raises(InputError, match="at least one pair"):
        load("coco", root, "all", pairs=0)


def test_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    before = [pair.id for pair in load("coco", made_up(tmp_path), "all", pairs=4).pairs]
    content = json.loads((tmp_path / "annotations.json").read_text(encoding="utf-8"))
    for key in ("images", "annotations"):
        content[key].reverse()
    (tmp_path / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    assert [pair.id for pair in load("coco", tmp_path, "all", pairs=4).pairs] == before


def test_several_instances_of_one_file(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    second = {**content["annotations"][0], "id": 11, "bbox": [2, 2, 30, 20]}
    crowd = {**second, "id": 12, "iscrowd": 1}
    empty = {**second, "id": 13, "image_id": 2, "keypoints": [0] * 9}
    content["annotations"] += [second, crowd, empty]
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    data_set = load("coco", root, "all", pairs="all")
    assert {image.id for image in data_set.images} == {"1.png#10", "1.png#11", "2.png#20", "3.png"}
    assert any("1 annotations show no keypoint" in note for note in data_set.notes)


def test_pairs_across_categories(tmp_path: Path) -> None:
    content = json.loads((made_up(tmp_path) / "annotations.json").read_text(encoding="utf-8"))
    content["categories"].append({"id": 5, "name": "dog", "keypoints": NAMES})
    content["annotations"][2]["category_id"] = 5
    (tmp_path / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    data_set = load("coco", tmp_path, "all", pairs="all", across=True)
    assert data_set.categories == ("cat+dog",)
    assert {pair.id for pair in data_set.pairs} == {
        "1.png--3.png", "3.png--1.png", "2.png--3.png", "3.png--2.png",
    }  # fmt: skip
    assert data_set.schema(data_set.pairs[0]).names == tuple(NAMES)
    content["categories"][1]["keypoints"] = ["a", "b", "c"]
    (tmp_path / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="no two categories have the same keypoint names"):
        load("coco", tmp_path, "all", across=True)


def test_list_of_pairs(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    lines = [
        '{"source": "3.png", "target": "1.png", "id": "mine"}',
        "",
        '{"source": "1.png", "target": "2.png"}',
    ]
    (root / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data_set = load("coco", root, "all", pairs="pairs.jsonl")
    assert [pair.id for pair in data_set.pairs] == ["mine", "1.png--2.png"]
    assert data_set.pairs[0].azimuth_difference == 2
    (root / "pairs.jsonl").write_text('{"source": "9.png", "target": "1.png"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"pairs\.jsonl, line 1: no image or entry '9\.png'; known: 1\.png"):
        load("coco", root, "all", pairs="pairs.jsonl")
    (root / "pairs.jsonl").write_text("\n\n[1]", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3: .* is no JSON object"):
        load("coco", root, "all", pairs="pairs.jsonl")


def test_a_keypoint_outside_is_left_out_and_counted(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    content["annotations"][0]["keypoints"][:3] = [-1, 7, 2]
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    data_set = load("coco", root, "all", pairs="all")
    assert data_set.left_out == {"keypoints outside their image": 1}
    assert data_set.pairs[0].common_ids == (1,)


def test_the_threshold_base_is_what_most_images_have(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    assert load("coco", root, "all").threshold_base == "box"
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    for place, base, note in (
        (1, "box", "left out: 1 of 3 objects as targets, because they have no box (2.png)"),
        (0, "image", "only 1 of 3 objects have a box, so thresholds are taken from the image"),
        (2, "image", ""),
    ):
        del content["annotations"][place]["bbox"]
        (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
        data_set = load("coco", root, "all")
        assert data_set.threshold_base == base
        assert any(note in each for each in data_set.notes) if note else "box" not in str(data_set.notes)


def test_image_sizes_are_read_where_the_file_does_not_say(tmp_path: Path) -> None:
    root = made_up(tmp_path, images=[{"id": each, "file_name": f"{each}.png"} for each in (1, 2, 3)])
    assert load("coco", root, "all").images[0].size == (50, 40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 3}, "has no list 'images'"),
        ({"categories": []}, "no category lists its 'keypoints'"),
        ({"categories": [{"id": 4, "name": "cat"}]}, "no category lists its 'keypoints'"),
        (
            {"categories": [{"id": 4, "name": "cat", "keypoints": "nose"}]},
            "no category lists its 'keypoints'",
        ),
        ({"images": [{"id": 1, "file_name": 7}]}, r"images\[0\]: file_name must be text"),
        (
            {"images": [{"id": "a", "file_name": "1.png"}]},
            r"images\[0\]: id is 'a'; expected a whole number",
        ),
        ({"images": [{"id": 1, "file_name": "1.png"}] * 2}, "two images have the id 1"),
        ({"categories": [{"id": 4, "keypoints": NAMES}]}, r"categories\[0\] lacks id or name"),
        (
            {"categories": [{"id": each, "name": "cat", "keypoints": NAMES} for each in (4, 5)]},
            "two categories are called 'cat'",
        ),
        ({"annotations": [{"id": 1}]}, r"annotations\[0\] lacks image_id or category_id"),
        (
            {"annotations": [{"id": 1, "image_id": 9, "category_id": 4, "keypoints": [0] * 9}]},
            "annotation 1 belongs to image 9, which the file does not list",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 4, "keypoints": [0] * 8}]},
            "annotation 1 must have 9 numbers",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 4, "keypoints": ["a"] * 9}]},
            "annotation 1: keypoint 0: flag is 'a'; expected a number",
        ),
        (
            {
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 4, "keypoints": [1, 1, 2] * 3, "bbox": [1]}
                ]
            },
            r"annotation 1: bbox is \[1\]; expected x, y, width, height",
        ),
    ],
)
def test_wrong_entries(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    root = made_up(tmp_path)
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    (root / "annotations.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load("coco", root, "all")
    assert "annotations.json" in str(caught.value)


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load("coco", tmp_path / "nowhere", "all")
    with pytest.raises(InputError, match=r"no dev\.json or annotations/dev\.json or annotations\.json in it"):
        load("coco", tmp_path, "dev")
    root = made_up(tmp_path)
    (root / "images/2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png: no such image"):
        load("coco", root, "all")
    (root / "annotations.json").write_text("{'a'}", encoding="utf-8")
    with pytest.raises(InputError, match=r"annotations\.json: damaged, no valid JSON"):
        load("coco", root, "all")
    (root / "annotations.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="is no COCO keypoints file"):
        load("coco", root, "all")


@pytest.mark.parametrize(
    ("name", "split", "count", "categories"),
    [("lspet", "val", 300, 1), ("badja", "all", 33, 2), ("quaternius", "val", 270, 9)],
)
def test_real_files(name: str, split: str, count: int, categories: int) -> None:
    root = shared(name)
    data_set = load("coco", root, split, pairs=400)
    file = root / ("annotations.json" if split == "all" else f"{split}.json")
    raw = json.loads(file.read_text(encoding="utf-8"))
    images = {image["id"]: image["file_name"] for image in raw["images"]}
    annotations = {images[each["image_id"]]: each for each in raw["annotations"]}
    assert len(annotations) == count
    assert len(data_set.categories) == categories
    for image in data_set.images:
        own = annotations[image.id]["keypoints"]
        flags = own[2::3]
        assert image.keypoints.visible.tolist() == [flag == 2 for flag in flags]
        for each in image.keypoints.visible_ids:
            assert image.keypoints.at([each]).tolist() == [own[3 * each : 3 * each + 2]]
    for category, schema in data_set.schemas.items():
        assert {tuple(pair) for pair in raw["flip_pairs"]} == set(schema.flip_pairs), category
        groups = {tuple(sorted(each)) for each in raw.get("keypoint_groups", [])}
        assert set(schema.subgroups.values()) == (
            groups or {(5, 8), (6, 9, 12, 15), (7, 10, 13, 16), (11, 14)}
        )
    for pair in data_set.pairs:
        turns = [annotations[side.id].get("azimuth_id") for side in (pair.source, pair.target)]
        apart = None if None in turns else min((turns[0] - turns[1]) % 8, (turns[1] - turns[0]) % 8)
        assert pair.azimuth_difference == apart


def test_names_alone_give_the_flip_pairs_of_the_real_files() -> None:
    from geoaware.method.keypoints import infer_flip_pairs

    for name, file in (("lspet", "val.json"), ("badja", "annotations.json"), ("quaternius", "val.json")):
        raw = json.loads((shared(name) / file).read_text(encoding="utf-8"))
        for category in raw["categories"]:
            assert set(infer_flip_pairs(category["keypoints"])) == {tuple(pair) for pair in raw["flip_pairs"]}
