from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoaware.apps.transfer import Targets, list_targets, read_sources, read_targets
from geoaware.apps.transfer.crop import cells_of_mask
from geoaware.data import object_mask
from geoaware.data.images import Frame
from geoaware.method.geometry import Canvas
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import NAMES, write_sources
from tests.toys import save_face


def images(folder: Path) -> Path:
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.png", "more/c.png"):
        save_face(folder / name, width=20, height=20)
    (folder / "note.txt").write_text("no image")
    return folder


def names(found: Targets) -> list[str]:
    return [each.name for each in found]


def test_files_and_folders_each_once_in_order(tmp_path: Path) -> None:
    folder = images(tmp_path / "photos")
    assert names(list_targets([folder])) == ["a.png", "b.png"]
    assert names(list_targets([folder], recursive=True)) == ["a.png", "b.png", "more/c.png"]
    found = list_targets([folder / "more", folder / "b.png", folder])
    assert names(found) == ["a.png", "b.png", "more/c.png"]
    assert found[2].path == folder / "more" / "c.png"
    assert [(each.number, each.image_id, each.id) for each in found] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    assert names(list_targets([folder / "b.png"])) == ["b.png"]
    assert names(list_targets([folder], root=tmp_path)) == ["photos/a.png", "photos/b.png"]


def test_targets_are_counted_from_both_ends(tmp_path: Path, sources: Any) -> None:
    for found in (
        list_targets([images(tmp_path / "photos")]),
        read_targets(write_targets(tmp_path), sources),
    ):
        assert list(found) == [found[place] for place in range(len(found))]
        assert found[-1] == found[len(found) - 1]
        assert found[-1].number == len(found)
        assert found[1:] == list(found)[1:]
        for place in (len(found), -len(found) - 1):
            with pytest.raises(IndexError):
                found[place]


def test_images_that_are_not_there(tmp_path: Path) -> None:
    folder = images(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    for paths, message in (
        ([folder / "x.png"], "x.png: no such image or folder$"),
        ([folder / "A.PNG"], r"A\.PNG: no such image or folder; .*a\.png is there"),
        ([tmp_path / "empty"], "empty: no images in this folder; the folders inside it were not"),
        ([], "no images to annotate"),
    ):
        with pytest.raises(InputError, match=message):
            list_targets(paths)
    with pytest.raises(InputError, match=r"a.png: lies outside .*; give a folder that holds all"):
        list_targets([folder], root=folder / "more")


def write_targets(folder: Path, **changes: Any) -> Path:
    photos = images(folder / "images")
    assert photos.is_dir()
    content = {
        "images": [{"id": 5, "file_name": "b.png"}, {"id": 3, "file_name": "more\\c.png"}],
        "annotations": [
            {"id": 12, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4]},
            {"id": 11, "image_id": 5, "category_id": 2},
            {"id": 13, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4]},
            {"id": 14, "image_id": 3, "category_id": 2, "iscrowd": 1},
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    path = folder / "targets.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.fixture
def sources(tmp_path: Path) -> Any:
    return read_sources(write_sources(tmp_path / "sources"))


def test_objects_of_a_file(tmp_path: Path, sources: Any) -> None:
    found = read_targets(write_targets(tmp_path), sources)
    assert [(each.id, each.image_id, each.name, each.box) for each in found] == [
        (11, 5, "b.png", None),
        (12, 5, "b.png", (1, 2, 4, 6)),
    ]
    assert found.category_id == 2
    assert found[0].path == tmp_path / "images" / "b.png"


def test_a_file_without_annotations_gives_its_images(tmp_path: Path, sources: Any) -> None:
    found = read_targets(write_targets(tmp_path, annotations=[], categories=[]), sources)
    assert [(each.id, each.image_id, each.name, each.box) for each in found] == [
        (1, 3, "more/c.png", None),
        (2, 5, "b.png", None),
    ]
    assert found.category_id == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 2, "name": "cow"}]}, "has categories cow, the sources are of 'cat'"),
        ({"categories": [{"id": 2, "name": "cat", "keypoints": NAMES[::-1]}]}, "has other keypoints than in"),
        ({"categories": [{"id": 2, "name": "cat", "keypoints": 7}]}, "has other keypoints than in"),
        (
            {"categories": [{"id": 2, "name": "cat"}], "annotations": [{"id": 1}]},
            r"annotations\[0\] lacks image_id",
        ),
        ({"images": []}, "lists no images"),
        ({"images": [{"id": 1}]}, r"images\[0\] lacks id or file_name"),
        ({"images": [{"id": 1, "file_name": "b.png"}] * 2}, "two images have the id 1"),
        ({"images": [{"id": 1, "file_name": "b.png"}]}, "belongs to image 5, which the file does not list"),
        ({"annotations": [{"image_id": 5, "category_id": 9}]}, "no annotation of category 'cat'"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 2}] * 2}, "annotation ids repeat"),
        ({"annotations": [{"image_id": 5, "category_id": 2, "bbox": [1, 1, -1, 0]}]}, "has no extent"),
        (
            {"images": [{"id": 5, "file_name": "z.png"}], "annotations": []},
            "no image 'z.png' of .*give the folder of the targets' images",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, sources: Any, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_targets(write_targets(tmp_path, **changes), sources)


def test_images_of_sources_are_left_out(tmp_path: Path, sources: Any) -> None:
    folder = images(tmp_path / "photos")
    (folder / "link.png").symlink_to(sources.images[0].path)
    found = list_targets([folder]).without(sources)
    assert names(found) == ["a.png", "b.png"]
    assert names(list_targets([folder / "a.png"]).without(sources)) == ["a.png"]
    with pytest.raises(InputError, match="every target image is one of the sources"):
        list_targets([sources.images[0].path]).without(sources)


def test_masks_from_polygons_and_files(tmp_path: Path, sources: Any) -> None:
    entries = [
        {"id": 1, "image_id": 5, "category_id": 2, "segmentation": [[2, 3, 5, 3, 5, 4, 2, 4]]},
        {"id": 2, "image_id": 5, "category_id": 2, "mask_file_name": "gone.png"},
        {"id": 3, "image_id": 5, "category_id": 2},
    ]
    found = read_targets(write_targets(tmp_path, annotations=entries), sources)
    frame = Frame((20, 20), 1)
    rows, columns = np.nonzero(object_mask(found[0].annotated(frame, found.masks)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 4, 2, 5)
    with pytest.raises(InputError, match=r"masks.gone.png: no such file"):
        object_mask(found[1].annotated(frame, found.masks))
    assert object_mask(found[2].annotated(frame, found.masks)) is None


def test_cells_that_hold_the_object() -> None:
    # 20 x 10 pixels on a canvas of 40: twice as large, 10 pixels down; cells of 10 canvas pixels.
    mask = np.zeros((10, 20), dtype=bool)
    mask[0, 0] = mask[9, 19] = mask[4, 5] = True
    cells = cells_of_mask(mask, Canvas(20, 10, 40), 4)
    assert [tuple(each) for each in cells.nonzero().tolist()] == [(1, 0), (1, 1), (2, 3)]


def test_ids_of_results_begin_at_1(tmp_path: Path, sources: Any) -> None:
    entries = [{"id": str(each), "image_id": "5", "category_id": 2.0} for each in range(3)]
    found = read_targets(write_targets(tmp_path, annotations=entries), sources)
    assert [each.id for each in found] == [1, 2, 3]
    assert found.notes[1:] == ("ids of results begin at 1: annotation 0 becomes 3",)
    for entry in entries:
        del entry["id"]
    (tmp_path / "more").mkdir()
    found = read_targets(write_targets(tmp_path / "more", annotations=entries), sources)
    assert [each.id for each in found] == [1, 2, 3]


def test_what_is_no_target_is_counted_and_named(tmp_path: Path, sources: Any) -> None:
    entries = [{"id": 1, "image_id": 5, "category_id": 2}]
    entries += [{"id": each, "image_id": 3, "category_id": 9} for each in (2, 3)]
    found = read_targets(write_targets(tmp_path, annotations=entries), sources)
    assert [each.id for each in found] == [1]
    assert found.notes == (
        "left out: annotations of other categories (2 of dog)",
        "left out: 1 images without an annotation of the category (more\\c.png)",
    )


def test_boxes_are_read_as_in_data_sets(tmp_path: Path, sources: Any) -> None:
    entries = [{"id": 1, "image_id": 5, "category_id": 2, "bbox": ["20", "10", "22", "19"], "iscrowd": "0"}]
    found = read_targets(write_targets(tmp_path, annotations=entries), sources)
    assert found[0].box == (20, 10, 42, 29)


def test_an_image_under_two_ids_is_said(tmp_path: Path, sources: Any) -> None:
    images = [{"id": 5, "file_name": "b.png"}, {"id": 6, "file_name": "b.png"}]
    found = read_targets(write_targets(tmp_path, images=images, annotations=[]), sources)
    assert len(found) == 2
    assert found.notes == ("1 images are listed under several ids and annotated each time (b.png)",)


def test_sizes_of_targets_are_compared(tmp_path: Path, sources: Any) -> None:
    boxed = [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4]}]
    listed = [{"id": 5, "file_name": "A.PNG", "width": 20, "height": 10}]
    file = write_targets(tmp_path, annotations=boxed, images=listed)
    found = read_targets(file, sources)
    assert "(capitals): 1, such as 'A.PNG' is 'a.png'" in "".join(found.notes)
    with pytest.raises(InputError, match=r"EXIF \(orientation 6\) turns it to 10x20 .* exif=stored"):
        found[0].annotated(Frame((10, 20), 6), found.masks)
    with pytest.raises(InputError, match="has 40x20 pixels, its annotation is for 20x10"):
        found[0].annotated(Frame((40, 20), 1), found.masks)
    turned = read_targets(file, sources, exif="stored")[0].annotated(Frame((10, 20), 6), found.masks)
    assert turned.box == (4, 1, 8, 4)


def test_a_box_beside_its_image_is_said(
    tmp_path: Path, sources: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("geoaware.data.images._said", set())
    boxed = [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [15, 2, 300, 4]}]
    found = read_targets(write_targets(tmp_path, annotations=boxed), sources)
    with caplog.at_level("INFO"):
        assert found[0].annotated(Frame((20, 20), 1), found.masks).box == (15, 2, 315, 6)
    assert "b.png: box (15, 2, 315, 6), image 20x20: lies mostly outside" in caplog.text
