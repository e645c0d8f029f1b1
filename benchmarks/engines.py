"""What the engines of long work cost: the same images, encoded by each of them in turn.

    python benchmarks/engines.py speed [--images DIR] [--count 500] [--rounds 3]
    python benchmarks/engines.py memory [--counts 5000 50000]

`speed` encodes images with `lite`: in one thread, in two processes (the local engine), in two plain
processes that share nothing, and by two actors on a Ray cluster of this machine. Of each round it prints the
wall time, the time from the first result on, and the CPU seconds of all processes that took part. `memory`
prints the peak memory of a process that has trivial items done on such a cluster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image

from geoaware.data.images import list_images, load_image
from geoaware.matcher import Matcher
from geoaware.runs.work import Batch, Engine, Local, batched, one_thread

Seconds = dict[str, float]
KINDS = ("alone", "local", "plain", "ray")


@dataclass(frozen=True)
class Encoding:
    """A checksum of each image's features, with the process that computed it and its CPU seconds so far."""

    paths: Sequence[Path]
    matcher: Matcher
    device: str = "cpu"

    def load(self, batch: Batch) -> list[Image.Image]:
        return [load_image(self.paths[each]) for each in batch]

    def work(self, batch: Batch, loaded: list[Image.Image]) -> list[tuple[str, int, float]]:
        maps = self.matcher.features(loaded)
        sums = [hashlib.sha256(each.data.numpy().tobytes()).hexdigest() for each in maps]
        return [(each, os.getpid(), time.process_time()) for each in sums]


@dataclass(frozen=True)
class Trivial:
    """A line of 1 KB for each item."""

    device: str = "cpu"

    def load(self, batch: Batch) -> None:
        return

    def work(self, batch: Batch, loaded: None) -> list[str]:
        return [f"{each:1000}" for each in batch]


def encoding(paths: Sequence[Path]) -> Encoding:
    return Encoding(paths, Matcher.from_pretrained("lite", device="cpu"))


def by_engine(paths: Sequence[Path], engine: Engine) -> tuple[list[str], Seconds]:
    begin, before = time.perf_counter(), time.process_time()
    found, spent, first = dict[int, str](), dict[int, float](), 0.0
    with one_thread():
        for (item,), ((checksum, process, cpu),) in engine.results(encoding(paths), batched(len(paths), 1)):
            first = first or time.perf_counter()
            found[item], spent[process] = checksum, max(cpu, spent.get(process, 0.0))
    spent[os.getpid()] = time.process_time()
    end, cpu = time.perf_counter(), sum(spent.values()) - before
    return [found[each] for each in sorted(found)], {"wall": end - begin, "work": end - first, "cpu": cpu}


def by_hand(images: Path, count: int) -> tuple[list[str], Seconds]:
    begin, halves = time.perf_counter(), (0, 1)
    command = [sys.executable, __file__, "half", "--images", str(images), "--count", str(count), "--half"]
    processes = [subprocess.Popen([*command, str(each)], stdout=subprocess.PIPE) for each in halves]
    done = [json.loads(each.communicate()[0]) for each in processes]
    found = [""] * count
    for half, each in zip(halves, done, strict=True):
        found[half::2] = each["found"]
    wall = time.perf_counter() - begin
    return found, {
        "wall": wall,
        "work": max(each["work"] for each in done),
        "cpu": sum(each["cpu"] for each in done),
    }


def half(given: argparse.Namespace) -> None:
    """One of two plain processes: every second image, in one thread."""
    job = encoding(list_images(given.images, True)[: given.count][given.half :: 2])
    found = list[str]()
    begin = 0.0
    with one_thread():
        for each in range(len(job.paths)):
            found.append(job.work((each,), job.load((each,)))[0][0])
            begin = begin or time.perf_counter()
    print(json.dumps({"found": found, "work": time.perf_counter() - begin, "cpu": time.process_time()}))


def speed(given: argparse.Namespace) -> None:
    """Rounds of all engines, in turn."""
    print(json.dumps(machine()))
    with tempfile.TemporaryDirectory() as folder, cluster(2) as address:
        from geoaware.runs.cluster import Ray

        images = given.images or generated(Path(folder), given.count)
        paths = list_images(images, True)[: given.count]
        engines: dict[str, Engine] = {"alone": Local(1), "local": Local(2), "ray": Ray(address, 2)}
        expected = list[str]()
        for number in range(given.rounds):
            for kind in KINDS[number % 2 :] + KINDS[: number % 2]:
                found, seconds = (
                    by_hand(images, len(paths)) if kind == "plain" else by_engine(paths, engines[kind])
                )
                expected = expected or found
                if found != expected:
                    raise SystemExit(f"{kind}: other features than before")
                figures = {key: round(value, 2) for key, value in seconds.items()}
                print(
                    json.dumps({"round": number, "engine": kind, "images": len(paths), **figures}), flush=True
                )


def memory(given: argparse.Namespace) -> None:
    """Peaks, each of a process of its own."""
    with cluster(2) as address:
        for count in given.counts:
            command = [sys.executable, __file__, "peak", "--count", str(count), "--address", address]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True
            )


def peak(given: argparse.Namespace) -> None:
    """One process whose items are done on the cluster."""
    from geoaware.runs.cluster import Ray

    done = sum(len(batch) for batch, _ in Ray(given.address).results(Trivial(), batched(given.count, 1)))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"items": done, "peak_mb": round(most, 1)}))


@contextmanager
def cluster(cpus: int) -> Iterator[str]:
    """A Ray cluster of this machine alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    import ray
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 200 << 20, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=options)
    try:
        yield started.address
    finally:
        ray.shutdown()
        started.shutdown()


def generated(folder: Path, count: int) -> Path:
    """JPEGs of 640 x 480 blurred noise."""
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.jpg", quality=90)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "half", "peak"))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--half", type=int)
    parser.add_argument("--address")
    given = parser.parse_args()
    {"speed": speed, "memory": memory, "half": half, "peak": peak}[given.what](given)


if __name__ == "__main__":
    main()
