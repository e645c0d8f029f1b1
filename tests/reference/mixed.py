"""Slow loops for the parts of the one network's loss, written from their definitions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relation_loss(ours: Tensor, theirs: Tensor, inside: Tensor, temperature: float) -> float:
    """Mean divergence of our softmax over a window's cells from theirs, over query cells and windows."""

    def share(maps: Tensor, window: int, query: Tensor) -> dict[tuple[int, int], float]:
        cells = [(y, x) for y in range(maps.shape[2]) for x in range(maps.shape[3]) if inside[window, y, x]]
        powers = {(y, x): math.exp(float(query @ maps[window, :, y, x]) / temperature) for y, x in cells}
        total = sum(powers.values())
        return {cell: power / total for cell, power in powers.items()}

    found = []
    for at in inside.nonzero().tolist():
        for window in range(len(ours)):
            if not inside[window].any():
                continue
            wanted = share(theirs, window, theirs[at[0], :, at[1], at[2]])
            have = share(ours, window, ours[at[0], :, at[1], at[2]])
            found.append(sum(p * math.log(p / have[cell]) for cell, p in wanted.items() if p > 0))
    return sum(found) / len(found) if found else 0.0


def keypoint_entropy(queries: Tensor, xy: Tensor, visible: Tensor, scale: float, same: float) -> float:
    """Mean over views, other views and common keypoints of -log of the right one's softmax share."""
    unit = queries / queries.norm(dim=2, keepdim=True)
    found = []
    views, count = visible.shape
    for source in range(views):
        for target in range(views):
            for keypoint in range(count):
                if source == target or not (visible[source, keypoint] and visible[target, keypoint]):
                    continue
                total = 0.0
                for other in range(count):
                    apart = float(torch.dist(xy[target, keypoint], xy[target, other]))
                    if visible[target, other] and (other == keypoint or apart >= same):
                        total += math.exp(scale * float(unit[source, keypoint] @ unit[target, other]))
                right = math.exp(scale * float(unit[source, keypoint] @ unit[target, keypoint]))
                found.append(-math.log(right / total))
    return sum(found) / len(found) if found else 0.0


def searches(
    maps: Tensor, read_at: Tensor, xy: Tensor, visible: Tensor, prototypes: Tensor, ignored: Tensor,
    wanted: Tensor, scale: float,
) -> tuple[float, float]:  # fmt: skip
    """Mean cross-entropy over cells and mean distance of the soft-argmax, search by search."""
    views, count = visible.shape
    grid = maps.shape[-1]
    entropies, distances = [], []
    for target in range(views):
        for keypoint in range(count):
            if not visible[target, keypoint]:
                continue
            queries = [
                read_at[source, keypoint]
                for source in range(views)
                if source != target and visible[source, keypoint]
            ]
            if keypoint < len(prototypes):
                queries.append(prototypes[keypoint])
            for query in queries:
                unit = query / query.norm()
                logits = {
                    (y, x): scale * float(unit @ maps[target, :, y, x])
                    for y in range(grid)
                    for x in range(grid)
                }
                powers = {
                    (y, x): 0.0 if ignored[target, keypoint, y, x] else math.exp(value)
                    for (y, x), value in logits.items()
                }
                total = sum(powers.values())
                entropies.append(
                    sum(
                        float(wanted[target, keypoint, y, x]) * (math.log(total) - value)
                        for (y, x), value in logits.items()
                    )
                )
                where = [sum(power * cell[axis] for cell, power in powers.items()) / total for axis in (1, 0)]
                distances.append(math.dist(where, xy[target, keypoint].tolist()))
    return sum(entropies) / len(entropies), sum(distances) / len(distances)
