"""A data set of three images and predictions on it, small enough to judge by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.toys import noise

SIZES = {"a.png": (100, 80), "b.png": (100, 80), "c.png": (60, 100)}
PLACES = [[20.0, 20.0], [60.0, 20.0], [40.0, 50.0]]
"""Of every image: left ear, right ear, nose. On c.png the right ear is not annotated."""

EVIL = '</script><img src=x onerror="window.hit=1"><!--'
NAMES = ["left_ear", "right_ear", f"nose {EVIL}"]
HEADER = {
    "format": "geoaware predictions",
    "format_version": 1,
    "protocol": "paper",
    "dataset": "coco",
    "split": "val",
    "extractor": f"sided {EVIL}",
    "settings": {"pose": "flip"},
    "schemas": {
        name: {"names": NAMES, "flip_pairs": [[0, 1]], "subgroups": {"ear": [0, 1]}}
        for name in ("cat", f"dog {EVIL}")
    },
}


def record(
    pair: str, source: str, target: str, predicted: dict[int, list[float]], **more: Any
) -> dict[str, Any]:
    """A line of a predictions file: threshold base 100, so that errors are pixels / 100."""
    there = [each for each in range(3) if target != "c.png" or each != 1]
    return {
        "pair": pair,
        "category": "cat",
        "source": source,
        "target": target,
        "keypoint_ids": list(predicted),
        "predicted": list(predicted.values()),
        "truth": [PLACES[each] for each in predicted],
        "size": 100.0,
        "geometry_aware": [each < 2 and target != "c.png" for each in predicted],
        "pose": "identity",
        "azimuth_difference": None,
        "target_keypoints": {str(each): PLACES[each] for each in there},
        **more,
    }


# Errors 0.05 (correct), 0.38 (2 px from the left ear: a swap with the partner), 0.15 (a jitter, a miss).
MIXED = record(
    "mixed", "a.png", "b.png", {0: [20.0, 25.0], 1: [22.0, 20.0], 2: [40.0, 65.0]}, azimuth_difference=1
)
# All exact.
EXACT = record(
    "exact", "b.png", "a.png", {each: PLACES[each] for each in range(3)}, azimuth_difference=3, pose="flip"
)
# 0.5 to the right of the left ear, 0.4 below the nose: both near nothing, no jitter.
LOST = record(EVIL, "a.png", "c.png", {0: [70.0, 20.0], 2: [40.0, 90.0]}, category=f"dog {EVIL}")
# Exact, and 0.09 from the nose: both correct.
NEAR = record("near", "c.png", "b.png", {0: [20.0, 20.0], 2: [40.0, 59.0]})
RECORDS = (MIXED, EXACT, LOST, NEAR)


def write_data(root: Path) -> Path:
    """A COCO folder with val.json; returns ``root``."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    annotations = []
    for number, (name, size) in enumerate(SIZES.items(), start=1):
        noise(*size, number).save(root / "images" / name)
        seen = [0 if name == "c.png" and each == 1 else 2 for each in range(3)]
        flat = [value for place, flag in zip(PLACES, seen, strict=True) for value in (*place, flag)]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "keypoints": flat, "bbox": [0, 0, 60, 60]}
        )
    content = {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            for number, (name, size) in enumerate(SIZES.items(), start=1)
        ],
        "categories": [{"id": 1, "name": "cat", "keypoints": NAMES, "flip_pairs": [[0, 1]]}],
        "annotations": annotations,
    }
    (root / "val.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_predictions(path: Path, records: Any = RECORDS, **header: Any) -> Path:
    lines = [{**HEADER, "pairs": len(records), **header}, *records]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path
