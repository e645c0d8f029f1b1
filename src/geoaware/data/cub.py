"""CUB-200-2011 (Wah et al. 2011): birds of 200 species with 15 parts, in the layout of its archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from geoaware.data import fields
from geoaware.data.dataset import Annotations, DataSet, assemble, choose_split, require_folders
from geoaware.data.files import read_columns
from geoaware.data.pools import listed_or_drawn
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError

NAME = "cub"
FOLDERS = ("images", "parts")


def load(
    root: Path,
    split: str = "test",
    *,
    pairs: str | int = "auto",
    across: bool = True,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> DataSet:
    """Pairs of birds. A keypoint's id is the part's number, 1 … 15; a category is the folder of a species.

    The field's pairs are those of Aygün and Mac Aodha (2022, section 4): the first 10,000 of their list,
    birds of any two species, in the split ``all``. Objects have masks if the folder segmentations is there.

    Args:
        root: folder with images, parts, images.txt, bounding_boxes.txt and train_test_split.txt.
        split: trn (or train), test or all.
        pairs: a list of two image numbers a line, how many random ones, or ``"auto"``: random_pairs.txt where
            it lies in the root and the split is all, else 10,000 random ones.
        across: random pairs of any two species; else so many of each, 50 with ``"auto"``.
        categories: only these species, by the names of their folders; no list of pairs then.
        seed: of the random pairs.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, FOLDERS, "CUB-200-2011")
    chosen = own_split(split)
    annotations = Annotations()
    known = {bird.number: make_image(root, bird, annotations) for bird in read_birds(root, chosen)}
    if categories:
        folders = {image.category for image in known.values()}
        unknown = [each for each in categories if each not in folders]
        if unknown:
            raise InputError(f"{root}: CUB-200-2011 has no species {unknown[0]!r} in split {chosen!r}")
        known = {number: image for number, image in known.items() if image.category in categories}
    whole = chosen == "all" and not categories
    made, note = listed_or_drawn(root, known, pairs, across, NAME, seed, whole=whole)
    schemas = dict.fromkeys({image.category for image in known.values()}, read_schema(root))
    return assemble(NAME, chosen, schemas, made, "box", [note], annotations)


def own_split(split: str) -> str:
    """The split as it is called here."""
    return choose_split(split, ("trn", "test", "all"), "CUB-200-2011")


def read_schema(root: Path) -> Schema:
    """The 15 parts; partners and subgroups follow from left and right in their names."""
    parts = read_columns(root / "parts" / "parts.txt", 2, "part number, name")
    names = {fields.whole(number, where): name for where, (number, name) in parts}
    return Schema.infer([names.get(each, f"keypoint {each}") for each in range(max(names, default=-1) + 1)])


class Bird(NamedTuple):
    """What the files say of an image: its number and name, its parts by number, its box, and where."""

    number: str
    name: str
    places: Mapping[int, tuple[float, float] | None]
    box: Sequence[float]
    where: str


def read_birds(root: Path, split: str) -> Iterator[Bird]:
    """What the files say of the images of a split, in the order of images.txt; no image is opened."""
    points = _read_parts(root / "parts" / "part_locs.txt")
    boxes = _by_number(root / "bounding_boxes.txt", 5, "image number, x, y, width, height")
    training = _by_number(root / "train_test_split.txt", 2, "image number, 0 or 1")
    for where, (number, name) in read_columns(root / "images.txt", 2, "image number, file name"):
        try:
            there, (flag,) = training[number]
            if split not in ("all", "trn" if fields.flag(flag, there) else "test"):
                continue
            there, values = boxes[number]
            places = points[number]
        except KeyError:
            files = "parts/part_locs.txt, bounding_boxes.txt and train_test_split.txt"
            raise InputError(f"{where}: not all of {files} know image {number}; fetch them again") from None
        x, y, width, height = fields.numbers(values, f"{there}: the box", 4)
        yield Bird(number, name, places, (x, y, x + width, y + height), where)


def make_image(root: Path, bird: Bird, annotations: Annotations) -> AnnotatedImage:
    """The image of a bird."""
    name = PurePosixPath(bird.name)
    return annotations.image(
        bird.name,
        annotations.file(root / "images", bird.name),
        name.parent.name,
        bird.places,
        where=f"{bird.where}: {bird.name}",
        box=bird.box,
        mask_path=annotations.optional(root / "segmentations" / name.parent, f"{name.stem}.png"),
    )


def _by_number(path: Path, columns: int, expected: str) -> dict[str, tuple[str, list[str]]]:
    """Place and other columns of each line, by its first column."""
    return {number: (where, values) for where, (number, *values) in read_columns(path, columns, expected)}


def _read_parts(path: Path) -> dict[str, dict[int, tuple[float, float] | None]]:
    """Places by part number of each image, by its number; ``None`` where a part is not visible."""
    found: dict[str, dict[int, tuple[float, float] | None]] = {}
    for where, (number, part, *values) in read_columns(path, 5, "image number, part number, x, y, visible"):
        x, y, visible = fields.numbers(values, f"{where}: x, y, visible", 3)
        place = (x, y) if visible else None
        found.setdefault(number, {})[fields.whole(part, f"{where}: the part")] = place
    return found
