"""What cannot be read is named for what it is, with the place, in a line or two."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from geoaware.data.coco_file import read_coco
from geoaware.data.formats import archive
from geoaware.data.formats.hub import Head, hdf5_names
from geoaware.runs.errors import InputError, MissingDependencyError
from tests.data.formats import exports
from tests.data.formats.exports import text, zipped


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_coco(path)
    assert str(error.value).startswith(str(path.parent))
    assert str(error.value).count("\n") <= 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<annotations><track id='0'/></annotations>", "a CVAT XML for videos"),
        ("a.xml", "<annotation><folder/></annotation>", "is no COCO keypoints file, but it is a Pascal VOC"),
        ("a.xml", "<?xml version='1.0'?><TrackMate/>", "but it is an XML file of another program"),
        ("a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>&b;</annotations>", "has a DOCTYPE"),
        ("a.xml", "<annotations>\n<image>", "a.xml, line 2: damaged, no valid XML"),
        ("a.xml", "<annotations><image id='0'/></annotations>", "image None: is not as CVAT writes it"),
        (
            "a.xml",
            "<annotations><image name='1.jpg'><points label='nose' points='1,x'/></image></annotations>",
            "image '1.jpg': 'nose': points, number 2 is 'x'; expected a number",
        ),
        ("a.json", '[{"id": 1, "keypoints": [{"keypointlabels": ["nose"]}]}]', "is Label Studio's JSON-MIN"),
        ("a.json", '[{"id": 5, "annotations": [{"result": 3}], "data": {}}]', "task 5: is not as Label"),
        ("a.json", '[{"annotations": [', "damaged, no valid JSON"),
        ("a.json", '{"version": "5", "shapes": [{"points": []}], "imagePath": "1.jpg"}', "as labelme writes"),
        ("a.json", '{"version": "5", "shapes": 7, "imagePath": "1.jpg"}', "is not as labelme writes it"),
        ("a.json", '{"_via_img_metadata": {}}', "but it is a VIA project"),
        ("data.yaml", "names: [cat]\ntrain: images\n", "has no kpt_shape, so is no data set of keypoints"),
        ("data.yaml", "names: [cat]\nkpt_shape: [3, 4]\n", r"kpt_shape \[3, 4\]; expected"),
        ("data.yaml", "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 1]\n", "not give each keypoint its"),
        ("data.yaml", "kpt_shape: [2, 3\nnames: x", "is not as YOLO writes it"),
        ("1.txt", "0 0.5 0.5 0.1 0.1 0.3 0.4 2\n", "but it is a label file of YOLO: give the data.yaml"),
        ("config.yaml", "Task: cat\nbodyparts: [nose]\n", "no table CollectedData_….csv in labeled-data"),
        ("config.yaml", "Task: cat\nbodyparts: MULTI!\n", "its bodyparts are no list of names"),
        ("a.csv", "scorer,me,me\nbodyparts,nose,nose\ncoords,x\n", "no rows bodyparts and coords"),
        ("a.csv", "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\n1.png,5\n", "line 4: 2 columns; expec"),
        ("a.csv", "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\n1.png,5,z\n", "line 4: y of nose is 'z'"),
        ("a.json", "version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    refused(text(tmp_path / name, content), message)


def test_a_label_of_yolo_is_named_with_its_line(tmp_path: Path) -> None:
    label = exports.yolo(tmp_path) / "labels/train/1.txt"
    whole = label.read_text()
    for line, message in {
        "0 0.5 0.5 0.1 0.1": r"1.txt, line 2: 5 columns; expected 14 \(class, box, 3 keypoints\)",
        whole.replace("1 ", "7 ", 1): "line 2: class 7, and data.yaml names 2",
        whole.replace(" 2 ", " 0.9 ", 1): "line 2: the flag 0.9 of 'tail' is not 0, 1 or 2",
        whole.replace("0.5", "half", 1): "line 2: column 2 is 'half'; expected a number",
    }.items():
        label.write_text(whole + line)
        with pytest.raises(InputError, match=message):
            read_coco(tmp_path)


def test_damaged_and_other_hdf5(tmp_path: Path) -> None:
    path = exports.sleap(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "damaged, no valid HDF5")
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    refused(path, "is an HDF5 file of another kind")
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["points"]
    refused(path, "is not as SLEAP writes it")
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        film = json.dumps({"filename": "C:\\film.mp4", "backend": {"filename": "C:\\film.mp4"}})
        file["videos_json"][0] = film.encode()
    refused(path, "annotates frames of the video film.mp4; put it beside the file, or export a pack")


def test_a_table_that_does_not_fit_the_memory(tmp_path: Path) -> None:
    path = exports.sleap(tmp_path)
    with h5py.File(path, "a") as file:
        kind = file["points"].dtype
        del file["points"]
        file.create_dataset("points", shape=(1 << 40,), dtype=kind, chunks=(1024,))
    refused(path, "a table of 1,099,511,627,776 rows")


def test_hdf5_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exports.sleap(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(
        MissingDependencyError, match=r"'h5py' is not installed: pip install 'geoaware\[formats\]'"
    ):
        read_coco(path)


def test_two_formats_in_a_folder(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    text(tmp_path / "a.xml", "<annotations/>")
    with pytest.raises(
        InputError, match=r"holds a CVAT XML \(a.xml\) and a labelme file \(labels/1.json\); give the"
    ):
        read_coco(tmp_path)


def test_several_files_of_a_format(tmp_path: Path) -> None:
    for name in "ab":
        text(tmp_path / f"{name}.xml", "<annotations/>")
    with pytest.raises(
        InputError, match=r"holds 2 files of a kind \(a.xml, b.xml\); give the one that is meant"
    ):
        read_coco(tmp_path)


def test_two_coco_files_of_an_image(tmp_path: Path) -> None:
    exports.coco_of_cvat(tmp_path)
    content = json.dumps(exports.coco("cats/1.jpg"))
    text(tmp_path / "annotations/again.json", content)
    with pytest.raises(
        InputError, match=r"again.json and person_keypoints_default.json both have images/default/cats"
    ):
        read_coco(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    text(tmp_path / "settings.json", '{"a": 1}')
    text(tmp_path / "notes.json", '{"categories": [{"id": 0, "name": "cat"}], "info": {}}')  # of Label Studio
    with pytest.raises(
        InputError, match=r"holds no annotations that are known \(COCO, CVAT XML, Label Studio"
    ):
        read_coco(tmp_path)


def _member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_member("../a.json"), "'../a.json' in it leads out of its folder"),
        (_member("a/../../b.json"), "leads out of its folder"),
        (_member("/etc/a.json"), "'/etc/a.json' in it leads out of its folder"),
        (_member("..\\a.json"), "leads out of its folder"),
        (_member("C:\\a.json"), "leads out of its folder"),
        (_member("a.json", stat.S_IFLNK | 0o777), "'a.json' in it is a link"),
    ],
)
def test_zips_that_lead_out(tmp_path: Path, member: zipfile.ZipInfo, message: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, "{}")
    refused(path, message)
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


def test_zips_that_are_too_large_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports.coco_of_cvat(tmp_path / "in")
    path = zipped(tmp_path / "in", tmp_path / "a.zip")
    whole = bytearray(path.read_bytes())
    whole[60:90] = bytes(30)
    path.write_bytes(whole)
    refused(path, "cannot be unpacked")
    path.write_bytes(whole[:100])
    refused(path, "cannot be unpacked .*; fetch it again, or unpack it yourself")
    zipped(tmp_path / "in", path)
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    refused(path, "would be 2 files of 0.0 GiB, too much here; unpack it yourself")


def test_a_zip_of_other_things(tmp_path: Path) -> None:
    text(tmp_path / "in/readme.md", "hello")
    refused(zipped(tmp_path / "in", tmp_path / "a.zip"), "a.zip: holds no annotations that are known")


def test_damaged_names_of_hdf5_are_no_names(tmp_path: Path) -> None:
    path = tmp_path / "labels.slp"
    with h5py.File(path, "w") as file:
        for name in (b"metadata", b"videos\xea_json"):
            file.create_group(name)
    assert hdf5_names(path, Head(path.read_bytes()[:64], "")) == {"metadata"}
    refused(path, "is no COCO keypoints file")
