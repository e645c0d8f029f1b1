"""The values that flow through the library: frozen, with shapes and units in the annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geoaware._moved import renamed
from geoaware.method.geometry import Canvas, Pose

Box = tuple[float, float, float, float]
"""Corners x1, y1, x2, y2 in pixels."""


def longer_side(box: Box) -> float:
    """The larger of a box's width and height."""
    return max(box[2] - box[0], box[3] - box[1])


@dataclass(frozen=True)
class FeatureMap:
    """Descriptors of one image on a square grid, with the canvas that ties the grid to its pixels.

    Attributes:
        data: one descriptor per cell, channels x rows x columns; rows equal columns. Extractors store it
            channels last, each descriptor in one piece.
        canvas: how the image was laid on the square that the grid covers.
        extractor: name and settings of what made it; maps of different extractors cannot be matched.
        levels: the raw maps (c_i, h_i, w_i) that the descriptors were made of, each at its own size: what a
            post-processor takes. Empty where they were not kept.
    """

    data: Float[Tensor, "c p p"]
    canvas: Canvas
    extractor: str
    levels: tuple[Float[Tensor, "_ _ _"], ...] = ()

    @property
    def grid(self) -> int:
        """Cells a side."""
        return self.data.shape[-1]

    @cached_property
    def norms(self) -> Float[Tensor, "p p"]:
        """Length of each descriptor, computed once: querying a map often then costs one small product."""
        return self.data.float().square().sum(dim=0).sqrt()

    def to(self, device: torch.device | str) -> FeatureMap:
        """The same map on another device."""
        return replace(
            self, data=self.data.to(device), levels=tuple(level.to(device) for level in self.levels)
        )


@dataclass(frozen=True)
class Matches:
    """Where the query points of one image lie in another.

    Attributes:
        points: positions in the target image, pixels (x, y), fractional, on the CPU in float64.
        confidence: share of the softmax over the whole target map that falls in the window around the best
            match, 0 to 1. Low: the map has several places like the query, or none.
        cycle_error: distance between the query point and where its match leads back to, in units of the
            source image's longer side. Large: the match is not mutual, the part may not be there at all.
        read_at: where each query descriptor was read, pixels of the source image as turned.
        turned: which of them were read in the turned image; the others in the image as it is (a point
            whose mirror partner is not annotated keeps its straight match).
        pose: how the source image was turned before matching.
        distances: distance of each candidate pose to the target; empty when there was only one candidate.
    """

    points: Float[Tensor, "n 2"]
    confidence: Float[Tensor, " n"]
    cycle_error: Float[Tensor, " n"]
    read_at: Float[Tensor, "n 2"]
    turned: Bool[Tensor, " n"]
    pose: Pose = "identity"
    distances: Mapping[Pose, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points)

    def among(self, others: Matches, own: Bool[Tensor, " n"]) -> Matches:
        """These where ``own`` is true, others elsewhere, each in their order; pose and distances of these."""

        def joined(mine: Tensor, theirs: Tensor) -> Tensor:
            both = mine.new_empty(len(own), *mine.shape[1:])
            both[own], both[~own] = mine, theirs
            return both

        return replace(
            self,
            points=joined(self.points, others.points),
            confidence=joined(self.confidence, others.confidence),
            cycle_error=joined(self.cycle_error, others.cycle_error),
            read_at=joined(self.read_at, others.read_at),
            turned=joined(self.turned, others.turned),
        )

    def accepted(self, min_confidence: float = 0.0, max_cycle_error: float = float("inf")) -> Tensor:
        """Boolean mask (n) of the matches that pass both thresholds (inclusive)."""
        return (self.confidence >= min_confidence) & (self.cycle_error <= max_cycle_error)


@dataclass(frozen=True)
class Keypoints:
    """Annotated points of one object, by annotation id.

    Attributes:
        ids: annotation ids as in the data set's files (never positions in a filtered list), rising.
        xy: pixels of the image, float64; what stands where nothing is annotated is undefined.
        visible: which are annotated and count in the evaluation.
    """

    ids: tuple[int, ...]
    xy: Float[Tensor, "k 2"]
    visible: Bool[Tensor, " k"]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.xy) == len(self.visible):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.xy)} points, {len(self.visible)} visibilities do not agree"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def visible_ids(self) -> tuple[int, ...]:
        """Ids of the visible points."""
        return tuple(each for each, seen in zip(self.ids, self.visible.tolist(), strict=True) if seen)

    @cached_property
    def bits(self) -> int:
        """The visible ids as a bit set: cheap to intersect for hundreds of thousands of pairs."""
        return sum(1 << each for each in self.visible_ids)

    @property
    def box(self) -> Box:
        """The box around the visible points; all zero where there is none."""
        points = self.xy[self.visible]
        if not len(points):
            return 0.0, 0.0, 0.0, 0.0
        x1, y1, x2, y2 = torch.cat([points.amin(dim=0), points.amax(dim=0)]).tolist()
        return x1, y1, x2, y2

    def at(self, ids: Sequence[int]) -> Float[Tensor, "n 2"]:
        """Positions of the given ids, in their order.

        Raises:
            KeyError: an id is not among them.
        """
        row = {each: index for index, each in enumerate(self.ids)}
        return self.xy[[row[each] for each in ids]]


@dataclass(frozen=True)
class AnnotatedImage:
    """One annotated object on one image, as a data set describes it; nothing of the image is loaded.

    Attributes:
        id: unique in the data set and independent of the machine (a relative path, say).
        path: the file.
        size: width and height in pixels.
        category: of the object.
        keypoints: its annotated points.
        box: (x1, y1, x2, y2) in pixels, or ``None``.
        mask_path: image of the object's mask, or ``None``.
        mask_label: the number of its pixels where the image has several labels, or ``None``.
        attributes: what else the data set says (azimuth_id, truncated, occluded, pose, difficult ...).
        orientation: of the file by EXIF, if the annotation was of the stored pixels and was turned; its mask
            is of the stored pixels still.
    """

    id: str
    path: Path
    size: tuple[int, int]
    category: str
    keypoints: Keypoints
    box: Box | None = None
    mask_path: Path | None = None
    mask_label: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    orientation: int = 1

    @property
    def extent(self) -> Box:
        """The object's box, or the one around its visible keypoints where the data set gives no box."""
        return self.keypoints.box if self.box is None else self.box


@dataclass(frozen=True)
class Pair:
    """Two annotated images to match; images are shared between pairs.

    Attributes:
        id: unique in the data set's split, independent of the machine.
        category: under which the pair is counted.
        source: where the points come from.
        target: where they are to be found.
        azimuth_difference: 0 … 4 steps of 45 degrees, or ``None`` where the data set does not say.
        answers: by the id of a keypoint of the source, those of the target that are right answers to it;
            keypoints without an entry do not count. ``None``: the keypoint of the same id is the answer.
    """

    id: str
    category: str
    source: AnnotatedImage
    target: AnnotatedImage
    azimuth_difference: int | None = None
    answers: Mapping[int, tuple[int, ...]] | None = None

    @property
    def common_ids(self) -> tuple[int, ...]:
        """Ids visible in both images, rising: the points that are evaluated.

        With ``answers``: ids visible in the source to which the target shows an answer.
        """
        there, seen = set(self.target.keypoints.visible_ids), self.source.keypoints.visible_ids
        if self.answers is None:
            return tuple(each for each in seen if each in there)
        return tuple(each for each in seen if not there.isdisjoint(self.answers.get(each, ())))

    def truth(self, found: Sequence[Sequence[float]]) -> Float[Tensor, "n 2"]:
        """Where the points of `common_ids` are in the target, in pixels.

        Where several keypoints answer to one, that is the place nearest to where it was found: a distance
        then is that to the nearest right place.
        """
        keypoints = self.target.keypoints
        if self.answers is None:
            return keypoints.at(self.common_ids)
        there, places = set(keypoints.visible_ids), []
        for number, point in zip(self.common_ids, found, strict=True):
            right = keypoints.at([each for each in self.answers[number] if each in there])
            apart = (right - torch.tensor(point, dtype=right.dtype)).square().sum(dim=1)
            places.append(right[apart.argmin()])
        return torch.stack(places) if places else keypoints.xy[:0]


def __getattr__(name: str) -> Any:
    return renamed(__name__, {"Picture": "AnnotatedImage"}, name)
