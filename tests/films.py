"""Small videos, made with PyAV; tests that ask for one are skipped without it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MATRICES = {
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip
"""Of the display by EXIF orientation."""

LOSSLESS = {"qp": "0"}


def film(
    path: Path,
    images: Iterable[Image.Image],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Sequence[int] = (),
    rate: int = 25,
    **container: Any,
) -> Path:
    """A video of these images; ``times`` are in milliseconds, where the frames are not evenly spaced."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv444p" if options is LOSSLESS else "yuv420p"
        for number, image in enumerate(images):
            if not number:
                stream.width, stream.height = image.size
            frame = av.VideoFrame.from_image(image)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def steps(count: int = 40, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """Images that say their number by their brightness, with a white left quarter."""
    images = []
    for number in range(count):
        pixels = np.full((size[1], size[0], 3), 5 * (number % 40), np.uint8)
        pixels[:, : size[0] // 4] = 255
        images.append(Image.fromarray(pixels))
    return images


def shown(image: Image.Image) -> int:
    """The number that an image of `steps` says, upright."""
    return round(image.getpixel((image.width - 8, image.height // 2))[0] / 5)


def turn(path: Path, orientation: int) -> Path:
    """The display matrix in an MP4 file changed."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 44
    a, b, c, d = (each << 16 for each in MATRICES[orientation])
    content[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def sound(path: Path) -> Path:
    """A file of sound alone."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def spoil(path: Path, frame: int, until: int) -> Path:
    """An MP4 file whose frames in this range, by their order in the file, are overwritten with zeros."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        places = [(each.pos, each.size) for each in file.demux(video=0) if each.size]
    content = bytearray(path.read_bytes())
    for begin, size in places[frame:until]:
        content[begin : begin + size] = bytes(size)
    path.write_bytes(content)
    return path


def trim(path: Path, frames: int, out: Path) -> Path:
    """A video without its first frames, as phones trim it: they are in the file, but not to be shown."""
    av = pytest.importorskip("av")
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(path)) as whole, av.open(str(out), "w", options=options) as file:
        stream = whole.streams.video[0]
        copy = file.add_stream_from_template(stream)
        away = round(frames / stream.average_rate / stream.time_base)
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - away, packet.dts - away, copy
                file.mux(packet)
    return out
