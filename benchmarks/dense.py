"""Dense fields against point matching, masks carried by them, and how long they take, as Markdown tables.

    python benchmarks/dense.py DATA [--extractor lite] [--pairs 40]

Points: PCK@0.10 of annotated keypoints, matched one by one and read from the field of the whole image. Masks
(badja): the target's mask carried to the source by the field, by the thin plate, by nearest neighbours alone
(argmax), and as `geoaware transfer --masks` does it, as IoU with the source's own mask. Speed: a field of
448 x 448 pixels, and 100,000 points matched one by one, without encoding.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accuracy import CASES
from PIL import Image
from speed import timed

from geoaware import data
from geoaware.apps.transfer.masks import MOST, Outline, cells_of
from geoaware.data import object_mask
from geoaware.evaluation.predict import choose_pairs
from geoaware.evaluation.protocols import get_protocol
from geoaware.field import Field
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.runs.errors import InputError


def of_points(matcher: Matcher, root: Path, name: str, count: int) -> str:
    """A line of the first table."""
    case = CASES[name]
    pairs = data.load(case.loader, root / case.folder, case.split, **case.options)
    found: dict[str, list[float]] = {"match": [], "field": []}
    for pair in choose_pairs(pairs, count).pairs:
        queries = pair.source.keypoints.at(pair.common_ids)
        truth = pair.target.keypoints.at(pair.common_ids)
        source, target = matcher.encode(pair.source.path), matcher.encode(pair.target.path)
        allowed = 0.1 * get_protocol(case.protocol).size(pair.target)
        field = matcher.dense(source, target, pose="off")
        for way, there in (
            ("match", matcher.match(source, target, queries, pose="off").points),
            ("field", field.at(queries)),
        ):
            found[way].append(((there - truth).norm(dim=-1) < allowed).double().mean().item())
    cells = [f"{100 * statistics.fmean(each):.1f}" for each in found.values()]
    return f"| {name} | {len(found['match'])} | " + " | ".join(cells) + " |"


def carried(field: Field, mask: np.ndarray) -> np.ndarray:
    """The target's mask, carried to the source by every match."""
    image = Image.new("RGBA", field.target.size)
    image.putalpha(Image.fromarray(mask))
    return np.asarray(field.carry(image, 0, float("inf")).getchannel("A")) >= 128


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """IoU of two masks."""
    return float((found & truth).sum() / (found | truth).sum())


def masks(matcher: Matcher, root: Path, count: int) -> list[str]:
    """The lines of the second table."""
    case = CASES["badja"]
    pairs = data.load(case.loader, root / case.folder, case.split, **case.options)
    nearest = Matcher(matcher.extractor, MatchSettings(mode="argmax", inside_picture=True), pose="off")
    found: dict[str, list[float]] = {"nearest neighbours": [], "field": [], "thin plate": []}
    found["transfer --masks"] = []
    for pair in choose_pairs(pairs, count).pairs:
        own, other = (object_mask(each) for each in (pair.source, pair.target))
        if own is None or other is None:
            continue
        source, target = matcher.encode(pair.source.path), matcher.encode(pair.target.path)
        field = matcher.dense(source, target)
        found["nearest neighbours"].append(overlap(carried(nearest.dense(source, target), other), own))
        found["field"].append(overlap(carried(field, other), own))
        here, there = (each.maps["identity"] for each in (source, target))
        outline = Outline.of([cells_of(there, other, MOST, 0)])
        found["transfer --masks"].append(overlap(outline(here).pixels(), own))
        try:
            found["thin plate"].append(overlap(carried(field.smoothed(), other), own))
        except InputError:
            found["thin plate"].append(found["field"][-1])
    return [f"| {way} | {len(each)} | {100 * statistics.fmean(each):.1f} |" for way, each in found.items()]


def seconds(matcher: Matcher, root: Path, points: int = 100_000) -> tuple[float, float]:
    """Of a field of 448 x 448, and of so many points that are matched one by one; each the best of five."""
    images = sorted((root / "badja").rglob("*.jpg"))[:2]
    source, target = (matcher.encode(Image.open(each).convert("RGB").resize((448, 448))) for each in images)
    queries = torch.rand(points, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 447
    works = (matcher.dense, source, target), (matcher.match, source, target, queries)
    field, one_by_one = (timed(partial(*each, pose="off"), 5, 0)["min"] for each in works)
    return field, one_by_one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--extractor", default="lite")
    parser.add_argument("--sets", nargs="+", choices=list(CASES), default=["lspet", "quaternius", "badja"])
    parser.add_argument("--pairs", type=int, default=40, help="of each set")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    matcher = Matcher.from_pretrained(given.extractor)
    field, points = seconds(matcher, given.data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"448 x 448 pixels: {field:.2f} s; 100,000 points: {points:.2f} s; at most {peak:.2f} GB in all\n")
    print("| data | pairs | matched one by one | read from the field |\n|---|---|---|---|")
    for name in given.sets:
        print(of_points(matcher, given.data, name, given.pairs), flush=True)
    print("\n| masks carried by | pairs | IoU |\n|---|---|---|")
    print("\n".join(masks(matcher, given.data, given.pairs)))


if __name__ == "__main__":
    main()
