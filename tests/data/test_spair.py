from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.data import load, object_mask
from geoaware.data.check import check
from geoaware.data.masks import has_mask
from geoaware.data.spair import VOC
from geoaware.method.keypoints import SPAIR71K
from geoaware.runs.errors import InputError
from tests.shared_data import shared


def made_up(root: Path) -> Path:
    """Two buses of 60x40 pixels and one pair: ids 2 … 26 at (id, 5), some of them missing."""
    shown = {"2008_000001": (2, 4, 7, 11, 14, 16, 26), "2008_000002": (2, 6, 7, 11, 16, 17, 26)}
    for place, (name, ids) in enumerate(shown.items()):
        annotation: dict[str, Any] = {
            "filename": f"{name}.jpg",
            "image_width": 60,
            "image_height": 40,
            "category": "bus",
            "pose": "Left",
            "truncated": 1,
            "occluded": 0,
            "difficult": 0,
            "bndbox": [1, 2, 60, 40],
            "kps": {str(each): [each, 5] if each in ids else None for each in range(30)},
            "azimuth_id": 1 if place == 0 else 6,
        }
        for folder in ("JPEGImages/bus", "ImageAnnotation/bus", "Layout/large"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(root / f"JPEGImages/bus/{name}.jpg")
        (root / f"ImageAnnotation/bus/{name}.json").write_text(json.dumps(annotation), encoding="utf-8")
    (root / "Layout/large/test.txt").write_text("000001-2008_000001-2008_000002:bus\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(("split", "pairs"), [("test", 6), ("trn", 6), ("val", 2)])
def test_every_real_pair_is_as_in_the_raw_files(split: str, pairs: int) -> None:
    root = shared("SPair-mini")
    data_set = load("spair71k", root, split)
    assert len(data_set) == pairs
    for pair in data_set.pairs:
        raw = json.loads((root / "PairAnnotation" / split / f"{pair.id}.json").read_text(encoding="utf-8"))
        assert list(pair.common_ids) == [int(each) for each in raw["kps_ids"]]
        assert pair.category == raw["category"]
        for side, name in ((pair.source, "src"), (pair.target, "trg")):
            assert side.path.name == raw[f"{name}_imname"]
            assert side.path.is_file()
            assert list(side.size) == raw[f"{name}_imsize"][:2]
            assert list(side.box or ()) == raw[f"{name}_bndbox"]
            assert side.keypoints.at(pair.common_ids).tolist() == raw[f"{name}_kps"]
            own = json.loads((root / "ImageAnnotation" / f"{side.id}.json").read_text(encoding="utf-8"))
            assert side.keypoints.ids == tuple(range(30))
            assert side.keypoints.visible.tolist() == [
                own["kps"][str(each)] is not None for each in range(30)
            ]
            for key in ("azimuth_id", "pose", "truncated", "occluded", "difficult"):
                assert side.attributes[key] == own[key]
        turns = [side.attributes["azimuth_id"] for side in (pair.source, pair.target)]
        # The shorter way round a circle of eight steps, by walking it.
        walk = min(
            steps for steps in range(8) if turns[1] in ((turns[0] + steps) % 8, (turns[0] - steps) % 8)
        )
        assert pair.azimuth_difference == walk


def test_geometry_aware_keypoints_of_a_real_pottedplant() -> None:
    data_set = load("spair71k", shared("SPair-mini"), "trn", categories=["pottedplant"])
    (pair,) = data_set.pairs
    # The target shows 0, 2, 3 of the top (0 1 2 3), 5 of the side wall (4 5), nothing of the bottom (6 8).
    assert data_set.schema(pair).geometry_aware_ids(pair.source.keypoints, pair.target.keypoints) == (0, 2, 3)


def test_made_up_bus(tmp_path: Path) -> None:
    data_set = load("spair71k", made_up(tmp_path), "test")
    (pair,) = data_set.pairs
    assert pair.common_ids == (2, 7, 11, 16, 26)
    assert data_set.schema(pair).geometry_aware_ids(pair.source.keypoints, pair.target.keypoints) == (
        2,
        16,
        26,
    )
    assert pair.azimuth_difference == 3
    assert pair.source.box == (1.0, 2.0, 60.0, 40.0)
    assert [image.id for image in data_set.images] == ["bus/2008_000001", "bus/2008_000002"]
    assert data_set.threshold_base == "box"


def test_masks_are_the_pixels_of_the_category(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    assert [has_mask(each) for each in load("spair71k", root, "test").images] == [False, False]
    # PASCAL VOC: a bus is 6, a person 15, and 255 lies along the edges of objects.
    values = np.zeros((40, 60), np.uint8)
    values[10:30, 5:40], values[12:20, 20:30], values[10, 5:40] = 6, 15, 255
    folder = root / "Segmentation/bus"
    folder.mkdir(parents=True)
    board = Image.fromarray(values)
    board.save(folder / "2008_000001.png")
    board.putpalette([255 - each // 3 for each in range(768)])  # the numbers count, not their colours
    board.save(folder / "2008_000002.png")
    for image in load("spair71k", root, "test").images:
        mask = object_mask(image)
        assert mask is not None
        assert (mask == (values == 6)).all()
        assert mask.sum() == 19 * 35 - 80
    assert check("spair71k", root, "test").fine
    # One number beside zero is the object, whatever it is.
    Image.fromarray((values == 6).astype(np.uint8) * 255).save(folder / "2008_000001.png")
    image = load("spair71k", root, "test").images[0]
    assert (object_mask(image) == (values == 6)).all()  # type: ignore[union-attr]
    Image.fromarray(np.where(values == 6, 7, values)).save(folder / "2008_000001.png")
    with pytest.raises(InputError, match=r"2008_000001\.png: .*the label 6, but 7, 15, 255"):
        object_mask(image)
    Image.new("L", (30, 20), 6).save(folder / "2008_000001.png")
    assert "mask of 30x20 pixels, image of 60x40" in check("spair71k", root, "test").problems[0]


def test_the_numbers_of_the_categories() -> None:
    # From the development kit of PASCAL VOC; 11 (diningtable) and 18 (sofa) are not in SPair-71k.
    numbers = {each: VOC.index(each) + 1 for each in SPAIR71K}
    assert sorted(numbers.values()) == [*range(1, 11), *range(12, 18), 19, 20]
    assert (numbers["cow"], numbers["dog"], numbers["train"], numbers["tvmonitor"]) == (10, 12, 19, 20)


def change(path: Path, **entries: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(entries)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_keypoint_outside_is_left_out_and_counted(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    # The edge itself (60, 40) still counts: the data set counts pixels from 1.
    change(root / "ImageAnnotation/bus/2008_000001.json", kps={"2": [61, 5], "7": [60, 40], "11": [11, 5]})
    data_set = load("spair71k", root, "test")
    assert data_set.pairs[0].common_ids == (7, 11)
    assert data_set.left_out == {"keypoints outside their image": 1}
    assert any("keypoint 2 at (61, 5), image 60x40" in note for note in data_set.notes)


def test_a_pair_without_a_common_keypoint(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    change(root / "ImageAnnotation/bus/2008_000001.json", kps={"29": [3, 3]})
    with pytest.raises(InputError, match="none of 1 pairs has 1 keypoints visible in both"):
        load("spair71k", root, "test")
    change(root / "ImageAnnotation/bus/2008_000002.json", kps={"29": [4, 4], "28": None})
    assert load("spair71k", root, "test").pairs[0].common_ids == (29,)


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load("spair71k", tmp_path / "nowhere", "test")
    root = made_up(tmp_path / "outer" / "SPair-71k")
    with pytest.raises(InputError, match=r"no folder 'JPEGImages' in it; perhaps give .*SPair-71k"):
        load("spair71k", tmp_path / "outer", "test")
    with pytest.raises(InputError, match=r"val\.txt: no such file"):
        load("spair71k", root, "val")
    with pytest.raises(InputError, match="no split 'dev'; choose trn, val, test"):
        load("spair71k", root, "dev")
    with pytest.raises(InputError, match="no category 'tractor'"):
        load("spair71k", root, "test", categories=["tractor"])
    with pytest.raises(InputError, match="has no pairs"):
        load("spair71k", root, "test", categories=["cat"])
    with pytest.raises(InputError, match="no option 'speed'; its options: categories, layout"):
        load("spair71k", root, "test", speed=1)
    (root / "JPEGImages/bus/2008_000002.jpg").unlink()
    with pytest.raises(InputError, match=r"2008_000002\.jpg: no such image \(1 of 2"):
        load("spair71k", root, "test")
    (root / "ImageAnnotation/bus/2008_000002.json").unlink()
    with pytest.raises(InputError, match=r"2008_000002\.json: no such file"):
        load("spair71k", root, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, no valid JSON"),
        ("[1, 2]", "is not an annotation of SPair-71k"),
        ('{"filename": "a.jpg"}', "is not an annotation of SPair-71k"),
        (
            '{"filename": "a.jpg", "image_width": 9, "image_height": 9, "bndbox": [1, 1, 5, 5],'
            ' "kps": {"0": 3}}',
            "keypoint 0 is 3",
        ),
        (
            '{"filename": "a.jpg", "image_width": 9, "image_height": 9, "bndbox": [5, 1, 1, 5], "kps": {}}',
            "has no extent",
        ),
        (
            '{"filename": "a", "image_width": "x", "image_height": 9, "bndbox": [1, 1, 5, 5], "kps": {}}',
            "width is 'x'; expected a whole number",
        ),
    ],
)
def test_damaged_annotations(tmp_path: Path, text: str, message: str) -> None:
    root = made_up(tmp_path)
    (root / "ImageAnnotation/bus/2008_000001.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load("spair71k", root, "test")
    assert "2008_000001.json" in str(caught.value)


def test_damaged_layout(tmp_path: Path) -> None:
    root = made_up(tmp_path)
    (root / "Layout/large/test.txt").write_text("\n\n000001-a-b:tractor\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.txt, line 3: '000001-a-b:tractor' is not"):
        load("spair71k", root, "test")
