"""What is predicted: the subjects that are compared, and the ways in which each is matched.

A *subject* is what the similarity comes from: the extractor's features as they are, or with the
post-processor. A *variant* is a subject with one or two settings changed. `Bench` turns variants into
matchers that share one extractor, and names them so that equal work has equal names, whichever analysis asks
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from geoaware.evaluation.predict import matching_settings
from geoaware.features import Extractor
from geoaware.features.refined import refine
from geoaware.matcher import Matcher
from geoaware.method.alignment import Alignment, PoseRule
from geoaware.method.geometry import Canvas
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.presets import defaults_of
from geoaware.result import Encoded
from geoaware.runs.recent import Recent
from geoaware.store.image_index import hash_pixels

ZERO_SHOT, POST_PROCESSOR, ALONE = "zero-shot", "post-processor", "post-processor alone"
"""Subjects: the plain features; with the post-processor, blended as measured; its features alone."""

PoseChoice = Literal["default", "off", "mutual-nn", "imd", "masks"]
"""As measured for the subject; not at all; by the paper's distances, without a margin: mutual nearest
neighbours, IMD over the whole image, IMD on the source's annotated mask."""

WHOLE = 0
"""A window of the whole map, whatever its side."""

_ALONE_MATCHING: Mapping[str, Any] = {"window": 3, "temperature": 0.03}
# Measured for the shipped weights, whose own grid is less than half as fine as the blended one.


@dataclass(frozen=True)
class Variant:
    """One way to match a data set.

    ``window`` is a side in cells; 1 is argmax, `WHOLE` soft-argmax; the subject's own if ``None``. ``sigma``
    is that of the Gaussian of kernel soft-argmax, which then takes the place of the window.
    """

    subject: str = ZERO_SHOT
    window: int | None = None
    sigma: float | None = None
    pose: PoseChoice = "default"


@dataclass(frozen=True)
class Setup:
    """A variant made ready; equal work has an equal name, fit for a file.

    ``masks``: whether the pose is chosen on the source's mask.
    """

    name: str
    matcher: Matcher
    masks: bool


class Memory:
    """Features and poses that several variants of one subject share, within a number of bytes.

    Features are kept by the pixels of the images that were extracted together, so what comes out is what
    would be computed, to the last bit.
    """

    def __init__(self, limit: int) -> None:
        self.features: Recent[tuple[str, ...], list[FeatureMap]] = Recent(limit, _bytes, least=0)
        self.poses: dict[tuple[object, ...], Alignment] = {}


class RememberingMatcher(Matcher):
    """A matcher that computes features, and the pose of a pair, once for all who share its memory."""

    def __init__(self, memory: Memory, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.memory = memory

    def features(
        self, images: Sequence[Image.Image], canvases: Sequence[Canvas] | None = None
    ) -> list[FeatureMap]:
        """See `Matcher.features`."""
        key = (*(hash_pixels(image) for image in images), *map(str, canvases or ()))
        if key in self.memory.features:
            return list(self.memory.features[key])
        maps = super().features(images, canvases)
        self.memory.features[key] = maps
        return maps

    def align(self, source: Encoded, target: Encoded, setting: str) -> Alignment:
        """See `Matcher.align`."""
        images = [source.image, target.image]
        images += [Image.fromarray(each) for each in (source.mask, target.mask) if each is not None]
        key = (*map(hash_pixels, images), setting, self.pose_rule)
        if key not in self.memory.poses:
            found = super().align(source, target, setting)
            # Feature maps would fill the memory; they are kept, within bounds, by `features`.
            self.memory.poses[key] = replace(found, maps={})
            return found
        found = self.memory.poses[key]
        missing = [pose for pose in dict.fromkeys(("identity", found.pose)) if pose not in source.maps]
        return replace(found, maps={**source.maps, **self.posed(source, missing)})


class Bench:
    """One extractor, with and without a post-processor, in every variant that an analysis asks for.

    Args:
        extractor: of all subjects.
        network: the post-processor; without one the features as they are are the only subject.
        matching: see `evaluation.predict.matching_settings`.
        memory: bytes of features that variants of a subject share.

    Raises:
        InputError: the post-processor is for other features.
    """

    def __init__(
        self,
        extractor: Extractor,
        network: PostProcessor | None = None,
        matching: str = "auto",
        memory: int = 2 << 30,
    ) -> None:
        self.extractor = extractor
        self.matching = matching
        self._limit, self._memory, self._subject = memory, Memory(memory), ""
        self._extractors = {ZERO_SHOT: extractor}
        if network is not None:
            blend = defaults_of(extractor.name, network).blend
            self._extractors[POST_PROCESSOR] = refine(extractor, network, blend)
            if blend < 1:
                self._extractors[ALONE] = refine(extractor, network, 1.0)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Those there are; the post-processor alone only where its default is a blend."""
        return tuple(self._extractors)

    def own_window(self, subject: str) -> int:
        """Side in cells of the window that a subject is matched with by default."""
        return self._settings(Variant(subject), "paper").window

    def grid(self, subject: str) -> int:
        """Cells a side of the map that is matched."""
        return self._extractors[subject].layout.grid

    def setup(self, variant: Variant, protocol: str) -> Setup:
        """The matcher of a variant, which shares features with the one before if its subject is the same."""
        own = Variant(variant.subject)
        settings, usual = self._settings(variant, protocol), self._settings(own, protocol)
        (pose, rule), (usual_pose, usual_rule) = self._pose(variant), self._pose(own)
        parts = [variant.subject.replace(" ", "-")]
        if settings.mode == "kernel":
            parts.append(f"kernel-{settings.sigma:g}")
        elif settings.window != usual.window:
            parts.append(f"window-{settings.window}")
        masks = variant.pose == "masks"
        if masks or pose != usual_pose or (pose != "off" and rule != usual_rule):
            parts.append(f"pose-{'off' if pose == 'off' else variant.pose}")
        if variant.subject != self._subject:
            self._subject = variant.subject
            self.forget()
        given = self._extractors[variant.subject], settings, pose, rule
        # As in the paper, nothing is cut out.
        return Setup("-".join(parts), RememberingMatcher(self._memory, *given, zoom="off"), masks)

    def forget(self) -> None:
        """Let go of all features."""
        self._memory = Memory(self._limit)

    def _settings(self, variant: Variant, protocol: str) -> MatchSettings:
        changes = dict(_ALONE_MATCHING) if variant.subject == ALONE else {}
        if variant.sigma is not None:
            changes |= {"mode": "kernel", "sigma": variant.sigma}
        elif variant.window is not None:
            changes["window"] = variant.window or self.grid(variant.subject)
        network = self._extractors[variant.subject].post_processor
        return matching_settings(self.extractor.name, protocol, self.matching, changes, network)

    def _pose(self, variant: Variant) -> tuple[str, PoseRule]:
        """The key of `alignment.CANDIDATES`, and the rule."""
        network = self._extractors[variant.subject].post_processor
        defaults = defaults_of(self.extractor.name, network)
        if variant.pose in ("off", "default"):
            off = variant.pose == "off" or variant.subject == ALONE
            return "off" if off else defaults.pose, defaults.pose_rule
        return "flip", PoseRule("mutual-nn" if variant.pose == "mutual-nn" else "imd")


def _bytes(maps: Sequence[FeatureMap]) -> int:
    return sum(each.data.nbytes for each in maps)
