"""A slow toy extractor, and a program that is killed again and again while it extracts."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.data.images import list_images
from geoaware.method.maps import resized
from geoaware.store.extraction import extract, survey
from geoaware.store.feature_store import FeatureStore
from tests.toys import Patches, noise


class Toy(Patches):
    """`Patches`, whose weights and pace can be set, with a second, coarser map."""

    def __init__(self, weight: float = 1.0, seconds: float = 0.0, name: str = "toy") -> None:
        super().__init__(grid=7, cell=5)
        self.name = name
        self.identity = f"{name}(grid=7)"
        self.scale.data.fill_(weight)
        self.seconds = seconds
        self.requires_grad_(False)

    @classmethod
    def load(cls, name: str, **settings: Any) -> Toy:
        return cls(name=name, **settings)

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        time.sleep(self.seconds * len(pixels))
        (full,) = super().levels(pixels)
        return full[:, :13], full[:, 13:, ::2, ::2]

    def combine(self, levels: Any, grid: int | None = None) -> Tensor:
        fine, coarse = levels
        whole = torch.cat([fine, F.interpolate(coarse, size=fine.shape[-2:])], dim=1)
        return resized(whole, grid or self.layout.grid)


def photos(folder: Path, count: int, size: tuple[int, int] = (50, 40)) -> Path:
    """A folder of images, old enough to be remembered by the index."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03}.png"
        noise(*size, seed=number).save(path)
    return folder


def run(
    folder: Path, cache: Path, seconds: float = 0.0, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Extract a folder, as the command does."""
    extractor = Toy(seconds=seconds)
    store = FeatureStore.of(cache, extractor)
    work = survey(list_images(folder), ("identity", "flip"), store)
    extract(work, extractor, store, batch=3, progress=progress)
    store.update_manifest()


def snapshot(cache: Path) -> dict[str, bytes]:
    """Every finished file and its bytes."""
    return {path.name: path.read_bytes() for path in sorted(cache.rglob("??/*.safetensors"))
            if not path.name.startswith(".")}  # fmt: skip


def _tell(pipe: int, files: int) -> None:
    os.write(pipe, b"." * files)


def kill_many_times(folder: Path, cache: Path, times: int) -> None:
    """Start, kill -9 at a random moment, look at what is there; print how many files each run left.

    The moment is some milliseconds after a random number of files, so that a slow machine is killed in the
    midst of the work too.
    """
    # What is slow the first time is done before the children are made.
    run(folder, cache.with_name("undisturbed"))
    store = FeatureStore.of(cache, Toy())
    before: dict[str, bytes] = {}
    for number in range(times):
        chance = random.Random(number)
        end, start = os.pipe()
        child = os.fork()
        if not child:
            run(folder, cache, 0.002, partial(_tell, start))
            os._exit(0)
        os.close(start)
        for _ in range(chance.randrange(11)):
            os.read(end, 1)
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(end)
        after = snapshot(cache)
        for name, content in before.items():
            assert after[name] == content, f"{name} was lost or changed"
        for entry in store.entries():
            store.read(entry.image, entry.pose)
        before = after
        print(len(after))


if __name__ == "__main__":
    torch.set_num_threads(1)
    kill_many_times(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
