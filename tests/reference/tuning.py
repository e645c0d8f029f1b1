"""What tuning minimises, by plain loops over numbers, from the formulas of `training.backbone.objective`.

A view is a map of unit descriptors (d, g, g) with its keypoints on the grid; a search is a descriptor, read
in one view or a prototype, looked for in another view that shows the same keypoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

OBJECT, OUTSIDE = 1, 0
LARGEST_SCALE = 60.0

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


def annotated(
    views: Tensor,
    labels: Sequence[Tensor],
    visible: Sequence[Tensor],
    groups: Sequence[int],
    prototypes: Sequence[Tensor],
    log_scale: float,
    spread: float,
) -> tuple[float, float]:
    """Means of cross-entropy and distance over all searches of annotated keypoints; 0 where there is none."""
    scale = min(math.exp(log_scale), LARGEST_SCALE)
    results = []
    for target in range(len(views)):
        for keypoint, seen in enumerate(visible[target].tolist()):
            if not seen:
                continue
            queries = [unit(prototypes[groups[target]][keypoint].tolist())]
            for source in range(len(views)):
                same = groups[source] == groups[target]
                if source != target and same and bool(visible[source][keypoint]):
                    queries.append(unit(read(views[source], *labels[source][keypoint].tolist())))
            place = labels[target][keypoint].tolist()
            results += [search(query, views[target], *place, scale, spread) for query in queries]
    if not results:
        return 0.0, 0.0
    entropies, distances = zip(*results, strict=True)
    return sum(entropies) / len(results), sum(distances) / len(results)


def own(views: Tensor, points: Tensor, known: Tensor, log_scale: float, spread: float) -> float:
    """Mean cross-entropy of points read in an image's first view and looked for in its second."""
    scale = min(math.exp(log_scale), LARGEST_SCALE)
    entropies = []
    for image, row in enumerate(known.tolist()):
        for point, counts in enumerate(row):
            if counts:
                here, there = points[image, 0, point].tolist(), points[image, 1, point].tolist()
                query = unit(read(views[2 * image], *here))
                entropies.append(search(query, views[2 * image + 1], *there, scale, spread)[0])
    return sum(entropies) / len(entropies) if entropies else 0.0


BACK = AT_LABEL = 3.0
FOUND_SPREAD = 1.5


def best_cell(query: Vector, view: Tensor) -> tuple[int, int]:
    """Column and row of the cell whose descriptor is most like a query."""
    cells = [(column, row) for row in range(view.shape[1]) for column in range(view.shape[2])]
    return max(cells, key=lambda cell: dot(query, view[:, cell[1], cell[0]].tolist()))


def keep(
    views: Tensor,
    plain: Tensor,
    points: Tensor,
    known: Tensor,
    labels: Sequence[Tensor],
    visible: Sequence[Tensor],
    groups: Sequence[int],
    log_scale: float,
) -> float:
    """Mean cross-entropy of points that plain descriptors find in the group's next image, and find back."""
    scale, entropies = min(math.exp(log_scale), LARGEST_SCALE), []
    images = len(groups) // 2
    for image in range(images):
        first = 2 * image
        others = [each % images for each in range(image + 1, image + 1 + images)]
        other = 2 * next(each for each in others if groups[2 * each] == groups[first]) + 1
        annotated = [
            place for place, seen in zip(labels[first].tolist(), visible[first].tolist(), strict=True) if seen
        ]
        for point, counts in enumerate(known[image].tolist()):
            here = points[image, 0, point].tolist()
            if not counts or any(math.dist(here, place) <= AT_LABEL for place in annotated):
                continue
            column, row = best_cell(read(plain[first], *here), plain[other])
            back = best_cell(plain[other][:, row, column].tolist(), plain[first])
            if math.dist(back, here) <= BACK:
                query = unit(read(views[first], *here))
                entropies.append(search(query, views[other], column, row, scale, FOUND_SPREAD)[0])
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
