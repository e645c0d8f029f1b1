"""Predicted and annotated points to numbers: PCK, the geometry-aware subset, error types, azimuth subsets.

Everything here is numpy and loads without torch, so that scoring a file starts at once.
"""

from __future__ import annotations

from geoaware.metrics.azimuth import sensitivity
from geoaware.metrics.errors import ErrorRates, error_types
from geoaware.metrics.geometry_aware import pair_mask, relative_gap
from geoaware.metrics.pck import pck
from geoaware.metrics.result import PCKResult

__all__ = ["ErrorRates", "PCKResult", "error_types", "pair_mask", "pck", "relative_gap", "sensitivity"]
