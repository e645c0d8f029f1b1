"""How the page of `geoaware review` does with many objects: until it is there, scrolling, saving, memory.

    python benchmarks/review.py [--count 5000] [--megapixels 3]

The images are drawn, each in a file of its own name. Times are medians of three in a headless Chromium over a
loopback connection; a frame takes 16.7 ms where nothing hinders it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.apps.review.made import NAMES, SIZE, reviewing, write_result
from tests.browser import browser
from tests.toys import noise

SCROLL = """async () => {
    const list = document.querySelector('#list'), times = [];
    let before = performance.now();
    for (let step = 1; step <= 300; step += 1) {
        list.scrollTop = step * 120;
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - before);
        before = performance.now();
    }
    return times.sort((a, b) => a - b);
}"""


def resident() -> float:
    """Megabytes that this process, which is the server, takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def opened(chromium: Any, url: str) -> tuple[Any, float]:
    """The page, and the seconds until its image and the first thumbnails are there."""
    page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
    start = time.perf_counter()
    page.goto(url)
    there = "['#photo', '#rows img'].every((each) => document.querySelector(each)?.naturalWidth > 0)"
    while not page.evaluate(there):
        time.sleep(0.01)
    return page, time.perf_counter() - start


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--megapixels", type=float, default=3.0)
    given = parser.parse_args()
    chance = random.Random(1)
    scores = [[round(chance.uniform(0.2, 1), 3) for _ in NAMES] for _ in range(given.count)]
    with tempfile.TemporaryDirectory() as name, browser() as chromium:
        folder = Path(name)
        (folder / "photos").mkdir()
        side = (given.megapixels * 1e6 / (SIZE[0] * SIZE[1])) ** 0.5
        size = (round(SIZE[0] * side), round(SIZE[1] * side))
        path = write_result(folder, scores, size=size, photo=noise(*size, 1))
        start = time.perf_counter()
        with reviewing(path) as (review, served):
            ready, before = time.perf_counter() - start, resident()
            pages = [opened(chromium, served.url) for _ in range(3)]
            page = pages[-1][0]
            frames = page.evaluate(SCROLL)
            saves = []
            for number in range(20):
                start = time.perf_counter()
                review.change(number, None, True, 0)
                saves.append(1000 * (time.perf_counter() - start))
            page.wait_for_timeout(3000)
            found = {
                "objects": given.count,
                "read_s": round(ready, 2),
                "page_s": round(statistics.median(each for _, each in pages), 2),
                "frame_ms": {"median": round(frames[150], 1), "95 %": round(frames[285], 1)},
                "rows": page.locator("#rows li").count(),
                "save_ms": round(statistics.median(saves), 1),
                "file_mb": round(review.out.stat().st_size / 1e6, 1),
                "grown_mb": round(resident() - before),
            }
    print(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main()
