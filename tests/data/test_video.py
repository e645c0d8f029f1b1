"""Videos are read frame by frame, and what is wrong with one is told with the remedy."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoaware.data import video as library
from geoaware.data.exif import turned_pixels
from geoaware.data.video import Reader, frames, is_video, look_through, to_image
from geoaware.runs.errors import InputError, MissingDependencyError
from tests.films import cut, film, shown, sound, spoil, steps, trim, turn

av = pytest.importorskip("av")

CODECS = [
    ("a.mp4", "libx264", {"g": "12", "bf": "2"}),
    ("a.mov", "mpeg4", {"qmin": "1", "qmax": "2"}),
    ("a.mkv", "libx264", {"g": "12", "bf": "3"}),
    ("a.avi", "libx264", {"g": "12", "bf": "2"}),
    ("b.avi", "mjpeg", {}),
    ("a.webm", "libvpx-vp9", {"g": "12"}),
    ("a.ts", "libx264", {"g": "12", "bf": "2"}),
    ("a.mpg", "mpeg1video", {"bf": "2", "qmin": "1", "qmax": "2"}),
]


def numbers(path: Path) -> list[tuple[int, int]]:
    """Number of every frame, and what it shows."""
    video = look_through(path)
    return [(number, shown(to_image(video, frame))) for number, frame in frames(video)]


@pytest.mark.parametrize(("name", "codec", "options"), CODECS)
def test_frames_come_in_the_order_in_which_they_are_shown(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = film(tmp_path / name, steps(), codec, options)
    assert is_video(path)
    assert look_through(path).count == 40
    assert numbers(path) == [(each, each) for each in range(40)]


def test_frames_that_are_not_evenly_spaced_are_counted_alike(tmp_path: Path) -> None:
    times = [each**2 + 3 * each for each in range(40)]
    path = film(tmp_path / "a.mp4", steps(), options={"bf": "2"}, times=times)
    assert numbers(path) == [(each, each) for each in range(40)]


def test_what_was_trimmed_away_is_not_shown(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", steps(), options={"g": "12", "bf": "2"})
    found = numbers(trim(whole, 15, tmp_path / "a.mp4"))
    assert found == [(each, each + 15) for each in range(25)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_stand_upright(tmp_path: Path, orientation: int) -> None:
    path = turn(film(tmp_path / "a.mp4", steps(3)), orientation)
    image = Reader().read(look_through(path), 2)
    assert image.size == ((64, 48) if orientation < 5 else (48, 64))
    wanted = turned_pixels(np.array(steps(3)[2]), orientation)
    assert np.abs(np.array(image).astype(int) - wanted).mean() < 5


def test_a_reader_decodes_frames_that_come_in_order_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def counted(video: library.Video) -> object:
        begun.append(video.path)
        return frames(video)

    monkeypatch.setattr(library, "frames", counted)
    first, second = (look_through(film(tmp_path / name, steps())) for name in ("a.mp4", "b.mp4"))
    begun.clear()
    reader = Reader()
    assert [shown(reader.read(first, each)) for each in (0, 0, 3, 4, 39)] == [0, 0, 3, 4, 39]
    assert len(begun) == 1
    assert shown(reader.read(first, 7)) == 7
    assert shown(reader.read(second, 8)) == 8
    assert shown(pickle.loads(pickle.dumps(reader)).read(second, 2)) == 2
    assert begun[1:] == [first.path, second.path, second.path]


def test_a_damaged_frame_leaves_a_gap(tmp_path: Path) -> None:
    """The frames after it keep their numbers, because the file says when they are shown."""
    path = film(tmp_path / "a.mp4", steps(), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    found = numbers(spoil(path, 10, 20))
    assert found == [(each, each) for each in (*range(10), *range(20, 40))]
    reader, video = Reader(), look_through(path)
    for number in (10, 19, 12):
        with pytest.raises(InputError, match=rf"a.mp4: frame {number} cannot be decoded, the video is damag"):
            reader.read(video, number)
    assert shown(reader.read(video, 20)) == 20
    assert shown(reader.read(video, 9)) == 9


def unknown_codec(path: Path) -> Path:
    film(path, steps())
    content = path.read_bytes()
    place = content.index(b"avc1", content.index(b"stsd"))
    path.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    return path


def fast_start(path: Path) -> Path:
    return film(path, steps(150), container_options={"movflags": "faststart"})


def text(content: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_text(content)
        return path

    return write


BROKEN = [
    ("a.mp4", lambda path: cut(film(path, steps()), 0.5), "damaged or cut off .Invalid data.*fetch it again"),
    ("a.mp4", lambda path: cut(fast_start(path), 0.6), r"is cut off after \d\d frames; fetch.*-c copy"),
    ("a.mkv", lambda path: cut(film(path, steps(150)), 0.6), r"is cut off after \d\d frames; fetch it again"),
    ("a.mp4", text("no film at all\n" * 100), "is no video that can be read; give another, or convert it"),
    ("a.mp4", text(""), "is empty; fetch it again"),
    ("a.mp4", text("#EXTM3U\n#EXTINF:5,\n/etc/hosts\n#EXT-X-ENDLIST\n"), "is no video that can be read"),
    ("a.mp4", text("ffconcat version 1.0\nfile b.mp4\n"), "is no video that can be read"),
    ("a.mp4", text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"),
    ("a.m4a", sound, "has no moving images, only sound or text; give another file"),
    ("a.mp4", unknown_codec, "its codec is not known here; convert it: ffmpeg -i VIDEO -c:v libx264"),
    ("a.mp4", lambda path: spoil(film(path, steps()), 0, 40), "no frame can be decoded; fetch it again"),
]


@pytest.mark.parametrize(("name", "make", "message"), BROKEN)
def test_what_is_no_whole_video_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], Path], message: str
) -> None:
    path = make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        look_through(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_cover_is_no_moving_image(tmp_path: Path) -> None:
    """Music with a cover has a stream of one image."""
    path = tmp_path / "a.m4a"
    with av.open(str(sound(tmp_path / "b.m4a"))) as music, av.open(str(path), "w", format="mp4") as file:
        heard = file.add_stream_from_template(music.streams.audio[0])
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        file.mux(cover.encode(av.VideoFrame.from_image(steps(1)[0])))
        for packet in music.demux(music.streams.audio[0]):
            if packet.size:
                packet.stream = heard
                file.mux(packet)
    with pytest.raises(InputError, match="has no moving images"):
        look_through(path)


def test_frames_too_large_to_decode_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", steps(2))
    video = look_through(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"a.mp4: more pixels than is safe to decode"):
        look_through(path)
    with pytest.raises(InputError, match="more pixels than is safe"):
        Reader().read(video, 0)


def test_without_its_package_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", steps(2))
    monkeypatch.setitem(sys.modules, "av", None)
    assert is_video(path)
    with pytest.raises(
        MissingDependencyError, match=r"'av' is not installed: pip install 'geoaware\[video\]'"
    ):
        look_through(path)


def test_a_video_is_known_by_its_content(tmp_path: Path) -> None:
    assert is_video(film(tmp_path / "a.mp4", steps(2)).rename(tmp_path / "a.bin"))
    assert is_video(text("")(tmp_path / "b.MOV"))
    images = {"a.jpg": b"\xff\xd8\xff\xe0", "heic": b"\0\0\0\x18ftypheic", "g": b"GIF89a"}
    for name, content in {**images, "avif": b"\0\0\0\x1cftypavif"}.items():
        (tmp_path / name).write_bytes(content + bytes(500))
        assert not is_video(tmp_path / name)


def test_the_mark_tells_videos_apart(tmp_path: Path) -> None:
    one, same, other = (
        look_through(film(tmp_path / f"{name}.mp4", steps(count)))
        for name, count in (("a", 5), ("b", 5), ("c", 6))
    )
    assert one.mark == same.mark != other.mark


def test_the_mark_tells_how_it_is_turned(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", steps(3))
    before = look_through(path)
    after = look_through(turn(path, 6))
    assert before.mark != after.mark
    assert (before.orientation, after.orientation) == (1, 6)


def test_frames_that_were_read_are_let_go(tmp_path: Path) -> None:
    """Without waiting until Python looks for cycles."""
    video, reader = look_through(turn(film(tmp_path / "a.mp4", steps(30)), 3)), Reader()
    gc.collect()
    gc.disable()
    try:
        for number in range(30):
            reader.read(video, number)
        held = [each for each in gc.get_objects() if type(each) is av.VideoFrame]
        assert len(held) < 5
    finally:
        gc.enable()
