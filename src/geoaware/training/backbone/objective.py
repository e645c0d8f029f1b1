"""What the training of the backbone minimises, over all pairs of views of a step with the same keypoints.

Five parts. For an annotated keypoint, read in one view and looked for in another: the cross-entropy of its
similarities over all cells, whose wanted distribution is a narrow Gaussian around the true place, and the
paper's dense loss (equation 3), the distance of the soft-argmax from it. Prototypes, one learned descriptor a
keypoint, are looked for as well: they steady the training and are thrown away. Points on the limbs between
keypoints are keypoints without a prototype. For points that nobody annotated the same cross-entropy between
two views of one image, so that descriptors stay of use there; and distillation, between images. And presence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geoaware.method.matching import sample_descriptors
from geoaware.training.backbone.config import Objective
from geoaware.training.backbone.images import OBJECT, OUTSIDE
from geoaware.training.backbone.views import Batch

_SCALE, _LARGEST = 20.0, 60.0
"""Factor of the cosines in the softmax: at first, and at most."""

_BACK, _AT_LABEL, _FOUND_SPREAD = 3.0, 3.0, 1.5
"""Of the distillation, in cells: how near to itself a point must be found back, how far it must be from
annotated ones, and the standard deviation of the wanted distribution."""


@dataclass(frozen=True)
class Parts:
    """The parts of a loss, unweighted; without gradient in a log."""

    cells: Float[Tensor, ""]
    dense: Float[Tensor, ""]
    own: Float[Tensor, ""]
    distillation: Float[Tensor, ""]
    presence: Float[Tensor, ""]

    def total(self, weights: Objective) -> Float[Tensor, ""]:
        """Weighted sum."""
        weighted = (getattr(weights, name) * part for name, part in vars(self).items())
        return sum(weighted, start=self.cells.new_zeros(()))


class Criterion(nn.Module):
    """The loss with what is learned for it alone, such as a prototype for each keypoint of each group."""

    def __init__(self, counts: list[int], channels: int, weights: Objective) -> None:
        super().__init__()
        self.weights = weights
        self.prototypes = nn.ParameterList(torch.randn(count, channels) for count in counts)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def forward(
        self,
        descriptors: Float[Tensor, "v d g g"],
        presence: Float[Tensor, "v 1 g g"],
        batch: Batch,
        plain: Float[Tensor, "v c g g"] | None = None,
    ) -> Parts:
        """The parts of a step's loss, from unit descriptors and the logits of presence of each view.

        ``plain`` are unit descriptors of the plain extractor; without them nothing is distilled.
        """
        scale = self.log_scale.exp().clamp(max=_LARGEST)
        # Keypoints: every view against every other of its group, summed before the mean is taken.
        sums = [descriptors.new_zeros(3)]
        for group in sorted(set(batch.groups)):
            sums.append(self._group(descriptors, batch, group, scale))
        cells, dense, count = torch.stack(sums).sum(dim=0).unbind()
        count = count.clamp(min=1)
        own = distillation = descriptors.new_zeros(())
        if self.weights.own and batch.known.any():
            (first, second), counted = batch.own.to(descriptors).unbind(dim=1), batch.known.to(descriptors)
            wanted = gaussians(second, descriptors.shape[-1], self.weights.spread)
            own = mean_entropy(descriptors[::2], descriptors[1::2], first, wanted, counted, scale)
        if plain is not None and batch.known.any():
            distillation = self._distillation(descriptors, batch, scale, plain)
        present = presence_loss(presence, batch.regions)
        return Parts(cells / count, dense / count, own, distillation, present)

    def _group(
        self, descriptors: Float[Tensor, "v d g g"], batch: Batch, group: int, scale: Float[Tensor, ""]
    ) -> Float[Tensor, 3]:
        """Sums of cross-entropy and distance over the searches of a group's keypoints, and their number.

        The first labels have prototypes, the rest are points on limbs.
        """
        rows = [row for row, each in enumerate(batch.groups) if each == group]
        maps, prototypes = descriptors[rows], F.normalize(self.prototypes[group], dim=1)
        xy = torch.stack([batch.labels[row] for row in rows]).to(maps)
        visible = torch.stack([batch.visible[row] for row in rows])
        # Read every view at its keypoints, and say where each of them is wanted.
        queries = F.normalize(sample_descriptors(maps, xy), dim=2)
        wanted = gaussians(xy, maps.shape[-1], self.weights.spread)
        total = maps.new_zeros(3)
        for keypoint in range(xy.shape[1]):
            # Found on the CPU: to ask a GPU for every keypoint would keep it waiting.
            seen = visible[:, keypoint].nonzero().flatten().to(maps.device)
            if not len(seen):
                continue
            # Look for it in the views that show it, as the others show it and as its prototype.
            sought = torch.cat([queries[seen, keypoint], prototypes[keypoint : keypoint + 1]])
            truth, dense = (wanted[seen, keypoint], xy[seen, keypoint]), bool(self.weights.dense)
            entropy, far = searches(sought, maps[seen], *truth, scale, dense)
            # A view's own keypoint is no search.
            counted = torch.ones_like(entropy)
            counted[: len(seen)] -= torch.eye(len(seen), device=counted.device)
            total = total + torch.stack([(entropy * counted).sum(), (far * counted).sum(), counted.sum()])
        return total

    def _distillation(
        self, maps: Float[Tensor, "v d g g"], batch: Batch, scale: Tensor, plain: Float[Tensor, "v c g g"]
    ) -> Float[Tensor, ""]:
        """Points of an image's first view, sought in the second view of the next image of its group."""
        others, xy = following(batch.groups), batch.own[:, 0].to(maps)
        with torch.no_grad():
            # Where the plain descriptors find a point is where it is wanted.
            found, back = plain_searches(plain[::2], plain[others], xy.to(plain))
            wanted = gaussians(found.to(maps), maps.shape[-1], _FOUND_SPREAD)
            # It counts if nobody annotated it or a place near it, and they find their way back.
            known = batch.known & far_from_labels(batch)
            returned = torch.linalg.vector_norm(back - xy, dim=2) <= _BACK
            counted = (known.to(returned.device) & returned).to(maps)
        return mean_entropy(maps[::2], maps[others], xy, wanted, counted, scale)


def mean_entropy(
    sources: Float[Tensor, "n d g g"],
    targets: Float[Tensor, "n d g g"],
    xy: Float[Tensor, "n p 2"],
    wanted: Float[Tensor, "n p g g"],
    counted: Float[Tensor, "n p"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Mean cross-entropy of points, each read in a source and looked for in its target; 0 where none counts.

    Maps are unit, ``wanted`` are distributions over the targets' cells, and ``scale`` is the factor of the
    cosines; ``counted`` is 1 for points that count and 0 for the rest.
    """
    logits = scale * F.normalize(sample_descriptors(sources, xy), dim=2) @ targets.flatten(2)
    entropy = torch.logsumexp(logits, dim=2) - (logits * wanted.flatten(2)).sum(dim=2)
    return (entropy * counted).sum() / counted.sum().clamp(min=1)


def following(groups: Sequence[int]) -> list[int]:
    """For each image, the row of the second view of the next one of its group, after the last the first."""
    of_image = groups[::2]
    members = {group: [each for each, its in enumerate(of_image) if its == group] for group in set(of_image)}
    after = {each: row[(n + 1) % len(row)] for row in members.values() for n, each in enumerate(row)}
    return [2 * after[each] + 1 for each in range(len(of_image))]


def plain_searches(
    sources: Float[Tensor, "n c g g"], targets: Float[Tensor, "n c g g"], xy: Float[Tensor, "n p 2"]
) -> tuple[Float[Tensor, "n p 2"], Float[Tensor, "n p 2"]]:
    """The cells where plain descriptors find points, and the cells of the sources where they find those."""
    cells = targets.flatten(2)
    best = (sample_descriptors(sources, xy) @ cells).argmax(dim=2)
    there = cells.transpose(1, 2).gather(1, best[..., None].expand(-1, -1, cells.shape[1]))
    back = (there @ sources.flatten(2)).argmax(dim=2)
    grid = targets.shape[-1]
    found, returned = (torch.stack([each % grid, each // grid], dim=2) for each in (best, back))
    return found.to(xy), returned.to(xy)


def far_from_labels(batch: Batch) -> Bool[Tensor, "n p"]:
    """Which of the points nobody annotated are at no annotated one, on the first view."""
    firsts = zip(batch.own[:, 0], batch.labels[::2], batch.visible[::2], strict=True)
    return torch.stack(
        [(torch.cdist(xy, labels[seen]) > _AT_LABEL).all(dim=1) for xy, labels, seen in firsts]
    )


def searches(
    queries: Float[Tensor, "q d"],
    targets: Float[Tensor, "t d g g"],
    wanted: Float[Tensor, "t g g"],
    xy: Float[Tensor, "t 2"],
    scale: Float[Tensor, ""],
    dense: bool = True,
) -> tuple[Float[Tensor, "q t"], Float[Tensor, "q t"]]:
    """Cross-entropy and soft-argmax distance, in cells, of every query of one keypoint in every target.

    Queries and maps are unit. ``wanted`` is the distribution over a target's cells, ``xy`` the true place in
    it, and ``scale`` the factor of the cosines. Unless ``dense``, the distances are not needed and are 0.
    """
    cells = targets.flatten(2)
    logits = scale * torch.einsum("qd,tdc->qtc", queries, cells)
    # The wanted distribution is the same for every query, so its mean descriptor is as good as all cells.
    middle = torch.einsum("tdc,tc->td", cells, wanted.flatten(1))
    entropy = torch.logsumexp(logits, dim=2) - scale * queries @ middle.T
    if not dense:
        return entropy, torch.zeros_like(entropy)
    along = torch.arange(targets.shape[-1], device=xy.device, dtype=targets.dtype)
    found = logits.softmax(dim=2) @ torch.cartesian_prod(along, along).flip(1)
    return entropy, torch.linalg.vector_norm(found - xy, dim=2)


def presence_loss(logits: Float[Tensor, "v 1 g g"], regions: Float[Tensor, "v g g"]) -> Float[Tensor, ""]:
    """Binary cross-entropy where it is known, object and outside weighing the same."""
    parts = [(regions == kind).to(logits) for kind in (OBJECT, OUTSIDE)]
    each = F.binary_cross_entropy_with_logits(logits[:, 0], parts[0], reduction="none")
    inside, outside = ((each * part).sum() / part.sum().clamp(min=1) for part in parts)
    return (inside + outside) / 2


def gaussians(xy: Float[Tensor, "*n 2"], grid: int, spread: float) -> Float[Tensor, "*n g g"]:
    """Distributions over the cells around grid positions."""
    cells = torch.arange(grid, device=xy.device, dtype=xy.dtype)
    columns, rows = (
        torch.softmax(-((cells - xy[..., axis, None]) ** 2) / (2 * spread**2), dim=-1) for axis in (0, 1)
    )
    return rows[..., :, None] * columns[..., None, :]
