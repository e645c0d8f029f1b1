"""Any vision network of a hub that `transformers` knows: DINOv3 by name, others as ``hub:ORGANISATION/NAME``.

A network of tokens (ViT) gives the patch tokens of one of its blocks, or an attention facet of it, or the
mean over several; a convolutional network (ConvNeXt) gives the map of one of its stages.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.adapter import with_adapter
from geoaware.features.extractor import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Layout,
    describe,
    make_settings,
)
from geoaware.features.patches import Facet, PatchNetwork, cells, tap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import Source, load_network

PREFIX = "hub:"

DINOV3 = {
    "dinov3-small": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "dinov3-base": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "dinov3-large": "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "dinov3-7b": "facebook/dinov3-vit7b16-pretrain-lvd1689m",
    "dinov3-convnext-tiny": "facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
    "dinov3-convnext-small": "facebook/dinov3-convnext-small-pretrain-lvd1689m",
    "dinov3-convnext-base": "facebook/dinov3-convnext-base-pretrain-lvd1689m",
    "dinov3-convnext-large": "facebook/dinov3-convnext-large-pretrain-lvd1689m",
}
"""Hub ids by the names of the table."""

_GRID = 60
"""Cells a side where no canvas is given; the paper's."""

_STAGE = -2
"""The stage of a convolutional network that is read where none is given: the last but one."""


@dataclass(frozen=True)
class HubSettings:
    """Settings of `HubNetwork`.

    Attributes:
        weights: local folder or hub id; that of the name when not given.
        revision: of the hub repository.
        canvas: side of the square image, a multiple of the patch size (of the stride of the map); 60 cells
            when not given.
        blocks: indices of the transformer blocks whose mean is taken, negative from the end; of a
            convolutional network one stage, the last but one when not given.
        facet: the blocks' outputs (``token``), or their attentions' ``key``, ``query`` or ``value``.
        adapter: folder that ``geoaware tune`` wrote for this network.
    """

    weights: str | None = None
    revision: str | None = None
    canvas: int = 0
    blocks: tuple[int, ...] = ()
    facet: Facet = "token"
    adapter: str | None = None


class HubNetwork(PatchNetwork):
    """A network of a hub, cut after the last block that is asked for."""

    def __init__(
        self,
        name: str,
        settings: HubSettings,
        model: Any,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        stages = getattr(model.config, "depths", None)
        reader = _Stage(name, settings, model) if stages else _Blocks(name, settings, model)
        canvas = settings.canvas or _GRID * reader.stride
        layout = Layout(canvas, cells(canvas, reader.stride), reader.channels, mean, std)
        super().__init__(name, describe(name, settings, "adapter"), layout)
        self.model, self._reader = model, reader

    @classmethod
    def load(cls, name: str, **settings: Any) -> HubNetwork:
        """Load by table name, or as ``hub:ORGANISATION/NAME``; the settings are those of `HubSettings`."""
        import transformers

        chosen = make_settings(HubSettings, name, settings)
        hub_id = DINOV3.get(name, name.removeprefix(PREFIX))
        page = f"https://huggingface.co/{hub_id}" if name in DINOV3 else None
        source = Source(name, chosen.weights or hub_id, hub_id, chosen.revision, licence=page)
        model = load_network(transformers.AutoModel, source)
        # Of a network of images and texts the part that sees is enough.
        model = getattr(model, "vision_model", model)
        mean, std = _normalisation(source)
        return with_adapter(cls(name, chosen, model, mean, std), chosen.adapter)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks that run, in their order."""
        if isinstance(self._reader, _Stage):
            raise InputError(f"{self.name} is convolutional, and has no transformer blocks")
        return _stack(self.model, self.name)[2]

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """The map of the blocks and the facet, or of the stage."""
        return (self._reader.read(self.model, pixels, self.layout.grid),)


class _Blocks:
    """Patch tokens of transformer blocks."""

    def __init__(self, name: str, settings: HubSettings, model: Any) -> None:
        self.stride, self.channels = _patch(model, name), int(model.config.hidden_size)
        parent, attribute, blocks = _stack(model, name)
        chosen = settings.blocks or (-1,)
        for each in chosen:
            if not -len(blocks) <= each < len(blocks):
                raise InputError(
                    f"block {each} does not exist: {name} has blocks 0…{len(blocks) - 1}", "blocks"
                )
        wanted = [each % len(blocks) for each in chosen]
        # What comes after the last block that is read is never needed, nor is its memory.
        setattr(parent, attribute, blocks[: max(wanted) + 1])
        self._tapped = [tap(blocks[each], settings.facet) for each in wanted]
        takes = inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def read(self, model: nn.Module, pixels: Tensor, grid: int) -> Float[Tensor, "b c g g"]:
        with _caught(self._tapped) as found:
            model(pixels, **self._options)
        mean = torch.stack(found).mean(dim=0)
        # Class and register tokens stand before those of the patches.
        return mean[:, mean.shape[1] - grid**2 :].transpose(1, 2).unflatten(2, (grid, grid))


class _Stage:
    """The map of a stage of a convolutional network."""

    def __init__(self, name: str, settings: HubSettings, model: Any) -> None:
        widths = model.config.hidden_sizes
        chosen = settings.blocks or (_STAGE,)
        if len(chosen) != 1 or not -len(widths) <= chosen[0] < len(widths):
            raise InputError(f"{name} has stages 0…{len(widths) - 1}; give one as blocks", "blocks")
        if settings.facet != "token":
            raise InputError(f"{name} has no attention; leave the facet as it is", "facet")
        self._stage = chosen[0] % len(widths)
        self.stride, self.channels = 4 * 2**self._stage, int(widths[self._stage])

    def read(self, model: Any, pixels: Tensor, grid: int) -> Float[Tensor, "b c g g"]:
        found = model(pixels, output_hidden_states=True).hidden_states
        # The first is the image itself, or what its first layer makes of it.
        return found[self._stage - len(model.config.hidden_sizes)]


@contextmanager
def _caught(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What these modules give, in their order, as the network runs."""
    found: dict[int, Tensor] = {}

    def keeper(place: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[place] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [each.register_forward_hook(keeper(place)) for place, each in enumerate(modules)]
    outputs: list[Tensor] = []
    try:
        yield outputs
        outputs += [found[place] for place in range(len(modules))]
    finally:
        for handle in handles:
            handle.remove()


def _stack(model: nn.Module, name: str) -> tuple[nn.Module, str, nn.ModuleList]:
    """The blocks of a transformer, the module that holds them, and their name in it."""
    lists = [(path, each) for path, each in model.named_modules() if isinstance(each, nn.ModuleList)]
    if not lists:
        raise InputError(f"{name}: is no transformer with blocks, nor a convolutional network with stages")
    path, blocks = max(lists, key=lambda each: len(each[1]))
    parent, _, attribute = path.rpartition(".")
    return model.get_submodule(parent), attribute, blocks


def _patch(model: Any, name: str) -> int:
    size = getattr(model.config, "patch_size", None)
    if not isinstance(size, int):
        raise InputError(f"{name}: its configuration has no patch size, so it gives no map of patches")
    return size


def _normalisation(source: Source) -> tuple[Any, Any]:
    """Mean and standard deviation that the network's images were normalised by; ImageNet's if not said."""
    from transformers.utils import cached_file

    try:
        found = cached_file(source.place, "preprocessor_config.json", revision=source.revision)
        content = json.loads(Path(str(found)).read_text(encoding="utf-8"))
        return tuple(content["image_mean"]), tuple(content["image_std"])
    except (OSError, ValueError, LookupError, TypeError):
        return IMAGENET_MEAN, IMAGENET_STD
