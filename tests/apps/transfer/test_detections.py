from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geoaware.apps.transfer import Targets, list_targets, read_sources, read_targets, with_detections
from geoaware.apps.transfer.targets import Detected
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import category, photos, write_sources

NAMES = {"1": "animal", "2": "person", "3": "vehicle"}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def mega(*images: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"images": list(images), "detection_categories": NAMES, "info": {"format_version": "1.3"}, **more}


def seen(name: str, *boxes: tuple[str, float, list[float]]) -> dict[str, Any]:
    detections = [{"category": kind, "conf": score, "bbox": box} for kind, score, box in boxes]
    return {"file": name, "detections": detections}


def result(image: Any, box: list[float], score: Any = 0.9, kind: Any = 7, key: str = "image_id") -> Any:
    return {key: image, "category_id": kind, "bbox": box, "score": score}


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    return list_targets([photos(tmp_path / "photos", 3)])


@pytest.fixture
def listed(tmp_path: Path) -> Targets:
    """The same images in a COCO file, under the ids 10, 20 and 30."""
    photos(tmp_path / "images", 3)
    images = [{"id": 10 * each + 10, "file_name": f"{each:03}.png"} for each in range(3)]
    sources = read_sources(write_sources(tmp_path / "s"))
    content = {"images": images, "categories": [category()]}
    return read_targets(write(tmp_path / "images.json", content), sources)


def refused(targets: Targets, path: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=message):
        with_detections(targets, path, "cat", **options)


def test_megadetector(tmp_path: Path, targets: Targets) -> None:
    content = mega(
        seen("000.png", ("1", 0.9, [0.1, 0.2, 0.3, 0.4]), ("2", 0.99, [0, 0, 1, 1])),
        seen("001.png", ("1", 0.1, [0, 0, 0.5, 0.5])),
        {"file": "002.png", "failure": "Failure image access"},
    )
    path = write(tmp_path / "md.json", content)
    found = with_detections(targets, path, "cat")
    assert found[0].detected == Detected(((0.1, 0.2, 0.3, 0.4),), (0.9,), True)
    assert found[1].detected == Detected()
    assert found[2].detected is not None
    assert found[2].detected.failure == "the detector failed on it (Failure image access)"
    assert found.notes == (
        "left out: boxes of other categories (1 of person)",
        "left out: 1 boxes of scores below 0.2",
        "1 images without a box, so without an object (001.png)",
    )
    lower = with_detections(targets, path, "cat", least=0.1)
    assert lower[1].detected == Detected(((0, 0, 0.5, 0.5),), (0.1,), True)
    people = with_detections(targets, path, "person")
    assert people[0].detected == Detected(((0, 0, 1, 1),), (0.99,), True)
    for chosen in ("person", "2"):
        assert with_detections(targets, path, "cat", chosen=chosen).detected == people.detected
    assert len({each.hash() for each in (targets, found, lower, people)}) == 4
    assert found.key(0) == lower.key(0) != people.key(0)


@pytest.mark.parametrize(
    "name", ["000.png", "/data/photos/000.png", "C:\\data\\photos\\000.png", "photos\\000.png", "./000.png"]
)
def test_names_of_other_places_and_systems(tmp_path: Path, targets: Targets, name: str) -> None:
    path = write(tmp_path / "md.json", mega(seen(name, ("1", 0.9, [0, 0, 1, 1]))))
    assert list(with_detections(targets, path, "cat").detected) == ["000.png"]


def test_names_relative_to_a_folder_inside(tmp_path: Path) -> None:
    photos(tmp_path / "all" / "one", 2)
    targets = list_targets([tmp_path / "all"], recursive=True, root=tmp_path)
    path = write(tmp_path / "md.json", mega(seen("one/000.png", ("1", 0.9, [0, 0, 1, 1]))))
    assert list(with_detections(targets, path, "cat").detected) == ["all/one/000.png"]


def test_coco_results_by_name_and_by_id(tmp_path: Path, targets: Targets, listed: Targets) -> None:
    box, expected = [1, 2, 30, 40], {"001.png": Detected(((1, 2, 30, 40),), (0.9,))}
    by_name = write(tmp_path / "names.json", [result("001.png", box, key="file_name")])
    assert with_detections(targets, by_name, "cat").detected == expected
    by_id = write(tmp_path / "ids.json", [result("20", [str(each) for each in box], "0.9")])
    assert with_detections(listed, by_id, "cat").detected == expected
    # Where nothing lists the ids, the numbers of the files are meant.
    stem = write(tmp_path / "stems.json", [result(1, box)])
    assert with_detections(targets, stem, "cat").detected == expected
    unknown = write(tmp_path / "unknown.json", [result(1, box), result(77, box)])
    assert f"1 images of {unknown} are no targets (77)" in with_detections(targets, unknown, "cat").notes


def test_annotations_with_boxes(tmp_path: Path, targets: Targets) -> None:
    content = {
        "images": [{"id": 5, "file_name": "photos/002.png"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 5, "category_id": 8, "bbox": [5, 6, 7, 8]},
            {"id": 3, "image_id": 5, "category_id": 7, "bbox": [5, 6, 0, 0]},
        ],
        "categories": [category(), {"id": 8, "name": "dog"}],
    }
    found = with_detections(targets, write(tmp_path / "boxes.json", content), "cat")
    assert found.detected == {"002.png": Detected(((1, 2, 3, 4),), (None,))}
    assert "left out: boxes without extent, which count as none (1, photos/002.png)" in found.notes


def test_which_category_is_meant(tmp_path: Path, targets: Targets, listed: Targets) -> None:
    two = write(
        tmp_path / "two.json", [result("10", [1, 1, 9, 9], kind=7), result("20", [1, 1, 9, 9], kind=8)]
    )
    assert list(with_detections(listed, two, "cat").detected) == ["000.png"]  # 7 is the cat's id in the file
    assert list(with_detections(listed, two, "cat", chosen="8").detected) == ["001.png"]
    refused(listed, two, "has boxes of 7, 8, none called 'cow'; choose one", chosen="cow")
    names = [result(f"00{each}.png", [1, 1, 9, 9], kind=each, key="file_name") for each in range(2)]
    refused(
        targets, write(tmp_path / "names.json", names), "has boxes of 0, 1, none called 'cat'; choose one"
    )


def test_what_cannot_be_used(tmp_path: Path, targets: Targets, listed: Targets) -> None:
    refused(targets, tmp_path / "no.json", "no such file; expected boxes of a detector")
    refused(targets, write(tmp_path / "a.json", []), "is an empty list; run the detector again")
    refused(targets, write(tmp_path / "b.json", mega()), "lists no images; run the detector again")
    refused(targets, write(tmp_path / "c.json", {"type": "x", "features": []}), "but it is a GeoJSON file")
    refused(targets, write(tmp_path / "d.json", [{"image_id": 1}]), "entry 0 lacks image_id or bbox")
    refused(targets, write(tmp_path / "e.json", [result(1, [1, 2, 3])]), "entry 0: bbox is .*; expected x, y")
    refused(
        targets,
        write(tmp_path / "f.json", [result("000.png", [0.1, 0.1, 0.5, 0.5], key="file_name")]),
        "its boxes are shares of the images; COCO's are in pixels",
    )
    outside = write(tmp_path / "g.json", mega(seen("000.png", ("1", 0.9, [0.8, 0, 0.5, 0.5]))))
    refused(targets, outside, r"image '000.png': the box \[0.8, 0, 0.5, 0.5\] lies outside the image; boxes")
    refused(
        targets,
        write(tmp_path / "h.json", [result(77, [1, 1, 9, 9])]),
        r"none of its 1 image ids is a target \(77\); give the COCO file that lists its images as targets",
    )
    refused(
        targets,
        write(tmp_path / "i.json", mega(seen("other.png", ("1", 0.9, [0, 0, 1, 1])))),
        r"none of its 1 images is a target \(other.png\); give the images that the detector saw",
    )
    refused(targets, outside, "the smallest score is 0 to 1, got 5", least=5)
    bare = {"images": [{"id": 1, "file_name": "000.png"}]}
    refused(targets, write(tmp_path / "j.json", bare), "no annotation in it has a box")
