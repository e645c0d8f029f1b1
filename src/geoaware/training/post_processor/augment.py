"""Pose-variant augmentation: the pairs of a group, with mirrored images (paper, section 4.3).

Only features of the mirrored images are needed, extracted from mirrored pixels; where a label changes with
the mirror (left ear, right ear) it is exchanged by annotation id.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.method.geometry import Canvas, Pose, pose_size
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, longer_side
from geoaware.training.post_processor.config import Flips, Loss
from geoaware.training.post_processor.groups import Group

POSES: tuple[Pose, Pose] = ("identity", "flip")
"""Those that images are trained in; without flips, the first alone."""

View = tuple[int, Pose]
"""An image of a group, by its place, in a pose."""


@dataclass(frozen=True)
class Labels:
    """Keypoints of one view on the grid, over all annotation ids of its schema.

    Attributes:
        xy: grid positions; undefined where not visible.
        visible: which ids are there.
        reach: half the longer side of the object's box, in cells: the unit of the noise on targets.
    """

    xy: Float[Tensor, "k 2"]
    visible: Bool[Tensor, " k"]
    reach: float


@dataclass(frozen=True)
class Term:
    """Keypoints to be found in one view from another.

    Attributes:
        source: view of the queries, as a place in the list of views.
        target: view to find them in.
        ids: annotation ids that both show.
        dense: weight of the dense loss in the group's loss.
        sparse: weight of the sparse loss; 0 for augmented pairs.
    """

    source: int
    target: int
    ids: Int[Tensor, " n"]
    dense: float
    sparse: float


@dataclass
class Example:
    """A group made ready: what to extract, where the keypoints are, what to compute.

    Attributes:
        group: what it was made of.
        views: images in poses, each once.
        labels: of each view.
        terms: of the loss; their dense weights add up to 1.
    """

    group: Group
    views: list[View]
    labels: list[Labels]
    terms: list[Term]


def make_example(group: Group, flips: Flips, size: int, grid: int) -> Example:
    """Every pair of a group with its pose-variant companions.

    A pair's loss is the mean over the pair as it is (weight 1), double, single and self flip, by their
    weights, over those that have a keypoint at all; the group's is the mean over its pairs. Terms that
    several pairs share (an image's self flip) are computed once.

    Args:
        group: images and pairs.
        flips: weights.
        size: side of the extractor's canvas.
        grid: cells a side of the refined maps.
    """
    # Place the keypoints of every image, and of its mirror image if there are flips.
    labels: dict[View, Labels] = {}
    for place, image in enumerate(group.images):
        for pose in POSES if flips.used else POSES[:1]:
            labels[place, pose] = place_labels(image, group.schema, pose, size, grid)
    # Share the weight of each pair among its companions that have a keypoint in common.
    weights: dict[tuple[View, View], float] = defaultdict(float)
    straight: dict[tuple[View, View], float] = defaultdict(float)
    for pair in group.pairs:
        (a, b), (a_flipped, b_flipped) = ([(place, pose) for place in pair] for pose in POSES)
        companions = (
            (a, b, 1.0),
            (a_flipped, b_flipped, flips.double),
            (a_flipped, b, flips.single),
            (a_flipped, a, flips.self),
        )
        parts = [
            (source, target, weight)
            for source, target, weight in companions
            if weight and bool((labels[source].visible & labels[target].visible).any())
        ]
        total = sum(weight for *_, weight in parts) * len(group.pairs)
        for row, (source, target, weight) in enumerate(parts):
            weights[source, target] += weight / total
            if row == 0:  # the pair as it is, which always has one in common
                straight[source, target] += weight / total
    # Keep the views that are used, each once and with a number.
    views = list(dict.fromkeys(view for ends in weights for view in ends))
    number = {view: row for row, view in enumerate(views)}
    # A term for each two views.
    terms = []
    for (source, target), weight in weights.items():
        ids = (labels[source].visible & labels[target].visible).nonzero().flatten()
        terms.append(Term(number[source], number[target], ids, weight, straight[source, target]))
    return Example(group, views, [labels[view] for view in views], terms)


def place_labels(image: AnnotatedImage, schema: Schema, pose: Pose, size: int, grid: int) -> Labels:
    """An image's keypoints as annotated on its view, on the grid."""
    keypoints = image.keypoints if pose == "identity" else schema.flip(image.keypoints, image.size)
    canvas = Canvas(*pose_size(image.size, pose), size)
    xy = torch.zeros(len(schema), 2)
    xy[list(keypoints.ids)] = canvas.to_grid(canvas.to_canvas(keypoints.xy), grid).float()
    reach = longer_side(image.box or keypoints.box) / 2 * canvas.scale * grid / size
    return Labels(xy, schema.visibility(keypoints), reach)


def target_positions(
    source: Labels, target: Labels, ids: Int[Tensor, " n"], loss: Loss
) -> Float[Tensor, "n 2"]:
    """Where the queries ought to be found, in cells, before any noise."""
    truth = target.xy[ids]
    if loss.target == "position":
        return truth
    # As released: flows between patches. Counted from the patch's corner, half a cell before its centre.
    return truth + 0.5 - (source.xy[ids] + 0.5).remainder(1.0)
