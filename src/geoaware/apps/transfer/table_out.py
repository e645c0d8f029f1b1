"""The result as Parquet: one row for each keypoint of each target that did not fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoaware.apps.transfer.coco_out import (
    DESCRIPTION,
    Counts,
    Record,
    category_entry,
    each_object,
    shown_points,
)
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.data.names import printable
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
    failed, threshold = list[dict[str, str]](), lines.head["run"]["settings"]["threshold"]
    counted = Counts()

    def records() -> Iterator[tuple[Record, Target]]:
        for record, target in zip(map(json.loads, lines.lines()), targets, strict=True):
            counted.add(record, threshold)
            if "failed" in record:
                failed.append({"file_name": printable(target.name), "reason": record["failed"]})
            else:
                yield record, target

    def rows() -> Iterator[dict[str, Any]]:
        for record, target in each_object(records()):
            yield from _rows(record, target, sources, threshold)

    def about() -> dict[str, Any]:
        category = category_entry(sources, targets)
        about = {"description": DESCRIPTION, "category": category, **counted.known()}
        return {**lines.head, **about, "failed": failed}

    write_table(draft, COLUMNS, rows(), about)


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
