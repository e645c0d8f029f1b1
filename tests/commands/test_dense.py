"""``geoaware dense`` and ``geoaware warp``, with a small extractor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoaware import cli
from tests.apps.transfer.tiny import SIDE, view

SMALL = "small.png: mask of 9x9 pixels, image of 117x117; give one of the image's size"
TOY = ("--extractor", "tests.evaluation.tiny:Sided", "--device", "cpu", "--pose", "off", "--set", "window=3")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    view(0, 0).save(tmp_path / "a.png")
    view(18, 9).save(tmp_path / "b.png")
    half = Image.new("L", (SIDE, SIDE))
    half.paste(255, (0, 0, 60, SIDE))
    half.save(tmp_path / "half.png")
    half.crop((55, 0, 64, 9)).save(tmp_path / "small.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["geoaware", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", ["f.npz", "f.flo", "f.png"])
def test_a_field_is_written(
    name: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "dense", "a.png", "b.png", "--out", name, "--size", "0", *TOY) == 0
    said = capsys.readouterr()
    assert said.out == f"{name}\n"
    assert "pose: identity; " in said.err
    assert " of the pixels have a sure counterpart" in said.err
    assert "note: features of 13 x 13 cells are too coarse for the edges of a field; a larger" in said.err
    assert (photos / name).stat().st_size > 10_000


def test_only_the_mask_is_looked_for(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("dense", "a.png", "b.png", "--mask", "half.png", "--size", "0", "--out", "f.npz", *TOY)
    assert run(monkeypatch, *words) == 0
    with np.load(photos / "f.npz") as content:
        known = np.isfinite(content["points"]).all(axis=-1)
    assert known[:, :60].all()
    assert not known[:, 60:].any()


def test_a_warp_has_holes_or_a_ground(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "warp", "a.png", "b.png", "--out", "w.png", *TOY) == 0
    warped = Image.open(photos / "w.png")
    assert (warped.size, warped.mode) == ((SIDE, SIDE), "RGBA")
    alpha = np.asarray(warped.getchannel("A"))
    assert 0 < (alpha > 0).mean() < 1
    assert run(monkeypatch, "warp", "a.png", "b.png", "--out", "o.png", "--over", *TOY) == 0
    over, ground = np.asarray(Image.open(photos / "o.png")), np.asarray(Image.open(photos / "b.png"))
    assert over.shape == (SIDE, SIDE, 3)
    assert (over[alpha == 0] == ground[alpha == 0]).all()
    assert (over[alpha == 255] == np.asarray(warped)[alpha == 255, :3]).all()


def test_an_edit_is_carried_where_the_mask_is_white(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (SIDE, SIDE), "red").save(photos / "red.png")
    words = ("warp", "a.png", "b.png", "--edit", "red.png", "--mask", "half.png", "--out", "w.png")
    assert run(monkeypatch, *words, "--min-confidence", "0", "--max-cycle", "9", *TOY) == 0
    warped = np.asarray(Image.open(photos / "w.png"), dtype=float)
    assert (warped[warped[..., 3] > 0][:, :3] == [255, 0, 0]).all()
    # Half of A, to its left, lies farther left in B: the views are 18 pixels apart.
    assert warped[30:90, 5:30, 3].mean() > 200
    assert warped[30:90, 60:100, 3].mean() < 60


def test_a_smooth_warp(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, more in (("w.png", ()), ("s.png", ("--smooth", "0.001"))):
        assert run(monkeypatch, "warp", "a.png", "b.png", "--out", name, *more, *TOY) == 0
    assert (photos / "w.png").read_bytes() != (photos / "s.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dense", "a.png", "b.png", "--out", "f.txt"), "f.txt: a field is written as .npz, .flo or .png"),
        (("dense", "a.png", "b.png", "--out", "a.png"), "a.png: is what is read from"),
        (("dense", "a.png", "b.png", "--out", "f.npz", "--step", "0"), "size and step of a field must be"),
        (("dense", "a.png", "b.png", "--out", "f.npz", "--mask", "small.png"), SMALL),
        (("warp", "a.png", "b.png", "--out", "w.xyz"), "w.xyz: no image can be written as '.xyz'"),
        (
            ("warp", "a.png", "b.png", "--out", "w.png", "--edit", "small.png"),
            "small.png: has 9x9 pixels, and A",
        ),
        (
            ("warp", "a.png", "b.png", "--out", "w.png", "--mask", "small.png"),
            SMALL,
        ),
        (("warp", "a.png", "b.png", "--out", "w.png", "--smooth", "-1"), "--smooth must be 0 or more"),
        (("warp", "a.png", "none.png", "--out", "w.png"), "none.png: no such file"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...],
    message: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(each.name for each in photos.iterdir())
    assert run(monkeypatch, *words, *TOY) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert sorted(each.name for each in photos.iterdir()) == before
