"""The light network that makes features geometry-aware: f(.) of the paper, section 4.2.

One residual bottleneck per raw map of the extractor, their outputs mixed by learned weights. A 1 x 1
convolution and a bilinear enlargement commute, so those of a bottleneck that read the raw map run at the
map's own size and their outputs are enlarged: the same result for about a third less work.

Example:
    >>> network = PostProcessor(channels=(8, 16), width=128, grid=6)
    >>> network([torch.zeros(1, 8, 3, 3), torch.zeros(1, 16, 6, 6)]).shape
    torch.Size([1, 128, 6, 6])
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geoaware.method.maps import resized
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError, quoted, reason
from geoaware.runs.weights import (
    FILES,
    LARGEST,
    SavedNetwork,
    digest,
    first_line,
    folder_meant,
    hub_options,
    read_checkpoint,
)

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
"""Folder of the post-processors that come with the package, by name."""

_GROUPS = 32
_INITIAL_SCALE = math.log(1 / 0.07)


@dataclass(frozen=True)
class PostProcessorSettings:
    """What decides the shape of a `PostProcessor`; the defaults are those that the paper trains with.

    Attributes:
        channels: of the raw maps, in the extractor's order; none in the configuration of a training run,
            which takes those of its extractor.
        width: channels of a refined descriptor, a multiple of 128.
        grid: cells a side of the refined map.
        dropout: share of the raw values that are dropped while training.
        context: dilations of further bottlenecks after the mixture, none in the paper. They see far on a
            coarse grid: what tells the sides of a whole body apart.
        centred: whether raw maps are first made unit descriptors and freed of their mean over the image,
            which says what the image is of and how it was taken, not where the parts are. Not in the paper.
    """

    # A configuration of a training run has these settings as a section, which pydantic checks.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    channels: tuple[int, ...] = ()
    width: int = 768
    grid: int = 60
    dropout: float = 0.2
    context: tuple[int, ...] = ()
    centred: bool = False

    def __post_init__(self) -> None:
        counts = (self.width, self.grid, *self.channels, *self.context)
        if not all(type(each) is int for each in counts) or type(self.dropout) not in (int, float):
            raise InputError(
                f"width, grid, channels, context and dropout must be numbers, got {quoted(self)}"
            )
        if max(counts) > LARGEST:
            raise InputError(
                f"width, grid, channels and context can be {LARGEST:,} at most, got {quoted(self)}"
            )
        if self.context and min(self.context) < 1:
            raise InputError(f"context takes dilations of at least 1, got {self.context}")
        if min(self.channels, default=1) < 1:
            raise InputError(f"channels must be positive numbers, one a map, got {self.channels}")
        if self.width < 1 or self.width % (4 * _GROUPS):
            raise InputError(f"the width must be a multiple of {4 * _GROUPS} channels, got {self.width}")
        # A group of one channel in one cell cannot be normalised.
        least = 2 if self.width == 4 * _GROUPS else 1
        if self.grid < least:
            raise InputError(f"the grid must have at least {least} cells a side, got {self.grid}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout}")


class _NormedConv(nn.Conv2d):
    """A convolution without bias, and the group normalisation of its output.

    The two are applied apart (`forward` convolves only), because an enlargement may come between them.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        around = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, padding=around, dilation=dilation, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, outputs)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class _Bottleneck(nn.Module):
    """1 x 1 to a quarter of the width, 3 x 3, 1 x 1 to the width, and the shortcut; ReLU after the sum."""

    def __init__(self, inputs: int, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.shortcut = _NormedConv(inputs, width) if inputs != width else None
        self.conv1 = _NormedConv(inputs, width // 4)
        self.conv2 = _NormedConv(width // 4, width // 4, kernel=3, dilation=dilation)
        self.conv3 = _NormedConv(width // 4, width)

    def forward(
        self, x: Float[Tensor, "b c h w"], grid: int, share: Float[Tensor, ""]
    ) -> Float[Tensor, "b width p p"]:
        """The block's output times its share of the mixture."""
        if x.shape[-1] > grid:
            # A map finer than the grid is reduced first: convolving it as it is would cost more.
            x = resized(x, grid)
        straight = x if self.shortcut is None else self.shortcut(x)
        out = _frugally(_onward, self.conv1, self.conv2, self.conv1(x), grid)
        out = _frugally(_onward, self.conv2, self.conv3, out, grid)
        return _frugally(self._sum, out, straight, grid, share)

    def _sum(self, out: Tensor, straight: Tensor, grid: int, share: Tensor) -> Tensor:
        # A share is positive, so it may go before the ReLU: into the few weights of the normalisations
        # instead of one more pass over the map. In place: a normalisation keeps its input, not its output.
        out, straight = _scaled(self.conv3.norm, out, share), resized(straight, grid)
        if self.shortcut is None:
            return out.add_(straight * share).relu_()
        return out.add_(_scaled(self.shortcut.norm, straight, share)).relu_()


class PostProcessor(SavedNetwork):
    """Refines an extractor's raw maps into descriptors that tell left from right.

    The arguments are those of `PostProcessorSettings`; without dropout unless it is given.

    Attributes:
        settings: the arguments.
        info: what is known of the weights: extractor (the identity that they were trained on), training data,
            figures, licence notes.
        logit_scale: of the sparse loss between images, its logarithm.
        self_logit_scale: kept for released checkpoints, which have one for pairs of an image with itself.

    Raises:
        InputError: the settings make no network.
    """

    noun, format = "post-processor", "geoaware post-processor"
    section, values = "settings", PostProcessorSettings

    def __init__(
        self,
        channels: Sequence[int] = (640, 1280, 1280, 768),
        width: int = 768,
        grid: int = 60,
        dropout: float = 0.0,
        context: Sequence[int] = (),
        centred: bool = False,
    ) -> None:
        super().__init__()
        if not channels:
            raise InputError("channels must be positive numbers, one a map, got none")
        self.settings = PostProcessorSettings(tuple(channels), width, grid, dropout, tuple(context), centred)
        self._hashed: tuple[tuple[tuple[int, int], ...], str] | None = None
        self.bottleneck_layers = nn.ModuleList(nn.Sequential(_Bottleneck(c, width)) for c in channels)
        self.context_layers = nn.ModuleList(_Bottleneck(width, width, dilation) for dilation in context)
        self.mixing_weights = nn.Parameter(torch.ones(len(channels)))
        self.logit_scale = nn.Parameter(torch.tensor(_INITIAL_SCALE))
        self.self_logit_scale = nn.Parameter(torch.tensor(_INITIAL_SCALE))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @overload
    def __call__(self, maps: FeatureMap) -> FeatureMap: ...
    @overload
    def __call__(self, maps: Sequence[Tensor]) -> Tensor: ...
    def __call__(self, maps: Any) -> Any:
        """`forward` of raw maps, or `refine` of an image's feature map."""
        return self.refine(maps) if isinstance(maps, FeatureMap) else super().__call__(maps)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b width grid grid"]:
        """Refined descriptors, not normalised, of raw maps, each at its own size, in the extractor's order.

        Raises:
            InputError: number or channels of the maps are not those of the network.
        """
        found = tuple(level.shape[1] for level in maps)
        if found != self.settings.channels:
            raise InputError(
                f"the post-processor takes maps of {self.settings.channels} channels, got {found}; use the "
                "extractor that it was trained with"
            )
        grid, shares = self.settings.grid, self.mixing_weights.softmax(dim=0)
        blocks: Any = self.bottleneck_layers
        parts = (
            block(self._ready(level), grid, share)
            for (block,), level, share in zip(blocks, maps, shares, strict=True)
        )
        mixed: Tensor = reduce(torch.add, parts)
        for layer in self.context_layers:
            mixed = layer(mixed, grid, mixed.new_ones(()))
        return mixed

    def _ready(self, level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A raw map as a bottleneck takes it."""
        if self.settings.centred:
            level = F.normalize(level, dim=1)
            level = level - level.mean(dim=(2, 3), keepdim=True)
        level = F.dropout(level, self.settings.dropout, self.training)
        return level.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def refine(self, features: FeatureMap) -> FeatureMap:
        """An image's refined feature map on the grid of the network, without dropout; raw maps are let go.

        Raises:
            InputError: the features are of another extractor than the network was trained with, or have no
                raw maps.
        """
        self.check_trained_on(features.extractor)
        if not features.levels:
            raise InputError("these features have no raw maps (levels), which the post-processor needs")
        training = self.training
        try:
            refined = self.eval()([level[None] for level in features.levels])[0]
        finally:
            self.train(training)
        return replace(features, data=refined, extractor=f"{features.extractor} + {self.identity}", levels=())

    def check_trained_on(self, extractor: str) -> None:
        """Refuse features of this identity if the weights say that they were trained on others."""
        wanted = self.info.get("extractor")
        if wanted is not None and extractor != wanted:
            raise InputError(
                f"the post-processor was trained on features of {wanted}, not of {extractor}\n"
                "remedy: use that extractor, match without a post-processor (none), or train another one: "
                "geoaware train"
            )

    @property
    def identity(self) -> str:
        """Name of the weights for headers and messages; other weights have another."""
        return f"post-processor {self.weights_hash()[:16]}"

    def weights_hash(self) -> str:
        """SHA-256 of the weights and the settings: of all that decides the refined maps.

        Computed anew when a weight has changed only: `refine` asks for it with every image.
        """
        weights = tuple(
            (each.data_ptr(), 0 if each.is_inference() else each._version) for each in self.parameters()
        )
        if self._hashed is None or self._hashed[0] != weights:
            settings = torch.tensor(list(repr(replace(self.settings, dropout=0.0)).encode()))
            self._hashed = weights, digest([*self.state_dict().items(), ("settings", settings)]).hex()
        return self._hashed[1]

    @classmethod
    def from_released(cls, path: str | os.PathLike[str], grid: int = 60) -> PostProcessor:
        """A checkpoint as the paper's authors released it: a plain state dict, of which no code is run.

        Raises:
            InputError: the file is missing, is no state dict, or not of this network.
        """
        state = read_checkpoint(Path(path), "a released checkpoint, best_856.PTH say")
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
        ):
            raise InputError(f"{path}: is no state dict (names with tensors); give a released checkpoint")
        count = len({name.split(".")[1] for name in state if name.startswith("bottleneck_layers.")})
        try:
            first = [state[f"bottleneck_layers.{index}.0.conv1.weight"] for index in range(count)]
            width = state["bottleneck_layers.0.0.conv3.weight"].shape[0]
            network = cls([weight.shape[1] for weight in first], width, grid)
        except (KeyError, IndexError, InputError) as error:
            raise InputError(f"{path}: is no checkpoint of a post-processor ({reason(error)})") from None
        network.load_whole(state, path)
        return network.eval()

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str], revision: str | None = None) -> PostProcessor:
        """A post-processor that comes with the package (by name), from a folder, or from the hub.

        Args:
            place: ``"lite-frozen"`` or another name in `SHIPPED`; a folder that `save_pretrained` wrote; a
                hub id. A name in `SHIPPED` wins over a folder of that name, which is given with a separator:
                ``"./lite-frozen"``.
            revision: of the hub repository.

        Raises:
            InputError: nothing is there, or it is damaged or of another format; the message says what to do.
        """
        folder, names = folder_meant(place, SHIPPED)
        origin = f"a folder written by geoaware train, a hub id, or one that is shipped: {names}"
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            options = hub_options()
            try:
                folder = Path(
                    snapshot_download(str(place), revision=revision, allow_patterns=[*FILES], **options)
                )
            except Exception as error:  # the hub's errors have no common class but Exception
                why = "the hub cannot be reached, nothing is in its cache" if options else first_line(error)
                raise InputError(
                    f"no post-processor at {str(place)!r} ({why})\nremedy: give {origin}"
                ) from None
        return cls.from_folder(folder, origin)


def _frugally(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a function without keeping what it computes for the backward pass, which computes it again.

    Only the outputs of convolutions stay in memory while training. A convolution at a function's end is not
    run again, so a step of the paper's network takes 30 % less memory in the same time.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _onward(before: _NormedConv, after: _NormedConv, x: Tensor, grid: int) -> Tensor:
    """From the output of one convolution to that of the next one."""
    return after(F.relu(before.norm(resized(x, grid)), inplace=True))


def _scaled(norm: nn.GroupNorm, x: Tensor, factor: Tensor) -> Tensor:
    return F.group_norm(x, norm.num_groups, norm.weight * factor, norm.bias * factor, norm.eps)
