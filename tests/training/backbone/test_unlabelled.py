"""Images without labels: which of them are used, which are negatives, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.training.backbone import unlabelled as module
from geoaware.training.backbone.unlabelled import (
    CANVAS,
    Unlabelled,
    is_negative,
    make_unlabelled,
    used_images,
)
from tests.toys import noise

SIZES = {"n02088364_beagle": (60, 120), "n03791053_motor_scooter": (120, 60), "n03792782_bike": (80, 80)}


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A high one, a wide one and a square one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        noise(*size, seed).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in SIZES]


def made(images: list[Path], tmp_path: Path) -> Unlabelled:
    return make_unlabelled(images, tmp_path / "cache", 2, silent)


class TestKept:
    def test_each_image_lies_on_its_canvas(self, images: list[Path], tmp_path: Path) -> None:
        pixels = made(images, tmp_path).pixels
        assert pixels.shape == (3, CANVAS, CANVAS, 3)
        quarter = CANVAS // 4
        assert not pixels[0, :, :quarter].any()
        assert not pixels[0, :, -quarter:].any()
        assert not pixels[1, :quarter].any()
        assert not pixels[1, -quarter:].any()
        scaled = Image.open(images[2]).resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(scaled).astype(int) - pixels[2]).mean() < 12
        middle = slice(quarter, -quarter)
        for shown in (pixels[0][:, middle], pixels[1][middle], pixels[2]):
            assert shown.std() > 20

    def test_negatives_are_the_rows_of_images_named_so(self, images: list[Path], tmp_path: Path) -> None:
        assert made(images, tmp_path).negatives.tolist() == [1, 2]
        assert made(images[::-1], tmp_path).negatives.tolist() == [0, 1]
        assert made(images[:1], tmp_path).negatives.tolist() == []

    def test_another_run_reads_them(
        self, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = made(images, tmp_path)
        monkeypatch.setattr(module, "load_image", None)
        assert np.array_equal(made(images, tmp_path).pixels, first.pixels)
        assert len(list((tmp_path / "cache").iterdir())) == 1

    def test_other_images_another_order_and_a_changed_image_have_their_own_file(
        self, images: list[Path], tmp_path: Path
    ) -> None:
        first = made(images, tmp_path).pixels.copy()
        assert np.array_equal(made(images[:2], tmp_path).pixels, first[:2])
        assert np.array_equal(made(images[::-1], tmp_path).pixels, first[::-1])
        noise(40, 40, 9).save(images[0])
        assert not np.array_equal(made(images, tmp_path).pixels[0], first[0])
        assert len(list((tmp_path / "cache").iterdir())) == 4

    def test_stopped_work_leaves_nothing_to_be_read(self, images: list[Path], tmp_path: Path) -> None:
        def stop(what: str, done: int, *_: object) -> None:
            assert what == "images without labels"
            if done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make_unlabelled(images, tmp_path / "cache", 1, stop)
        assert not list((tmp_path / "cache").iterdir())

    def test_an_image_that_cannot_be_read(self, images: list[Path], tmp_path: Path) -> None:
        images[1].write_bytes(images[1].read_bytes()[:60])
        with pytest.raises(InputError, match=r"motor_scooter\.png"):
            made(images, tmp_path)


class TestUsed:
    @pytest.mark.parametrize(("every", "rows"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0]), (9, [0])])
    def test_every_so_manieth_from_the_first_on(
        self, images: list[Path], every: int, rows: list[int]
    ) -> None:
        assert used_images(images[0].parent, every, 0) == [images[row] for row in rows]

    def test_without_a_negative_among_them_there_is_a_remedy(self, images: list[Path]) -> None:
        """The beagle alone is used; the folder has others."""
        folder = images[0].parent
        with pytest.raises(InputError) as caught:
            used_images(folder, 3, 1)
        assert str(caught.value) == (
            f"{folder}: no image in use is a negative, none being named by the ImageNet class of an object; "
            "add such images (n03792782_mountain_bike.jpg), or set unlabelled.negatives=0"
        )
        assert len(used_images(folder, 2, 1)) == 2

    def test_no_folder_and_no_image(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere: no such folder"):
            used_images(tmp_path / "nowhere", 1, 0)
        with pytest.raises(InputError, match="no images in this folder"):
            used_images(tmp_path, 1, 0)


@pytest.mark.parametrize(
    ("name", "negative"),
    [
        ("n01514668_cock.jpg", True),
        ("n01740131_night_snake.jpg", True),
        ("n01872401_echidna.jpg", False),
        ("n01882714_koala.jpg", False),
        ("n01910747_jellyfish.jpg", True),
        ("n02066245_grey_whale.jpg", True),
        ("n02074367_dugong.jpg", True),
        ("n02077923_sea_lion.jpg", False),
        ("n02085620_chihuahua.jpg", False),
        ("n02165456_ladybug.jpg", True),
        ("n02325366_wood_rabbit.jpg", False),
        ("n02391049_zebra.jpg", False),
        ("n02510455_giant_panda.jpg", False),
        ("n02606052_rock_beauty.jpg", True),
        ("n03792782_mountain_bike.jpg", True),
        ("n09472597_volcano.jpg", True),
        ("n10565667_scuba_diver.jpg", False),
        ("1.jpg", False),
        ("bike_n03792782.jpg", False),
    ],
)
def test_negatives_are_objects_and_animals_but_no_mammals_with_legs(name: str, negative: bool) -> None:
    assert is_negative(name) is negative
