"""What tuning minimises, over the views of all data sets at once.

* ``cells``: a keypoint read on one view and looked for on another: cross-entropy over the cells, whose wanted
  distribution is a narrow Gaussian. Cells that show another object of the kind do not count as wrong.
  Prototypes, one learned descriptor a class, are looked for as well: they steady the training and are thrown
  away.
* ``dense``: distance of the soft-argmax from the true place (paper, equation 3), in cells.
* ``keypoints``: cross-entropy over the other view's keypoints (paper, equation 2), among which are the mirror
  partner and its like, the hard negatives.
* ``own``: points that nobody annotated between two views of one object.
* ``presence``: of an object that is trained on, cell by cell.
* ``familiar``: whether a view shows such an object at all.
* ``upright``: how a view has to be turned to stand upright.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geoaware.method.matching import sample_descriptors
from geoaware.training.backbone.config import Objective
from geoaware.training.backbone.crops import OBJECT, OUTSIDE
from geoaware.training.backbone.views import Batch

_SCALE, _LARGEST = 45.0, 80.0
"""Factor of the cosines in the softmax: at first, and at most."""

_NEAR = 2.0
"""Cells around a keypoint that count as its own place even where another object is."""

_AROUND = 2.0
"""Cells around another object's keypoint where a match is not taken for wrong."""

_SAME = 1.0
"""Keypoints nearer than so many cells to the true place are no negatives."""


class Criterion(nn.Module):
    """The loss with what is learned for it alone.

    Args:
        classes: of keypoints.
        channels: of a descriptor.
        weights: of the parts.
    """

    def __init__(self, classes: int, channels: int, weights: Objective) -> None:
        super().__init__()
        self.weights = weights
        self.prototypes = nn.Parameter(torch.randn(classes, channels))
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def forward(
        self,
        maps: Float[Tensor, "v d g g"],
        presence: Float[Tensor, "n 1 g g"],
        familiarity: Float[Tensor, " n"],
        turns: Float[Tensor, "n 4"],
        batch: Batch,
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts, unweighted.

        Args:
            maps: unit descriptors of the views.
            presence: its logits, of the views and then of the negatives.
            familiarity: the logits of these showing an object.
            turns: the logits of their turns.
            batch: labels of the views.
        """
        count = len(maps)
        of_none = torch.full_like(presence[count:, 0], OUTSIDE)
        shows = (torch.arange(len(familiarity)) < count).to(familiarity)
        return {
            **self.matched(maps, batch),
            "presence": presence_loss(presence, torch.cat([batch.regions, of_none])),
            "upright": turn_loss(turns, batch.turns),
            "familiar": F.binary_cross_entropy_with_logits(familiarity, shows),
        }

    def matched(self, maps: Float[Tensor, "v d g g"], batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The parts that follow from descriptors alone, unweighted; the rest is as above."""
        scale = self.log_scale.exp().clamp(max=_LARGEST)
        cells, dense = self._searches(maps, batch, scale)
        return {
            "cells": cells,
            "dense": dense,
            "keypoints": keypoint_entropy(sample_descriptors(maps, batch.xy), batch.xy, batch.visible, scale),
            "own": own_entropy(maps, batch, self.weights.spread, scale),
        }

    def total(self, parts: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Weighted sum."""
        return torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()

    def _searches(
        self, maps: Float[Tensor, "v d g g"], batch: Batch, scale: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean cross-entropy over the cells and mean distance of the soft-argmax, over all searches."""
        grid, xy, visible = maps.shape[-1], batch.xy.to(maps), batch.visible
        prototypes = F.normalize(self.prototypes, dim=1)
        # The prototypes are one more view, on which nothing is looked for.
        padded = F.pad(prototypes, (0, 0, 0, xy.shape[1] - len(prototypes)))
        queries = torch.cat([F.normalize(sample_descriptors(maps, xy), dim=2), padded[None]])
        readable = torch.cat([visible, torch.arange(xy.shape[1])[None] < len(prototypes)])
        wanted = gaussians(xy, grid, self.weights.spread).flatten(2)
        ignored = ignored_cells(batch, grid).flatten(2)
        positions = _positions(grid, maps)
        totals, count = [], 0
        # View by view: all at once would need gigabytes, and be slower.
        for row, cells in enumerate(maps.flatten(2).unbind()):
            sought = readable & visible[row]
            sought[row] = False
            view, keypoint = sought.nonzero(as_tuple=True)
            if not len(view):
                continue
            read_there = queries[view, keypoint]
            logits = (scale * read_there @ cells).masked_fill(ignored[row, keypoint], -1e4)
            normal = torch.logsumexp(logits, dim=1)
            # The wanted distribution's mean descriptor is as good as all cells.
            middle = wanted[row] @ cells.T
            entropy = normal - scale * (read_there * middle[keypoint]).sum(dim=1)
            found = (logits - normal[:, None]).exp() @ positions
            far = torch.linalg.vector_norm(found - xy[row, keypoint], dim=1)
            totals.append(torch.stack([entropy.sum(), far.sum()]))
            count += len(view)
        if not totals:
            return maps.new_zeros(()), maps.new_zeros(())
        entropy, far = (torch.stack(totals).sum(dim=0) / count).unbind()
        return entropy, far


def ignored_cells(batch: Batch, grid: int) -> Bool[Tensor, "v n g g"]:
    """Cells that are no wrong place for a keypoint: where another object of the kind is.

    These are cells in another object's box and those around its keypoint of the same class, but never those
    at the true place.
    """
    x, y = _positions(grid, batch.xy).view(grid, grid, 2).unbind(dim=2)

    def around(xy: Float[Tensor, "*n 2"], reach: float) -> Bool[Tensor, "*n g g"]:
        across, down = xy[..., 0, None, None] - x, xy[..., 1, None, None] - y
        return across**2 + down**2 <= reach**2

    near_others = around(batch.others, _AROUND) & batch.others_visible[..., None, None]
    found = batch.elsewhere[:, None] | near_others.any(dim=1)
    return found & ~around(batch.xy, _NEAR)


def keypoint_entropy(
    queries: Float[Tensor, "v n d"],
    xy: Float[Tensor, "v n 2"],
    visible: Bool[Tensor, "v n"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each view's keypoints over the keypoints of each other view.

    A keypoint that lies where the true one does (within `_SAME` cells) is no negative.

    Args:
        queries: descriptors at the keypoints.
        xy: their places, in cells.
        visible: which are there.
        scale: factor of the cosines.
    """
    unit, visible = F.normalize(queries, dim=2), visible.to(queries.device)
    itself, same = (torch.eye(each, dtype=torch.bool, device=unit.device) for each in visible.shape[::-1])
    logits = scale * torch.einsum("snd,tmd->stnm", unit, unit)
    together = torch.cdist(xy.float(), xy.float()) < _SAME
    allowed = visible[:, None, :] & (~together | itself)
    logits = logits.masked_fill(~allowed[None], -1e4)
    entropy = torch.logsumexp(logits, dim=3) - logits.diagonal(dim1=2, dim2=3)
    counted = visible[:, None] & visible[None] & ~same[..., None]
    return torch.where(counted, entropy, torch.zeros_like(entropy)).sum() / counted.sum().clamp(min=1)


def own_entropy(
    maps: Float[Tensor, "v d g g"], batch: Batch, spread: float, scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the cells for points that nobody annotated; 0 where none is known.

    Each is read on the first view of a pair and looked for on the second.

    Args:
        maps: unit descriptors of the views.
        batch: labels of the views.
        spread: of the wanted distribution, in cells.
        scale: factor of the cosines.
    """
    first, second = batch.pairs.unbind(dim=1)
    here, there = batch.own.to(maps).unbind(dim=1)
    wanted = gaussians(there, maps.shape[-1], spread).flatten(2)
    logits = scale * F.normalize(sample_descriptors(maps[first], here), dim=2) @ maps[second].flatten(2)
    entropy = torch.logsumexp(logits, dim=2) - (logits * wanted).sum(dim=2)
    return (entropy * batch.known).sum() / batch.known.sum().clamp(min=1)


def presence_loss(logits: Float[Tensor, "v 1 g g"], regions: Float[Tensor, "v g g"]) -> Float[Tensor, ""]:
    """Binary cross-entropy where it is known, object and outside weighing the same."""
    parts = [(regions == kind).to(logits) for kind in (OBJECT, OUTSIDE)]
    each = F.binary_cross_entropy_with_logits(logits[:, 0], parts[0], reduction="none")
    inside, outside = ((each * part).sum() / part.sum().clamp(min=1) for part in parts)
    return (inside + outside) / 2


def turn_loss(logits: Float[Tensor, "n 4"], turns: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the turns where they are known (not negative); 0 where none is."""
    known = turns >= 0
    wanted = turns.clamp(min=0).to(logits.device)
    each = F.cross_entropy(logits, wanted, reduction="none")
    return (each * known.to(each)).sum() / known.sum().clamp(min=1)


def gaussians(xy: Float[Tensor, "*n 2"], grid: int, spread: float) -> Float[Tensor, "*n g g"]:
    """Distributions over the cells around grid positions."""
    cells = torch.arange(grid, device=xy.device, dtype=xy.dtype)
    columns, rows = (
        torch.softmax(-((cells - xy[..., axis, None]) ** 2) / (2 * spread**2), dim=-1) for axis in (0, 1)
    )
    return rows[..., :, None] * columns[..., None, :]


def _positions(grid: int, like: Tensor) -> Float[Tensor, "c 2"]:
    """The (x, y) of every cell, row by row."""
    cells = torch.arange(grid, device=like.device, dtype=like.dtype)
    rows, columns = torch.meshgrid(cells, cells, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)
