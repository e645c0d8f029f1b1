"""Small extractors and images for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from geoaware.features.extractor import Extractor, Layout


class Patches(Extractor):
    """The mean colours of each cell and of its eight neighbours, made blind to left and right.

    Mirrored images give exactly mirrored maps: what a network without a sense of left would do. The cell's
    side is odd, so that cell centres are mirrored onto cell centres.
    """

    def __init__(self, grid: int = 13, cell: int = 9) -> None:
        super().__init__("patches", f"patches({grid}, {cell})", Layout(grid * cell, grid, 18))
        self.scale = nn.Parameter(torch.ones(()))
        self.cell = cell

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        # Pooled in float64: the order of a sum must not tell an image from its mirror image.
        means = F.avg_pool2d(pixels.double(), self.cell) * self.scale
        padded = F.pad(means, (1, 1, 1, 1), mode="replicate")
        side = means.shape[-1]
        rows = [padded[:, :, dy : dy + side] for dy in range(3)]
        middle = [row[..., 1 : side + 1] for row in rows]
        beside = [row[..., :side] + row[..., 2:] for row in rows]
        return (torch.cat(middle + beside, dim=1).float(),)


def noise(width: int, height: int, seed: int) -> Image.Image:
    """An image of blurred colour noise, different everywhere."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def face(width: int = 160, height: int = 160, colour: str = "orange", ears: str = "brown") -> Image.Image:
    """A cat's face drawn from circles and triangles."""
    image = Image.new("RGB", (width, height), "seagreen")
    draw = ImageDraw.Draw(image)

    def at(*xy: float) -> list[float]:
        return [value * (width if index % 2 == 0 else height) for index, value in enumerate(xy)]

    draw.polygon(at(0.15, 0.1, 0.2, 0.5, 0.45, 0.3), fill=ears)
    draw.polygon(at(0.85, 0.1, 0.8, 0.5, 0.55, 0.3), fill=ears)
    draw.ellipse(at(0.15, 0.25, 0.85, 0.95), fill=colour)
    for x in (0.35, 0.65):
        draw.ellipse(at(x - 0.07, 0.43, x + 0.07, 0.57), fill="white")
        draw.ellipse(at(x - 0.03, 0.47, x + 0.03, 0.54), fill="black")
    draw.polygon(at(0.45, 0.65, 0.55, 0.65, 0.5, 0.72), fill="hotpink")
    draw.line(at(0.5, 0.72, 0.5, 0.8), fill="black", width=2)
    return image


def save_face(path: Path, **options: object) -> Path:
    """Write a face to a file and return its path."""
    face(**options).save(path)  # type: ignore[arg-type]
    return path
