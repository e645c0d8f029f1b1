"""What a run can train: the embedded network, or a transformer. What differs between them is here.

A kind makes the network of a run. That is a module which gives unit descriptors (n, d, g, g) of what
`Kind.shown` makes of pixels, and maybe the logits of presence and of the turns. It has ``info``,
``save_pretrained`` and, if it tells the presence, ``familiarity`` and ``familiar``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.features.extractor import Extractor
from geoaware.features.tuned import STRIDE, Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.runs.errors import InputError
from geoaware.training.backbone.config import TuneConfig

Network = TypeVar("Network", bound=nn.Module)


class Kind(ABC, Generic[Network]):
    """What a run must know of the kind of network that it trains.

    Attributes:
        stride: pixels of a view a cell.
        channels: of a descriptor.
    """

    stride: int
    channels: int

    @abstractmethod
    def make(self) -> Network:
        """A new network, or that of ``start``; random numbers come from torch's generator.

        Raises:
            InputError: ``start`` is not there, or of another shape.
        """

    @abstractmethod
    def shown(self, pixels: Float[Tensor, "n 3 s s"]) -> Tensor:
        """What the network takes of pixels from 0 to 1; no gradient goes through it."""

    @abstractmethod
    def extractor(self, network: Network) -> Extractor:
        """The network as it is now as an extractor, for validation."""

    @abstractmethod
    def backbone(self, network: Network) -> Iterable[nn.Parameter]:
        """The parameters that learn at the rate of the backbone."""

    def to(self, device: torch.device) -> None:
        """Move what belongs to no network."""

    def begin(self, network: Network, step: int) -> None:
        """Make a network, in evaluation mode, ready for a step."""


class Embedded(Kind[TunedNetwork]):
    """EfficientNet-Lite0 with a decoder, behind the first blocks of the plain extractor."""

    stride = STRIDE

    def __init__(self, config: TuneConfig) -> None:
        self.config = config
        self.plain = EfficientNetLite.load("efficientnet-lite0").eval()
        self.channels = config.shape.descriptor

    def make(self) -> TunedNetwork:
        """ImageNet's weights under a new decoder, or what an earlier run made of them."""
        shape, start = TunedShape(**self.config.shape.model_dump()), self.config.start
        if start is None:
            return TunedNetwork.from_imagenet(shape)
        network = TunedNetwork.from_pretrained(start)
        if network.shape != shape:
            raise InputError(f"{start}: has {network.shape}, the run {shape}; set shape accordingly")
        return network

    def shown(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h h"]:
        """What the shared blocks give."""
        return shared_maps(self.plain, pixels)

    def extractor(self, network: TunedNetwork) -> Extractor:
        """Trained and plain descriptors, joined."""
        return Tuned("efficientnet-lite0-tuned", TunedSettings(), network).to(self.plain.device).eval()

    def backbone(self, network: TunedNetwork) -> Iterable[nn.Parameter]:
        """All but the decoder's."""
        return network.blocks.parameters()

    def to(self, device: torch.device) -> None:
        """Move the plain extractor."""
        self.plain.to(device)


@torch.no_grad()
def shared_maps(plain: EfficientNetLite, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h h"]:
    """What the blocks give that both networks share, of pixels from 0 to 1; they compute in bfloat16."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        return plain.early((pixels - plain.mean) / plain.std).float()
