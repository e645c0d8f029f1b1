"""A small data set of generated images, and a process that predicts it while it is killed again and again.

``python -m tests.evaluation.tiny FOLDER KILLS SEED`` starts prediction KILLS times in a child process, sends
it SIGKILL at a random moment, and prints how many pairs were done each time; the last child may finish.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoaware.data import DataSet
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.features import Extractor, Layout
from geoaware.matcher import Matcher
from geoaware.method.keypoints import Schema
from geoaware.method.matching import MatchSettings
from geoaware.method.types import AnnotatedImage, Keypoints, Pair
from tests.toys import noise

SCHEMA = Schema(["left ear", "right ear", "nose", "left paw", "right paw"], {"ear": (0, 1)}, ((0, 1), (3, 4)))
SIZES = ((120, 90), (90, 120), (117, 117), (100, 80), (64, 96), (110, 70))


def tiny_dataset(folder: Path) -> DataSet:
    """Six images of noise with random keypoints, all ordered pairs, in an order that suits no cache."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [tiny_image(folder, number) for number in range(len(SIZES))]
    pairs = [
        Pair(f"{a.id}>{b.id}", a.category, a, b, (i + j) % 5)
        for i, a in enumerate(images)
        for j, b in enumerate(images)
        if i != j
    ]
    random.Random(5).shuffle(pairs)
    return DataSet("tiny", "test", {"cat": SCHEMA}, tuple(pairs), "box")


def tiny_image(folder: Path, number: int) -> AnnotatedImage:
    width, height = SIZES[number]
    path = folder / f"{number}.png"
    if not path.exists():
        noise(width, height, number).save(path)
    rng = random.Random(number)
    xy = torch.tensor(
        [[rng.uniform(0, width - 1), rng.uniform(0, height - 1)] for _ in range(5)], dtype=torch.float64
    )
    visible = torch.tensor([(number + each) % 4 != 0 for each in range(5)])
    box = (5.0, 5.0, width - 10.0, height - 10.0)
    return AnnotatedImage(
        f"{number}.png", path, (width, height), "cat", Keypoints((0, 1, 2, 3, 4), xy, visible), box
    )


class Sided(Extractor):
    """Mean colours of each cell, its left and its right neighbour: tells an image from its mirror image."""

    def __init__(self) -> None:
        super().__init__("sided", "sided()", Layout(117, 13, 9))
        self.scale = nn.Parameter(torch.ones(()))
        self.count = 0

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        self.count += len(pixels)
        means = F.avg_pool2d(pixels, 9) * self.scale
        return (torch.cat([means, means.roll(1, dims=-1), means.roll(-1, dims=-1)], dim=1),)


class Blind(Sided):
    """Has no numbers for black images."""

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        (found,) = super().levels(pixels)
        return (found.where(pixels.std(dim=(2, 3), keepdim=True).sum(dim=1, keepdim=True) > 0, float("nan")),)


def tiny_matcher(pose: str = "flip", **settings: object) -> Matcher:
    return Matcher(Sided(), MatchSettings(**{"window": 5, **settings}), pose)  # type: ignore[arg-type]


def run(folder: Path, delay: float) -> None:
    """Predict, slowly enough to be killed in the middle."""
    predict(
        tiny_dataset(folder),
        tiny_matcher(),
        folder / "killed.jsonl",
        PredictSettings(batch=2),
        progress=lambda what, done, total: time.sleep(delay),
    )


def main() -> None:
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    part = folder / "killed.jsonl.part"
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            run(folder, 0.005)
            os._exit(0)
        wanted, patience = done(part) + rng.randrange(4), time.monotonic() + 20
        while done(part) < wanted and time.monotonic() < patience:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(done(part), flush=True)
    run(folder, 0.0)


def done(part: Path) -> int:
    """Pairs whose whole line is in the part file, or in the result if the run was quicker."""
    found = next((each for each in (part.with_suffix(""), part) if each.exists()), None)
    return 0 if found is None else max(found.read_bytes().count(b"\n") - 1, 0)


if __name__ == "__main__":
    main()
