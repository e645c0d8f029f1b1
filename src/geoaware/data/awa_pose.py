"""AwA-Pose (Banik et al. 2021): 39 keypoints on the four-legged animals of Animals with Attributes 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from geoaware.data import fields
from geoaware.data.dataset import (
    LEFT_OUT,
    Annotations,
    DataSet,
    assemble,
    choose_split,
    files_by_folder,
    require_folders,
    usual_base,
)
from geoaware.data.plain_pickle import read_plain_pickle
from geoaware.data.pools import listed_or_drawn
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, reason

NAME = "awa-pose"
FOLDERS = ("JPEGImages", "Annotations")

PARTS = (
    *("nose", "upper_jaw", "lower_jaw", "mouth_end_right", "mouth_end_left"),
    *("right_eye", "right_earbase", "right_earend", "right_antler_base", "right_antler_end"),
    *("left_eye", "left_earbase", "left_earend", "left_antler_base", "left_antler_end"),
    *("neck_base", "neck_end", "throat_base", "throat_end", "back_base", "back_end", "back_middle"),
    *("tail_base", "tail_end", "front_left_thai", "front_left_knee", "front_left_paw"),
    *("front_right_thai", "front_right_paw", "front_right_knee"),
    *("back_left_knee", "back_left_paw", "back_left_thai"),
    *("back_right_thai", "back_right_paw", "back_right_knee"),
    *("belly_bottom", "body_middle_right", "body_middle_left"),
)
"""The names in the annotation files, spelled as there; the files have no ids, so the place in here is one."""

OTHERS = f"{LEFT_OUT}: animals beside the first of their image"
UNKNOWN = f"{LEFT_OUT}: keypoints of a name that is not AwA-Pose's"

_PLACES = {name: number for number, name in enumerate(PARTS)}
_FIRST, _BOX = "a1", "bbox"
_FORM = "the animals of an image, each with its parts and its box"


def load(
    root: Path,
    split: str = "all",
    *,
    pairs: str | int = "auto",
    across: bool = True,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> DataSet:
    """Pairs of animals; a category is the folder of a class.

    The field's pairs are those of Aygün and Mac Aodha (2022, section 4): the first 10,000 of their list,
    animals of any two classes. As there, the first animal of each image counts.

    Args:
        root: folder with JPEGImages (of Animals with Attributes 2) and Annotations (of AwA-Pose).
        split: all, the only one.
        pairs: a list of two ``CLASS/IMAGE.jpg`` a line, how many random ones, or ``"auto"``: random_pairs.txt
            where it lies in the root, else 10,000 random ones.
        across: random pairs of any two classes; else so many of each, 50 with ``"auto"``.
        categories: only these classes, by the names of their folders; no list of pairs then.
        seed: of the random pairs.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, FOLDERS, "AwA-Pose")
    chosen = choose_split(split, ["all"], "AwA-Pose", {"test": "all"})
    annotations = Annotations()
    files = annotation_files(root, categories)
    known = {image.id: image for path in files for image in read_animal(root, path, annotations)}
    made, note = listed_or_drawn(root, known, pairs, across, NAME, seed, whole=not categories)
    schemas = dict.fromkeys({image.category for image in known.values()}, Schema.infer(PARTS))
    base, said = usual_base([(each.id, each.box) for each in known.values()])
    return assemble(NAME, chosen, schemas, made, base, [note, *said], annotations)


def annotation_files(root: Path, categories: Sequence[str] | None = None) -> list[Path]:
    """The annotation of each image, by class and name; at least one."""
    absent = "holds no CLASS/IMAGE.pickle; give the Annotations of AwA-Pose"
    return files_by_folder(root / "Annotations", categories, "*.pickle", "class", absent)


def read_animal(root: Path, path: Path, annotations: Annotations) -> Iterator[AnnotatedImage]:
    """The first animal of an image, from its annotation file; nothing where that has none."""
    animals = read_plain_pickle(path, _FORM)
    if not isinstance(animals, dict) or not all(isinstance(each, dict) for each in animals.values()):
        raise InputError(f"{path}: is not an annotation of AwA-Pose; expected {_FORM}")
    if (animal := animals.get(_FIRST)) is None:
        return
    annotations.noted[OTHERS] += [str(path)] * (len(animals) - 1)
    points = {name: place for name, place in animal.items() if name != _BOX}
    annotations.noted[UNKNOWN] += [f"{path}: {name}" for name in points if name not in _PLACES]
    try:
        name = f"{path.parent.name}/{path.stem}.jpg"
        yield annotations.image(
            name,
            annotations.file(root / "JPEGImages", name),
            path.parent.name,
            {
                place: _known(points.get(part), f"{path}: {part}", 2, "two numbers x, y")
                for part, place in _PLACES.items()
            },
            where=str(path),
            box=_known(animal.get(_BOX), f"{path}: {_BOX}", 4, "corners x1 y1 x2 y2"),
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not an annotation of AwA-Pose ({reason(error)})") from None


def _known(value: object, where: str, count: int, form: str) -> list[float] | None:
    """So many coordinates; ``None`` where one of them is -1, or nothing is given."""
    if fields.missing(value):
        return None
    found = fields.numbers(value, where, count, form)
    return None if -1 in found else found
