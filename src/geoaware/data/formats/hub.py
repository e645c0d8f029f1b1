"""What every format is read into and written from: COCO's keypoint format, as a dictionary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from geoaware.data import fields
from geoaware.runs.errors import InputError, reason
from geoaware.runs.optional import require

ABSENT, HIDDEN, VISIBLE = 0, 1, 2
"""COCO's keypoint flags."""

ACCEPTED = "accepted"
"""The entry of every annotation that was reviewed: whether somebody has found it right."""

MARK = "geoaware transfer"
"""Stands before the mark of the run at the beginning of what was written, or of ``geoaware.json``."""

HDF5 = b"\x89HDF"

_MOST = 1 << 32

BOX_MARGIN = 0.1
"""Added on every side of the box around keypoints, as a share of its longer side, where no box is given."""

Entry = dict[str, Any]
Box = Sequence[float]
"""x, y, width, height."""


class Point(NamedTuple):
    """A keypoint of an object: its place, COCO's flag, and its probability, if known."""

    x: float
    y: float
    flag: int = VISIBLE
    score: float | None = None


class Head(NamedTuple):
    """How a file begins, as bytes and as text."""

    raw: bytes
    text: str


@dataclass
class Hub:
    """Collects what a reader finds.

    Attributes:
        path: the file or folder that was given.
        folder: of the images; `None`: nobody knows.
        notes: what was understood and what was not used, one sentence each.
    """

    path: Path
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)
    _images: dict[str, Entry] = field(default_factory=dict)
    _categories: dict[str, Entry] = field(default_factory=dict)
    _objects: list[tuple[Entry, Entry, Mapping[str, Point]]] = field(default_factory=list)

    def category(
        self,
        name: str,
        keypoints: Iterable[str] = (),
        skeleton: Sequence[Sequence[str]] = (),
        flip_pairs: Sequence[Sequence[str]] | None = None,
    ) -> Entry:
        """A category with at least these keypoints, in the order in which they first came."""
        new = {"id": len(self._categories) + 1, "name": name, "keypoints": {}}
        entry = self._categories.setdefault(name, new)
        entry["keypoints"].update(dict.fromkeys(keypoints))
        if skeleton:
            entry["skeleton"] = [list(each) for each in skeleton]
        if flip_pairs is not None:
            entry["flip_pairs"] = [list(each) for each in flip_pairs]
        return entry

    def image(self, name: str, size: tuple[Any, Any] = (None, None)) -> Entry:
        """An image, listed once."""
        named = zip(("width", "height"), size, strict=True)
        where = f"{self.path}: image {name!r}"
        sides = {key: fields.whole(each, f"{where}: {key}") for key, each in named if each is not None}
        new = {"id": len(self._images) + 1, "file_name": name, **sides}
        return self._images.setdefault(name, new)

    def add(
        self,
        image: Entry,
        category: str,
        points: Mapping[str, Point] | None = None,
        box: Box | None = None,
        score: float | None = None,
    ) -> None:
        """An object on an image."""
        points = points or {}
        kind = self.category(category, points)
        entry = {"id": len(self._objects) + 1, "image_id": image["id"], "category_id": kind["id"]}
        if score is not None:
            entry["score"] = score
        if box is not None:
            entry["bbox"] = list(box)
        self._objects.append((entry, kind, points))

    def content(self) -> Entry:
        """All of it in COCO's form."""
        for entry, kind, points in self._objects:
            if points:
                row = [points.get(each, Point(0, 0, ABSENT)) for each in kind["keypoints"]]
                entry["keypoints"] = [value for point in row for value in point[:3]]
                if any(each.score is not None for each in row):
                    entry["keypoint_scores"] = [each.score or 0.0 for each in row]
        return {
            "images": list(self._images.values()),
            "annotations": [entry for entry, _, _ in self._objects],
            "categories": [
                {**each, "keypoints": list(each["keypoints"])} for each in self._categories.values()
            ],
        }


@dataclass(frozen=True)
class Result:
    """What a writer is given.

    Attributes:
        categories: COCO's entries; skeletons count from 1, flip pairs from 0.
        images: makes an iterator of images with their annotations, in COCO's form.
        mark: of the run; stands at the file's beginning after `MARK`.
        folder: of the images.
        videos: file and number of frames of those that the images are of, by ``video`` in their entries.
    """

    categories: Sequence[Entry]
    images: Callable[[], Iterable[tuple[Entry, Sequence[Entry]]]]
    mark: str = ""
    folder: Path | None = None
    videos: Mapping[str, tuple[Path, int]] = field(default_factory=dict)

    def only(self, what: str) -> Entry:
        """The category, for formats that have one."""
        if len(self.categories) != 1:
            names = ", ".join(each["name"] for each in self.categories)
            raise InputError(f"{what} holds one category, and here are several ({names}); choose one", "to")
        return self.categories[0]

    def files(self, folder: Path, suffix: str, what: str) -> Iterator[tuple[Path, Entry, Sequence[Entry]]]:
        """Each image with a file of its own in a folder, named like the image, and its annotations.

        Raises:
            InputError: two images would share ``what``.
        """
        known: dict[PurePosixPath, str] = {}
        for image, objects in self.images():
            own = image["file_name"]
            name = inside(own).with_suffix(suffix)
            if known.setdefault(name, own) != own:
                raise InputError(f"{known[name]} and {own} would share {what}; rename one", "to")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            yield folder / name, image, objects

    def named(self, annotation: Entry) -> tuple[Entry, dict[str, Point]]:
        """Category of an annotation, and its keypoints that are there, by name."""
        category = next(each for each in self.categories if each["id"] == annotation["category_id"])
        values = annotation.get("keypoints") or []
        count = len(values) // 3
        scores = annotation.get("keypoint_scores") or [None] * count
        rows = zip(category["keypoints"], values[::3], values[1::3], values[2::3], scores, strict=False)
        return category, {name: Point(x, y, flag, score) for name, x, y, flag, score in rows if flag}


def skeleton_of(category: Entry) -> list[tuple[str, str]]:
    """The limbs of a category that counts them from 1, by name."""
    names = category["keypoints"]
    return [(names[a - 1], names[b - 1]) for a, b in category.get("skeleton") or ()]


def box_of(annotation: Entry, points: Mapping[str, Point]) -> list[float] | None:
    """The box of an object, given or around its keypoints."""
    box = annotation.get("bbox")
    if box is not None or not points:
        return box
    xs, ys = [each.x for each in points.values()], [each.y for each in points.values()]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mean_score(chances: Sequence[float], shown: Sequence[bool]) -> float:
    """The mean probability of what is shown."""
    seen = [*compress(chances, shown)]
    return round(math.fsum(seen) / len(seen), 4) if seen else 0.0


def box_around(points: Iterable[Sequence[float]], size: Sequence[int]) -> list[float]:
    """COCO's x, y, width, height around points in an image of this size, with `BOX_MARGIN`."""
    (x1, x2), (y1, y2) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    extra = BOX_MARGIN * max(x2 - x1, y2 - y1)
    left, top = max(0.0, x1 - extra), max(0.0, y1 - extra)
    right, bottom = min(float(size[0]), x2 + extra), min(float(size[1]), y2 + extra)
    return [round(each, 2) for each in (left, top, right - left, bottom - top)]


def inside(name: str) -> PurePosixPath:
    """The name of an image as a path that stays in the folder it is put into."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    kept = [each.replace(":", "") for each in parts if each not in ("/", "..")]
    return PurePosixPath(*kept) if kept else PurePosixPath("image")


def joined(*parts: str) -> str:
    """A name from names of folders and a file, as any system writes them, without needless ``..``."""
    kept: list[str] = []
    for each in PurePosixPath("/".join(filter(None, parts)).replace("\\", "/")).parts:
        if each == ".." and kept and kept[-1] not in ("..", "/"):
            kept.pop()
        else:
            kept.append(each)
    return str(PurePosixPath(*kept))


@contextmanager
def understanding(where: str, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while an entry is read into an error that names it.

    Raises:
        InputError: a value is missing or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{where}: is not as {what} writes it ({reason(error)})") from None


def hdf5_names(path: Path, head: Head) -> frozenset[str]:
    """What stands at the top of an HDF5 file; nothing if it is none.

    Raises:
        InputError: it is damaged.
    """
    if not head.raw.startswith(HDF5):
        return frozenset()
    with path.open("rb") as raw, hdf5(raw, path) as file:
        return frozenset(each for each in file if isinstance(each, str))  # damaged names are bytes


@contextmanager
def hdf5(raw: BinaryIO, path: Path) -> Iterator[Any]:
    """The content of an HDF5 file that is open.

    Raises:
        InputError: it is damaged.
    """
    h5py = require("h5py", "formats")
    try:
        with h5py.File(raw) as file:
            yield file
    except (OSError, RuntimeError) as error:  # as h5py calls what is damaged
        raise InputError(f"{path}: damaged, no valid HDF5 ({reason(error)}); export it again") from None


def whole(data: Any) -> Any:
    """The values of a data set of HDF5, which may stand for more than fits the memory.

    Raises:
        ValueError: it does.
    """
    if data.size * data.dtype.itemsize > _MOST:
        raise ValueError(f"a table of {data.size:,} rows")
    return data[()]
