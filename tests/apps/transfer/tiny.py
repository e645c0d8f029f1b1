"""Small annotated images, and a slow run to be killed: ``python -m tests.apps.transfer.tiny FOLDER``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from geoaware.apps.transfer import Sources, Targets, list_targets, read_sources, transfer
from geoaware.matcher import Matcher
from geoaware.method.geometry import pose_image
from geoaware.method.matching import MatchSettings
from tests.evaluation.tiny import Sided
from tests.toys import noise

NAMES = ["left ear", "right ear", "nose", "left paw", "right paw"]
POINTS = [(40.0, 40.0), (85.0, 45.0), (60.0, 60.0), (45.0, 90.0), (80.0, 85.0)]
SIDE = 117
"""Of the toy's canvas: images of this size are not scaled, and a cell has 9 pixels."""

CELL = 9.0


class Finding(Sided):
    """`Sided` that sees an object where it is not black."""

    sees = ("zoom",)

    def presence(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        colours = levels[0][:3] * self.std + self.mean
        return torch.where(colours.amax(dim=0) > 0.1, 8.0, -8.0)


def world() -> Image.Image:
    """One scene; the images are parts of it."""
    return noise(180, 180, 3)


def view(dx: int, dy: int) -> Image.Image:
    """The part of the scene whose top left corner is (dx, dy)."""
    return world().crop((dx, dy, dx + SIDE, dy + SIDE))


def write_sources(
    folder: Path,
    offsets: Sequence[tuple[int, int]] = ((0, 0),),
    hide: dict[int, Sequence[int]] | None = None,
    name: str = "source.json",
    **changes: Any,
) -> Path:
    """An annotation file of views of the scene; ``hide`` names keypoints that a source lacks."""
    place = folder / "images"
    place.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, (dx, dy) in enumerate(offsets, start=1):
        view(dx, dy).save(place / f"s{number}.png")
        images.append({"id": number, "file_name": f"s{number}.png", "width": SIDE, "height": SIDE})
        flat: list[float] = []
        for each, (x, y) in enumerate(POINTS):
            hidden = each in (hide or {}).get(number - 1, ())
            flat += [0, 0, 0] if hidden else [x - dx, y - dy, 2]
        annotations.append(annotation(number, number, flat))
    content = {"images": images, "annotations": annotations, "categories": [category()], **changes}
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotation(number: int, image: int, keypoints: Sequence[float], **more: Any) -> dict[str, Any]:
    box = [20, 20, 80, 80]
    return {
        "id": number, "image_id": image, "category_id": 7, "keypoints": list(keypoints), "bbox": box, **more
    }  # fmt: skip


def category(**changes: Any) -> dict[str, Any]:
    skeleton = [[1, 3], [2, 3]]
    return {"id": 7, "name": "cat", "keypoints": NAMES, "skeleton": skeleton, **changes}


def matcher(pose: str = "flip", **settings: Any) -> Matcher:
    return Matcher(Sided(), MatchSettings(**{"window": 3, "inside_picture": True, **settings}), pose)


def finding() -> Matcher:
    return Matcher(Finding(), MatchSettings(window=3, inside_picture=True), "flip")


def on_black(*corners: tuple[int, int], size: tuple[int, int] = (351, 234)) -> Image.Image:
    """The scene's first view at these places of a black image."""
    board = Image.new("RGB", size)
    for corner in corners:
        board.paste(view(0, 0), corner)
    return board


def photos(folder: Path, count: int = 5) -> Path:
    """Views of the scene, the fourth mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = view(9 * number, 4 * number)
        (pose_image(image, "flip") if number == 3 else image).save(folder / f"{number:03}.png")
    return folder


def job(folder: Path, count: int = 5) -> tuple[Sources, Targets]:
    """Two sources, and images to annotate, one of them unreadable."""
    sources = read_sources(write_sources(folder / "sources", [(0, 0), (9, 9)]))
    images = photos(folder / "photos", count)
    (images / "002.png").write_bytes(b"")
    return sources, list_targets([images])


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    sources, targets = job(folder, 40)
    transfer(
        sources, targets, matcher(), folder / "out.json", progress=lambda what, done, total: time.sleep(0.02)
    )


if __name__ == "__main__":
    main()
