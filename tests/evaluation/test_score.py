from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geoaware.evaluation import score, score_file
from geoaware.evaluation.formats import to_dict
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.predictions import FORMAT, read, record_line, records
from geoaware.method.types import Matches
from geoaware.runs.errors import InputError
from tests.evaluation.records import SCHEMAS, make_records, make_result
from tests.evaluation.tiny import SCHEMA, tiny_dataset, tiny_matcher

HEADER = {"format": FORMAT, "format_version": 1, "protocol": "paper", "schemas": SCHEMAS}


def write(path: Path, records: list[dict], **header: object) -> Path:
    rows = [{**HEADER, "pairs": len(records), **header}, *records]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_gives_the_figures_of_its_records(tmp_path):
    records = make_records(50)
    result = score_file(write(tmp_path / "p.jsonl", records, dataset="spair71k"), draws=0)
    expected = to_dict(make_result(records))
    found = to_dict(result)
    assert found.pop("about")["dataset"] == "spair71k"
    expected.pop("about")
    assert found == expected


def test_protocol_of_the_file_decides(tmp_path):
    record = make_records(1)[0]
    record.update(
        keypoint_ids=[0], predicted=[[10.0, 0.0]], truth=[[0.0, 0.0]], size=100.0, geometry_aware=[False]
    )
    record["target_keypoints"] = {"0": [0.0, 0.0]}
    strict = score_file(write(tmp_path / "a.jsonl", [record]), draws=0)
    loose = score_file(write(tmp_path / "b.jsonl", [record], protocol="dift"), draws=0)
    assert (strict.value(0.1), loose.value(0.1)) == (0.0, 1.0)
    assert (strict.averaging, loose.averaging) == ("per_image", "per_point")
    with pytest.raises(InputError, match=r"under protocol paper, not dift.*predict again under dift"):
        score_file(tmp_path / "a.jsonl", "dift")
    assert score_file(tmp_path / "a.jsonl", "paper", draws=0).value() == 0.0


def test_other_alphas(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(30))
    result = score_file(path, alphas=[0.2, 0.05], draws=0)
    assert result.alphas == (0.05, 0.2)
    assert result.headline_alpha == 0.2


@pytest.mark.parametrize(
    ("alphas", "error_alpha", "message"),
    [
        ([0.1, 0.0], 0.1, "above 0 and at most 1, got 0$"),
        ([10.0], 0.1, "at most 1, got 10; for 10 % give 0.1$"),
        ([0.1], 15.0, "at most 1, got 15; for 15 % give 0.15$"),
        ([float("nan")], 0.1, "at most 1, got nan$"),
        ([float("inf")], 0.1, "at most 1, got inf$"),
        ([], 0.1, "no alpha is given"),
    ],
)
def test_alphas_that_are_no_shares(tmp_path, alphas, error_alpha, message):
    path = write(tmp_path / "p.jsonl", make_records(3))
    with pytest.raises(InputError, match=message):
        score_file(path, alphas=alphas, error_alpha=error_alpha)
    assert score_file(path, alphas=[1.0], draws=0).alphas == (1.0,)


def test_matches_in_memory_give_what_the_file_gives(tmp_path):
    dataset, matcher = tiny_dataset(tmp_path), tiny_matcher("off")
    path = predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings())
    encoded = {image.id: matcher.encode(image.path) for image in dataset.images}
    matches = [
        matcher.match(encoded[p.source.id], encoded[p.target.id], p.source.keypoints.at(p.common_ids)).matches
        for p in dataset.pairs
    ]
    found = to_dict(score(matches, dataset.pairs, schema=SCHEMA, draws=20))
    expected = to_dict(score_file(path, draws=20))
    for each in (found, expected):
        each.pop("about")
    assert found == expected
    one = score(matches[0], dataset.pairs[0], schema=SCHEMA, draws=0)
    assert one.overall.standard.keypoints == len(dataset.pairs[0].common_ids)
    without = score(matches[0], dataset.pairs[0], draws=0)
    assert without.overall.geometry_aware.keypoints == 0


def test_matches_that_do_not_belong_to_the_pair(tmp_path):
    pair = tiny_dataset(tmp_path).pairs[0]
    nothing = torch.zeros(0)
    empty = Matches(torch.zeros(0, 2), nothing, nothing, torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(InputError, match=r"0 predictions for \d common keypoints; match the points"):
        score(empty, pair)
    with pytest.raises(InputError, match="2 matches for 1 pairs"):
        score([empty, empty], [pair])


def test_only_the_keys_of_the_design_are_needed(tmp_path):
    records = make_records(20)
    for each in records:
        del each["target_keypoints"]
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [{"protocol": "paper"}, *records]), encoding="utf-8"
    )
    result = score_file(path, draws=0)
    assert result.errors is None
    assert result.value() == make_result(records).value()


def broken(**changes):
    def change(records):
        records[1].update(changes)
        return records

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(predicted=[]), r"line 3: \d keypoint_ids, possibly repeated, but"),
        (broken(predicted=None), "line 3: a value of this record is of the wrong kind"),
        (broken(azimuth_difference=7), r"line 3: azimuth_difference is 7; expected 0 … 4 or null"),
        (broken(target_keypoints={}), "line 3: keypoint 0 is evaluated but not among target_keypoints"),
        (broken(pair="pair 0"), r"line 3: pair 'pair 0' came before .*line 2"),
        (broken(size=0), r"a threshold base \(size\) is not a positive number"),
        (broken(size="large"), "line 3: a value of this record is of the wrong kind"),
        (broken(truth=[[1.5, 2.5]]), "truth and target_keypoints disagree"),
        (broken(predicted=[[float("nan"), 0.0]]), "a point is not finite"),
        (broken(predicted=[[1.0, 2.0, 3.0]]), r"line 3: points must be \[x, y\]"),
        (lambda records: [*records[:1], [1, 2], *records[2:]], "line 3: expected a JSON object"),
        (lambda records: [{**each, "size": True} for each in records], "line 2: .* or size True no number"),
        (
            lambda records: [{**each, "category": ["cat"]} for each in records],
            r"category \['cat'\] is no name",
        ),
        (
            lambda records: [{**each, "geometry_aware": ["no"] * len(each["truth"])} for each in records],
            "line 2: geometry_aware holds .*; expected true or false for each point",
        ),
        (
            lambda records: [{k: v for k, v in each.items() if k != "size"} for each in records],
            "line 2: the key 'size' is missing",
        ),
    ],
)
def test_records_that_cannot_be_used(tmp_path, change, message):
    records = make_records(3)
    records[1].update(
        keypoint_ids=[0],
        predicted=[[1.0, 2.0]],
        truth=[[1.0, 2.0]],
        geometry_aware=[True],
        target_keypoints={"0": [1.0, 2.0]},
    )
    read(write(tmp_path / "fine.jsonl", records))
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "p.jsonl", change(records)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "p.jsonl: is empty; write predictions with `geoaware predict`"),
        (b"{}\n", "line 1: not the header of a predictions file"),
        (b"[1]\n", "line 1: not the header of a predictions file"),
        (b"hello\nyou\n", "line 1: is not JSON; is this a predictions file?"),
        (b"\xff\xfe\n", "line 1: is not JSON"),
        (b'{"protocol": "pape', "line 1: is cut off"),
        (
            b'{"images": [], "annotations": []}',
            "p.jsonl: is no predictions file, but it is a COCO annotation",
        ),
        (b'{"images": [],\n"annotations": []}\n', "p.jsonl: is no predictions file, but it is a COCO annot"),
        (b'{"shapes": [], "imagePath": "a"}\n', "line 1: not the header of .*, but it is a labelme file; is"),
        (b'{"source": "a", "target": "b"}\n', "line 1: not the header of .*, but it is a list of pairs; is"),
        (b"[" * 100_000 + b"\n", "line 1: is not JSON"),
        (b'{"protocol": "paper"}\n', "holds no predictions, only a header"),
        (b'{"protocol": "paper", "format_version": 9}\n', "version 9, but .* version 1 is needed"),
        (b'{"protocol": "paper", "settings": 3}\n', "settings of the header must be an object"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


def test_missing_unknown_and_cut_off(tmp_path):
    with pytest.raises(InputError, match=r"no such file; write it with `geoaware predict`"):
        read(tmp_path / "nothing.jsonl")
    path = write(tmp_path / "p.jsonl", make_records(3), protocol="mine")
    with pytest.raises(InputError, match="unknown protocol 'mine'"):
        score_file(path)
    content = write(path, make_records(3)).read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"p.jsonl, line 4: is cut off; fetch it again, or predict again"):
        read(path)
    part = tmp_path / "p.jsonl.part"
    part.write_bytes(content[: content[:-1].rindex(b"\n") + 1])
    with pytest.raises(InputError, match=r"holds 2 of the 3 pairs .* to finish it"):
        read(part)


def test_records_are_told_apart_by_the_line_feed_alone(tmp_path):
    # Ids may hold what str.splitlines takes for the end of a line.
    lines = [dict(each, pair=f"{number}\u2028\x85") for number, each in enumerate(make_records(2))]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(map(record_line, [HEADER, *lines])), encoding="utf-8", newline="\n")
    assert len(read(path)[1].category) == 2
    assert list(records(path)) == lines


def test_scoring_needs_no_torch(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(5))
    code = (
        "import sys; from geoaware.evaluation import score_file; "
        f"print(score_file({str(path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that exists and cannot be read")
def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InputError, match=r"/proc/self/mem: cannot be read \("):
        score_file(Path("/proc/self/mem"))


def test_a_header_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    deep = "[" * 900 + "]" * 900
    path.write_text(f'{{"format":"{FORMAT}","protocol":"paper","settings":{{"a":{deep}}}}}\n')
    with pytest.raises(InputError, match=r"p.jsonl, line 1: (the header is nested too deeply|is not JSON)"):
        score_file(path)
