from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.data import images
from geoaware.data.images import (
    Frame,
    image_size,
    list_images,
    load_annotated,
    load_framed,
    load_image,
    load_mask,
    load_reduced,
    to_rgb,
)
from geoaware.method.types import AnnotatedImage, Keypoints
from geoaware.runs.errors import InputError


@pytest.fixture
def quarters() -> Image.Image:
    """A 4 x 2 image whose left half is red."""
    image = Image.new("RGB", (4, 2), "blue")
    image.paste("red", (0, 0, 2, 2))
    return image


@pytest.mark.parametrize(
    ("orientation", "size", "top_left"),
    [(1, (4, 2), "red"), (2, (4, 2), "blue"), (3, (4, 2), "blue"), (6, (2, 4), "red"), (8, (2, 4), "blue")],
)
def test_exif_orientation_is_applied(tmp_path: Path, quarters, orientation, size, top_left) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    quarters.save(path, exif=exif)
    image = load_image(path)
    assert image.size == size == image_size(path)
    assert image.getpixel((0, 0)) == ((255, 0, 0) if top_left == "red" else (0, 0, 255))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str, quarters) -> None:
    image = to_rgb(quarters.convert("L").convert(mode) if mode in ("1", "LA") else quarters.convert(mode))
    assert image.mode == "RGB"
    assert image.size == (4, 2)


def test_transparency_is_laid_on_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    assert np.array(load_image(path))[0, :, 0].tolist() == [0, 100, 255]
    assert np.array(load_image(values))[0, :, 0].tolist() == [0, 100, 255]


def test_floating_tiff_is_stretched(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)).save(path)
    assert np.array(load_image(path))[0, :, 0].tolist() == [0, 128, 255]


def test_arrays_of_every_kind() -> None:
    assert load_image(np.zeros((3, 5), np.uint8)).size == (5, 3)
    assert load_image(np.ones((3, 5, 1), bool)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(np.full((3, 5, 3), 0.5)).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 7), np.uint8), "shape"),
        (np.full((2, 2), 3.0), "from 0 to 1"),
        (np.full((2, 2), np.nan), "from 0 to 1"),
        (np.zeros((2, 2), np.int32), "uint8"),
    ],
)
def test_arrays_that_are_not_images(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image(array)


def test_bad_files_are_named(tmp_path: Path, quarters) -> None:
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    with pytest.raises(InputError, match=r"text\.jpg: not an image"):
        load_image(text)
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((200, 200), 60).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut\.jpg: damaged"):
        load_image(cut)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(InputError, match="more pixels than is safe"):
        load_image(path)


def test_list_images_in_name_order_and_empty_folder(tmp_path: Path, quarters) -> None:
    with pytest.raises(InputError, match="no images in this folder"):
        list_images(tmp_path)
    for name in ("b.png", "A.JPG", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["A.JPG", "b.png"]


def test_an_image_is_listed_in_the_folders_inside_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.png").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="no images in this folder; the folders inside it were not looked"):
        list_images(tmp_path)
    assert list_images(tmp_path, recursive=True) == [tmp_path / "inner" / "a.png"]


LONG = "x" * 300  # longer than any file system allows a name to be


@pytest.mark.parametrize("read", [load_image, image_size, load_mask, list_images])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "no such"),
        ("file/below", "no such|cannot be read"),
        ("dangling", "is a link to a file that is missing|no such folder"),
        (LONG, "cannot be read"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path: Path, read: Callable, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("read", [load_image, image_size, load_mask, list_images])
def test_paths_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable, quarters: Image.Image
) -> None:
    quarters.save(tmp_path / "a.png")
    path = tmp_path if read is list_images else tmp_path / "a.png"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Whoever runs the tests as root may read everything.
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        read(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is a pipe"):
        load_image(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no images in this folder"):
        list_images(tmp_path)


def test_an_image_is_checked_against_its_annotation(tmp_path: Path, quarters: Image.Image) -> None:
    path = tmp_path / "a.png"
    quarters.save(path)
    nothing = Keypoints((), torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    assert load_annotated(AnnotatedImage("a", path, (4, 2), "cat", nothing)).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(
        InputError, match=r"a\.png: has 4x2 pixels, its annotation is for 2x4; give the image"
    ):
        load_annotated(AnnotatedImage("a", path, (2, 4), "cat", nothing))


def test_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(path)
    assert load_mask(path).tolist() == [[False, False, True]]
    Image.new("RGBA", (2, 1), (0, 0, 0, 255)).save(path)
    with pytest.raises(InputError, match="all black"):
        load_mask(path)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What the library says, as if it had not said anything before."""
    monkeypatch.setattr(images, "_said", set())
    with caplog.at_level(logging.INFO, "geoaware"):
        yield lambda: caplog.text


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_grey_of_fewer_bits_is_as_bright_as_of_all(tmp_path: Path, told, top: int, bits: int) -> None:
    values = np.array([[0, top // 3, top]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for given in (tmp_path / "deep.png", values):
        assert np.array(load_image(given))[0, :, 0].tolist() == [0, 85, 255]
    assert (f"deep.png: uses {bits} of its 16 bits" in told()) == (bits < 16)


@pytest.mark.parametrize("read", [load_image, image_size, load_mask])
@pytest.mark.parametrize("error", [RuntimeError("avif"), TypeError("tiff"), KeyError(3), MemoryError()])
def test_whatever_a_decoder_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable, error: Exception
) -> None:
    def fail(_: object) -> None:
        raise error

    (tmp_path / "a.avif").touch()
    monkeypatch.setattr(Image, "open", fail)
    what = "takes more memory" if isinstance(error, MemoryError) else "damaged or unreadable image"
    with pytest.raises(InputError, match=f"a.avif: {what}"):
        read(tmp_path / "a.avif")


def test_damaged_files_of_every_format(tmp_path: Path) -> None:
    for suffix in ("avif", "tiff", "webp", "png", "jpg", "gif"):
        path = tmp_path / f"a.{suffix}"
        Image.effect_noise((64, 64), 60).convert("RGB").save(path)
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            for read in (load_image, image_size):
                with suppress(InputError):
                    read(path)


def test_what_is_only_named_like_an_image_is_counted(tmp_path: Path, told, quarters: Image.Image) -> None:
    quarters.save(tmp_path / "a.jfif", "JPEG")
    for name in ("._a.jpg", "raw.NEF"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dead.png").symlink_to(tmp_path / "gone.png")
    assert list_images(tmp_path) == [tmp_path / "a.jfif"]
    for what in ("1 .nef files", "1 files of macOS", "1 folders named", "1 links to files that are missing"):
        assert what in told()


def test_heic_asks_for_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_heif", lambda: False)
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InputError, match=r"phone\.jpg: .*install geoaware\[heic\]"):
        load_image(tmp_path / "phone.jpg")
    (tmp_path / "b.heic").touch()
    (tmp_path / "phone.jpg").unlink()
    with pytest.raises(InputError, match=r"passed over: 1 \.heic files \(install geoaware\[heic\]\)"):
        list_images(tmp_path)


def test_masks_with_noise_labels_and_trimaps(tmp_path: Path, told) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).save(path)
    assert load_mask(path).tolist() == [[False, True, True]]
    assert told() == ""
    for values, expected in (
        ([[0, 9, 250, 255]], [[False, False, True, True]]),
        ([[0, 128, 255, 255]], [[False, True, True, True]]),
        ([[0, 1, 2, 3]], [[False, True, True, True]]),
    ):
        Image.fromarray(np.array(values, np.uint8)).save(path)
        assert load_mask(path).tolist() == expected
    assert "grey mask" in told()
    Image.fromarray(np.array([[1, 2, 3]], np.uint8)).save(path)
    with pytest.raises(InputError, match="is it a trimap"):
        load_mask(path)
    Image.new("L", (5, 5), 255).save(path)
    assert load_mask(path).all()
    assert "the object covers 100% of the image" in told()


def test_a_jpeg_mask_is_cut_at_half(tmp_path: Path) -> None:
    board = np.zeros((64, 64), np.uint8)
    board[20:44, 20:44] = 255
    Image.fromarray(board).save(tmp_path / "mask.jpg", quality=40)
    assert abs(int(load_mask(tmp_path / "mask.jpg").sum()) - 24 * 24) < 40


_PEAK = """
import os, resource, sys
from pathlib import Path
from geoaware.apps.web.images import Limits, read_image
for line in sys.stdin:
    if (child := os.fork()) == 0:  # of which the peak is known
        first, large = map(Path, line.split())
        read_image(first, Limits())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_image(large, Limits())
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[Popen[str]]:
    """A small program that tells how much memory the second image of each line takes."""
    with Popen([sys.executable, "-c", _PEAK], stdin=PIPE, stdout=PIPE, text=True) as program:
        yield program


@pytest.mark.parametrize(
    ("name", "mode", "size", "how"),
    [
        ("strips.tif", "F", (7200, 5000), {"compression": "tiff_deflate"}),
        pytest.param(
            "one.tif",
            "F",
            (7200, 5000),
            {"compression": "tiff_deflate", "tiffinfo": {278: 5000}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "turned.tif",
            "F",
            (7200, 5000),
            {"compression": "tiff_deflate", "tiffinfo": {274: 6}},
            marks=pytest.mark.slow,
        ),
        pytest.param("deep.png", "I;16", (7200, 5000), {}, marks=pytest.mark.slow),
        ("alpha.png", "RGBA", (7200, 5000), {}),
        pytest.param("plain.jpg", "RGB", (8000, 5000), {}, marks=pytest.mark.slow),
        pytest.param(
            "staged.jpg", "RGB", (7400, 4000), {"progressive": True, "subsampling": 0}, marks=pytest.mark.slow
        ),
        pytest.param("small.webp", "RGB", (4600, 4000), {}, marks=pytest.mark.slow),
    ],
)
def test_the_largest_images_of_the_demo_take_300_megabytes(
    reader: Popen[str], tmp_path: Path, name: str, mode: str, size: tuple[int, int], how: dict[str, Any]
) -> None:
    Image.new(mode, (64, 64)).save(tmp_path / f"first{Path(name).suffix}", **how)
    image = Image.new(mode, size)
    image.putpixel((5, 5), (1, 2, 3, 4)[: len(mode)] if mode.startswith("RGB") else 70)
    image.save(tmp_path / name, **how)
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(f"{tmp_path / f'first{Path(name).suffix}'} {tmp_path / name}\n")
    reader.stdin.flush()
    assert 1e6 < int(reader.stdout.readline()) < 300e6


@pytest.mark.parametrize("size", [(1500, 700), (300_000, 2), (2, 300_000)])
@pytest.mark.parametrize("mode", ["F", "I", "I;16", "RGBA"])
def test_tiles_are_invisible(mode: str, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(9000, 1000, (size[1], size[0]))
    if mode == "RGBA":
        image = Image.fromarray(np.stack([values % 256] * 4, axis=-1).astype(np.uint8))
        expected = np.array(Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB"))
    else:
        values = values.astype({"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]).astype(np.float64)
        values += 90_000 * (mode == "I")  # more than 16 bits
        image = Image.fromarray(values.astype({"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]))
        if mode == "F":
            image.putpixel((0, 0), float("nan"))
            image.putpixel((1, 1), float("inf"))
            values = np.array(image).astype(np.float64)
        low, high = np.nanmin(values), values[np.isfinite(values)].max()
        scaled = values * 255.0 / (2**14 - 1) if mode == "I;16" else (values - low) / (high - low) * 255
        whole = np.clip(np.rint(np.nan_to_num(scaled, posinf=255)), 0, 255)
        expected = np.repeat(whole[..., None], 3, axis=-1).astype(np.uint8)
    assert image.mode == mode
    assert np.array_equal(np.array(to_rgb(image)), expected)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_reduced_image_is_the_same_but_smaller(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.new("RGB", (1600, 800), "white")
    large.paste("red", (0, 0, 800, 400))
    large.save(tmp_path / name, exif=exif)
    whole, frame = load_framed(tmp_path / name)
    small, same = load_reduced(tmp_path / name, 200)
    assert (frame, same) == (Frame((800, 1600), 6), Frame((800, 1600), 6))
    assert small.size == ((100, 200) if name == "a.jpg" else (800, 1600)), "only a JPEG is faster smaller"
    share = small.width / 800
    for x, y in ((100, 100), (700, 100), (100, 1500), (700, 1500)):
        found = small.getpixel((int(x * share), int(y * share)))
        assert found == pytest.approx(whole.getpixel((x, y)), abs=6)
    assert load_reduced(tmp_path / name, 5000)[0].size == (800, 1600)


def test_a_file_that_cannot_be_read_at_all_is_closed() -> None:
    """Also while the error, which keeps what was at work, lives."""
    with pytest.raises(InputError, match=r"/proc/self/mem: cannot be read \(") as raised:
        load_image(Path("/proc/self/mem"))
    assert raised.value.__traceback__ is not None
    opened = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert not any(name.endswith("/mem") for name in opened)
