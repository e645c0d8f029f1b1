"""The embedded backbone taught people and quadrupeds, beside the untaught one: `efficientnet-lite0-tuned`.

A `TunedNetwork` is EfficientNet-Lite0 with a small decoder, trained as a whole (`geoaware tune`): its
descriptors tell left from right, and its presence says where something is that it was taught. The extractor
lays them beside the plain descriptors of `EfficientNetLite`, each by its share, as `features.refined` does
for a post-processor. How large the share is depends on the image: nothing is taken where the image shows
none of what was taught. Both descriptors are asked for that: the tuned ones alone take a motorbike for a man.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geoaware.features.efficientnet_lite import (
    MEAN,
    STD,
    EfficientNetLite,
    folded,
    imagenet_network,
)
from geoaware.features.extractor import Extractor, Layout
from geoaware.features.settings import describe, make_settings
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError
from geoaware.runs.weights import (
    CONFIG,
    WEIGHTS,
    digest,
    model_card,
    read_safetensors,
    write_pretrained,
)

FORMAT = "geoaware tuned network 2"

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "tuned"
"""Folder of the weights that come with the package."""

CANVAS = 448
"""Side of the canvas: that of the plain extractor, so that both see the same pixels."""

_TAKEN = {2: 24, 4: 40, 10: 112, 15: 320}
"""Blocks that the decoder reads, the last at strides 4, 8, 16 and 32, with their channels."""

_STEEP = 60.0
"""How fast the share rises with familiarity: from a tenth to nine tenths of it within 0.07."""

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
        keypoints: of each kind of object that is taught.
        plain: channels of the plain descriptors.
    """

    descriptor: int = 128
    width: int = 256
    context: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    detail: int = 2
    keypoints: tuple[int, ...] = ()
    plain: int = 1008

    def __post_init__(self) -> None:
        object.__setattr__(self, "context", tuple(self.context))
        object.__setattr__(self, "keypoints", tuple(self.keypoints))
        numbers = (self.descriptor, self.width, self.detail, self.plain, *self.context, *self.keypoints)
        if not all(isinstance(each, int) for each in numbers):
            raise InputError(
                f"descriptor, width, detail, plain, dilations and keypoints must be whole numbers, got {self}"
            )
        if (
            min(self.descriptor, self.width, self.plain, *self.context, *self.keypoints) < 1
            or self.width % 4
            or self.detail < 0
        ):
            raise InputError(
                f"descriptor, width (a multiple of 4), plain and dilations must be positive, got {self}"
            )


class TunedNetwork(nn.Module):
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
        info: where the weights come from and what was measured; kept in ``config.json``.
    """

    centres: Tensor
    plain_centres: Tensor

    def __init__(self, shape: TunedShape, backbone: Any) -> None:
        super().__init__()
        self.shape = shape
        self.info: dict[str, Any] = {}
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
        """Unit descriptors, and the logit of being on an object of a kind that was taught.

        Args:
            pixels: normalised canvases whose side is a multiple of 32.
            early: what is done to the maps of strides 2 and 4, in training.
        """
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        fine, eighth, sixteenth, last = self._laterals(pixels, early or (lambda maps: maps))
        x = F.relu(sixteenth + _enlarged(last))
        for block in self.context:
            x = block(x)
        x = F.relu(_enlarged(x) + eighth + F.avg_pool2d(fine, 2))
        for block in self.detail:
            x = block(x)
        found = self.out(x).float()
        return F.normalize(found[:, :-1], dim=1), found[:, -1:]

    def familiarity(
        self,
        descriptors: Float[Tensor, "b d g g"],
        presence: Float[Tensor, "b 1 g g"],
        plain: Float[Tensor, "b c q q"],
    ) -> Float[Tensor, "b kinds"]:
        """How well each image shows the keypoints of every kind that was taught.

        The mean over a kind's keypoints of the highest cosine similarity with their centre anywhere in the
        image, half by tuned descriptors, whose similarity counts by presence, half by plain ones: about
        0.75 for images like those trained on.

        Args:
            descriptors: unit, tuned.
            presence: probabilities.
            plain: unit descriptors of the plain extractor.
        """
        tuned_best = (_alike(self.centres, descriptors) * presence).flatten(2).amax(dim=2)
        plain_best = _alike(self.plain_centres, plain).flatten(2).amax(dim=2)
        best = (tuned_best + plain_best) / 2
        if not self.shape.keypoints:
            return best
        kinds = best.split(self.shape.keypoints, dim=1)
        return torch.stack([each.mean(dim=1) for each in kinds], dim=1)

    def _laterals(self, pixels: Tensor, early: Callable[[Tensor], Tensor]) -> list[Tensor]:
        x, taken = early(self.stem(pixels)), []
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
        network._fold()
        return network

    def _fold(self) -> None:
        _fold_pairs(self)
        for block in self.blocks:
            folded(block)

    def weights_hash(self) -> str:
        """SHA-256 of weights and shape."""
        shape = torch.tensor(list(repr(self.shape).encode()))
        return digest([*self.state_dict().items(), ("shape", shape)]).hex()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``model.safetensors`` (convolutions in half precision), ``config.json`` and ``README.md``.

        Raises:
            InputError: the folder cannot be written to.
        """
        state = {
            name: value.half() if value.ndim == 4 else value
            for name, value in self.state_dict().items()
            if value.is_floating_point()
        }
        config = {"format": FORMAT, "shape": asdict(self.shape), "info": self.info}
        return write_pretrained(folder, state, config, self.card())

    def card(self) -> str:
        """The model card: everything in `info`, a section each."""
        shape = ", ".join(f"{key} {value}" for key, value in asdict(self.shape).items())
        count = sum(each.numel() for each in self.parameters())
        return model_card("Tuned network for geoaware", f"{count:,} parameters: {shape}.", self.info)

    @classmethod
    def from_imagenet(cls, shape: TunedShape) -> TunedNetwork:
        """ImageNet's weights under an untrained decoder.

        Raises:
            MissingDependencyError: the packages of the network and its weights are not installed.
        """
        return cls(shape, imagenet_network())

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str]) -> TunedNetwork:
        """Weights that come with the package (by name), or of a folder that `save_pretrained` wrote.

        Raises:
            InputError: nothing is there, or it is damaged or of another format.
            MissingDependencyError: the package of the network is not installed.
        """
        folder = Path(place)
        if not folder.is_dir() and (SHIPPED / str(place) / CONFIG).is_file():
            folder = SHIPPED / str(place)
        shape, info = _read_config(folder / CONFIG)
        network = cls(shape, imagenet_network(weights=False))
        state = {name: value.float() for name, value in read_safetensors(folder / WEIGHTS).items()}
        wanted = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        wrong = sorted(
            name
            for name in {**wanted, **state}
            if name not in wanted or name not in state or wanted[name].shape != state[name].shape
        )
        if wrong:
            raise InputError(
                f"{folder / WEIGHTS}: is not of the network in its {CONFIG} ({wrong[0]} is missing, unknown "
                "or of another shape); copy the folder anew"
            )
        network.load_state_dict(state, strict=False)
        network.info = info
        return network.eval()


@dataclass(frozen=True)
class TunedSettings:
    """Settings of `Tuned`.

    Attributes:
        weights: name of weights that come with the package, or a folder that ``geoaware tune`` wrote.
        share: of the tuned descriptors in the similarity, for images of what was taught; the rest are the
            plain ones'.
        familiar: for each kind that was taught, the `TunedNetwork.familiarity` at which an image gets
            half the share. Below all of them, as with objects that were not taught, descriptors are the
            plain ones. When not given, as measured for the weights (``info["familiar"]``); empty: all get the
            share.
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
        identity = f"{describe(name, settings)} {network.weights_hash()[:16]}"
        super().__init__(name, identity, Layout(CANVAS, settings.grid, channels, MEAN, STD))
        self.settings = settings
        familiar = settings.familiar if settings.familiar is not None else network.info.get("familiar", ())
        if familiar and len(familiar) != len(network.shape.keypoints):
            raise InputError(
                f"familiar needs a value for each of the {len(network.shape.keypoints)} kinds of object that "
                f"were taught, got {tuple(familiar)}"
            )
        self.register_buffer("familiar", torch.tensor(familiar, dtype=torch.float32), persistent=False)
        self.network = network.folded()
        self.plain = plain

    @classmethod
    def load(cls, name: str, **settings: Any) -> Tuned:
        """Load by table name; see `TunedSettings` for the settings.

        Raises:
            InputError: the weights are not there or damaged.
            MissingDependencyError: the packages of the network and its weights are not installed.
        """
        chosen = make_settings(TunedSettings, name, settings)
        network = TunedNetwork.from_pretrained(chosen.weights)
        return cls(name, chosen, network, EfficientNetLite.load("efficientnet-lite0"))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Tuned descriptors, presence (a probability), then the plain extractor's raw maps."""
        descriptors, presence = self.network(pixels)
        return descriptors, presence.sigmoid(), *self.plain.levels(pixels)

    def combine(self, levels: Sequence[Tensor]) -> Float[Tensor, "b c p p"]:
        """Unit descriptors: tuned by the root of their share, plain by the root of the rest."""
        return self.combine_on(levels, self.settings.grid)

    def combine_on(self, levels: Sequence[Tensor], grid: int) -> Float[Tensor, "b c q q"]:
        """Likewise on a grid of another number of cells."""
        tuned, presence, *raw = levels
        plain = self.plain.combine_on(raw, self.settings.grid)
        share = self.shares(tuned, presence, plain).view(-1, 1, 1, 1)
        if grid != self.settings.grid:
            plain = self.plain.combine_on(raw, grid)
        return torch.cat(
            [share.sqrt() * F.normalize(resized(tuned, grid), dim=1), (1 - share).sqrt() * plain], dim=1
        )

    def shares(
        self,
        descriptors: Float[Tensor, "b d g g"],
        presence: Float[Tensor, "b 1 g g"],
        plain: Float[Tensor, "b c q q"],
    ) -> Float[Tensor, " b"]:
        """Share of the tuned descriptors on each image.

        Args:
            descriptors: unit, tuned.
            presence: probabilities.
            plain: unit descriptors of the plain extractor, on the grid of the settings.
        """
        if not len(self.familiar):
            return descriptors.new_full((len(descriptors),), self.settings.share)
        beyond = self.network.familiarity(descriptors, presence, plain) - self.familiar
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


def _alike(centres: Float[Tensor, "k d"], descriptors: Float[Tensor, "b d g g"]) -> Float[Tensor, "b k g g"]:
    """Cosine similarity of every cell's unit descriptor with every centre."""
    return torch.einsum("kd,bdhw->bkhw", F.normalize(centres.to(descriptors), dim=1), descriptors)


def _normed(incoming: int, outgoing: int, side: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(incoming, outgoing, side, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing))


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def _fold_pairs(module: nn.Module) -> None:
    """Fold batch normalisations that follow a convolution in a `Sequential`, wherever one is."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        for place in range(len(child) - 1):
            first, second = child[place], child[place + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                child[place], child[place + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def _read_config(path: Path) -> tuple[TunedShape, dict[str, Any]]:
    """Shape and info.

    Raises:
        InputError: no such file, or none of a tuned network.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(each.parent.name for each in SHIPPED.glob(f"*/{CONFIG}")))
        raise InputError(
            f"{path}: no such file; give a folder written by geoaware tune, or weights that are shipped: "
            f"{shipped or 'none'}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the folder anew") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: is not the config of a {FORMAT}; give a folder written by geoaware tune")
    known = {each.name for each in fields(TunedShape)}
    shape, info = config.get("shape"), config.get("info")
    if not isinstance(shape, dict) or not isinstance(info, dict) or set(shape) - known:
        raise InputError(f"{path}: damaged, or of a newer geoaware; copy the folder anew")
    values: dict[str, Any] = {
        key: tuple(each) if isinstance(each, list) else each for key, each in shape.items()
    }
    try:
        return TunedShape(**values), info
    except (TypeError, InputError) as error:
        raise InputError(
            f"{path}: damaged, its shape is of no network ({error}); copy the folder anew"
        ) from None
