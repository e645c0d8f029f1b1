"""What keypoints mean: names, subgroups of alike parts and mirror partners, by annotation id."""

from __future__ import annotations

from geoaware.keypoints.names import infer_flip_pairs, infer_subgroups, part_name
from geoaware.keypoints.schema import Schema
from geoaware.keypoints.tables import AP10K, SPAIR71K

__all__ = ["AP10K", "SPAIR71K", "Schema", "infer_flip_pairs", "infer_subgroups", "part_name"]
