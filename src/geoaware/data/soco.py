"""SOCO (Dünkel et al. 2026): objects of 100 categories, matched by part, by kind of part, across categories.

Everything is read from the files of the pairs, which hold the points of both images.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from geoaware.data import fields
from geoaware.data.dataset import (
    Annotations,
    DataSet,
    assemble,
    choose_split,
    files_by_folder,
    require_folders,
)
from geoaware.data.files import read_json
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError, reason

NAME = "soco"
FOLDERS = ("Images", "PairAnnotations")
SOCO_SPLITS: Mapping[str, str] = {
    "intra": "intra",
    "cross": "cross",
    "trn": "trainsplits/train",
    "test": "trainsplits/test",
}
"""Folder below PairAnnotations of each split."""

_PAIR = "the annotation of a pair of SOCO"


def load(
    root: Path,
    split: str = "intra",
    *,
    match: Literal["object", "concept"] = "object",
    categories: Sequence[str] | None = None,
) -> DataSet:
    """SOCO's pairs of a split.

    Keypoints of two images go together by their names. Their ids follow from the order in which the names
    come first in the files of a category of pairs; keypoints of one concept (all wheels) are a subgroup. In
    the split ``cross``, a category is a group of pairs, and so is that of both images.

    Args:
        root: folder with Images and PairAnnotations.
        split: intra (within a category), cross (between categories), trn (or train) or test.
        match: ``"object"``: the same part of the object is right (SOC; Cross-SOC in ``cross``).
            ``"concept"``: any part of the same concept is (CC), and a distance is that to the nearest.
        categories: only pairs of these.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, FOLDERS, "SOCO")
    chosen = own_split(split)
    if match not in ("object", "concept"):
        raise InputError(f"match={match!r}: choose object or concept")
    reader = Reader(root, match == "concept")
    pairs = [reader.pair(path) for path in pair_files(root, chosen, categories)]
    note = {"object": "the same part is right", "concept": "any part of the same concept is right"}[match]
    return assemble(NAME, chosen, reader.schemas(), pairs, "box", [note], reader.annotations)


def own_split(split: str) -> str:
    """The split as it is called here."""
    return choose_split(split, list(SOCO_SPLITS), "SOCO")


def pair_files(root: Path, split: str, categories: Sequence[str] | None = None) -> list[Path]:
    """The annotations of a split's pairs, by category and name; at least one."""
    folder = root / "PairAnnotations" / SOCO_SPLITS[own_split(split)]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; unpack PairAnnotations.zip in the root of SOCO")
    absent = "holds no CATEGORY/PAIR.json; unpack PairAnnotations.zip again"
    return files_by_folder(folder, categories, "*.json", "category", absent)


@dataclass
class Reader:
    """Reads the files of pairs one by one; an image with the same points is made once for a category."""

    root: Path
    concepts: bool = False
    annotations: Annotations = field(default_factory=Annotations)
    _ids: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    _alike: dict[str, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(dict))
    _images: dict[tuple[str, ...], AnnotatedImage] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)

    def pair(self, path: Path) -> Pair:
        """The pair of a file."""
        content = read_json(path, _PAIR)
        try:
            category = fields.text(content.get("pair_group"), path.parent.name)
            source, target = (self._image(content, side, category, path) for side in ("src", "trg"))
            answers = self._answers(content, category)
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: is not {_PAIR} ({reason(error)}); fetch it again") from None
        same = {number: (number,) for number in source.keypoints.ids if number in target.keypoints.ids}
        name = f"{path.parent.name}/{path.stem}"
        return Pair(name, category, source, target, answers=None if answers == same else answers)

    def schemas(self) -> dict[str, Schema]:
        """What the keypoints of each category of pairs mean, as far as its files were read."""
        return {
            category: Schema.infer(
                list(ids),
                subgroups={
                    concept: sorted(members)
                    for concept, members in self._alike[category].items()
                    if len(members) > 1
                },
            )
            for category, ids in self._ids.items()
        }

    def _image(self, content: Mapping[str, Any], side: str, category: str, path: Path) -> AnnotatedImage:
        own = fields.text(content.get(f"{side}_category"), "") or str(content["category"])
        name, listed = str(content[f"{side}_image"]), content[f"{side}_keypoints"]
        key = (category, own, name, json.dumps([listed, content.get(f"{side}_bndbox")]))
        if key not in self._images:
            ids, alike, points = self._ids[category], self._alike[category], {}
            for each in listed:
                number = ids.setdefault(str(each["name"]), len(ids))
                points[number] = each["pos"]
                if (concept := each.get("concept_name")) is not None:
                    alike.setdefault(str(concept), set()).add(number)
            # Ids are those of the pair's category, and another pair could show other points.
            called = f"{own}/{name}" if own == category else f"{own}/{name}@{category}"
            called = f"{called}@{path.stem}" if called in self._named else called
            self._named.add(called)
            size = content.get(f"{side}_imsize") or (None, None)
            self._images[key] = self.annotations.image(
                called,
                self.annotations.file(self.root / "Images" / own, name),
                category,
                points,
                fields.size(size[0], size[1], str(path)),
                str(path),
                content.get(f"{side}_bndbox"),
            )
        return self._images[key]

    def _answers(self, content: Mapping[str, Any], category: str) -> dict[int, tuple[int, ...]]:
        """By the id of each source keypoint that counts, those of the target that are right."""
        ids, found = self._ids[category], defaultdict[int, set[int]](set)
        if not self.concepts:
            return {ids[str(name)]: (ids[str(name)],) for name in content["semantic_overlap"]}
        for group in content["concept_matches"]:
            right = {ids[str(name)] for name in group["trg_keypoints"]}
            for name in group["src_keypoints"]:
                found[ids[str(name)]] |= right
        return {number: tuple(sorted(right)) for number, right in found.items() if right}
