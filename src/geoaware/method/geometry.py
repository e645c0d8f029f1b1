"""The one home of coordinates: image pixels, canvas pixels, grid positions, mirroring and rotation.

Three frames, all (x, y), x to the right and y down:

* **pixels** of an image, w x h. Integer annotations are used as they are: no half-pixel offset anywhere.
* **canvas**: the image scaled so that its long side is ``size`` and centred on a black square.
* **grid**: a P x P map laid over the canvas. Grid position g stands for the canvas point
  ``g * size / P + floor(size / P / 2)``, so integer positions are cell centres.

Points are computed in float64: float32 cannot hold 1e-4 px on a large photograph. Floating tensors keep the
dtype they came with; anything else (lists, arrays of integers) becomes float64. Points live on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

Pose = Literal["identity", "flip", "rot90", "rot180", "rot-90"]
"""How the source image was turned before matching: mirrored left-right, or rotated anticlockwise."""

POSES: tuple[Pose, ...] = get_args(Pose)

PointsLike = Float[Tensor, "*n 2"] | np.ndarray | Sequence[Any]


def as_points(xy: PointsLike) -> Float[Tensor, "*n 2"]:
    """Points as a CPU tensor of shape (..., 2).

    Floating tensors keep their dtype, everything else becomes float64; an empty list becomes shape (0, 2).

    Raises:
        ValueError: the last axis does not have length 2.
    """
    if isinstance(xy, Tensor) and xy.is_floating_point():
        points = xy.detach().cpu()
    else:
        points = torch.as_tensor(np.asarray(xy, dtype=np.float64))
    if points.numel() == 0 and points.ndim == 1:
        points = points.reshape(0, 2)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (..., 2), x then y, but came as {tuple(points.shape)}")
    return points


@dataclass(frozen=True)
class Canvas:
    """An image of ``width`` x ``height`` pixels laid on a square canvas of side ``size``.

    The long side is scaled to ``size`` exactly; the short side is rounded to whole pixels (half to even, at
    least 1) and centred with offset ``(size - short) // 2``. With a ``box`` only that part of the image is
    laid on the canvas, and with a ``turn`` it is turned first. Pixels are those of the image as it is, in any
    case; those outside the box lie outside what the canvas shows.

    Attributes:
        width, height: of the image as it is.
        size: side of the canvas.
        turn: the rotation that the image, or the part of it, gets.
        box: left, top, right and bottom of the part, in whole pixels, the last two exclusive; all if none.

    Example:
        >>> canvas = Canvas(width=640, height=480, size=840)
        >>> canvas.to_canvas([(320, 240)]).tolist()
        [[420.0, 420.0]]
        >>> canvas.to_grid(canvas.to_canvas([(320, 240)]), 60).tolist()
        [[29.5, 29.5]]
    """

    width: int
    height: int
    size: int
    turn: Pose = "identity"
    box: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(
                f"image and canvas need at least one pixel a side, but came as "
                f"{self.width}x{self.height} on a canvas of {self.size}"
            )
        if self.turn == "flip":
            raise ValueError("a canvas turns its image, it does not mirror it; got the turn 'flip'")
        left, top, right, bottom = self.part
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise ValueError(f"the box {self.box} is no part of an image of {self.width}x{self.height}")

    @property
    def part(self) -> tuple[int, int, int, int]:
        """The box; that of the whole image if there is none."""
        return self.box or (0, 0, self.width, self.height)

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the part in its own pixels, as turned."""
        return pose_size(_box_size(self.part), self.turn)

    @property
    def scale(self) -> float:
        """Canvas pixels per image pixel."""
        return self.size / max(self.shown)

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height, in canvas pixels, of the image on the canvas."""
        width, height = self.shown
        return self._scaled(width), self._scaled(height)

    @property
    def offset(self) -> tuple[int, int]:
        """Canvas position (x, y) of the image's top left corner."""
        inner_width, inner_height = self.inner
        return (self.size - inner_width) // 2, (self.size - inner_height) // 2

    def _scaled(self, side: int) -> int:
        return max(1, round(self.size * side / max(self.shown)))

    def to_canvas(self, xy: PointsLike) -> Float[Tensor, "*n 2"]:
        """Image pixels to canvas pixels."""
        points = as_points(xy)
        placed = points.double() - torch.tensor(self.part[:2], dtype=torch.float64)
        turned = pose_points(placed, _box_size(self.part), self.turn)
        moved = turned * self.scale + torch.tensor(self.offset, dtype=torch.float64)
        return moved.to(points.dtype)

    def to_pixels(self, xy: PointsLike) -> Float[Tensor, "*n 2"]:
        """Canvas pixels to image pixels; not clamped to the image."""
        points = as_points(xy)
        turned = (points.double() - torch.tensor(self.offset, dtype=torch.float64)) / self.scale
        placed = pose_points(turned, self.shown, opposite(self.turn))
        return (placed + torch.tensor(self.part[:2], dtype=torch.float64)).to(points.dtype)

    def holds(self, xy: PointsLike) -> Bool[Tensor, "*n"]:
        """Which image pixels lie in the part that is shown; where that is all, so do points off the image."""
        points = as_points(xy)
        if self.part == (0, 0, self.width, self.height):
            return torch.ones(points.shape[:-1], dtype=torch.bool)
        low, high = torch.tensor(self.part, dtype=torch.float64).view(2, 2)
        return ((points.double() >= low) & (points.double() < high)).all(dim=-1)

    def posed(self, pose: Pose) -> Canvas:
        """The canvas of the image in a pose that shows the same part of it, in that pose."""
        size = (self.width, self.height)
        turn = opposite(self.turn) if pose == "flip" else self.turn
        if self.box is None:
            return Canvas(*pose_size(size, pose), self.size, turn)
        left, top, right, bottom = self.box
        corners = pose_points([(left, top), (right - 1, bottom - 1)], size, pose).long()
        (left, top), (right, bottom) = corners.amin(dim=0).tolist(), corners.amax(dim=0).tolist()
        return Canvas(*pose_size(size, pose), self.size, turn, (left, top, right + 1, bottom + 1))

    def to_grid(self, xy: PointsLike, grid: int) -> Float[Tensor, "*n 2"]:
        """Canvas pixels to positions on a ``grid`` x ``grid`` map; fractional, not clamped."""
        points = as_points(xy)
        cell = self.size / grid
        return ((points.double() - cell // 2) / cell).to(points.dtype)

    def from_grid(self, xy: PointsLike, grid: int) -> Float[Tensor, "*n 2"]:
        """Positions on a ``grid`` x ``grid`` map to canvas pixels (14 g + 7 at size 840, grid 60)."""
        points = as_points(xy)
        cell = self.size / grid
        return (points.double() * cell + cell // 2).to(points.dtype)

    def patch(self, xy: PointsLike, grid: int) -> Int[Tensor, "*n 2"]:
        """The cell that holds each canvas point: ``floor(grid / size * xy)``, clamped to the map."""
        cells = torch.floor(as_points(xy).double() * (grid / self.size))
        return cells.clamp(0, grid - 1).long()

    def cells(self, grid: int) -> tuple[slice, slice]:
        """Rows and columns of the ``grid`` x ``grid`` map whose cells touch the image, not only padding."""
        corners = [(self.offset[0], self.offset[1])]
        corners.append((self.offset[0] + self.inner[0] - 1, self.offset[1] + self.inner[1] - 1))
        (left, top), (right, bottom) = self.patch(corners, grid).tolist()
        return slice(top, bottom + 1), slice(left, right + 1)

    def view(self, image: Image.Image) -> Image.Image:
        """The part of the image that is laid on the canvas, turned, in its own pixels.

        Raises:
            ValueError: the image is not of this canvas's width and height.
        """
        if image.size != (self.width, self.height):
            raise ValueError(
                f"this canvas is for an image of {self.width}x{self.height} pixels, got {image.size}"
            )
        return pose_image(image if self.box is None else image.crop(self.box), self.turn)

    def render(
        self, image: Image.Image, mode: str = "RGB", resample: Image.Resampling = Image.Resampling.LANCZOS
    ) -> Image.Image:
        """What is shown of the image, scaled and centred on the black canvas, as an image of a mode.

        Raises:
            ValueError: the image is not of this canvas's width and height.
        """
        board = Image.new(mode, (self.size, self.size))
        shown = self.view(image)
        shown = shown if shown.mode == mode else shown.convert(mode)  # which would copy it in any case
        board.paste(shown.resize(self.inner, resample), self.offset)
        return board


def _box_size(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


@dataclass(frozen=True)
class Placement:
    """An object turned, scaled, mirrored and moved on a canvas, as training shows it.

    Mirrored first, left-right about ``pivot``, then turned about it (clockwise on the screen, as y points
    down) and scaled, then moved so that ``pivot`` comes to lie on ``centre``.

    Attributes:
        pivot: point (x, y) of the canvas as it was.
        centre: where it comes to lie.
        scale: how many times larger.
        degrees: of the turn.
        mirrored: whether left and right are exchanged.

    Example:
        >>> Placement((10.0, 10.0), (20.0, 10.0), scale=2.0, mirrored=True).place([(11.0, 10.0)]).tolist()
        [[18.0, 10.0]]
    """

    pivot: tuple[float, float]
    centre: tuple[float, float]
    scale: float = 1.0
    degrees: float = 0.0
    mirrored: bool = False

    @property
    def matrix(self) -> Float[Tensor, "2 2"]:
        """What an offset from the pivot becomes as an offset from the centre."""
        angle = math.radians(self.degrees)
        cos, sin = self.scale * math.cos(angle), self.scale * math.sin(angle)
        first = -1.0 if self.mirrored else 1.0
        return torch.tensor([[cos * first, -sin], [sin * first, cos]], dtype=torch.float64)

    def place(self, xy: PointsLike) -> Float[Tensor, "*n 2"]:
        """Where canvas points come to lie."""
        points = as_points(xy)
        offset = points.double() - torch.tensor(self.pivot, dtype=torch.float64)
        moved = offset @ self.matrix.T + torch.tensor(self.centre, dtype=torch.float64)
        return moved.to(points.dtype)

    def sampling(self, size: int) -> Float[Tensor, "2 3"]:
        """The matrix that ``torch.nn.functional.affine_grid`` takes to show it (``align_corners=False``).

        Args:
            size: side of the canvas, before and after.
        """
        inverse = torch.linalg.inv(self.matrix)
        # In affine_grid's frame the canvas' corners, half a pixel outside its outer pixels, are -1 and 1.
        middle = (size - 1) / 2
        centre = torch.tensor(self.centre, dtype=torch.float64) - middle
        pivot = torch.tensor(self.pivot, dtype=torch.float64) - middle
        moved = (pivot - inverse @ centre) / (size / 2)
        return torch.cat([inverse, moved[:, None]], dim=1).float()


_TRANSPOSITION: dict[Pose, Image.Transpose] = {
    "flip": Image.Transpose.FLIP_LEFT_RIGHT,
    "rot90": Image.Transpose.ROTATE_90,
    "rot180": Image.Transpose.ROTATE_180,
    "rot-90": Image.Transpose.ROTATE_270,
}

_OPPOSITE: dict[Pose, Pose] = {"rot90": "rot-90", "rot-90": "rot90"}


def _check_pose(pose: str) -> None:
    if pose not in POSES:
        raise ValueError(f"unknown pose {pose!r}; the poses are {', '.join(POSES)}")


def pose_image(image: Image.Image, pose: Pose) -> Image.Image:
    """The image mirrored or rotated anticlockwise by a multiple of 90 degrees, without resampling."""
    _check_pose(pose)
    return image if pose == "identity" else image.transpose(_TRANSPOSITION[pose])


def opposite(pose: Pose) -> Pose:
    """The pose that undoes a pose."""
    _check_pose(pose)
    return _OPPOSITE.get(pose, pose)


def pose_size(size: tuple[int, int], pose: Pose) -> tuple[int, int]:
    """Width and height of the turned image."""
    _check_pose(pose)
    return (size[1], size[0]) if pose in ("rot90", "rot-90") else size


def pose_points(xy: PointsLike, size: tuple[int, int], pose: Pose) -> Float[Tensor, "*n 2"]:
    """Where pixels of an image of ``size`` (width, height) lie in the turned image.

    Mirroring takes x to (w - 1) - x, so whole pixels fall on whole pixels and none leaves the image.

    Example:
        >>> pose_points([(0.0, 2.0)], (10, 5), "flip").tolist()
        [[9.0, 2.0]]
        >>> pose_points([(0.0, 2.0)], (10, 5), "rot90").tolist()
        [[2.0, 9.0]]
    """
    _check_pose(pose)
    points = as_points(xy)
    (x, y), (right, bottom) = points.unbind(-1), (size[0] - 1, size[1] - 1)
    turned = {
        "identity": (x, y),
        "flip": (right - x, y),
        "rot90": (y, right - x),
        "rot180": (right - x, bottom - y),
        "rot-90": (bottom - y, x),
    }[pose]
    return torch.stack(turned, dim=-1)


def clamp_points(xy: PointsLike, size: tuple[int, int]) -> Float[Tensor, "*n 2"]:
    """Points moved to the nearest pixel position inside an image of ``size`` (width, height)."""
    points = as_points(xy)
    limit = torch.tensor([size[0] - 1, size[1] - 1], dtype=points.dtype)
    return torch.minimum(points.clamp(min=0), limit)
