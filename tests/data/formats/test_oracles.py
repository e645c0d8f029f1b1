"""Other programs read what is written: sleap-io, pandas, pycocotools, and plain readings of each format."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.data.formats.made import KEYPOINTS, NAMES, SCORES, SIZES, images, result, write

A, B = (np.array(KEYPOINTS["a/1.jpg"][each], float).reshape(-1, 3) for each in (0, 1))
"""The cats of the first image: x, y, flag."""


def test_sleap_io_reads_what_is_written(tmp_path: Path) -> None:
    sleap = pytest.importorskip("sleap_io")
    folder = images(tmp_path / "images")
    labels = sleap.load_slp(str(write("slp", tmp_path, result(folder, scored=True))))
    (skeleton,) = labels.skeletons
    assert (skeleton.name, skeleton.node_names) == ("cat", NAMES)
    assert skeleton.edge_inds == [(0, 3), (3, 1), (3, 2)]
    assert skeleton.symmetry_names == [("right ear", "left ear")]
    assert [each.filename for each in labels.videos] == [[str(folder / name)] for name in SIZES]
    assert [each.shape for each in labels.videos] == [(1, 80, 120, 3), (1, 48, 64, 3)]
    first = labels.labeled_frames[0]
    assert [type(each).__name__ for each in first] == ["PredictedInstance"] * 2
    assert first[0].score == 0.5
    assert first[0].points["score"].tolist() == [0.5, 0.25, 0.0, 0.75]
    assert first[0].points["visible"].tolist() == [True, False, False, True]
    np.testing.assert_array_equal(first[0].points["xy"][:2], A[:2, :2])
    assert np.isnan(first[0].points["xy"][2]).all()
    np.testing.assert_array_equal(first[1].numpy(), B[:, :2])
    people = sleap.load_slp(str(write("slp", tmp_path / "people", result(folder))))
    assert [type(each).__name__ for each in people.labeled_frames[1]] == ["Instance"]


def test_sleap_io_and_pandas_read_deeplabcut(tmp_path: Path) -> None:
    out = write("dlc", tmp_path, result(None, scored=True))
    table = pd.read_csv(
        out / "labeled-data/a/CollectedData_geoaware.csv", header=[0, 1, 2, 3], index_col=[0, 1, 2]
    )
    assert list(table.index) == [("labeled-data", "a", "1.jpg")]
    assert list(table.columns.get_level_values("bodyparts").unique()) == NAMES
    first = table["geoaware", "individual1"].to_numpy().reshape(-1, 2)
    np.testing.assert_array_equal(first[[0, 3]], A[[0, 3], :2])
    assert np.isnan(first[1:3]).all()  # hidden, absent
    chances = pd.read_csv(
        out / "labeled-data/a/machinelabels-iter0.csv", header=[0, 1, 2, 3], index_col=[0, 1, 2]
    )
    found = chances["geoaware", "individual1"].to_numpy().reshape(-1, 3)
    np.testing.assert_array_equal(found[1], [*A[1, :2], SCORES[1]])
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert (config["multianimalbodyparts"], config["bodyparts"]) == (NAMES, "MULTI!")
    assert config["skeleton"] == [["tail", "nose"], ["nose", "right ear"], ["nose", "left ear"]]
    sleap = pytest.importorskip("sleap_io")
    labels = sleap.load_file(str(out / "labeled-data/a/CollectedData_geoaware.csv"), format="dlc")
    tail = labels.labeled_frames[0][0].numpy()[labels.skeletons[0].node_names.index("tail")]
    np.testing.assert_array_equal(tail, A[0, :2])


def test_label_studio_by_its_own_rules(tmp_path: Path) -> None:
    out = write("labelstudio", tmp_path, result(None, scored=True))
    task = json.loads(out.read_text(encoding="utf-8"))[0]
    assert task["data"] == {"image": "/data/local-files/?d=a/1.jpg"}
    assert "annotations" not in task
    (guess,) = task["predictions"]
    assert (guess["model_version"], guess["score"]) == ("geoaware", 0.5)
    points = [each for each in guess["result"] if each["type"] == "keypointlabels"]
    assert [each["value"]["keypointlabels"] for each in points[:2]] == [["tail"], ["nose"]]
    assert [each["score"] for each in points[:2]] == [0.5, 0.75]
    assert points[0]["value"]["x"] == pytest.approx(100 * 30.25 / 120)
    people = json.loads(write("labelstudio", tmp_path / "b", result(None)).read_text(encoding="utf-8"))[0]
    assert "predictions" not in people


def test_pycocotools_reads_coco(tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = tools.COCO(str(write("coco", tmp_path, result(None))))
    assert coco.loadCats(3)[0]["keypoints"] == NAMES
    assert coco.loadAnns(coco.getAnnIds(imgIds=[2]))[0]["keypoints"] == KEYPOINTS["b/ü 2.jpg"][0]


def test_yolo_by_its_own_rules(tmp_path: Path) -> None:
    folder = images(tmp_path / "images")
    out = write("yolo", tmp_path, result(folder))
    config = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert config["flip_idx"] == [0, 2, 1, 3]
    assert (config["kpt_shape"], config["names"], config["path"]) == ([4, 3], {0: "cat"}, str(folder))
    assert config["kpt_names"] == {0: NAMES}
    rows = np.loadtxt(out / "labels/a/1.txt")
    assert rows.shape == (2, 17)
    np.testing.assert_allclose(rows[0, 1:5] * [120, 80, 120, 80], [40, 20, 40, 30], atol=1e-5)
    np.testing.assert_allclose(rows[:, 5:].reshape(2, 4, 3) * [120, 80, 1], [A, B], atol=1e-5)


def test_cvat_by_its_own_rules(tmp_path: Path) -> None:
    root = ElementTree.parse(write("cvat", tmp_path, result(None))).getroot()
    labels = root.findall("meta/task/labels/label")
    assert [each.findtext("type") for each in labels] == ["skeleton", *["points"] * 4]
    assert [each.findtext("parent") for each in labels] == [None, *["cat"] * 4]
    drawing = ElementTree.fromstring(f"<svg>{labels[0].findtext('svg')}</svg>")
    nodes = {each.get("data-node-id"): each.get("data-label-name") for each in drawing.iter("circle")}
    assert list(nodes.values()) == NAMES
    limbs = [(each.get("data-node-from"), each.get("data-node-to")) for each in drawing.iter("line")]
    assert [(nodes[a], nodes[b]) for a, b in limbs] == [
        ("tail", "nose"),
        ("nose", "right ear"),
        ("nose", "left ear"),
    ]
    first = root.findall("image")[0]
    assert first.attrib == {"id": "0", "name": "a/1.jpg", "width": "120", "height": "80"}
    points = first.findall("skeleton")[0].findall("points")
    flags = [(each.get("outside"), each.get("occluded")) for each in points]
    assert flags == [("0", "0"), ("0", "1"), ("1", "0"), ("0", "0")]
    # What is absent lies in the middle of the box, to be dragged.
    assert [each.get("points") for each in points[:3]] == ["30.25,20.5", "40,11.125", "40.0,20.0"]


def test_labelme_by_its_own_rules(tmp_path: Path) -> None:
    folder = images(tmp_path / "images")
    out = write("labelme", tmp_path, result(folder))
    content = json.loads((out / "b/ü 2.json").read_text(encoding="utf-8"))
    assert (out / "b" / content["imagePath"]).resolve() == folder / "b/ü 2.jpg"
    assert (content["imageWidth"], content["imageHeight"]) == (64, 48)
    assert {each["group_id"] for each in content["shapes"]} == {1}
    kinds = [(each["label"], each["shape_type"], each["flags"]) for each in content["shapes"]]
    assert kinds == [
        ("cat", "rectangle", {}),
        ("tail", "point", {}),
        ("right ear", "point", {}),
        ("left ear", "point", {"hidden": True}),
    ]
    assert (out / "labels.txt").read_text().split("\n")[:-1] == ["cat", *NAMES]
