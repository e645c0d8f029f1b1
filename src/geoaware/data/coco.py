"""Any file in COCO's keypoint format, and pairs made from its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from operator import itemgetter
from pathlib import Path

from geoaware.data import fields
from geoaware.data.coco_file import (
    REPEATED,
    CocoFile,
    Entry,
    content_of,
    corners,
    keypoint_places,
    read_coco,
    read_schemas,
    visible_from,
)
from geoaware.data.dataset import Annotations, DataSet, assemble, usual_base
from geoaware.data.exif import check_exif
from geoaware.data.formats import is_annotated
from geoaware.data.formats.coco import image_folder
from geoaware.data.pairs import read_pair_list
from geoaware.data.pools import Pool, by_category, drawn
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

NAME = "coco"
DEFAULT_PAIRS = 300

_STANDARD = frozenset({"id", "image_id", "category_id", "keypoints", "num_keypoints", "bbox", "iscrowd"})


def load(
    root: Path,
    split: str = "all",
    *,
    annotations: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    pairs: str | int = DEFAULT_PAIRS,
    min_common: int = 1,
    across: bool = False,
    hidden: bool = False,
    seed: int = 0,
    exif: str = "upright",
) -> DataSet:
    """Pairs from a COCO keypoints file.

    An image is one annotated instance. Its id is the file name, with ``#annotation id`` where a file shows
    several; its attributes are the annotation's own entries beyond COCO's (``azimuth_id``, species …) and
    ``segmentation``, which `object_mask` decodes. Keypoint ids are positions in the category's list of names.

    Args:
        root: folder that the other names are relative to.
        split: looks for SPLIT.json; a mere label if ``annotations`` is given. ``"all"`` also takes what else
            the folder holds of the known formats (docs/formats.md).
        annotations: the annotation file, of any of these formats.
        images: folder of the images; images, data or the root itself when not given.
        masks: folder of the files named by ``mask_file_name``; masks when not given.
        pairs: how many random ones for each category, ``"all"`` ordered pairs, or a JSON-lines list of pairs
            (``{"source": image id, "target": image id}``).
        min_common: keypoints that both images of a pair must show.
        across: pairs of images of different categories, those with the same keypoint names, instead.
        hidden: count keypoints that are annotated but hidden (flag 1) as visible.
        seed: of the random pairs.
        exif: ``"stored"``: points, boxes, masks and sizes are of the pixels as stored, not as turned by EXIF.

    Raises:
        InputError: something is missing or wrong; the message names file and entry.
    """
    if min_common < 1:
        raise InputError(f"min_common={min_common}: a pair needs at least one keypoint in common")
    file, annotated, read = open_folder(root, split, annotations, images, masks, hidden, exif)
    schemas, notes = read_schemas(file)
    if isinstance(pairs, int) or pairs == "all" or pairs.isdecimal():
        pools = _pools(annotated, schemas, across)
        schemas |= {pool.category: schemas[pool.images[0].category] for pool in pools}
        made, note = drawn(pools, pairs, min_common, NAME, seed)
    else:
        made = read_pair_list(root / place(pairs), {image.id: image for image in annotated}, notes)
        note = f"pairs of {Path(pairs).name}"
    # A list of pairs may name categories that the annotation file does not have.
    for pair in made:
        if schemas[pair.source.category].names != schemas[pair.target.category].names:
            raise InputError(f"{file.path}: pair {pair.id} joins categories with different keypoint names")
        schemas.setdefault(pair.category, schemas[pair.source.category])
    base, said = usual_base([(each.id, each.box) for each in annotated])
    return assemble(NAME, split, schemas, made, base, [*notes, note, *said], read, min_common)


def open_folder(
    root: Path,
    split: str,
    annotations: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    hidden: bool = False,
    exif: str = "upright",
    slack: float = 0.0,
) -> tuple[CocoFile, list[AnnotatedImage], Annotations]:
    """The annotation file of a folder, its images, and what was noted in making them.

    An annotation that stands there twice, under two ids of the image or its own, counts once. The arguments
    are those of `load`, and ``slack`` that of `Annotations`.
    """
    file = read_coco(_annotation_file(root, split, annotations))
    names = [str(each["file_name"]) for each in file.images.values()]
    folder = (
        root / place(images)
        if images is not None
        else file.folder or image_folder(root, names) or root / "images"
    )
    made = Annotations(check_exif(exif), slack, said=list(file.notes))
    once: dict[str, Entry] = {}
    for annotation in sorted(file.annotations, key=itemgetter("image_id", "id")):
        name = _image_name(file, annotation)
        if once.setdefault(content_of(annotation, name), annotation) is not annotation:
            made.noted[REPEATED].append(f"{file.path}: annotation {annotation['id']} of {name}")
    least, said = visible_from([each["keypoints"] for each in once.values()], hidden)
    made.said.extend(said)
    annotated = []
    instances = Counter(_image_name(file, annotation) for annotation in once.values())
    for annotation in once.values():
        image = _image(file, annotation, folder, root / place(masks or "masks"), least, made)
        if image.keypoints.visible.any():
            several = instances[_image_name(file, annotation)] > 1
            annotated.append(replace(image, id=f"{image.id}#{annotation['id']}") if several else image)
    if unused := len(once) - len(annotated):
        made.said.append(f"{unused} annotations show no keypoint and are not used")
    return file, annotated, made


def _image_name(file: CocoFile, annotation: Entry) -> str:
    return str(file.images[annotation["image_id"]]["file_name"]).replace("\\", "/")


def _image(
    file: CocoFile, annotation: Entry, images: Path, masks: Path, least: int, annotations: Annotations
) -> AnnotatedImage:
    entry = file.images[annotation["image_id"]]
    where = f"{file.path}: annotation {annotation['id']}"
    mask = entry.get("mask_file_name") or annotation.get("mask_file_name")
    return annotations.image(
        _image_name(file, annotation),
        annotations.file(images, str(entry["file_name"])),
        file.categories[annotation["category_id"]]["name"],
        keypoint_places(annotation["keypoints"], least),
        fields.size(entry.get("width"), entry.get("height"), f"{file.path}: image {entry['id']}"),
        where,
        corners(annotation, where),
        mask_path=annotations.file(masks, str(mask)) if mask else None,
        attributes={key: value for key, value in annotation.items() if key not in _STANDARD},
    )


def _pools(images: Sequence[AnnotatedImage], schemas: Mapping[str, Schema], across: bool) -> list[Pool]:
    """Candidates by category or, ``across``, by two categories with the same keypoint names."""
    grouped = by_category(images)
    if not across:
        return [Pool(category, each) for category, each in grouped.items() if len(each) > 1]
    pools = [
        Pool(f"{a}+{b}", grouped[a], grouped[b])
        for a, b in combinations(grouped, 2)
        if schemas[a].names == schemas[b].names
    ]
    if not pools:
        raise InputError(
            "no two categories have the same keypoint names, so there are no pairs across categories"
        )
    return pools


def _annotation_file(root: Path, split: str, given: str | None) -> Path:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of the annotation file as root")
    if given is not None:
        return root / place(given)
    names = [f"{split}.json", f"annotations/{split}.json", "annotations.json"]
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None and split == "all" and is_annotated(root):
        return root
    if found is None:
        raise InputError(f"{root}: no {' or '.join(names)} in it; name the file with annotations=FILE")
    return found
