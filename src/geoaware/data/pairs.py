"""Lists of pairs as JSON lines: of images known by id, or self-contained, of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoaware.data import fields
from geoaware.data.dataset import (
    LEFT_OUT,
    Annotations,
    DataSet,
    assemble,
    azimuth_difference,
    keypoint_counts,
    usual_base,
)
from geoaware.data.exif import check_exif
from geoaware.data.files import known_as, read_json_lines
from geoaware.data.names import Names
from geoaware.method.keypoints import Schema, infer_flip_pairs, part_name
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError, reason

NAME = "pairs"
DEFAULT_CATEGORY = "object"
REPEATED = f"{LEFT_OUT}: lines that repeat a pair"

_PAIR_FORM = (
    '{"source": "a.jpg", "target": "b.jpg", "source_points": [[x, y], null, …], "target_points": […], '
    '"category": …}'
)
_CATEGORY_FORM = '{"category": "chair", "keypoints": ["front left leg", …]}'
_KNOWN = frozenset(
    {"id", "category", "source", "target", "azimuth_difference"}
    | {f"{side}_{what}" for side in ("source", "target") for what in ("points", "box", "mask")}
)


def read_pair_list(
    path: Path, images: Mapping[str, AnnotatedImage], notes: list[str] | None = None
) -> list[Pair]:
    """Pairs of known images: ``{"source": id, "target": id}``, optionally ``id`` and ``category``.

    Without a category a pair is counted under its source's. ``notes`` takes a sentence for each way in which
    images are spelled otherwise than their ids.
    """
    known = Names(images)
    expected = '{"source": image id, "target": image id}, one pair a line'
    pairs = []
    for where, entry in read_json_lines(path, expected):
        try:
            source, target = (images[known.find(entry[side]) or entry[side]] for side in ("source", "target"))
        except (KeyError, TypeError, AttributeError) as error:
            some = ", ".join(list(images)[:3])
            wanted = fields.shown(error.args[0]) if isinstance(error, KeyError) else "that is no text"
            raise InputError(f"{where}: no image or entry {wanted}; known: {some}, …") from None
        pairs.append(
            Pair(
                fields.text(entry.get("id"), f"{source.id}--{target.id}"),
                fields.text(entry.get("category"), source.category),
                source,
                target,
                azimuth_difference(source, target),
            )
        )
    if notes is not None:
        notes += known.notes()
    return pairs


def load(
    root: Path,
    split: str = "all",
    *,
    pairs: str = "pairs.jsonl",
    images: str = ".",
    exif: str = "upright",
) -> DataSet:
    """A self-contained list of pairs of one's own, one JSON object a line (docs/data.md).

    A pair: ``source`` and ``target`` (files), ``source_points`` and ``target_points`` (one ``[x, y]`` or null
    for each id 0 … k-1), and optionally ``category``, ``id``, ``source_box`` and ``target_box`` (x1 y1 x2
    y2), ``source_mask`` and ``target_mask`` (files), ``azimuth_difference``. A category, before its first
    pair or after: ``category``, ``keypoints`` (names), optionally ``flip_pairs``, ``keypoint_groups`` (ids).

    Args:
        root: folder that the other names are relative to.
        split: a label.
        pairs: the file.
        images: folder of the images and masks.
        exif: ``"stored"``: points, boxes and masks are of the pixels as stored, not as turned by EXIF.

    Raises:
        InputError: something is missing or wrong, a point outside its image too; names file and line.
    """
    path = root / pairs
    reader = _Reader(root / images, path, Annotations(check_exif(exif)))
    for where, entry in read_json_lines(path, _PAIR_FORM):
        reader.line(entry, where)
    schemas, notes = reader.schemas()
    base, said = usual_base([(each.id, each.box) for each in reader.images])
    return assemble(NAME, split, schemas, reader.pairs, base, [*notes, *said], reader.annotations)


class _Reader:
    """Takes the lines one by one; an image with the same points in several pairs is made once."""

    def __init__(self, images: Path, path: Path, annotations: Annotations) -> None:
        self.folder = images
        self.path = path
        self.pairs: list[Pair] = []
        self.annotations = annotations
        self._images: dict[str, AnnotatedImage] = {}
        self._known: set[tuple[str, str, str]] = set()
        self._versions: dict[str, int] = {}
        self._categories: dict[str, dict[str, Any]] = {}

    @property
    def images(self) -> list[AnnotatedImage]:
        """Every image once for each set of points on it."""
        return list(self._images.values())

    def line(self, entry: dict[str, Any], where: str) -> None:
        if "keypoints" in entry and "source" not in entry:
            names = entry["keypoints"]
            named = isinstance(names, list) and all(isinstance(each, str) for each in names)
            category = fields.text(entry.get("category"), "")
            if not named or not category:
                raise InputError(f"{where}: a category is described by {_CATEGORY_FORM}")
            if self._categories.setdefault(category, entry) != entry:
                raise InputError(f"{where}: {category!r} is described otherwise in another line; leave one")
            return
        unknown = sorted(set(entry) - _KNOWN)
        if unknown:
            raise InputError(
                f"{where}: unknown entry {fields.shown(unknown[0])}{known_as(entry)}; known: "
                f"{', '.join(sorted(_KNOWN))}"
            )
        category = fields.text(entry.get("category"), DEFAULT_CATEGORY)
        source, target = (self._side(entry, side, category, where) for side in ("source", "target"))
        number = len(self.pairs) + 1
        pair_id = fields.text(entry.get("id"), f"{number:06d}")
        apart = entry.get("azimuth_difference")
        if apart is not None:
            apart = fields.whole(apart, f"{where}: azimuth_difference")
            if apart not in range(5):
                raise InputError(
                    f"{where}: azimuth_difference is {apart}; expected 0 … 4 steps of 45 degrees"
                )
        if entry.get("id") is None and (category, source.id, target.id) in self._known:
            self.annotations.noted[REPEATED].append(where)
            return
        self._known.add((category, source.id, target.id))
        self.pairs.append(Pair(pair_id, category, source, target, apart))

    def schemas(self) -> tuple[dict[str, Schema], list[str]]:
        """Schema of every category, and what was inferred."""
        schemas, notes = {}, []
        for category, count in sorted(keypoint_counts(self._images.values()).items()):
            line = self._categories.get(category, {})
            names = line.get("keypoints") or [f"point {each}" for each in range(count)]
            if count > len(names):
                raise InputError(
                    f"{self.path}: {category!r} names {len(names)} keypoints, but pairs have {count}"
                )
            given = mirrored(line, f"{self.path}: {category}"), line.get("keypoint_groups")
            schemas[category], inferred = make_schema(names, *given, f"{self.path}: {category}")
            notes += [f"{category}: {each}" for each in inferred]
        return schemas, notes

    def _side(self, entry: dict[str, Any], side: str, category: str, where: str) -> AnnotatedImage:
        name, points = entry.get(side), entry.get(f"{side}_points")
        if not isinstance(name, str) or not isinstance(points, list):
            raise InputError(
                f"{where}: no {side!r} or no '{side}_points'{known_as(entry)}; expected {_PAIR_FORM}"
            )
        path, mask = self.annotations.file(self.folder, name), entry.get(f"{side}_mask")
        mask_path = None if mask is None else self.annotations.file(self.folder, str(mask))
        if mask_path is not None and not mask_path.is_file():
            raise InputError(f"{mask_path}: no such mask, named in {where}")
        box = entry.get(f"{side}_box")
        content = json.dumps([name, category, points, box, mask])
        if content not in self._images:
            self._versions[name] = version = self._versions.get(name, 0) + 1
            image = self.annotations.image(
                Path(name).as_posix() + (f"#{version}" if version > 1 else ""),
                path,
                category,
                self.annotations.listed(points, f"{where}: {name}"),
                where=f"{where}: {name}",
                box=box,
                mask_path=mask_path,
            )
            if outside := self.annotations.outside:
                raise InputError(
                    f"{outside[0]}: outside; give pixels of this image, or null where there is nothing"
                )
            self._images[content] = image
        return self._images[content]


def make_schema(names: list[str], flip_pairs: Any, groups: Any, where: str) -> tuple[Schema, list[str]]:
    """A schema from what a file says, the rest inferred from the names, and a sentence for each inference.

    Flip pairs are a list of [id, id], groups a list of lists of ids or a mapping from name to ids; either may
    be ``None``. Messages call the place ``where``.
    """
    flip_pairs, groups, note = rebased(names, flip_pairs, groups)
    try:
        named = groups if isinstance(groups, dict) or groups is None else _named(names, groups)
        schema = Schema.infer(names, None if flip_pairs is None else [(a, b) for a, b in flip_pairs], named)
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where}: flip_pairs or keypoint_groups cannot be used: {reason(error)}") from None
    inferred = [note] if note else []
    if flip_pairs is None:
        found = ", ".join(f"{names[a]} / {names[b]}" for a, b in schema.flip_pairs)
        inferred.append(f"flip pairs inferred from the names: {found or 'none found'}")
    if groups is None:
        inferred.append(f"subgroups inferred from the names: {describe_groups(schema)}")
    return schema, inferred


def mirrored(entry: Mapping[str, Any], where: str) -> Any:
    """The flip pairs of a category or file, also from ``flip_idx``, the partner of every keypoint."""
    partners = entry.get("flip_idx")
    if partners is None or entry.get("flip_pairs") is not None:
        return entry.get("flip_pairs")
    places = range(len(partners)) if isinstance(partners, list) else ()
    if not places or any(each not in places or partners[each] != own for own, each in enumerate(partners)):
        raise InputError(
            f"{where}: flip_idx {fields.shown(partners)} does not give each keypoint its partner"
        )
    return [[own, each] for own, each in enumerate(partners) if own < each]


def keypoint_ids(members: Any, names: Sequence[str], first: int = 0) -> list[int]:
    """Keypoints that are given by name, or by number from ``first``, by number from 0."""
    if not isinstance(members, list | tuple):
        raise TypeError(members)
    named = {name for name in names if names.count(name) == 1}
    return [
        names.index(each) if isinstance(each, str) and each in named else fields.whole(each, "") - first
        for each in members
    ]


def rebased(names: Sequence[str], flip_pairs: Any, groups: Any) -> tuple[Any, Any, str]:
    """Flip pairs and groups by ids from 0, and a note; what cannot be understood is handed back as it is.

    They may hold names. Pairs that agree with left and right in the names only if they count from 1 do so,
    and so do the groups beside them.
    """
    try:
        own, lower = (_numbered(flip_pairs, names, first) for first in (0, 1))
        as_given, shifted = (_numbered(groups, names, first) for first in (0, 1))
    except (TypeError, InputError):
        return flip_pairs, groups, ""
    if not own or isinstance(own, dict) or any(len(pair) != 2 for pair in own):
        return own, as_given, ""
    named = {frozenset(pair) for pair in infer_flip_pairs(names)}
    agree, agree_lower = (sum(frozenset(pair) in named for pair in pairs) for pairs in (own, lower))
    last = not named and max(map(max, own)) == len(names)
    if min(map(min, lower)) >= 0 and (agree_lower > agree or last):
        inside = shifted.values() if isinstance(shifted, dict) else shifted or ()
        groups = shifted if all(min(each, default=0) >= 0 for each in inside) else as_given
        return lower, groups, "flip pairs count from 1, as left and right in the names or the last one show"
    sided = frozenset[int]().union(*named)
    differ = any(sided & set(pair) and frozenset(pair) not in named for pair in own)
    return (
        own,
        as_given,
        "flip pairs are used as given, though the names pair other keypoints" if differ else "",
    )


def _numbered(entries: Any, names: Sequence[str], first: int) -> Any:
    """Flip pairs or groups whose keypoints are all numbers from 0."""
    if isinstance(entries, dict):
        return {str(name): keypoint_ids(each, names, first) for name, each in entries.items()}
    return None if entries is None else [keypoint_ids(each, names, first) for each in entries]


def describe_groups(schema: Schema) -> str:
    """Subgroups by name, with their keypoints."""
    named = [
        f"{part} ({', '.join(schema.names[each] for each in ids)})" for part, ids in schema.subgroups.items()
    ]
    return "; ".join(named) or "none found"


def _named(names: list[str], groups: list[list[int]]) -> dict[str, tuple[int, ...]]:
    """Groups by the part that their keypoints' names have in common."""
    named: dict[str, tuple[int, ...]] = {}
    for members in groups:
        label = (
            part_name(names, members) if members and all(0 <= each < len(names) for each in members) else ""
        )
        free = label if label and label not in named else f"{label or 'group'} {len(named) + 1}"
        named[free] = tuple(sorted(members))
    return named
