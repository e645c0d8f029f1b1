"""Photograph the page of `geoaware demo` with two drawn animals: the images of docs/demo.md.

    python docs/images/make_demo.py docs/images

Needs playwright and Chromium, as the tests of pages do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from make import LOOKS, PARTS, animal
from tests.apps.demo.serving import running
from tests.browser import browser

SHOWN = ("eye", "tail", "left back paw")
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


def photograph(page: Any, images: list[Path], out: Path, heat: bool) -> None:
    """Bring the images, click three points, and save what the page looks like."""
    for side, path in zip(("source", "target"), images, strict=True):
        page.set_input_files(f"#{side}-image input[type=file]", str(path))
        page.wait_for_selector(f"#{side}-image .frame:not([hidden])")
    box = page.locator("#source-image .frame").bounding_box()
    for number, name in enumerate(SHOWN):
        x, y = PARTS[name]
        page.click("#source-image .frame", position={"x": x * box["width"], "y": y * box["height"]})
        page.wait_for_selector(f"#target-image .mark >> nth={number}")
    if heat:
        page.check("#heat input")
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=out, full_page=True)


def main(folder: Path) -> None:
    """Write one image for each size of screen."""
    with tempfile.TemporaryDirectory() as name, running() as demo, browser() as chromium:
        images = [Path(name) / "a.png", Path(name) / "b.png"]
        for path, look in zip(images, LOOKS, strict=True):
            animal(look).save(path)
        for kind, (width, height) in SIZES.items():
            page = chromium.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            page.goto(demo.url)
            photograph(page, images, folder / f"demo-{kind}.png", heat=kind == "desktop")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
