"""What goes together under one name, and how features are best matched: the one place where it is decided."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from geoaware.method.alignment import CANDIDATES, PoseRule
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError, reason

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """How images are matched with the features of one extractor, as measured in docs/results.md.

    Attributes:
        match: how similarity becomes position.
        pose: a key of `alignment.CANDIDATES`.
        pose_rule: how the pose is chosen.
        blend: share of a post-processor's descriptors in the similarity, where there is one.
        zoom: whether small objects are looked for, ``"auto"`` or ``"off"``.
    """

    match: MatchSettings
    pose: str = "off"
    pose_rule: PoseRule = field(default_factory=PoseRule)
    blend: float = 1.0
    zoom: str = "off"


_PAPER = MatchSettings(window=11, inside_picture=True)

DEFAULTS: dict[str, Defaults] = {
    "efficientnet-lite0": Defaults(
        MatchSettings(window=9, temperature=0.03, inside_picture=True, interpolate=True),
        pose="flip",
        pose_rule=PoseRule("imd", margin=0.01),
    ),
    "efficientnet-lite0-tuned": Defaults(
        MatchSettings(window=9, temperature=0.03, inside_picture=True, interpolate=True),
        pose="flip",
        pose_rule=PoseRule("imd", margin=0.02),
        zoom="auto",
    ),
}
"""Per extractor; those not named get the paper's zero-shot window (11) and pose alignment (flip)."""

PRESETS: dict[str, str] = {"lite": "efficientnet-lite0-tuned", "lite-frozen": "efficientnet-lite0"}
"""Names that `Matcher.from_pretrained` takes beside those of the extractors.

Each is an extractor with the post-processor that is shipped under the same name, if there is one.
"""

_RENAMED = {"lite-tuned": "lite"}


def preset_extractor(name: str) -> str:
    """The extractor of a preset; any other name as it is. An old name of a preset is said to be one."""
    if name in _RENAMED:
        log.warning("%s is now called %s; the old name goes with the next release", name, _RENAMED[name])
        name = _RENAMED[name]
    return PRESETS.get(name, name)


def defaults_of(extractor_name: str, post_processor: PostProcessor | None = None) -> Defaults:
    """How features are best matched: the one place where this is decided.

    Args:
        extractor_name: plain, its measured defaults, or else the paper's zero-shot settings.
        post_processor: with one, the paper's supervised settings without pose alignment, looking where and
            reading as the extractor does; changed by what was measured for the weights, ``info["matching"]``:
            settings of `MatchSettings`, ``pose``, ``pose_rule`` (``"imd:0.01"``) and ``blend``.

    Raises:
        InputError: ``info["matching"]`` has an unknown key or an impossible value.
    """
    plain = DEFAULTS.get(extractor_name, Defaults(_PAPER, pose="flip"))
    if post_processor is None:
        return plain
    match = MatchSettings(inside_picture=plain.match.inside_picture, interpolate=plain.match.interpolate)
    measured = post_processor.info.get("matching", {})
    try:
        return _changed(replace(plain, match=match, pose="off"), measured)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"info.matching in the post-processor's config: {reason(error)}") from None


def choose_post_processor(
    name: str, place: str | os.PathLike[str] | PostProcessor | None = "auto"
) -> PostProcessor | None:
    """The post-processor that goes with a name.

    Args:
        name: as for `Matcher.from_pretrained`.
        place: ``"auto"``: the one shipped under the name of a preset, none for the name of an extractor.
            ``"none"`` or ``None``: none. Anything else: see `blending.load_post_processor`.

    Raises:
        InputError: nothing is at the place, or it is no post-processor.
    """
    from geoaware.features.refined import load_post_processor, shipped

    if place is None or isinstance(place, PostProcessor):
        return place
    if place == "none":
        return None
    if place != "auto":
        return load_post_processor(place)
    folder = shipped().get(name) if name in PRESETS else None
    return None if folder is None else load_post_processor(folder)


def _changed(defaults: Defaults, measured: Mapping[str, Any]) -> Defaults:
    """Defaults with single values changed, given by the names of `MatchSettings`, pose, pose_rule, blend.

    Raises:
        TypeError, AttributeError: a value is of the wrong kind.
        ValueError: an unknown name, or a value that cannot be.
    """
    of_match = [each.name for each in fields(MatchSettings)]
    known = [*of_match, "pose", "pose_rule", "blend"]
    unknown = sorted(set(measured) - set(known))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; there are {', '.join(known)}")
    pose, rule = measured.get("pose", defaults.pose), measured.get("pose_rule")
    if pose not in CANDIDATES:
        raise ValueError(f"unknown pose {pose!r}; there are {', '.join(CANDIDATES)}")
    from geoaware.runs.settings import checked

    for_match = {key: measured[key] for key in of_match if key in measured}
    return replace(
        defaults,
        match=replace(defaults.match, **checked(MatchSettings, for_match, "matching")),
        pose=pose,
        pose_rule=defaults.pose_rule if rule is None else PoseRule.parse(rule),
        blend=float(measured.get("blend", defaults.blend)),
    )
