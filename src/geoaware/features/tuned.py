"""The embedded backbone trained on people and animals, with a way out for all other objects.

A `TunedNetwork` is EfficientNet-Lite0 with a small decoder, trained as a whole (`geoaware tune`). In one pass
over one canvas it gives two descriptors of every cell and says which of them counts:

* *trained* descriptors, which tell left from right on objects like those that were trained on;
* *plain* descriptors, a linear reading of the backbone's maps, fitted to those of the zero-shot extractor;
* the *presence* of an object that was trained on, from which the share of the trained descriptors follows.

So an object that was not trained on is matched by plain descriptors.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import MEAN, STD, centred, fold, imagenet_network
from geoaware.features.extractor import Extractor, Layout, describe, make_settings
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError
from geoaware.runs.weights import SavedNetwork, digest, folder_meant

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "tuned"
"""Folder of the weights that come with the package."""

STRIDE = 8
"""Pixels a cell of the network's maps."""

DECODED = {2: 24, 4: 40, 10: 112, 15: 320}
"""Blocks that the decoder reads, the last at strides 4, 8, 16 and 32, with their channels."""

READ = {7: 80, 10: 112, 13: 192, 15: 320}
"""Blocks that the plain descriptors are read from, at strides 16, 16, 32 and 32, with their channels."""

SHARE = 0.75
"""Of the similarity, at most so much is by trained descriptors."""


@dataclass(frozen=True)
class TunedShape:
    """Shape of the decoder.

    Attributes:
        descriptor: channels of the trained descriptors.
        width: channels inside.
        context: dilations of the residual blocks at stride 16, which see the whole body.
        detail: how many residual blocks follow at stride 8.
        plain: channels of the plain descriptors.
    """

    descriptor: int = 128
    width: int = 256
    context: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    detail: int = 2
    plain: int = 384

    def __post_init__(self) -> None:
        counts = (self.descriptor, self.width, self.plain, *self.context)
        if not all(isinstance(each, int) for each in (*counts, self.detail)):
            raise InputError(
                f"descriptor, width, detail, plain and dilations must be whole numbers, got {self}"
            )
        if min(counts) < 1 or self.width % 4 or self.detail < 0:
            raise InputError(
                f"descriptor, width (a multiple of 4), plain and dilations must be positive, got {self}"
            )


class TunedNetwork(SavedNetwork):
    """Pixels to trained and plain descriptors and presence, at stride 8.

    The decoder adds the maps of strides 32 and 16, frees them of their resolution's limits by dilated
    residual blocks, and brings them to stride 8, where those of strides 8 and 4 add what is fine.

    Args:
        shape: of the decoder.
        backbone: an EfficientNet-Lite0 of ``efficientnet_lite_pytorch``, with its batch normalisations.
    """

    noun, format = "tuned network", "geoaware tuned network 3"
    section, values = "shape", TunedShape

    def __init__(self, shape: TunedShape, backbone: Any) -> None:
        super().__init__()
        self.shape = shape
        self.stem = nn.Sequential(backbone._conv_stem, backbone._bn0, backbone._swish)
        self.blocks = nn.ModuleList(backbone._blocks)
        self.lateral = nn.ModuleDict(
            {str(index): _normed(channels, shape.width, 1) for index, channels in DECODED.items()}
        )
        self.context = nn.ModuleList(_Residual(shape.width, dilation) for dilation in shape.context)
        self.detail = nn.ModuleList(_Residual(shape.width, 1) for _ in range(shape.detail))
        self.out = nn.Conv2d(shape.width, shape.descriptor + 1, 1)
        self.reading = nn.ModuleDict(
            {str(index): nn.Conv2d(channels, shape.plain, 1, bias=False) for index, channels in READ.items()}
        )
        # Slope and offset of the share, as a function of the presence's logit.
        self.gate = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, pixels: Float[Tensor, "b 3 s s"], fixed: int = 0
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b c g g"], Float[Tensor, "b 1 g g"]]:
        """Trained and plain unit descriptors, and the logit of presence.

        Sides are multiples of 32. The first ``fixed`` blocks are those that training leaves as they are; they
        run without a gradient, and in bfloat16.
        """
        maps = self.maps(pixels, fixed)
        fine, eighth, sixteenth, last = (self.lateral[str(index)](maps[index]) for index in DECODED)
        # Down to stride 32 the network sees far, up again it sees where.
        x = F.relu(sixteenth + _enlarged(last))
        for block in self.context:
            x = block(x)
        x = F.relu(_enlarged(x) + eighth + F.avg_pool2d(fine, 2))
        for block in self.detail:
            x = block(x)
        found = self.out(x).float()
        return F.normalize(found[:, :-1], dim=1), self._plain(maps, x.shape[-1]), found[:, -1:]

    def joined(
        self,
        trained: Float[Tensor, "b d g g"],
        plain: Float[Tensor, "b c g g"],
        presence: Float[Tensor, "b 1 g g"],
    ) -> Float[Tensor, "b e g g"]:
        """One unit descriptor of both; their cosine similarity mixes those of the two by the shares.

        A cell's share of the trained descriptors is 0.75 times the sigmoid of a linear function of presence.
        """
        share = SHARE * torch.sigmoid(self.gate[0] * presence + self.gate[1])
        return torch.cat([share.clamp(min=1e-6).sqrt() * trained, (1 - share).sqrt() * plain], dim=1)

    def levels(self, maps: dict[int, Tensor]) -> list[Tensor]:
        """The maps that the plain descriptors are read from, as unit descriptors freed of their mean."""
        return [centred(maps[index].float()) for index in READ]

    def maps(self, pixels: Tensor, fixed: int = 0) -> dict[int, Tensor]:
        """Outputs of the blocks that the decoder and the reading take, by the number of the block."""
        x, maps = pixels.contiguous(memory_format=torch.channels_last), {}
        with ExitStack() as frozen:
            if fixed:
                frozen.enter_context(torch.no_grad())
                frozen.enter_context(torch.autocast(pixels.device.type, torch.bfloat16))
            x = self.stem(x)
            for index, block in enumerate(self.blocks):
                if index == fixed:
                    frozen.close()
                    x = x.to(pixels.dtype)
                x = block(x)
                if index in DECODED or index in READ:
                    maps[index] = x.to(pixels.dtype)
        return maps

    def _plain(self, maps: dict[int, Tensor], side: int) -> Float[Tensor, "b c g g"]:
        # A 1 x 1 convolution commutes with the interpolation, and is cheaper before it.
        seven, ten, thirteen, fifteen = (
            self.reading[str(index)](level) for index, level in zip(READ, self.levels(maps), strict=True)
        )
        fine = seven + ten
        fine = fine + F.interpolate(thirteen + fifteen, size=fine.shape[-2:], mode="bilinear")
        return F.normalize(F.interpolate(fine, size=(side, side), mode="bilinear").float(), dim=1)

    def folded(self) -> TunedNetwork:
        """A copy for use only, whose batch normalisations are part of the convolutions: the same, faster."""
        network = copy.deepcopy(self).eval()
        fold(network)
        return network

    def weights_hash(self) -> str:
        """SHA-256 of weights and shape."""
        shape = torch.tensor(list(repr(self.shape).encode()))
        return digest([*self.state_dict().items(), ("shape", shape)]).hex()

    def saved_state(self) -> dict[str, Tensor]:
        """Convolutions in half precision; no counters."""
        state = {name: each for name, each in self.state_dict().items() if each.is_floating_point()}
        return {name: each.half() if each.ndim == 4 else each for name, each in state.items()}

    @classmethod
    def from_imagenet(cls, shape: TunedShape) -> TunedNetwork:
        """ImageNet's weights under an untrained decoder."""
        return cls(shape, imagenet_network())

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str]) -> TunedNetwork:
        """Weights that come with the package (by name), or of a folder that `save_pretrained` wrote.

        A shipped name wins over a folder of that name, which is given with a separator: ``"./lite"``.

        Raises:
            InputError: nothing is there, or it is damaged or of another format.
        """
        folder, names = folder_meant(place, SHIPPED)
        origin = f"a folder written by geoaware tune, or weights that are shipped: {names}"
        return cls.from_folder(folder, origin)

    @classmethod
    def of_values(cls, **values: Any) -> TunedNetwork:
        """A network of the fields of a `TunedShape`, untrained."""
        return cls(TunedShape(**values), imagenet_network(weights=False))


@dataclass(frozen=True)
class TunedSettings:
    """Settings of `Tuned`.

    Attributes:
        weights: name of weights that come with the package, or a folder that ``geoaware tune`` wrote
            (with a separator, ``./lite``, if it has the name of shipped ones).
        canvas: side of the square image, a multiple of 32.
        grid: cells a side of the map; an eighth of the canvas when not given.
    """

    weights: str = "lite"
    canvas: int = 384
    grid: int | None = None

    def __post_init__(self) -> None:
        if self.canvas < 32 or self.canvas % 32:
            raise InputError(f"the canvas must be a multiple of 32 pixels, got {self.canvas}")
        if self.grid is not None and not 1 <= self.grid <= self.canvas:
            raise InputError(f"the grid must have 1 to {self.canvas} cells a side, got {self.grid}")


class Tuned(Extractor):
    """The network as an extractor."""

    def __init__(self, name: str, settings: TunedSettings, network: TunedNetwork) -> None:
        identity = f"{describe(name, settings)} {network.weights_hash()[:16]}"
        channels = network.shape.descriptor + network.shape.plain
        grid = settings.grid or settings.canvas // STRIDE
        super().__init__(name, identity, Layout(settings.canvas, grid, channels, MEAN, STD))
        self.settings = settings
        self.network = network.folded()

    @classmethod
    def load(cls, name: str, **settings: Any) -> Tuned:
        """Load by table name; the settings are those of `TunedSettings`."""
        chosen = make_settings(TunedSettings, name, settings)
        return cls(name, chosen, TunedNetwork.from_pretrained(chosen.weights))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """The joined descriptors."""
        return (self.network.joined(*self.network(pixels)),)

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors."""
        return F.normalize(resized(levels[0], grid or self.layout.grid), dim=1)


class _Residual(nn.Module):
    """A bottleneck with a dilated convolution in the middle, added to what comes in."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        inner = width // 4
        self.way = nn.Sequential(
            *_normed(width, inner, 1),
            nn.ReLU(),
            *_normed(inner, inner, 3, dilation),
            nn.ReLU(),
            *_normed(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.way(x))


def _normed(incoming: int, outgoing: int, side: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(incoming, outgoing, side, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing))


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")
