"""Videos as sequences of upright RGB images, decoded in order (package ``av``)."""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from geoaware.data.exif import turned_pixels
from geoaware.data.files import VIDEOS, reading
from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import refuse_pretender
from geoaware.runs.optional import require

_BEGINS = re.compile(
    rb".{4}ftyp(?!avi[fs]|hei[cfmsx]|hev[cx]|mif1|msf1)|.{4}(?:moov|mdat|wide)|\x1aE\xdf\xa3|RIFF.{4}AVI "
    rb"|\x00\x00\x01[\xba\xb3]|FLV\x01|0&\xb2u\x8ef\xcf\x11|OggS|G(?:.{187}G){2}|.{4}G(?:.{191}G){2}",
    re.DOTALL,
)
"""How the files of the known containers begin."""

_HEAD = 512

_OPTIONS = {"format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg"}
"""Nothing but containers of one file: play lists would make FFmpeg read other files and URLs."""

_WHOLE, _SLACK = ("mov", "matroska", "avi"), 1.0
"""Containers that say at their beginning how long they are, and how many seconds may be missing."""

_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""EXIF's number of what the signs of a display matrix do."""

_CONVERT = "convert it: ffmpeg -i VIDEO -c:v libx264 OTHER.mp4"


@dataclass(frozen=True)
class Video:
    """A video that was looked through.

    Attributes:
        path: the file.
        count: how many frames it has.
        stamps: when each is shown, rising; empty where it does not say so, as in AVI.
        mark: the same for the same frames.
        orientation: how frames are to be turned, as EXIF counts.
    """

    path: Path
    count: int
    stamps: array[int]
    mark: str
    orientation: int = 1


def is_video(path: Path) -> bool:
    """Whether a file is a video by how it begins, or by its name."""
    with reading(path), path.open("rb") as file:
        return bool(_BEGINS.match(file.read(_HEAD))) or path.suffix.lower() in VIDEOS


def look_through(path: Path) -> Video:
    """Find the frames of a video without decoding more than the first.

    Raises:
        InputError: it is none, is damaged or cut off, has no moving images, or nothing here can decode it.
        MissingDependencyError: the package for videos is not installed.
    """
    stamps, digest, count, end = array("q"), hashlib.sha256(), 0, 0.0
    with _opened(path) as (container, stream):
        kind = container.format.name
        length = (container.duration or 0) / 1e6 + (container.start_time or 0) / 1e6
        for packet in container.demux():
            begin = packet.dts if packet.pts is None else packet.pts
            if packet.size and begin is not None:
                end = max(end, float((begin + (packet.duration or 0)) * packet.time_base))
            # What was trimmed away may still be there, to be decoded and not shown.
            if packet.size and packet.stream is stream and not packet.is_discard:
                count += 1
                stamps.extend([] if packet.pts is None else [packet.pts])
                digest.update(struct.pack("<qq", packet.pts or 0, packet.size))
    if kind.startswith(_WHOLE) and 0 < end < length - _SLACK:
        raise InputError(
            f"{path}: is cut off after {count} frames; fetch it again, or keep these: "
            "ffmpeg -i VIDEO -c copy OTHER.mp4"
        )
    if kind == "avi" or len({*stamps}) < count:
        stamps = array("q")
    video = Video(path, count, array("q", sorted(stamps)), "")
    first = next(frames(video), None)
    if first is None:
        raise InputError(f"{path}: no frame can be decoded; fetch it again, or {_CONVERT}")
    orientation = _orientation(first[1])
    digest.update(bytes([orientation]))
    return replace(video, mark=digest.hexdigest()[:16], orientation=orientation)


def frames(video: Video) -> Iterator[tuple[int, Any]]:
    """The frames that can be decoded, as `to_image` takes them, each after its number from 0.

    Frames are counted in the order in which they are shown. One that is damaged leaves a gap, where the
    video says when frames are shown.
    """
    number, stamps = -1, video.stamps
    with _opened(video.path) as (container, stream):
        damaged = require("av", "video").error.FFmpegError
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except damaged:
                continue
            for each in found:
                place = 0 if each.pts is None else bisect_left(stamps, each.pts)
                known = place < len(stamps) and stamps[place] == each.pts
                number = max(number + 1, place if known else 0)
                if number < video.count:
                    yield number, each


def to_image(video: Video, frame: Any) -> Image.Image:
    """A decoded frame as an upright RGB image.

    Raises:
        InputError: it has more pixels than is safe.
    """
    if frame.width * frame.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise InputError(f"{video.path}: more pixels than is safe to decode; scale it down first")
    return Image.fromarray(turned_pixels(frame.to_ndarray(format="rgb24"), video.orientation))


class Reader:
    """Reads frames by number; frames that are asked for in order are decoded once.

    Only one decoded frame is in memory. A copy in another process begins anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._video: Video | None = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._before, self._held = -1, (-1, None)

    def __reduce__(self) -> Any:
        return Reader, ()

    def read(self, video: Video, number: int) -> Image.Image:
        """A frame as an upright RGB image.

        Raises:
            InputError: it cannot be decoded.
        """
        with self._lock:
            if self._video is not video or number <= self._before:
                self._video, self._frames = video, frames(video)
                self._before, self._held = -1, (-1, None)
            while self._held[0] < number:
                self._before, self._held = self._held[0], next(self._frames, (video.count, None))
            if self._held[0] != number:
                raise InputError(
                    f"{video.path}: frame {number} cannot be decoded, the video is damaged there"
                )
            return to_image(video, self._held[1])


def _orientation(frame: Any) -> int:
    """How a frame is to be turned, as EXIF counts; 1 (as it is) also where it is not by 90 degrees.

    Asking for this keeps the frame in memory until Python looks for cycles, so only the first one is asked.
    """
    try:
        a, b, _, c, d = struct.unpack("<5i", bytes(frame.side_data["DISPLAYMATRIX"])[:20])
    except KeyError:
        return 1
    return _ORIENTATIONS.get(tuple((each > 0) - (each < 0) for each in (a, b, c, d)), 1)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video with its stream of frames; what goes wrong with it meanwhile is an error that names it."""
    av = require("av", "video")
    with reading(path, "a video"), path.open("rb") as file:
        head = file.read(_HEAD)
        if not head:
            raise InputError(f"{path}: is empty; fetch it again")
        file.seek(0)
        try:
            with av.open(file, options=_OPTIONS, metadata_errors="ignore") as container:
                stream = _stream(container, path)
                yield container, stream
        except av.error.FFmpegError as error:
            refuse_pretender(path)
            if not _BEGINS.match(head):
                raise InputError(
                    f"{path}: is no video that can be read; give another, or {_CONVERT}"
                ) from None
            why = f"damaged or cut off ({reason(error)})"
            raise InputError(f"{path}: {why}; fetch it again from where it was recorded") from None


def _stream(container: Any, path: Path) -> Any:
    """The stream of moving images; covers of music are none."""
    cover = require("av.stream", "video").Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & cover]
    if not streams:
        raise InputError(f"{path}: has no moving images, only sound or text; give another file")
    context = streams[0].codec_context
    if context is None:
        raise InputError(f"{path}: its codec is not known here; {_CONVERT}")
    if context.width * context.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise InputError(f"{path}: more pixels than is safe to decode; scale it down first")
    context.thread_count = 1
    return streams[0]
