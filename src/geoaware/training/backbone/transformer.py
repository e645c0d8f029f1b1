"""A transformer as the backbone of a run: LoRA through `peft`, or its last blocks, with the same objective.

There is no head: the network's own patch tokens are trained, as by GECO (Hartwig et al. 2025), which adapts
DINOv2 by LoRA and adds no weights either. So descriptors begin as good as zero-shot ones, keep their
channels, and go wherever those of the plain network go: into fusions, and to post-processors.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.data.sampling import permutation
from geoaware.features import load_extractor
from geoaware.features.adapter import Adapter, AdapterShape
from geoaware.features.patches import PatchNetwork
from geoaware.runs.errors import InputError
from geoaware.runs.optional import require
from geoaware.training.backbone.config import EMBEDDED, Lora, TuneConfig
from geoaware.training.backbone.kinds import Kind


class AdaptedNetwork(nn.Module):
    """A transformer of which some parameters are trained; its state is these alone.

    Args:
        extractor: on the canvas of the views; those of its parameters are trained that require a gradient.
        shape: of the adapter that comes out.
    """

    def __init__(self, extractor: PatchNetwork, shape: AdapterShape) -> None:
        super().__init__()
        self.extractor = extractor
        self.shape = shape
        self.info: dict[str, Any] = {}
        self.trained = frozenset(name for name, each in self.named_parameters() if each.requires_grad)
        self.register_state_dict_post_hook(_drop_frozen)

    def forward(self, pixels: Float[Tensor, "n 3 s s"]) -> tuple[Float[Tensor, "n d g g"]]:
        """Unit descriptors of normalised pixels."""
        (tokens,) = self.extractor.levels(pixels)
        return (F.normalize(tokens.float(), dim=1),)

    def save_pretrained(self, folder: Path) -> None:
        """Write the adapter: what was trained, by the names that it has in the plain extractor."""
        tensors = {_plain_name(name): each for name, each in self.state_dict().items()}
        Adapter(self.shape, tensors, self.info).save_pretrained(folder)

    @torch.no_grad()
    def start_from(self, place: str) -> None:
        """Go on from an adapter of the same shape.

        Raises:
            InputError: it is not there, or of another shape.
        """
        found, own = Adapter.from_pretrained(place), self.state_dict()
        shapes = {_plain_name(name): each.shape for name, each in own.items()}
        if found.shape != self.shape or shapes != {name: each.shape for name, each in found.tensors.items()}:
            raise InputError(
                f"{place}: has {found.shape}, the run {self.shape}, or their layers differ; set backbone, "
                "lora and unfreeze accordingly"
            )
        for name, each in own.items():
            each.copy_(found.tensors[_plain_name(name)])


def _drop_frozen(module: Any, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Leave in a state what is trained."""
    kept = {prefix + name for name in module.trained}
    for name in [each for each in state if each.startswith(prefix) and each not in kept]:
        del state[name]


def _plain_name(name: str) -> str:
    """The name of a trained parameter in an adapter."""
    return name.removeprefix("extractor.").removesuffix(".default.weight")


class Transformer(Kind[AdaptedNetwork]):
    """Any extractor whose cells are the patches of a transformer."""

    def __init__(self, config: TuneConfig) -> None:
        found = load_extractor(config.backbone, "cpu", **config.backbone_settings)
        if not isinstance(found, PatchNetwork):
            raise InputError(
                f"backbone: {config.backbone} cannot be trained; choose {EMBEDDED}, dinov2-…, dinov3-… or "
                "hub:ORGANISATION/NAME"
            )
        self.config, self.plain = config, found
        self.stride, self.channels = found.patch, found.layout.channels
        blocks = found.blocks
        if config.unfreeze > len(blocks):
            raise InputError(f"unfreeze: {config.backbone} has {len(blocks)} blocks, got {config.unfreeze}")
        if config.size % self.stride:
            nearest = round(config.size / self.stride) * self.stride
            raise InputError(
                f"size: must be a multiple of {self.stride}, the patch of {config.backbone}, got "
                f"{config.size}; the nearest is {nearest}"
            )
        window, grid = config.validation.window, found.layout.grid
        if window % 2 == 0 and window < grid:
            raise InputError(f"validation.window: must be odd, or the whole map ({grid}), got {window}")
        if config.checkpointing:
            _keep_little(found)

    def make(self) -> AdaptedNetwork:
        """The pretrained network with untrained updates, or what an earlier run made of it."""
        config, found = self.config, self.plain
        shape = AdapterShape(found.name, found.weights_hash()[:16])
        if config.lora is not None:
            _inject(found, config.lora)
            shape = AdapterShape(shape.backbone, shape.base, config.lora.rank, config.lora.alpha)
        for each in found.blocks[len(found.blocks) - config.unfreeze :]:
            each.requires_grad_(True)
        network = AdaptedNetwork(found.on_canvas(config.size), shape)
        if config.start is not None:
            network.start_from(config.start)
        return network

    def shown(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        """Normalised pixels."""
        mean, std = (each.to(pixels.device) for each in (self.plain.mean, self.plain.std))
        return (pixels - mean) / std

    def extractor(self, network: AdaptedNetwork) -> PatchNetwork:
        """The network on the canvas of the settings, or of the extractor where these give none."""
        return network.extractor.on_canvas(self.plain.layout.size).eval()

    def backbone(self, network: AdaptedNetwork) -> Iterable[nn.Parameter]:
        """All: there is nothing else."""
        return network.parameters()

    def begin(self, network: AdaptedNetwork, step: int) -> None:
        """Let updates drop out at random, decided by the step, and blocks be computed again.

        Nothing else is in training mode: some networks would move their position embeddings at random.
        """
        for name, each in network.named_modules():
            if "lora_dropout" in name or getattr(each, "gradient_checkpointing", False):
                each.training = True
        if self.config.lora is not None and self.config.lora.dropout:
            torch.manual_seed(next(permutation(2**63, f"{self.config.seed}/dropout/{step}")))


def _inject(extractor: PatchNetwork, lora: Lora) -> None:
    """Put untrained updates beside the linear layers of the blocks, in place; only they are trained.

    Raises:
        InputError: the blocks have no such layer.
        MissingDependencyError: the extra `train` is not installed.
    """
    peft = require("peft", extra="train")
    inside = {id(each) for block in extractor.blocks for each in block.modules()}
    layers = {
        name: "attention" if "attn" in name or "attention" in name else "mlp"
        for name, each in extractor.model.named_modules()
        if id(each) in inside and isinstance(each, nn.Linear)
    }
    chosen = [name for name, target in layers.items() if target in lora.targets]
    if not chosen:
        raise InputError(f"lora.targets: {extractor.name} has no linear layers of {', '.join(lora.targets)}")
    wanted = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=chosen, **wanted), extractor.model)


def _keep_little(extractor: PatchNetwork) -> None:
    """Let blocks be computed again in the backward pass instead of keeping what is inside them.

    Raises:
        InputError: `transformers` cannot do this with the network.
    """
    # The library renamed it; both names are in use.
    for what in ("activation", "gradient"):
        if enable := getattr(extractor.model, f"{what}_checkpointing_enable", None):
            with suppress(ValueError):
                enable(**{f"{what}_checkpointing_kwargs": {"use_reentrant": False}})
                return
    raise InputError(f"checkpointing: {extractor.name} does not support it; leave it out")
