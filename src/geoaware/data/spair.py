"""SPair-71k (Min et al. 2019) in the layout of its archive.

Pairs are read from ``Layout/large/SPLIT.txt`` and everything else from one ``ImageAnnotation`` file per
image: 1,800 small files instead of 70,958. ``data check`` compares them with ``PairAnnotation``. Masks are in
``Segmentation``, if it is there: PASCAL VOC's numbers of classes, so two objects of a category are one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from geoaware.data import fields
from geoaware.data.dataset import (
    SPLITS,
    Annotations,
    DataSet,
    assemble,
    azimuth_difference,
    choose_split,
    require_folders,
)
from geoaware.data.files import read_json, read_lines
from geoaware.method.keypoints import SPAIR71K
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError, reason

NAME = "spair71k"
FOLDERS = ("JPEGImages", "ImageAnnotation", "Layout")

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
"""PASCAL VOC's classes; the first has the number 1."""

_PAIR = re.compile(r"(?P<number>\d+)-(?P<source>[^-:]+)-(?P<target>[^-:]+):(?P<category>.+)")
_KEPT = ("azimuth_id", "pose", "truncated", "occluded", "difficult")


def load(
    root: Path, split: str, *, categories: Sequence[str] | None = None, layout: str = "large"
) -> DataSet:
    """SPair-71k's pairs of a split.

    An image's id is ``category/name``; its attributes are azimuth_id (0 … 7, steps of 45 degrees), pose,
    truncated, occluded and difficult. A pair's id is its line in the layout. Objects have masks if the folder
    Segmentation is there.

    Args:
        root: folder with JPEGImages, ImageAnnotation and Layout.
        split: trn (or train), val or test.
        categories: only these of the 18.
        layout: folder below Layout with the lists of pairs.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, FOLDERS, "SPair-71k")
    chosen = choose_split(split, SPLITS, "SPair-71k")
    check_categories(categories)
    annotations = Annotations()
    names = [each for each in layout_pairs(root, chosen, layout) if not categories or each[3] in categories]
    pairs = make_pairs(names, lambda category, image: read_image(root, category, image, annotations))
    return assemble(NAME, chosen, SPAIR71K, pairs, "box", (), annotations)


def check_categories(categories: Sequence[str] | None) -> None:
    """Make sure that each category is one of the 18."""
    unknown = [each for each in categories or () if each not in SPAIR71K]
    if unknown:
        raise InputError(f"SPair-71k has no category {unknown[0]!r}; choose from {', '.join(SPAIR71K)}")


def layout_pairs(root: Path, split: str, layout: str = "large") -> list[tuple[str, str, str, str]]:
    """Name, source, target and category of every pair in a layout file."""
    path = root / "Layout" / layout / f"{split}.txt"
    return [parse_pair(line, where) for where, line in read_lines(path, "the list of SPair-71k's pairs")]


def parse_pair(name: str, where: str) -> tuple[str, str, str, str]:
    """A pair's name, and the source, target and category in it."""
    match = _PAIR.fullmatch(name)
    if match is None or match["category"] not in SPAIR71K:
        raise InputError(
            f"{where}: {name!r} is not NUMBER-SOURCE-TARGET:CATEGORY of SPair-71k; fetch it again"
        )
    return name, match["source"], match["target"], match["category"]


def make_pairs(
    names: Sequence[tuple[str, str, str, str]], read: Callable[[str, str], AnnotatedImage]
) -> list[Pair]:
    """Pairs by their names, sources, targets and categories; ``read`` makes an image, by its category."""
    images: dict[tuple[str, str], AnnotatedImage] = {}
    pairs = []
    for name, source, target, category in names:
        for image in (source, target):
            if (category, image) not in images:
                images[category, image] = read(category, image)
        a, b = images[category, source], images[category, target]
        pairs.append(Pair(name, category, a, b, azimuth_difference(a, b)))
    return pairs


def read_image(
    root: Path, category: str, name: str, annotations: Annotations, images: Path | None = None
) -> AnnotatedImage:
    """One image from its annotation file; ``images`` is the folder JPEGImages, if that is not in the root."""
    pixels = images or root / "JPEGImages"
    path = root / "ImageAnnotation" / category / f"{name}.json"
    annotation = read_json(path, "the annotation of an image that the layout names")
    try:
        return annotations.image(
            f"{category}/{name}",
            annotations.file(pixels / category, str(annotation["filename"])),
            category,
            {fields.whole(each, f"{path}: kps"): place for each, place in annotation["kps"].items()},
            fields.size(annotation["image_width"], annotation["image_height"], str(path)),
            str(path),
            annotation["bndbox"],
            attributes={key: annotation[key] for key in _KEPT if key in annotation},
            mask_path=annotations.optional(pixels.parent / "Segmentation" / category, f"{name}.png"),
            mask_label=VOC.index(category) + 1,
        )
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: is not an annotation of SPair-71k ({reason(error)}); fetch it again"
        ) from None
