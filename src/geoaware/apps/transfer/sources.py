"""The annotated images that keypoints are carried over from: a COCO-keypoints file to `Queries`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.apps.transfer.crop import Window, crop_window
from geoaware.apps.transfer.vote import Queries
from geoaware.data.coco import CocoFile, open_folder, read_schemas
from geoaware.data.images import load_annotated
from geoaware.matcher import Matcher
from geoaware.method.alignment import CANDIDATES, mirror_points
from geoaware.method.geometry import Pose, clamp_points, pose_image, pose_points
from geoaware.method.keypoints import Schema
from geoaware.method.matching import descriptors
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Sources:
    """Annotated images of one category.

    Attributes:
        path: the annotation file.
        schema: what the keypoints mean.
        images: one for each annotation with a visible keypoint, by image and annotation id.
        category: its entry in the file.
        flip_pairs: the file's own list of mirror partners, or ``None``.
        keypoint_groups: the file's own list or mapping of alike keypoints, or ``None``.
        notes: what was inferred, one sentence each.
    """

    path: Path
    schema: Schema
    images: tuple[AnnotatedImage, ...]
    category: Mapping[str, Any]
    flip_pairs: Any = None
    keypoint_groups: Any = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the category."""
        return str(self.category["name"])

    def hash(self) -> str:
        """SHA-256 of everything in the annotations that a transfer depends on; not of image files."""
        lines: list[Any] = [self.name, list(self.schema.names), self.schema.flip_pairs]
        for each in self.images:
            ids = each.keypoints.visible_ids
            lines.append([each.id, each.size, each.box, ids, each.keypoints.at(ids).tolist()])
        return hashlib.sha256(json.dumps(lines, ensure_ascii=False).encode()).hexdigest()


def read_sources(
    path: Path, images: Path | None = None, category: str | None = None, hidden: bool = False
) -> Sources:
    """Read annotated images, and make sure that a transfer can use them.

    Args:
        path: a COCO-keypoints file; ``flip_pairs`` and ``keypoint_groups`` may stand beside its lists, or are
            inferred from the names.
        images: folder of the images; ``images`` or ``data`` beside the file, or its own folder.
        category: whose annotations are used; needed where the file has several.
        hidden: count keypoints that are annotated but hidden (flag 1) as visible.

    Raises:
        InputError: no such file, no annotations file, no keypoint, several categories, a keypoint outside its
            image, or an image is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a COCO-keypoints JSON of the annotated images")
    folder = None if images is None else str(images.absolute())
    file, annotated, outside = open_folder(path.parent, path.stem, path.name, folder, None, hidden)
    if outside:
        raise InputError(f"{outside[0]}: outside; mend the annotation ({len(outside)} such keypoints)")
    name = _choose(file, annotated, category)
    chosen = tuple(each for each in annotated if each.category == name)
    missing = [each.path for each in chosen if not each.path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such image, named in {path} ({len(missing)} of {len(chosen)} are missing); "
            "give their folder with --source-images DIR"
        )
    ((number, entry),) = ((key, each) for key, each in file.categories.items() if each["name"] == name)
    schemas, notes = read_schemas(replace(file, categories={number: entry}))
    return Sources(path, schemas[name], chosen, entry, file.flip_pairs, file.keypoint_groups, tuple(notes))


def encode_sources(
    sources: Sources,
    matcher: Matcher,
    windows: Sequence[Window],
    progress: Progress | None = None,
) -> Queries:
    """The descriptors of the sources' keypoints, in every candidate pose; each image is encoded once.

    A mirrored image is read at the mirrored place of each keypoint's partner. Where the partner is not
    annotated, the keypoint itself is read in the image as it is, as `alignment.match_posed` does.

    Args:
        sources: whose keypoints.
        matcher: its extractor, post-processor and pose setting.
        windows: the part of each image to encode.
        progress: see `Progress`.

    Raises:
        InputError: an image cannot be read.
    """
    poses = CANDIDATES[matcher.pose]
    rows: list[Tensor] = []
    known: list[Tensor] = []
    for done, (annotated, window) in enumerate(zip(sources.images, windows, strict=True)):
        if progress is not None:
            progress("encoding sources", done, len(windows))
        image = open_window(annotated, window)
        found, there = _read(image, *_places(annotated, window, sources.schema), poses, matcher)
        rows.append(found)
        known.append(there)
    return Queries(poses, torch.stack(rows), torch.stack(known))


def source_windows(sources: Sources, margin: float, below: float) -> list[Window]:
    """The part of each source to encode; see `crop_window`."""
    return [
        _with_keypoints(crop_window(each.box, each.size, margin, below, f"{each.id}: the box"), each)
        for each in sources.images
    ]


def open_window(annotated: AnnotatedImage, window: Window) -> Image.Image:
    """The part of an annotated image; see `load_annotated`."""
    return load_annotated(annotated).crop(window)


def _choose(file: CocoFile, images: Sequence[AnnotatedImage], category: str | None) -> str:
    """The category to carry over."""
    known = [str(each["name"]) for each in file.categories.values()]
    if category is not None and category not in known:
        raise InputError(
            f"{file.path}: has no category {category!r} with keypoints; it has {', '.join(known)}"
        )
    used = sorted({each.category for each in images if category in (None, each.category)})
    if not used:
        whose = "" if category is None else f" of category {category!r}"
        raise InputError(f"{file.path}: no annotation{whose} has a visible keypoint; annotate at least one")
    if len(used) > 1:
        raise InputError(
            f"{file.path}: annotations of several categories ({', '.join(used)}); choose one with --category"
        )
    return used[0]


def _with_keypoints(window: Window, image: AnnotatedImage) -> Window:
    """The window, widened to hold every annotated keypoint: an arm may leave a careless box."""
    xy = image.keypoints.at(image.keypoints.visible_ids)
    low, high = xy.amin(dim=0).floor().tolist(), xy.amax(dim=0).floor().tolist()
    left, top, right, bottom = window
    width, height = image.size
    return (
        min(left, int(low[0])),
        min(top, int(low[1])),
        max(right, min(width, int(high[0]) + 1)),
        max(bottom, min(height, int(high[1]) + 1)),
    )


def _places(image: AnnotatedImage, window: Window, schema: Schema) -> tuple[Tensor, Tensor, list[int]]:
    """Pixels in the part of the image, annotated or not, and partner of every keypoint of the schema."""
    xy = torch.zeros(len(schema), 2, dtype=torch.float64)
    xy[list(image.keypoints.ids)] = image.keypoints.xy.double()
    left, top, right, bottom = window
    inside = clamp_points(xy - torch.tensor([left, top]), (right - left, bottom - top))
    return inside, schema.visibility(image.keypoints), list(schema.partners)


def _read(
    image: Image.Image,
    xy: Float[Tensor, "k 2"],
    visible: Bool[Tensor, " k"],
    partners: list[int],
    poses: tuple[Pose, ...],
    matcher: Matcher,
) -> tuple[Float[Tensor, "p k c"], Bool[Tensor, "p k"]]:
    """Unit descriptors by pose, and which are known."""
    rows: list[Tensor] = []
    known: list[Tensor] = []
    for pose, features in zip(
        poses, matcher.features([pose_image(image, each) for each in poses]), strict=True
    ):
        mirrored = pose == "flip"
        read = mirror_points(xy, image.size, partners, visible)
        places = read.places if mirrored else pose_points(xy, image.size, pose)
        found = descriptors(features, places, matcher.settings.interpolate).float()
        if mirrored:
            found = torch.where(read.known[:, None].to(found.device), found, rows[0])
            known.append(read.known | visible)
        else:
            known.append(visible)
        rows.append(found)
    return F.normalize(torch.stack(rows), dim=-1), torch.stack(known).to(rows[0].device)
