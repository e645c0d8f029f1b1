from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, read_targets, transfer
from geoaware.apps.transfer.coco_out import annotation, read_failures, read_results, read_run
from geoaware.apps.transfer.targets import Target
from geoaware.data.coco import read_coco
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import NAMES, POINTS, SIDE, category, job, matcher, photos, write_sources

ALL = TransferSettings(threshold=0.0)
SETTINGS = {"threshold": 0.5, "keep_guesses": False}


def record(**changes: Any) -> dict[str, Any]:
    points = [[10.0, 20.0], [30.5, 20.0], None, [20.0, 60.0], [0.0, 0.0]]
    chances = [0.9, 0.5, 0.0, 0.4, 0.499]
    base = {"n": 4, "size": [100, 80], "points": points, "probability": chances}
    return {**base, "source": 0, "pose": "flip", "distance": 0.25, **changes}


@pytest.fixture
def sources(tmp_path: Path) -> Any:
    return read_sources(write_sources(tmp_path / "s"))


def target(entry: dict[str, Any] | None = None) -> Target:
    return Target(4, "a.png", Path("a.png"), 9, entry)


def test_an_annotation_by_hand(sources: Any) -> None:
    found = annotation(record(), target(), 7, sources, SETTINGS)
    assert found == {
        "id": 4,
        "image_id": 9,
        "category_id": 7,
        "keypoints": [10.0, 20.0, 2, 30.5, 20.0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "num_keypoints": 2,
        # Around the two visible points, 20.5 apart: 2.05 more on each side.
        "bbox": [7.95, 17.95, 24.6, 4.1],
        "area": 100.86,
        "segmentation": [],
        "iscrowd": 0,
        "score": 0.7,
        "keypoint_scores": [0.9, 0.5, 0.0, 0.4, 0.499],
        "source": "s1.png",
        "pose": "flip",
        "distance": 0.25,
    }


def test_nothing_visible_and_guesses_kept(sources: Any) -> None:
    settings = {"threshold": 0.95, "keep_guesses": True}
    found = annotation(record(), target(), 7, sources, settings)
    assert found["keypoints"] == [0] * 15
    assert (found["num_keypoints"], found["score"]) == (0, 0.0)
    # Around every guess, 60 high, 6 more on each side, within the image.
    assert found["bbox"] == [0.0, 0.0, 36.5, 66.0]
    assert found["guesses"] == [
        [10.0, 20.0, 0.9],
        [30.5, 20.0, 0.5],
        None,
        [20.0, 60.0, 0.4],
        [0.0, 0.0, 0.499],
    ]


def test_what_is_given_is_kept(sources: Any) -> None:
    polygon = [[1, 1, 5, 1, 5, 5]]
    entry = {"id": 31, "bbox": [1, 2, 30, 40], "area": 77, "segmentation": polygon}
    found = annotation(record(), target(entry), 7, sources, SETTINGS)
    assert (found["id"], found["bbox"], found["area"]) == (31, [1, 2, 30, 40], 77)
    assert found["segmentation"] == polygon


def test_one_keypoint_still_has_a_box(sources: Any) -> None:
    alone = record(points=[[10.0, 20.0], None, None, None, None], probability=[0.9, 0, 0, 0, 0])
    assert annotation(alone, target(), 7, sources, SETTINGS)["bbox"] == [10.0, 20.0, 0.0, 0.0]


def test_the_result_reads_back(tmp_path: Path) -> None:
    out = transfer(*job(tmp_path), matcher(), tmp_path / "out.json").out
    assert out is not None
    content = json.loads(out.read_text())
    info = read_run(out)
    assert info is not None
    assert {**info, "failed": content["info"]["failed"]} == content["info"]
    assert list(read_failures(out)) == content["info"]["failed"]
    by_id = {each["id"]: each for each in content["images"]}
    assert list(read_results(out)) == [(by_id[each["image_id"]], each) for each in content["annotations"]]
    (entry,) = content["categories"]
    assert (entry["name"], entry["keypoints"], entry["skeleton"]) == ("cat", NAMES, [[1, 3], [2, 3]])
    assert entry["flip_pairs"] == content["flip_pairs"] == [[0, 1], [3, 4]]
    assert read_coco(out).flip_pairs is not None


def test_results_are_sources_again(tmp_path: Path) -> None:
    out = transfer(*job(tmp_path), matcher(), tmp_path / "out.json", ALL).out
    assert out is not None
    again = read_sources(out, tmp_path / "photos")
    assert [each.id for each in again.images] == ["000.png", "001.png", "003.png", "004.png"]
    assert again.schema.flip_pairs == ((0, 1), (3, 4))


@pytest.mark.parametrize("content", ["", "{}", '{"info":{"description":"other"}}', "[]", '{"info":{\n'])
def test_other_files_are_known_as_such(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    assert read_run(path) is None
    assert read_run(tmp_path / "nowhere.json") is None
    path.write_text('{"info":{"description":' + "[" * 9000, encoding="utf-8")
    assert read_run(path) is None


def test_an_edited_result_is_not_read_by_lines(tmp_path: Path) -> None:
    out = transfer(*job(tmp_path), matcher(), tmp_path / "out.json").out
    assert out is not None
    first, _, rest = out.read_text().partition("\n")
    out.write_text(first + "\n" + rest.replace('"images":[\n', '"images": [\n'))
    with pytest.raises(InputError, match="is not as geoaware transfer wrote it; make it anew"):
        list(read_results(out))


def test_an_annotation_without_its_image_is_damage(tmp_path: Path) -> None:
    out = transfer(*job(tmp_path), matcher(), tmp_path / "out.json").out
    assert out is not None
    first = json.dumps(json.loads(out.read_text())["images"][0], separators=(",", ":"))
    text = out.read_text()
    assert first in text
    out.write_text(text.replace(first + ",\n", ""))
    with pytest.raises(InputError, match="is damaged"):
        list(read_results(out))


def test_several_objects_of_a_image(tmp_path: Path, sources: Any) -> None:
    photos(tmp_path / "images", 2)
    boxes = [(1, [0, 0, 100, 100]), (1, [10, 10, 100, 100]), (2, [0, 0, 90, 90])]
    content = {
        "images": [{"id": 1, "file_name": "000.png"}, {"id": 2, "file_name": "001.png"}],
        "annotations": [
            {"id": 50 + n, "image_id": image, "category_id": 3, "bbox": box}
            for n, (image, box) in enumerate(boxes)
        ],
        "categories": [category(id=3)],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    out = transfer(sources, read_targets(path, sources), matcher(), tmp_path / "out.json").out
    assert out is not None
    found = json.loads(out.read_text())
    assert [each["id"] for each in found["images"]] == [1, 2]
    assert [(each["id"], each["image_id"], each["bbox"]) for each in found["annotations"]] == [
        (50 + n, image, box) for n, (image, box) in enumerate(boxes)
    ]
    assert {each["category_id"] for each in found["annotations"]} == {3}
    assert len(list(read_results(out))) == 3


def test_every_target_failed(tmp_path: Path, sources: Any) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    ended = transfer(sources, list_targets([tmp_path / "empty.png"]), matcher(), tmp_path / "out.json")
    assert ended.failed == 1
    assert ended.out is not None
    content = json.loads(ended.out.read_text())
    assert (content["images"], content["annotations"]) == ([], [])
    assert list(read_results(ended.out)) == []


def test_pycocotools_reads_and_evaluates_it(tmp_path: Path, sources: Any) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    photos(tmp_path / "images", 3)
    truth = {
        "images": [
            {"id": 10 + n, "file_name": f"{n:03}.png", "width": SIDE, "height": SIDE} for n in range(3)
        ],
        "annotations": [
            {
                "id": 20 + n, "image_id": 10 + n, "category_id": 7, "iscrowd": 0, "bbox": [5, 5, 100, 100],
                "area": 10000, "num_keypoints": 5,
                "keypoints": [value for x, y in POINTS for value in (x - 9 * n, y - 4 * n, 2)],
            }
            for n in range(3)
        ],
        "categories": [category()],
    }  # fmt: skip
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    settings = replace(ALL, keep_guesses=True)
    out = transfer(sources, read_targets(path, sources), matcher(), tmp_path / "out.json", settings).out
    assert out is not None
    with contextlib.redirect_stdout(io.StringIO()):
        found, expected = coco.COCO(str(out)), coco.COCO(str(path))
        assert found.getImgIds() == [10, 11, 12]
        assert [each["num_keypoints"] for each in found.loadAnns(found.getAnnIds())] == [5, 5, 5]
        assert found.loadCats(7)[0]["keypoints"] == NAMES
        results = expected.loadRes(found.loadAnns(found.getAnnIds()))
        scorer = cocoeval.COCOeval(expected, results, "keypoints")
        scorer.params.kpt_oks_sigmas = np.full(5, 0.05)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    # OKS 0.5 at every keypoint found within a cell or so.
    assert scorer.stats[1] == pytest.approx(1.0)
    assert scorer.stats[0] > 0.5
