"""The embedded backbone trained on people and quadrupeds, beside the plain one: `efficientnet-lite0-tuned`.

A `TunedNetwork` is EfficientNet-Lite0 with a small decoder, trained as a whole (`geoaware tune`). Its
descriptors tell left from right, and its presence says where an object is of a kind that it was trained on.
The extractor lays the tuned descriptors beside the plain ones of `EfficientNetLite`, each by its share, as
`features.refined` does for a post-processor. The share depends on how in-distribution the image is: objects
that the network was not trained on get the plain descriptors alone. The score of that uses both descriptors,
because the tuned ones alone take a motorbike for a man.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import MEAN, STD, EfficientNetLite, fold, imagenet_network
from geoaware.features.extractor import Extractor, Layout, describe, make_settings
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError
from geoaware.runs.weights import SavedNetwork, digest, folder_meant

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "tuned"
"""Folder of the weights that come with the package."""

CANVAS = 448
"""Side of the canvas: that of the plain extractor, so that both see the same pixels."""

_TAKEN = {2: 24, 4: 40, 10: 112, 15: 320}
"""Blocks that the decoder reads, the last at strides 4, 8, 16 and 32, with their channels."""

_STEEP = 60.0
"""How fast the share rises with the in-distribution score: from a tenth to nine tenths of it within 0.07."""

_UNNAMED = (0.72, 0.62)
"""Thresholds that the identity and the hash leave out when they come with the weights.

They are those of the weights that were shipped before identity and hash depended on thresholds. All others
are named, so that features of different thresholds are never taken for each other.
"""

GRID = CANVAS // 8
"""Cells a side of the tuned descriptors' own map."""


@dataclass(frozen=True)
class TunedShape:
    """Shape of the decoder.

    Attributes:
        descriptor: channels of a descriptor.
        width: channels inside.
        context: dilations of the residual blocks at stride 16, which see the whole body.
        detail: how many residual blocks follow at stride 8.
        keypoints: of each kind of object that the network is trained on.
        plain: channels of the plain descriptors.
    """

    descriptor: int = 128
    width: int = 256
    context: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    detail: int = 2
    keypoints: tuple[int, ...] = ()
    plain: int = 1008

    def __post_init__(self) -> None:
        counts = (self.descriptor, self.width, self.plain, *self.context, *self.keypoints)
        if not all(isinstance(each, int) for each in (*counts, self.detail)):
            raise InputError(
                f"descriptor, width, detail, plain, dilations and keypoints must be whole numbers, got {self}"
            )
        if min(counts) < 1 or self.width % 4 or self.detail < 0:
            raise InputError(
                f"descriptor, width (a multiple of 4), plain and dilations must be positive, got {self}"
            )


class TunedNetwork(SavedNetwork):
    """Pixels to unit descriptors and presence, at stride 8.

    The maps of strides 32 and 16 are added, freed of their resolution's limits by dilated residual blocks,
    and brought to stride 8, where those of strides 8 and 4 add what is fine.

    Args:
        shape: of the decoder.
        backbone: an EfficientNet-Lite0 of ``efficientnet_lite_pytorch``, with its batch normalisations.

    Attributes:
        centres: mean unit descriptor of every keypoint on the images that were trained on, kind after kind;
            zero before training ends.
        plain_centres: likewise of the plain descriptors.
    """

    noun, format = "tuned network", "geoaware tuned network 2"
    section, values = "shape", TunedShape
    centres: Tensor
    plain_centres: Tensor

    def __init__(self, shape: TunedShape, backbone: Any) -> None:
        super().__init__()
        self.shape = shape
        self.stem = nn.Sequential(backbone._conv_stem, backbone._bn0, backbone._swish)
        self.blocks = nn.ModuleList(backbone._blocks)
        self.lateral = nn.ModuleDict(
            {str(index): _normed(channels, shape.width, 1) for index, channels in _TAKEN.items()}
        )
        self.context = nn.ModuleList(_Residual(shape.width, dilation) for dilation in shape.context)
        self.detail = nn.ModuleList(_Residual(shape.width, 1) for _ in range(shape.detail))
        self.out = nn.Conv2d(shape.width, shape.descriptor + 1, 1)
        self.register_buffer("centres", torch.zeros(sum(shape.keypoints), shape.descriptor))
        self.register_buffer("plain_centres", torch.zeros(sum(shape.keypoints), shape.plain))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, pixels: Float[Tensor, "b 3 s s"], early: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b 1 g g"]]:
        """Unit descriptors, and the logit of being on an object of a kind that was trained on.

        Sides are multiples of 32. ``early`` is what training does to the maps of strides 2 and 4.
        """
        fine, eighth, sixteenth, last = self._laterals(pixels, early or (lambda maps: maps))
        # Down to stride 32 the network sees far, up again it sees where.
        x = F.relu(sixteenth + _enlarged(last))
        for block in self.context:
            x = block(x)
        x = F.relu(_enlarged(x) + eighth + F.avg_pool2d(fine, 2))
        for block in self.detail:
            x = block(x)
        found = self.out(x).float()
        return F.normalize(found[:, :-1], dim=1), found[:, -1:]

    def in_distribution(
        self,
        descriptors: Float[Tensor, "b d g g"],
        presence: Float[Tensor, "b 1 g g"],
        plain: Float[Tensor, "b c q q"],
    ) -> Float[Tensor, "b kinds"]:
        """In-distribution scores: how well each image shows the keypoints of every kind that was trained on.

        A keypoint's score is the highest cosine similarity with its centre anywhere in the image, half by the
        tuned descriptors, whose similarity counts by presence, and half by the plain ones. A kind's score is
        the mean over its keypoints, about 0.75 for images like those that the network was trained on.

        The arguments are unit tuned descriptors, probabilities, and unit descriptors of the plain extractor.
        """
        tuned_best = (_cosines(self.centres, descriptors) * presence).flatten(2).amax(dim=2)
        plain_best = _cosines(self.plain_centres, plain).flatten(2).amax(dim=2)
        best = (tuned_best + plain_best) / 2
        if not self.shape.keypoints:
            return best
        return torch.stack([each.mean(dim=1) for each in best.split(self.shape.keypoints, dim=1)], dim=1)

    def _laterals(self, pixels: Tensor, early: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Maps of strides 4, 8, 16 and 32, all of the decoder's width."""
        x, taken = early(self.stem(pixels.contiguous(memory_format=torch.channels_last))), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == min(_TAKEN):
                x = early(x)
            if index in _TAKEN:
                taken.append(self.lateral[str(index)](x))
        return taken

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
        share: of the tuned descriptors in the similarity, for images of what the network was trained on; the
            rest are the plain ones'.
        familiar: for each kind that was trained on, the score (`TunedNetwork.in_distribution`) at which an
            image gets half the share. Images that score lower for every kind, as other objects do, get the
            plain descriptors. When not given, as measured for the weights (``info["familiar"]``); when
            empty, all images get the share.
        grid: cells a side of the map.
    """

    weights: str = "lite"
    share: float = 0.7
    familiar: tuple[float, ...] | None = None
    grid: int = GRID

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InputError(f"share must be 0 (plain alone) to 1 (tuned alone), got {self.share}")
        if not all(0 <= each <= 1 for each in self.familiar or ()):
            raise InputError(f"familiar must be 0 to 1 for each kind, got {self.familiar}")
        if not 1 <= self.grid <= CANVAS:
            raise InputError(f"the grid must have 1 to {CANVAS} cells a side, got {self.grid}")


class Tuned(Extractor):
    """Tuned and plain descriptors on one map, whose cosine similarity mixes those of both by their shares."""

    familiar: Tensor

    def __init__(
        self, name: str, settings: TunedSettings, network: TunedNetwork, plain: EfficientNetLite
    ) -> None:
        channels = network.shape.descriptor + plain.layout.channels
        measured = settings.familiar is None
        if measured:
            settings = replace(settings, familiar=tuple(network.info.get("familiar", ())))
        unnamed = measured and settings.familiar == _UNNAMED
        described = describe(name, replace(settings, familiar=None) if unnamed else settings)
        identity = f"{described} {network.weights_hash()[:16]}"
        super().__init__(name, identity, Layout(CANVAS, settings.grid, channels, MEAN, STD))
        self.settings = settings
        kinds = len(network.shape.keypoints)
        if settings.familiar and len(settings.familiar) != kinds:
            raise InputError(
                f"familiar needs a value for each of the {kinds} kinds of object that the network was "
                f"trained on, got {settings.familiar}"
            )
        thresholds = torch.tensor(settings.familiar, dtype=torch.float32)
        # Thresholds that come with the weights are part of their hash, which is of what is persistent.
        self.register_buffer("familiar", thresholds, persistent=measured and not unnamed)
        self.network = network.folded()
        self.plain = plain

    @classmethod
    def load(cls, name: str, **settings: Any) -> Tuned:
        """Load by table name; the settings are those of `TunedSettings`."""
        chosen = make_settings(TunedSettings, name, settings)
        network = TunedNetwork.from_pretrained(chosen.weights)
        return cls(name, chosen, network, EfficientNetLite.load("efficientnet-lite0"))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Tuned descriptors, presence (a probability), then the plain extractor's raw maps."""
        descriptors, presence = self.network(pixels)
        return descriptors, presence.sigmoid(), *self.plain.levels(pixels)

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors: the tuned ones by the root of their share, the plain ones by that of the rest."""
        tuned, presence, *raw = levels
        plain = self.plain.combine(raw, self.settings.grid)
        share = self.shares(tuned, presence, plain).view(-1, 1, 1, 1)
        side = grid or self.settings.grid
        if side != self.settings.grid:
            plain = self.plain.combine(raw, side)
        return torch.cat(
            [share.sqrt() * F.normalize(resized(tuned, side), dim=1), (1 - share).sqrt() * plain], dim=1
        )

    def shares(
        self,
        descriptors: Float[Tensor, "b d g g"],
        presence: Float[Tensor, "b 1 g g"],
        plain: Float[Tensor, "b c q q"],
    ) -> Float[Tensor, " b"]:
        """Share of the tuned descriptors on each image; ``plain`` are on the grid of the settings."""
        if not len(self.familiar):
            return descriptors.new_full((len(descriptors),), self.settings.share)
        beyond = self.network.in_distribution(descriptors, presence, plain) - self.familiar
        return self.settings.share * torch.sigmoid(_STEEP * beyond).amax(dim=1)


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


def _cosines(
    centres: Float[Tensor, "k d"], descriptors: Float[Tensor, "b d g g"]
) -> Float[Tensor, "b k g g"]:
    """Cosine similarity of every cell's unit descriptor with every centre."""
    return torch.einsum("kd,bdhw->bkhw", F.normalize(centres.to(descriptors), dim=1), descriptors)


def _normed(incoming: int, outgoing: int, side: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(incoming, outgoing, side, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing))


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")
