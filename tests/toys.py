"""Small extractors and images for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from geoaware.features.extractor import Extractor, Layout
from geoaware.features.framed import box_of_cells, cut_out
from geoaware.method.geometry import Canvas
from geoaware.method.types import longer_side


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


class Seeing(Patches):
    """`Patches` that look: what is bright is present, and an image stands upright when its red is on top."""

    sees = ("zoom", "upright")

    def __init__(self, name: str = "seeing") -> None:
        super().__init__()
        self.name, self.identity = name, f"{name}()"
        self.count = 0
        self.requires_grad_(False)

    @classmethod
    def load(cls, name: str) -> Seeing:
        return cls(name)

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        self.count += len(pixels)
        return super().levels(pixels)

    def presence(self, levels: Sequence[Tensor]) -> Tensor:
        return (levels[0][3:6] * self.std + self.mean).amax(dim=0) - 0.1

    def small_object(self, levels: Sequence[Tensor], canvas: Canvas) -> tuple[int, int, int, int] | None:
        found = box_of_cells(self.presence(levels) > 0, canvas)
        if found is None or longer_side(found) >= 0.5 * max(canvas.width, canvas.height):
            return None
        return cut_out(found, (canvas.width, canvas.height))

    def shows_object(self, levels: Sequence[Tensor]) -> bool:
        return bool((self.presence(levels) > 0).any())

    def standing(self, levels: Sequence[Tensor]) -> Tensor:
        colours = levels[0][3:6] * self.std + self.mean  # of the cell itself, not of that above
        present = self.presence(levels) > 0
        if not present.any():
            return torch.tensor([9.0, 0.0, 0.0, 0.0])
        red = (colours[0] - colours[1:].amax(dim=0) - 0.05).clamp(min=0) + 1e-9
        rows, columns = present.nonzero().unbind(dim=1)
        places = torch.arange(len(present)).float()
        down = float((red.sum(dim=1) * places).sum() / red.sum()) - float(rows.float().mean())
        right = float((red.sum(dim=0) * places).sum() / red.sum()) - float(columns.float().mean())
        return 99 * torch.tensor([-down, right, down, -right])


def beacon(side: int = 78, seed: int = 0) -> Image.Image:
    """A square of noise in green and blue whose upper half is red noise."""
    red, green, blue = noise(side, side, seed).point(lambda value: 60 + value * 3 // 4).split()
    black = Image.new("L", (side, side))
    image = Image.merge("RGB", (black, green, blue))
    image.paste(Image.merge("RGB", (red, black, black)).crop((0, 0, side, side // 2)), (0, 0))
    return image


def placed(image: Image.Image, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """An image on a larger black one."""
    board = Image.new("RGB", size)
    board.paste(image, corner)
    return board
