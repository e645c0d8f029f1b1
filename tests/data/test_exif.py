from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from geoaware.data import load, object_mask
from geoaware.data.check import check
from geoaware.data.exif import INVERSE, TAG, check_exif, turned_box, turned_pixels, turned_points, turned_size
from geoaware.data.images import image_size, load_image, to_rgb
from geoaware.runs.errors import InputError


def save(path: Path, orientation: int, size: tuple[int, int] = (6, 4)) -> np.ndarray:
    """An image of different pixels; the array is as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0]) * 10
    kind = {"compression": "tiff_lzw"} if path.suffix == ".tiff" else {}
    Image.fromarray(pixels).save(path, exif=exif, **kind)
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_pixels_points_and_sizes_turn_as_pillow_turns(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    stored = save(path, orientation)
    upright = np.asarray(load_image(path))[..., 0]
    assert turned_pixels(stored, orientation).tolist() == upright.tolist()
    assert turned_pixels(upright, INVERSE[orientation]).tolist() == stored.tolist()
    assert turned_size((6, 4), orientation) == upright.shape[::-1] == image_size(path)
    ((x, y),) = turned_points(torch.tensor([[1.0, 2.0]]), (6, 4), orientation).int().tolist()
    assert upright[y, x] == stored[2, 1]
    x1, y1, x2, y2 = map(int, turned_box((1, 0, 3, 4), (6, 4), orientation))
    assert sorted(upright[y1:y2, x1:x2].ravel()) == sorted(stored[0:4, 1:3].ravel())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "F", "I;16", "RGBA"])
def test_tiffs_are_turned_whether_compressed_or_not(
    tmp_path: Path, orientation: int, compression: str | None, mode: str
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (37, 61), dtype=np.uint8)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "raw.tiff", compression=compression, tiffinfo={TAG: orientation})
    upright = np.array(load_image(tmp_path / "raw.tiff"))
    assert image_size(tmp_path / "raw.tiff") == upright.shape[1::-1]
    assert np.array_equal(upright, turned_pixels(np.array(to_rgb(image)), orientation))


def coco(root: Path, orientation: int, **size: int) -> Path:
    for name in ("a.png", "b.png"):
        save(root / name, orientation)
    images = [{"id": number, "file_name": f"{'ab'[number - 1]}.png", **size} for number in (1, 2)]
    thing = {"category_id": 1, "keypoints": [1, 2, 2, 3, 0, 2], "bbox": [1, 0, 3, 4], "iscrowd": 0}
    polygon = [[0, 0, 1, 0, 1, 3, 0, 3]]
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "cat", "keypoints": ["nose", "tail"]}],
        "annotations": [{"id": n, "image_id": n, **thing, "segmentation": polygon} for n in (1, 2)],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(("orientation", "nose"), [(3, (4, 1)), (6, (1, 1)), (8, (2, 4))])
def test_annotations_of_stored_pixels_are_turned(tmp_path: Path, orientation: int, nose: tuple) -> None:
    root = coco(tmp_path, orientation, width=6, height=4)
    image = load("coco", root, "all", exif="stored").images[0]
    assert image.size == turned_size((6, 4), orientation)
    assert tuple(image.keypoints.at([0])[0].tolist()) == nose
    mask = object_mask(image)
    assert mask is not None
    assert mask.sum() == 8
    assert turned_pixels(mask, INVERSE[orientation])[:, :2].all()
    assert check("coco", root, exif="stored").fine


def test_exchanged_sides_are_blamed_on_exif(tmp_path: Path) -> None:
    root = coco(tmp_path, 6, width=6, height=4)
    (first, *_) = check("coco", root).problems
    assert "a.png: EXIF (orientation 6) turns it to 4x6 pixels, its annotation is for 6x4" in first
    assert "exif=stored" in first
    upright = coco(tmp_path, 6, width=4, height=6)
    assert check("coco", upright).fine
    assert "exif=upright" in check("coco", upright, exif="stored").problems[0]


@pytest.mark.parametrize(("orientation", "size"), [(3, {"width": 6, "height": 4}), (6, {})])
def test_what_nobody_can_tell_is_counted(tmp_path: Path, orientation: int, size: dict) -> None:
    found = check("coco", coco(tmp_path, orientation, **size))
    assert found.fine
    if size:
        (warning,) = (each for each in found.warnings if "EXIF" in each)
        assert "is turned by EXIF (orientation 3), and its size does not tell" in warning
        assert warning.endswith("(1 more like it)")
    else:
        assert any("2 images that EXIF turns" in fact for fact in found.facts)


def test_exif_is_one_of_two() -> None:
    with pytest.raises(InputError, match="upright or stored"):
        check_exif("sideways")


def test_pillow_agrees_on_jpeg(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", 5, (32, 16))
    with Image.open(tmp_path / "a.jpg") as image:
        assert ImageOps.exif_transpose(image).size == image_size(tmp_path / "a.jpg")


def test_damaged_exif_is_told_or_passed_over(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    path.write_bytes(path.read_bytes().replace(b"Exif\0\0MM\0*", b"Exif\0\0MM\1*"))
    # Pillow reads the file, and fails when the EXIF data is looked at once more.
    read = load_image(path)
    assert (read.size, "exif" in read.info) == ((30, 20), False)
    assert load_image(read.copy()).size == (30, 20)
    given = Image.new("RGB", (30, 20))
    given.info["exif"] = b"Exif\0\0MM\1*\0\0\0\x08"
    with pytest.raises(InputError, match=r"an image cannot be decoded .*save it anew"):
        load_image(given)
