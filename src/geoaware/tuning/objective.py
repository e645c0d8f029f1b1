"""What tuning minimises, over every view of a step against every other with the same keypoints.

Four parts. For an annotated keypoint, read in one view and looked for in another: the cross-entropy of its
similarities over all cells, whose wanted distribution is a narrow Gaussian around the true place, and the
paper's dense loss (equation 3), the distance of the soft-argmax from it. Prototypes, one learned descriptor a
keypoint, are looked for as well: they steady the training and are thrown away. For points that nobody
annotated the same cross-entropy between two views of one picture, so that descriptors stay of use there. And
presence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geoaware.tuning.config import Objective
from geoaware.tuning.pictures import OBJECT, OUTSIDE
from geoaware.tuning.views import Batch

_SCALE, _LARGEST = 20.0, 60.0
"""Factor of the cosines in the softmax: at first, and at most."""


@dataclass(frozen=True)
class Parts:
    """The parts of a loss, unweighted; without gradient in a log."""

    cells: Float[Tensor, ""]
    dense: Float[Tensor, ""]
    own: Float[Tensor, ""]
    presence: Float[Tensor, ""]

    def total(self, weights: Objective) -> Float[Tensor, ""]:
        """Weighted sum."""
        return (
            weights.cells * self.cells
            + weights.dense * self.dense
            + weights.own * self.own
            + weights.presence * self.presence
        )


class Criterion(nn.Module):
    """The loss with what is learned for it alone.

    Args:
        counts: keypoints of each group.
        channels: of a descriptor.
        weights: of the parts.
    """

    def __init__(self, counts: list[int], channels: int, weights: Objective) -> None:
        super().__init__()
        self.weights = weights
        self.prototypes = nn.ParameterList(torch.randn(count, channels) for count in counts)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def forward(
        self, descriptors: Float[Tensor, "v d g g"], presence: Float[Tensor, "v 1 g g"], batch: Batch
    ) -> Parts:
        """The parts of a step's loss.

        Args:
            descriptors: unit, of each view.
            presence: logits.
            batch: labels.
        """
        scale = self.log_scale.exp().clamp(max=_LARGEST)
        sums = [descriptors.new_zeros(3)]
        for group, prototypes in enumerate(self.prototypes):
            rows = [row for row, each in enumerate(batch.groups) if each == group]
            if rows:
                xy = torch.stack([batch.labels[row] for row in rows]).to(descriptors)
                visible = torch.stack([batch.visible[row] for row in rows])
                sums.append(
                    self._group(descriptors[rows], xy, visible, F.normalize(prototypes, dim=1), scale)
                )
        cells, dense, count = torch.stack(sums).sum(dim=0).unbind()
        count = count.clamp(min=1)
        return Parts(
            cells / count,
            dense / count,
            self._own(descriptors, batch, scale),
            presence_loss(presence, batch.regions),
        )

    def _group(
        self,
        maps: Float[Tensor, "v d g g"],
        xy: Float[Tensor, "v k 2"],
        visible: Bool[Tensor, "v k"],
        prototypes: Float[Tensor, "k d"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, 3]:
        """Sums of cross-entropy and distance over the searches of a group's keypoints, and their number."""
        queries = F.normalize(read(maps, xy), dim=2)
        wanted = gaussians(xy, maps.shape[-1], self.weights.spread)
        total = maps.new_zeros(3)
        for keypoint, prototype in enumerate(prototypes):
            # Found on the CPU: to ask a GPU for every keypoint would keep it waiting.
            seen = visible[:, keypoint].nonzero().flatten().to(maps.device)
            if not len(seen):
                continue
            sought = torch.cat([queries[seen, keypoint], prototype[None]])
            entropy, far = searches(
                sought,
                maps[seen],
                wanted[seen, keypoint],
                xy[seen, keypoint],
                scale,
                bool(self.weights.dense),
            )
            # A view's own keypoint is no search.
            counted = torch.ones_like(entropy)
            counted[: len(seen)] -= torch.eye(len(seen), device=counted.device)
            total = total + torch.stack([(entropy * counted).sum(), (far * counted).sum(), counted.sum()])
        return total

    def _own(self, maps: Float[Tensor, "v d g g"], batch: Batch, scale: Tensor) -> Float[Tensor, ""]:
        if not self.weights.own or not batch.known.any():
            return maps.new_zeros(())
        xy, known = batch.own.to(maps), batch.known.to(maps)
        cells = maps[1::2].flatten(2)
        queries = F.normalize(read(maps[::2], xy[:, 0]), dim=2)
        logits = scale * queries @ cells
        wanted = gaussians(xy[:, 1], maps.shape[-1], self.weights.spread).flatten(2)
        entropy = torch.logsumexp(logits, dim=2) - (logits * wanted).sum(dim=2)
        return (entropy * known).sum() / known.sum()


def searches(
    queries: Float[Tensor, "q d"],
    targets: Float[Tensor, "t d g g"],
    wanted: Float[Tensor, "t g g"],
    xy: Float[Tensor, "t 2"],
    scale: Float[Tensor, ""],
    dense: bool = True,
) -> tuple[Float[Tensor, "q t"], Float[Tensor, "q t"]]:
    """Cross-entropy and soft-argmax distance, in cells, of every query in every target.

    Args:
        queries: unit descriptors of one keypoint.
        targets: unit maps.
        wanted: distribution over a target's cells.
        xy: the true place in it.
        scale: factor of the cosines.
        dense: whether the distances are needed; else they are 0.
    """
    cells = targets.flatten(2)
    logits = scale * torch.einsum("qd,tdc->qtc", queries, cells)
    # The wanted distribution is the same for every query, so its mean descriptor is as good as all cells.
    middle = torch.einsum("tdc,tc->td", cells, wanted.flatten(1))
    entropy = torch.logsumexp(logits, dim=2) - scale * queries @ middle.T
    if not dense:
        return entropy, torch.zeros_like(entropy)
    found = logits.softmax(dim=2) @ _positions(targets.shape[-1], targets)
    return entropy, torch.linalg.vector_norm(found - xy, dim=2)


def presence_loss(logits: Float[Tensor, "v 1 g g"], regions: Float[Tensor, "v g g"]) -> Float[Tensor, ""]:
    """Binary cross-entropy where it is known, object and outside weighing the same."""
    each = F.binary_cross_entropy_with_logits(logits[:, 0], (regions == OBJECT).to(logits), reduction="none")
    parts = [(regions == kind).to(logits) for kind in (OBJECT, OUTSIDE)]
    means = [(each * part).sum() / part.sum().clamp(min=1) for part in parts]
    return (means[0] + means[1]) / 2


def read(maps: Float[Tensor, "v d g g"], xy: Float[Tensor, "v n 2"]) -> Float[Tensor, "v n d"]:
    """Descriptors at grid positions, bilinearly; beyond the outer cells' centres, those cells'."""
    places = (2 * xy + 1) / maps.shape[-1] - 1
    read_at = F.grid_sample(maps, places[:, :, None].to(maps), align_corners=False, padding_mode="border")
    return read_at[..., 0].transpose(1, 2)


def gaussians(xy: Float[Tensor, "*n 2"], grid: int, spread: float) -> Float[Tensor, "*n g g"]:
    """Distributions over the cells around grid positions."""
    cells = torch.arange(grid, device=xy.device, dtype=xy.dtype)
    columns, rows = (
        torch.softmax(-((cells - xy[..., axis, None]) ** 2) / (2 * spread**2), dim=-1) for axis in (0, 1)
    )
    return rows[..., :, None] * columns[..., None, :]


def _positions(grid: int, like: Tensor) -> Float[Tensor, "c 2"]:
    cells = torch.arange(grid, device=like.device, dtype=like.dtype)
    rows, columns = torch.meshgrid(cells, cells, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)
