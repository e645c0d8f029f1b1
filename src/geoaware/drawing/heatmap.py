"""Maps over the grid as images: the similarity of one query, the main directions of the descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.drawing.draw import DARK, LIGHT, Mark, draw_points, draw_text, heat_colours, text_size
from geoaware.drawing.layout import Panel, checked_points, fit, resized
from geoaware.method.geometry import Canvas, PointsLike
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError

SMALLEST, LARGEST = 320, 1600
"""Bounds of the long side of a heat map, in pixels."""

_DIM = 0.7
"""Brightness kept of the image under a heat map: on a white one the colours would wash out."""

_BASIS_CELLS = 1024
"""Cells that the principal directions are computed from: enough, and fast for any number of maps."""


def draw_heatmap(
    image: Image.Image,
    similarity: Float[Tensor, "p p"],
    canvas: Canvas,
    *,
    point: PointsLike | None = None,
    alpha: float = 0.6,
) -> Image.Image:
    """The image in dim grey under its similarity map: dark violet is least alike, light yellow most.

    A hollow diamond marks the highest cell, a disc the ``point``. Colours stretch from the lowest to the
    highest similarity on the image; a bar in a corner gives both (images too small for it go without).

    Args:
        image: the image that the canvas is of.
        similarity: one value for each cell of the grid over the canvas; NaN counts as the lowest.
        canvas: how the image was laid on the square that the grid covers.
        point: pixels (x, y) of the image, shape (2,), to mark: the match, say.
        alpha: weight of the colours, 0 (the image alone) to 1.

    Returns:
        an image of the same size; long sides under 320 are enlarged to it, those over 1600 reduced.

    Raises:
        InputError: canvas and image do not agree, the map is not square, or alpha is not in 0 … 1.
    """
    values = _checked_map(image, similarity, canvas, alpha)
    long = min(max(max(image.size), SMALLEST), LARGEST)
    view = fit(image.size, long, long)
    low, high = float(values.min()), float(values.max())
    share = (_shown(values, canvas, view) - low) / max(high - low, 1e-12)
    grey = np.asarray(resized(image, view).convert("L"), dtype=np.float64)[..., None]
    blended = alpha * heat_colours(share) + (1 - alpha) * _DIM * grey
    board = Image.fromarray(np.rint(blended).astype(np.uint8))
    panel = Panel(view, (0, 0), (0, 0, *view.inner))
    peak = panel.to_board(_peak(values, canvas))
    radius = max(3.0, long / 110)
    board = draw_points(board, peak, [Mark(LIGHT, "diamond", hollow=True)], radius=1.8 * radius)
    if point is not None:
        spot = panel.to_board(checked_points("point", [point]))
        board = draw_points(board, spot, [Mark((0, 170, 255))], radius=radius)
    return _with_bar(board, low, high, away_from=float(peak[0, 0]))


def pca_image(
    features: FeatureMap | Sequence[FeatureMap], *, long_side: int = 480, cut: float = 1.0
) -> Image.Image | list[Image.Image]:
    """Main directions of the descriptors as red, green and blue; equal colours mean like descriptors.

    The first three principal components of the unit descriptors over all maps given, so that colours can be
    compared between their images. Padding is left out, of the computation and of the image. Components
    that do not vary are grey.

    Args:
        features: one map, or several of the same extractor.
        long_side: of each image, in pixels.
        cut: percent of the cells, at either end, that may saturate a colour.

    Returns:
        an image for a map, a list of images for a sequence of maps.

    Raises:
        InputError: the maps come from different extractors.
    """
    if isinstance(features, FeatureMap):
        return _pca_images([features], long_side, cut)[0]
    return _pca_images(list(features), long_side, cut)


def _pca_images(maps: list[FeatureMap], long_side: int, cut: float) -> list[Image.Image]:
    made_by = sorted({each.extractor for each in maps})
    if len(made_by) > 1:
        raise InputError(f"maps of different extractors share no colours: {', '.join(made_by)}")
    if not maps:
        return []
    units = [_unit(each) for each in maps]
    cells = [_on_image(unit, each.canvas) for unit, each in zip(units, maps, strict=True)]
    together = torch.cat(cells, dim=1)
    mean, basis = principal_directions(together)
    scores = basis @ (together - mean)
    low, high = np.percentile(scores.numpy(), [cut, 100 - cut], axis=1)
    images = []
    for unit, each in zip(units, maps, strict=True):
        view = fit((each.canvas.width, each.canvas.height), long_side, long_side)
        projected = (basis @ (unit.flatten(1) - mean)).unflatten(1, unit.shape[1:])
        shown = _shown(projected.numpy(), each.canvas, view)
        images.append(_as_rgb(shown, low, high))
    return images


def _unit(features: FeatureMap) -> Float[Tensor, "c p p"]:
    clean = torch.nan_to_num(features.data.detach().cpu().double(), posinf=0.0, neginf=0.0)
    return torch.nn.functional.normalize(clean, dim=0)


def _on_image(values: Float[Tensor, "c p p"], canvas: Canvas) -> Float[Tensor, "c n"]:
    rows, columns = canvas.cells(values.shape[-1])
    return values[:, rows, columns].flatten(1)


def principal_directions(cells: Float[Tensor, "c n"]) -> tuple[Float[Tensor, "c 1"], Float[Tensor, "3 c"]]:
    """Mean and first three principal directions of descriptors, the entry of largest size positive.

    Directions that the descriptors do not vary in are zero. Computed from evenly spread cells where there are
    many, on the smaller of the two Gram matrices: its cost does not grow with the number of maps.
    """
    channels, count = cells.shape
    chosen = cells[:, :: max(1, -(-count // _BASIS_CELLS))]
    mean = chosen.mean(dim=1, keepdim=True)
    centred = chosen - mean
    if channels <= centred.shape[1]:
        power, vectors = torch.linalg.eigh(centred @ centred.T)
    else:
        power, vectors = torch.linalg.eigh(centred.T @ centred)
        vectors = centred @ vectors
    leading = vectors.flip(1)[:, :3]
    leading = leading / leading.norm(dim=0, keepdim=True).clamp(min=1e-300)
    varies = power.flip(0)[:3] > 1e-10 * max(float(chosen.square().sum()), 1e-300)
    largest = leading.gather(0, leading.abs().argmax(dim=0, keepdim=True))
    basis = torch.zeros(3, channels, dtype=cells.dtype)
    basis[: leading.shape[1]] = (leading * largest.sign() * varies).T
    return mean, basis


def _as_rgb(shown: np.ndarray, low: np.ndarray, high: np.ndarray) -> Image.Image:
    span = (high - low)[:, None, None]
    share = np.where(span > 1e-9, (shown - low[:, None, None]) / np.where(span > 1e-9, span, 1), 0.5)
    return Image.fromarray(np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8).transpose(1, 2, 0).copy())


def _shown(values: np.ndarray, canvas: Canvas, view: Canvas) -> np.ndarray:
    """Values (..., p, p) on the grid over a canvas, read bilinearly at every pixel of the image as shown.

    ``view`` scales the same image to the size at which it is shown. The result has shape (..., h, w).
    """
    grid = values.shape[-1]
    width, height = view.inner
    diagonal = np.arange(max(width, height), dtype=np.float64)[:, None] + np.array(view.offset)
    positions = canvas.to_grid(canvas.to_canvas(view.to_pixels(diagonal)), grid).numpy()
    wide = _interpolated(values, positions[:width, 0])
    return np.swapaxes(_interpolated(np.swapaxes(wide, -1, -2), positions[:height, 1]), -1, -2)


def _interpolated(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation along the last axis; positions off the axis take its nearest end."""
    last = values.shape[-1] - 1
    inside = np.clip(positions, 0, last)
    below = np.floor(inside).astype(np.int64)
    share = inside - below
    return values[..., below] * (1 - share) + values[..., np.minimum(below + 1, last)] * share


def _checked_map(image: Image.Image, similarity: Tensor, canvas: Canvas, alpha: float) -> np.ndarray:
    """The map as float64, without NaN, and outside the image as low as its lowest value there."""
    if image.size != (canvas.width, canvas.height):
        raise InputError(
            f"the map is of an image of {canvas.width}x{canvas.height} pixels, "
            f"the image has {image.width}x{image.height}"
        )
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise InputError(f"a similarity map must be square, got shape {tuple(similarity.shape)}")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie between 0 and 1, got {alpha:g}")
    values = similarity.detach().cpu().double().numpy()
    rows, columns = canvas.cells(len(values))
    on_image = values[rows, columns]
    finite = on_image[np.isfinite(on_image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    clean = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    padding = np.ones_like(clean, dtype=bool)
    padding[rows, columns] = False
    # Cells of padding alone only touch the image through interpolation: they must not stretch the colours.
    return np.where(padding, np.clip(clean, low, high), clean)


def _peak(values: np.ndarray, canvas: Canvas) -> Float[Tensor, "1 2"]:
    """Pixel position of the highest cell that touches the image."""
    rows, columns = canvas.cells(len(values))
    row, column = np.unravel_index(int(values[rows, columns].argmax()), values[rows, columns].shape)
    cell = [[int(column) + columns.start, int(row) + rows.start]]
    return canvas.to_pixels(canvas.from_grid(cell, len(values)))


def _with_bar(board: Image.Image, low: float, high: float, away_from: float) -> Image.Image:
    """The scale of the colours in the lower corner that is farther from x = ``away_from``."""
    size = max(11.0, max(board.size) / 45)
    texts = [f"{low:.2f}", f"{high:.2f}"]
    sizes = [text_size(text, size) for text in texts]
    length, thick, gap = round(6 * size), round(0.8 * size), round(0.4 * size)
    width = sizes[0][0] + sizes[1][0] + length + 2 * gap
    if width + 2 * gap > board.width or 4 * thick > board.height:
        return board
    left = gap if away_from > board.width / 2 else board.width - gap - width
    middle = board.height - gap - thick
    start = left + sizes[0][0] + gap
    ramp = np.broadcast_to(heat_colours(np.linspace(0, 1, length)), (thick, length, 3))
    bar = Image.fromarray(np.rint(ramp).astype(np.uint8))
    marked = board.copy()
    for rim, colour in ((2, DARK), (1, LIGHT)):
        marked.paste(
            Image.new("RGB", (length + 2 * rim, thick + 2 * rim), colour),
            (start - rim, middle - thick // 2 - rim),
        )
    marked.paste(bar, (start, middle - thick // 2))
    corners = [(left, middle - sizes[0][1] / 2), (start + length + gap, middle - sizes[1][1] / 2)]
    return draw_text(marked, corners, texts, size=size)
