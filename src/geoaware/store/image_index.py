"""Which pixels an image file holds, remembered, so that a second run need not decode it again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from geoaware.data.images import load_image

# A file changed again within the clock's resolution would look the same; younger files are not remembered.
_SETTLED_NS = 2_000_000_000


def hash_pixels(image: Image.Image) -> str:
    """SHA-256 of width, height and pixels of an upright RGB image.

    Pixels, not the file's bytes, are what an extractor sees; EXIF data and a lossless change of format do not
    matter.
    """
    digest = hashlib.sha256(f"{image.width}x{image.height} {image.mode}\n".encode())
    digest.update(np.ascontiguousarray(np.asarray(image)).data)
    return digest.hexdigest()


class ImageIndex:
    """Pixel hashes of files, by path, length and times; anything not remembered is decoded and hashed.

    The lines are appended one at a time, so that a killed run keeps what it found and several processes can
    share the file; a damaged line is not used.

    Args:
        path: the index file; made when the first image is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, int, int, int], str] = {}
        self._ends_well = True
        if path.is_file():
            self._load(path.read_bytes())

    def hash_of(self, image: str | os.PathLike[str]) -> str:
        """Pixel hash of an image file; an `InputError` if it cannot be read."""
        place = self._place(image)
        if place is not None and place in self._known:
            return self._known[place]
        found = hash_pixels(load_image(image))
        if place is not None and place == self._place(image):
            self._remember(place, found)
        return found

    @staticmethod
    def _place(image: str | os.PathLike[str]) -> tuple[str, int, int, int] | None:
        path = Path(os.path.abspath(image))  # noqa: PTH100  (links are not followed)
        try:
            found = path.stat()
        except OSError:
            return None
        return path.as_posix(), found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _remember(self, place: tuple[str, int, int, int], found: str) -> None:
        self._known[place] = found
        if time.time_ns() - max(place[2:]) < _SETTLED_NS:
            return
        entry = json.dumps([*place, found])
        line = f"{zlib.crc32(entry.encode()):08x} {entry}\n"
        # A full disk or a read-only folder costs only the time to hash again.
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write((line if self._ends_well else "\n" + line).encode())
            self._ends_well = True

    def _load(self, content: bytes) -> None:
        self._ends_well = content.endswith(b"\n") or not content
        for line in content.split(b"\n"):
            check, _, entry = line.partition(b" ")
            if check == f"{zlib.crc32(entry):08x}".encode() and entry:
                name, size, mtime, ctime, found = json.loads(entry)
                self._known[name, size, mtime, ctime] = found
