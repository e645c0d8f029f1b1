"""The images to annotate: files and folders, or a COCO file that gives boxes and masks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.videos import Shot, list_shots, only_videos
from geoaware.data import fields
from geoaware.data.coco_file import CocoFile, corner_box, corners, read_coco
from geoaware.data.dataset import FAR, FLAT, LEFT_OUT, Annotations, shortened
from geoaware.data.exif import Exif, check_exif
from geoaware.data.formats.coco import image_folder
from geoaware.data.images import Frame, check_size, list_images, note_once
from geoaware.data.names import FileNames, alike
from geoaware.method.types import AnnotatedImage, Box
from geoaware.runs.errors import InputError
from geoaware.runs.places import absolute, common_folder, real


class Detected(NamedTuple):
    """The objects that a detector saw in an image; none is a result.

    Attributes:
        boxes: x, y, width and height of each.
        scores: of each, if known.
        shares: whether boxes are shares of width and height, not pixels.
        failure: why the detector could not look at the image.
    """

    boxes: tuple[tuple[float, ...], ...] = ()
    scores: tuple[float | None, ...] = ()
    shares: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Target:
    """One object to annotate.

    Attributes:
        number: from 1, in the order of the targets; the annotation's id unless the file gives one.
        name: of the image, relative to the root, with ``/``.
        image_id: of the image in the result.
        annotation: what a COCO file says of the object (box, mask, keypoints), or ``None``.
        size: width and height that the file says, or ``None``.
        exif: of which pixels the annotation is, and that of the result.
        shot: the frame of a video that it is, or ``None``.
        detected: the objects in the image, where a detector was asked.
    """

    number: int
    name: str
    path: Path
    image_id: int
    annotation: Mapping[str, Any] | None = None
    size: tuple[int, int] | None = None
    exif: Exif = "upright"
    shot: Shot | None = None
    detected: Detected | None = None

    @property
    def id(self) -> int:
        """Of the annotation in the result."""
        return self.number if self.annotation is None else int(self.annotation["id"])

    @property
    def box(self) -> Box | None:
        """Corners in pixels, if given."""
        return None if self.annotation is None else corner_box(self.annotation, self.name)

    def annotated(self, frame: Frame, masks: FileNames) -> AnnotatedImage:
        """The object in an image of this size and orientation, without keypoints.

        Raises:
            InputError: its annotation is for an image of another size.
        """
        given, read = self.annotation or {}, Annotations(self.exif, frames={self.path: frame})
        mask = given.get("mask_file_name")
        made = read.image(
            self.name, self.path, "", {}, self.size if given else None, self.name, self.box,
            mask_path=masks.path(str(mask)) if mask else None, attributes=given,
        )  # fmt: skip
        if given:
            check_size(made, frame)
        for doubtful in read.noted[FAR]:
            note_once("box", f"{doubtful}: lies mostly outside")
        return made


@dataclass(frozen=True)
class Targets(Sequence[Target]):
    """The images or objects to annotate. Only names are kept, and what a COCO file says.

    Attributes:
        rows: of each object the name of its image relative to ``folder``, the image's id (``None``: the
            object's number), and its annotation, if a COCO file has one.
        folder: of the images.
        file: the COCO file, if there is one.
        category_id: of the category in the result, if the file has it.
        notes: what was understood of the file and what was not used, one sentence each.
        sizes: width and height by image id, where the COCO file gives them.
        paths: files of names that are spelled in another way.
        exif: of which pixels points, boxes, masks and sizes are, those of the result too.
        shots: the frames that the names are of, if these are targets.
        kept: whether the frames are, or are to be, image files in ``folder``.
        detected: objects by the name of the image, as a detector saw them.
        detector: its file, if there is one.
    """

    rows: Sequence[tuple[str, int | None, Mapping[str, Any] | None]]
    folder: Path
    file: Path | None = None
    category_id: int | None = None
    notes: tuple[str, ...] = ()
    sizes: Mapping[Any, tuple[int, int] | None] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)
    exif: Exif = "upright"
    shots: Mapping[str, Shot] = field(default_factory=dict)
    kept: bool = False
    detected: Mapping[str, Detected] = field(default_factory=dict)
    detector: Path | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        # A place from the end becomes one from the beginning, because the target's number is made of it.
        number = range(len(self))[place] + 1
        name, image_id, entry = self.rows[place]
        image = number if image_id is None else image_id
        size, shot = self.sizes.get(image_id), self.shots.get(name)
        seen = None if self.detector is None else self.detected.get(name, Detected())
        return Target(number, name, self.path(name), image, entry, size, self.exif, shot, seen)

    def path(self, name: str) -> Path:
        """The file of an image."""
        return self.paths.get(name) or self.folder / name

    @cached_property
    def masks(self) -> FileNames:
        """The files that ``mask_file_name`` names."""
        return FileNames((self.folder if self.file is None else self.file.parent) / "masks")

    def hash(self) -> str:
        """SHA-256 of names and of what a COCO file says, without the image files."""
        digest = hashlib.sha256()
        for each in self:
            digest.update(_line(each, each.image_id))
        return digest.hexdigest()

    def key(self, place: int) -> str:
        """What tells a target from others, however many there are and wherever it stands among them."""
        # An image that is only listed has no id of its own: that of the target changes with the others.
        return hashlib.sha256(_line(self[place], self.rows[place][1])).hexdigest()[:16]

    def without(self, sources: Sources) -> Targets:
        """The targets whose image is not one of the sources.

        Raises:
            InputError: none is left.
        """
        used = {real(each.path) for each in sources.images}
        left = [row for row in self.rows if real(self.path(row[0])) not in used]
        if not left:
            raise InputError(f"every target image is one of the sources of {sources.path}; give others")
        return replace(self, rows=left)


def _line(target: Target, image_id: int | None) -> bytes:
    """What tells a target from others, without the image file."""
    said: list[Any] = [target.name, image_id, target.annotation]
    said += [target.exif] if target.exif != "upright" else []
    said += [target.shot.video.mark] if target.shot else []
    said += [] if target.detected is None else [target.detected]
    return json.dumps(said, ensure_ascii=False, sort_keys=True).encode(errors="surrogatepass") + b"\n"


def list_targets(
    paths: Sequence[Path],
    root: Path | None = None,
    recursive: bool = False,
    exif: str = "upright",
    every: int | None = None,
    frames: Path | None = None,
) -> Targets:
    """Images from files and folders, or frames of videos, in the order of their names on every system.

    Args:
        paths: images, and folders whose images are taken; or videos.
        root: folder that the names are relative to; the common folder of all paths when not given.
        recursive: look into the folders inside too.
        exif: ``"stored"``: points in the result are of the pixels as stored, not as turned by EXIF.
        every: only every N-th frame of a video is a target, from the first.
        frames: folder for the frames as images; `transfer` writes them.

    Raises:
        InputError: a path does not exist, a folder holds no image, or an image lies outside the root.
    """
    videos = only_videos([each for each in paths if each.exists()])
    if not videos and (every is not None or frames is not None):
        raise InputError("only videos have frames to choose or to write; give a video", "targets")
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += map(absolute, list_images(path, recursive))
        elif path.is_file():
            found.append(absolute(path))
        else:
            raise InputError(f"{path}: no such image or folder{alike(path)}")
    if not found:
        raise InputError("no images to annotate: give files or folders, or a COCO file", parameter="targets")
    if root is None:
        tops = [path if path.is_dir() else path.parent for path in paths]
        root = common_folder([absolute(each) for each in tops])
    base = absolute(root)
    try:
        names = sorted({each.relative_to(base).as_posix() for each in found})
    except ValueError:
        outside = next(each for each in found if not each.is_relative_to(base))
        raise InputError(
            f"{outside}: lies outside {root}; give a folder that holds all images", parameter="root"
        ) from None
    if videos:
        shots = list_shots(names, base, 1 if every is None else every)
        folder = base if frames is None else absolute(frames)
        rows = [(name, None, None) for name in shots]
        return Targets(rows, folder, exif=check_exif(exif), shots=shots, kept=frames is not None)
    return Targets([(name, None, None) for name in names], base, exif=check_exif(exif))


def read_targets(
    path: Path, sources: Sources, images: Path | None = None, exif: str = "upright", objects: bool = True
) -> Targets:
    """Images and objects from a COCO file; its annotations need no keypoints.

    Every annotation of the sources' category is one target, in the order of image and annotation ids;
    ``iscrowd`` ones are left out. In a file without any annotation every image is a target.

    Args:
        path: the file.
        sources: whose category is looked for, by name.
        images: folder of the images; ``images`` or ``data`` beside the file, or its own folder.
        exif: ``"stored"``: boxes, masks and sizes, and points in the result, are of the pixels as stored.
        objects: whether its objects are the targets; if not, its images are.

    Raises:
        InputError: the file is missing or no COCO file, has other categories or other keypoints, or has no
            target.
    """
    file = read_coco(path, objects=True)
    files = {number: str(each["file_name"]).replace("\\", "/") for number, each in file.images.items()}
    category_id = _category_id(file, sources)
    if not objects and (file.annotations or file.crowds):
        said = (*file.notes, f"{LEFT_OUT}: the boxes of {path}, of which the images alone are used")
        file = replace(file, annotations=(), crowds=frozenset(), notes=said)
    found, notes = _objects(_ordered(file, category_id, sources), category_id)
    if not found:
        raise InputError(f"{path}: no image or no annotation of category {sources.name!r} to work on")
    used = Counter(files[image] for image in {image for image, _ in found})
    if twice := [name for name, times in used.items() if times > 1]:
        notes.append(f"{len(twice)} images are listed under several ids and annotated each time ({twice[0]})")
    names = list(files.values())
    there = FileNames(images or file.folder or image_folder(path.parent, names) or path.parent)
    paths = {name: there.path(name) for name in names}
    if not any(map(there.find, names)):
        raise InputError(
            f"{images or path.parent}: no image {names[0]!r} of {path} there; give the folder of the "
            "targets' images",
            parameter="targets_images",
        )
    return Targets(
        [(files[image], image, entry) for image, entry in found],
        there.folder,
        path,
        category_id,
        (*notes, *there.notes()),
        {
            number: fields.size(each.get("width"), each.get("height"), f"{path}: image {number}")
            for number, each in file.images.items()
        },
        paths,
        check_exif(exif),
    )


def _category_id(file: CocoFile, sources: Sources) -> int:
    """Id of the sources' category in the targets' file; the sources' own where the file has no categories."""
    if not file.categories:
        return int(sources.category["id"])
    named = {entry["name"]: number for number, entry in file.categories.items()}
    if sources.name not in named:
        raise InputError(
            f"{file.path}: has categories {', '.join(sorted(named))}, the sources are of {sources.name!r}; "
            "name the category alike in both files, or choose another",
            parameter="category",
        )
    chosen = named[sources.name]
    if (
        file.format == "coco"
        and file.categories[chosen].get("keypoints")
        and file.names(chosen) != list(sources.schema.names)
    ):
        raise InputError(
            f"{file.path}: category {sources.name!r} has other keypoints than in {sources.path}; they must "
            "be the same, in the same order"
        )
    return chosen


def _ordered(file: CocoFile, category_id: int, sources: Sources) -> CocoFile:
    """The file with keypoints in the order of the sources: formats other than COCO may hold no order."""
    names, wanted = file.names(category_id) if category_id in file.categories else [], sources.schema.names
    if file.format == "coco" or names == list(wanted):
        return file

    def placed(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        values = entry.get("keypoints")
        if entry["category_id"] != category_id or not values:
            return entry
        named = {name: values[3 * each : 3 * each + 3] for each, name in enumerate(names)}
        return {**entry, "keypoints": [value for name in wanted for value in named.get(str(name), (0, 0, 0))]}

    return replace(file, annotations=tuple(dict(placed(each)) for each in file.annotations))


def _objects(file: CocoFile, category_id: int) -> tuple[list[tuple[int, Any]], list[str]]:
    """Image id and annotation of every object, by their ids, and what is to be said of them.

    In a file without annotations every image is one.
    """
    if not (file.annotations or file.crowds):
        return [(each, None) for each in sorted(file.images)], list(file.notes)
    found = [entry for entry in file.annotations if entry["category_id"] == category_id]
    ids, read = [entry["id"] for entry in found], Annotations(said=list(file.notes))
    read.said.extend(_unused(file, category_id))
    if len(set(ids)) < len(ids):
        raise InputError(f"{file.path}: annotation ids repeat; ids must differ")
    if 0 in ids:
        # Programs that evaluate results take 0 for no annotation.
        free = max(ids) + 1
        found = [{**entry, "id": entry["id"] or free} for entry in found]
        read.said.append(f"ids of results begin at 1: annotation 0 becomes {free}")
    for entry in found:
        where = f"{file.path}: annotation {entry['id']}"
        if corners(entry, where) and corner_box(entry, where) is None:
            read.noted[FLAT].append(where)
    found = sorted(found, key=itemgetter("image_id", "id"))
    return [(entry["image_id"], entry) for entry in found], read.notes()


def _unused(file: CocoFile, category_id: int) -> list[str]:
    """What of the targets' file is no target: annotations of other categories, images without any."""
    others = Counter(each["category_id"] for each in file.annotations if each["category_id"] != category_id)
    names = {each: file.categories.get(each, {}).get("name", each) for each in others}
    named = [f"{count} of {names[each]}" for each, count in sorted(others.items())]
    notes = [f"{LEFT_OUT}: annotations of other categories ({shortened(named)})"] if named else []
    used = {each["image_id"] for each in file.annotations if each["category_id"] == category_id}
    if empty := [each for each in file.images if each not in used]:
        name = file.images[empty[0]]["file_name"]
        notes.append(f"{LEFT_OUT}: {len(empty)} images without an annotation of the category ({name})")
    return notes
