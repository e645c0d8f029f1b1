"""SPair-U (Mariotti et al. 2025): SPair-71k's test pairs with other keypoints, unseen in its training pairs.

The files are as SPair-71k's; the images are SPair-71k's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geoaware.data.dataset import (
    Annotations,
    DataSet,
    assemble,
    choose_split,
    require_folders,
)
from geoaware.data.spair import check_categories, make_pairs, parse_pair, read_image
from geoaware.method.keypoints import Schema
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

NAME = "spair-u"
FOLDERS = ("ImageAnnotation", "PairAnnotation")
POINTS = 30
"""Ids of a category at most, as in SPair-71k's files."""

_PICTURES = "JPEGImages"


def load(
    root: Path,
    split: str = "test",
    *,
    categories: Sequence[str] | None = None,
    images: str | None = None,
) -> DataSet:
    """SPair-U's pairs: one for each file in ``PairAnnotation/test``, points by their ids in ImageAnnotation.

    The keypoints have numbers and no names, so none is geometry-aware.

    Args:
        root: folder with ImageAnnotation and PairAnnotation.
        split: test, the only one.
        categories: only these of SPair-71k's 18.
        images: SPair-71k's folder JPEGImages; when not given, one in the root or in SPair-71k beside it.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, FOLDERS, "SPair-U")
    chosen = choose_split(split, ["test"], "SPair-U", {"all": "test"})
    check_categories(categories)
    annotations, pictures = Annotations(), picture_folder(root, images)
    names = [each for each in pair_names(root) if not categories or each[3] in categories]
    pairs = make_pairs(
        names, lambda category, image: read_image(root, category, image, annotations, pictures)
    )
    schemas = dict.fromkeys({pair.category for pair in pairs}, Schema(tuple(map(str, range(POINTS)))))
    return assemble(NAME, chosen, schemas, pairs, "box", (), annotations)


def pair_names(root: Path) -> list[tuple[str, str, str, str]]:
    """Name, source, target and category of every pair, by the names of their files; at least one."""
    folder = root / "PairAnnotation" / "test"
    found = sorted(folder.glob("*.json"))
    if not found:
        raise InputError(f"{folder}: holds no pairs; give the folder of SPair-U as root")
    # ':' cannot be stored on Windows, where unpackers write '_' for it.
    stems = [path.stem if ":" in path.stem else ":".join(path.stem.rsplit("_", 1)) for path in found]
    return [parse_pair(stem, str(path)) for stem, path in zip(stems, found, strict=True)]


def picture_folder(root: Path, images: str | None = None) -> Path:
    """SPair-71k's images."""
    if images is not None:
        return root / place(images)
    found = [root / _PICTURES, root.parent / "SPair-71k" / _PICTURES]
    for folder in found:
        if folder.is_dir():
            return folder
    remedy = "fetch SPair-71k, and name its images by images=FOLDER"
    raise InputError(f"{found[0]}: no such folder, and no {found[1]}; {remedy}")
