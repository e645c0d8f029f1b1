"""To be killed: ``python -m tests.runs.ray_program work WHAT FOLDER OUT ADDRESS PACE``."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import torch
from torch import Tensor

from geoaware.apps.transfer import Sources, Targets, list_targets, read_sources, transfer
from geoaware.data import DataSet
from geoaware.evaluation.predict import predict
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.method.types import AnnotatedImage, Keypoints, Pair
from geoaware.runs import places
from geoaware.runs.cluster import Ray
from tests.apps.transfer.tiny import write_sources
from tests.evaluation.tiny import SCHEMA, Sided
from tests.toys import noise

COUNT = 300
SIDE = 117


class Slow(Sided):
    """Takes its time, so that processes can be killed while it works."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        time.sleep(self.pace)
        return super().levels(pixels)


def write_images(folder: Path) -> Path:
    """Generated images to work on, and annotated sources."""
    write_sources(folder / "sources", [(0, 0), (9, 9)])
    (folder / "images").mkdir()
    for number in range(COUNT):
        noise(SIDE, SIDE, number).save(folder / "images" / f"{number:03}.png")
    return folder


def matcher(pace: float) -> Matcher:
    return Matcher(Slow(pace), MatchSettings(window=3, inside_picture=True), "flip")


def transfer_of(folder: Path, pace: float = 0.0) -> tuple[Sources, Targets, Matcher]:
    sources = read_sources(folder / "sources" / "source.json")
    return sources, list_targets([folder / "images"]), matcher(pace)


def prediction_of(folder: Path, pace: float = 0.0) -> tuple[DataSet, Matcher]:
    images = [_annotated(path) for path in sorted((folder / "images").iterdir())]
    pairs = tuple(
        Pair(f"{a.id}>{b.id}", "cat", a, b) for a, b in zip(images, [*images[1:], images[0]], strict=True)
    )
    return DataSet("generated", "test", {"cat": SCHEMA}, pairs, "box"), matcher(pace)


def _annotated(path: Path) -> AnnotatedImage:
    places = random.Random(path.name)
    xy = torch.tensor([[places.uniform(0, SIDE - 1) for _ in "xy"] for _ in range(5)], dtype=torch.float64)
    keypoints = Keypoints((0, 1, 2, 3, 4), xy, torch.ones(5, dtype=torch.bool))
    return AnnotatedImage(path.name, path, (SIDE, SIDE), "cat", keypoints, (5.0, 5.0, 110.0, 110.0))


def work(what: str, folder: str, out: str, address: str, pace: float) -> None:
    engine = Ray(address, workers=None if what == "transfer" else 2)
    place = places.place(folder)
    if what == "transfer":
        transfer(*transfer_of(place, pace), place / out, engine=engine)
    else:
        predict(*prediction_of(place, pace), place / out, engine=engine)


if __name__ == "__main__":
    from geoaware import cli  # not in actors, which load this module too

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
    cli.app.command()(work)
    cli.main()
