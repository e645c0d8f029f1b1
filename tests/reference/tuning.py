"""What tuning minimises, by plain loops over numbers, from the formulas of `training.backbone.objective`.

A view is a map of unit descriptors (d, g, g) with its keypoints on the grid; a search is a descriptor, read
in one view or a prototype, looked for in another view that shows the same keypoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

OBJECT, OUTSIDE = 1, 0
LARGEST_SCALE = 80.0

Vector = Sequence[float]


def unit(vector: Vector) -> list[float]:
    length = math.sqrt(sum(each * each for each in vector))
    return [each / length for each in vector]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def wanted(x: float, y: float, grid: int, spread: float) -> list[list[float]]:
    """Rows of a Gaussian around (x, y), its sum over the cells 1."""
    rows = [
        [math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * spread**2)) for column in range(grid)]
        for row in range(grid)
    ]
    total = sum(map(sum, rows))
    return [[each / total for each in row] for row in rows]


def read(view: Tensor, x: float, y: float) -> list[float]:
    """The descriptor between the four cells around a place, which the map's outer cells' centres bound."""
    last = view.shape[-1] - 1
    x, y = min(max(x, 0.0), last), min(max(y, 0.0), last)
    left, top = min(math.floor(x), last - 1), min(math.floor(y), last - 1)
    right, down = x - left, y - top
    return [
        float(
            (1 - right) * (1 - down) * channel[top][left]
            + right * (1 - down) * channel[top][left + 1]
            + (1 - right) * down * channel[top + 1][left]
            + right * down * channel[top + 1][left + 1]
        )
        for channel in view.tolist()
    ]


def search(
    query: Vector, view: Tensor, x: float, y: float, scale: float, spread: float
) -> tuple[float, float]:
    """Cross-entropy over the cells, and how far from (x, y) the soft-argmax is."""
    grid = view.shape[-1]
    cells = [(row, column) for row in range(grid) for column in range(grid)]
    logits = [scale * dot(query, view[:, row, column].tolist()) for row, column in cells]
    top = max(logits)
    total = sum(math.exp(each - top) for each in logits)
    logs = [each - top - math.log(total) for each in logits]
    goal = wanted(x, y, grid, spread)
    entropy = -sum(goal[row][column] * log for (row, column), log in zip(cells, logs, strict=True))
    found_x = sum(math.exp(log) * column for (_, column), log in zip(cells, logs, strict=True))
    found_y = sum(math.exp(log) * row for (row, _), log in zip(cells, logs, strict=True))
    return entropy, math.hypot(found_x - x, found_y - y)


def own(
    views: Tensor, pairs: Tensor, points: Tensor, known: Tensor, log_scale: float, spread: float
) -> float:
    """Mean cross-entropy of points read in the first view of a pair and looked for in its second."""
    scale = min(math.exp(log_scale), LARGEST_SCALE)
    entropies = []
    for (first, second), places, row in zip(pairs.tolist(), points, known.tolist(), strict=True):
        for point, counts in enumerate(row):
            if counts:
                query = unit(read(views[first], *places[0, point].tolist()))
                there = places[1, point].tolist()
                entropies.append(search(query, views[second], *there, scale, spread)[0])
    return sum(entropies) / len(entropies) if entropies else 0.0


def presence(logits: Tensor, regions: Tensor) -> float:
    """Half the mean of -log p over cells on objects, half that of -log(1 - p) over cells outside."""
    sums, counts = {OBJECT: 0.0, OUTSIDE: 0.0}, {OBJECT: 0, OUTSIDE: 0}
    for logit, region in zip(logits.flatten().tolist(), regions.flatten().tolist(), strict=True):
        if region in sums:
            signed = logit if region == OBJECT else -logit
            sums[int(region)] += math.log(1 + math.exp(-signed))
            counts[int(region)] += 1
    return sum(sums[each] / max(counts[each], 1) for each in sums) / 2


def familiar(logits: Vector, shows: Sequence[bool]) -> float:
    """Mean of -log p over images that show an object, and of -log(1 - p) over those that do not."""
    chances = [1 / (1 + math.exp(-logit)) for logit in logits]
    return -sum(math.log(p if yes else 1 - p) for p, yes in zip(chances, shows, strict=True)) / len(chances)


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
