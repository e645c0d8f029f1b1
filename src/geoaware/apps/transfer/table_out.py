"""The result as Parquet: one row for each keypoint of each target that did not fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoaware.apps.transfer.coco_out import (
    DESCRIPTION,
    Record,
    category_entry,
    count,
    each_object,
    failures,
    paired,
    shown_points,
)
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.runs.records import Lines
from geoaware.runs.tables import write_table

COLUMNS = {
    **dict.fromkeys(("file_name", "category", "keypoint"), "string"),
    **dict.fromkeys(("image_id", "annotation_id", "keypoint_id", "width", "height"), "int64"),
    **dict.fromkeys(("x", "y", "probability", "distance"), "double"),
    **dict.fromkeys(("source", "pose"), "string"),
    "visible": "bool",
}
"""Kinds of the columns; docs/scale.md says what they mean."""


def write_rows(draft: Path, lines: Lines, sources: Sources, targets: Targets) -> None:
    """Put the records of all targets together; failures and the category stand in the metadata."""
    threshold = lines.head["run"]["settings"]["threshold"]
    objects = each_object(paired(lines, targets))
    rows = (row for record, target in objects for row in _rows(record, target, sources, threshold))
    about = {"description": DESCRIPTION, "category": category_entry(sources, targets), **count(lines)}
    about = {**lines.head, **about, "failed": [*failures(lines, targets)]}
    write_table(draft, COLUMNS, rows, about)


def _rows(record: Record, target: Target, sources: Sources, threshold: float) -> Iterator[dict[str, Any]]:
    width, height = record["size"]
    shared = {
        "file_name": target.name,
        "category": sources.name,
        "image_id": target.image_id,
        "annotation_id": target.id,
        "width": width,
        "height": height,
        "source": sources.images[record["source"]].id,
        "pose": record["pose"],
        "distance": record["distance"],
    }
    shown = shown_points(record, threshold)
    found = zip(sources.schema.names, record["points"], record["probability"], shown, strict=True)
    for number, (name, point, chance, visible) in enumerate(found):
        x, y = point or (None, None)
        yield {
            **shared,
            "keypoint_id": number,
            "keypoint": name,
            "x": x,
            "y": y,
            "probability": chance,
            "visible": visible,
        }
