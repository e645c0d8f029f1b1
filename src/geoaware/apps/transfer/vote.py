"""How annotated images vote on where their keypoints lie in another image.

Every source brings one descriptor for each of its keypoints, in every candidate pose. Against a target:

1. *Fit.* The distance of a source in a pose is the mean L2 distance between the unit descriptors of its
   keypoints and their nearest ones in the target. It is the paper's instance matching distance (equation 2)
   with the annotated keypoints as the mask. It chooses the source's pose and sets the weight of its vote.
2. *Vote.* The sources' similarity maps of a keypoint are averaged with these weights. Cosines are linear in
   the query, so this is the map of the weighted mean descriptor: one map a keypoint, however many sources.
3. *Rivals.* From each keypoint's map a share of the best other keypoint's map is taken: a place that looks
   even more like another keypoint (the other front paw, say) is worth less.
4. *Position.* It is read from the map as in any match (`matching.positions`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.apps.transfer.masks import Covered
from geoaware.method.alignment import best_pose
from geoaware.method.geometry import Pose
from geoaware.method.matching import MatchSettings, Searched, argmax, positions, soft_argmax, window_mass
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError

_QUERIES_AT_ONCE = 512

_NOWHERE = -4.0
"""Similarity of cells that are not looked at: below any that occurs, and finite."""


@dataclass(frozen=True)
class VoteSettings:
    """How votes are weighed.

    Attributes:
        softness: a source whose distance exceeds the best one's by this much weighs 1/e of it.
        rivals: share of the best other keypoint's similarity that is taken off; 0: none.
        nearest: how many of the best-fitting sources vote; 0: all.
    """

    softness: float = 0.05
    rivals: float = 0.4
    nearest: int = 0

    def __post_init__(self) -> None:
        if not self.softness > 0:
            raise InputError(f"softness must be above 0, got {self.softness:g}")
        if not 0 <= self.rivals < 1:
            raise InputError(f"rivals must be 0 or more and less than 1, got {self.rivals:g}")
        if self.nearest < 0:
            raise InputError(f"the number of nearest sources must be 0 (all) or more, got {self.nearest}")


@dataclass(frozen=True)
class Queries:
    """What the sources look for: unit descriptors by source, candidate pose and keypoint.

    ``known`` says whether a source in a pose has the keypoint; elsewhere its descriptor is undefined. The
    identity is the first pose.
    """

    poses: tuple[Pose, ...]
    descriptors: Float[Tensor, "s p k c"]
    known: Bool[Tensor, "s p k"]

    def __len__(self) -> int:
        return len(self.descriptors)

    def without(self, source: int) -> Queries:
        """All sources but one."""
        others = [each for each in range(len(self)) if each != source]
        return Queries(self.poses, self.descriptors[others], self.known[others])


@dataclass(frozen=True)
class Evidence:
    """What speaks for each place, of each keypoint.

    Attributes:
        mass: share of the softmax over the whole map that lies in the window around the place (`Matches`'
            confidence, of the map that was voted), 0 to 1.
        peak: similarity there, weighted mean of the sources' cosines, -1 to 1.
        margin: how much more similar the place is to this keypoint than to the keypoint it resembles most
            beside it; 0 where there is no other keypoint.
    """

    mass: Float[Tensor, " k"]
    peak: Float[Tensor, " k"]
    margin: Float[Tensor, " k"]


@dataclass(frozen=True)
class Peaks:
    """The places where the maps of the keypoints are highest, the best first.

    Attributes:
        points: pixels (x, y) of the image that was encoded.
        evidence: what speaks for each, keypoint by keypoint.
    """

    points: Float[Tensor, "k n 2"]
    evidence: Evidence


@dataclass(frozen=True)
class Vote:
    """Where the keypoints were found.

    Attributes:
        points: pixels (x, y) of the image that was encoded, float64, on the CPU.
        known: keypoints that a voting source has; the points of others mean nothing.
        evidence: what speaks for the points.
        source: row of the best-fitting source.
        pose: how it was turned.
        distance: of its fit, 0 (same) to 2.
        others: other places, where they were asked for.
        covered: where the object is, where masks are carried.
    """

    points: Float[Tensor, "k 2"]
    known: Bool[Tensor, " k"]
    evidence: Evidence
    source: int
    pose: Pose
    distance: float
    others: Peaks | None = None
    covered: Covered | None = None


def vote(
    queries: Queries,
    target: FeatureMap,
    match: MatchSettings | None = None,
    settings: VoteSettings | None = None,
    pose_margin: float = 0.0,
    inside: Bool[Tensor, "p p"] | None = None,
    others: int = 0,
) -> Vote:
    """Find the sources' keypoints in a target image.

    Args:
        queries: of the sources.
        target: features of the image, of the same extractor.
        match: how similarity becomes position.
        settings: how votes are weighed.
        pose_margin: see `alignment.best_pose`.
        inside: cells of the target that the object covers, if known; nothing is found elsewhere.
        others: how many other places of each keypoint are found too.
    """
    match, settings = match or MatchSettings(), settings or VoteSettings()
    searched, outside = Searched(target, match), None
    if inside is not None:
        outside = ~inside[searched.rows, searched.columns].to(target.data.device)
    # Fit: how far every source in every pose lies from the target; each takes its best pose.
    distances = source_distances(_peaks(queries, searched, outside), queries.known)
    chosen = choose_poses(queries.poses, distances, pose_margin)
    rows = torch.arange(len(queries), device=chosen.device)
    fit = distances[rows, chosen]
    # Vote: one descriptor for each keypoint, the mean of the sources' weighted by their fit.
    weights = source_weights(fit, settings)
    mean, known = mean_descriptors(queries.descriptors[rows, chosen], queries.known[rows, chosen], weights)
    # `similarity` takes unit queries, but the length of the mean says how far the sources agree: keep it.
    sim = searched.similarity(mean) * mean.norm(dim=1)[:, None, None]
    # Rivals: a place that looks even more like another keypoint is worth less.
    judged = _masked(against_rivals(sim, known, settings.rivals), outside)
    # Read the places from the maps, and what speaks for them.
    best = int(fit.argmin())
    column, row = argmax(judged).long().unbind(-1)
    cells = torch.arange(len(sim), device=sim.device), row, column
    return Vote(
        points=searched.pixels(positions(judged, match)),
        known=known.cpu(),
        evidence=_evidence(window_mass(judged, match.window, match.temperature), sim, known, cells),
        source=best,
        pose=queries.poses[int(chosen[best])],
        distance=float(fit[best]),
        others=_other_peaks(searched, judged, sim, known, match, others) if others else None,
    )


def source_distances(peaks: Float[Tensor, "s p k"], known: Bool[Tensor, "s p k"]) -> Float[Tensor, "s p"]:
    """Mean over the known keypoints of the distance between unit descriptors of cosine ``peaks``.

    Infinite for a source in a pose in which it has no keypoint.
    """
    apart = (2 - 2 * peaks).clamp(min=0).sqrt()
    total = (apart * known).sum(dim=2) / known.sum(dim=2).clamp(min=1)
    return total.masked_fill(~known.any(dim=2), torch.inf)


def choose_poses(
    poses: tuple[Pose, ...], distances: Float[Tensor, "s p"], margin: float = 0.0
) -> Int[Tensor, " s"]:
    """Position in ``poses`` of each source's best pose, by `alignment.best_pose`."""
    chosen = [best_pose(dict(zip(poses, row, strict=True)), margin) for row in distances.tolist()]
    return torch.tensor([poses.index(each) for each in chosen], device=distances.device)


def source_weights(distances: Float[Tensor, " s"], settings: VoteSettings) -> Float[Tensor, " s"]:
    """exp(-(distance - smallest) / softness) of the sources that vote, 0 of the others."""
    weights = torch.exp(-(distances - distances.min()) / settings.softness)
    if 0 < settings.nearest < len(distances):
        # Stable, so that of equally near sources the first ones vote.
        weights[distances.argsort(stable=True)[settings.nearest :]] = 0.0
    return weights


def mean_descriptors(
    descriptors: Float[Tensor, "s k c"], known: Bool[Tensor, "s k"], weights: Float[Tensor, " s"]
) -> tuple[Float[Tensor, "k c"], Bool[Tensor, " k"]]:
    """Weighted mean of each keypoint's unit descriptors over the sources that have it, and which have any.

    The mean is not brought to unit length. It is zero where no voting source has the keypoint.
    """
    shares = weights[:, None] * known
    total = shares.sum(dim=0)
    mean = torch.einsum("sk,skc->kc", shares / total.clamp(min=1e-12), descriptors)
    return mean, total > 0


def against_rivals(
    sim: Float[Tensor, "k h w"], known: Bool[Tensor, " k"], share: float
) -> Float[Tensor, "k h w"]:
    """Each keypoint's map less ``share`` of the largest of the other known keypoints' maps, cell by cell."""
    if not share or int(known.sum()) < 2:
        return sim
    return sim - share * _largest_other(sim, known)


def _largest_other(sim: Float[Tensor, "k h w"], known: Bool[Tensor, " k"]) -> Float[Tensor, "k h w"]:
    others = sim.masked_fill(~known[:, None, None], _NOWHERE)
    first, second = others.topk(2, dim=0).values
    return torch.where(others == first, second, first)


def _peaks(
    queries: Queries, searched: Searched, outside: Bool[Tensor, "h w"] | None
) -> Float[Tensor, "s p k"]:
    """The best cosine of each query in the target, a block of queries at a time."""
    parts = queries.descriptors.flatten(0, 2).split(_QUERIES_AT_ONCE)
    best = [_masked(searched.similarity(part), outside).flatten(1).amax(dim=1) for part in parts]
    return torch.cat(best).view(queries.known.shape)


def _evidence(
    mass: Float[Tensor, " q"],
    sim: Float[Tensor, "k h w"],
    known: Bool[Tensor, " k"],
    cells: tuple[Int[Tensor, " q"], Int[Tensor, " q"], Int[Tensor, " q"]],
) -> Evidence:
    """What speaks for cells, given by keypoint, row and column."""
    peak = sim[cells]
    margin = torch.zeros_like(peak)
    if int(known.sum()) >= 2:
        margin = peak - _largest_other(sim, known)[cells]
    return Evidence(*(each.float().cpu() for each in (mass, peak, margin)))


def _other_peaks(
    searched: Searched,
    judged: Float[Tensor, "k h w"],
    sim: Float[Tensor, "k h w"],
    known: Bool[Tensor, " k"],
    match: MatchSettings,
    count: int,
) -> Peaks:
    """The highest cells that no neighbour exceeds, but for the best one; places are read around each.

    Where there are fewer, other cells follow.
    """
    keypoints, height, width = judged.shape
    top = judged >= F.max_pool2d(judged[:, None], 3, stride=1, padding=1)[:, 0]
    top.flatten(1).scatter_(1, judged.flatten(1).argmax(dim=1, keepdim=True), False)
    found = judged.masked_fill(~top, _NOWHERE).flatten(1).topk(min(count, height * width)).indices
    keypoint = torch.arange(keypoints, device=found.device).repeat_interleave(found.shape[1])
    row, column = found.flatten() // width, found.flatten() % width
    y_away = (torch.arange(height, device=found.device) - row[:, None]).abs()
    x_away = (torch.arange(width, device=found.device) - column[:, None]).abs()

    def near(half: int) -> Bool[Tensor, "q h w"]:
        return (y_away <= half)[:, :, None] & (x_away <= half)[:, None, :]

    places = soft_argmax(judged[keypoint].masked_fill(~near(1), -torch.inf), match.temperature)
    shares = (judged / match.temperature).flatten(1).softmax(dim=1).view_as(judged)
    mass = (shares[keypoint] * near(match.window // 2)).sum(dim=(1, 2)).clamp(max=1.0)
    points = searched.pixels(places).view(*found.shape, 2)
    return Peaks(points, _evidence(mass, sim, known, (keypoint, row, column)))


def _masked(sim: Float[Tensor, "q h w"], outside: Bool[Tensor, "h w"] | None) -> Float[Tensor, "q h w"]:
    return sim if outside is None else sim.masked_fill(outside, _NOWHERE)
