"""Predictions as Parquet: one row for each keypoint that a pair's target shows.

Keypoints that the source does not show have no prediction; the error types look at them. Where a record does
not have the target's keypoints, its first row is without a keypoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from geoaware.runs.tables import read_rows, write_table

COLUMNS = {
    **dict.fromkeys(("pair", "category", "source", "target", "pose", "keypoint"), "string"),
    **dict.fromkeys(("keypoint_id", "azimuth_difference"), "int64"),
    **dict.fromkeys(("predicted_x", "predicted_y", "truth_x", "truth_y", "size"), "double"),
    "geometry_aware": "bool",
}
"""Kinds of the columns; docs/scale.md says what they mean."""

_OF_PAIR = ("pair", "category", "source", "target", "size", "pose", "azimuth_difference")


def write_predictions(draft: Path, header: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records, as the lines of a predictions file have them, and its header into the metadata."""
    names = {name: schema["names"] for name, schema in header["schemas"].items()}
    rows = (row for each in records for row in _rows(each, names[each["category"]]))
    write_table(draft, COLUMNS, rows, header)


def read_predictions(path: Path) -> Iterator[dict[str, Any]]:
    """The records, as the lines of a predictions file have them."""
    for _, group in groupby(read_rows(path), key=itemgetter("pair")):
        rows = list(group)
        found = [row for row in rows if row["predicted_x"] is not None]
        record = {
            **{key: rows[0][key] for key in _OF_PAIR},
            "keypoint_ids": [row["keypoint_id"] for row in found],
            "predicted": [[row["predicted_x"], row["predicted_y"]] for row in found],
            "truth": [[row["truth_x"], row["truth_y"]] for row in found],
            "geometry_aware": [row["geometry_aware"] for row in found],
        }
        if rows[0]["keypoint_id"] is not None:
            places = {str(row["keypoint_id"]): [row["truth_x"], row["truth_y"]] for row in rows}
            record["target_keypoints"] = places
        yield record


def _rows(record: Mapping[str, Any], names: Iterable[str]) -> Iterator[dict[str, Any]]:
    named = dict(enumerate(names))
    found = zip(record["predicted"], record["geometry_aware"], strict=True)
    places = dict(zip(record["keypoint_ids"], found, strict=True))
    there = record.get("target_keypoints")
    if there is None:
        yield {**dict.fromkeys(COLUMNS), **{each: record[each] for each in _OF_PAIR}}
        there = dict(zip(record["keypoint_ids"], record["truth"], strict=True))
    for key, (x, y) in there.items():
        (predicted_x, predicted_y), geometry_aware = places.get(int(key), ((None, None), None))
        yield {
            **{each: record[each] for each in _OF_PAIR},
            "keypoint_id": int(key),
            "keypoint": named.get(int(key)),
            "predicted_x": predicted_x,
            "predicted_y": predicted_y,
            "truth_x": x,
            "truth_y": y,
            "geometry_aware": geometry_aware,
        }
