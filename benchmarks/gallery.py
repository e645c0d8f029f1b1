"""How long `geoaware gallery` takes to write 1,000 pairs, and Chromium to open the file and to sort it.

    python benchmarks/gallery.py DATA [--pairs 1000] [--opens 7] [--out FOLDER]

DATA holds the folder lspet: 1,000 random pairs of its 2,400 training images, so that nearly every pair
brings new images with it. Predictions are the true points moved at random; how good they are is the same
to the page. Opening ends when the pairs in view are drawn with their images, sorting with the second
frame after it. Needs playwright and a Chromium on the path. Goal: opened in under 3 s.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine

from geoaware import data
from geoaware.evaluation.predictions import Header, describe_schema, make_record, record_line
from geoaware.evaluation.protocols import get_protocol
from geoaware.report.gallery import entries, judge, write_gallery

SORT = """key => new Promise(done => {
  const start = performance.now(), select = document.getElementById("sort");
  select.value = key;
  select.dispatchEvent(new Event("change"));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""


def write_predictions(pairs: data.DataSet, path: Path, spread: float = 0.1) -> None:
    """True points moved by a share of the threshold base."""
    rng, protocol = random.Random(0), get_protocol("paper")
    schemas = {name: describe_schema(each) for name, each in sorted(pairs.schemas.items())}
    with path.open("w", encoding="utf-8") as file:
        file.write(Header("paper", len(pairs), pairs.name, pairs.split, schemas=schemas).to_line())
        for pair in pairs.pairs:
            reach = spread * protocol.size(pair.target)
            truth = pair.target.keypoints.at(pair.common_ids).tolist()
            moved = [[rng.gauss(x, reach), rng.gauss(y, reach)] for x, y in truth]
            file.write(record_line(make_record(pair, pairs.schema(pair), protocol, moved, "identity")))


def measure(page_file: Path, opens: int) -> tuple[str, list[float], list[float]]:
    """Chromium's version, and seconds of opening and of sorting, each time in a fresh window."""
    from playwright.sync_api import sync_playwright

    opening, sorting = [], []
    with sync_playwright() as started:
        chromium: Any = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(opens):
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.goto(page_file.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
            opening.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime") / 1000)
            sorting.append(page.evaluate(SORT, "name") / 1000)
            page.close()
        version = chromium.version
        chromium.close()
    return version, opening, sorting


def _spread(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--opens", type=int, default=7)
    parser.add_argument("--out", type=Path, help="keep the files here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = data.load("coco", given.data / "lspet", "train", pairs=given.pairs)
        write_predictions(pairs, folder / "gallery.jsonl")
        known = {each.id: each for each in pairs.images}
        start = time.perf_counter()
        run = judge(folder / "gallery.jsonl")
        out = write_gallery(
            entries([run], known), folder / "gallery.html", title="lspet", about={}, alpha=0.1
        )
        writing = time.perf_counter() - start
        megabytes = out.stat().st_size / 2**20
        version, opening, sorting = measure(out, given.opens)
    print(json.dumps({**machine(), "chromium": version}))
    print(f"{len(pairs):,} pairs of {len(known):,} images: written in {writing:.1f} s, {megabytes:.1f} MB")
    print(f"opened: {_spread(opening)}; sorted anew: {_spread(sorting)} ({given.opens} times)")


if __name__ == "__main__":
    main()
