"""Images turned upright, and small objects cut out, before they are encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.features.extractor import Extractor, Provenance, Wrapped
from geoaware.method.geometry import Canvas, Pose
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import Box, FeatureMap, longer_side
from geoaware.runs.errors import InputError

UPRIGHT: tuple[Pose, ...] = ("identity", "rot90", "rot180", "rot-90")
"""The turns that an image may need to stand upright, each a quarter further clockwise."""

_SURE, _BETTER = 0.5, 1.5
"""An image that stands upright with this probability is left as it is. Others are turned where that is better
by so many nats a view; chosen on validation images (docs/lab-notes.md)."""

MARGIN = 0.25
"""Left around an object that is cut out, on each side, as a share of its box's longer side."""


@dataclass(frozen=True)
class _View:
    """An image on a canvas, with its raw maps."""

    image: Image.Image
    canvas: Canvas
    levels: list[Tensor]


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
        self._turns, self._cuts = "upright" in chosen, "zoom" in chosen

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
        """Feature maps of upright RGB images on their canvases, or on the better ones that are seen."""
        levels = self.levels_on(images, canvases)
        views = [_View(*each) for each in zip(images, canvases, levels, strict=True)]
        views = self._turned(views) if self._turns else views
        views = self._cut(views) if self._cuts else views
        return [self.feature_map_on(each.canvas, each.levels) for each in views]

    def _on(self, views: Sequence[_View], canvases: Sequence[Canvas]) -> list[_View]:
        """Images of views on other canvases."""
        images = [each.image for each in views]
        fresh = self.levels_on(images, canvases)
        return [_View(*each) for each in zip(images, canvases, fresh, strict=True)]

    def _turned(self, views: list[_View]) -> list[_View]:
        """Views in the turn that makes them stand upright, all turns considered, if that is surely better."""
        odds = {row: self._odds(each) for row, each in enumerate(views) if each.canvas.turn == "identity"}
        doubtful = [row for row, each in odds.items() if not _stands(each)]
        turns = list(product(doubtful, UPRIGHT[1:]))
        canvases = [replace(views[row].canvas, turn=turn) for row, turn in turns]
        others = self._on([views[row] for row, _ in turns], canvases)
        for place, row in enumerate(doubtful):
            turned = others[3 * place : 3 * place + 3]
            best = turn_needed(torch.stack([odds[row], *map(self._odds, turned)]))
            views[row] = turned[best - 1] if best else views[row]
        return views

    def _odds(self, view: _View) -> Float[Tensor, " 4"]:
        return self.extractor.standing(view.levels).float().cpu().log_softmax(dim=0)

    def _cut(self, views: list[_View]) -> list[_View]:
        """Views of a small object alone, if it looks like one there too."""
        tried = dict[int, Canvas]()
        for row, each in enumerate(views):
            box = None if each.canvas.box else self.extractor.small_object(each.levels, each.canvas)
            # Where nothing is cut out, the whole image is the box, in every pose.
            views[row] = replace(each, canvas=replace(each.canvas, box=each.canvas.part))
            if box is not None:
                tried[row] = replace(each.canvas, box=box)
        cut = self._on([views[row] for row in tried], list(tried.values()))
        for row, closer in zip(tried, cut, strict=True):
            if self.extractor.shows_object(closer.levels):
                views[row] = closer
        return views


def turn_needed(odds: Float[Tensor, "4 4"]) -> int:
    """The place in `UPRIGHT` of the turn that an image needs, by its views in each of these turns.

    Args:
        odds: of each view, the log-probabilities of the turns that it needs.
    """
    if _stands(odds[0]):
        return 0
    # What turns the image turns a view that is turned already by less.
    chances = torch.stack([each.roll(quarters) for quarters, each in enumerate(odds)]).mean(dim=0)
    best = int(chances.argmax())
    return best if chances[best] - chances[0] > _BETTER else 0


def _stands(odds: Float[Tensor, " 4"]) -> bool:
    """Whether a view stands upright at first sight."""
    return bool(odds[0] >= math.log(_SURE))


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
