"""Images and thumbnails as JPEG, made when a page asks for them and held while there is room."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from PIL import Image

from geoaware.data.images import image_frame, load_framed, load_reduced
from geoaware.drawing.layout import fit, resized

LONGEST = 2560
"""Pixels of the longer side of an image on the page; places are in pixels of the original."""

SMALL = 160
"""The same of a thumbnail."""

MOST_BYTES = 64_000_000
"""Of all JPEGs that are held."""

_MARGIN = 0.15
"""Around the object on a thumbnail, as a share of its box's longer side."""

_AT_ONCE = 2
"""Images that are decoded at the same time: each may take hundreds of megabytes meanwhile."""


class Pictures:
    """JPEGs by what is shown; the longest unused go for want of room."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self.bytes = most_bytes, 0
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock, self._turn = threading.Lock(), threading.Semaphore(_AT_ONCE)

    def get(self, key: Hashable, make: Callable[[], Image.Image]) -> bytes:
        """The JPEG of a key, made if it is not held."""
        held = self._look(key)
        if held is None:
            with self._turn:
                held = self._look(key) or self._keep(key, make())
        return held

    def _look(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def _keep(self, key: Hashable, image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88)
        made = file.getvalue()
        with self._lock:
            self.bytes += len(made) - len(self._held.pop(key, b""))
            self._held[key] = made
            while self.bytes > self._most and len(self._held) > 1:
                self.bytes -= len(self._held.popitem(last=False)[1])
        return made


def large(path: Path) -> Image.Image:
    """An image as the page shows it, upright."""
    return _within(load_framed(path)[0], LONGEST)


def small(path: Path, box: Sequence[float] | None) -> Image.Image:
    """A thumbnail of the object in a box x, y, width, height of the upright image; without one, of all."""
    whole = max(image_frame(path).size)
    longest = SMALL if box is None else round(min(SMALL * whole / max(*box[2:], 1), whole))
    image, frame = load_reduced(path, longest)
    if box is not None:
        share = image.width / frame.size[0]
        x, y, width, height = (each * share for each in box)
        more = _MARGIN * max(width, height)
        left, top = max(0, int(x - more)), max(0, int(y - more))
        right, bottom = min(image.width, int(x + width + more)), min(image.height, int(y + height + more))
        if right > left and bottom > top:
            image = image.crop((left, top, right, bottom))
    return _within(image, SMALL)


def _within(image: Image.Image, longest: int) -> Image.Image:
    return resized(image, fit(image.size, longest, longest)) if max(image.size) > longest else image
