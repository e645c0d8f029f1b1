"""Any file in COCO's keypoint format, and pairs made from its images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

from geoaware.data.dataset import (
    Annotations,
    DataSet,
    ThresholdBase,
    assemble,
    azimuth_difference,
    in_common,
    make_box,
    shortened,
)
from geoaware.data.files import known_as, read_json
from geoaware.data.pairs import describe_groups, make_schema, read_pair_list
from geoaware.data.sampling import draw
from geoaware.method.keypoints import AP10K, Schema
from geoaware.method.types import AnnotatedImage, Box, Pair
from geoaware.runs.errors import InputError

NAME = "coco"
DEFAULT_PAIRS = 300

VISIBLE, HIDDEN = 2, 1
"""COCO's keypoint flags; 0 is not annotated."""

_STANDARD = frozenset({"id", "image_id", "category_id", "keypoints", "num_keypoints", "bbox", "iscrowd"})


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file: every annotation has a known image and category and enough numbers.

    Attributes:
        categories: by id; those with keypoints, or all where keypoints are not needed.
        annotations: those of a single object, likewise, as they stand; an id is added where it is missing.
        crowds: ids of images with an annotation of a whole group (``iscrowd``).
        flip_pairs: as it stands at the top of the file, or ``None``; ``keypoint_groups`` likewise.
    """

    path: Path
    images: Mapping[int, dict[str, Any]]
    categories: Mapping[int, dict[str, Any]]
    annotations: tuple[dict[str, Any], ...]
    crowds: frozenset[int] = frozenset()
    flip_pairs: Any = None
    keypoint_groups: Any = None

    def names(self, category: int) -> list[str]:
        """Keypoint names of a category; the position is the annotation id."""
        return [str(each) for each in self.categories[category]["keypoints"]]


def read_coco(path: Path, objects: bool = False) -> CocoFile:
    """Read and check an annotation file; an `InputError` names file and entry.

    With ``objects``, objects of any category count, with keypoints or without, and the lists of categories
    and annotations may be missing.
    """
    kind = "COCO file of images and objects" if objects else "COCO keypoints file"
    content = read_json(path, f"a {kind}")
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no {kind} (a JSON object with images, …){known_as(content)}")
    for key in ("images", "categories", "annotations"):
        if objects and key != "images":
            content[key] = content.get(key) or []
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: has no list {key!r}, so is no {kind}{known_as(content)}")
    images = _by_id(content, "images", "file_name", path)
    if objects and not images:
        raise InputError(f"{path}: lists no images, so is no {kind}")
    categories = {
        each: entry
        for each, entry in _by_id(content, "categories", "name", path).items()
        if objects or (isinstance(entry.get("keypoints"), list) and entry["keypoints"])
    }
    if not categories and not objects:
        raise InputError(f"{path}: no category lists its 'keypoints'; add their names to the categories")
    for name, times in Counter(each["name"] for each in categories.values()).most_common(1):
        if times > 1:
            raise InputError(f"{path}: two categories are called {name!r}; names must differ")
    entries = content["annotations"]
    annotations = tuple(_annotations(entries, path, images, categories, objects))
    return CocoFile(
        path,
        images,
        categories,
        annotations,
        crowds=frozenset(each["image_id"] for each in entries if each.get("iscrowd")),
        flip_pairs=content.get("flip_pairs"),
        keypoint_groups=content.get("keypoint_groups"),
    )


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
) -> DataSet:
    """Pairs from a COCO keypoints file.

    An image is one annotated instance. Its id is the file name, with ``#annotation id`` where a file shows
    several; its attributes are the annotation's own entries beyond COCO's (``azimuth_id``, species …) and
    ``segmentation``, which `object_mask` decodes. Keypoint ids are positions in the category's list of names.

    Args:
        root: folder that the other names are relative to.
        split: looks for SPLIT.json; a mere label if ``annotations`` is given.
        annotations: the annotation file.
        images: folder of the images; images, data or the root itself when not given.
        masks: folder of the files named by ``mask_file_name``; masks when not given.
        pairs: how many random ones for each category, ``"all"`` ordered pairs, or a JSON-lines list of pairs
            (``{"source": image id, "target": image id}``).
        min_common: keypoints that both images of a pair must show.
        across: pairs of images of different categories, those with the same keypoint names, instead.
        hidden: count keypoints that are annotated but hidden (flag 1) as visible.
        seed: of the random pairs.

    Raises:
        InputError: something is missing or wrong; the message names file and entry.
    """
    file, annotated, outside = open_folder(root, split, annotations, images, masks, hidden)
    schemas, notes = read_schemas(file)
    unused = len(file.annotations) - len(annotated)
    if unused:
        notes.append(f"{unused} annotations show no keypoint and are not used")
    if isinstance(pairs, int) or pairs == "all" or pairs.isdecimal():
        pools = _pools(annotated, schemas, across)
        schemas |= {pool.category: schemas[pool.images[0].category] for pool in pools}
        made, note = _made_pairs(pools, pairs, min_common, seed)
    else:
        made = read_pair_list(root / pairs, {image.id: image for image in annotated})
        note = f"pairs of {Path(pairs).name}"
    # A list of pairs may name categories that the annotation file does not have.
    for pair in made:
        if schemas[pair.source.category].names != schemas[pair.target.category].names:
            raise InputError(f"{file.path}: pair {pair.id} joins categories with different keypoint names")
        schemas.setdefault(pair.category, schemas[pair.source.category])
    base: ThresholdBase = "box" if all(image.box for image in annotated) else "image"
    return assemble(NAME, split, schemas, made, base, [*notes, note], outside, min_common)


def open_folder(
    root: Path,
    split: str,
    annotations: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    hidden: bool = False,
) -> tuple[CocoFile, list[AnnotatedImage], list[str]]:
    """The annotation file of a folder, its images, and a line for each keypoint outside its image.

    The arguments are those of `load`.
    """
    file = read_coco(_annotation_file(root, split, annotations))
    names = [str(each["file_name"]) for each in file.images.values()]
    folder = root / images if images is not None else image_folder(root, names) or root / "images"
    made, annotated = Annotations(), []
    instances = Counter(annotation["image_id"] for annotation in file.annotations)
    for annotation in sorted(file.annotations, key=itemgetter("image_id", "id")):
        image = _image(file, annotation, folder, root / (masks or "masks"), hidden, made)
        if image.keypoints.visible.any():
            several = instances[annotation["image_id"]] > 1
            annotated.append(replace(image, id=f"{image.id}#{annotation['id']}") if several else image)
    return file, annotated, made.outside


def _image(
    file: CocoFile,
    annotation: dict[str, Any],
    images: Path,
    masks: Path,
    hidden: bool,
    annotations: Annotations,
) -> AnnotatedImage:
    entry = file.images[annotation["image_id"]]
    where = f"{file.path}: annotation {annotation['id']}"
    width, height = entry.get("width"), entry.get("height")
    mask = entry.get("mask_file_name") or annotation.get("mask_file_name")
    return annotations.image(
        str(entry["file_name"]).replace("\\", "/"),
        images / entry["file_name"],
        file.categories[annotation["category_id"]]["name"],
        keypoint_places(annotation, hidden),
        (int(width), int(height)) if width and height else None,
        where,
        corner_box(annotation, where),
        mask_path=masks / mask if mask else None,
        attributes={key: value for key, value in annotation.items() if key not in _STANDARD},
    )


def read_schemas(file: CocoFile) -> tuple[dict[str, Schema], list[str]]:
    """Schema of every category by name, and what was inferred; a category's own entries go before the file's.

    Keypoints called exactly as in AP-10K get the subgroups of AP-10K if the file gives none.
    """
    schemas: dict[str, Schema] = {}
    said: dict[str, list[str]] = defaultdict(list)
    for number, category in sorted(file.categories.items()):
        names = file.names(number)
        pairs = category.get("flip_pairs", _inside(file.flip_pairs, len(names)))
        groups = category.get("keypoint_groups", _inside(file.keypoint_groups, len(names)))
        where = f"{file.path}: category {category['name']!r}"
        as_ap10k = groups is None and tuple(names) == AP10K.names
        schema, inferred = make_schema(names, pairs, dict(AP10K.subgroups) if as_ap10k else groups, where)
        if as_ap10k:
            inferred.append(f"named as in AP-10K, so with its subgroups: {describe_groups(schema)}")
        schemas[category["name"]] = replace(schema, skeleton=_limbs(category, len(names)))
        for sentence in inferred:
            said[sentence].append(category["name"])
    return schemas, [f"{shortened(categories)}: {sentence}" for sentence, categories in said.items()]


def _limbs(category: Mapping[str, Any], count: int) -> tuple[tuple[int, int], ...]:
    """Joined keypoints, 0-based; what in a category's skeleton is no two of its keypoints is passed over."""
    limbs = category.get("skeleton")
    return tuple(
        (limb[0] - 1, limb[1] - 1)
        for limb in (limbs if isinstance(limbs, list) else ())
        if isinstance(limb, list)
        and len(limb) == 2
        and all(isinstance(each, int) and 1 <= each <= count for each in limb)
    )


def image_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Where a file's images are: in ``images`` or ``data`` beside it, or beside it; ``None``: nowhere there.

    Some of the images may be missing: one of the first hundred tells the folder.
    """
    folders = (root / each for each in ("images", "data", "."))
    return next((each for each in folders if any((each / name).is_file() for name in names[:100])), None)


def keypoint_places(
    annotation: Mapping[str, Any], hidden: bool = False
) -> dict[int, tuple[float, float] | None]:
    """Places by id of an annotation's keypoints; ``None`` for those that do not count as visible."""
    values, needed = annotation["keypoints"], HIDDEN if hidden else VISIBLE
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return {number: (x, y) if flag >= needed else None for number, (x, y, flag) in enumerate(triples)}


def corner_box(annotation: Mapping[str, Any], where: str) -> Box | None:
    """COCO's box (x, y, width, height) as (x1, y1, x2, y2); ``None`` where there is none."""
    values = annotation.get("bbox")
    if not values:
        return None
    try:
        x, y, width, height = values
        corners = (x, y, x + width, y + height)
    except (TypeError, ValueError):
        raise InputError(f"{where}: bbox {values!r} is not x, y, width, height") from None
    return make_box(corners, where)


@dataclass(frozen=True)
class _Pool:
    """Ordered candidate pairs of one category, numbered 0 … total-1, without writing them down."""

    category: str
    images: Sequence[AnnotatedImage]
    partners: Sequence[AnnotatedImage] | None = None

    @property
    def total(self) -> int:
        if self.partners is None:
            return len(self.images) * (len(self.images) - 1)
        return 2 * len(self.images) * len(self.partners)

    def __getitem__(self, number: int) -> tuple[AnnotatedImage, AnnotatedImage]:
        if self.partners is None:
            # Every image comes with all others: its own place is skipped.
            first, second = divmod(number, len(self.images) - 1)
            return self.images[first], self.images[second + (second >= first)]
        # Even numbers are pairs from the first category to the second, odd ones lead back.
        forward, backward = divmod(number, 2)
        first, second = divmod(forward, len(self.partners))
        pair = self.images[first], self.partners[second]
        return pair[::-1] if backward else pair


def _pools(images: Sequence[AnnotatedImage], schemas: Mapping[str, Schema], across: bool) -> list[_Pool]:
    """Candidates by category or, ``across``, by two categories with the same keypoint names."""
    grouped: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        grouped[image.category].append(image)
    if not across:
        return [_Pool(category, each) for category, each in sorted(grouped.items()) if len(each) > 1]
    pools = [
        _Pool(f"{a}+{b}", grouped[a], grouped[b])
        for a, b in combinations(sorted(grouped), 2)
        if schemas[a].names == schemas[b].names
    ]
    if not pools:
        raise InputError(
            "no two categories have the same keypoint names, so there are no pairs across categories"
        )
    return pools


def _made_pairs(
    pools: Sequence[_Pool], pairs: str | int, min_common: int, seed: int
) -> tuple[list[Pair], str]:
    """So many random pairs of each pool with enough keypoints in common, or all of them, and how many."""
    total = sum(pool.total for pool in pools)
    wanted = total if pairs == "all" else int(pairs)
    if wanted < 1 and pairs != "all":
        raise InputError(f"pairs={pairs}: at least one pair a category is needed, or 'all'")
    made = [pair for pool in pools for pair in _pool_pairs(pool, wanted, min_common, seed)]
    if pairs == "all":
        return made, f"all ordered pairs: {len(made)} of {total} have enough keypoints in common"
    how = f"up to {wanted} random ones a category (seed {seed}) of {total} ordered pairs"
    return made, f"{len(made)} pairs: {how}"


def _pool_pairs(pool: _Pool, wanted: int, min_common: int, seed: int) -> Iterator[Pair]:
    def usable(number: int) -> bool:
        return in_common(*pool[number]) >= min_common

    for number in draw(pool.total, wanted, f"{NAME}/{seed}/{pool.category}", usable):
        source, target = pool[number]
        apart = azimuth_difference(source.attributes, target.attributes)
        yield Pair(f"{source.id}--{target.id}", pool.category, source, target, apart)


def _annotation_file(root: Path, split: str, given: str | None) -> Path:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of the annotation file as root")
    if given is not None:
        return root / given
    names = [f"{split}.json", f"annotations/{split}.json", "annotations.json"]
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None:
        raise InputError(f"{root}: no {' or '.join(names)} in it; name the file with annotations=FILE")
    return found


def _inside(entries: Any, count: int) -> Any:
    """Those of a file's flip pairs or groups whose ids a category of so many keypoints has."""
    try:
        if isinstance(entries, dict):
            return {name: ids for name, ids in entries.items() if max(ids) < count}
        return [ids for ids in entries if max(ids) < count]
    except (TypeError, ValueError):
        return entries


def _by_id(content: dict[str, Any], key: str, label: str, path: Path) -> dict[int, dict[str, Any]]:
    """The entries of a list by their ids, each with a text under ``label``."""
    found: dict[int, dict[str, Any]] = {}
    for place, entry in enumerate(content[key]):
        if not isinstance(entry, dict) or "id" not in entry or label not in entry:
            raise InputError(f"{path}: {key}[{place}] lacks id or {label}")
        if not isinstance(entry[label], str):
            raise InputError(f"{path}: {key}[{place}]: {label} must be text")
        if not isinstance(entry["id"], int):
            raise InputError(f"{path}: {key}[{place}] has the id {entry['id']!r}; expected a whole number")
        if entry["id"] in found:
            raise InputError(f"{path}: two {key} have the id {entry['id']}; ids must differ")
        found[entry["id"]] = entry
    return found


def _annotations(
    entries: list[Any],
    path: Path,
    images: Mapping[int, dict[str, Any]],
    categories: Mapping[int, dict[str, Any]],
    objects: bool,
) -> Iterator[dict[str, Any]]:
    """Annotations of a single object, checked, each with an id."""
    for place, entry in enumerate(entries):
        ids = [entry.get(key) for key in ("image_id", "category_id")] if isinstance(entry, dict) else [None]
        if not all(isinstance(each, int) for each in ids):
            raise InputError(f"{path}: annotations[{place}] lacks image_id or category_id")
        known = entry["category_id"] in categories and "keypoints" in entry
        if entry.get("iscrowd") or not (objects or known):
            continue
        where = f"{path}: annotation {entry.get('id', place)}"
        if entry["image_id"] not in images:
            raise InputError(f"{where} belongs to image {entry['image_id']}, which the file does not list")
        if not objects:
            values, count = entry["keypoints"], len(categories[entry["category_id"]]["keypoints"])
            if not isinstance(values, list) or len(values) != 3 * count:
                raise InputError(f"{where} must have {3 * count} numbers (x, y, flag for {count} keypoints)")
            if not all(isinstance(value, (int, float)) for value in values):
                raise InputError(f"{where} has a keypoint value that is no number")
        yield entry if isinstance(entry.get("id"), int) else {**entry, "id": place}
