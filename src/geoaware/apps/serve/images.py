"""The images that clients have sent: each client sees its own, for a while, and all take a bounded memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from geoaware.matcher import Matcher
from geoaware.method.alignment import CANDIDATES, Alignment
from geoaware.method.geometry import Pose
from geoaware.result import Encoded, MatchResult, check_points
from geoaware.runs.errors import InputError
from geoaware.runs.recent import Recent

_PAIRS = 10_000
"""So many pairs of images are remembered in which pose they match."""


class UnknownImageError(InputError):
    """No image of this client has the id."""


class FullError(RuntimeError):
    """The images of all clients take all the memory that they may."""


@dataclass(frozen=True)
class Bounds:
    """Of the images that are kept.

    Attributes:
        seconds: that an image is kept after it was last used.
        each: images of one client; the longest unused makes room.
        megabytes: of the files of all clients. One client has half of it at most.
        decoded_megabytes: of the features and pixels of all images. Those unused the longest go, and are made
            anew from their files.
    """

    seconds: float = 900
    each: int = 200
    megabytes: float = 500
    decoded_megabytes: float = 1000


@dataclass(eq=False)
class Held:
    """An image of a client: its file, and what was made of it."""

    id: str
    client: str
    content: bytes
    used: float
    encoded: Encoded | None


class Images:
    """Images by ids of 192 random bits. Methods may be called from any thread, `match` from one.

    Args:
        bounds: of what is kept.
        read: an image from its file.
        clock: in seconds.
    """

    def __init__(
        self,
        bounds: Bounds,
        read: Callable[[bytes], Image.Image],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds, self._read, self._clock = bounds, read, clock
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.RLock()
        # Pose and distances of pairs; only the thread that computes uses it.
        self._compared: Recent[tuple[str, str, str], tuple[Pose, Mapping[Pose, float]]] = Recent(
            _PAIRS, lambda _: 1
        )

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._held)

    @property
    def taken(self) -> int:
        """What files, pixels and features take in memory."""
        with self._lock:
            return sum(len(each.content) + _size(each.encoded) for each in self._held.values())

    def add(self, client: str, content: bytes, encoded: Encoded) -> Held:
        """Keep a file, and what was made of it, under a new id.

        Raises:
            FullError: others take all the room. What is this client's own makes room first.
        """
        one = Held(secrets.token_urlsafe(24), client, content, self._clock(), encoded)
        room = self._bounds.megabytes * 1_000_000
        with self._lock:
            self._expire()
            mine = [(id, each) for id, each in self._held.items() if each.client == client]
            taken = len(content) + sum(len(each.content) for _, each in mine)
            while mine and (len(mine) >= self._bounds.each or taken > room / 2):
                id, oldest = mine.pop(0)
                taken -= len(oldest.content)
                del self._held[id]
            if len(content) + sum(len(each.content) for each in self._held.values()) > room:
                raise FullError
            self._held[one.id] = one
            self._keep_within(one)
            return one

    def get(self, client: str, id: str) -> Held:
        """An image of the client's own.

        Raises:
            UnknownImageError: there is none, or not any more; what others have is not told apart from it.
        """
        with self._lock:
            self._expire()
            found = self._held.get(id)
            if found is None or found.client != client:
                raise UnknownImageError(
                    "there is no such image: it was never sent, it expired, or it made room; send it again"
                )
            found.used = self._clock()
            self._held.move_to_end(id)
            return found

    def remove(self, client: str, id: str) -> None:
        """Forget an image.

        Raises:
            UnknownImageError: as `get`.
        """
        with self._lock:
            self.get(client, id)
            del self._held[id]

    def expire(self) -> None:
        """Forget what nobody used for long."""
        with self._lock:
            self._expire()

    def _expire(self) -> None:
        oldest = self._clock() - self._bounds.seconds
        for id in [id for id, each in self._held.items() if each.used < oldest]:
            del self._held[id]

    def match(
        self, pair: tuple[Held, Held], points: Sequence[tuple[float, float]], pose: str, matcher: Matcher
    ) -> MatchResult:
        """Match points, with what is kept of the images.

        Raises:
            InputError: a point is not a number or lies outside the image.
        """
        setting = matcher.pose if pose == "auto" else pose
        here, there = (self._encoded(each, matcher) for each in pair)
        pixels = check_points(points, here.size)
        source = matcher.holding(here, pixels)
        if source is here:
            aligned = self._aligned(pair, setting, matcher)
        else:
            aligned = matcher.align(source, there, setting)
        # The result has maps of its own: of those of the image, poses that are not usual here do not stay.
        source = replace(source, maps={**source.maps, **aligned.maps})
        for other in here.maps.keys() - CANDIDATES[matcher.pose] - {"identity"}:
            del here.maps[other]
        self._keep_within(*pair)
        return matcher.match_aligned(source, there, pixels, setting, aligned)

    def _aligned(self, pair: tuple[Held, Held], setting: str, matcher: Matcher) -> Alignment:
        """The poses of a pair compared; this does not depend on the points, so it is done once."""
        here, there = (self._encoded(each, matcher) for each in pair)
        key = (pair[0].id, pair[1].id, setting)
        if key not in self._compared:
            aligned = matcher.align(here, there, setting)
            here.maps.update(aligned.maps)
            self._compared[key] = (aligned.pose, aligned.distances)
        pose, distances = self._compared[key]
        if pose not in here.maps:
            here.maps.update(matcher.posed(here, [pose]))
        return Alignment(pose, distances, dict(here.maps))

    def _encoded(self, held: Held, matcher: Matcher) -> Encoded:
        """An image with its features, which are computed where they are not there."""
        if held.encoded is None:
            held.encoded = matcher.encode(self._read(held.content))
        return held.encoded

    def _keep_within(self, *used: Held) -> None:
        """Let go what was made of files that were unused the longest."""
        with self._lock:
            over = sum(_size(each.encoded) for each in self._held.values())
            over -= round(self._bounds.decoded_megabytes * 1_000_000)
            for each in self._held.values():
                if over <= 0:
                    return
                if each not in used:
                    over -= _size(each.encoded)
                    each.encoded = None


def _size(encoded: Encoded | None) -> int:
    """Bytes of the pixels, four each, and of the features."""
    if encoded is None:
        return 0
    return 4 * encoded.size[0] * encoded.size[1] + sum(
        each.data.nbytes for each in list(encoded.maps.values())
    )
