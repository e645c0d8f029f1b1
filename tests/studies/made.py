"""Predictions files made up so that every figure is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from geoaware.evaluation import score_file
from geoaware.studies.case import Case, Run
from geoaware.studies.variants import Variant
from tests.evaluation.test_score import write

SIZE = 100.0
APART = 1000.0
PARTNER = {0: 1, 1: 0}

Point = tuple[float | str, bool]
"""How far off a keypoint is found, in pixels of a threshold base of 100, or ``"swap"``: at its neighbour's
place; and whether it is geometry-aware."""


def pair(
    number: int,
    points: Sequence[Point],
    category: str = "cat",
    azimuth: int | None = None,
    pose: str = "identity",
) -> dict:
    """A record; keypoints lie 1000 pixels apart, 0 and 1 are mirror partners."""
    truth = [[APART * each, 0.0] for each in range(len(points))]
    predicted = [
        list(truth[(row + 1) % len(points)]) if off == "swap" else [truth[row][0] + float(off), 0.0]
        for row, (off, _) in enumerate(points)
    ]
    return {
        "pair": f"{number}",
        "category": category,
        "source": f"a{number}",
        "target": f"b{number}",
        "keypoint_ids": list(range(len(points))),
        "predicted": predicted,
        "truth": truth,
        "size": SIZE,
        "geometry_aware": [aware for _, aware in points],
        "pose": pose,
        "azimuth_difference": azimuth,
        "target_keypoints": {str(row): place for row, place in enumerate(truth)},
    }


SCHEMA = {"names": ["left ear", "right ear", "nose"], "flip_pairs": [[0, 1]], "subgroups": {"ear": [0, 1]}}


def run(folder: Path, name: str, records: list[dict], window: int = 9, pose: str = "off") -> Run:
    """A written and scored predictions file."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"matching": {"mode": "window", "window": window}, "pose": pose}
    schemas = dict.fromkeys({each["category"] for each in records}, SCHEMA)
    path = write(folder / f"{name}.jsonl", records, settings=settings, schemas=schemas)
    return Run(name, path, score_file(path, draws=20))


def case(runs: Mapping[Variant, Run]) -> Case:
    return Case("made", "Made up", runs)


def pairs_of(*distances: float) -> list[dict]:
    """A pair for each distance, of one geometry-aware keypoint found that far off."""
    return [pair(number, [(each, True)]) for number, each in enumerate(distances)]


def cells(grid, row: str) -> list[str]:
    """Cells of the one row of that name, without the name."""
    (found,) = [each for each in grid.rows if each[0] == row]
    return list(found[1:])
