"""Results to review: drawn cats with ears, eyes and a nose, and a server of a review in this process."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.apps.review.review import Review, opened
from geoaware.apps.review.server import Served, prepared
from tests.toys import face

NAMES = ["left ear", "right ear", "left eye", "right eye", "nose"]
SHARES = [(0.78, 0.2), (0.22, 0.2), (0.65, 0.5), (0.35, 0.5), (0.5, 0.68)]
"""Where they are on a face, as shares of width and height; the cat looks at us: its left is our right."""

SIZE = (240, 200)
CATEGORY = {
    "id": 3,
    "name": "cat",
    "keypoints": NAMES,
    "skeleton": [[1, 3], [2, 4], [3, 5], [4, 5]],
    "flip_pairs": [[0, 1], [2, 3]],
}


def places(dx: float = 0) -> list[tuple[float, float]]:
    return [(round(x * SIZE[0] + dx, 2), round(y * SIZE[1], 2)) for x, y in SHARES]


def annotation(number: int, scores: list[float], **more: Any) -> dict[str, Any]:
    """One as `transfer` writes it: keypoints below 0.5 are absent."""
    flat: list[float] = []
    for (x, y), score in zip(places(number), scores, strict=True):
        flat += [x, y, 2] if score >= 0.5 else [0, 0, 0]
    shown = [each for each in scores if each >= 0.5]
    return {
        "id": number, "image_id": number, "category_id": 3, "keypoints": flat, "num_keypoints": len(shown),
        "bbox": [20.0, 20.0, 200.0, 150.0], "area": 30000.0, "segmentation": [], "iscrowd": 0,
        "score": round(sum(shown) / len(shown), 4) if shown else 0.0, "keypoint_scores": scores,
        "source": f"s{number % 3}.png", "pose": "identity", "distance": round(0.1 * number % 1, 4), **more,
    }  # fmt: skip


def write_result(
    folder: Path,
    scores: list[list[float]],
    photo: Image.Image | None = None,
    size: tuple[int, int] = SIZE,
    **changes: Any,
) -> Path:
    """``found.json`` with an image for each list of probabilities, in ``photos`` beside it; all are alike."""
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    suffix, first = (".png", face(*SIZE)) if photo is None else (".jpg", photo)
    first.save(photos / f"001{suffix}")
    images, annotations = [], []
    for number, each in enumerate(scores, start=1):
        name = f"{number:03}{suffix}"
        if not (photos / name).exists():
            os.link(photos / f"001{suffix}", photos / name)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        annotations.append(annotation(number, each))
    info = {
        "description": "Keypoints carried over by geoaware transfer",
        "run": {"format": "geoaware transfer"},
    }
    content = {
        "info": info, "licenses": [], "flip_pairs": [[0, 1], [2, 3]], "categories": [CATEGORY],
        "images": images, "annotations": annotations, **changes,
    }  # fmt: skip
    path = folder / "found.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


THREE = [[0.9, 0.9, 0.9, 0.9, 0.9], [0.6, 0.3, 0.7, 0.8, 0.9], [0.8, 0.8, 0.7, 0.7, 0.9]]
"""Of three images; the second is the worst, then the third."""


@contextmanager
def reviewing(path: Path, **how: Any) -> Iterator[tuple[Review, Served]]:
    """Serve a review while the block runs."""
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package, reason=f"needs {package} (pip install 'geoaware[review]')")
    with opened(path, path.parent / "photos", **how) as review, prepared(review) as served:
        thread = threading.Thread(
            target=served.server.run, kwargs={"sockets": [served.listener]}, daemon=True
        )
        thread.start()
        until = time.monotonic() + 60
        while not served.server.started:
            assert thread.is_alive()
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.02)
        try:
            yield review, served
        finally:
            served.server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


def saved(review: Review) -> dict[str, Any]:
    """The annotations of the file that a review is saved to, by the name of their image."""
    content = json.loads(review.out.read_text(encoding="utf-8"))
    names = {each["id"]: each["file_name"] for each in content["images"]}
    return {names[each["image_id"]]: each for each in content["annotations"]}
