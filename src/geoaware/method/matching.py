"""From similarity to position: argmax, soft-argmax, window and kernel soft-argmax (paper, section 4.4).

Pure functions on tensors, then `match` on feature maps. Positions are (x, y) in cells of the target map,
0 … w-1 and 0 … h-1; similarities are cosines, -1 … 1. Only the rows for the query points are ever computed.
With no query (q = 0) every function returns an empty tensor of the right shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.method.geometry import PointsLike, as_points, clamp_points
from geoaware.method.types import FeatureMap, Matches
from geoaware.runs.errors import NotFiniteError

Mode = Literal["argmax", "soft", "window", "kernel"]

_TOGETHER = 4_000_000
"""So many similarities of points with cells are held at once."""

_MANY = 4
"""From so many points on for each cell of the source, the similarities of its cells are made first."""


@dataclass(frozen=True)
class MatchSettings:
    """How a similarity map becomes a position; the defaults are the paper's (section 5.1, 15 x 15 window).

    Attributes:
        mode: which of the four functions of this module.
        window: side of the square around the best cell in cells, odd; the map's side or more: the whole map.
        temperature: of the softmax; the paper's beta.
        sigma: of the Gaussian of ``kernel``, in cells.
        inside_picture: look for matches on the image only, never on the canvas's black padding, and keep
            them within its pixels. The paper looks everywhere.
        outside: what a window does to similarities outside: ``"exclude"`` or, as released, ``"zero"``.
        interpolate: read the query descriptor bilinearly between cells; the paper takes the cell that holds
            the point.
    """

    mode: Mode = "window"
    window: int = 15
    temperature: float = 0.02
    sigma: float = 5.0
    inside_picture: bool = False
    interpolate: bool = False
    outside: Literal["exclude", "zero"] = "exclude"

    def __post_init__(self) -> None:
        if self.mode not in ("argmax", "soft", "window", "kernel"):
            raise ValueError(f"unknown mode {self.mode!r}; choose argmax, soft, window or kernel")
        if self.window < 1:
            raise ValueError(f"the window must be at least one cell, got {self.window}")
        if self.temperature <= 0 or self.sigma <= 0:
            raise ValueError(f"temperature and sigma must be positive, got {self.temperature}, {self.sigma}")


def similarity(
    queries: Float[Tensor, "q c"],
    target: Float[Tensor, "c h w"],
    norms: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, "q h w"]:
    """Cosine similarity of each query descriptor with every cell of the target.

    Neither side needs to be normalised; a zero descriptor has similarity 0 with everything.

    Args:
        queries: one descriptor a row.
        target: one descriptor a cell.
        norms: length of each target descriptor, if known (`FeatureMap.norms`); saves a pass over the map.
    """
    # Dividing the few rows by the cells' norms is cheaper than making a normalised copy of the map.
    lengths = target.square().sum(dim=0).sqrt() if norms is None else norms
    products = (F.normalize(queries, dim=-1) @ target.flatten(1)).unflatten(1, target.shape[1:])
    return products / lengths.clamp_min(1e-12)


def argmax(sim: Float[Tensor, "q h w"]) -> Float[Tensor, "q 2"]:
    """The cell of highest similarity, the first in row order where several are equal; not differentiable."""
    _check_map(sim)
    best = sim.flatten(1).argmax(dim=1)
    width = sim.shape[-1]
    return torch.stack([best % width, best // width], dim=-1).to(sim.dtype)


def soft_argmax(sim: Float[Tensor, "q h w"], temperature: float = 0.02) -> Float[Tensor, "q 2"]:
    """Expected position under ``softmax(sim / temperature)`` over the whole map."""
    _check_map(sim)
    return _expectation((sim / temperature).flatten(1).softmax(dim=1).view_as(sim))


def window_soft_argmax(
    sim: Float[Tensor, "q h w"],
    window: int = 15,
    temperature: float = 0.02,
    outside: Literal["exclude", "zero"] = "exclude",
) -> Float[Tensor, "q 2"]:
    """Soft-argmax over a window x window square around the best cell, clipped at the border.

    Differentiable in the similarities; the place of the window is held constant.

    Args:
        sim: similarity maps.
        window: side in cells, odd: 1 is argmax. The map's side or more (also even) is the whole map, which
            is soft-argmax (paper, figure 18).
        temperature: of the softmax.
        outside: ``"exclude"`` leaves cells outside the window out; ``"zero"`` gives them similarity 0 as the
            released implementation does, which pulls weak matches to the middle of the map.

    Raises:
        ValueError: the window is even and smaller than the map, or not positive.
    """
    if outside not in ("exclude", "zero"):
        raise ValueError(f"outside must be 'exclude' or 'zero', got {outside!r}")
    inside = _window_mask(sim, window)
    fill = float("-inf") if outside == "exclude" else 0.0
    return soft_argmax(sim.masked_fill(~inside, fill), temperature)


def kernel_soft_argmax(
    sim: Float[Tensor, "q h w"], sigma: float = 5.0, temperature: float = 0.02
) -> Float[Tensor, "q 2"]:
    """Soft-argmax over the whole map after multiplying it by a Gaussian around the best cell (SFNet)."""
    x_away, y_away = _offsets_from_best(sim)
    gaussian = torch.exp(-(x_away[:, None, :] ** 2 + y_away[:, :, None] ** 2) / (2 * sigma**2))
    return soft_argmax(sim * gaussian, temperature)


def window_mass(
    sim: Float[Tensor, "q h w"], window: int = 15, temperature: float = 0.02
) -> Float[Tensor, " q"]:
    """Share of ``softmax(sim / temperature)`` over the whole map that lies in the window of the best cell."""
    inside = _window_mask(sim, window)
    share = (sim / temperature).flatten(1).softmax(dim=1).view_as(sim)
    return torch.where(inside, share, 0.0).sum(dim=(1, 2)).clamp(max=1.0)


def positions(sim: Float[Tensor, "q h w"], settings: MatchSettings) -> Float[Tensor, "q 2"]:
    """Positions by the function and constants that the settings name."""
    if settings.mode == "argmax":
        return argmax(sim)
    if settings.mode == "soft":
        return soft_argmax(sim, settings.temperature)
    if settings.mode == "kernel":
        return kernel_soft_argmax(sim, settings.sigma, settings.temperature)
    return window_soft_argmax(sim, settings.window, settings.temperature, settings.outside)


def descriptors(features: FeatureMap, points: PointsLike, interpolate: bool = False) -> Float[Tensor, "q c"]:
    """Descriptors at pixels of the image: of the cell that holds each, or interpolated between cells."""
    canvas_points = features.canvas.to_canvas(as_points(points))
    if not interpolate:
        column, row = features.canvas.patch(canvas_points, features.grid).unbind(-1)
        return features.data[:, row, column].T
    grid_points = features.canvas.to_grid(canvas_points, features.grid)
    normed = grid_points / max(features.grid - 1, 1) * 2 - 1
    lattice = normed.to(device=features.data.device, dtype=features.data.dtype)[None, None]
    sampled = F.grid_sample(features.data[None], lattice, padding_mode="border", align_corners=True)
    return sampled[0, :, 0].T


def _shares(
    features: FeatureMap, points: PointsLike, interpolate: bool
) -> tuple[Int[Tensor, "q n"], Float[Tensor, "q n"]]:
    """The cells that `descriptors` reads at each pixel, in row order, and the share of each."""
    canvas_points = features.canvas.to_canvas(as_points(points))
    if not interpolate:
        column, row = features.canvas.patch(canvas_points, features.grid).unbind(-1)
        return (row * features.grid + column)[:, None], torch.ones(len(row), 1)
    last = features.grid - 1
    place = features.canvas.to_grid(canvas_points, features.grid).clamp(0, last)
    low = place.floor()
    ends, parts = torch.stack([low, (low + 1).clamp(max=last)]), torch.stack([1 - place + low, place - low])
    cells = ends[:, None, :, 1] * features.grid + ends[None, :, :, 0]
    shares = parts[:, None, :, 1] * parts[None, :, :, 0]
    return cells.flatten(0, 1).T.long(), shares.flatten(0, 1).T.float()


def read_descriptors(features: Float[Tensor, "c h w"], xy: Float[Tensor, "k 2"]) -> Float[Tensor, "k c"]:
    """Descriptors of the cells nearest to grid positions (x, y), clamped to the map; differentiable."""
    height, width = features.shape[1:]
    cells = torch.floor(xy + 0.5).long()
    columns, rows = cells[:, 0].clamp(0, width - 1), cells[:, 1].clamp(0, height - 1)
    return features[:, rows, columns].T


def sample_descriptors(maps: Float[Tensor, "v d g g"], xy: Float[Tensor, "v n 2"]) -> Float[Tensor, "v n d"]:
    """Descriptors at grid positions of several maps, bilinearly; differentiable.

    Beyond the centres of the outer cells they are those of the outer cells.
    """
    places = (2 * xy + 1) / maps.shape[-1] - 1
    sampled = F.grid_sample(maps, places[:, :, None].to(maps), align_corners=False, padding_mode="border")
    return sampled[..., 0].transpose(1, 2)


class Searched:
    """The cells of a target that are searched: all, or with ``inside_picture`` those of the image."""

    def __init__(self, target: FeatureMap, settings: MatchSettings) -> None:
        self._target, self._clamp = target, settings.inside_picture
        self.rows, self.columns = slice(0, target.grid), slice(0, target.grid)
        if settings.inside_picture:
            self.rows, self.columns = target.canvas.cells(target.grid)
        self._data = target.data[:, self.rows, self.columns].float()
        self._norms = target.norms[self.rows, self.columns]
        self.cells = self._norms.numel()

    def similarity(self, queries: Float[Tensor, "q c"]) -> Float[Tensor, "q h w"]:
        """Of each query descriptor with every searched cell."""
        return similarity(queries, self._data, self._norms)

    def similarities(
        self, source: FeatureMap, count: int, interpolate: bool
    ) -> Callable[[Float[Tensor, "q 2"]], Float[Tensor, "q h w"]]:
        """What gives the similarity of some of ``count`` pixels of a source with every searched cell.

        Reading between cells is linear. For many points, dot products of cells are therefore made once and
        read in place of descriptors, which takes a small part of the time and differs by rounding only.
        """
        amount = source.grid**2
        few = count < _MANY * amount or amount * self.cells > 4 * _TOGETHER
        if few or self._data.device.type != "cpu":
            return lambda pixels: self.similarity(descriptors(source, pixels, interpolate).float())
        rows = source.data.float().flatten(1).T.contiguous()
        products = rows @ self._data.flatten(1)

        def read(pixels: Float[Tensor, "q 2"]) -> Float[Tensor, "q h w"]:
            cells, shares = _shares(source, pixels, interpolate)
            dots, lengths = (
                F.embedding_bag(cells, each, per_sample_weights=shares, mode="sum")
                for each in (products, rows)
            )
            dots /= torch.linalg.vector_norm(lengths, dim=1, keepdim=True).clamp_min(1e-12)
            return dots.unflatten(1, self._norms.shape) / self._norms.clamp_min(1e-12)

        return read

    def pixels(self, cells: Float[Tensor, "q 2"]) -> Float[Tensor, "q 2"]:
        """Positions in the searched cells as pixels of the target image, float64, on the CPU."""
        canvas = self._target.canvas
        whole = cells.double().cpu() + torch.tensor([self.columns.start, self.rows.start])
        pixels = canvas.to_pixels(canvas.from_grid(whole, self._target.grid))
        return clamp_points(pixels, (canvas.width, canvas.height)) if self._clamp else pixels


def match(
    source: FeatureMap,
    target: FeatureMap,
    points: PointsLike,
    settings: MatchSettings | None = None,
) -> Matches:
    """Find in the target image the counterparts of points of the source image.

    Args:
        source: features of the image that the points are on.
        target: features of the other image, from the same extractor.
        points: pixels (x, y) of the source image, shape (n, 2); none is fine.
        settings: how similarity becomes position; the paper's when not given.

    Returns:
        Matches in pixels of the target image, in the order of the points.

    Raises:
        ValueError: the maps come from different extractors.
        NotFiniteError: features are NaN or infinite.
    """
    if source.extractor != target.extractor:
        raise ValueError(
            f"cannot match features of {source.extractor!r} with features of {target.extractor!r}; "
            "extract both images with the same extractor and settings"
        )
    settings = settings or MatchSettings()
    pixels = as_points(points).double()
    found, confidence = _find(source, target, pixels, settings)
    return Matches(
        points=found,
        confidence=confidence,
        cycle_error=cycle_error(source, target, pixels, found, settings),
        read_at=pixels,
        turned=torch.zeros(len(pixels), dtype=torch.bool),
    )


def cycle_error(
    source: FeatureMap,
    target: FeatureMap,
    points: PointsLike,
    found: PointsLike,
    settings: MatchSettings | None = None,
) -> Float[Tensor, " n"]:
    """Distance from each point to where its match leads back, in units of the source's longer side.

    Both sets of points are pixels of their own image.
    """
    settings = settings or MatchSettings()
    back, _ = _find(target, source, found, settings)
    away = (back - as_points(points)).norm(dim=-1)
    return (away / max(source.canvas.width, source.canvas.height)).float()


def _find(
    source: FeatureMap, target: FeatureMap, points: PointsLike, settings: MatchSettings
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Pixels of the target image for pixels of the source image, and the mass in each window."""
    searched = Searched(target, settings)
    pixels = as_points(points)
    # Made once: many small results between the large maps would keep the memory in pieces.
    cells, mass = target.data.new_empty(len(pixels), 2, dtype=torch.float32), torch.empty(len(pixels))
    similarities = searched.similarities(source, len(pixels), settings.interpolate)
    # The maps of many points at once would fill the memory.
    for some in torch.arange(len(pixels)).split(max(1, _TOGETHER // searched.cells)):
        sim = similarities(pixels[some])
        mass[some] = window_mass(sim, settings.window, settings.temperature).cpu()
        cells[some] = positions(sim, settings)
    found = searched.pixels(cells)
    if not (found.isfinite().all() and mass.isfinite().all()):
        raise NotFiniteError("the features of the source or of the target are not finite; try another dtype")
    return found, mass


def _expectation(weights: Float[Tensor, "q h w"]) -> Float[Tensor, "q 2"]:
    height, width = weights.shape[1:]
    columns = torch.arange(width, device=weights.device, dtype=weights.dtype)
    rows = torch.arange(height, device=weights.device, dtype=weights.dtype)
    return torch.stack([weights.sum(dim=1) @ columns, weights.sum(dim=2) @ rows], dim=-1)


def _offsets_from_best(sim: Float[Tensor, "q h w"]) -> tuple[Float[Tensor, "q w"], Float[Tensor, "q h"]]:
    """Signed distance in cells of every column, and of every row, from the best cell of each map."""
    x, y = argmax(sim).unbind(-1)
    columns = torch.arange(sim.shape[2], device=sim.device, dtype=sim.dtype)
    rows = torch.arange(sim.shape[1], device=sim.device, dtype=sim.dtype)
    return columns - x[:, None], rows - y[:, None]


def _window_mask(sim: Float[Tensor, "q h w"], window: int) -> Bool[Tensor, "q h w"]:
    if window >= max(sim.shape[1:]):
        return torch.ones_like(sim, dtype=torch.bool)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window must be an odd number of cells, or the whole map, got {window}")
    x_away, y_away = _offsets_from_best(sim)
    half = window // 2
    return (y_away.abs() <= half)[:, :, None] & (x_away.abs() <= half)[:, None, :]


def _check_map(sim: Tensor) -> None:
    if sim.shape[-1] * sim.shape[-2] == 0:
        raise ValueError(f"a similarity map needs at least one cell, got shape {tuple(sim.shape)}")
