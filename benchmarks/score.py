"""How long `geoaware score` takes for 100,000 keypoints, and how much memory, as a whole process.

    python benchmarks/score.py [--keypoints 100000] [--runs 5]

A predictions file like that of SPair-71k's test split is made first (12 keypoints a pair, 18 categories);
then the command runs on it as a user would run it. Goal: under 2 s and 300 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PER_PAIR, TARGETS, CATEGORIES = 12, 16, 18


def write_predictions(path: Path, keypoints: int, seed: int = 0) -> None:
    """Predictions that are right, near, swapped or lost, with all digits that real ones have."""
    rng = random.Random(seed)
    pairs = -(-keypoints // PER_PAIR)
    flips = [[2 * each, 2 * each + 1] for each in range(TARGETS // 2)]
    schema = {"names": [f"point {each}" for each in range(TARGETS)], "flip_pairs": flips, "subgroups": {}}
    header = {
        "format": "geoaware predictions",
        "format_version": 1,
        "protocol": "paper",
        "pairs": pairs,
        "schemas": {f"category {each:02d}": schema for each in range(CATEGORIES)},
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        for number in range(pairs):
            targets = [[float(rng.randrange(500)), float(rng.randrange(375))] for _ in range(TARGETS)]
            ids = sorted(rng.sample(range(TARGETS), PER_PAIR))
            spread = rng.choice([2, 10, 60])
            predicted = [
                [rng.gauss(x, spread), rng.gauss(y, spread)] for x, y in (targets[each] for each in ids)
            ]
            record = {
                "pair": f"{number:06d}",
                "category": f"category {number % CATEGORIES:02d}",
                "source": f"image {number % 1800}",
                "target": f"image {number % 1799}",
                "keypoint_ids": ids,
                "predicted": predicted,
                "truth": [targets[each] for each in ids],
                "size": float(rng.randrange(100, 450)),
                "geometry_aware": [each % 5 < 3 for each in ids],
                "pose": "identity",
                "azimuth_difference": number % 5,
                "target_keypoints": {str(each): targets[each] for each in range(TARGETS)},
            }
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def run_once(path: Path) -> tuple[float, float]:
    """Seconds and megabytes (peak resident size) of one `geoaware score`."""
    import time

    command = [sys.executable, "-m", "geoaware.cli", "score", str(path), "--by", "category"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"geoaware score failed with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keypoints", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        write_predictions(path, given.keypoints)
        measured = [run_once(path) for _ in range(given.runs)]
        megabytes = path.stat().st_size / 2**20
    seconds, memory = zip(*measured, strict=True)
    print(
        f"{given.keypoints:,} keypoints ({megabytes:.0f} MB file): median {statistics.median(seconds):.2f} s "
        f"(worst {max(seconds):.2f} s), peak memory {max(memory):.0f} MB, {given.runs} runs"
    )


if __name__ == "__main__":
    main()
