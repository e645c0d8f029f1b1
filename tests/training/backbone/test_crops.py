from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.data import DataSet
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.training.backbone import crops as cropping
from geoaware.training.backbone.crops import OBJECT, OUTSIDE, SIZE, UNKNOWN, Crops, make_crops
from geoaware.training.backbone.vocabulary import Vocabulary
from tests.training import toy_sets

BOX = (20.0, 10.0, 60.0, 50.0)
SPOTS = [(25.0, 15.0), (55.0, 15.0), (30.0, 25.0), (50.0, 25.0), (40.0, 40.0)]


def made(data: DataSet, folder: Path, **changes: object) -> Crops:
    return make_crops(data, Vocabulary.of(data.schemas.values()), folder, 2, silent, **changes)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Two objects of one image, a red spot at each keypoint of the first, and an image of its own."""
    board = np.zeros((80, 160, 3), np.uint8)
    for x, y in SPOTS:
        board[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2, 0] = 255
    for name in ("a.png", "b.png"):
        Image.fromarray(board).save(tmp_path / name)
    first = toy_sets.image("a.png", xy=SPOTS, size=(160, 80), box=BOX, folder=str(tmp_path))
    second = replace(
        toy_sets.image(
            "a.png", (0, 4), xy=[(x + 70, y) for x, y in SPOTS], size=(160, 80), folder=str(tmp_path)
        ),
        id="a.png#2",
        box=(90.0, 10.0, 130.0, 50.0),
    )
    lone = toy_sets.image("b.png", (4,), xy=SPOTS, size=(160, 80), box=BOX, folder=str(tmp_path))
    return toy_sets.data_set(toy_sets.pairs_of([first, second, lone]))


@pytest.fixture
def crops(data: DataSet, tmp_path: Path) -> Crops:
    return made(data, tmp_path / "crops")


def test_each_object_with_two_keypoints_is_a_crop(crops: Crops) -> None:
    assert crops.pixels.shape == (2, SIZE, SIZE, 3)
    assert [each.tolist() for each in crops.members] == [[0, 1]]
    assert crops.visible.tolist() == [[True] * 5, [True, False, False, False, True]]
    assert not crops.masked.any()


def test_the_crop_is_a_square_around_the_box_and_the_labels_move_with_the_pixels(crops: Crops) -> None:
    # The box is 40 pixels wide, the crop 60, from (10, 0) on.
    factor = SIZE / 60
    assert crops.box[0] == pytest.approx([10 * factor, 10 * factor, 50 * factor, 50 * factor])
    for (x, y), found in zip(SPOTS, crops.xy[0], strict=True):
        assert found == pytest.approx(((x - 10) * factor, y * factor))
        column, row = (round(each + factor / 2) for each in found.tolist())
        assert crops.pixels[0, row, column, 0] > 200
    assert float(crops.pixels[0].mean()) < 30


def test_the_other_object_is_known_with_its_keypoints(crops: Crops) -> None:
    factor = SIZE / 60
    assert crops.others_box[0, 0] == pytest.approx([80 * factor, 10 * factor, 120 * factor, 50 * factor])
    assert crops.others_visible[0, 0].tolist() == [True, False, False, False, True]
    assert crops.others_xy[0, 0, 4] == pytest.approx(((40 + 70 - 10) * factor, 40 * factor))
    assert not crops.others_visible[0, 1:].any()
    assert not crops.others_box[0, 1:].any()


def test_regions_are_discs_the_neighbourhood_and_what_is_far(crops: Crops) -> None:
    x, y = crops.xy[0, 4].round().astype(int)
    assert crops.regions[0, y, x] == OBJECT
    assert crops.regions[0, SIZE // 2, 20] == UNKNOWN
    assert set(np.unique(crops.regions[1])) <= {OBJECT, UNKNOWN, OUTSIDE}


def test_a_mask_gives_the_regions(tmp_path: Path) -> None:
    Image.new("RGB", (160, 80)).save(tmp_path / "a.png")
    outline = [20.0, 10.0, 40.0, 10.0, 40.0, 50.0, 20.0, 50.0]
    first = toy_sets.image("a.png", xy=SPOTS, size=(160, 80), box=BOX, folder=str(tmp_path))
    first = replace(first, attributes={"segmentation": [outline]})
    data = toy_sets.data_set(toy_sets.pairs_of([first, replace(first, id="again")]))
    found = made(data, tmp_path / "crops")
    factor = SIZE / 60
    assert found.masked.all()
    row = round(30 * factor)
    assert found.regions[0, row, round(20 * factor)] == OBJECT
    assert found.regions[0, row, round(45 * factor)] == OUTSIDE
    assert torch.tensor(found.visible[0]).all()


class TestCache:
    def test_another_run_reads_what_is_there(
        self, crops: Crops, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cropping, "load_annotated", None)
        again = made(data, tmp_path / "crops")
        for name in ("pixels", "regions", "xy", "visible", "box", "masked", "others_xy", "others_box"):
            assert np.array_equal(getattr(again, name), getattr(crops, name)), name

    @pytest.mark.parametrize("what", ["image", "keypoint", "box"])
    def test_they_are_made_anew_when_something_changed(
        self, crops: Crops, data: DataSet, tmp_path: Path, what: str
    ) -> None:
        image = data.images[0]
        if what == "image":
            Image.new("RGB", (160, 80), "blue").save(image.path)
        elif what == "keypoint":
            image.keypoints.xy[0, 0] += 1
        else:
            image = replace(image, box=(21.0, 10.0, 60.0, 50.0))
            data = toy_sets.data_set(toy_sets.pairs_of([image, *data.images[1:]]))
        again = made(data, tmp_path / "crops")
        assert not np.array_equal(again.pixels, crops.pixels) or not np.array_equal(again.xy, crops.xy)
        assert len(list((tmp_path / "crops").iterdir())) == 2

    def test_stopped_work_leaves_nothing_to_be_read(
        self, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(cropping._Maker, "make", stop)
            with pytest.raises(KeyboardInterrupt):
                made(data, tmp_path / "crops")
        assert not list((tmp_path / "crops").iterdir())
        assert made(data, tmp_path / "crops").visible.any()

    def test_categories_that_are_left_out_are_in_the_file_but_no_members(
        self, crops: Crops, data: DataSet, tmp_path: Path
    ) -> None:
        images = [replace(data.images[0], category="fox"), *data.images[1:]]
        data = toy_sets.data_set(toy_sets.pairs_of(images))
        for without, members in (((), [[1], [0]]), (("fox",), [[1]])):
            found = made(data, tmp_path / "more", without=without)
            assert [each.tolist() for each in found.members] == members
            assert len(found.xy) == 2
        assert len(list((tmp_path / "more").iterdir())) == 1
        with pytest.raises(InputError, match="no object to train on has two visible keypoints"):
            made(data, tmp_path / "more", without=("fox", "cat"))
