"""What every loader hands back, and the steps that all of them share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from geoaware.data import fields
from geoaware.data.exif import INVERSE, Exif, turned_box, turned_points, turned_size
from geoaware.data.images import Frame, image_frame
from geoaware.data.names import FileNames, missing_files
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Box, Keypoints, Pair
from geoaware.runs.errors import InputError

ThresholdBase = Literal["box", "image", "keypoints"]

LEFT_OUT, NO_SUBGROUPS, DOUBTFUL = "left out", "no subgroups", "doubtful"
"""How the notes begin that say what is missing, or what can hardly be meant."""

OUTSIDE = "keypoints outside their image"
FLAT = f"{LEFT_OUT}: boxes without extent, which count as none"
CLIPPED = "keypoints just outside their image, moved to its edge"

FAR = f"{DOUBTFUL}: boxes that lie mostly outside their image"
SHARES = f"{DOUBTFUL}: objects whose keypoints all lie within 0…1, though they must be in pixels"
TURNED = (
    "images that EXIF turns, and no size tells of which pixels their points are; they are read as of the "
    "upright image (else exif=stored)"
)
PADDING = "points of -1 -1, 0 0, NaN or nothing, which count as not annotated"
NOTHING_IN_COMMON = "pairs with too few common keypoints"


@dataclass(frozen=True)
class DataSet:
    """Pairs of one split with the meaning of their keypoints; no image file is open.

    Attributes:
        name: of the data set, as in `data.LOADERS`.
        split: of the data set.
        schemas: by category, for every category of a pair and of an image.
        pairs: in a fixed order that does not depend on the machine.
        threshold_base: what the size of the PCK threshold is usually taken from in this data set.
        notes: what a user should know (what was inferred, chosen or left out), one sentence each.
        left_out: how many things of each kind the files hold but the pairs do not.
    """

    name: str
    split: str
    schemas: Mapping[str, Schema]
    pairs: Sequence[Pair]
    threshold_base: ThresholdBase
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def images(self) -> tuple[AnnotatedImage, ...]:
        """Every image of the pairs once, in the order of first appearance."""
        found: dict[str, AnnotatedImage] = {}
        for pair in self.pairs:
            found.setdefault(pair.source.id, pair.source)
            found.setdefault(pair.target.id, pair.target)
        return tuple(found.values())

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories under which pairs are counted, in alphabetical order."""
        return tuple(sorted({pair.category for pair in self.pairs}))

    def schema(self, pair: Pair) -> Schema:
        """What the pair's keypoints mean."""
        return self.schemas[pair.category]


def assemble(
    name: str,
    split: str,
    schemas: Mapping[str, Schema],
    pairs: Sequence[Pair],
    threshold_base: ThresholdBase,
    notes: Iterable[str] = (),
    annotations: Annotations | None = None,
    min_common: int = 1,
) -> DataSet:
    """Finish a `DataSet`: drop pairs that cannot be scored, count what is left out, look for the files.

    ``annotations`` made the images, and knows what was left out of them.

    Raises:
        InputError: no pair is left, two have the same id, a keypoint is unknown, or image files are missing.
    """
    where = f"{name}, split {split!r}"
    if not pairs:
        raise InputError(f"{where}: has no pairs; check the root and the options")
    (pair_id, times), *_ = Counter(pair.id for pair in pairs).most_common(1)
    if times > 1:
        raise InputError(f"{where}: {times} pairs have the id {pair_id!r}; ids must differ")
    kept = with_common(pairs, min_common)
    if not kept:
        raise InputError(
            f"{where}: none of {len(pairs)} pairs has {min_common} keypoints visible in both images; check "
            "the annotations"
        )
    read = annotations or Annotations()
    outside = read.outside
    # Each kind of thing that is left out: how many there are, and an example of it.
    counted = [
        (OUTSIDE, len(outside), outside[0] if outside else ""),
        (NOTHING_IN_COMMON, len(pairs) - len(kept), f"fewer than {min_common}"),
    ]
    said = read.notes()
    said += [f"{LEFT_OUT}: {count} {what} ({example})" for what, count, example in counted if count]
    without = sorted({pair.category for pair in kept if not schemas[pair.category].subgroups})
    if without:
        said.append(f"{NO_SUBGROUPS}, so no geometry-aware keypoints: {shortened(without)}")
    left_out = {what: count for what, count, _ in counted if count}
    made = DataSet(name, split, dict(schemas), tuple(kept), threshold_base, (*notes, *said), left_out)
    _require_known(made.images, schemas)
    require_files(made.images)
    return made


def _require_known(images: Iterable[AnnotatedImage], schemas: Mapping[str, Schema]) -> None:
    """Make sure that the schemas know the ids of all keypoints, unless the points are no parts."""
    for image in images:
        count, ids = len(schemas[image.category]), image.keypoints.ids
        wrong = [each for each in (ids[0], ids[-1]) if not 0 <= each < count] if ids and count else []
        if wrong:
            raise InputError(
                f"{image.path}: keypoint {wrong[0]} is none of {image.category!r}, which has 0 … {count - 1}"
                "; mend the annotation, or fetch it again"
            )


def with_keypoints(data: DataSet, names: Sequence[str]) -> DataSet:
    """The data set with only the named keypoints visible; ids, boxes and the meaning of keypoints stay.

    Whatever follows from visible keypoints follows from the named ones then: common and geometry-aware
    keypoints, and thresholds taken from the box around them. Pairs left without a common keypoint go.
    Names are those of the schemas, of any category.

    Raises:
        InputError: no name is given, no category has a keypoint of one of the names, or no pair is left.
    """
    where = f"{data.name}, split {data.split}"
    known = list(dict.fromkeys(str(name) for schema in data.schemas.values() for name in schema.names))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"there is no keypoint {unknown[0]!r}" if unknown else "no keypoint is named"
        raise InputError(f"{where}: {what}; its keypoints: {', '.join(known)}")
    # Images are shared between pairs, and stay so.
    images = {id(image): image for pair in data.pairs for image in (pair.source, pair.target)}
    kept = {}
    for key, image in images.items():
        points, named = image.keypoints, dict(enumerate(data.schemas[image.category].names))
        among = torch.tensor([named.get(each) in names for each in points.ids], dtype=torch.bool)
        kept[key] = replace(image, keypoints=replace(points, visible=points.visible & among))
    pairs = [replace(each, source=kept[id(each.source)], target=kept[id(each.target)]) for each in data.pairs]
    remaining = with_common(pairs)
    if not remaining:
        raise InputError(
            f"{where}: none of {len(pairs)} pairs shows one of the keypoints {shortened(names)} in both "
            "images; name others"
        )
    note = f"restricted to the keypoints {', '.join(names)}: {len(remaining)} of {len(pairs)} pairs show one"
    return replace(data, pairs=tuple(remaining), notes=(*data.notes, note))


def with_common(pairs: Sequence[Pair], min_common: int = 1) -> list[Pair]:
    """Pairs whose images show at least ``min_common`` keypoints in common, in their order."""
    return [
        pair
        for pair in pairs
        if (in_common(pair.source, pair.target) if pair.answers is None else len(pair.common_ids))
        >= min_common
    ]


def in_common(source: AnnotatedImage, target: AnnotatedImage) -> int:
    """How many keypoints are visible in both images."""
    return (source.keypoints.bits & target.keypoints.bits).bit_count()


def grouped(data: DataSet, by_schema: bool, min_visible: int) -> list[list[AnnotatedImage]]:
    """Images with so many visible keypoints, by their category or by the names of their keypoints."""
    found: dict[object, list[AnnotatedImage]] = {}
    for image in data.images:
        if len(image.keypoints.visible_ids) >= min_visible:
            key = tuple(data.schemas[image.category].names) if by_schema else image.category
            found.setdefault(key, []).append(image)
    return list(found.values())


def shortened(names: Sequence[str], shown: int = 6) -> str:
    """Names in a row, the first few and the number of the others."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def require_files(images: Sequence[AnnotatedImage]) -> None:
    """Make sure that the image files exist, without opening them."""
    missing = missing_files([image.path for image in images])
    if missing:
        raise InputError(
            f"{missing[0]}: no such image ({len(missing)} of {len(images)} images are missing); "
            "complete the data set, or give the right root"
        )


@dataclass(frozen=True)
class Annotations:
    """Makes every image of a data set from what its files say of it, and notes what is left out.

    Attributes:
        exif: of which pixels points, boxes, masks and sizes are.
        slack: keypoints that lie at most so many pixels outside their image are moved to its edge.
        outside: a line for every keypoint outside its image.
        noted: where something of a kind was found, by what is to be said of the kind.
        said: other notes, whole sentences.
        folders: the files of each folder that images were looked for in.
        frames: what was read from the headers of images.
    """

    exif: Exif = "upright"
    slack: float = 0.0
    outside: list[str] = field(default_factory=list)
    noted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    said: list[str] = field(default_factory=list)
    folders: dict[Path, FileNames] = field(default_factory=dict)
    frames: dict[Path, Frame] = field(default_factory=dict)

    def file(self, folder: Path, name: str) -> Path:
        """The file in a folder that an annotation names, spelled as it may be."""
        return self.folders.setdefault(folder, FileNames(folder)).path(name)

    def optional(self, folder: Path, name: str) -> Path | None:
        """As `file`; ``None`` where there is none."""
        path = self.file(folder, name)
        return path if self.folders[folder].has(path.name) else None

    def image(
        self,
        id: str,
        path: Path,
        category: str,
        points: Mapping[int, Any],
        size: tuple[int, int] | None = None,
        where: str = "",
        box: Any = None,
        **others: Any,
    ) -> AnnotatedImage:
        """An image with the places of its keypoints, by id.

        The size is read from the file where none is given. Messages call the image ``where``, else its path.
        """
        where, orientation = where or str(path), 1
        if size is None or self.exif == "stored":
            known, (upright, orientation) = path in self.frames, self._frame(path)
            size = size or turned_size(upright, INVERSE[orientation])
            if self.exif == "upright":
                self.noted[TURNED] += [str(path)] if orientation > 1 and not known else []
                size, orientation = upright, 1
        if self.slack:
            points = {number: self._moved(place, size, where) for number, place in points.items()}
        keypoints, corners = make_keypoints(points, size, where, self.outside), self._box(box, size, where)
        if fields.shares(keypoints.xy[keypoints.visible].flatten().tolist(), size):
            self.noted[SHARES].append(where)
        if orientation > 1:
            xy = turned_points(keypoints.xy, size, orientation).clamp(min=0)
            keypoints = replace(keypoints, xy=xy)
            corners = None if corners is None else turned_box(corners, size, orientation)
            others, size = {**others, "orientation": orientation}, turned_size(size, orientation)
        return AnnotatedImage(id, path, size, category, keypoints, corners, **others)

    def _moved(self, place: Any, size: tuple[int, int], where: str) -> Any:
        """A keypoint's place; at the image's edge if it lies just outside."""
        if not isinstance(place, tuple):
            return place
        inside = tuple(min(max(each, 0.0), float(most)) for each, most in zip(place, size, strict=True))
        if inside == place or max(abs(a - b) for a, b in zip(inside, place, strict=True)) > self.slack:
            return place
        self.noted[CLIPPED].append(where)
        return inside

    def _frame(self, path: Path) -> Frame:
        """Size and orientation of an image file, read once."""
        if path not in self.frames:
            self.frames[path] = image_frame(path)
        return self.frames[path]

    def listed(self, points: Sequence[Any], where: str) -> dict[int, Any]:
        """The points of a list by their places in it; those that only keep a place become ``None``."""
        empty = [fields.padding(each) for each in points]
        self.noted[PADDING] += [where] * sum(empty)
        return {number: None if empty[number] else point for number, point in enumerate(points)}

    def notes(self) -> list[str]:
        """What was found: how many of each kind, with the first place."""
        counted = []
        for kind, places in self.noted.items():
            label, colon, what = kind.rpartition(": ")
            if places:
                counted.append(f"{label}{colon}{len(places)} {what} ({places[0]})")
        spelled = (note for each in self.folders.values() for note in each.notes())
        return [*self.said, *spelled, *counted]

    def _box(self, given: Any, size: tuple[int, int], where: str) -> Box | None:
        box = make_box(given, where)
        if box is None and not fields.missing(given):
            self.noted[FLAT].append(where)
        if box is not None:
            x1, y1, x2, y2 = box
            inside = max(min(x2, size[0]) - max(x1, 0), 0) * max(min(y2, size[1]) - max(y1, 0), 0)
            if 2 * inside < (x2 - x1) * (y2 - y1):
                corners = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
                self.noted[FAR].append(f"{where}: box ({corners}), image {size[0]}x{size[1]}")
        return box


def usual_base(boxes: Sequence[tuple[str, Box | None]]) -> tuple[ThresholdBase, list[str]]:
    """What thresholds are taken from, and what is to be said, by the boxes of objects with their names.

    That is the box where at least half of the objects have one; the others cannot be targets then.
    """
    without, total = [name for name, box in boxes if box is None], len(boxes)
    if not without or len(without) == total:
        return ("image" if without else "box"), []
    if 2 * len(without) > total:
        some = total - len(without)
        return "image", [f"only {some} of {total} objects have a box, so thresholds are taken from the image"]
    what = f"{len(without)} of {total} objects as targets, because they have no box ({without[0]})"
    return "box", [f"{LEFT_OUT}: {what}; a protocol by image or keypoints uses them"]


def keypoint_counts(images: Iterable[AnnotatedImage]) -> dict[str, int]:
    """The most keypoints of an image, by category."""
    counts: dict[str, int] = {}
    for image in images:
        counts[image.category] = max(counts.get(image.category, 0), len(image.keypoints))
    return counts


def make_keypoints(
    points: Mapping[int, Any], size: tuple[int, int], where: str, outside: list[str]
) -> Keypoints:
    """Keypoints from annotated places x, y by id, ids rising; ``None`` where nothing is annotated.

    A place outside the image counts as not annotated, and ``outside`` takes a line about it. The image's edge
    belongs to it, up to and including x = width and y = height: some data sets count pixels from 1.

    Raises:
        InputError: a place is not two finite numbers.
    """
    ids = tuple(sorted(points))
    rows, visible = [], []
    for each in ids:
        place = points[each]
        if place is None or isinstance(place, tuple):  # a reader has checked the numbers of a tuple
            x, y = place or (0.0, 0.0)
        else:
            x, y = fields.numbers(place, f"{where}: keypoint {each}", 2, "two numbers x, y")
        inside = 0 <= x <= size[0] and 0 <= y <= size[1]
        if not inside:
            outside.append(f"{where}: keypoint {each} at ({x:g}, {y:g}), image {size[0]}x{size[1]}")
        rows.append((x, y))
        visible.append(place is not None and inside)
    xy = torch.tensor(rows, dtype=torch.float64).reshape(len(ids), 2)
    return Keypoints(ids, xy, torch.tensor(visible, dtype=torch.bool))


def make_box(values: Any, where: str) -> Box | None:
    """A box (x1, y1, x2, y2) from four numbers, or ``None`` where nothing is given or it has no extent."""
    if fields.missing(values):
        return None
    x1, y1, x2, y2 = map(float, fields.numbers(values, f"{where}: box", 4))
    if x2 < x1 or y2 < y1:
        raise InputError(f"{where}: box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no extent; corners x1 y1 x2 y2")
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def azimuth_difference(source: AnnotatedImage, target: AnnotatedImage) -> int | None:
    """Steps of 45 degrees, 0 to 4, between two ``azimuth_id`` (0 … 7); ``None`` where one is missing."""
    found = []
    for image in (source, target):
        given, where = image.attributes.get("azimuth_id"), f"{image.path}: annotation {image.id}: azimuth_id"
        if fields.missing(given):
            return None
        found.append(fields.whole(given, where))
        if found[-1] not in range(8):
            raise InputError(f"{where} is {found[-1]}; expected 0 … 7, steps of 45 degrees")
    apart = abs(found[0] - found[1])
    return min(apart, 8 - apart)


def require_folders(root: Path, names: Sequence[str], data_set: str) -> None:
    """Make sure that a root has the folders of its data set; the error names a folder below that has them."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of {data_set} as root")
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        inner = [each for each in sorted(root.iterdir()) if all((each / name).is_dir() for name in names)]
        remedy = f"perhaps give {inner[0]}" if inner else "give the folder that holds it"
        raise InputError(f"{root}: is not the root of {data_set}, no folder {missing[0]!r} in it; {remedy}")


def files_by_folder(
    folder: Path, chosen: Sequence[str] | None, pattern: str, noun: str, absent: str
) -> list[Path]:
    """Files in the folders of a folder, or in the chosen ones, by folder and name; at least one.

    Args:
        folder: holds a folder for each class of objects.
        chosen: names of these.
        pattern: of the files.
        noun: what a class is called.
        absent: what a message says if there is no file.
    """
    classes = chosen or sorted(each.name for each in folder.iterdir() if each.is_dir())
    unknown = [each for each in classes if not (folder / each).is_dir()]
    if unknown:
        raise InputError(f"{folder}: has no {noun} {unknown[0]!r}")
    found = [path for each in classes for path in sorted((folder / each).glob(pattern))]
    if not found:
        raise InputError(f"{folder}: {absent}")
    return found


SPLITS = ("trn", "val", "test")
ALIASES: Mapping[str, str] = {"train": "trn"}


def choose_split(
    split: str, splits: Sequence[str], data_set: str, aliases: Mapping[str, str] = ALIASES
) -> str:
    """The data set's own name of a split."""
    chosen = aliases.get(split, split)
    if chosen not in splits:
        raise InputError(f"{data_set} has no split {split!r}; choose {', '.join(splits)}")
    return chosen
