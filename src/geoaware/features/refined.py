"""A post-processor at work behind its extractor, alone or blended with the extractor's own descriptors.

Refined descriptors tell left from right on the objects that they were trained on; the extractor's own carry
over to any object. Blending matches both at once: unit descriptors, scaled by the roots of their shares and
concatenated, have as their cosine similarity the mean of the two cosines, weighted by the shares. So nothing
that compares descriptors needs to know of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.features.extractor import Extractor, Layout, Provenance
from geoaware.method.maps import resized
from geoaware.method.post_processor import SHIPPED, PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import shipped_in

_RELEASED = (".pth", ".pt")


class RefinedExtractor(Extractor):
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
        check_fit(network, extractor)
        # Hashed once: to ask the network for its hash with every image would compute it every time.
        weights = network.weights_hash()
        identity = f"{extractor.identity} + post-processor {weights[:16]}"
        identity += f" (blend {float(blend)})" if blend < 1 else ""
        super().__init__(extractor.name, identity, _layout(extractor.layout, network, blend))
        self.extractor = extractor
        self.network = network.to(extractor.device).eval()
        self.blend = float(blend)
        self.weights = weights
        self.stored = extractor.stored

    @property
    def post_processor(self) -> PostProcessor:
        """The network."""
        return self.network

    @property
    def device(self) -> torch.device:
        """Of the extractor inside."""
        return self.extractor.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the extractor inside; the post-processor computes in float32."""
        return self.extractor.dtype

    def limit_memory(self, size: int) -> None:
        """Of the extractor inside; the post-processor is small beside it."""
        self.extractor.limit_memory(size)

    def weights_hash(self) -> str:
        """Of the extractor inside; the post-processor's is `weights`."""
        return self.extractor.weights_hash()

    def provenance(self) -> Provenance:
        """As the extractor's, with the blend and the hash of the post-processor."""
        plain = self.extractor.provenance()
        return Provenance(
            {**plain.settings, "blend": self.blend}, {**plain.hashes, "post_processor": self.weights}
        )

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Raw maps of the extractor inside."""
        return self.extractor.levels(pixels)

    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Raw maps of the extractor inside, which may read them from disk."""
        return self.extractor.levels_of(images)

    def feature_map(self, levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int]) -> FeatureMap:
        """An image's refined map; the raw maps are let go, since nothing refines it again."""
        return replace(super().feature_map(levels, size), levels=())

    def combine(self, levels: Sequence[Tensor]) -> Float[Tensor, "b c p p"]:
        """Refined descriptors, or refined and plain ones side by side."""
        return self.combine_on(levels, self.layout.grid)

    def combine_on(self, levels: Sequence[Tensor], grid: int) -> Float[Tensor, "b c q q"]:
        """Likewise on a grid of another number of cells."""
        refined = self.network([level.float() for level in levels])
        if self.blend == 1:
            return resized(refined, grid)
        plain = self.extractor.combine(levels).contiguous(memory_format=torch.channels_last)
        return blended(refined, plain, self.blend, grid)


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


def _layout(plain: Layout, network: PostProcessor, blend: float) -> Layout:
    """Grid and channels of the maps that are matched."""
    settings = network.settings
    if blend == 1:
        return replace(plain, grid=settings.grid, channels=settings.width)
    return replace(plain, grid=max(settings.grid, plain.grid), channels=settings.width + plain.channels)


def check_fit(network: PostProcessor, extractor: Extractor) -> None:
    """Make sure, as far as can be told without an image, that the network takes the extractor's raw maps.

    Raises:
        InputError: it was trained on other features, or takes another number of channels.
    """
    trained_on = network.info.get("extractor")
    if trained_on == extractor.identity:
        return
    if trained_on is not None:
        raise InputError(
            f"the post-processor was trained on features of {trained_on}, not of {extractor.identity}\n"
            "remedy: use that extractor, match without a post-processor (none), or train one: geoaware train"
        )
    # Released weights do not name their extractor. An extractor's raw maps have together as many channels as
    # its descriptors; which map has how many is only known once there is an image.
    wanted, given = sum(network.settings.channels), extractor.layout.channels
    if wanted != given:
        raise InputError(
            f"the post-processor takes raw maps of {wanted} channels in all, {extractor.name} gives {given}; "
            "use the extractor that it was trained with"
        )
