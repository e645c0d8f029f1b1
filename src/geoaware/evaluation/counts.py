"""Points to whole numbers: per pair, how many there are, how many are correct, how many fail in which way.

Everything reported later is computed from these integers and from the order in which `Counts` puts the pairs,
which depends on nothing but their content: not on the order of lines, nor on names of pairs and images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from geoaware.method.metrics.errors import classify
from geoaware.method.metrics.pck import distances, within

STANDARD, GEOMETRY_AWARE = 0, 1
"""The two sets of points, as positions on the set axis."""


@dataclass(frozen=True)
class PointTable:
    """Predictions of many pairs in flat arrays: p pairs, n evaluated points, t visible target keypoints.

    Attributes:
        names: categories, sorted.
        category: of each pair, position in ``names``.
        azimuth: difference of each pair, -1 where the data set does not say.
        size: threshold base of each pair, in pixels of its target.
        pair: of each point.
        keypoint: annotation id of each point.
        predicted: where it was found, pixels of its target.
        truth: where it is.
        geometry_aware: whether it counts in the subset.
        target: visible target keypoints of all pairs, one pair after the other; (0, 2) where not recorded.
        first: of each pair, its first row of ``target``; with one more entry at the end.
        wanted: of each point, its row of ``target``.
        partner: of each point, the row of its flip partner, or -1.
    """

    names: tuple[str, ...]
    category: Int[np.ndarray, " p"]
    azimuth: Int[np.ndarray, " p"]
    size: Float[np.ndarray, " p"]
    pair: Int[np.ndarray, " n"]
    keypoint: Int[np.ndarray, " n"]
    predicted: Float[np.ndarray, "n 2"]
    truth: Float[np.ndarray, "n 2"]
    geometry_aware: Bool[np.ndarray, " n"]
    target: Float[np.ndarray, "t 2"]
    first: Int[np.ndarray, " p1"]
    wanted: Int[np.ndarray, " n"]
    partner: Int[np.ndarray, " n"]

    @property
    def has_targets(self) -> bool:
        """Whether error types can be told."""
        return len(self.target) > 0


@dataclass(frozen=True)
class Counts:
    """Per pair, on a set axis (0 all points, 1 geometry-aware points); the first three as in `PointTable`.

    Attributes:
        points: how many points.
        correct: how many are correct, by alpha.
        errors: how many fail in each of the ways of `ERROR_TYPES`; of length 0 where it cannot be told.
    """

    names: tuple[str, ...]
    category: Int[np.ndarray, " p"]
    azimuth: Int[np.ndarray, " p"]
    points: Int[np.ndarray, "p 2"]
    correct: Int[np.ndarray, "p 2 a"]
    errors: Int[np.ndarray, "p 2 e"]

    def where(self, chosen: Bool[np.ndarray, " p"]) -> Counts:
        """The chosen pairs only, in the same order."""
        return replace(self, **{key: each[chosen] for key, each in vars(self).items() if key != "names"})


def correct_points(table: PointTable, alphas: tuple[float, ...], strict: bool) -> Bool[np.ndarray, "n a"]:
    """Which points are correct at each alpha."""
    apart = distances(table.predicted, table.truth)
    limits = table.size[table.pair][:, None] * np.array(alphas, dtype=np.float64)
    return within(apart[:, None], limits, strict)


def error_flags(table: PointTable, alpha: float, strict: bool) -> Bool[np.ndarray, "n 5"] | None:
    """Error types of each point, columns as `ERROR_TYPES`; ``None`` without target keypoints."""
    if not table.has_targets:
        return None
    first, last, size = table.first[table.pair], table.first[table.pair + 1], table.size[table.pair]
    wanted, partner = table.wanted, table.partner
    return classify(table.predicted, table.target, first, last, wanted, partner, alpha * size, strict)


def count(table: PointTable, correct: Bool[np.ndarray, "n a"], error_alpha: float, strict: bool) -> Counts:
    """Count per pair; pairs come out in an order that their content alone decides."""
    pairs = len(table.category)
    kinds = error_flags(table, error_alpha, strict)
    flags = correct if kinds is None else np.concatenate([correct, kinds], axis=1)
    sums = sums_by(table.pair, pairs, flags, table.geometry_aware)
    keys = np.concatenate([table.category[:, None], table.azimuth[:, None], sums.reshape(pairs, -1)], axis=1)
    order = np.lexsort(keys.T[::-1])
    points, hits, errors = np.split(sums[order], [1, 1 + correct.shape[1]], axis=2)
    return Counts(table.names, table.category[order], table.azimuth[order], points[..., 0], hits, errors)


def sums_by(
    group: Int[np.ndarray, " n"], groups: int, flags: Bool[np.ndarray, "n f"], aware: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, "g 2 f1"]:
    """How many points each group has and how many hold each flag, on a set axis."""
    flags = np.column_stack([np.ones(len(group), dtype=bool), flags])
    sets = np.stack([flags, flags & aware[:, None]])
    sums = [[np.bincount(group[each], minlength=groups) for each in of.T] for of in sets]
    return np.array(sums, dtype=np.int64).transpose(2, 0, 1)
