"""What the tools export is read as its author meant it, and its images are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from geoaware.apps.transfer import read_sources
from geoaware.data import load
from geoaware.data.check import check
from geoaware.data.formats import read
from geoaware.runs.errors import InputError
from tests.data.formats.exports import EXPORTS, NAMES, PLACES, SIZE, label_studio, sleap, yolo, zipped


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_is_a_source(tmp_path: Path, kind: str) -> None:
    make, name, knows_hidden, count = EXPORTS[kind]
    sources = read_sources(make(tmp_path / "export"))
    assert sources.format == name
    assert len(sources.images) == count
    assert sources.name == "cat"
    assert sorted(sources.schema.names) == sorted(NAMES if name != "labelstudio" else PLACES)
    if name not in ("labelstudio", "labelme"):
        assert list(sources.schema.names) == NAMES
    first = sources.images[0]
    ids = first.keypoints.visible_ids
    places = [[round(each, 3) for each in xy] for xy in first.keypoints.at(ids).tolist()]
    found = {sources.schema.names[each]: tuple(xy) for each, xy in zip(ids, places, strict=True)}
    assert found == PLACES
    assert first.size == SIZE
    assert all(Image.open(each.path).size == SIZE for each in sources.images)
    if knows_hidden:
        assert any("marked as hidden (flag 1)" in each for each in sources.notes)


@pytest.mark.parametrize(
    "kind", ["COCO of CVAT", "COCO of Roboflow", "DeepLabCut", "YOLO", "YOLO of Roboflow", "labelme"]
)
def test_a_zip_is_read_as_its_folder(tmp_path: Path, kind: str) -> None:
    make, name, _, count = EXPORTS[kind]
    make(tmp_path / "export/inner")
    sources = read_sources(zipped(tmp_path / "export", tmp_path / "export.zip"))
    assert (sources.format, len(sources.images)) == (name, count)
    assert all(Image.open(each.path).size == SIZE for each in sources.images)
    # Nothing is put beside what the user has.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["export", "export.zip"]


@pytest.mark.parametrize("kind", ["CVAT", "DeepLabCut", "SLEAP", "YOLO"])
def test_limbs_are_kept(tmp_path: Path, kind: str) -> None:
    sources = read_sources(EXPORTS[kind][0](tmp_path))
    assert sources.schema.skeleton == (() if kind == "YOLO" else ((0, 2),))


def test_hidden_keypoints_keep_their_places(tmp_path: Path) -> None:
    for number, (make, _, knows_hidden, _) in enumerate(EXPORTS.values()):
        if knows_hidden:
            first = read_sources(make(tmp_path / str(number)), hidden=True).images[0]
            assert [60.0, 40.0] in first.keypoints.at(first.keypoints.visible_ids).tolist()


def test_the_coco_loader_reads_them_too(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "labels/val").mkdir(parents=True)
    (folder / "labels/val/2.txt").write_bytes((folder / "labels/train/1.txt").read_bytes())
    data = load("coco", folder, "all")
    assert sorted(each.id for each in data.images) == ["images/train/1.jpg", "images/val/2.jpg"]
    assert data.schemas["cat"].names == tuple(NAMES)


def test_predictions_are_used_where_nobody_annotated(tmp_path: Path) -> None:
    path = label_studio(tmp_path)
    text = path.read_text()
    path.write_text(text.replace('"was_cancelled": false', '"was_cancelled": true'))
    found = read(path)
    assert found.notes == ("no task has an annotation, so predictions are used",)
    (entry,) = found.content["annotations"]
    assert entry["keypoints"] == [1, 1, 2]


def test_images_of_a_package_are_those_of_the_film(tmp_path: Path) -> None:
    sources = read_sources(sleap(tmp_path, package=True))
    assert Image.open(sources.images[0].path).convert("RGB").getpixel((5, 5)) == (200, 90, 10)


def test_only_the_split_all_takes_what_a_folder_holds(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    with pytest.raises(InputError, match=r"no tset.json or annotations/tset.json"):
        load("coco", folder, "tset")


def test_data_check_names_the_format(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "labels/val").mkdir(parents=True)
    (folder / "labels/val/2.txt").write_bytes((folder / "labels/train/1.txt").read_bytes())
    findings = check("coco", folder)
    assert findings.fine, findings.problems
    assert "all: read as a YOLO data set" in findings.facts
