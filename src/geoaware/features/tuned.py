"""The embedded backbone trained on people and animals, beside the plain one for all other objects.

A `TunedNetwork` is EfficientNet-Lite0 with a small decoder, trained from its fourth block on (`geoaware
tune`). It gives *trained* descriptors, which tell left from right on objects like those that were trained
on, the *presence* of such an object, and how the image would have to be turned to stand upright. The
extractor `Tuned` joins them with the descriptors of the plain `EfficientNetLite`: the more surely an image
shows such an object, the more the trained ones count. So an object that was not trained on is matched by
plain descriptors. Both networks share the first blocks.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import (
    MEAN,
    SHARED,
    STD,
    EfficientNetLite,
    EfficientNetLiteSettings,
    fold,
    imagenet_network,
)
from geoaware.features.extractor import Extractor, Layout, describe, make_settings
from geoaware.features.framed import UPRIGHT, box_of_cells, cut_out
from geoaware.method.geometry import Canvas
from geoaware.method.maps import resized
from geoaware.method.types import longer_side
from geoaware.runs.errors import InputError, quoted
from geoaware.runs.weights import LARGEST, SavedNetwork, digest, folder_meant

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "tuned"
"""Folder of the weights that come with the package."""

STRIDE = 8
"""Pixels a cell of the network's maps."""

DECODED = {SHARED - 1: 24, 4: 40, 10: 112, 15: 320}
"""Blocks that the decoder reads, the last at strides 4, 8, 16 and 32, with their channels."""

SMALL = 0.6
"""An object is small if its box, margin included, is smaller than this share of the image."""

_FEW = 9
"""Fewer cells than these are no object for `Tuned.small_object`."""

_TOP = 0.02
"""An image's presence is the highest logit that this share of its cells reaches."""


@dataclass(frozen=True)
class TunedShape:
    """Shape of the decoder.

    Attributes:
        descriptor: channels of the descriptors.
        width: channels inside.
        context: dilations of the residual blocks at stride 16, which see the whole body.
        detail: how many residual blocks follow at stride 8.
    """

    descriptor: int = 128
    width: int = 256
    context: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    detail: int = 2

    def __post_init__(self) -> None:
        counts = (self.descriptor, self.width, *self.context)
        if not all(type(each) is int for each in (*counts, self.detail)):
            raise InputError(f"descriptor, width, detail and dilations must be whole numbers, got {self}")
        if max(*counts, self.detail) > LARGEST:
            raise InputError(f"numbers of the shape can be {LARGEST:,} at most, got {quoted(self)}")
        if min(counts) < 1 or self.width % 4 or self.detail < 0:
            raise InputError(
                f"descriptor, width (a multiple of 4) and dilations must be positive, got {self}"
            )


class TunedNetwork(SavedNetwork):
    """Maps of the shared blocks to trained descriptors and presence, at stride 8, and to the turn needed.

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
        self.blocks = nn.ModuleList(backbone._blocks[SHARED:])
        self.lateral = nn.ModuleDict(
            {str(index): _normed(channels, shape.width, 1) for index, channels in DECODED.items()}
        )
        self.context = nn.ModuleList(_Residual(shape.width, dilation) for dilation in shape.context)
        self.detail = nn.ModuleList(_Residual(shape.width, 1) for _ in range(shape.detail))
        self.out = nn.Conv2d(shape.width, shape.descriptor + 1, 1)
        self.upright = nn.Linear(shape.width, len(UPRIGHT))
        # Slope and offset of an image's logit, as a function of its presence.
        self.familiar = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, early: Float[Tensor, "b c h h"]
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b 1 g g"], Float[Tensor, "b 4 1 1"]]:
        """Unit descriptors, the logit of presence and those of `UPRIGHT`, of what the shared blocks give.

        The sides of the pixels are multiples of 32.
        """
        x, maps = early, {SHARED - 1: early}
        for index, block in enumerate(self.blocks, start=SHARED):
            x = block(x)
            maps[index] = x
        fine, eighth, sixteenth, last = (self.lateral[str(index)](maps[index]) for index in DECODED)
        # Down to stride 32 the network sees far, up again it sees where.
        x = F.relu(sixteenth + _enlarged(last))
        for block in self.context:
            x = block(x)
        turns = self.upright(x.mean(dim=(2, 3))).float()[:, :, None, None]
        x = F.relu(_enlarged(x) + eighth + F.avg_pool2d(fine, 2))
        for block in self.detail:
            x = block(x)
        found = self.out(x).float()
        return F.normalize(found[:, :-1], dim=1), found[:, -1:], turns

    def familiarity(self, presence: Float[Tensor, "b 1 g g"]) -> Float[Tensor, " b"]:
        """The logit that an image shows an object of a kind that was trained on."""
        cells = presence.flatten(1)
        top = cells.topk(max(1, round(_TOP * cells.shape[1])), dim=1).values[:, -1]
        return self.familiar[0] * top + self.familiar[1]

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
        coarse_canvas: side to which it is reduced for the plain descriptors' late blocks, a multiple of 32.
        grid: cells a side of the map; an eighth of the canvas when not given.
        share: of the trained descriptors in the similarity, at most, 0 to 1.
    """

    weights: str = "lite"
    canvas: int = 352
    coarse_canvas: int = 192
    grid: int | None = None
    share: float = 0.97

    @property
    def plain(self) -> EfficientNetLiteSettings:
        """Settings of the plain extractor that goes with them."""
        grid = self.canvas // STRIDE if self.grid is None else self.grid
        return EfficientNetLiteSettings(self.canvas, self.coarse_canvas, grid)

    def __post_init__(self) -> None:
        _ = self.plain  # refuses what cannot be
        if not 0 <= self.share <= 1:
            raise InputError(f"share must be from 0 to 1, got {self.share}", "share")


class Tuned(Extractor):
    """The network beside the plain extractor, as one extractor."""

    def __init__(self, name: str, settings: TunedSettings, network: TunedNetwork) -> None:
        plain = EfficientNetLite("efficientnet-lite0", settings.plain, imagenet_network().eval())
        identity = f"{describe(name, settings)} {network.weights_hash()[:16]}"
        channels = network.shape.descriptor + plain.layout.channels
        super().__init__(name, identity, Layout(settings.canvas, plain.layout.grid, channels, MEAN, STD))
        self.settings = settings
        self.plain = plain
        self.network = network.folded()
        # A head that was never trained is all zeros.
        self.sees = ("zoom", "upright") if network.upright.weight.any() else ("zoom",)

    @classmethod
    def load(cls, name: str, **settings: Any) -> Tuned:
        """Load by table name; the settings are those of `TunedSettings`."""
        chosen = make_settings(TunedSettings, name, settings)
        return cls(name, chosen, TunedNetwork.from_pretrained(chosen.weights))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Trained descriptors, presence, logits of the turn, and the maps of the plain extractor."""
        early = self.plain.early(pixels)
        return *self.network(early), *self.plain.levels(pixels, early)

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors, whose cosine similarity mixes those of both kinds.

        An image's share of the trained descriptors is the setting's times the probability that it shows an
        object like those that were trained on.
        """
        trained, _, _, *plain = levels
        side = grid or self.layout.grid
        share = self.share(levels)[:, None, None, None]
        parts = F.normalize(resized(trained, side), dim=1), self.plain.combine(plain, side)
        return torch.cat([share.sqrt() * parts[0], (1 - share).sqrt() * parts[1]], dim=1)

    def share(self, levels: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """Of the trained descriptors in the similarity of each image, from its raw maps."""
        return self.settings.share * torch.sigmoid(self.network.familiarity(levels[1]))

    def presence(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, "g g"]:
        """The logit that a cell shows an object of a kind that was trained on."""
        return levels[1][0]

    def small_object(
        self, levels: Sequence[Float[Tensor, "_ _ _"]], canvas: Canvas
    ) -> tuple[int, int, int, int] | None:
        """Around the cells where an object is present, with a margin."""
        cells = self.presence(levels) > 0
        found = box_of_cells(cells, canvas)
        # A few cells can be anything.
        if found is None or cells.sum() < _FEW:
            return None
        box = cut_out(found, (canvas.width, canvas.height))
        return box if longer_side(box) < SMALL * max(canvas.width, canvas.height) else None

    def shows_object(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> bool:
        """Whether an object like those that were trained on is more probable than not."""
        return bool(self.network.familiarity(levels[1][None]) > 0)

    def standing(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, " 4"]:
        """Logits, a linear function of the network's mean over the image."""
        return levels[2].flatten()


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
