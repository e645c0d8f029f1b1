"""SLEAP files that annotate frames of video files are sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoaware.data import formats
from geoaware.runs.errors import InputError
from tests.films import film, shown, spoil, steps

pytest.importorskip("av")
sleap = pytest.importorskip("sleap_io")


def labels(place: Path, *frames: tuple[Path, int]) -> Path:
    """A file as sleap-io writes it, with a mouse at (number of the frame, 2) in these frames."""
    skeleton = sleap.Skeleton(["nose", "tail"], name="mouse")
    videos = {path: sleap.Video(str(path)) for path, _ in frames}
    made = [
        sleap.LabeledFrame(
            video=videos[path],
            frame_idx=frame,
            instances=[sleap.Instance.from_numpy(np.array([[frame, 2.0], [3, 4]]), skeleton)],
        )
        for path, frame in frames
    ]
    sleap.Labels(made).save(str(place))
    return place


def test_frames_are_read_in_any_order(tmp_path: Path) -> None:
    """Of two videos of one name."""
    one, two = (film(tmp_path / name / "clip.mp4", steps(12)) for name in "ab")
    read = formats.read(labels(tmp_path / "labels.slp", (one, 7), (two, 3), (one, 2)))
    assert read.folder is not None
    names = {each["id"]: each["file_name"] for each in read.content["images"]}
    assert sorted(names.values()) == [
        "video0/clip-000002.png", "video0/clip-000007.png", "video1/clip-000003.png"
    ]  # fmt: skip
    for found in read.content["annotations"]:
        image = Image.open(read.folder / names[found["image_id"]])
        assert shown(image) == int(found["keypoints"][0])


def test_a_video_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    path = labels(tmp_path / "labels.slp", (film(tmp_path / "a" / "clip.mp4", steps(12)), 7))
    (tmp_path / "a" / "clip.mp4").rename(tmp_path / "clip.mp4")
    assert len(formats.read(path).content["images"]) == 1
    (tmp_path / "clip.mp4").unlink()
    message = (
        "labels.slp: annotates frames of the video clip.mp4; put it beside the file, or export a package"
    )
    with pytest.raises(InputError, match=message):
        formats.read(path)


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.mp4", steps(12), options={"g": "4", "bf": "0", "sc_threshold": "0"})
    path = labels(tmp_path / "labels.slp", (clip, 5))
    spoil(clip, 4, 8)
    with pytest.raises(InputError, match=r"labels.slp: clip.mp4 has no frame 5 that can be decoded"):
        formats.read(path)
