"""What the plain extractor makes of whole images, kept on the disk, and the plain way out fitted to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.data.images import load_image
from geoaware.features.efficientnet_lite import MEAN, STD, EfficientNetLite
from geoaware.features.tuned import READ, TunedNetwork
from geoaware.method.geometry import Canvas
from geoaware.method.maps import resized
from geoaware.runs.progress import Tell
from geoaware.training.backbone.records import file_state, made_by_threads, records

CANVAS, GRID = 448, 28
"""Side of a whole image on its canvas, and of the plain extractor's map of it."""

CELL = CANVAS // GRID
"""Pixels a cell of these maps."""

_SHARPER = 0.0625
"""Each principal channel is multiplied by this power of its eigenvalue."""

_BASIS = 300
"""Images without labels that the principal channels are found on, at most."""

_RIDGE = 1e-3
"""Of the regression, relative to the mean energy of a channel."""


@dataclass(frozen=True)
class Plain:
    """Whole images with the plain extractor's descriptors of them; those without labels come first.

    Attributes:
        pixels: (n, CANVAS, CANVAS, 3), on the disk.
        maps: (n, c, GRID, GRID), its descriptors in principal channels, on the disk.
        inside: (n, 4), rows and columns of a map that show the image: top, bottom, left, right.
        negative: (n,), whether an image surely shows nothing that is trained on.
        unlabelled: how many are without labels.
    """

    pixels: np.ndarray
    maps: np.ndarray
    inside: np.ndarray
    negative: np.ndarray
    unlabelled: int


def make_plain(
    unlabelled: Sequence[Path],
    annotated: Sequence[Path],
    channels: int,
    folder: Path,
    device: torch.device,
    workers: int,
    tell: Tell,
) -> Plain:
    """The plain extractor's descriptors of images, from the disk if they are there.

    Args:
        unlabelled: images without labels, at least one.
        annotated: others.
        channels: of the descriptors that are kept: the principal ones over the images without labels.
        folder: of the files.
        device: of the extractor.
        workers: threads that decode.
        tell: is told how far this is.

    Raises:
        InputError: an image cannot be read.
    """
    teacher = _Teacher(EfficientNetLite.load("efficientnet-lite0").to(device).eval(), workers, tell)
    paths = [*unlabelled, *annotated]
    dtype = np.dtype(
        [
            ("pixels", "u1", (CANVAS, CANVAS, 3)),
            ("maps", "f2", (channels, GRID, GRID)),
            ("inside", "i2", (4,)),
        ]
    )

    def fill(made: np.ndarray) -> None:
        teacher.fill(made, paths, teacher.principal(unlabelled[:_BASIS], channels))

    decided = [teacher.state, _BASIS, _SHARPER, len(unlabelled), [file_state(each) for each in paths]]
    kept = records(folder, "plain", decided, dtype, len(paths), fill)
    negative = [row < len(unlabelled) and is_negative(path.name) for row, path in enumerate(paths)]
    inside = np.ascontiguousarray(kept["inside"])
    return Plain(kept["pixels"], kept["maps"], inside, np.array(negative), len(unlabelled))


@dataclass(frozen=True)
class _Teacher:
    """The plain extractor, with threads that decode for it."""

    extractor: EfficientNetLite
    workers: int
    tell: Tell

    @property
    def state(self) -> list[str]:
        """What its descriptors follow from."""
        return [self.extractor.identity, self.extractor.weights_hash()]

    @torch.inference_mode()
    def principal(self, paths: Sequence[Path], channels: int) -> Float[Tensor, "k c"]:
        """The principal directions of its descriptors, each as long as its eigenvalue's power says."""
        width = self.extractor.layout.channels
        covariance = torch.zeros(width, width, dtype=torch.float64)
        for pixels, (top, bottom, left, right) in self._decoded(paths, "principal channels"):
            found = self._descriptors(pixels)[:, top:bottom, left:right].flatten(1)
            covariance += (found @ found.T).double().cpu() / found.shape[1]
        energy, directions = torch.linalg.eigh(covariance / len(paths))
        lengths = energy.clamp(min=1e-8) ** _SHARPER
        return (directions * lengths).flip(1)[:, :channels].T.float().to(self.extractor.device)

    @torch.inference_mode()
    def fill(self, made: np.ndarray, paths: Sequence[Path], basis: Float[Tensor, "k c"]) -> None:
        """Write the records of images."""
        scale = 0.0
        for row, (pixels, inside) in enumerate(self._decoded(paths, "plain descriptors")):
            found = torch.einsum("kc,chw->khw", basis, self._descriptors(pixels))
            # Half precision has no room for descriptors that are much shorter than 1.
            scale = scale or 1 / float(found.norm(dim=0).mean())
            made["pixels"][row], made["inside"][row] = pixels, inside
            made["maps"][row] = (found * scale).cpu().numpy()

    def _decoded(
        self, paths: Sequence[Path], what: str
    ) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
        return made_by_threads(_on_canvas, paths, self.workers, self.tell, what)

    def _descriptors(self, pixels: np.ndarray) -> Float[Tensor, "c g g"]:
        levels = self.extractor.levels(as_input(pixels[None], self.extractor.device))
        return self.extractor.combine(levels, GRID)[0]


def _on_canvas(path: Path) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The pixels of a canvas, and the rows and columns of its cells that show the image."""
    image = load_image(path)
    canvas = Canvas(*image.size, CANVAS)
    rows, columns = canvas.cells(GRID)
    return np.array(canvas.render(image)), (rows.start, rows.stop, columns.start, columns.stop)


def as_input(pixels: np.ndarray, device: torch.device) -> Float[Tensor, "b 3 s s"]:
    """Pixels (b, s, s, 3) of 0 to 255 as the networks take them."""
    return normalised(torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 255)


def normalised(pixels: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v 3 s s"]:
    """Pixels of 0 to 1 as the networks take them."""
    mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


def is_negative(name: str) -> bool:
    """Whether an image without labels surely shows no mammal, by the ImageNet class in its name.

    Those that show people are no negatives either, nor are those whose names say no class.

    Example:
        >>> is_negative("n03792782_mountain_bike.jpg")
        True
        >>> is_negative("n02088364_beagle.jpg")
        False
    """
    found = re.match(r"n(\d{8})", name)
    if found is None:
        return False
    synset = int(found[1])
    # WordNet 3.0 offsets of ImageNet's classes: mammals lie from the echidna to the elephants and pandas;
    # from 9800000 on there are people.
    mammal = 1870000 <= synset <= 1885000 or 2077000 <= synset <= 2140000 or 2321000 <= synset <= 2515000
    return not mammal and synset < 9800000


@torch.no_grad()
def fit_reading(network: TunedNetwork, plain: Plain, count: int = 800, cells: int = 120) -> float:
    """Set the plain way out by ridge regression onto the plain extractor's descriptors.

    Args:
        network: as it stands; its reading is overwritten.
        plain: images with these descriptors.
        count: images that are looked at, the first ones.
        cells: of each, at random.

    Returns:
        The share of the descriptors' energy that is explained.
    """
    network.eval()
    generator = torch.Generator().manual_seed(0)
    width = sum(READ.values())
    gram = torch.zeros(width, width, dtype=torch.float64)
    wanted = torch.zeros(width, network.shape.plain, dtype=torch.float64)
    energy = 0.0
    for row in range(min(count, len(plain.pixels))):
        levels = network.levels(network.maps(as_input(plain.pixels[row][None], network.gate.device)))
        joined = torch.cat([resized(each, GRID) for each in levels], dim=1)
        top, bottom, left, right = plain.inside[row].tolist()
        y = torch.randint(top, bottom, (cells,), generator=generator)
        x = torch.randint(left, right, (cells,), generator=generator)
        target = F.normalize(torch.from_numpy(plain.maps[row].astype("float32")), dim=0)[:, y, x].double()
        found = joined[0].cpu()[:, y, x].double()
        gram += found @ found.T
        wanted += found @ target.T
        energy += float(target.square().sum())
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, wanted)
    for index, part in zip(READ, solution.split(list(READ.values())), strict=True):
        cast(nn.Conv2d, network.reading[str(index)]).weight.copy_(part.T[..., None, None])
    missed = energy - 2 * float((solution * wanted).sum()) + float((solution * (gram @ solution)).sum())
    return 1 - missed / energy


@torch.no_grad()
def towards_imagenet(network: TunedNetwork, kept: float) -> None:
    """Move the backbone a part of the way back to ImageNet's weights (Wortsman et al. 2022).

    Plain descriptors are better there, and the decoder still understands what it reads.

    Args:
        network: whose backbone moves.
        kept: share of its own weights.
    """
    there = TunedNetwork.from_imagenet(network.shape).state_dict()
    for name, value in network.state_dict().items():
        if name.startswith(("stem", "blocks")) and value.is_floating_point():
            value.copy_(torch.lerp(there[name].to(value), value, kept))
