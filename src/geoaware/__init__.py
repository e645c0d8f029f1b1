"""Semantic correspondence that tells left from right. Nothing heavy is imported until it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
