"""Photograph the page of `geoaware review` with drawn animals: the image of docs/review.md.

    python docs/images/make_review.py docs/images

One animal is annotated, `lite` finds the keypoints of the others. Needs playwright and Chromium, as the tests
of pages do.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from make import LOOKS, PARTS, animal
from PIL import Image
from tests.apps.review.made import reviewing
from tests.browser import browser

from geoaware import Matcher
from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, transfer

POINTS = {**PARTS, "right front paw": (0.41, 0.84), "right back paw": (0.67, 0.84)}
LIMBS = [("ear", "eye"), ("eye", "nose"), ("eye", "back"), ("back", "tail"), ("back", "left front paw"),
         ("back", "right front paw"), ("back", "left back paw"), ("back", "right back paw")]  # fmt: skip
COATS = ((196, 128, 62), (120, 122, 128), (222, 196, 150), (84, 70, 60), (170, 90, 70), (200, 200, 196))


def animals(folder: Path, count: int) -> None:
    """Write animals of several coats, some of which look to the right."""
    folder.mkdir()
    for number in range(count):
        base, coat = LOOKS[number % 2], COATS[number % len(COATS)]
        dark = tuple(value // 2 for value in coat)
        look = replace(base, coat=coat, dark=dark, squeeze=1 - 0.04 * (number % 5), seed=number)
        image = animal(look)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 3 == 2 else image
        image.save(folder / f"animal {number + 1:02}.jpg", quality=92)


def annotate(photo: Path, path: Path) -> Path:
    """A COCO file with the keypoints of an animal that is not squeezed and looks to the left."""
    width, height = Image.open(photo).size
    names = list(POINTS)
    values = [(round(x * width, 1), round(y * height, 1), 2) for x, y in POINTS.values()]
    content = {
        "images": [{"id": 1, "file_name": photo.name, "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": np.ravel(values).tolist()}],
        "categories": [{
            "id": 1, "name": "animal", "keypoints": names,
            "skeleton": [[names.index(each) + 1 for each in limb] for limb in LIMBS],
        }],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def main(out: Path) -> None:
    """Write the image."""
    with tempfile.TemporaryDirectory() as name, browser() as chromium:
        folder = Path(name)
        animals(folder / "photos", 24)
        sources = read_sources(
            annotate(folder / "photos" / "animal 01.jpg", folder / "a.json"), folder / "photos"
        )
        targets = list_targets([folder / "photos"]).without(sources)
        matcher = Matcher.from_pretrained("lite", device="cpu")
        found = transfer(
            sources,
            targets,
            matcher,
            folder / "found.json",
            TransferSettings(threshold=0.85, keep_guesses=True),
        ).out
        with reviewing(found) as (_, served):
            page = chromium.new_page(viewport={"width": 1330, "height": 760})
            page.goto(served.url)
            page.wait_for_selector("body[data-ready]")
            for key in ("Enter", "Enter", "7", "h", "3"):
                page.keyboard.press(key)
                page.wait_for_timeout(1000)
            page.screenshot(path=out / "review.jpg", type="jpeg", quality=82)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
