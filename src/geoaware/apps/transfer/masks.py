"""The sources' masks carried to other images: a linear classifier of cells, made of the sources' own.

Ridge regression learns from the descriptors of the sources' cells how much of a cell the object covers. It
needs one product a target, however many sources there are, and was better than the label of the nearest
source cell wherever sources were few or unlike the target (docs/transfer.md has the figures).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.data.masks import object_mask
from geoaware.method.geometry import Canvas, opposite, pose_image
from geoaware.method.types import AnnotatedImage, FeatureMap
from geoaware.runs.errors import InputError

MOST = 10_000
"""Cells of all sources that the classifier is made of at most: they are held together."""

RIDGE = 3e-5
"""How much large weights cost, shared by the sources: with more of them, less is left to chance. Chosen on
badja with `lite`, from 1e-5 to 1e-3."""


class Cells(NamedTuple):
    """Some cells of a source: unit descriptors, and which share of each the object covers."""

    descriptors: Float[Tensor, "n c"]
    covered: Float[Tensor, " n"]


@dataclass(frozen=True)
class Covered:
    """How much of each cell of an image the object covers, as estimated: about 0 to 1."""

    shares: Float[np.ndarray, "p p"]
    canvas: Canvas

    def pixels(self) -> np.ndarray:
        """The mask, boolean (h, w), of the image that was encoded; between cells the shares are bilinear."""
        canvas, grid = self.canvas, len(self.shares)
        # As it lies on the canvas: turned, and without what is not shown.
        width, height = canvas.shown
        plain = Canvas(width, height, canvas.size)
        rows, columns = plain.cells(grid)
        steps = torch.arange(max(width, height), dtype=torch.float64)
        places = plain.to_grid(plain.to_canvas(torch.stack([steps, steps], dim=1)), grid)
        inside = torch.from_numpy(self.shares[rows, columns])
        across = _between(inside.T, places[:width, 0] - columns.start).T
        found = _between(across.contiguous(), places[:height, 1] - rows.start) >= 0.5
        shown = pose_image(Image.fromarray(found.numpy()), opposite(canvas.turn))
        mask = Image.new("1", (canvas.width, canvas.height))
        mask.paste(shown, canvas.part[:2])
        return np.array(mask)


@dataclass(frozen=True)
class Outline:
    """Tells from a cell's descriptor how much of it the object covers.

    Attributes:
        weights: of a unit descriptor's channels.
        base: what is added.
    """

    weights: Float[Tensor, " c"]
    base: float

    @classmethod
    def of(cls, sources: Sequence[Cells]) -> Outline:
        """The classifier of the cells of some sources, in which object and background weigh alike.

        Raises:
            InputError: their masks cover all of their images, or nothing of the cells.
        """
        rows = torch.cat([each.descriptors for each in sources])
        covered = torch.cat([each.covered for each in sources])
        if not 0 < float(covered.mean()) < 1:
            raise InputError(
                "the masks of the sources cover all of their images, or next to nothing: nothing tells "
                "the object from the background; give masks of the object alone",
                "masks",
            )
        shares = covered / covered.sum() + (1 - covered) / (1 - covered).sum()
        shares = (shares / 2)[:, None]
        mean, level = (shares * rows).sum(dim=0), float((shares[:, 0] * covered).sum())
        centred = rows - mean
        spread = (shares * centred).T @ centred
        spread += RIDGE / len(sources) * torch.eye(len(mean)).to(spread)
        weights = torch.linalg.solve(spread, (shares * centred).T @ (covered - level))
        return cls(weights, level - float(mean @ weights))

    def __call__(self, features: FeatureMap) -> Covered:
        """How much of each cell of an image the object covers."""
        found = torch.einsum("c,chw->hw", self.weights.to(features.data.device), features.data.float())
        shares = found / features.norms.clamp_min(1e-12) + self.base
        return Covered(shares.cpu().numpy(), features.canvas)


def cells_of(features: FeatureMap, mask: np.ndarray, most: int, seed: int) -> Cells:
    """Cells of a source, all or so many drawn at random, with what its mask (h, w) covers of them."""
    rows, columns = features.canvas.cells(features.grid)
    data = features.data[:, rows, columns].float().flatten(1).T
    covered = covered_cells(mask, features.canvas, features.grid)[rows, columns].flatten().to(data)
    if len(data) > most:
        drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:most]
        data, covered = data[drawn.to(data.device)], covered[drawn.to(data.device)]
    return Cells(F.normalize(data, dim=1), covered)


def covered_cells(mask: np.ndarray, canvas: Canvas, grid: int) -> Float[Tensor, "p p"]:
    """Which share of the image in each cell a mask (h, w) covers; 0 where a cell shows padding alone."""
    both = [
        canvas.render(Image.fromarray(each), "L", Image.Resampling.BOX) for each in (mask, np.ones_like(mask))
    ]
    inside, image = (
        F.adaptive_avg_pool2d(torch.from_numpy(np.array(each)).float()[None], grid)[0] for each in both
    )
    return inside / image.clamp_min(1)


def hash_masks(images: Iterable[AnnotatedImage]) -> str:
    """SHA-256 of all masks, each of which is read.

    Raises:
        InputError: one cannot be read, is empty, or is of another size than its image.
    """
    digest = hashlib.sha256()
    for each in images:
        mask = object_mask(each)
        digest.update(b"none" if mask is None else np.packbits(mask).tobytes())
    return digest.hexdigest()


def _between(values: Float[Tensor, "n m"], places: Float[Tensor, " k"]) -> Float[Tensor, "k m"]:
    """Rows at places between rows; beyond the ends the last one."""
    at = places.clamp(0, len(values) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(values) - 1)
    return torch.lerp(values[low], values[high], (at - low)[:, None].to(values))
