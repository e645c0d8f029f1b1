from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.data import load
from geoaware.data.check import check
from geoaware.runs.errors import InputError

PAIR: dict[str, Any] = {
    "source": "a.png",
    "target": "sub/b.png",
    "source_points": [[1, 2], None, [5, 6]],
    "target_points": [[3, 4], [7, 8], [9, 10]],
}


def written(root: Path, *lines: dict[str, Any]) -> Path:
    (root / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (30, 20)).save(root / name)
    (root / "pairs.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return root


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    data_set = load("pairs", written(tmp_path, PAIR), "mine")
    (pair,) = data_set.pairs
    assert (pair.id, pair.category, pair.common_ids) == ("000001", "object", (0, 2))
    assert (pair.source.id, pair.target.id) == ("a.png", "sub/b.png")
    assert pair.target.keypoints.xy.tolist() == [[3.0, 4.0], [7.0, 8.0], [9.0, 10.0]]
    assert pair.source.size == (30, 20)
    assert (data_set.split, data_set.threshold_base) == ("mine", "image")


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            **PAIR,
            "id": "one",
            "category": "chair",
            "azimuth_difference": 3,
            "source_box": [0, 0, 9, 9],
            "target_box": [1, 2, 20, 15],
            "source_mask": "mask.png",
        },
        {**PAIR, "id": "two", "category": "chair", "source_box": [0, 0, 9, 9], "target_box": [1, 2, 20, 15]},
        {
            "category": "chair",
            "keypoints": ["left leg", "right leg", "seat"],
            "keypoint_groups": {"leg": [0, 1]},
        },
    )
    Image.new("L", (30, 20), 255).save(root / "mask.png")
    data_set = load("pairs", root, "mine")
    first, second = data_set.pairs
    assert (first.id, first.category, first.azimuth_difference) == ("one", "chair", 3)
    assert (first.target.box, first.source.mask_path) == ((1.0, 2.0, 20.0, 15.0), root / "mask.png")
    assert (first.source.id, second.source.id) == ("a.png", "a.png#2")  # one with a mask, one without
    assert first.target is second.target
    schema = data_set.schemas["chair"]
    assert (schema.names[2], schema.flip_pairs, schema.subgroups) == ("seat", ((0, 1),), {"leg": (0, 1)})
    assert data_set.notes == ("chair: flip pairs inferred from the names: left leg / right leg",)
    assert data_set.threshold_base == "box"


def test_a_pair_without_a_common_keypoint_is_left_out_and_counted(tmp_path: Path) -> None:
    apart = {**PAIR, "source_points": [None, None, [1, 1]], "target_points": [[1, 1], None, None]}
    data_set = load("pairs", written(tmp_path, PAIR, apart), "mine")
    assert len(data_set) == 1
    assert data_set.left_out == {"pairs with too few common keypoints": 1}
    with pytest.raises(InputError, match="none of 1 pairs has 1 keypoints visible in both"):
        load("pairs", written(tmp_path, apart), "mine")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"source": "a.png"}, "line 1: no 'source' or no 'source_points'"),
        ({**PAIR, "points": []}, "line 1: unknown entry 'points'"),
        ({**PAIR, "target": "c.png"}, r"c\.png: no such file"),
        (
            {**PAIR, "source_points": [[40, 2]]},
            r"line 1: a\.png: keypoint 0 at \(40, 2\), image 30x20: outside",
        ),
        ({**PAIR, "source_points": [[1, 2, 3]]}, r"keypoint 0 is \[1, 2, 3\]; expected two numbers"),
        ({**PAIR, "source_box": [5, 5, 1, 9]}, r"line 1: a\.png: box .* has no extent"),
        ({**PAIR, "source_mask": "m.png"}, r"m\.png: no such mask, named in .*line 1"),
        ({**PAIR, "azimuth_difference": 7}, "azimuth_difference is 7; expected 0 … 4"),
        ({"category": "chair", "keypoints": [1]}, "line 1: a category is described by"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("pairs", written(tmp_path, line), "mine")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    root = written(tmp_path, PAIR)
    text = json.dumps(PAIR)
    for lines, message in [
        (["", "  ", text, "", '{"source": "a.png"'], r"pairs\.jsonl, line 5: no valid JSON"),
        ([text, "", "[1]"], r"pairs\.jsonl, line 3: '\[1\]' is no JSON object"),
        (
            ["", json.dumps({**PAIR, "azimuth_difference": 7})],
            r"pairs\.jsonl, line 2: azimuth_difference is 7",
        ),
    ]:
        (root / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load("pairs", root, "mine")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs\.jsonl: no such file; expected"):
        load("pairs", tmp_path, "mine")
    with pytest.raises(InputError, match="2 pairs have the id 'x'"):
        load("pairs", written(tmp_path, {**PAIR, "id": "x"}, {**PAIR, "id": "x"}), "mine")
    names = {"category": "object", "keypoints": ["only one"]}
    with pytest.raises(InputError, match="'object' names 1 keypoints, but pairs have 3"):
        load("pairs", written(tmp_path, names, PAIR), "mine")
    (tmp_path / "pairs.jsonl").write_text('{"source": "a.png", ', encoding="utf-8")
    with pytest.raises(InputError, match="line 1: no valid JSON"):
        load("pairs", tmp_path, "mine")
    (tmp_path / "pairs.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no text in UTF-8"):
        load("pairs", tmp_path, "mine")
    (tmp_path / "pairs.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="has no pairs"):
        load("pairs", tmp_path, "mine")
    with pytest.raises(InputError, match="unknown data set 'nope'; known: spair71k"):
        load("nope", tmp_path, "mine")


def test_padding_counts_as_absent_and_is_said_once(tmp_path: Path) -> None:
    nan = float("nan")
    points = [[1, 2], [-1, -1], [5, 6], [0, 0], [nan, nan], [], None]
    line = {**PAIR, "source_points": points, "target_points": [[3, 4]] * 7}
    root = written(tmp_path, line)
    data_set = load("pairs", root, "mine")
    assert data_set.pairs[0].common_ids == (0, 2)
    (note,) = (each for each in data_set.notes if "count as not annotated" in each)
    assert note.startswith("4 points of -1 -1, 0 0, NaN or nothing")
    assert f"mine: {note}" in check("pairs", root, "mine").facts


def test_names_may_be_numbers_also_0(tmp_path: Path) -> None:
    named = {"category": 0, "keypoints": ["a", "b", "c"]}
    (pair,) = load("pairs", written(tmp_path, named, {**PAIR, "id": 0, "category": 0}), "all").pairs
    assert (pair.id, pair.category) == ("0", "0")


def test_a_category_is_described_once(tmp_path: Path) -> None:
    first, other = ({"category": "cat", "keypoints": names} for names in (["a", "b", "c"], ["c", "b", "a"]))
    assert len(load("pairs", written(tmp_path, first, first, {**PAIR, "category": "cat"}), "all")) == 1
    with pytest.raises(InputError, match="line 2: 'cat' is described otherwise in another line; leave one"):
        load("pairs", written(tmp_path, first, other, {**PAIR, "category": "cat"}), "all")


def test_a_line_twice_counts_once(tmp_path: Path) -> None:
    root = written(tmp_path, PAIR, PAIR, {**PAIR, "id": "again"})
    data_set = load("pairs", root, "mine")
    assert [pair.id for pair in data_set.pairs] == ["000001", "again"]
    (problem,) = check("pairs", root).problems
    assert "left out: 1 lines that repeat a pair" in problem
    assert "line 2" in problem


def test_numbers_and_boxes_are_read_as_in_other_files(tmp_path: Path) -> None:
    line = {**PAIR, "source_box": ["0", 0, 9.0, "9"], "target_box": [4, 4, 4, 9], "azimuth_difference": "3"}
    data_set = load("pairs", written(tmp_path, {**line, "source_points": [["1", 2]]}), "mine")
    (pair,) = data_set.pairs
    assert (pair.source.box, pair.target.box, pair.azimuth_difference) == ((0, 0, 9, 9), None, 3)
    assert pair.source.keypoints.at([0]).tolist() == [[1.0, 2.0]]
    assert data_set.threshold_base == "box"
    assert any("boxes without extent" in note for note in data_set.notes)
    names = {"category": "object", "keypoints": ["l ear", "r ear", "nose"], "flip_idx": [1, 0, 2]}
    assert load("pairs", written(tmp_path, names, PAIR), "mine").schemas["object"].flip_pairs == ((0, 1),)
    for wrong, message in (
        ({"source_points": [["a", 2]]}, r"keypoint 0, number 1 is 'a'; expected a number"),
        ({"source_box": [1, 2, "x", 4]}, r"box, number 3 is 'x'"),
        ({"azimuth_difference": True}, "azimuth_difference is True"),
    ):
        with pytest.raises(InputError, match=message):
            load("pairs", written(tmp_path, {**PAIR, **wrong}), "mine")
