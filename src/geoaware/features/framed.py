"""Images turned upright, and small objects cut out, before they are encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.features.extractor import Extractor, Provenance, Wrapped
from geoaware.method.geometry import Canvas
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import Box, FeatureMap, longer_side
from geoaware.runs.errors import InputError

MARGIN = 0.25
"""Left around an object that is cut out, on each side, as a share of its box's longer side."""


class FramedExtractor(Wrapped):
    """An extractor that looks at each whole image first, and encodes a better view where it sees one.

    First an image that does not stand upright is turned, then a small object is cut out of it. Points stay
    pixels of the image as it is. It goes around all others, a `CachedExtractor` too, which then keeps each
    view as an image of its own.

    Args:
        extractor: one that can look.
        zoom: ``"auto"`` cuts small objects out, ``"off"`` does not.
        upright: ``"auto"`` turns images, ``"off"`` does not.

    Raises:
        InputError: another value, or the extractor cannot look.
    """

    def __init__(self, extractor: Extractor, zoom: str = "off", upright: str = "off") -> None:
        wanted = {"upright": upright, "zoom": zoom}
        for name, value in wanted.items():
            if value not in ("off", "auto"):
                raise InputError(f"{name} must be off or auto, got {value!r}", name)
            if value == "auto" and name not in extractor.sees:
                what = "where objects are" if name == "zoom" else "how an image stands"
                raise InputError(
                    f"{extractor.name} does not see {what} with these weights; leave {name} off", name
                )
        chosen = [name for name, value in wanted.items() if value == "auto"]
        super().__init__(extractor, " ".join([extractor.identity, *(f"({each} auto)" for each in chosen)]))
        self.blend = extractor.blend
        self._parts = [{"upright": "turn", "zoom": "box"}[each] for each in chosen]

    @property
    def post_processor(self) -> PostProcessor | None:
        """Of the extractor inside."""
        return self.extractor.post_processor

    def provenance(self) -> Provenance:
        """Of the extractor inside; what is done to the images is part of the identity."""
        return self.extractor.provenance()

    def feature_map(self, levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int]) -> FeatureMap:
        """As the extractor inside makes it."""
        return replace(self.extractor.feature_map(levels, size), extractor=self.identity)

    def framed(self, images: Sequence[Image.Image], canvases: Sequence[Canvas]) -> list[FeatureMap]:
        """Feature maps of upright RGB images on their canvases, or on the better ones that are seen.

        A view is taken if, looked at in its turn, it is seen as it is.
        """
        canvases = list(canvases)
        levels = self.levels_on(images, canvases)
        for part in self._parts:
            tried: dict[int, Canvas] = {}
            for row, canvas in enumerate(canvases):
                unknown = canvas.turn == "identity" if part == "turn" else canvas.box is None
                seen = getattr(self.extractor.look(levels[row], canvas), part) if unknown else None
                if seen is not None and seen != getattr(canvas, part):
                    tried[row] = replace(canvas, **{part: seen})
            fresh = self.levels_on([images[row] for row in tried], list(tried.values()))
            for (row, canvas), each in zip(tried.items(), fresh, strict=True):
                if getattr(self.extractor.look(each, canvas), part) == getattr(canvas, part):
                    canvases[row], levels[row] = canvas, each
            if part == "box":
                # Where nothing is cut out, the whole image is the box, in every pose.
                canvases = [replace(each, box=each.box or each.part) for each in canvases]
        return [self.feature_map_on(canvas, each) for canvas, each in zip(canvases, levels, strict=True)]


def frame(extractor: Extractor, zoom: str = "off", upright: str = "off") -> Extractor:
    """The extractor with a `FramedExtractor` around it, or as it is where both are off."""
    return extractor if zoom == upright == "off" else FramedExtractor(extractor, zoom, upright)


def box_of_cells(present: Bool[Tensor, "g g"], canvas: Canvas) -> Box | None:
    """The box, in pixels of the image, around those of a map's cells that are true and show the image.

    ``None`` where there are none.
    """
    rows, columns = canvas.cells(len(present))
    found = present[rows, columns].nonzero().cpu() + torch.tensor([rows.start, columns.start])
    if not len(found):
        return None
    (top, left), (bottom, right) = found.amin(dim=0).tolist(), (found.amax(dim=0) + 1).tolist()
    return box_of_edges((left, top, right, bottom), len(present), canvas)


def box_of_edges(edges: Box, grid: int, canvas: Canvas) -> Box:
    """The box, in pixels of the image, of a part of a map that is given by its edges in cells."""
    outer = torch.tensor(edges, dtype=torch.float64).view(2, 2) * (canvas.size / grid)
    # Turns take pixels to pixels, so the last pixel is taken, not the edge beyond it.
    outer = outer - torch.tensor([[0.0], [canvas.scale]])
    corners = canvas.to_pixels(outer)
    x1, y1, x2, y2 = torch.cat([corners.amin(dim=0), corners.amax(dim=0) + 1]).tolist()
    return x1, y1, x2, y2


def cut_out(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box with its margin, in whole pixels of an image of ``size``, as a `Canvas` takes it.

    Raises:
        InputError: the box is empty, or lies outside the image.
    """
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and x1 < size[0] and y1 < size[1] and x2 > 0 and y2 > 0):
        raise InputError(
            f"a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, in the image of {size[0]}x{size[1]} pixels; "
            f"got {x1:g}, {y1:g}, {x2:g}, {y2:g}",
            "box",
        )
    room = MARGIN * longer_side(box)
    left, top = max(0, math.floor(x1 - room)), max(0, math.floor(y1 - room))
    return left, top, min(size[0], math.ceil(x2 + room)), min(size[1], math.ceil(y2 + room))
