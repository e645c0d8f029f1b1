"""The loss of images and pairs, one term at a time, from the paper's formulas (sections 4.2 and 4.3).

Coordinates are computed anew, labels exchanged by a table, every term built from whole maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geoaware.method.losses import contrastive_loss, dense_loss
from geoaware.method.types import AnnotatedImage
from geoaware.training.post_processor.config import Flips, Loss

Maps = Callable[[int, bool], Tensor]
"""Refined map (c, p, p) of an image, by its place, as it is or mirrored."""


def places(
    image: AnnotatedImage, mirrored: bool, partners: Sequence[int], size: int, grid: int
) -> dict[int, Tensor]:
    """Grid positions of the visible keypoints by id, on the image or on its mirror image."""
    width, height = image.size
    scale, cell = size / max(width, height), size / grid
    padding = [(size - round(scale * side)) // 2 for side in (width, height)]
    found = {}
    for row, keypoint in enumerate(image.keypoints.ids):
        if not image.keypoints.visible[row]:
            continue
        x, y = image.keypoints.xy[row].tolist()
        x = width - 1 - x if mirrored else x
        on_canvas = [x * scale + padding[0], y * scale + padding[1]]
        label = partners[keypoint] if mirrored else keypoint
        found[label] = torch.tensor([(value - cell // 2) / cell for value in on_canvas])
    return found


def group_loss(
    maps: Maps,
    images: Sequence[AnnotatedImage],
    pairs: Sequence[tuple[int, int]],
    partners: Sequence[int],
    loss: Loss,
    flips: Flips,
    size: int,
    grid: int,
    logit_scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """Dense and sparse part, without noise: means over the pairs of weighted means over their flips."""
    dense, sparse = torch.zeros(()), torch.zeros(())
    for source, target in pairs:
        companions = [
            (1.0, (source, False), (target, False)),
            (flips.double, (source, True), (target, True)),
            (flips.single, (source, True), (target, False)),
            (flips.self, (source, True), (source, False)),
        ]
        total, weights = torch.zeros(()), 0.0
        for weight, start, goal in companions:
            here = places(images[start[0]], start[1], partners, size, grid)
            there = places(images[goal[0]], goal[1], partners, size, grid)
            common = sorted(set(here) & set(there))
            if not weight or not common:
                continue
            ends = maps(*start), maps(*goal)
            from_xy, to_xy = (torch.stack([side[each] for each in common]) for side in (here, there))
            mean = dense_loss(*ends, from_xy, to_xy, loss.temperature, window=loss.window)
            total = total + weight * mean * (len(common) if loss.reduction == "sum" else 1)
            weights += weight
            if start == (source, False) and goal == (target, False):
                pair_sparse = contrastive_loss(_read(ends[0], from_xy), _read(ends[1], to_xy), logit_scale)
        dense = dense + total / weights / len(pairs)
        sparse = sparse + pair_sparse / weights / len(pairs)
    return dense, sparse


def _read(features: Tensor, xy: Tensor) -> Tensor:
    last = features.shape[-1] - 1
    cells = [[min(max(math.floor(value + 0.5), 0), last) for value in point] for point in xy.tolist()]
    return torch.stack([features[:, y, x] for x, y in cells])
