"""Frames of videos as targets: names, results in every format, resumption, and what is in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.apps.transfer import Outcome, Sources, TransferSettings, list_targets, read_sources, transfer
from geoaware.apps.transfer import videos as library
from geoaware.data import formats
from geoaware.data.video import Video
from geoaware.runs.errors import InputError
from geoaware.runs.work import Local
from tests.apps.transfer.tiny import CELL, NAMES, POINTS, SIDE, matcher, view, write_sources
from tests.films import LOSSLESS, film, spoil, steps, turn

pytest.importorskip("av")

ALL = TransferSettings(threshold=0.0)


def views(count: int = 8) -> list[Image.Image]:
    """The scene, which moves to the left by one of the toy's cells in every second image."""
    return [view(int(CELL) * (number // 2), 0) for number in range(count)]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return film(tmp_path / "films" / "clip.mp4", views(), options=LOSSLESS)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return read_sources(write_sources(tmp_path / "s", [(0, 0), (9, 9)]))


def run(sources: Sources, clip: Path, out: Path, settings: TransferSettings = ALL, **options: Any) -> Outcome:
    frames = {key: options.pop(key) for key in ("every", "frames") if key in options}
    return transfer(sources, list_targets([clip], **frames), matcher(), out, settings, **options)


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def points(path: Path) -> np.ndarray:
    return np.array([each["keypoints"] for each in content(path)["annotations"]]).reshape(-1, len(NAMES), 3)


def test_keypoints_are_found_in_every_frame(tmp_path: Path, sources: Sources, clip: Path) -> None:
    out = tmp_path / "out.json"
    outcome = run(sources, clip, out)
    assert (outcome.targets, outcome.failed) == (8, 0)
    assert content(out)["images"][3] == {
        "id": 4, "file_name": "clip/img000003.png", "width": SIDE, "height": SIDE,
        "video": "clip.mp4", "frame": 3,
    }  # fmt: skip
    for number, found in enumerate(points(out)):
        wanted = np.array(POINTS) - [CELL * (number // 2), 0]
        assert np.abs(found[:, :2] - wanted).max() < CELL


def test_every_third_frame(tmp_path: Path, sources: Sources, clip: Path) -> None:
    for every, wanted in ((3, [0, 3, 6]), (100, [0])):
        out = tmp_path / f"{every}.json"
        run(sources, clip, out, every=every)
        assert [each["frame"] for each in content(out)["images"]] == wanted
    # More frames of the same video cost only what is new.
    done: list[int] = []
    out = tmp_path / "3.json"
    run(sources, clip, out, progress=lambda what, n, total: done.append(n) if what == "annotating" else None)
    assert done[0] == 3
    whole = run(sources, clip, tmp_path / "whole.json").out
    assert out.read_bytes() == whole.read_bytes()


def test_any_number_of_processes_writes_the_same(tmp_path: Path, sources: Sources, clip: Path) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    run(sources, clip, one, every=2)
    run(sources, clip, two, every=2, engine=Local(2))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_an_interrupted_run_goes_on(tmp_path: Path, sources: Sources, clip: Path, stop: int) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "out.json"
    run(sources, clip, whole)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "annotating" and done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(sources, clip, out, progress=interrupt)
    run(sources, clip, out)
    assert out.read_bytes() == whole.read_bytes()


def test_smoothing_is_decided_when_the_result_is_written(
    tmp_path: Path, sources: Sources, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth, plain, again = (tmp_path / f"{name}.json" for name in ("smooth", "plain", "again"))
    run(sources, clip, smooth)
    run(sources, clip, plain, smooth=False)
    assert not np.array_equal(points(smooth), points(plain))
    assert content(smooth)["info"]["run"]["settings"]["smooth"] is True
    run(sources, clip, again)
    monkeypatch.setattr("geoaware.apps.transfer.run._Job._record", None)  # nothing is computed any more
    run(sources, clip, again, smooth=False)
    assert again.read_bytes() == plain.read_bytes()
    run(sources, clip, again)
    assert again.read_bytes() == smooth.read_bytes()


def test_images_are_not_smoothed(tmp_path: Path, sources: Sources) -> None:
    for number, each in enumerate(views(3)):
        each.save(tmp_path / f"{number}.png")
    results = []
    for smooth in (True, False):
        out = tmp_path / f"{smooth}.json"
        transfer(
            sources, list_targets([tmp_path / f"{n}.png" for n in range(3)]), matcher(), out, smooth=smooth
        )
        results.append(out.read_bytes())
    assert results[0] == results[1]
    assert b"smooth" not in results[0]


def test_frames_are_written_once_and_give_the_same(tmp_path: Path, sources: Sources, clip: Path) -> None:
    folder, out, direct = tmp_path / "frames", tmp_path / "out.json", tmp_path / "direct.json"
    run(sources, clip, out, every=3, frames=folder)
    run(sources, clip, direct, every=3)
    assert out.read_bytes() == direct.read_bytes()
    names = sorted(each.name for each in (folder / "clip").iterdir())
    assert names == ["geoaware.json", "img000000.png", "img000003.png", "img000006.png"]
    assert np.abs(np.array(Image.open(folder / "clip" / names[2]), int) - np.array(views()[3])).mean() < 2
    # What is missing is written again, the others stay.
    kept = folder / "clip" / names[2]
    before = kept.stat().st_mtime_ns
    (folder / "clip" / names[1]).unlink()
    run(sources, clip, out, every=3, frames=folder)
    assert (folder / "clip" / names[1]).exists()
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("to", ["cvat", "labelstudio", "dlc", "yolo", "labelme"])
def test_formats_of_images_take_the_frames_as_files(
    tmp_path: Path, sources: Sources, clip: Path, to: str
) -> None:
    out, folder = tmp_path / f"found{formats.SUFFIXES.get(to, '')}", tmp_path / "frames"
    with pytest.raises(InputError, match="names image files; have the frames written") as caught:
        run(sources, clip, out, to=to)
    assert caught.value.parameter == "frames"
    assert not (tmp_path / "found.coco.json").exists()
    run(sources, clip, out, to=to, frames=folder)
    read = formats.read(out)
    assert len(read.content["annotations"]) == 8
    names = [Path(each["file_name"]).name for each in read.content["images"]]
    assert names == [f"img{number:06}.png" for number in range(8)]
    if to == "dlc":
        assert (out / "labeled-data" / "clip" / "CollectedData_geoaware.csv").is_file()


@pytest.mark.parametrize("kept", [False, True])
def test_sleap_is_told_the_video_and_the_frames(
    tmp_path: Path, sources: Sources, clip: Path, kept: bool
) -> None:
    sleap = pytest.importorskip("sleap_io")
    out = tmp_path / "tracks.slp"
    run(sources, clip, out, every=3, **({"frames": tmp_path / "frames"} if kept else {}))
    labels = sleap.load_slp(str(out), open_videos=False)
    assert [Path(each.filename) for each in labels.videos] == [clip]
    assert tuple(labels.videos[0].backend_metadata["shape"]) == (8, SIDE, SIDE, 3)
    assert labels.videos[0].backend_metadata["type"] == "MediaVideo"
    assert [each.frame_idx for each in labels] == [0, 3, 6]
    found = points(tmp_path / "tracks.coco.json")
    for frame, wanted in zip(labels, found, strict=True):
        assert frame.instances[0].numpy() == pytest.approx(wanted[:, :2])


def test_a_turned_video_is_upright(tmp_path: Path, sources: Sources) -> None:
    clip = turn(film(tmp_path / "clip.mp4", [each.rotate(90) for each in views(2)], options=LOSSLESS), 6)
    out = run(sources, clip, tmp_path / "out.json").out
    assert np.abs(points(out)[0, :, :2] - np.array(POINTS)).max() < CELL


def test_a_damaged_frame_fails_alone(tmp_path: Path, sources: Sources) -> None:
    options = {"g": "4", "bf": "0", "sc_threshold": "0"}
    even = [each.resize((116, 116)) for each in views(12)]  # as most codecs want
    clip = spoil(film(tmp_path / "clip.mp4", even, options=options), 4, 8)
    for name, more in (("a", {}), ("b", {"frames": tmp_path / "frames"})):
        outcome = run(sources, clip, tmp_path / f"{name}.json", **more)
        assert (outcome.targets, outcome.failed) == (12, 4)
        assert outcome.reasons[0] == (
            "clip/img000004.png: frame 4 cannot be decoded, the video is damaged there"
        )
        assert [each["frame"] for each in content(outcome.out)["images"]] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_several_videos_are_in_the_order_of_their_names(tmp_path: Path, sources: Sources, clip: Path) -> None:
    other = film(clip.parent / "inside" / "a.mkv", views(2), options=LOSSLESS)
    targets = list_targets([other, clip], every=4)
    assert [each.name for each in targets] == [
        "clip/img000000.png", "clip/img000004.png", "inside/a/img000000.png"
    ]  # fmt: skip
    out = tmp_path / "out.slp"
    transfer(sources, targets, matcher(), out, ALL)
    sleap = pytest.importorskip("sleap_io")
    labels = sleap.load_slp(str(out), open_videos=False)
    assert [(Path(each.video.filename).name, each.frame_idx) for each in labels] == [
        ("clip.mp4", 0), ("clip.mp4", 4), ("a.mkv", 0)
    ]  # fmt: skip


def test_another_video_of_the_same_name_is_another_run(tmp_path: Path, sources: Sources, clip: Path) -> None:
    out, folder = tmp_path / "out.json", tmp_path / "frames"
    run(sources, clip, out, frames=folder)
    film(clip, views(9), options=LOSSLESS)
    with pytest.raises(InputError, match="clip: holds the frames of another video; choose") as caught:
        run(sources, clip, tmp_path / "new.json", frames=folder)
    assert caught.value.parameter == "frames"
    with pytest.raises(InputError, match="is of other targets too"):
        run(sources, clip, out)


def beside(name: str) -> Callable[[Path], list[Path]]:
    """The video, and another file."""

    def make(clip: Path) -> list[Path]:
        other = clip.with_name(name)
        if other.suffix == ".png":
            views(1)[0].save(other)
        else:
            other.write_bytes(clip.read_bytes())
        return [clip, other]

    return make


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            beside("a.png"),
            {},
            "clip.mp4 is a video and .*a.png is none; annotate images and videos one after",
        ),
        (beside("clip.mov"), {}, "clip.mov and clip.mp4 would share the names of frames; rename one"),
        (lambda clip: [clip], {"every": 0}, "every frame is 1, every second one 2; got 0"),
        (lambda clip: beside("a.png")(clip)[1:], {"every": 2}, "only videos have frames to choose"),
        (lambda clip: beside("a.png")(clip)[1:], {"frames": Path("x")}, "only videos have frames to choose"),
        (lambda clip: [clip], {"root": Path("elsewhere")}, "lies outside elsewhere"),
        (lambda clip: [clip.with_name("no.mp4")], {}, "no.mp4: no such image or folder"),
    ],
)
def test_what_cannot_be_listed(
    clip: Path, make: Callable[[Path], list[Path]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list_targets(make(clip), **options)


def test_nothing_goes_over_the_video(sources: Sources, clip: Path) -> None:
    before = clip.read_bytes()
    with pytest.raises(InputError, match="is what is read from"):
        run(sources, clip, clip)
    assert clip.read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, sources: Sources, clip: Path) -> None:
    folder = tmp_path / "frames"
    (folder / "clip").mkdir(parents=True)
    (folder / "clip" / "img000000.png").write_text("mine")
    with pytest.raises(InputError, match=r"frames/clip: is there, and not as geoaware wrote it"):
        run(sources, clip, tmp_path / "out.json", frames=folder)
    assert (folder / "clip" / "img000000.png").read_text() == "mine"
    assert list((folder / "clip").iterdir()) == [folder / "clip" / "img000000.png"]


def test_frames_are_decoded_once(
    tmp_path: Path, sources: Sources, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that are written: the work then reads the images."""
    count = 0

    def counted(video: Video, frame: Any) -> Image.Image:
        nonlocal count
        count += 1
        return to_image(video, frame)

    to_image = library.to_image
    monkeypatch.setattr(library, "to_image", counted)
    monkeypatch.setattr("geoaware.data.video.to_image", counted)
    run(sources, clip, tmp_path / "a.json")
    assert count == 8
    run(sources, clip, tmp_path / "b.json", frames=tmp_path / "frames")
    assert count == 16


def test_long_videos_are_not_in_memory(tmp_path: Path) -> None:
    """Listing keeps names and times alone."""
    clip = film(tmp_path / "clip.mp4", steps(300))
    targets = list_targets([clip], every=7)
    assert (len(targets), targets[42].shot.number, targets[42].name) == (43, 294, "clip/img000294.png")
