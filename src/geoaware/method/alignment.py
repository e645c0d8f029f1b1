"""Adaptive pose alignment at test time (paper, section 4.1): turn the source the way the target stands.

The source image is tried as it is, mirrored and, when asked, rotated; the candidate whose features lie
nearest to the target's wins. Two distances are offered, both means of L2 distances between unit descriptors,
0 (same) to 2 (opposite):

* `instance_matching_distance` (paper, section 3.4, equation 1), over the pixels of the source object's mask;
* `mutual_nn_distance` (paper, appendix E.1, table 13), over patches that are each other's nearest
  neighbour; no mask needed.

After a mirror the meaning of points changes: the mirrored image's left ear is the mirrored right ear. A
query is therefore read at the mirrored place of its *partner*, known from labels (`mirror_points`) or found
by matching the mirrored source against the source itself (`partner_points`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geoaware.method.geometry import PointsLike, Pose, as_points, pose_points
from geoaware.method.maps import resized
from geoaware.method.matching import MatchSettings, match
from geoaware.method.types import FeatureMap, Matches
from geoaware.runs.errors import InputError

CANDIDATES: dict[str, tuple[Pose, ...]] = {
    "off": ("identity",),
    "flip": ("identity", "flip"),
    "rotate": ("identity", "flip", "rot90", "rot180", "rot-90"),
}
"""Candidate poses of each pose setting (``auto`` is one of these, by extractor)."""

_ROWS_AT_ONCE = 512
_FAR = -1e5


@dataclass(frozen=True)
class MirroredPoints:
    """What is read in the mirrored source for each query point.

    Attributes:
        places: pixels of the mirrored image, the place of the query's partner.
        known: whether the partner is annotated; where it is not, the query keeps its straight match.
    """

    places: Float[Tensor, "n 2"]
    known: Bool[Tensor, " n"]


@dataclass(frozen=True)
class Alignment:
    """How a source image was turned to fit a target.

    Attributes:
        pose: the candidate of the smallest distance.
        distances: of every candidate; empty with a single one.
        maps: features of the source by pose, those that were there and those that were made.
    """

    pose: Pose
    distances: Mapping[Pose, float]
    maps: Mapping[Pose, FeatureMap]


@dataclass(frozen=True)
class PoseRule:
    """How the pose is chosen.

    Attributes:
        distance: without masks, ``"mutual-nn"`` (paper, table 13) or ``"imd"``, the IMD with the whole image
            as the mask; with masks the IMD on them. ``"+padding"`` after it: without masks, the padding
            around the images is compared too. ``"+released"``: the IMD is the released one (see
            `instance_matching_distance`).
        margin: a turned pose must be nearer than the identity by more than this share of its distance. The
            paper has none; weak features need one.
    """

    distance: str = "mutual-nn"
    margin: float = 0.0

    @property
    def metric(self) -> str:
        """``"mutual-nn"`` or ``"imd"``."""
        return self.distance.partition("+")[0]

    @property
    def padding(self) -> bool:
        """Whether the padding is compared too."""
        return "padding" in self.distance.split("+")

    @property
    def released(self) -> bool:
        """Whether the IMD is the released one."""
        return "released" in self.distance.split("+")

    def as_released(self) -> PoseRule:
        """The rule as the released code follows it."""
        return replace(self, distance=f"{self.metric}+padding+released")

    @classmethod
    def parse(cls, text: str) -> PoseRule:
        """A rule from ``"mutual-nn"``, ``"imd+padding+released"`` or, with a margin, ``"imd:0.01"``.

        Raises:
            InputError: anything else.
        """
        name, colon, margin = text.partition(":")
        try:
            share = float(margin) if colon else 0.0
        except ValueError:
            share = -1.0
        metric, *others = name.split("+")
        if metric not in ("mutual-nn", "imd") or {*others} - {"padding", "released"} or not 0 <= share < 1:
            raise InputError(
                f"unknown pose rule {text!r}; choose mutual-nn, imd, or with a margin imd:0.01; "
                "as released, imd+padding+released"
            )
        return cls("+".join([metric, *sorted({*others})]), share)


def instance_matching_distance(
    source: Float[Tensor, "c h w"],
    target: Float[Tensor, "c h2 w2"],
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    resolution: int = 64,
    released: bool = False,
) -> float:
    """IMD: how far the source object's descriptors lie from their nearest ones in the target.

    Maps are resized bilinearly and masks by nearest neighbour to ``resolution`` squared first.

    Args:
        source: feature map of the source.
        target: feature map of the target, same channels.
        source_mask: the source object on the map's square, any shape (H, W), nonzero inside; all if none.
        target_mask: restricts the nearest neighbours too, as the released implementation does; the paper
            does not.
        resolution: side of the maps compared.
        released: as the released implementation has it, unit descriptors are resized and not made unit
            again, and numbers that are exactly zero then become -100,000.

    Raises:
        InputError: a mask is empty, at the given size or once resized.
    """
    rows = _masked_descriptors(source, source_mask, resolution, "source", released)
    columns = _masked_descriptors(target, target_mask, resolution, "target", released)
    if released:
        return _smallest_distances(rows, columns).mean().item()
    return _unit_distance(_best_cosines(rows, columns.T)).mean().item()


def mutual_nn_distance(source: Float[Tensor, "c h w"], target: Float[Tensor, "c h2 w2"]) -> float:
    """Mean L2 distance over the pairs of patches that are each other's nearest neighbour.

    Costs one matrix product, a block of rows at a time: the full similarity matrix is never held. Patches
    with a zero descriptor take no part. Returns 2, the largest distance possible, when no pair is mutual.
    """
    rows, row_norms = _present_cells(source)
    columns, column_norms = _present_cells(target)
    count = rows.shape[1]
    if not count or not columns.shape[1]:
        return 2.0
    best_of_row = rows.new_empty(count)
    choice_of_row = torch.empty(count, dtype=torch.long, device=rows.device)
    best_of_column = rows.new_full((columns.shape[1],), -torch.inf)
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, count))
        block = rows[:, part].T @ columns
        block /= column_norms
        block /= row_norms[part, None]
        best_of_row[part], choice_of_row[part] = block.max(dim=1)
        torch.maximum(best_of_column, block.amax(dim=0), out=best_of_column)
    # Row i and its choice j are mutual if s_ij is the best of column j too: the same number, so == is exact.
    mutual = best_of_row == best_of_column[choice_of_row]
    return _unit_distance(best_of_row[mutual]).mean().item()


def pose_distances(
    sources: Mapping[Pose, FeatureMap],
    target: FeatureMap,
    source_masks: Mapping[Pose, Tensor] | None = None,
    target_mask: Tensor | None = None,
    rule: PoseRule | None = None,
) -> dict[Pose, float]:
    """Distance of every candidate pose to the target.

    Without masks only the images are compared, unless the rule says otherwise: patches of black padding would
    all agree.

    Args:
        sources: features of the source image turned to each candidate pose.
        target: features of the target image.
        source_masks: the source object on each candidate's canvas; given, the distance is IMD on it.
        target_mask: the target object on its canvas, used with source masks only.
        rule: which distance to take; mutual-NN on the images, or the paper's IMD with masks, if not given.
    """
    rule = rule or PoseRule()
    imd = partial(instance_matching_distance, released=rule.released)
    if source_masks is not None:
        return {
            pose: imd(each.data, target.data, source_masks[pose], target_mask)
            for pose, each in sources.items()
        }
    whole_image = imd if rule.released else _whole_image_distance
    distance = mutual_nn_distance if rule.metric == "mutual-nn" else whole_image
    compared = {pose: each.data if rule.padding else _on_image(each) for pose, each in sources.items()}
    there = target.data if rule.padding else _on_image(target)
    return {pose: distance(each, there) for pose, each in compared.items()}


def best_pose(distances: Mapping[Pose, float], margin: float = 0.0) -> Pose:
    """The pose of smallest distance; the identity unless another is smaller by more than ``margin``.

    ``margin`` is a share of the identity's distance; 0 is the paper's rule. Distances that differ by rounding
    only are equal, and the identity wins.
    """
    pose = min(distances, key=lambda each: distances[each])
    if "identity" in distances and distances[pose] >= distances["identity"] * (1 - margin) - 1e-6:
        return "identity"
    return pose


def mirror_points(
    points: PointsLike,
    size: tuple[int, int],
    partners: Sequence[int],
    visible: Sequence[bool] | Bool[Tensor, " n"] | None = None,
) -> MirroredPoints:
    """Where labelled points are read in the mirrored image: each at its partner's mirrored place.

    The mirrored image's "left ear" is the mirrored right ear (paper, section 4.1). This is the one place
    where that rule is written.

    Args:
        points: pixels of the image as it is, one a label.
        size: width and height of the image.
        partners: row of the point that each point becomes in the mirrored image (`keypoints.flip_partners`).
        visible: which points are annotated; all when not given.
    """
    rows = list(partners)
    known = torch.ones(len(rows), dtype=torch.bool) if visible is None else torch.as_tensor(visible)
    return MirroredPoints(pose_points(as_points(points)[rows], size, "flip"), known.bool()[rows])


def partner_points(
    source: FeatureMap,
    mirrored: FeatureMap,
    points: PointsLike,
    settings: MatchSettings | None = None,
) -> Float[Tensor, "n 2"]:
    """Where points of the source lie, as to meaning, in its mirror image, found without any label.

    The source is matched against its own mirror image: what looks like the left ear there is the mirrored
    right ear. Features that do not know left from right find the mirrored point itself.

    Returns:
        Pixels of the mirrored image.
    """
    return match(source, mirrored, points, settings).points


def match_posed(
    sources: Mapping[Pose, FeatureMap],
    target: FeatureMap,
    points: PointsLike,
    pose: Pose,
    settings: MatchSettings | None = None,
    mirrored: MirroredPoints | None = None,
) -> Matches:
    """Match points of the source through its image turned to ``pose``.

    Args:
        sources: features of the source by pose; needs ``"identity"`` and ``pose``.
        target: features of the target image.
        points: pixels of the source image as it is.
        pose: the pose that won.
        settings: see `matching.match`.
        mirrored: where each point is read in the mirrored image, by its label (`mirror_points`); ``None``: no
            labels, partners are found by `partner_points`.
    """
    straight, pixels = sources["identity"], as_points(points).double()
    if pose == "identity":
        return match(straight, target, pixels, settings)
    size = (straight.canvas.width, straight.canvas.height)
    known = torch.ones(len(pixels), dtype=torch.bool)
    if pose != "flip":
        # A rotation changes no meaning: each point is read where it lies in the turned image.
        places = pose_points(pixels, size, pose)
    elif mirrored is None:
        # A mirror exchanges left and right; without labels the features say what each point becomes.
        places = partner_points(straight, sources["flip"], pixels, settings)
    else:
        places, known = mirrored.places, mirrored.known
    found = replace(match(sources[pose], target, places, settings), turned=known, pose=pose)
    # A point whose partner is unknown keeps the match of the image as it is.
    return found if known.all() else _merged(found, match(straight, target, pixels, settings))


def _merged(turned: Matches, straight: Matches) -> Matches:
    """Matches of the turned image where they are known, of the image as it is elsewhere."""
    known = turned.turned
    return replace(
        turned,
        points=torch.where(known[:, None], turned.points, straight.points),
        confidence=torch.where(known, turned.confidence, straight.confidence),
        cycle_error=torch.where(known, turned.cycle_error, straight.cycle_error),
        read_at=torch.where(known[:, None], turned.read_at, straight.read_at),
    )


def _whole_image_distance(source: Float[Tensor, "c h w"], target: Float[Tensor, "c h2 w2"]) -> float:
    """IMD over all cells of the source, on maps pooled to at most 24 cells a side: a tenth of the cost."""
    rows, columns = (F.normalize(_pooled(each).flatten(1), dim=0) for each in (source, target))
    return _unit_distance(_best_cosines(rows.T, columns)).mean().item()


def _pooled(features: Float[Tensor, "c h w"], side: int = 24) -> Float[Tensor, "c h2 w2"]:
    factor = -(-max(features.shape[1:]) // side)
    return F.avg_pool2d(features.float()[None], factor, ceil_mode=True)[0]


def _on_image(features: FeatureMap) -> Float[Tensor, "c h w"]:
    rows, columns = features.canvas.cells(features.grid)
    return features.data[:, rows, columns]


def _masked_descriptors(
    features: Float[Tensor, "c h w"], mask: Tensor | None, resolution: int, name: str, released: bool
) -> Float[Tensor, "n c"]:
    # Channels last: a cell's descriptor is read in one piece, here and by the product that follows.
    stacked = features.float().permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    stacked = F.normalize(stacked, dim=1) if released else stacked
    cells = resized(stacked, resolution)[0].permute(1, 2, 0).flatten(0, 1)
    # The released code takes cells off the mask out by zeros, which it then makes so large that none is near.
    found = cells.masked_fill(cells == 0, _FAR) if released else F.normalize(cells, dim=1)
    if mask is None:
        return found
    small = F.interpolate(
        mask.to(found.device).float()[None, None], size=(resolution, resolution), mode="nearest"
    )
    inside = small.flatten() != 0
    if not inside.any():
        raise InputError(
            f"the {name} mask is empty at {resolution}x{resolution}: too small an object to be compared; "
            "mend the mask, or leave it out"
        )
    return found[inside]


def _present_cells(features: Float[Tensor, "c h w"]) -> tuple[Float[Tensor, "c n"], Float[Tensor, " n"]]:
    """Descriptors that are not zero, as columns, and their norms; the map itself where none is zero."""
    columns = features.float().flatten(1)
    norms = torch.linalg.vector_norm(columns, dim=0)
    present = norms > 0
    return (columns, norms) if present.all() else (columns[:, present], norms[present])


def _best_cosines(rows: Float[Tensor, "n c"], columns: Float[Tensor, "c m"]) -> Float[Tensor, " n"]:
    """The largest cosine of each unit row with any unit column, a block of rows at a time."""
    return torch.cat([(part @ columns).amax(dim=1) for part in rows.split(_ROWS_AT_ONCE)])


def _smallest_distances(rows: Float[Tensor, "n c"], columns: Float[Tensor, "m c"]) -> Float[Tensor, " n"]:
    """The L2 distance of each row to its nearest column, a block of rows at a time."""
    far = min(rows.min(), columns.min()) == _FAR
    # The fast way squares the numbers: of large ones nothing would be left.
    mode = "donot_use_mm_for_euclid_dist" if far else "use_mm_for_euclid_dist"
    parts = rows.split(_ROWS_AT_ONCE)
    return torch.cat([torch.cdist(part, columns, compute_mode=mode).amin(dim=1) for part in parts])


def _unit_distance(cosine: Tensor) -> Tensor:
    """L2 distance between unit vectors of the given cosine."""
    return (2 - 2 * cosine).clamp(min=0).sqrt()
