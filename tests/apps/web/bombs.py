"""Images that are small as files and huge once decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png_bomb(path: Path, side: int) -> Path:
    """A valid black-and-white PNG of ``side`` squared pixels, all black."""
    compress = zlib.compressobj(9)
    line = b"\0" + bytes(-(-side // 8))
    data = b"".join([compress.compress(line * 100) for _ in range(side // 100)] + [compress.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in chunks:
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(kind + content)))
    return path


def png_header(path: Path, side: int) -> Path:
    """A PNG that says to have ``side`` squared pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    empty = b"IDAT" + zlib.compress(b"")
    path.write_bytes(data + struct.pack(">I", len(empty) - 4) + empty + struct.pack(">I", zlib.crc32(empty)))
    return path
