"""Semantic correspondence that tells left from right. Nothing heavy is imported until it is used."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from geoaware._moved import MOVED, MovedFinder
from geoaware._version import __version__

if TYPE_CHECKING:
    from geoaware.evaluation.score import score
    from geoaware.features import load_extractor
    from geoaware.matcher import Matcher
    from geoaware.method.geometry import Canvas
    from geoaware.method.matching import MatchSettings, match
    from geoaware.method.post_processor import PostProcessor
    from geoaware.method.types import FeatureMap, Matches
    from geoaware.runs.errors import InputError

_HOMES = {
    "Canvas": "method.geometry",
    "FeatureMap": "method.types",
    "InputError": "runs.errors",
    "MatchSettings": "method.matching",
    "Matcher": "matcher",
    "Matches": "method.types",
    "PostProcessor": "method.post_processor",
    "load_extractor": "features",
    "match": "method.matching",
    "score": "evaluation.score",
}

_PARTS = ("alignment", "geometry", "keypoints", "losses", "matching", "metrics")
"""Parts of the method that can be imported from here, without a warning."""

__all__ = [
    "Canvas",
    "FeatureMap",
    "InputError",
    "MatchSettings",
    "Matcher",
    "Matches",
    "PostProcessor",
    "__version__",
    "load_extractor",
    "match",
    "score",
]


# Old paths such as geoaware.matching are found for one release.
sys.meta_path.insert(0, MovedFinder())


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"geoaware.{_HOMES[name]}"), name)
    if name in _PARTS:
        return importlib.import_module(f"geoaware.{MOVED[name]}")
    raise AttributeError(f"module 'geoaware' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
