"""The vote of geoaware.apps.transfer by keypoint and cell, from its description in docs/transfer.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Known = list[list[list[bool]]]


def unit(vector: np.ndarray) -> np.ndarray:
    length = math.sqrt(float(vector @ vector))
    return vector / length if length else vector


def voted_maps(
    queries: np.ndarray,
    known: Known,
    target: np.ndarray,
    softness: float,
    rivals: float,
    nearest: int,
    margin: float,
) -> tuple[np.ndarray, np.ndarray, list[int], list[float]]:
    """Maps before and after the rivals, the pose of every source, and its distance.

    Args:
        queries: unit descriptors, source x pose x keypoint x channel.
        known: whether a source in a pose has the keypoint.
        target: channel x row x column.
        softness, rivals, nearest: as in VoteSettings.
        margin: share by which a turned pose must be nearer than the first.
    """
    sources, poses, keypoints, _ = queries.shape
    height, width = target.shape[1:]
    cells = [(y, x) for y in range(height) for x in range(width)]

    def cosine(query: np.ndarray, cell: tuple[int, int]) -> float:
        return float(query @ unit(target[:, cell[0], cell[1]]))

    chosen, distances = [], []
    for s in range(sources):
        of_pose = []
        for p in range(poses):
            apart = [
                math.sqrt(max(0.0, 2 - 2 * max(cosine(queries[s, p, k], cell) for cell in cells)))
                for k in range(keypoints)
                if known[s][p][k]
            ]
            of_pose.append(sum(apart) / len(apart) if apart else math.inf)
        best = min(range(poses), key=lambda p: of_pose[p])
        if of_pose[best] >= of_pose[0] * (1 - margin) - 1e-6:
            best = 0
        chosen.append(best)
        distances.append(of_pose[best])
    order = sorted(range(sources), key=lambda s: distances[s])
    voting = order[: nearest or None]
    weight = {s: math.exp(-(distances[s] - min(distances)) / softness) for s in voting}

    mean = np.zeros((keypoints, height, width))
    seen = []
    for k in range(keypoints):
        having = [s for s in voting if known[s][chosen[s]][k]]
        seen.append(bool(having))
        total = sum(weight[s] for s in having)
        for y, x in cells:
            votes = [weight[s] * cosine(queries[s, chosen[s], k], (y, x)) for s in having]
            mean[k, y, x] = sum(votes) / total if having else 0.0

    judged = mean.copy()
    if rivals and sum(seen) > 1:
        for k in range(keypoints):
            for y, x in cells:
                others = [mean[j, y, x] for j in range(keypoints) if j != k and seen[j]]
                judged[k, y, x] = mean[k, y, x] - rivals * max(others)
    return mean, judged, chosen, distances


def other_peaks(judged: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Row and column of the highest cells of a map that no neighbour exceeds, but for the best."""
    height, width = judged.shape

    def is_peak(y: int, x: int) -> bool:
        around = judged[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        return bool(judged[y, x] >= around.max())

    best = np.unravel_index(judged.argmax(), judged.shape)
    cells = [(y, x) for y in range(height) for x in range(width) if (y, x) != best and is_peak(y, x)]
    return sorted(cells, key=lambda cell: -judged[cell])[:count]


def outline(sources: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """Ridge regression of the covered share on unit descriptors, cell by cell; both classes weigh a half.

    Minimises the weighted sum of (w x + b - y)^2 plus 3e-5 / sources times |w|^2; b costs nothing.
    """
    rows = [(x.astype(np.float64), float(y)) for each in sources for x, y in zip(*each, strict=True)]
    covered, bare = sum(y for _, y in rows), sum(1 - y for _, y in rows)
    size = len(rows[0][0])
    left, right = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
    for x, y in rows:
        weight = y / covered / 2 + (1 - y) / bare / 2
        extended = np.append(x, 1.0)
        left += weight * np.outer(extended, extended)
        right += weight * y * extended
    left[:size, :size] += 3e-5 / len(sources) * np.eye(size)
    solved = np.linalg.solve(left, right)
    return solved[:size], float(solved[size])
