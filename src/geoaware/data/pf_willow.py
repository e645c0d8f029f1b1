"""PF-WILLOW (Ham et al. 2016): folders of subclasses, each image with ten points in a MAT file."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from geoaware.data.dataset import LEFT_OUT, Annotations, DataSet, assemble, choose_split
from geoaware.data.fields import missing
from geoaware.data.files import first_file, numbers, read_csv, read_mat
from geoaware.data.images import find_images
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError

NAME = "pf-willow"
POINTS = 10
CSV_NAMES = ["test_pairs.csv", "test_pairs_pf.csv", "test_pairs_pf_willow.csv"]

BARE = f"{LEFT_OUT}: images without a MAT file beside them"

_PLACES = [f"{axis}{side}{each}" for side in "ab" for axis in "xy" for each in range(1, POINTS + 1)]
_COLUMNS = ["imagea", "imageb", *_PLACES]
_CSV_FORM = f"imageA, imageB, then x and y of {POINTS} points on A, x and y on B ({len(_COLUMNS)} columns)"


def load(root: Path, split: str = "test", *, pairs: str = "auto") -> DataSet:
    """PF-WILLOW's pairs; a category is a subclass, ``car(S)`` for instance.

    Points come from the MAT files (``pts_coord``, row x and row y), ids 0 … 9 by column. An image without a
    MAT file takes them from the list of pairs.

    Args:
        root: folder of the subclasses.
        split: test, the only one.
        pairs: ``"all"``: every ordered pair of different images of a subclass; a CSV file: the usual list;
            ``"auto"``: the list if one lies in the root, else all.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    chosen = choose_split(split, ["test"], "PF-WILLOW", {"all": "test"})
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of PF-WILLOW's subclasses as root")
    listed = first_file(root, CSV_NAMES) if pairs == "auto" else None if pairs == "all" else Path(pairs)
    annotations = Annotations()
    made = _all_pairs(root, annotations) if listed is None else _listed_pairs(root, listed, annotations)
    how = "all ordered pairs inside each subclass" if listed is None else f"pairs of {listed.name}"
    schema = Schema(tuple(f"point {each}" for each in range(POINTS)))
    schemas = {pair.category: schema for pair in made}
    return assemble(NAME, chosen, schemas, made, "keypoints", [how], annotations)


def image_files(root: Path, annotations: Annotations) -> list[Path]:
    """Images in the subfolders of the root that have a MAT file beside them, in name order; at least one.

    ``annotations`` takes what is to be said of the others.
    """
    listed, over = find_images(root, depth=2)
    inside = sorted(listed)
    found = [path for path in inside if path.with_suffix(".mat").is_file()]
    annotations.noted[BARE] += [str(path) for path in inside if path not in {*found}]
    annotations.said.extend([f"passed over: {over}"] if over else [])
    if not found:
        inner = [each for each in sorted(root.iterdir()) if each.is_dir() and any(each.glob("*/*.mat"))]
        remedy = f"give {inner[0]}" if inner else "give the folder of the subclasses (car(G), car(M), …)"
        raise InputError(f"{root}: is not the root of PF-WILLOW, no images with MAT files below it; {remedy}")
    return found


def read_points(path: Path) -> dict[int, Any]:
    """The ten points [x, y] of a MAT file by id; ``None`` where there is NaN."""
    points = read_mat(path, "pts_coord", columns=POINTS, rows=2)[:2].T.tolist()
    return {number: None if missing(point) else point for number, point in enumerate(points)}


def _all_pairs(root: Path, annotations: Annotations) -> list[Pair]:
    images = [
        _image(root, path, read_points(path.with_suffix(".mat")), annotations)
        for path in image_files(root, annotations)
    ]
    return [_pair(a, b) for a, b in permutations(images, 2) if a.category == b.category]


def _listed_pairs(root: Path, path: Path, annotations: Annotations) -> list[Pair]:
    images: dict[Path, AnnotatedImage] = {}
    pairs = []
    for where, row in read_csv(path, len(_COLUMNS), _CSV_FORM, _COLUMNS):
        # The list names images from the folder above the root: the last two parts are ours.
        named = (Path(name.replace("\\", "/")).parts[-2:] for name in row[:2])
        files = [annotations.file(root, "/".join(parts)) for parts in named]
        sides = np.reshape(numbers(row[2 : len(_COLUMNS)], where), (2, 2, POINTS)).tolist()
        for file, (xs, ys) in zip(files, sides, strict=True):
            if file not in images:
                mat = file.with_suffix(".mat")
                listed = [list(each) for each in zip(xs, ys, strict=True)]
                points = read_points(mat) if mat.is_file() else annotations.listed(listed, where)
                images[file] = _image(root, file, points, annotations)
        pairs.append(_pair(*(images[file] for file in files)))
    return pairs


def _image(root: Path, path: Path, points: dict[int, Any], annotations: Annotations) -> AnnotatedImage:
    name = path.relative_to(root).as_posix()
    return annotations.image(name, path, path.parent.name, points)


def _pair(source: AnnotatedImage, target: AnnotatedImage) -> Pair:
    return Pair(f"{source.id}-{target.path.name}", source.category, source, target)
