"""Which pixels an image file holds, remembered, so that a second run need not decode it again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from geoaware.data.images import load_image
from geoaware.runs.errors import InputError
from geoaware.runs.places import Remote, absolute, is_remote, place

# A file changed again within the clock's resolution would look the same; younger files are not remembered.
_SETTLED_NS = 2_000_000_000

_EACH = 500
"""So many lines are put into an object together."""


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

    At a URL nothing can be appended to an object: there the path is a folder, and lines go into objects that
    are named by what is in them.

    Args:
        path: the index file; made when the first image is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_well = True
        self._waiting = list[str]()

    @cached_property
    def _known(self) -> dict[tuple[str, int, int, int], str]:
        found: dict[tuple[str, int, int, int], str] = {}
        if isinstance(self.path, Remote):
            for each in self.path.sizes():
                self._load(each.read_bytes(), found)
        elif self.path.is_file():
            self._load(self.path.read_bytes(), found)
        return found

    def known(self, image: str | os.PathLike[str]) -> str | None:
        """Pixel hash of an image file, if it is remembered."""
        key = self._key(image)
        return None if key is None else self._known.get(key)

    def hash_of(self, image: str | os.PathLike[str]) -> str:
        """Pixel hash of an image file; an `InputError` if it cannot be read."""
        key = self._key(image)
        if key is not None and key in self._known:
            return self._known[key]
        found = hash_pixels(load_image(image))
        if key is not None and key == self._key(image):
            self._remember(key, found)
        return found

    def flush(self) -> None:
        """Write what waits to be written to a URL."""
        content = "".join(self._waiting).encode()
        self._waiting.clear()
        if content and isinstance(self.path, Remote):
            with suppress(OSError, InputError):  # costs only the time to hash again
                (self.path / f"{hashlib.sha256(content).hexdigest()}.jsonl").write_bytes(content)

    @staticmethod
    def _key(image: str | os.PathLike[str]) -> tuple[str, int, int, int] | None:
        path = absolute(place(image))
        try:
            found = path.stat()
        except OSError:
            return None
        return path.as_posix(), found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _remember(self, key: tuple[str, int, int, int], found: str) -> None:
        self._known[key] = found
        if time.time_ns() - max(key[2:]) < _SETTLED_NS:
            return
        entry = json.dumps([*key, found])
        line = f"{zlib.crc32(entry.encode()):08x} {entry}\n"
        if is_remote(self.path):
            self._waiting.append(line)
            if len(self._waiting) >= _EACH:
                self.flush()
            return
        # A full disk or a read-only folder costs only the time to hash again.
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write((line if self._ends_well else "\n" + line).encode())
            self._ends_well = True

    def _load(self, content: bytes, known: dict[tuple[str, int, int, int], str]) -> None:
        self._ends_well = content.endswith(b"\n") or not content
        for line in content.split(b"\n"):
            check, _, entry = line.partition(b" ")
            if check == f"{zlib.crc32(entry):08x}".encode() and entry:
                name, size, mtime, ctime, found = json.loads(entry)
                known[name, size, mtime, ctime] = found
