"""Several extractors as one: the raw maps of all, and descriptors of equal weight on one grid.

The paper's fusion (section 3.1) is ``sd15+dinov2-base``: unit descriptors of each, concatenated and made unit
again. Any extractors can take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from geoaware.features.extractor import Extractor, Layout
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError


class Fused(Extractor):
    """Extractors side by side; every part lays images on a canvas of its own.

    The grid is the largest among the parts. Grid cells and canvas positions are shares of the image, so a
    map of one canvas can be read with the layout of another; that of the part with the largest grid is taken
    (of several, the smallest canvas), which gives 840 and 60 for ``sd15+dinov2-base``. Canvases of different
    sides round the shorter side of an image differently, by less than one of their pixels.

    Args:
        parts: at least two; their raw maps follow in this order.

    Raises:
        InputError: fewer than two parts, or one of them twice.
    """

    parts: nn.ModuleList

    def __init__(self, parts: Sequence[Extractor]) -> None:
        names = [part.name for part in parts]
        check_parts(names)
        lead = min((part.layout for part in parts), key=lambda layout: (-layout.grid, layout.size))
        channels = sum(part.layout.channels for part in parts)
        name = "+".join(names)
        identity = f"{name}[{' + '.join(part.identity for part in parts)}]"
        super().__init__(name, identity, Layout(lead.size, lead.grid, channels, lead.mean, lead.std))
        self.parts = nn.ModuleList(parts)

    def limit_memory(self, size: int) -> None:
        """Parts run one after the other: each may take all of it."""
        for part in self._parts():
            part.limit_memory(size)

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Raw maps of all parts from one canvas, scaled for each part.

        Images are better given to `levels_of`, where every part renders its own canvas from the original.
        """
        plain = pixels.float() * self.std.float() + self.mean.float()
        return tuple(chain.from_iterable(part.levels(_canvas_of(part, plain)) for part in self._parts()))

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors of each part, brought to the largest grid, concatenated and made unit again."""
        side = self.layout.grid
        shares = zip(self._parts(), self._split(levels), strict=True)
        maps = [F.normalize(resized(part.combine(own), side), dim=1) for part, own in shares]
        return resized(F.normalize(torch.cat(maps, dim=1), dim=1), grid or side)

    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Raw maps of all parts, float32; each part lays the images on its own canvas."""
        return tuple(chain.from_iterable(part.levels_of(images) for part in self._parts()))

    def _parts(self) -> list[Extractor]:
        return list(self.parts)  # type: ignore[arg-type]

    def _split(self, levels: Sequence[Tensor]) -> list[list[Tensor]]:
        """Raw maps by part: those of a part have together as many channels as its descriptors."""
        left, groups = list(levels), []
        for part in self._parts():
            own: list[Tensor] = []
            while left and sum(level.shape[1] for level in own) < part.layout.channels:
                own.append(left.pop(0))
            groups.append(own)
        found = [sum(level.shape[1] for level in own) for own in groups]
        wanted = [part.layout.channels for part in self._parts()]
        if left or found != wanted:
            raise InputError(
                f"raw maps of {[level.shape[1] for level in levels]} channels are not those of {self.name}, "
                f"whose parts have {wanted}"
            )
        return groups


def check_parts(names: Sequence[str]) -> None:
    """Make sure that the parts of a fusion are at least two and different.

    Raises:
        InputError: they are not.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"a fusion takes two or more different extractors, got {'+'.join(names)!r}")


def split_settings(names: Sequence[str], settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of a fusion, given as ``PART.SETTING``, by part.

    Example:
        >>> split_settings(["sd15", "dinov2-base"], {"sd15.crops": "none"})
        {'sd15': {'crops': 'none'}, 'dinov2-base': {}}

    Raises:
        InputError: a key does not begin with the name of a part and a dot.
    """
    by_part: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in settings.items():
        part, dot, setting = key.partition(".")
        if not dot or part not in by_part:
            raise InputError(
                f"{'+'.join(names)} has no setting {key}; give settings of its parts as "
                f"{' or '.join(f'{name}.SETTING' for name in names)}"
            )
        by_part[part][setting] = value
    return by_part


def _canvas_of(part: Extractor, plain: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 t t"]:
    """A canvas with values in 0…1, scaled and normalised for a part."""
    plain = resized(plain, part.layout.size, antialias=True)
    return ((plain - part.mean.float()) / part.std.float()).to(part.dtype)
