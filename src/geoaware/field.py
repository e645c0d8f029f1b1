"""A dense correspondence: where every pixel of one image lies in another, and what this carries across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.data.flow import write_flow
from geoaware.method.dense import JUMP, enlarge, lattice, mesh, read
from geoaware.method.geometry import Canvas, PointsLike, Pose, as_points
from geoaware.result import Encoded, MatchResult, as_png
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing

CONFIDENCE, CYCLE = 0.3, 0.1
"""What a pixel's match must have at least, and at most, to carry anything."""

_KNOTS, _BENDS = 400, 8
"""So many matches at most hold a thin plate, and at every so many pixels it is computed: it is smooth."""


@dataclass(frozen=True, repr=False)
class Field:
    """Where the pixels of the source image lie in the target image, sampled evenly.

    Attributes:
        source: the encoded image of the pixels.
        target: the encoded image of their counterparts.
        points: (x, y) in pixels of the target, for each row and column of the field; NaN where nothing was
            looked for.
        confidence: of each; see `Matches`.
        cycle_error: of each, in units of the source's longer side; see `Matches`.
        pose: how the source was turned before matching.
        about: features, settings and versions.
    """

    source: Encoded
    target: Encoded
    points: Float[Tensor, "h w 2"]
    confidence: Float[Tensor, "h w"]
    cycle_error: Float[Tensor, "h w"]
    pose: Pose = "identity"
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        width, height = self.canvas.inner
        return f"<Field {width}x{height}, pose {self.pose}>"

    def _repr_png_(self) -> bytes:
        """The picture of `draw`, which notebooks show."""
        return as_png(self.draw())

    @property
    def canvas(self) -> Canvas:
        """How the source image is scaled to the field's size."""
        return Canvas(*self.source.size, max(self.points.shape[:2]))

    def accepted(
        self, min_confidence: float = CONFIDENCE, max_cycle_error: float = CYCLE
    ) -> Bool[Tensor, "h w"]:
        """Which pixels pass both thresholds (inclusive); those that were not looked for do not."""
        return (self.confidence >= min_confidence) & (self.cycle_error <= max_cycle_error)

    def at(self, points: PointsLike) -> Float[Tensor, "n 2"]:
        """Where points of the source image lie in the target, read between the field's pixels."""
        return self._read(as_points(points).double())[..., :2]

    def carry(
        self, image: Image.Image, min_confidence: float = CONFIDENCE, max_cycle_error: float = CYCLE
    ) -> Image.Image:
        """What lies in the target's place laid where the source's pixels are: a warp of the target.

        Args:
            image: of the target's size: itself, or an edit, a texture or a mask (as alpha) of it.
            min_confidence: pixels whose match is below it stay transparent.
            max_cycle_error: so do those whose match leads back farther away.

        Returns:
            an RGBA image of the source's size.

        Raises:
            InputError: the image has another size than the target.
        """
        if image.size != self.target.size:
            raise InputError(
                f"the image to carry has {image.width}x{image.height} pixels, the one that was matched "
                f"{self.target.size[0]}x{self.target.size[1]}; give one of that size"
            )
        width, height = self.source.size
        pixels = mesh(torch.arange(width), torch.arange(height))
        values = self._read(pixels)
        there, confidence, cycle = values[..., :2], values[..., 2], values[..., 3]
        colours = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)[None].float()
        last = (torch.tensor(image.size) - 1).clamp_min(1)
        normed = (2 * there / last - 1).nan_to_num().float()[None]
        carried = F.grid_sample(colours, normed, padding_mode="border", align_corners=True)[0]
        shown = (confidence >= min_confidence) & (cycle <= max_cycle_error)
        carried[3] *= shown
        return Image.fromarray(carried.round().clamp(0, 255).byte().permute(1, 2, 0).numpy(), "RGBA")

    def smoothed(
        self,
        stiffness: float = 0.001,
        min_confidence: float = CONFIDENCE,
        max_cycle_error: float = CYCLE,
        seed: int = 0,
    ) -> Field:
        """The field as a thin plate that passes near its accepted matches: neighbours stay neighbours.

        Args:
            stiffness: 0 passes through every match; larger values bend less.
            min_confidence: of the matches that hold the plate.
            max_cycle_error: the same.
            seed: of their choice, where there are very many.

        Raises:
            InputError: fewer than four matches are accepted, or they lie on a line.
        """
        from scipy.interpolate import RBFInterpolator

        height, width = self.confidence.shape
        rows, columns = self.accepted(min_confidence, max_cycle_error).nonzero().numpy().T
        if len(rows) < 4:
            raise InputError("fewer than four matches are sure enough to hold a thin plate; do not smooth")
        chosen = np.random.default_rng(seed).permutation(len(rows))[:_KNOTS]
        knots = np.stack([columns, rows], axis=1)[chosen] / max(height, width)
        span = max(self.target.size)
        values = self.points.numpy()[rows[chosen], columns[chosen]] / span
        try:
            plate = RBFInterpolator(
                knots, values, smoothing=stiffness * len(chosen), kernel="thin_plate_spline"
            )
        except np.linalg.LinAlgError:
            raise InputError(
                "the sure matches lie on a line, which holds no thin plate; do not smooth"
            ) from None
        places = mesh(lattice(width, _BENDS), lattice(height, _BENDS))
        bent = plate(places.reshape(-1, 2).numpy() / max(height, width)).reshape(places.shape) * span
        points = enlarge(torch.from_numpy(bent), width, height, float("inf")).to(self.points)
        last = torch.tensor(self.target.size) - 1.0
        points = points.clamp(torch.zeros(2), last).where(self.points.isfinite(), float("nan"))
        return replace(self, points=points)

    def draw(self, min_confidence: float = CONFIDENCE, max_cycle_error: float = CYCLE) -> Image.Image:
        """Both images side by side: equal colours are counterparts; see `drawing.draw_field`."""
        from geoaware.drawing import draw_field

        shown = self.accepted(min_confidence, max_cycle_error)
        return draw_field(self.source.image, self.target.image, self.points, shown)

    def save(self, path: str | Path) -> Path:
        """Write the field: ``.npz`` (all of it), ``.flo`` (Middlebury's) or ``.png`` (`draw`).

        In a ``.flo`` file stands, for every pixel of the source, how far right and down its counterpart lies
        in pixels of the target; 1e10 where it is not known.

        Raises:
            InputError: another suffix, or the place cannot be written to.
        """
        goal = Path(path)
        check_suffix(goal)
        with replacing(goal) as draft:
            getattr(self, f"_write_{goal.suffix[1:].lower()}")(draft)
        return goal

    def _write_npz(self, draft: Path) -> None:
        columns = {"points": self.points, "confidence": self.confidence, "cycle_error": self.cycle_error}
        arrays: dict[str, Any] = {name: each.float().numpy() for name, each in columns.items()}
        np.savez_compressed(
            draft, **arrays, source_size=self.source.size, target_size=self.target.size, pose=self.pose
        )

    def _write_flo(self, draft: Path) -> None:
        width, height = self.source.size
        pixels = mesh(torch.arange(width), torch.arange(height))
        write_flow(draft, (self._read(pixels)[..., :2] - pixels).numpy())

    def _write_png(self, draft: Path) -> None:
        self.draw().save(draft)

    def _read(self, pixels: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 4"]:
        """Points, confidence and cycle error at pixels of the source image."""
        canvas = self.canvas
        places = canvas.to_canvas(pixels) - torch.tensor(canvas.offset)
        figures = torch.stack([self.confidence, self.cycle_error], dim=-1)
        return read(torch.cat([self.points, figures.to(self.points)], dim=-1), places, jump_of(self.target))


def check_suffix(path: Path) -> None:
    """Make sure that a field can be written in the format of a suffix.

    Raises:
        InputError: it cannot.
    """
    if path.suffix.lower() not in (".npz", ".flo", ".png"):
        raise InputError(f"{path}: a field is written as .npz, .flo or .png; end the name in one of these")


def between(found: MatchResult, canvas: Canvas, shape: tuple[int, int]) -> Field:
    """The field from matches of a lattice with so many rows and columns, which cover the source's canvas."""
    figures = torch.stack([found.confidence, found.cycle_error], dim=-1)
    values = torch.cat([found.points.float(), figures.float()], dim=-1).unflatten(0, shape)
    whole = enlarge(values, *canvas.inner, jump_of(found.target))
    if found.source.mask is not None:
        shown = Image.fromarray(found.source.mask).resize(canvas.inner, Image.Resampling.NEAREST)
        whole[~torch.from_numpy(np.array(shown))] = float("nan")
    return Field(
        found.source, found.target, whole[..., :2], whole[..., 2], whole[..., 3], found.pose, found.about
    )


def jump_of(target: Encoded) -> float:
    """How far counterparts of neighbours may lie apart and belong together, in pixels of the target."""
    features = target.maps["identity"]
    return JUMP * features.canvas.size / features.grid / features.canvas.scale
