"""How long a click on the page of `geoaware demo` takes: in Python, and in the browser until it is drawn.

    python benchmarks/demo.py [--out benchmarks/results/demo.json] [--extractor lite] [--no-browser]

Two threads, as on a small machine. In Python: `Session.click` with the points that were there before. In the
browser (a headless Chromium over a loopback connection): from the click to the first frame in which the new
point stands on both images. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine

from geoaware.apps.demo.server import DemoSettings, load_matchers
from geoaware.apps.demo.session import Features, Session
from geoaware.data.images import load_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.apps.demo.serving import running
from tests.browser import browser
from tests.toys import face

CLICKS = 20
DRAWN = """([x, y]) => new Promise((done) => {
    const frame = document.querySelector('#source-image .frame');
    const box = frame.getBoundingClientRect();
    const count = (side) => document.querySelectorAll(`#${side}-image .mark`).length;
    const wanted = count('target') + 1;
    const start = performance.now();
    const look = () => {
        if (count('source') === wanted && count('target') === wanted)
            requestAnimationFrame(() => done(performance.now() - start));
        else setTimeout(look, 1);
    };
    frame.dispatchEvent(new MouseEvent('click', {
        bubbles: true, clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
    look();
})"""


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median, smallest, largest and number of times."""
    return {
        "median_ms": round(statistics.median(milliseconds), 1),
        "min_ms": round(min(milliseconds), 1),
        "max_ms": round(max(milliseconds), 1),
        "runs": len(milliseconds),
    }


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def places() -> list[tuple[float, float]]:
    """Where is clicked, as shares of width and height."""
    return [(0.3 + 0.4 * ((7 * n) % CLICKS) / CLICKS, 0.3 + 0.5 * n / CLICKS) for n in range(CLICKS)]


def in_python(settings: DemoSettings, paths: list[Path]) -> dict[str, Any]:
    """Bringing two images, clicks one after the other, heat maps."""
    session = Session(load_matchers(settings), settings.features)
    images = [load_image(path) for path in paths]
    for side, image in zip(("source", "target"), images, strict=True):
        session.bring(side, image)  # once, to warm up
    bring = [
        timed(lambda: [session.bring("source", images[0]), session.bring("target", images[1])])
        for _ in range(3)
    ]
    width, height = images[0].size
    session.click(1, 1)
    session.clear()
    clicks = [timed(lambda x=x, y=y: session.click(x * width, y * height)) for x, y in places()]
    pointer = [
        spread(
            [timed(lambda x=x, y=y, h=heated: session.peek(x * width, y * height, h)) for x, y in places()]
        )
        for heated in (False, True)
    ]
    session.heated = True
    heat = []
    for number in range(7):
        session.choose(number)
        heat.append(timed(session.heat))
    return {
        "bring_two_images": spread(bring),
        "click": spread(clicks),
        "click_with_19_points_before": round(clicks[-1], 1),
        "heat_map": spread(heat),
        "pointer": pointer[0],
        "pointer_with_heat_map": pointer[1],
        "pose_alignment": session.aligned,
    }


def in_browser(settings: DemoSettings, images: list[Path]) -> dict[str, Any]:
    """From the click to the point drawn on both images, without and with the heat map."""
    with running(features=settings.features) as demo, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(demo.url)
        for side, path in zip(("source", "target"), images, strict=True):
            page.set_input_files(f"#{side}-image input[type=file]", str(path))
            page.wait_for_selector(f"#{side}-image .frame:not([hidden])")
        found = {"to_drawn": spread([page.evaluate(DRAWN, place) for place in places()])}
        page.click("button:has-text('Clear points')")
        page.check("#heat input")
        page.wait_for_function("document.querySelectorAll('.mark').length === 0")
        found["to_drawn_with_heat_map"] = spread([page.evaluate(DRAWN, place) for place in places()])
        return found


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--extractor", default="lite")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--images", type=Path, nargs=2, help="two drawn faces of 1600 x 1200 if not given")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    settings = DemoSettings(features=Features(arguments.extractor), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        images = arguments.images
        if images is None:
            images = [Path(folder) / "a.jpg", Path(folder) / "b.jpg"]
            for path, colour in zip(images, ("orange", "khaki"), strict=True):
                face(1600, 1200, colour).save(path)
        results = {
            "machine": machine(),
            "extractor": arguments.extractor,
            "python": in_python(settings, images),
        }
        if not arguments.no_browser:
            results["browser"] = in_browser(settings, images)
    text = json.dumps(results, indent=2) + "\n"
    sys.stdout.write(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
