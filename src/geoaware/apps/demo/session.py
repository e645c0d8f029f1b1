"""One visitor's images, points and matches: all that the demo does, without a page.

Example:
    >>> session = Session(load_matchers(DemoSettings()), Features("lite"))    # doctest: +SKIP
    >>> session.bring("source", load_image("cat1.jpg"))                       # doctest: +SKIP
    >>> session.bring("target", load_image("cat2.jpg"))                       # doctest: +SKIP
    >>> session.click(120, 85)                                                # doctest: +SKIP
    >>> session.rows()[0].match, session.distances                            # doctest: +SKIP
"""

from __future__ import annotations

import base64
import io
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from PIL import Image

from geoaware.drawing.heatmap import heat_layer
from geoaware.drawing.layout import fit, resized
from geoaware.drawing.palette import SERIES
from geoaware.matcher import Matcher
from geoaware.method.alignment import Alignment, match_posed
from geoaware.method.geometry import Pose, as_points
from geoaware.result import Encoded, MatchResult
from geoaware.runs.errors import InputError

Side = Literal["source", "target"]
Kind = Literal["json", "png"]
"""Of a file to download."""

NAMES: dict[Side, str] = {"source": "image A", "target": "image B"}

LONGEST = 1280
"""Pixels of the longer side of an image on the page; clicks and matches are in pixels of the original."""

MOST_POINTS = 60
"""On one image: more cannot be told apart, and the cost of a click stays bounded."""

SURE = (0.3, 0.1)
"""Least confidence and largest cycle error of a match that is not called one of low confidence."""

MOST_SESSIONS = 64
"""Held at once, if there is room for them."""

MOST_BYTES = 800_000_000
"""Images and features of all sessions; two images of 40 megapixels and their features take up to 350 MB."""


class Features(NamedTuple):
    """What is matched: names as `Matcher.from_pretrained` takes them."""

    extractor: str = "lite"
    post_processor: str = "auto"


@dataclass(frozen=True)
class Row:
    """One match as it is shown; positions in pixels of the two images."""

    number: int
    colour: str
    query: tuple[float, float]
    match: tuple[float, float]
    confidence: float
    cycle_error: float

    @property
    def low(self) -> bool:
        """Whether the match is one of low confidence: image B has several such places, or none."""
        return not (self.confidence >= SURE[0] and self.cycle_error <= SURE[1])


class Matchers:
    """The matchers that can be chosen: each loaded when first asked for, once, and shared by all visitors.

    Extractors and post-processors on offer are those of `Matcher.from_pretrained`. The lock ``network`` is
    held while a network runs: visitors take turns instead of slowing each other down.
    """

    def __init__(
        self, extractors: Sequence[str], post_processors: Sequence[str], load: Callable[[str, str], Matcher]
    ) -> None:
        self.extractors = tuple(dict.fromkeys(extractors))
        self.post_processors = tuple(dict.fromkeys(post_processors))
        self.network = threading.Lock()
        self._load = load
        self._loaded: dict[Features, Matcher] = {}
        self._loading = threading.Lock()

    def get(self, features: Features) -> Matcher:
        """The matcher of a choice.

        Raises:
            InputError: the choice is not on offer (a forged request could name any file), or extractor and
                post-processor do not go together.
        """
        for name, offered in zip(features, (self.extractors, self.post_processors), strict=True):
            if name not in offered:
                raise InputError(f"{name!r} is not on offer here; there are {', '.join(offered)}")
        with self._loading:
            if features not in self._loaded:
                self._loaded[features] = self._load(*features)
            return self._loaded[features]


@dataclass(frozen=True)
class Served:
    """Content of a media type that a browser may fetch under a token of 192 random bits."""

    data: bytes
    kind: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def of(cls, image: Image.Image) -> Served:
        """An image as a browser shows it: JPEG, at most 1280 pixels on its longer side."""
        small = resized(image, fit(image.size, LONGEST, LONGEST)) if max(image.size) > LONGEST else image
        file = io.BytesIO()
        small.save(file, "JPEG", quality=88)
        return cls(file.getvalue(), "image/jpeg")


@dataclass(eq=False)
class Shown:
    """An image of a visitor, upright RGB, and as a browser shows it, with its features by what made them."""

    image: Image.Image
    served: Served
    encoded: dict[Features, Encoded] = field(default_factory=dict)
    own: bool = True
    """Whether it is this visitor's alone; images that all visitors find on the page are not."""

    @classmethod
    def of(cls, image: Image.Image, own: bool = True) -> Shown:
        """An image, upright RGB."""
        return cls(image, Served.of(image), own=own)


@dataclass(frozen=True)
class Opening:
    """What a visitor finds on the page: two images, and points on the first.

    All visitors share the images, which are encoded once.
    """

    source: Shown
    target: Shown
    points: tuple[tuple[float, float], ...]


class Session:
    """What one visitor sees. Methods may be called from any thread; one that raises changes nothing.

    Attributes:
        features: chosen now.
        points: on the source image, pixels (x, y).
        chosen: index of the point whose heat map is shown; the last one clicked. ``None`` without points.
        heated: whether the heat map is shown.
        result: of the points; ``None`` until there are both images.
        lost: whether there was a session before it, which is no longer here.
        token: 192 random bits under which a browser asks for `peek`.
    """

    def __init__(self, matchers: Matchers, features: Features) -> None:
        self.features = features
        self.points: tuple[tuple[float, float], ...] = ()
        self.chosen: int | None = None
        self.heated = False
        self.result: MatchResult | None = None
        self.lost = False
        self.token = secrets.token_urlsafe(24)
        self._images: dict[Side, Shown] = {}
        self._opening: Opening | None = None
        self._aligning: bool | None = None
        self._compared: tuple[Encoded, Encoded, str, Alignment] | None = None
        self._heat: tuple[MatchResult, int, Served] | None = None
        self._download: Served | None = None
        self._matchers = matchers
        self._lock = threading.RLock()

    @property
    def aligned(self) -> bool:
        """Whether the source image is tried mirrored too; as measured for the features until it is set."""
        return self._pose_setting != "off"

    @property
    def distances(self) -> Mapping[Pose, float]:
        """Of the poses that were tried to the target; empty without alignment or images."""
        return {} if self.result is None else self.result.distances

    @property
    def pose(self) -> Pose | None:
        """How the source was turned; ``None`` until there are both images."""
        return None if self.result is None else self.result.pose

    @property
    def empty(self) -> bool:
        """Whether no image was brought yet."""
        return not any(each.own for each in self._images.values())

    @property
    def untouched(self) -> bool:
        """Whether it shows just what every visitor finds on the page."""
        opening = self._opening
        if opening is None or self.points != opening.points:
            return False
        return self._images == {"source": opening.source, "target": opening.target}

    @property
    def bytes(self) -> int:
        """What its own images, at four bytes a pixel, and their features take in memory."""
        shown = [each for each in list(self._images.values()) if each.own]
        encoded = [features for each in shown for features in list(each.encoded.values())]
        maps = {id(each): each.data.nbytes for features in encoded for each in list(features.maps.values())}
        return sum(maps.values()) + sum(4 * each.image.width * each.image.height for each in shown)

    def shown(self, side: Side) -> Shown | None:
        """The image of a side; ``None`` until one is brought."""
        return self._images.get(side)

    def open(self, opening: Opening) -> None:
        """Show what every visitor finds on the page, unless there is something on it already."""
        with self._changing():
            if not self._images:
                self._opening = opening
                self._images = {"source": opening.source, "target": opening.target}
                self.points, self.chosen = opening.points, 0 if opening.points else None

    def bring(self, side: Side, image: Image.Image) -> None:
        """Take an image, as `geoaware.data.images` reads it; a new source image starts without points."""
        with self._changing():
            self._images = {**self._images, side: Shown.of(image)}
            if side == "source":
                self.points, self.chosen = (), None

    def click(self, x: float, y: float) -> None:
        """Match one more point, given in pixels of the source image."""
        with self._changing():
            missing = [name for side, name in NAMES.items() if side not in self._images]
            if missing:
                raise InputError(f"Bring {' and '.join(missing)} first, then click a point on image A.")
            self._check_inside(x, y)
            if len(self.points) == MOST_POINTS:
                raise InputError(f"{MOST_POINTS} points are as many as there can be; clear or undo some.")
            self.points = (*self.points, (float(x), float(y)))
            self.chosen = len(self.points) - 1

    def move(self, index: int, x: float, y: float) -> None:
        """Put a point at another place of the source image, and choose it."""
        with self._changing():
            self._check_index(index)
            self._check_inside(x, y)
            self.points = (*self.points[:index], (float(x), float(y)), *self.points[index + 1 :])
            self.chosen = index

    def remove(self, index: int) -> None:
        """Take one point away; those after it move up."""
        with self._changing():
            self._check_index(index)
            self.points = (*self.points[:index], *self.points[index + 1 :])
            self.chosen = min(index, len(self.points) - 1) if self.points else None

    def choose(self, index: int) -> None:
        """Choose the point whose heat map is shown."""
        with self._lock:
            self._check_index(index)
            self.chosen = index

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self.points):
            raise InputError(f"There is no point {index + 1}; there are {len(self.points)}.")

    def _check_inside(self, x: float, y: float) -> None:
        """Make sure that a place lies in the source image, if there is one."""
        width, height = self._images["source"].image.size
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"({x:.0f}, {y:.0f}) lies outside image A, {width} x {height} pixels; click inside it."
            )

    def undo(self) -> None:
        """Take the last point away; without points nothing happens."""
        with self._changing():
            self.points = self.points[:-1]
            self.chosen = len(self.points) - 1 if self.points else None

    def clear(self) -> None:
        """Take all points away."""
        with self._changing():
            self.points, self.chosen = (), None

    def use(self, features: Features) -> None:
        """Match with other features from now on, the points that there are too."""
        with self._changing():
            self.features = features

    def align(self, wanted: bool) -> None:
        """Turn pose alignment on or off."""
        with self._changing():
            self._aligning = wanted

    def rows(self) -> list[Row]:
        """The matches in the order of the points; numbers start at 1."""
        with self._lock:
            found = self.result
        return [] if found is None else _rows(found)

    def heat(self) -> Served | None:
        """The heat map for the browser, drawn once; ``None`` unless it is to be shown and there is one."""
        with self._lock:
            found, chosen = self.result, self.chosen
            if not self.heated or found is None or chosen is None:
                return None
            if self._heat is None or self._heat[0] is not found or self._heat[1] != chosen:
                self._heat = (found, chosen, Served.of(found.heatmap(chosen)))
            return self._heat[2]

    def peek(self, x: float, y: float, heated: bool = False) -> dict[str, object]:
        """Where one more point would be matched, with nothing changed: what the pointer shows as it moves.

        Returns:
            position, confidence, whether that is low, and the colours of the heat map as an address of data;
            nothing where there is nothing to match, or where the part with an object was encoded alone and
            the point lies outside it.
        """
        with self._lock:
            found = self.result
        if found is None:
            return {}
        (width, height), pixels = found.source.size, as_points([(x, y)]).double()
        inside = 0 <= x < width and 0 <= y < height
        if not inside or not found.source.maps["identity"].canvas.holds(pixels).all():
            return {}
        target = found.target.maps["identity"]
        matches = match_posed(found.source.maps, target, pixels, found.pose, found.settings)
        one = replace(found, queries=pixels, matches=matches)
        row = _rows(one)[0]
        colours = ""
        if heated:
            file = io.BytesIO()
            heat_layer(one.similarity_map(0), target.canvas).save(file, "PNG", compress_level=1)
            colours = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        (x, y) = row.match
        return {"x": x, "y": y, "confidence": row.confidence, "low": row.low, "heat": colours}

    def rest(self) -> None:
        """Let the features go; `wake` computes them anew."""
        with self._lock:
            for each in self._images.values():
                if each.own:
                    each.encoded.clear()
            self.result, self._compared, self._heat = None, None, None

    def wake(self) -> None:
        """Match again after a rest; does nothing at other times."""
        with self._lock:
            if len(self._images) == 2 and self.result is None:
                with self._changing():
                    pass

    def download(self, kind: Kind) -> Served:
        """The matches as a file for the browser; the one before it can no longer be fetched.

        As JSON they are what `MatchResult.to_json` writes; drawn, they are numbered as on the page.

        Raises:
            InputError: there are none.
        """
        with self._lock:
            found = self.result
        if found is None or not len(found.points):
            raise InputError("There are no matches yet; click a point on image A.")
        if kind == "json":
            made = Served(found.to_json().encode(), "application/json")
        else:
            file = io.BytesIO()
            labels = [str(number + 1) for number in range(len(found.points))]
            found.draw(labels=labels).save(file, "PNG", compress_level=1)
            made = Served(file.getvalue(), "image/png")
        self._download = made
        return made

    def served(self, token: str) -> Served | None:
        """What this visitor may fetch under a token, if it is one of theirs."""
        heat = None if self._heat is None else self._heat[2]
        mine = [*(shown.served for shown in self._images.values()), heat, self._download]
        return next((each for each in mine if each is not None and each.token == token), None)

    @property
    def _pose_setting(self) -> str:
        """A key of `alignment.CANDIDATES`."""
        measured = self._matchers.get(self.features).pose
        if self._aligning and measured == "off":
            return "flip"
        return "off" if self._aligning is False else measured

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A change of state and the matching that follows from it: both are done, or neither."""
        with self._lock:
            before = dict(self.__dict__)
            try:
                yield
                self.result = self._matched()
            except BaseException:
                self.__dict__.update(before)
                raise

    def _matched(self) -> MatchResult | None:
        """Match all points: as fast as one, once the images are encoded and their poses compared."""
        matcher, setting = self._matchers.get(self.features), self._pose_setting
        with self._matchers.network:
            here, there = (self._encoded(side, matcher) for side in NAMES)
            if here is None or there is None:
                return None
            queries = as_points(self.points).double()
            here = self._images["source"].encoded[self.features] = matcher.holding(here, queries)
            found = self._alignment(matcher, here, there, setting)
        return matcher.match_aligned(here, there, queries, setting, found)

    def _alignment(self, matcher: Matcher, here: Encoded, there: Encoded, setting: str) -> Alignment:
        """The poses compared. This does not depend on the points, so it is kept for the next click."""
        kept = self._compared
        if kept is None or kept[0] is not here or kept[1] is not there or kept[2] != setting:
            found = matcher.align(here, there, setting)
            here.maps.update(found.maps)
            self._compared = kept = (here, there, setting, found)
        return kept[3]

    def _encoded(self, side: Side, matcher: Matcher) -> Encoded | None:
        shown = self._images.get(side)
        if shown is None:
            return None
        if self.features not in shown.encoded:
            encoded = matcher.encode(shown.image)
            # The matcher's own copy goes: the image is upright RGB already.
            shown.encoded[self.features] = replace(encoded, image=shown.image)
        return shown.encoded[self.features]


def _rows(found: MatchResult) -> list[Row]:
    columns = (found.queries, found.points, found.confidence, found.cycle_error)
    matches = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Row(index + 1, SERIES[index % len(SERIES)], (qx, qy), (x, y), confidence, cycle)
        for index, ((qx, qy), (x, y), confidence, cycle) in enumerate(matches)
    ]


class Sessions:
    """Everyone's session by the key of their browser tab; the longest unused go for want of room."""

    def __init__(
        self, make: Callable[[], Session], most: int = MOST_SESSIONS, most_bytes: int = MOST_BYTES
    ) -> None:
        self._make, self._most, self._most_bytes = make, most, most_bytes
        self._held: OrderedDict[str, Session] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, key: str) -> Session:
        """The session of a key, made when it is new."""
        with self.using(key) as session:
            return session

    @contextmanager
    def using(self, key: str, new: bool = False) -> Iterator[Session]:
        """The session of a key while something is done with it; then the longest unused make room.

        Where ``new`` is not said, and there is no session, an earlier one was let go, or the server started
        anew: it is ``lost``.
        """
        with self._lock:
            if key not in self._held:
                self._held[key] = self._make()
                self._held[key].lost = not new
            session = self._held[key]
            self._used(key, 1)
        try:
            session.wake()
            yield session
        finally:
            with self._lock:
                self._used(key, -1)

    def _used(self, key: str, more: int) -> None:
        self._busy[key] += more
        if not self._busy[key]:
            del self._busy[key]
        if key in self._held:
            self._held.move_to_end(key)
        # Tabs that nobody has put an image into go before any work is lost.
        idle = [each for each in self._held if each != key and each not in self._busy]
        idle.sort(key=lambda each: not self._held[each].empty)
        for each in idle[: max(0, len(self._held) - self._most)]:
            del self._held[each]
        self._make_room([each for each in self._held if each in idle])

    def _make_room(self, idle: Sequence[str]) -> None:
        """Keep within the bytes: features go first, which can be computed anew, and then images."""
        steps: tuple[Callable[[str], object], ...] = (lambda each: self._held[each].rest(), self._held.pop)
        for step in steps:
            for each in idle:
                if sum(each.bytes for each in self._held.values()) <= self._most_bytes:
                    return
                step(each)

    def at(self, token: str) -> str | None:
        """The key of the session whose own token this is."""
        with self._lock:
            return next((key for key, each in self._held.items() if each.token == token), None)

    def served(self, token: str) -> Served | None:
        """What lies under a token, whoever's it is: to know the token is to be let in."""
        with self._lock:
            held = list(self._held.values())
        return next((found for each in held if (found := each.served(token)) is not None), None)

    def drop(self, key: str) -> None:
        """Forget a session, if there is one: its tab was closed."""
        with self._lock:
            self._held.pop(key, None)
