from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from geoaware.data import load, object_mask
from geoaware.data.masks import compress, decode_segmentation, encode_segmentation, has_mask, uncompress
from geoaware.method.types import AnnotatedImage, Keypoints
from geoaware.runs.errors import InputError
from tests.shared_data import shared


def test_compressed_run_lengths_by_hand() -> None:
    # 5 is one digit: chr(48 + 5). 40 = 8 + 1 * 32: digit 8 with the "more" bit (32), then digit 1.
    # Third number stays as it is; from the fourth on, the one two before is taken off: 7 - 40 = -33, which
    # is 31 (with "more") then -2 in five bits, 30.
    text = chr(48 + 5) + chr(48 + 8 + 32) + chr(48 + 1) + chr(48 + 3) + chr(48 + 31 + 32) + chr(48 + 30)
    assert uncompress(text) == [5, 40, 3, 7]
    assert compress([5, 40, 3, 7]) == text
    assert uncompress("") == []
    assert compress([]) == ""


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_compressed_run_lengths_of_any_length(runs: list[int]) -> None:
    assert uncompress(compress(runs)) == runs


def test_runs_go_down_the_columns() -> None:
    expected = [[False, True, False], [True, True, False]]
    # Columns: (0, 1), (1, 1), (0, 0): one outside, three inside, two outside.
    for counts in ([1, 3, 2], "132"):
        mask = decode_segmentation({"size": [2, 3], "counts": counts}, (3, 2), "it")
        assert mask.tolist() == expected


@pytest.mark.parametrize("first", [False, True])
def test_masks_are_encoded_as_pycocotools_does(first: bool) -> None:
    generator = np.random.default_rng(1)
    for share in (0, 0.1, 0.9, 1):
        mask = generator.random((31, 7)) < share
        mask[0, 0] = first
        encoded = encode_segmentation(mask)
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encoded == {"size": [31, 7], "counts": theirs["counts"].decode()}
        assert (decode_segmentation(encoded, (7, 31), "it") == mask).all()


def test_polygons() -> None:
    mask = decode_segmentation([[1, 1, 3, 1, 3, 2, 1, 2], [5, 0, 5, 3]], (7, 4), "it")
    assert mask.shape == (4, 7)
    assert sorted(map(tuple, np.argwhere(mask).tolist())) == sorted(
        [(y, x) for y in (1, 2) for x in (1, 2, 3)] + [(y, 5) for y in range(4)]
    )


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [2, 3], "counts": [1, 3]},
        {"size": [2, 3], "counts": [7, -1]},
        {"size": [2, 3], "counts": "1~"},
        {"size": [2, 3], "counts": "1P"},
        {"counts": "132"},
        [["x", 1]],
        [[1, 1, 2, 2, float("nan"), 3]],
        {"size": [2.5, 3], "counts": "132"},
        {"size": [10**6, 10**6], "counts": [10**12]},
        7,
        [[0, 0, 9, 0, 1e30, 9]],
        [[0, 0, 9, 0, 9, -3_000_000_000]],
    ],
)
def test_damaged_segmentation(segmentation: object) -> None:
    with pytest.raises(InputError, match="it: segmentation cannot be read"):
        decode_segmentation(segmentation, (3, 2), "it")


def test_real_run_lengths_have_the_annotated_area() -> None:
    data_set = load("coco", shared("quaternius"), "val", pairs=3)
    for image in data_set.images:
        mask = object_mask(image)
        assert mask is not None
        assert mask.shape == (image.size[1], image.size[0])
        assert mask.sum() == image.attributes["area"]
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert image.box == pytest.approx(box, abs=1)


def test_mask_files(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    board = Image.new("L", (6, 4))
    board.putpixel((2, 1), 255)
    board.save(path)
    none = Keypoints((), torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool))
    image = AnnotatedImage("a", tmp_path / "a.png", (6, 4), "cat", none, mask_path=path)
    mask = object_mask(image)
    assert mask is not None
    assert np.argwhere(mask).tolist() == [[1, 2]]
    assert object_mask(replace(image, mask_path=None)) is None
    with pytest.raises(InputError, match=r"mask\.png: mask of 6x4 pixels, image of 5x4"):
        object_mask(replace(image, size=(5, 4)))


def test_real_mask_files() -> None:
    data_set = load("coco", shared("badja"), "all", pairs=2)
    for image in data_set.images:
        assert image.mask_path is not None
        mask = object_mask(image)
        assert mask is not None
        assert 0.01 < mask.mean() < 0.9


def test_whether_there_is_a_mask_is_known_without_reading_it(tmp_path: Path) -> None:
    nothing = Keypoints((), torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    image = AnnotatedImage("a", tmp_path / "a.png", (4, 2), "cat", nothing)
    assert not has_mask(image)
    assert not has_mask(replace(image, attributes={"segmentation": []}))
    assert has_mask(replace(image, attributes={"segmentation": [[0, 0, 3, 0, 3, 1]]}))
    assert has_mask(replace(image, mask_path=tmp_path / "absent.png"))
