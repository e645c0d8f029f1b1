"""The paper's features without their networks: what is known of them before any weights are there.

A plan names its predictions and counts its bytes with these; they cannot encode an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.extractor import Extractor, Layout
from geoaware.features.fused import Fused
from geoaware.features.stable_diffusion import StableDiffusion
from geoaware.method.post_processor import PostProcessor, PostProcessorSettings

EXTRACTOR = "sd15+dinov2-base"
"""The paper's features, by the name of the extractor."""

_DIFFUSION, _DINO = EXTRACTOR.split("+")

Widths = tuple[int, int, int, int]
"""Channels of the raw maps: three of Stable Diffusion, finest first, and DINOv2's."""

WIDTHS: Widths = (640, 1280, 1280, 768)


class Planned(Extractor):
    """An extractor of which only name and layout are known."""

    def __init__(self, name: str, layout: Layout) -> None:
        super().__init__(name, f"{name}(planned)", layout)
        self.unused = nn.Parameter(torch.zeros(()), requires_grad=False)

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Not to be had."""
        raise NotImplementedError(f"{self.name} is only planned")


class PlannedDiffusion(Planned):
    """Its maps are combined as the real one's."""

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """See `StableDiffusion.combine`."""
        return StableDiffusion.combine(self, levels, grid)  # type: ignore[arg-type]


def map_shapes(settings: Mapping[str, Any], widths: Widths = WIDTHS) -> list[tuple[int, int, int]]:
    """Channels and sides (c, h, w) of the raw maps with such settings of `load_extractor`."""
    finest, dino = (settings.get(f"{name}.canvas", side) for name, side in ((_DIFFUSION, 960), (_DINO, 840)))
    sides = (finest // 16, finest // 32, finest // 64, dino // 14)
    return [(width, side, side) for width, side in zip(widths, sides, strict=True)]


def planned_extractor(settings: Mapping[str, Any], widths: Widths = WIDTHS) -> Fused:
    """The paper's extractor with such settings, but for its networks."""
    shapes = map_shapes(settings, widths)
    (_, finest, _), (_, dino, _) = shapes[0], shapes[-1]
    diffusion = PlannedDiffusion(_DIFFUSION, Layout(16 * finest, finest, sum(widths[:-1])))
    return Fused([diffusion, Planned(_DINO, Layout(14 * dino, dino, widths[-1]))]).eval()


def planned_network(
    settings: PostProcessorSettings, matching: Mapping[str, Any], widths: Widths = WIDTHS
) -> PostProcessor:
    """A post-processor of such settings, matched in such a way, with any weights."""
    network = PostProcessor(**asdict(replace(settings, channels=widths)))
    network.info = {"matching": dict(matching)}
    return network
