"""Subgroups and flip pairs of SPair-71k and AP-10K, by annotation id (data sets' facts; paper, table 6).

They stand in ``tables.json``. Subgroups of a single keypoint are left out, and so are parts too close
together to be told apart by a distance (eyes, nostrils). Flip pairs are complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoaware.method.keypoints.schema import Schema

SPAIR71K_IDS = 30
"""Every SPair-71k image annotates ids 0 … 29, with null where there is nothing."""


def _schema(table: Mapping[str, Any]) -> Schema:
    groups = {name: tuple(members) for name, members in table["subgroups"].items()}
    # SPair-71k's files give no names: the part where it is known, and always the id.
    names = {each: f"keypoint {each}" for each in range(SPAIR71K_IDS)}
    names |= {each: f"{part} {each}" for part, members in groups.items() for each in members}
    return Schema(table.get("names", names), groups, tuple((a, b) for a, b in table["flip_pairs"]))


_TABLES = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))

SPAIR71K: Mapping[str, Schema] = {name: _schema(table) for name, table in _TABLES["SPair-71k"].items()}
"""Schema of each of the 18 categories."""

AP10K = _schema(_TABLES["AP-10K"])
"""Schema of all AP-10K species; left and right are the animal's own."""
