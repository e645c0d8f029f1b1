"""A post-processor at work behind its extractor, alone or blended with the extractor's own descriptors.

Refined descriptors tell left from right on the objects that they were trained on; the extractor's own carry
over to any object. Blending matches both at once: unit descriptors, scaled by the roots of their shares and
concatenated, have as their cosine similarity the mean of the two cosines, weighted by the shares. So nothing
that compares descriptors needs to know of it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geoaware.features import Extractor
from geoaware.method.post_processor import CONFIG, SHIPPED, PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError

_RELEASED = (".pth", ".pt")


class Refiner:
    """Turns an extractor's feature maps into those that are matched.

    Args:
        network: with its weights as they are now; it is moved to the extractor's device and put in evaluation
            mode.
        extractor: of the features that come in.
        blend: share of the refined descriptors in the similarity, above 0 and at most 1; 1: they alone.

    Attributes:
        network: as given.
        blend: as given.
        weights: SHA-256 of the network's weights.
        identity: extractor, weights and blend; maps of different ones cannot be matched.

    Raises:
        InputError: the post-processor is for another extractor, or the blend is out of range.
    """

    def __init__(self, network: PostProcessor, extractor: Extractor, blend: float = 1.0) -> None:
        if not 0 < blend <= 1:
            raise InputError(f"the blend must be 0 (no post-processor) to 1 (it alone), got {blend}")
        _check_fit(network, extractor)
        self.network = network.to(extractor.device).eval()
        self.blend = float(blend)
        # Hashed once: to ask the network for its identity for every image would hash it every time.
        self.weights = network.weights_hash()
        self.identity = f"{extractor.identity} + post-processor {self.weights[:16]}"
        if self.blend < 1:
            self.identity += f" (blend {self.blend})"
        self._layout = extractor.layout

    @torch.inference_mode()
    def __call__(self, features: FeatureMap) -> FeatureMap:
        """What is matched of an image; the raw maps that it was made of are let go.

        Args:
            features: with their raw maps, as the extractor gives them.

        Raises:
            InputError: the raw maps are not those that the network takes.
        """
        refined = self.network([level[None] for level in features.levels])
        data = blended(refined, features.data[None], self.blend)[0]
        return replace(features, data=data, extractor=self.identity, levels=())

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and grid of the maps that are matched."""
        settings = self.network.settings
        if self.blend == 1:
            return settings.width, settings.grid
        return settings.width + self._layout.channels, max(settings.grid, self._layout.grid)


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
        share**0.5 * F.normalize(_resized(each, side), dim=1)
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
    return {config.parent.name: config.parent for config in sorted(SHIPPED.glob(f"*/{CONFIG}"))}


def _resized(features: Float[Tensor, "b c _ _"], side: int) -> Float[Tensor, "b c p p"]:
    if features.shape[-1] == side:
        return features
    return F.interpolate(features, size=(side, side), mode="bilinear")


def _check_fit(network: PostProcessor, extractor: Extractor) -> None:
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
