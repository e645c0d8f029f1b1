"""Several extractors as one: the raw maps of all, and descriptors of equal weight on one grid.

The paper's fusion (section 3.1) is ``sd15+dinov2-base``: unit descriptors of each, concatenated and made unit
again. Any extractors can take part.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
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

    def __init__(self, parts: Sequence[Extractor]) -> None:
        names = [part.name for part in parts]
        check_parts(names)
        lead = min((part.layout for part in parts), key=lambda layout: (-layout.grid, layout.size))
        channels = sum(part.layout.channels for part in parts)
        name = "+".join(names)
        identity = f"{name}[{' + '.join(part.identity for part in parts)}]"
        super().__init__(name, identity, Layout(lead.size, lead.grid, channels, lead.mean, lead.std))
        self.parts: Any = nn.ModuleList(parts)

    def limit_memory(self, size: int) -> None:
        """Parts run one after the other: each may take all of it."""
        for part in self.parts:
            part.limit_memory(size)

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Raw maps of all parts from one canvas, scaled for each part.

        Images are better given to `levels_of`, where every part renders its own canvas from the original.
        """
        plain = pixels.float() * self.std.float() + self.mean.float()
        found: list[Tensor] = []
        for part in self.parts:
            own = resized(plain, part.layout.size, antialias=True)
            found += part.levels(((own - part.mean.float()) / part.std.float()).to(part.dtype))
        return tuple(found)

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors of each part, brought to the largest grid, concatenated and made unit again."""
        side = self.layout.grid
        shares = zip(self.parts, self._split(levels), strict=True)
        maps = [F.normalize(resized(part.combine(own), side), dim=1) for part, own in shares]
        return resized(F.normalize(torch.cat(maps, dim=1), dim=1), grid or side)

    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Raw maps of all parts, float32; each part lays the images on its own canvas."""
        return tuple(chain.from_iterable(part.levels_of(images) for part in self.parts))

    def _split(self, levels: Sequence[Tensor]) -> list[list[Tensor]]:
        """Raw maps by part: those of a part have together as many channels as its descriptors."""
        wanted = [part.layout.channels for part in self.parts]
        found = [level.shape[1] for level in levels]
        ends = [bisect([*accumulate(found)], end) for end in accumulate(wanted, initial=0)]
        groups = [list(levels[begin:end]) for begin, end in pairwise(ends)]
        if [sum(level.shape[1] for level in own) for own in groups] != wanted or ends[-1] != len(found):
            raise InputError(
                f"raw maps of {found} channels are not those of {self.name}, whose parts have {wanted}"
            )
        return groups


def check_parts(names: Sequence[str]) -> None:
    """Make sure that the parts of a fusion are at least two and different; else `InputError`."""
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
        part, dot, setting = key.rpartition(".")
        if not dot or part not in by_part:
            raise InputError(
                f"{'+'.join(names)} has no setting {key}; give settings of its parts as "
                f"{' or '.join(f'{name}.SETTING' for name in names)}"
            )
        by_part[part][setting] = value
    return by_part
