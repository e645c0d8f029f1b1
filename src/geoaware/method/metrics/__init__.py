"""Predicted and annotated points to numbers: PCK, the geometry-aware subset, error types, azimuth subsets.

Everything here is numpy and loads without torch, so that scoring a file starts at once.
"""

from __future__ import annotations

from geoaware.method.metrics.azimuth import sensitivity
from geoaware.method.metrics.errors import ErrorRates, error_types
from geoaware.method.metrics.geometry_aware import pair_mask, relative_gap
from geoaware.method.metrics.pck import pck
from geoaware.method.metrics.similarity import keypoint_similarity

__all__ = [
    "ErrorRates",
    "error_types",
    "keypoint_similarity",
    "pair_mask",
    "pck",
    "relative_gap",
    "sensitivity",
]
