"""What `geoaware transfer` finds of several animals in an image, with given boxes and with its own finder.

    python benchmarks/several.py --data DATA [--images 40] [--sources 9] [--draw 0] [--split val]

DATA holds the folder animalpose. Sources are single animals with at least 14 keypoints, as many of each
category, of the training images; `train` takes its targets from the training images that are no sources. The
targets are so many images of one animal, and as many of several. Found: share of the annotated animals whose
box overlaps a box of the result by half or more, one to one. False: boxes without such an animal, by image;
animals that nobody annotated count as false. PCK@0.10: of the visible keypoints of those that were found.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geoaware.apps.transfer import Sources, TransferSettings, Voters, read_sources
from geoaware.apps.transfer.find import MINIMUM, Finder, overlap
from geoaware.apps.transfer.several import View, objects
from geoaware.apps.transfer.targets import Detected
from geoaware.data.images import load_framed
from geoaware.data.sampling import permutation
from geoaware.matcher import Matcher

ENOUGH = 14
"""Keypoints of a source, at least."""


@dataclass
class Figures:
    images: int = 0
    animals: int = 0
    found: int = 0
    false: int = 0
    right: int = 0
    keypoints: int = 0
    seconds: float = 0.0

    def row(self) -> str:
        share, pck = self.found / self.animals, self.right / max(1, self.keypoints)
        parts = (self.images, self.animals, f"{100 * share:.1f}", f"{self.false / self.images:.2f}",
                 f"{100 * pck:.1f}", f"{self.seconds / self.images:.1f}")  # fmt: skip
        return " | ".join(map(str, parts))

    def add(self, found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]) -> None:
        self.images += 1
        self.animals += len(truth)
        boxes = [[_corners(each["box"]) for each in found], [_corners(each["bbox"]) for each in truth]]
        pairs = sorted((-overlap(a, b), i, j) for i, a in enumerate(boxes[0]) for j, b in enumerate(boxes[1]))
        matched: dict[int, int] = {}
        for apart, i, j in pairs:
            if -apart >= 0.5 and i not in matched and j not in matched.values():
                matched[i] = j
        self.found += len(matched)
        self.false += len(found) - len(matched)
        for i, j in matched.items():
            values, limit = truth[j]["keypoints"], 0.1 * max(truth[j]["bbox"][2:])
            for number, point in enumerate(found[i]["points"]):
                x, y, flag = values[3 * number : 3 * number + 3]
                if flag:
                    self.keypoints += 1
                    self.right += point is not None and math.dist(point, (x, y)) < limit


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def read(data: Path, split: str) -> dict[str, Any]:
    """A split with all categories as one: keypoints are the same for all of them."""
    content: dict[str, Any] = json.loads((data / "animalpose" / f"{split}.json").read_text(encoding="utf-8"))
    content["objects"] = {each["id"]: [] for each in content["images"]}
    for each in content["annotations"]:
        content["objects"][each["image_id"]].append(each)
    return content


def draw_sources(data: Path, count: int, number: int) -> Sources:
    """The draw of that number of so many sources."""
    content = read(data, "train")
    kinds = [each["id"] for each in content["categories"]]
    order = [content["images"][each]["id"] for each in permutation(len(content["images"]), "several")]
    alone = [content["objects"][each][0] for each in order if len(content["objects"][each]) == 1]
    chosen = []
    for place, kind in enumerate(kinds):
        share = count // len(kinds) + (place < count % len(kinds))
        fit = [each for each in alone if each["category_id"] == kind and each["num_keypoints"] >= ENOUGH]
        chosen += fit[number * share : (number + 1) * share]
    ids = {each["image_id"] for each in chosen}
    category = {**content["categories"][0], "id": 1, "name": "animal"}
    made = {
        "images": [each for each in content["images"] if each["id"] in ids],
        "annotations": [{**each, "category_id": 1} for each in chosen],
        "categories": [category],
        "flip_pairs": content["flip_pairs"],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sources.json"
        path.write_text(json.dumps(made), encoding="utf-8")
        return read_sources(path, data / "animalpose" / "images")


def draw_targets(data: Path, split: str, count: int, sources: Sources) -> list[tuple[Path, list[Any]]]:
    """So many images of one animal, then as many of several, with their annotations."""
    content, used = read(data, split), {each.path.name for each in sources.images}
    order = [content["images"][each] for each in permutation(len(content["images"]), f"several/{split}")]
    order = [each for each in order if each["file_name"] not in used]
    known = content["objects"]
    one = [each for each in order if len(known[each["id"]]) == 1][:count]
    more = [each for each in order if len(known[each["id"]]) > 1][:count]
    folder = data / "animalpose" / "images"
    return [(folder / each["file_name"], known[each["id"]]) for each in one + more]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("DATA"))
    parser.add_argument("--split", choices=["train", "val"], default="val")
    parser.add_argument("--images", type=int, default=40, help="of one animal, and of several")
    parser.add_argument("--sources", type=int, default=9)
    parser.add_argument("--draw", type=int, default=0, help="number of the draw of sources")
    parser.add_argument("--minimum", type=float, nargs="+", default=[MINIMUM], help="of the finder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sources = draw_sources(given.data, given.sources, given.draw)
    settings = TransferSettings(find=min(given.minimum))
    voters = Voters(sources, Matcher.from_pretrained("lite", device="cpu"), settings)
    known, finder = voters.calibrate(), Finder(voters)
    ways = ["given boxes", *(f"found, {each:g}" for each in given.minimum)]
    figures = {(way, kind): Figures() for way in ways for kind in ("one", "several")}
    for path, truth in draw_targets(given.data, given.split, given.images, sources):
        view, kind = View(*load_framed(path)), "one" if len(truth) == 1 else "several"
        boxes = tuple(tuple(map(float, each["bbox"])) for each in truth)
        for way in ways[:2]:
            begin = time.perf_counter()
            detected = Detected(boxes, (None,) * len(boxes)) if way == ways[0] else None
            found = objects(view, voters, known, detected, None if detected else finder)
            took = time.perf_counter() - begin
            for each in [way] if detected else ways[1:]:
                least = 0.0 if detected else float(each.split()[-1])
                figures[each, kind].add([one for one in found if (one["detection"] or 1) >= least], truth)
                figures[each, kind].seconds += took
    print("| boxes | animals in an image | images | animals | found | false an image | PCK@0.10 | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for (way, kind), each in figures.items():
        print(f"| {way} | {kind} | {each.row()} |")


if __name__ == "__main__":
    main()
