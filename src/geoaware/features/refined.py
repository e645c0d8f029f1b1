"""A post-processor at work behind its extractor, alone or blended with the extractor's own descriptors.

Refined descriptors tell left from right on the objects that they were trained on; the extractor's own carry
over to any object. Blending matches both at once: unit descriptors, scaled by the roots of their shares and
concatenated, have as their cosine similarity the mean of the two cosines, weighted by the shares. So nothing
that compares descriptors needs to know of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geoaware.features.extractor import Extractor, Provenance, Wrapped
from geoaware.method.maps import resized
from geoaware.method.post_processor import SHIPPED, PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import shipped_in

_RELEASED = (".pth", ".pt")

_log = logging.getLogger(__name__)


class RefinedExtractor(Wrapped):
    """An extractor whose descriptors are refined by a post-processor, alone or blended with its own.

    It stands wherever an extractor is taken, under the extractor's name.

    Args:
        extractor: gives the raw maps.
        network: with its weights as they are now. It is moved to the extractor's device and put in
            evaluation mode.
        blend: share of the refined descriptors in the similarity, above 0 and at most 1; 1: they alone.

    Attributes:
        weights: SHA-256 of the post-processor's weights.
        identity: extractor, weights and blend; maps of different ones cannot be matched.

    Raises:
        InputError: the post-processor is for another extractor, or the blend is out of range.
    """

    def __init__(self, extractor: Extractor, network: PostProcessor, blend: float = 1.0) -> None:
        if not 0 < blend <= 1:
            raise InputError(f"the blend must be 0 (no post-processor) to 1 (it alone), got {blend}", "blend")
        network.check_trained_on(extractor.identity)
        plain, settings = extractor.layout, network.settings
        # Released weights do not name their extractor. An extractor's raw maps have together as many channels
        # as its descriptors; which map has how many is only known once there is an image.
        wanted, released = sum(settings.channels), not network.info.get("extractor")
        if released and wanted != plain.channels:
            raise InputError(
                f"the post-processor takes raw maps of {wanted} channels in all, {extractor.name} gives "
                f"{plain.channels}; use the extractor that it was trained with"
            )
        if released and any(getattr(each, "captioner", each) is None for each in extractor.modules()):
            _log.warning(
                "%s has no captioner (captioner=none), which released weights were trained with; "
                "without it the maps differ by 10 to 13 %%",
                extractor.name,
            )
        identity = f"{extractor.identity} + {network.identity}"
        grid, channels = settings.grid, settings.width
        if blend < 1:
            identity += f" (blend {float(blend)})"
            grid, channels = max(grid, plain.grid), channels + plain.channels
        super().__init__(extractor, identity, replace(plain, grid=grid, channels=channels))
        self.blend = float(blend)
        self.weights = network.weights_hash()  # before it moves, after which it would be hashed anew
        self.network = network.to(extractor.device).eval()

    @property
    def post_processor(self) -> PostProcessor:
        """The network."""
        return self.network

    def provenance(self) -> Provenance:
        """As the extractor's, with the blend and the hash of the post-processor."""
        plain, hashes = self.extractor.provenance(), {"post_processor": self.weights}
        return Provenance({**plain.settings, "blend": self.blend}, {**plain.hashes, **hashes})

    def feature_map(self, levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int]) -> FeatureMap:
        """An image's refined map; the raw maps are let go, since nothing refines it again."""
        return replace(super().feature_map(levels, size), levels=())

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Refined descriptors, or refined and plain ones side by side."""
        refined, side = self.network([level.float() for level in levels]), grid or self.layout.grid
        if self.blend == 1:
            return resized(refined, side)
        plain = self.extractor.combine(levels).contiguous(memory_format=torch.channels_last)
        return blended(refined, plain, self.blend, side)


def refine(
    extractor: Extractor, network: PostProcessor | None = None, blend: float | None = None
) -> Extractor:
    """The extractor refined by a network, or the extractor itself without one or with a blend of 0.

    Raises:
        InputError: a blend without a post-processor; otherwise as `RefinedExtractor`.
    """
    if network is None and blend:
        raise InputError(f"a blend of {blend} needs a post-processor; give one", "post_processor")
    if network is None or blend == 0:
        return extractor
    return RefinedExtractor(extractor, network, 1.0 if blend is None else blend)


def blended(
    refined: Float[Tensor, "b c p p"], plain: Float[Tensor, "b d q q"], blend: float, grid: int | None = None
) -> Float[Tensor, "b _ _ _"]:
    """One map whose cosine similarities are ``blend`` times the refined plus ``1 - blend`` times the plain.

    Both are first brought bilinearly to ``grid`` cells a side, the finer grid of the two when not given.
    Channels last; with a blend of 1 the refined map as it is, not normalised.
    """
    if blend == 1:
        return refined.contiguous(memory_format=torch.channels_last)
    side = grid or max(refined.shape[-1], plain.shape[-1])
    parts = [
        share**0.5 * F.normalize(resized(each, side), dim=1)
        for each, share in ((refined, blend), (plain, 1 - blend))
    ]
    return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)


def load_post_processor(place: str | os.PathLike[str]) -> PostProcessor:
    """A post-processor from a checkpoint as released (``.PTH``, ``.pth``, ``.pt``) or a saved one.

    Args:
        place: a released file, or whatever `PostProcessor.from_pretrained` takes: a folder, the name of a
            shipped one, a hub id.

    Raises:
        InputError: nothing is there, or it is no post-processor.
    """
    path = Path(place)
    if path.suffix.lower() in _RELEASED and not path.is_dir():
        return PostProcessor.from_released(path)
    return PostProcessor.from_pretrained(place)


def shipped() -> dict[str, Path]:
    """Folders of the post-processors that come with the package, by name."""
    return shipped_in(SHIPPED)
