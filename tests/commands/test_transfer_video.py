"""`geoaware transfer` on a video as a user runs it, with a toy extractor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from geoaware.runs.errors import InputError
from tests.apps.transfer.test_videos import views
from tests.commands.test_transfer import refused, run, source, toy  # noqa: F401
from tests.films import LOSSLESS, cut, film, sound

pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return film(tmp_path / "clip.mp4", views(), options=LOSSLESS)


def test_a_video_is_annotated(tmp_path: Path, source: Path, clip: Path) -> None:  # noqa: F811
    sleap = pytest.importorskip("sleap_io")
    out = tmp_path / "tracks.slp"
    result = run(source, clip, "--every", "3", "--out", out, "--threshold", "0")
    assert "cat: 5 keypoints, 2 sources, 3 targets" in result.stderr
    assert "3 annotated, 0 failed; 15 of 15 keypoints shown" in result.stderr
    assert [each.frame_idx for each in sleap.load_slp(str(out))] == [0, 3, 6]
    # Without smoothing nothing is computed anew, and the result is another one.
    before = json.loads((tmp_path / "tracks.coco.json").read_text())
    run(source, clip, "--every", "3", "--out", out, "--threshold", "0", "--no-smooth")
    after = json.loads((tmp_path / "tracks.coco.json").read_text())
    assert before["images"] == after["images"]
    assert before["annotations"] != after["annotations"]


def test_the_page_shows_frames_that_are_written(
    tmp_path: Path, source: Path, clip: Path  # noqa: F811
) -> None:  # fmt: skip
    page, frames, out = tmp_path / "page.html", tmp_path / "frames", tmp_path / "out.json"
    refused("--review shows image files; give --frames DIR", source, clip, "--out", out, "--review", page)
    run(source, clip, "--out", out, "--review", page, "--frames", frames, "--threshold", "0")
    assert "clip/img000003.png" in page.read_text()
    assert len(list((frames / "clip").glob("img*.png"))) == 8


def test_the_remedy_is_an_option(tmp_path: Path, source: Path, clip: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match="a CVAT XML names image files; have the frames written") as caught:
        run(source, clip, "--out", tmp_path / "found.xml")
    assert caught.value.parameter == "frames"


def test_options_of_videos_need_a_video(tmp_path: Path, source: Path) -> None:  # noqa: F811
    views(1)[0].save(tmp_path / "a.png")
    out = tmp_path / "out.json"
    refused("only videos have frames to choose", source, tmp_path / "a.png", "--every", 2, "--out", out)
    refused("--every and --frames belong to videos", source, "--targets", source, "--every", 2, "--out", out)


def test_what_is_no_video_is_named(tmp_path: Path, source: Path, clip: Path) -> None:  # noqa: F811
    out = tmp_path / "out.json"
    (tmp_path / "text.mp4").write_text("no film at all\n")
    refused("text.mp4: is no video that can be read", source, tmp_path / "text.mp4", "--out", out)
    refused(
        "has no moving images", source, sound(tmp_path / "a.m4a").rename(tmp_path / "a.mp4"), "--out", out
    )
    refused("damaged or cut off", source, cut(clip, 0.5), "--out", out)
    assert not out.exists()


def test_a_video_is_no_source(tmp_path: Path, source: Path, clip: Path) -> None:  # noqa: F811
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    message = "clip.mp4: is a video, which holds no annotations; annotate some of its frames"
    refused(message, clip, tmp_path / "a.png", "--out", tmp_path / "out.json")


def test_a_folder_of_videos_says_how_to_give_them(
    tmp_path: Path, source: Path, clip: Path  # noqa: F811
) -> None:  # fmt: skip
    message = r"no images in this folder.*passed over: 1 videos \(transfer takes them one by one\)"
    refused(message, source, tmp_path, "--out", tmp_path / "out.json")
