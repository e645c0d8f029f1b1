"""What keypoints mean: names, subgroups of alike parts and mirror partners, by annotation id."""

from __future__ import annotations

from geoaware.method.keypoints.names import infer_flip_pairs, infer_subgroups, part_name
from geoaware.method.keypoints.schema import Schema, flip_partners
from geoaware.method.keypoints.tables import AP10K, SPAIR71K

__all__ = ["AP10K", "SPAIR71K", "Schema", "flip_partners", "infer_flip_pairs", "infer_subgroups", "part_name"]
