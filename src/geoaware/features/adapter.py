"""Adapters: what `geoaware tune` changed in a transformer, laid on the same network again when it is loaded.

An adapter holds low-rank updates of linear layers (LoRA, Hu et al. 2021, section 4.1), or new weights of the
last blocks. Both are merged into the network's own weights, so the extractor stays what it was: its settings,
raw maps, fusions and post-processors, and the time that it takes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from geoaware.features.extractor import Extractor
from geoaware.runs.errors import InputError, reason
from geoaware.runs.settings import checked
from geoaware.runs.weights import (
    CONFIG,
    WEIGHTS,
    card,
    digest,
    read_config,
    read_safetensors,
    write_folder,
)

FORMAT = "geoaware adapter 1"

DOWN, UP = ".lora_A", ".lora_B"
"""Ends of the names of the two factors of an update; what comes before is the name of the layer."""

_ORIGIN = "a folder that geoaware tune wrote for this extractor"

Kind = TypeVar("Kind", bound=Extractor)


@dataclass(frozen=True)
class AdapterShape:
    """What an adapter is for, and how its updates are scaled.

    Attributes:
        backbone: name of the extractor that it was trained on.
        base: first 16 digits of the SHA-256 of that extractor's own weights.
        rank: of the updates; 0 where whole weights are replaced.
        alpha: an update is (alpha / rank) B A.
    """

    backbone: str
    base: str
    rank: int = 0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 0 or not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"rank must not be negative, alpha must be positive, got {self}")

    @property
    def scale(self) -> float:
        """Factor of the updates."""
        return self.alpha / max(1, self.rank)


@dataclass(frozen=True)
class Adapter:
    """Trained tensors of one extractor.

    Attributes:
        shape: what they are for.
        tensors: the factors ``LAYER.lora_A`` (rank, in) and ``LAYER.lora_B`` (out, rank) of updates, or new
            values of parameters, by the names that these have in the extractor.
        info: where they come from.
    """

    shape: AdapterShape
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any]

    def save_pretrained(self, folder: Path) -> Path:
        """Write ``model.safetensors``, ``config.json`` and the card ``README.md``, each whole or not at all.

        Raises:
            InputError: the folder cannot be written to.
        """
        shape, count = asdict(self.shape), sum(each.numel() for each in self.tensors.values())
        config = {"format": FORMAT, "shape": shape, "info": self.info}
        return write_folder(folder, config, self.tensors, card("adapter", count, shape, self.info))

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str]) -> Adapter:
        """What `save_pretrained` wrote.

        Raises:
            InputError: nothing is there, or it is damaged or of another format.
        """
        path = Path(place) / CONFIG
        values, info = read_config(path, FORMAT, "shape", AdapterShape, _ORIGIN)
        try:
            shape = AdapterShape(**checked(AdapterShape, values, "shape"))
        except (TypeError, InputError) as error:
            raise InputError(
                f"{path}: damaged, is no shape of an adapter ({reason(error)}); copy it anew"
            ) from None
        return cls(shape, read_safetensors(Path(place) / WEIGHTS), info)

    @property
    def identity(self) -> str:
        """First 16 digits of the SHA-256 of tensors and scale."""
        return digest([*self.tensors.items(), ("scale", torch.tensor(self.shape.scale))]).hex()[:16]

    @torch.no_grad()
    def merge(self, extractor: Extractor, where: str) -> None:
        """Change the weights of the extractor that this was trained on, in place.

        Raises:
            InputError: it is another one, or the tensors do not fit it; the message begins with ``where``.
        """
        if self.shape.base != extractor.weights_hash()[:16]:
            raise InputError(
                f"{where}: was trained on {self.shape.backbone}, with other weights or blocks than "
                f"{extractor.name} has here; give the extractor, weights and settings of the training"
            )
        parameters = dict(extractor.named_parameters())
        for name, tensor in self.tensors.items():
            layer = name.removesuffix(DOWN).removesuffix(UP)
            target = parameters.get(name if layer == name else f"{layer}.weight")
            if target is None or not self._fits(layer, name, target.shape):
                raise InputError(f"{where}: {name} fits no parameter of {extractor.name}; copy it anew")
            if layer == name:
                target.copy_(tensor)
            elif name.endswith(DOWN):
                target.add_(self.shape.scale * self.tensors[layer + UP].float() @ tensor.float())

    def _fits(self, layer: str, name: str, shape: torch.Size) -> bool:
        """Whether a tensor, or with its other factor the update of a layer, is of this shape."""
        if layer == name:
            return self.tensors[name].shape == shape
        down, up = (self.tensors.get(layer + factor, torch.empty(0)).shape for factor in (DOWN, UP))
        rank = self.shape.rank
        return len(shape) == 2 and (*up, *down) == (shape[0], rank, rank, shape[1])


def with_adapter(extractor: Kind, place: str | None) -> Kind:
    """The extractor with an adapter merged into it, or as it is without one.

    Its identity then names the adapter by the hash of its weights, wherever it lies.

    Raises:
        InputError: no adapter is there, it is damaged, or it was trained on another extractor.
    """
    if place is not None:
        adapter = Adapter.from_pretrained(place)
        adapter.merge(extractor, place)
        extractor.identity += f" + adapter {adapter.identity}"
    return extractor
