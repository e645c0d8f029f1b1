from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest

from geoaware.apps.transfer import TransferSettings, transfer
from geoaware.apps.transfer.coco_out import read_run
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import NAMES, job, matcher

SETTINGS = TransferSettings(threshold=0.3, keep_guesses=True)


def test_the_table_says_what_the_coco_file_says(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    coco = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS)
    found = transfer(sources, targets, matcher(), tmp_path / "out.parquet", SETTINGS)
    assert (found.targets, found.failed, found.reasons) == (coco.targets, coco.failed, coco.reasons)
    content = json.loads(coco.out.read_text(encoding="utf-8"))
    table = pandas.read_parquet(found.out)
    assert len(table) == len(content["annotations"]) * len(NAMES) == 20
    images = {each["id"]: each for each in content["images"]}
    for (number, rows), entry in zip(table.groupby("annotation_id"), content["annotations"], strict=True):
        image = images[entry["image_id"]]
        assert number == entry["id"]
        assert rows.keypoint.tolist() == NAMES
        assert rows.keypoint_id.tolist() == list(range(5))
        for key in ("file_name", "width", "height"):
            assert set(rows[key]) == {image[key]}
        assert set(rows.image_id) == {image["id"]}
        assert set(rows.source) == {entry["source"]}
        assert set(rows.pose) == {entry["pose"]}
        flags = [2 * each for each in rows.visible]
        assert flags == entry["keypoints"][2::3]
        guesses = rows[["x", "y", "probability"]].to_numpy().tolist()
        assert guesses == entry["guesses"]
    about = read_run(found.out)
    assert about is not None
    assert about["run"] == content["info"]["run"]
    assert about["calibration"] == content["info"]["calibration"]
    assert about["failed"] == content["info"]["failed"]


def test_a_table_is_known_as_its_own(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / "out.parquet"
    first = transfer(sources, targets, matcher(), out, SETTINGS)
    before = out.read_bytes()
    assert transfer(sources, targets, matcher(), out, SETTINGS) == first
    with pytest.raises(InputError, match=r"out.parquet: belongs to another run \(different: settings.pose"):
        transfer(sources, targets, matcher("off"), out)
    assert out.read_bytes() == before
    transfer(sources, targets, matcher(), out, SETTINGS, restart=True)
    assert out.read_bytes() == before
    pandas.DataFrame({"a": [1]}).to_parquet(out)
    with pytest.raises(InputError, match="exists and was not written by this command of geoaware"):
        transfer(sources, targets, matcher(), out, SETTINGS, restart=True)
