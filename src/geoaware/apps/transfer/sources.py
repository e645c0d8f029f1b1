"""The annotated images that keypoints are carried over from: a COCO-keypoints file to `Queries`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geoaware.apps.transfer.crop import Window, crop_window
from geoaware.apps.transfer.masks import MOST, Cells, cells_of
from geoaware.apps.transfer.vote import Queries
from geoaware.data.coco import open_folder
from geoaware.data.coco_file import CocoFile, read_schemas
from geoaware.data.dataset import LEFT_OUT, OUTSIDE, shortened
from geoaware.data.formats.hub import ACCEPTED
from geoaware.data.images import load_annotated
from geoaware.data.masks import object_mask
from geoaware.data.names import alike, missing_files
from geoaware.matcher import Matcher
from geoaware.method.alignment import CANDIDATES, mirror_points
from geoaware.method.geometry import clamp_points, pose_image, pose_points
from geoaware.method.keypoints import Schema
from geoaware.method.matching import descriptors
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.places import absolute
from geoaware.runs.progress import Tell, silent
from geoaware.runs.work import Engine, Local, calls

SLACK = 1.0
"""Pixels outside the image that an annotated keypoint may lie; one farther away counts as not annotated."""


@dataclass(frozen=True)
class Sources:
    """Annotated images of one category.

    Attributes:
        images: one for each annotation with a visible keypoint, by image and annotation id.
        category: its entry in the file.
        flip_pairs: the file's own list of mirror partners, or ``None``.
        keypoint_groups: the file's own list or mapping of alike keypoints, or ``None``.
        notes: what was inferred, one sentence each.
        format: of the file, as `data.formats.FORMATS` calls it.
    """

    path: Path
    schema: Schema
    images: tuple[AnnotatedImage, ...]
    category: Mapping[str, Any]
    flip_pairs: Any = None
    keypoint_groups: Any = None
    notes: tuple[str, ...] = ()
    format: str = "coco"

    @property
    def name(self) -> str:
        """Of the category."""
        return str(self.category["name"])

    def hash(self) -> str:
        """SHA-256 of everything in the annotations that a transfer depends on, without the image files."""
        lines: list[Any] = [self.name, list(self.schema.names), self.schema.flip_pairs]
        for each in self.images:
            ids = each.keypoints.visible_ids
            lines.append([each.id, each.size, each.box, ids, each.keypoints.at(ids).tolist()])
        return hashlib.sha256(json.dumps(lines, ensure_ascii=False).encode()).hexdigest()


def read_sources(
    path: Path,
    images: Path | None = None,
    category: str | None = None,
    hidden: bool = False,
    exif: str = "upright",
    accepted: bool = False,
) -> Sources:
    """Read annotated images, and make sure that a transfer can use them.

    Args:
        path: a COCO-keypoints file; ``flip_pairs`` and ``keypoint_groups`` may stand beside its lists, or are
            inferred from the names.
        images: folder of the images; ``images`` or ``data`` beside the file, or its own folder.
        category: whose annotations are used; needed where the file has several.
        hidden: count keypoints that are annotated but hidden (flag 1) as visible.
        exif: ``"stored"``: points, boxes and sizes are of the pixels as stored, not as turned by EXIF.
        accepted: of annotations that were reviewed, use only those that somebody has found right.

    Raises:
        InputError: the file is missing or no annotation file, there is no keypoint, there are several
            categories, an image is missing, or nothing is accepted.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such file{alike(path)}; give a COCO-keypoints JSON of the annotated images"
        )
    folder = None if images is None else str(absolute(images))
    file, annotated, read = open_folder(path.parent, path.stem, path.name, folder, None, hidden, exif, SLACK)
    if accepted:
        annotated = _accepted(file, annotated)
    name = _choose(file, annotated, category, read.outside)
    chosen = tuple(each for each in annotated if each.category == name)
    missing = missing_files([each.path for each in chosen])
    if missing:
        raise InputError(
            f"{missing[0]}: no such image, named in {path} ({len(missing)} of {len(chosen)} are missing); "
            "give their folder",
            parameter="source_images",
        )
    ((number, entry),) = ((key, each) for key, each in file.categories.items() if each["name"] == name)
    schemas, notes = read_schemas(replace(file, categories={number: entry}))
    notes += read.notes()
    if read.outside:
        notes.append(f"{LEFT_OUT}: {len(read.outside)} {OUTSIDE} ({read.outside[0]})")
    shown = {number for each in chosen for number in each.keypoints.visible_ids}
    if lacking := [str(each) for number, each in enumerate(schemas[name].names) if number not in shown]:
        notes.append(f"no source shows {shortened(lacking)}")
    return Sources(
        path, schemas[name], chosen, entry, file.flip_pairs, file.keypoint_groups, tuple(notes), file.format
    )


def encode_sources(
    sources: Sources,
    matcher: Matcher,
    windows: Sequence[Window],
    engine: Engine | None = None,
    progress: Tell = silent,
    masks: bool = False,
) -> tuple[Queries, list[Cells]]:
    """The descriptors of the sources' keypoints in every candidate pose, each read in the source's window.

    With ``masks``, also cells of those sources that have a mask.
    """
    encode, device = partial(_encode, sources, matcher, windows, masks), matcher.extractor.device.type
    encoded = calls(engine or Local(), encode, range(len(windows)), device, progress, "encoding sources")
    found, known, cells = zip(*encoded, strict=True)
    queries = Queries(CANDIDATES[matcher.pose], torch.stack(found), torch.stack(known))
    return queries, [each for each in cells if each is not None]


def source_windows(sources: Sources, margin: float, below: float) -> list[Window]:
    """The part of each source to encode: see `crop_window`, but it holds every annotated keypoint too."""
    windows = []
    for each in sources.images:
        left, top, right, bottom = crop_window(each.box, each.size, margin, below, f"{each.id}: the box")
        # An arm may leave a careless box.
        x1, y1, x2, y2 = map(math.floor, each.keypoints.box)
        width, height = each.size
        windows.append(
            (min(left, x1), min(top, y1), max(right, min(width, x2 + 1)), max(bottom, min(height, y2 + 1)))
        )
    return windows


def _accepted(file: CocoFile, images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Without those that were reviewed and are not accepted."""
    marks = [each.attributes.get(ACCEPTED) for each in images]
    if not any(mark is True for mark in marks):
        raise InputError(f"{file.path}: no annotation in it is accepted; accept some with geoaware review")
    return [each for each, mark in zip(images, marks, strict=True) if mark is None or mark is True]


def _choose(
    file: CocoFile, images: Sequence[AnnotatedImage], category: str | None, outside: Sequence[str]
) -> str:
    """The category to carry over."""
    known = [str(each["name"]) for each in file.categories.values()]
    if category is not None and category not in known:
        raise InputError(
            f"{file.path}: has no category {category!r} with keypoints; it has {', '.join(known)}"
        )
    used = sorted({each.category for each in images if category in (None, each.category)})
    if not used:
        whose = "" if category is None else f" of category {category!r}"
        lost = f" inside its image ({outside[0]})" if outside else ""
        raise InputError(
            f"{file.path}: no annotation{whose} has a visible keypoint{lost}; annotate at least one"
        )
    if len(used) > 1:
        raise InputError(
            f"{file.path}: annotations of several categories ({', '.join(used)}); choose one",
            parameter="category",
        )
    return used[0]


def _encode(
    sources: Sources, matcher: Matcher, windows: Sequence[Window], masks: bool, row: int
) -> tuple[Float[Tensor, "p k c"], Bool[Tensor, "p k"], Cells | None]:
    """Unit descriptors of every keypoint of the schema in a source, by pose, and which of them are known.

    Last, cells of the image as it is, if masks are carried and it has one.
    """
    annotated, window, schema = sources.images[row], windows[row], sources.schema
    poses = CANDIDATES[matcher.pose]
    image, keypoints = load_annotated(annotated).crop(window), annotated.keypoints
    # Each keypoint's place in the part of the image. What stands where nothing is annotated is not used.
    xy = torch.zeros(len(schema), 2, dtype=torch.float64)
    xy[list(keypoints.ids)] = keypoints.xy.double()
    xy = clamp_points(xy - torch.tensor(window[:2]), image.size)
    visible = schema.visibility(keypoints)
    mirrored = mirror_points(xy, image.size, schema.partners, visible)
    rows, known = list[Tensor](), list[Tensor]()
    posed = [pose_image(image, each) for each in poses]
    # Every keypoint has to stay in the part.
    turned = matcher.features(posed, [matcher.canvas(each, known=True) for each in posed])
    for pose, features in zip(poses, turned, strict=True):
        flipped = pose == "flip"
        places = mirrored.places if flipped else pose_points(xy, image.size, pose)
        found = descriptors(features, places, matcher.settings.interpolate).float()
        # A keypoint whose partner is not annotated is read in the image as it is, as `match_posed` does.
        rows.append(
            torch.where(mirrored.known[:, None].to(found.device), found, rows[0]) if flipped else found
        )
        known.append(mirrored.known | visible if flipped else visible)
    if not all(each.isfinite().all() for each in rows):
        raise NotFiniteError(f"{annotated.id}: the features of this source are not finite; try another dtype")
    cells, mask = None, object_mask(annotated) if masks else None
    if mask is not None:
        left, top, right, bottom = window
        cells = cells_of(turned[0], mask[top:bottom, left:right], -(-MOST // len(windows)), row)
    return F.normalize(torch.stack(rows), dim=-1), torch.stack(known).to(rows[0].device), cells
