"""Several objects in an image: from a detector's boxes, and found."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.apps.transfer import (
    Sources,
    Targets,
    TransferSettings,
    list_targets,
    read_sources,
    transfer,
    with_detections,
)
from geoaware.apps.transfer.coco_out import as_result, read_results
from geoaware.apps.transfer.review import write_review
from geoaware.data import formats
from geoaware.runs.errors import InputError
from geoaware.runs.work import Local
from tests.apps.transfer.test_detections import mega, seen, write
from tests.apps.transfer.tiny import CELL, POINTS, SIDE, finding, on_black, write_sources
from tests.films import film, steps

SIZE = (351, 234)
CORNERS = {"a.png": [(0, 0), (234, 100)], "b.png": [], "c.png": [(100, 50)]}
ALL = TransferSettings(threshold=0.0, margin=0.0)
FIND = TransferSettings(threshold=0.0, find=0.5)


def share(corner: tuple[int, int], score: float = 0.9) -> tuple[str, float, list[float]]:
    (x, y), (width, height) = corner, SIZE
    return "1", score, [x / width, y / height, SIDE / width, SIDE / height]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return read_sources(write_sources(tmp_path / "s", [(0, 0), (0, 0)]))


@pytest.fixture
def images(tmp_path: Path) -> Targets:
    (tmp_path / "photos").mkdir()
    for name, corners in CORNERS.items():
        on_black(*corners, size=SIZE).save(tmp_path / "photos" / name)
    return list_targets([tmp_path / "photos"])


@pytest.fixture
def detected(tmp_path: Path, images: Targets) -> Targets:
    entries = [seen(name, *map(share, corners)) for name, corners in CORNERS.items()]
    return with_detections(images, write(tmp_path / "md.json", mega(*entries)), "cat")


def by_image(path: Path) -> dict[str, list[dict[str, Any]]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, list[dict[str, Any]]] = {each["file_name"]: [] for each in content["images"]}
    names = {each["id"]: each["file_name"] for each in content["images"]}
    for each in content["annotations"]:
        found[names[each["image_id"]]].append(each)
    return found


def check(found: dict[str, list[dict[str, Any]]], slack: float, exact: bool) -> None:
    """Each object has its own box and its own keypoints; what has none is there without an annotation."""
    assert list(found) == list(CORNERS)
    for name, corners in CORNERS.items():
        assert len(found[name]) == len(corners)
        for each in found[name]:
            x, y, width, height = each["bbox"]
            corner = min(corners, key=lambda at: abs(at[0] - x) + abs(at[1] - y))
            assert max(abs(corner[0] - x), abs(corner[1] - y)) <= slack
            assert max(abs(width - SIDE), abs(height - SIDE)) <= slack
            points = np.array(each["keypoints"]).reshape(-1, 3)
            off = np.abs(points[:, :2] - (np.array(POINTS) + corner))
            assert (np.median(off) < CELL / 2) if exact else (off.max() < SIDE)
            assert each["area"] == pytest.approx(width * height, abs=0.1)


def test_boxes_of_a_detector(tmp_path: Path, sources: Sources, detected: Targets) -> None:
    ended = transfer(sources, detected, finding(), tmp_path / "out.json", ALL)
    found = by_image(ended.out)
    check(found, 0.01, True)
    assert [each["id"] for entries in found.values() for each in entries] == [1, 2, 3]
    assert [each["detection_score"] for each in found["a.png"]] == [0.9, 0.9]
    counts = ended.counts
    assert (ended.targets, counts.objects, counts.bare_images, counts.failed_targets) == (3, 3, 1, 0)
    assert (counts.shown_keypoints, counts.sought_keypoints) == (15, 15)
    info = json.loads(ended.out.read_text())["info"]
    assert (info["objects"], info["bare_images"]) == (3, 1)
    assert "find" not in info["run"]["settings"]


def test_objects_are_found(tmp_path: Path, sources: Sources, images: Targets) -> None:
    ended = transfer(sources, images, finding(), tmp_path / "out.json", FIND)
    check(by_image(ended.out), CELL * SIZE[0] / SIDE, False)
    assert all(each["detection_score"] >= 0.5 for _, each in read_results(ended.out))
    assert ended.counts.bare_images == 1
    with pytest.raises(InputError, match="either found or given by a detector, not both"):
        transfer(sources, replace(images, detector=Path("md.json")), finding(), tmp_path / "no.json", FIND)


def test_without_objects_nothing_is_made_up(tmp_path: Path, sources: Sources, images: Targets) -> None:
    bare = list_targets([images.path("b.png")])
    ended = transfer(sources, bare, finding(), tmp_path / "out.json", FIND)
    assert by_image(ended.out) == {"b.png": []}
    with pytest.raises(InputError, match="no object was found, so there is nothing to review"):
        write_review(ended.found, sources, bare, tmp_path / "page.html")


@pytest.mark.parametrize("find", [True, False])
@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, sources: Sources, images: Targets, detected: Targets, stop: int, find: bool
) -> None:
    targets, settings = (images, FIND) if find else (detected, ALL)

    def stopping(what: str, done: int, total: int) -> None:
        if (what, done) == ("annotating", stop):
            raise KeyboardInterrupt

    whole = transfer(sources, targets, finding(), tmp_path / "whole.json", settings).out
    out = tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        transfer(sources, targets, finding(), out, settings, progress=stopping)
    again = finding()
    assert transfer(sources, targets, again, out, settings).out.read_bytes() == whole.read_bytes()
    processes = transfer(sources, targets, finding(), tmp_path / "two.json", settings, engine=Local(2))
    assert processes.out.read_bytes() == whole.read_bytes()


def test_boxes_outside_and_failures_are_of_their_images_alone(tmp_path: Path, sources: Sources) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        on_black((0, 0), size=SIZE).save(images / name)
    results = [
        {"file_name": name, "bbox": box, "score": 1}
        for name, box in (("a.png", [0, 0, SIDE, SIDE]), ("b.png", [400, 0, 20, 20]))
    ]
    targets = with_detections(list_targets([images]), write(tmp_path / "r.json", results), "cat")
    ended = transfer(sources, targets, finding(), tmp_path / "out.json", ALL)
    assert {name: len(found) for name, found in by_image(ended.out).items()} == {"a.png": 1, "c.png": 0}
    assert ended.reasons == ("b.png: the box (400, 0, 420, 20) lies outside the image of 351x234 pixels",)
    failing = mega(seen("a.png", share((0, 0))), {"file": "b.png", "failure": "cannot open"})
    again = with_detections(list_targets([images]), write(tmp_path / "md.json", failing), "cat")
    ended = transfer(sources, again, finding(), tmp_path / "failing.json", ALL)
    assert ended.reasons == ("b.png: the detector failed on it (cannot open)",)


@pytest.mark.parametrize("shares", [True, False])
def test_stored_pixels(tmp_path: Path, sources: Sources, shares: bool) -> None:
    """Of an image that EXIF turns: shares are of the upright image, pixels and results as asked for."""
    folder, exif = tmp_path / "turned", Image.Exif()
    folder.mkdir()
    exif[0x0112] = 6  # the stored image is turned clockwise
    on_black((234, 100), size=SIZE).transpose(Image.Transpose.ROTATE_90).save(folder / "a.png", exif=exif)
    # (x, y) upright is (y, 351 - x) as stored.
    left, top = 100, SIZE[0] - 234 - SIDE
    content: Any = [{"file_name": "a.png", "bbox": [left, top, SIDE, SIDE], "score": 1}]
    content = mega(seen("a.png", share((234, 100)))) if shares else content
    images = list_targets([folder], exif="stored")
    targets = with_detections(images, write(tmp_path / "d.json", content), "cat")
    out = transfer(sources, targets, finding(), tmp_path / "out.json", ALL).out
    ((entry,),) = by_image(out).values()
    assert entry["bbox"] == pytest.approx([left, top, SIDE, SIDE], abs=0.02)
    points = np.array(entry["keypoints"]).reshape(-1, 3)[:, :2]
    x, y = np.add(POINTS, [(234, 100)]).T
    assert np.abs(points - np.stack([y, SIZE[0] - 1 - x], axis=1)).max() < 1.5 * CELL


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_has_the_objects(tmp_path: Path, sources: Sources, detected: Targets, name: str) -> None:
    if name == "slp":
        pytest.importorskip("h5py")
    suffix = "" if name in formats.FOLDERS else formats.SUFFIXES.get(name, ".json")
    out = tmp_path / f"out{suffix}"
    transfer(sources, detected, finding(), out, ALL, to=name)
    content = formats.read(out).content
    names = {each["id"]: os.path.basename(each["file_name"]) for each in content["images"]}  # noqa: PTH119
    found = defaultdict[str, list[Any]](list)
    for each in content["annotations"]:
        found[names[each["image_id"]]].append(each)
    assert {key: len(each) for key, each in found.items()} == {"a.png": 2, "c.png": 1}
    for key, entries in found.items():
        places = [np.array(each["keypoints"]).reshape(-1, 3)[:, :2].mean(axis=0) for each in entries]
        expected = [np.mean(POINTS, axis=0) + corner for corner in CORNERS[key]]
        assert np.abs(np.array(places) - np.array(expected)).max() < CELL
    if name in ("coco", "cvat", "labelstudio"):
        assert set(names.values()) == set(CORNERS)


def test_images_without_objects_reach_the_writers(
    tmp_path: Path, sources: Sources, detected: Targets
) -> None:
    out = transfer(sources, detected, finding(), tmp_path / "out.json", ALL).out
    listed = [(image["file_name"], len(found)) for image, found in as_result(out, detected, "").images()]
    assert listed == [("a.png", 2), ("b.png", 0), ("c.png", 1)]


def test_parquet_and_page(tmp_path: Path, sources: Sources, detected: Targets) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    out = transfer(sources, detected, finding(), tmp_path / "out.parquet", ALL).out
    rows = parquet.read_table(out).to_pylist()
    assert [(each["file_name"], each["annotation_id"]) for each in rows[::5]] == [
        ("a.png", 1), ("a.png", 2), ("c.png", 3),
    ]  # fmt: skip
    found = transfer(sources, detected, finding(), tmp_path / "out.json", ALL).found
    page = write_review(found, sources, detected, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 objects annotated from 2" in page


def test_several_objects_are_not_followed_through_a_video(
    tmp_path: Path, sources: Sources, detected: Targets
) -> None:
    pytest.importorskip("av")
    clip = film(tmp_path / "clip.mp4", steps(3))
    for settings, targets in (
        (replace(ALL, find=0.5), list_targets([clip])),
        (ALL, replace(list_targets([clip]), detector=tmp_path / "boxes.json")),
    ):
        with pytest.raises(InputError, match="several objects are not followed through a video; write its"):
            transfer(sources, targets, finding(), tmp_path / "out.json", settings)
