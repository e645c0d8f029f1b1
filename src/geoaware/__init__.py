"""Semantic correspondence that tells left from right. Nothing heavy is imported until it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geoaware._version import __version__

if TYPE_CHECKING:
    from geoaware.errors import InputError
    from geoaware.evaluation.score import score
    from geoaware.features import load_extractor
    from geoaware.geometry import Canvas
    from geoaware.matcher import Matcher
    from geoaware.matching import MatchSettings, match
    from geoaware.post_processor import PostProcessor
    from geoaware.types import FeatureMap, Matches

_HOMES = {
    "Canvas": "geometry",
    "FeatureMap": "types",
    "InputError": "errors",
    "MatchSettings": "matching",
    "Matcher": "matcher",
    "Matches": "types",
    "PostProcessor": "post_processor",
    "load_extractor": "features",
    "match": "matching",
    "score": "evaluation.score",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoaware' has no attribute {name!r}")
    return getattr(importlib.import_module(f"geoaware.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
