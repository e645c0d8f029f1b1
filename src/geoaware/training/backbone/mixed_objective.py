"""What the one network minimises: keypoints over all data sets at once, and distillation.

* ``cells``: a keypoint read on one view and looked for on another: cross-entropy over the cells, whose wanted
  distribution is a narrow Gaussian. Cells that show another object of the kind do not count as wrong.
* ``dense``: distance of the soft-argmax from the true place (paper, equation 3), in cells.
* ``keypoints``: cross-entropy over the other view's keypoints (paper, equation 2), among which are the mirror
  partner and its like, the hard negatives.
* ``own``: points that nobody annotated between two views of one object.
* ``presence``: of an object that is trained on.
* ``plain``: the plain descriptors relate cells as the plain extractor does.
* ``joined``: so do the network's final descriptors where nothing is shown that is trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geoaware.training.backbone.images import OUTSIDE
from geoaware.training.backbone.mixture import Views, Windows
from geoaware.training.backbone.objective import _positions, gaussians, mean_entropy, presence_loss, read

_SCALE, _LARGEST = 45.0, 80.0
"""Factor of the cosines in the softmax: at first, and at most."""

_NEAR = 2.0
"""Cells around a keypoint that count as its own place even where another object is."""

_AROUND = 2.0
"""Cells around another object's keypoint where a match is not taken for wrong."""

_SAME = 1.0
"""Keypoints nearer than so many cells to the true place are no negatives."""


@dataclass(frozen=True)
class MixedWeights:
    """Weights of the parts."""

    cells: float = 1.0
    dense: float = 0.05
    keypoints: float = 0.5
    own: float = 0.3
    presence: float = 0.3
    plain: float = 1.0
    joined: float = 0.5
    spread: float = 0.7
    temperature: float = 0.05


class MixedCriterion(nn.Module):
    """The loss with what is learned for it alone.

    Args:
        classes: of keypoints.
        channels: of a descriptor.
        weights: of the parts.
    """

    def __init__(self, classes: int, channels: int, weights: MixedWeights) -> None:
        super().__init__()
        self.weights = weights
        self.prototypes = nn.Parameter(torch.randn(classes, channels))
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE)))

    def forward(
        self,
        maps: Float[Tensor, "v d g g"],
        presence: Float[Tensor, "v 1 g g"],
        views: Views,
        plain: Float[Tensor, "w c g g"],
        joined: Float[Tensor, "w d g g"],
        window_presence: Float[Tensor, "w 1 g g"],
        windows: Windows,
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts, unweighted.

        Args:
            maps: unit descriptors of the views.
            presence: its logits.
            views: their labels.
            plain: plain descriptors of the windows.
            joined: unit descriptors of the windows.
            window_presence: its logits.
            windows: what is wanted of them.
        """
        scale = self.log_scale.exp().clamp(max=_LARGEST)
        cells, dense = self._searches(maps, views, scale)
        wanted = gaussians(views.own[:, 1].to(maps), maps.shape[-1], self.weights.spread)
        first, second = views.pairs.unbind(dim=1)
        own = mean_entropy(
            maps[first], maps[second], views.own[:, 0].to(maps), wanted, views.known.to(maps), scale
        )
        regions = torch.cat(
            [views.regions, torch.full_like(window_presence[:, 0][windows.negative], OUTSIDE)]
        )
        seen = torch.cat([presence, window_presence[windows.negative]])
        negative = windows.negative
        return {
            "cells": cells,
            "dense": dense,
            "keypoints": keypoint_entropy(read(maps, views.xy), views.xy, views.visible, scale),
            "own": own,
            "presence": presence_loss(seen, regions),
            "plain": relation_loss(halved(plain), windows.plain, windows.inside, self.weights.temperature),
            "joined": relation_loss(
                halved(joined[negative]),
                windows.plain[negative],
                windows.inside[negative],
                self.weights.temperature,
            ),
        }

    def total(self, parts: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Weighted sum."""
        return torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()

    def _searches(
        self, maps: Float[Tensor, "v d g g"], views: Views, scale: Tensor
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean cross-entropy over the cells and mean distance of the soft-argmax, over all searches."""
        grid = maps.shape[-1]
        xy, visible = views.xy.to(maps), views.visible
        prototypes = F.normalize(self.prototypes, dim=1)
        # The prototypes are one more view, on which nothing is looked for.
        queries = torch.cat(
            [
                F.normalize(read(maps, xy), dim=2),
                F.pad(prototypes, (0, 0, 0, xy.shape[1] - len(prototypes)))[None],
            ]
        )
        has = torch.arange(xy.shape[1]) < len(prototypes)
        readable = torch.cat([visible, has[None]])
        wanted = gaussians(xy, grid, self.weights.spread).flatten(2)
        ignored = ignored_cells(views, grid).flatten(2)
        positions = _positions(grid, maps)
        totals = []
        for row, cells in enumerate(maps.flatten(2).unbind()):
            sought = readable & visible[row]
            sought[row] = False
            view, keypoint = sought.nonzero(as_tuple=True)
            if not len(view):
                continue
            read_there = queries[view, keypoint]
            logits = (scale * read_there @ cells).masked_fill(ignored[row, keypoint], -1e4)
            normal = torch.logsumexp(logits, dim=1)
            middle = wanted[row] @ cells.T
            entropy = normal - scale * (read_there * middle[keypoint]).sum(dim=1)
            found = (logits - normal[:, None]).exp() @ positions
            far = torch.linalg.vector_norm(found - xy[row, keypoint], dim=1)
            totals.append(torch.stack([entropy.sum(), far.sum(), entropy.new_tensor(len(view))]))
        if not totals:
            return maps.new_zeros(()), maps.new_zeros(())
        total = torch.stack(totals).sum(dim=0)
        return total[0] / total[2], total[1] / total[2]


def ignored_cells(views: Views, grid: int) -> Bool[Tensor, "v n g g"]:
    """Cells that are no wrong place for a keypoint: where another object of the kind is.

    These are cells in another object's box and those around its keypoint of the same class, but never those
    at the true place.
    """
    cells = torch.arange(grid, dtype=torch.float32)
    y, x = torch.meshgrid(cells, cells, indexing="ij")

    def around(xy: Float[Tensor, "*n 2"], reach: float) -> Bool[Tensor, "*n g g"]:
        across, down = xy[..., 0, None, None] - x, xy[..., 1, None, None] - y
        return across**2 + down**2 <= reach**2

    near_others = around(views.others, _AROUND) & views.others_visible[..., None, None]
    found = views.elsewhere[:, None] | near_others.any(dim=1)
    return found & ~around(views.xy, _NEAR)


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
    unit = F.normalize(queries, dim=2)
    count = visible.shape[1]
    logits = scale * torch.einsum("snd,tmd->stnm", unit, unit)
    together = torch.cdist(xy.float(), xy.float()) < _SAME
    allowed = visible[:, None, :] & (~together | torch.eye(count, dtype=torch.bool))
    logits = logits.masked_fill(~allowed[None], -1e4)
    entropy = torch.logsumexp(logits, dim=3) - logits.diagonal(dim1=2, dim2=3)
    counted = visible[:, None] & visible[None]
    counted = counted & ~torch.eye(len(visible), dtype=torch.bool)[..., None]
    return torch.where(counted, entropy, torch.zeros_like(entropy)).sum() / counted.sum().clamp(min=1)


def halved(maps: Float[Tensor, "w c g g"]) -> Float[Tensor, "w c h h"]:
    """Unit descriptors of blocks of 2 x 2 cells."""
    return F.normalize(F.avg_pool2d(maps, 2), dim=1)


def relation_loss(
    ours: Float[Tensor, "w c h h"],
    theirs: Float[Tensor, "w k h h"],
    inside: Bool[Tensor, "w h h"],
    temperature: float,
) -> Float[Tensor, ""]:
    """How differently two sets of descriptors relate cells, inside each window and between windows.

    For every cell and every window: the Kullback-Leibler divergence of the softmax of our cosine similarities
    with the window's cells from that of theirs; the mean over cells and windows.

    Args:
        ours: unit descriptors.
        theirs: unit descriptors of the same cells, in any number of channels.
        inside: cells that count.
        temperature: of the softmax.
    """
    if not inside.any():
        return ours.new_zeros(())
    mask = inside.flatten(1)

    def similarities(maps: Tensor) -> Float[Tensor, "q w c"]:
        rows = maps.flatten(2).transpose(1, 2)
        logits = torch.einsum("qd,wcd->qwc", rows[mask], rows) / temperature
        return F.log_softmax(logits.masked_fill(~mask, -1e4), dim=2)

    with torch.no_grad():
        wanted = similarities(theirs)
    there = mask.any(dim=1)
    divergence = (wanted.exp() * (wanted - similarities(ours))).sum(dim=2)
    return divergence[:, there].mean()
