"""A result in review: its objects, the least confident first, and the file that every change is saved to."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from geoaware.apps.review.edits import Entry, Point, confidence, corrected, points_of
from geoaware.apps.review.suggest import doubt, suggest
from geoaware.data import fields, formats
from geoaware.data.coco_file import CocoFile, check_coco, read_schemas
from geoaware.data.exif import INVERSE, Exif, check_exif, turned_points, turned_size
from geoaware.data.files import read_json
from geoaware.data.formats.coco import image_folder
from geoaware.data.formats.hub import ACCEPTED
from geoaware.data.images import Frame, image_frame
from geoaware.data.names import FileNames, alike, missing_files
from geoaware.method.keypoints import Schema
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_apart, check_goals, locked, replacing
from geoaware.runs.tables import is_table

DESCRIPTION = "Keypoints reviewed with geoaware review"
OF = "reviewed"
"""The entry of ``info`` that says what a review is of: name and hash of the file."""

_WANTED = "a COCO keypoints file"


@dataclass(frozen=True)
class Target:
    """An object to look at.

    Attributes:
        place: in the list of annotations.
        image: its entry.
        path: of the image.
        category: by its id.
        given: the annotation before the review.
        several: whether the image shows other objects too.
    """

    place: int
    image: Entry
    path: Path
    category: int
    given: Entry
    several: bool = False

    @property
    def image_name(self) -> str:
        """As the file has it."""
        return str(self.image["file_name"])

    @property
    def name(self) -> str:
        """Of the image, with the annotation's id where it shows several objects."""
        return f"{self.image_name}#{self.given['id']}" if self.several else self.image_name


class _Content(NamedTuple):
    """All entries of a file in COCO's form, and the hash by which it is known again."""

    entries: Entry
    digest: str


class StaleError(InputError):
    """A change was made to an object that has changed meanwhile, in another tab say."""


class Review:
    """The objects of a file and what became of them. Methods may be called from any thread.

    Attributes:
        targets: the least confident first.
        folder: of the images.
        out: where every change is saved.
        schemas: of the categories, by their ids.
        notes: what was understood of the file and what was not used, one sentence each.
        exif: of which pixels the file's points are.
    """

    def __init__(self, file: CocoFile, read: _Content, folder: Path, out: Path, exif: Exif) -> None:
        schemas, _ = read_schemas(file)
        self.folder, self.out, self.exif = folder, out, exif
        self.notes = file.notes
        self.schemas: dict[int, Schema] = {
            number: schemas[each["name"]] for number, each in file.categories.items()
        }
        paths = _paths(file, folder)
        given = [{**each, ACCEPTED: each.get(ACCEPTED) is True} for each in file.annotations]
        ordered = sorted(enumerate(given), key=lambda pair: (_order(pair[1]), pair[0]))
        count = Counter(each["image_id"] for each in given)
        self.targets = tuple(
            Target(
                place,
                file.images[each["image_id"]],
                paths[each["image_id"]],
                each["category_id"],
                each,
                count[each["image_id"]] > 1,
            )
            for place, each in ordered
        )
        self._lock = threading.Lock()
        self._now: list[dict[str, Any]] = given
        self._changes = [0] * len(given)
        self._about = {"file": file.path.name, "sha256": read.digest}
        self._head, self._tail = _frame_of(file, read.entries, self._about)
        self._lines = [_line(each, f"{file.path}: annotation {each['id']}") for each in given]

    def annotation(self, number: int) -> dict[str, Any]:
        """As it now is."""
        return self._now[self.targets[number].place]

    def revision(self, number: int) -> int:
        """How often an object was changed since the file was opened."""
        return self._changes[self.targets[number].place]

    def frame(self, number: int) -> Frame:
        """Size and orientation of an object's image.

        Raises:
            InputError: the image cannot be read, or is not of the size that the file says.
        """
        target = self.targets[number]
        frame = image_frame(target.path)
        own = frame.size if self.exif == "upright" else turned_size(frame.size, INVERSE[frame.orientation])
        said = fields.size(target.image.get("width"), target.image.get("height"), target.image_name)
        if said is not None and tuple(said) != tuple(own):
            has, wanted = (f"{width}x{height}" for width, height in (own, said))
            raise InputError(
                f"{target.image_name}: has {has} pixels, its annotation is for {wanted}; give the image as "
                "it was annotated, or review with other pixels if EXIF turns it",
                parameter="exif",
            )
        return frame

    def places(self, points: Sequence[Point], frame: Frame, back: bool = False) -> list[Point]:
        """Points of the file on the upright image or, ``back``, the other way."""
        if self.exif == "upright" or frame.orientation == 1:
            return list(points)
        turn, size = frame.orientation, turned_size(frame.size, INVERSE[frame.orientation])
        if back:
            turn, size = INVERSE[turn], frame.size
        xy = torch.tensor([each[:2] for each in points], dtype=torch.float64).reshape(-1, 2)
        turned = turned_points(xy, size, turn).tolist()
        return [
            (round(x, 2), round(y, 2), each[2]) if each[2] else each
            for (x, y), each in zip(turned, points, strict=True)
        ]

    def guesses(self, number: int) -> list[Point]:
        """Where each keypoint was found or is likeliest; flag 0 where nobody knows."""
        given = self.targets[number].given
        guesses, found = given.get("guesses"), points_of(given)
        if not isinstance(guesses, list) or len(guesses) != len(found):
            return found
        return [
            own if own[2] or not (fields.are_numbers(guess) and len(guess) >= 2) else (guess[0], guess[1], 1)
            for own, guess in zip(found, guesses, strict=True)
        ]

    def change(self, number: int, points: Sequence[Point] | None, accepted: bool, revision: int) -> int:
        """Give an object other keypoints, or its old ones with ``None``, and save the file; the new revision.

        Raises:
            StaleError: the object has changed since ``revision``.
            InputError: the file cannot be written; then nothing has changed.
        """
        place, given = self.targets[number].place, self.targets[number].given
        with self._lock:
            if revision != self._changes[place]:
                raise StaleError("this object was changed in another tab; it is shown as it is now")
            before = self._now[place], self._lines[place]
            made = dict(self._now[place]) if points is None else corrected(given, points, self._size(number))
            made[ACCEPTED] = accepted
            self._now[place], self._lines[place] = made, _line(made, "the annotation")
            try:
                self._save()
            except BaseException:
                self._now[place], self._lines[place] = before
                raise
            self._changes[place] += 1
            return self._changes[place]

    def accepted(self) -> list[bool]:
        """Which objects are found right, in the order of the targets."""
        return [bool(self._now[each.place][ACCEPTED]) for each in self.targets]

    def suggested(self, count: int = 10) -> list[int]:
        """The numbers of the targets to annotate next, of those that are not accepted."""
        left = [number for number, done in enumerate(self.accepted()) if not done]
        return [left[each] for each in suggest([doubt(self.targets[each].given) for each in left], count)]

    def go_on(self) -> int:
        """Take over what an earlier review has saved; how many objects are accepted.

        Raises:
            InputError: what is there is no review, or of another file, or damaged.
        """
        if not self.out.exists():
            return 0
        content = read_json(self.out, "a review")
        info = content.get("info") if isinstance(content, dict) else None
        about = info.get(OF) if isinstance(info, dict) else None
        if not isinstance(about, dict):
            raise InputError(
                f"{self.out}: exists and was not written by geoaware review; choose another file", "out"
            )
        if about != self._about:
            is_now = "has changed since" if about.get("file") == self._about["file"] else "is another file"
            raise InputError(
                f"{self.out}: is a review of {about.get('file')}, which {is_now}; choose another file", "out"
            )
        saved = check_coco(self.out, formats.Read(content)).annotations
        if [each["id"] for each in saved] != [each["id"] for each in self._now]:
            raise InputError(
                f"{self.out}: has other annotations than the file it is of; choose another file", "out"
            )
        self._now = [{**each, ACCEPTED: each.get(ACCEPTED) is True} for each in saved]
        self._lines = [_line(each, str(self.out)) for each in self._now]
        return sum(self.accepted())

    def _size(self, number: int) -> tuple[int, int]:
        """Of the image, in the pixels that the file's points are of."""
        frame = self.frame(number)
        return frame.size if self.exif == "upright" else turned_size(frame.size, INVERSE[frame.orientation])

    def _save(self) -> None:
        with replacing(self.out) as draft:
            draft.write_text(self._head + ",\n".join(self._lines) + self._tail, encoding="ascii")


@contextmanager
def opened(
    path: Path, images: Path | None = None, out: Path | None = None, exif: str = "upright", alone: bool = True
) -> Iterator[Review]:
    """A file to be reviewed, as far as an earlier review has come; nobody else can review it meanwhile.

    Not ``alone``, it is only looked at.

    Args:
        path: a result of `transfer`, or annotations of any format.
        images: their folder; where exporters put it, if not given.
        out: where every change is saved; ``NAME.reviewed.json`` beside ``path`` if not given.
        exif: ``"stored"``: points and boxes are of the pixels as stored, not as turned by EXIF.

    Raises:
        InputError: there is nothing to review, images are missing, or ``out`` is something else or in use.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file{alike(path)}; give what geoaware transfer wrote")
    if is_table(path):
        raise InputError(f"{path}: is a table; review a result in COCO's form (NAME.json)")
    goal = out or path.parent / f"{path.name.split('.')[0] if path.is_dir() else path.stem}.reviewed.json"
    check_goals(goal)
    check_apart([goal], [path])
    read = formats.read(path, _WANTED)
    _refuse_review(path, read.content, out)
    whole = json.dumps(read.content, sort_keys=True, default=str)
    file = check_coco(path, read)
    if not file.annotations:
        raise InputError(f"{path}: has no object with keypoints, so there is nothing to review")
    with locked(goal) if alone else nullcontext():
        content = _Content(read.content, hashlib.sha256(whole.encode()).hexdigest())
        review = Review(file, content, _folder(file, images), goal, check_exif(exif))
        check_apart([goal], {each.path for each in review.targets})
        review.go_on()
        yield review


def _refuse_review(path: Path, content: Any, out: Path | None) -> None:
    info = content.get("info") if isinstance(content, dict) else None
    about = info.get(OF) if isinstance(info, dict) else None
    if isinstance(about, dict) and out is None:
        raise InputError(
            f"{path}: is a review of {about.get('file')}; give that file to go on, or a new one to write",
            "out",
        )


def _folder(file: CocoFile, images: Path | None) -> Path:
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder of the images", "images")
    names = [str(each["file_name"]) for each in file.images.values()]
    beside = file.path.parent
    return images or file.folder or image_folder(beside, names) or beside


def _paths(file: CocoFile, folder: Path) -> dict[int, Path]:
    """The images of the annotations, by id; all are there, inside the folder.

    Raises:
        InputError: one is not.
    """
    known = FileNames(folder)
    used = {each["image_id"] for each in file.annotations}
    paths = {number: known.path(str(file.images[number]["file_name"])) for number in sorted(used)}
    top = os.path.normpath(folder.absolute())
    for path in paths.values():
        if os.path.commonpath([top, os.path.normpath(path.absolute())]) != top:
            raise InputError(
                f"{path}: lies outside of the folder of the images; give one that holds all",
                "images",
            )
    missing = missing_files([*paths.values()])
    if missing:
        first = ", ".join(path.name for path in missing[1:3])
        others = f", likewise {first}" if first else ""
        raise InputError(
            f"{missing[0]}: no such image{others} ({len(missing)} of {len(paths)} are missing); give their "
            "folder",
            parameter="images",
        )
    return paths


def _order(annotation: Entry) -> float:
    """The least confident come first, and those of which nobody knows last."""
    found = confidence(annotation)
    return 2.0 if found is None else found


def _frame_of(file: CocoFile, content: Entry, about: Mapping[str, str]) -> tuple[str, str]:
    """What stands before the annotations in a review, and after them: all that the file has beside them."""
    info = content.get("info")
    info = {**(info if isinstance(info, dict) else {}), "description": DESCRIPTION, OF: dict(about)}
    lists = ("images", "categories", "annotations")
    rest = {key: value for key, value in content.items() if key not in ("info", *lists)}
    bare = [each for each in content["categories"] if not each.get("keypoints")]
    unused = [each for each in content["annotations"] if not each.get("keypoints") or each.get("iscrowd")]
    where = str(file.path)
    head = f'{{"info":{_line(info, where)},\n'
    head += "".join(f"{_line(key, where)}:{_line(value, where)},\n" for key, value in rest.items())
    for key, entries in (
        ("categories", [*file.categories.values(), *bare]),
        ("images", file.images.values()),
    ):
        head += f'"{key}":[\n' + ",\n".join(_line(each, where) for each in entries) + "\n],\n"
    return head + '"annotations":[\n', "".join(f",\n{_line(each, where)}" for each in unused) + "\n]}\n"


def _line(value: Any, where: str) -> str:
    """A value as JSON on one line.

    Raises:
        InputError: it holds a number that is none.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InputError(f"{where}: holds a number that is none (NaN or infinite); mend it") from None
