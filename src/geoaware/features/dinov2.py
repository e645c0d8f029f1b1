"""DINOv2 (Oquab et al. 2023) through `transformers`: tokens or an attention facet of any block.

The paper's recipe (section 3.1): ViT-B/14 on an 840 canvas, patch tokens after the last block, before
the final LayerNorm, 768 x 60 x 60.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.adapter import with_adapter
from geoaware.features.extractor import Layout, describe, make_settings
from geoaware.features.patches import Facet, PatchNetwork, cells, tap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import Source, load_network

Positions = Literal["original", "transformers"]


@dataclass(frozen=True)
class Dinov2Settings:
    """Settings of `Dinov2`.

    Attributes:
        weights: local folder or hub id; the usual hub id of the name when not given.
        revision: of the hub repository.
        canvas: side of the square image, a multiple of the patch size (14).
        block: index of the transformer block, negative from the end.
        facet: the block's output (``token``), or its attention's ``key``, ``query`` or ``value``.
        positions: how position embeddings are brought to the canvas: as DINOv2's own code does it (see
            `original_positions`), or as `transformers` does. With registers, and on the canvas that the
            network was trained on, both are the same.
        adapter: folder that ``geoaware tune`` wrote for this network.
    """

    weights: str | None = None
    revision: str | None = None
    canvas: int = 840
    block: int = -1
    facet: Facet = "token"
    positions: Positions = "original"
    adapter: str | None = None


class Dinov2(PatchNetwork):
    """A DINOv2 network cut after the block that is asked for."""

    def __init__(self, name: str, settings: Dinov2Settings, model: Any) -> None:
        config = model.config
        grid = cells(settings.canvas, config.patch_size)
        layers = model.encoder.layer
        if not -len(layers) <= settings.block < len(layers):
            raise InputError(f"block {settings.block} does not exist: {name} has blocks 0…{len(layers) - 1}")
        registers: int = getattr(config, "num_register_tokens", 0)
        placed = settings.positions == "original" and not registers
        # What the library does was all there was before this setting: its features keep their name.
        identity = describe(name, settings, "adapter", *([] if placed else ["positions"]))
        super().__init__(name, identity, Layout(settings.canvas, grid, config.hidden_size))
        self.model = model
        if placed:
            # The trained ones stay: the hash of the weights must not depend on how a machine rounds.
            trained: Any = model.embeddings.position_embeddings
            del model.embeddings.position_embeddings
            model.embeddings.register_parameter("trained_positions", trained)
            self._placed(grid)
        # What comes after the block is never needed: the later blocks do not run, nor does their memory stay.
        model.encoder.layer = layers[: settings.block % len(layers) + 1]
        self._extra_tokens = 1 + registers
        self._tapped = tap(model.encoder.layer[-1], settings.facet)

    @classmethod
    def load(cls, name: str, **settings: Any) -> Dinov2:
        """Load by table name; the settings are those of `Dinov2Settings`."""
        import transformers

        chosen = make_settings(Dinov2Settings, name, settings)
        _, size, *registers = name.split("-")
        hub_id = f"facebook/dinov2{'-with-registers' if registers else ''}-{size}"
        kind: Any = transformers.Dinov2WithRegistersModel if registers else transformers.Dinov2Model
        source = Source(name, chosen.weights or hub_id, hub_id, chosen.revision)
        return with_adapter(cls(name, chosen, load_network(kind, source)), chosen.adapter)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks that run, in their order."""
        blocks: nn.ModuleList = self.model.encoder.layer
        return blocks

    def _placed(self, grid: int) -> None:
        """Give the network position embeddings of a grid, if it takes them as they are."""
        embeddings = self.model.embeddings
        if hasattr(embeddings, "trained_positions"):
            placed = original_positions(embeddings.trained_positions.detach(), grid)
            embeddings.register_buffer("position_embeddings", placed, False)

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Patch features of the block and facet; class and register tokens are dropped."""
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        handle = self._tapped.register_forward_hook(catch)
        try:
            self.model(pixels)
        finally:
            handle.remove()
        tokens = caught[0][:, self._extra_tokens :]
        grid = self.layout.grid
        return (tokens.transpose(1, 2).unflatten(2, (grid, grid)),)


def original_positions(trained: Float[Tensor, "1 m d"], grid: int) -> Float[Tensor, "1 n d"]:
    """Position embeddings for ``grid`` patches a side, interpolated as DINOv2's own code does it.

    Bicubically, without antialiasing. The trained lattice of P patches is scaled by (grid + 0.1) / P, not by
    grid / P: patch i, counted from 0, is read at (i + 0.5) P / (grid + 0.1) - 0.5. The class token's is kept.
    """
    side = math.isqrt(trained.shape[1] - 1)
    if side == grid:
        return trained
    lattice = trained[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    placed = F.interpolate(lattice, scale_factor=(grid + 0.1) / side, mode="bicubic")
    return torch.cat([trained[:, :1], placed.flatten(2).transpose(1, 2).to(trained.dtype)], dim=1)
