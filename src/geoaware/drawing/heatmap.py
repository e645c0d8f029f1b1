"""The similarity of one query with every cell of the target, as heat over the image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from geoaware.drawing.draw import Mark, as_image, draw_points, draw_text, text_size
from geoaware.drawing.layout import Panel, checked_points, fit, resized
from geoaware.drawing.palette import DARK, LIGHT, POINT, heat_colours
from geoaware.method.geometry import Canvas, PointsLike
from geoaware.runs.errors import InputError

SMALLEST, LARGEST = 320, 1600
"""Bounds of the long side of a heat map, in pixels."""

_DIM = 0.7
"""Brightness kept of the image under a heat map: on a white one the colours would wash out."""


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
    if image.size != (canvas.width, canvas.height):
        raise InputError(
            f"the map is of an image of {canvas.width}x{canvas.height} pixels, "
            f"the image has {image.width}x{image.height}"
        )
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie between 0 and 1, got {alpha:g}")
    values = _checked_map(similarity, canvas)
    long = min(max(max(image.size), SMALLEST), LARGEST)
    view = fit(image.size, long, long)
    low, high = float(values.min()), float(values.max())
    grey = np.asarray(resized(image, view).convert("L"), dtype=np.float64)[..., None]
    board = as_image(alpha * _colours(values, canvas, view) + (1 - alpha) * _DIM * grey)
    panel = Panel(view, (0, 0), (0, 0, *view.inner))
    peak = panel.to_board(_peak(values, canvas))
    radius = max(3.0, long / 110)
    board = draw_points(board, peak, [Mark(LIGHT, "diamond", hollow=True)], radius=1.8 * radius)
    if point is not None:
        spot = panel.to_board(checked_points("point", [point]))
        board = draw_points(board, spot, [Mark(POINT)], radius=radius)
    return _with_bar(board, low, high, away_from=float(peak[0, 0]))


def heat_layer(similarity: Float[Tensor, "p p"], canvas: Canvas, long: int = 120) -> Image.Image:
    """The colours of `draw_heatmap` alone, of the whole image: to be enlarged and laid over it.

    Args:
        similarity: one value for each cell of the grid over the canvas; NaN counts as the lowest.
        canvas: how the image was laid on the square that the grid covers.
        long: side of the square that the colours just fit into, in pixels. That of so few pixels is computed
            in one thread: waiting for others took 200 ms on a machine at work, instead of 5.

    Raises:
        InputError: the map is not square.
    """
    view = fit((canvas.width, canvas.height), long, long)
    return as_image(_colours(_checked_map(similarity, canvas), canvas, view))


def _colours(values: np.ndarray, canvas: Canvas, view: Canvas) -> np.ndarray:
    """Colours (h, w, 3) of each pixel of the image as shown, from the lowest to the highest value."""
    low, high = float(values.min()), float(values.max())
    return heat_colours((_shown(values, canvas, view, low) - low) / max(high - low, 1e-12))


def _shown(values: np.ndarray, canvas: Canvas, view: Canvas, outside: float) -> np.ndarray:
    """Values (p, p) on the grid over a canvas, read bilinearly at every pixel (h, w) of the image as shown.

    ``view`` scales the same image to the size at which it is shown; ``outside`` is the value of pixels that
    the canvas does not show.
    """
    from scipy.ndimage import map_coordinates

    width, height = view.inner
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + np.array(view.offset)
    pixels = view.to_pixels(places)
    x, y = canvas.to_grid(canvas.to_canvas(pixels), len(values)).unbind(-1)
    shown = map_coordinates(values, [y.numpy(), x.numpy()], order=1, mode="nearest")
    return np.where(canvas.holds(pixels).numpy(), shown, outside)


def _checked_map(similarity: Tensor, canvas: Canvas) -> np.ndarray:
    """The map as float64, without NaN, and outside the image as low as its lowest value there."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise InputError(f"a similarity map must be square, got shape {tuple(similarity.shape)}")
    values = similarity.detach().cpu().double().numpy()
    rows, columns = canvas.cells(len(values))
    on_image = values[rows, columns]
    finite = on_image[np.isfinite(on_image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    # Cells of padding alone only touch the image through interpolation: they must not stretch the colours.
    return np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)


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
    bar = as_image(np.broadcast_to(heat_colours(np.linspace(0, 1, length)), (thick, length, 3)))
    for rim in (LIGHT, DARK):
        bar = ImageOps.expand(bar, 1, rim)
    marked = board.copy()
    marked.paste(bar, (start - 2, middle - thick // 2 - 2))
    corners = [(left, middle - sizes[0][1] / 2), (start + length + gap, middle - sizes[1][1] / 2)]
    return draw_text(marked, corners, texts, size=size)
