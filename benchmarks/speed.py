"""Time each fast path against a plain reference in the same run; write medians and spread as JSON.

    python benchmarks/speed.py --out benchmarks/results/speed.json

Speed is measured here and never asserted in a test. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from PIL import Image

import geoaware
from geoaware.data.images import list_images, load_image
from geoaware.method.alignment import instance_matching_distance, mutual_nn_distance
from geoaware.method.geometry import Canvas
from geoaware.method.matching import descriptors, match, similarity, soft_argmax, window_soft_argmax
from geoaware.method.types import FeatureMap


def timed(function: Callable[[], object], runs: int = 7, warmup: int = 2) -> dict[str, float]:
    """Seconds of a call after a warm-up: median, smallest and largest of several runs, and the median of the
    processor's seconds, which other processes disturb less."""
    for _ in range(warmup):
        function()
    seconds, processor = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), time.process_time()
        function()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - before)
    middle, cpu = statistics.median(seconds), statistics.median(processor)
    return {"median": middle, "min": min(seconds), "max": max(seconds), "cpu": cpu, "runs": runs}


def channels_last(channels: int, side: int) -> torch.Tensor:
    """A random map of shape (channels, side, side) in the memory layout that extractors give."""
    return torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)[0]


def matching() -> dict[str, Any]:
    """Ten points on 60 x 60 x 768 against the whole 3600 x 3600 matrix and a position for every patch.

    Both sides end in the same ten positions, once by soft-argmax and once by window soft-argmax. The norms of
    the target's descriptors belong to encoding the image and are given on the fast side.
    """
    source, target = channels_last(768, 60), channels_last(768, 60)
    rows, columns = torch.randint(0, 60, (2, 10))
    norms = target.norm(dim=0)

    def ten_points(position: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return position(similarity(source[:, rows, columns].T, target, norms))

    def every_patch(position: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        unit_source, unit_target = (F.normalize(each.flatten(1), dim=0) for each in (source, target))
        return position((unit_source.T @ unit_target).view(-1, 60, 60))[rows * 60 + columns]

    results = {}
    for position in (soft_argmax, window_soft_argmax):
        assert torch.allclose(ten_points(position), every_patch(position), atol=1e-3)
        fast = timed(partial(ten_points, position), runs=51)
        results[position.__name__] = compared(fast, timed(partial(every_patch, position), runs=7, warmup=1))
    return results


def ordinary_maps() -> dict[str, Any]:
    """Points matched between ordinary feature maps, against one product of their descriptors with the map.

    ``similarity`` is what is searched for each point. ``match`` is everything: there and back, with position
    and confidence. Points beyond four for each cell of the source are read from the products of its cells.
    """
    results: dict[str, Any] = {}
    for channels, count, runs in ((768, 10, 51), (3968, 10, 31), (768, 20_000, 3)):
        source, target = (
            FeatureMap(channels_last(channels, 60), Canvas(840, 840, 840), "random") for _ in range(2)
        )
        points = torch.rand(count, 2, dtype=torch.float64) * 840
        queries, columns = descriptors(source, points), target.data.flatten(1)
        product = timed(partial(torch.matmul, queries, columns), runs, 1)
        calls = {"match": partial(match, source, target, points)}
        if count < 100:  # all similarities of many points would be 0.3 GB
            calls["similarity"] = partial(similarity, queries, target.data, target.norms)
        results[f"{count} points, {channels} channels"] = {"one_product": product} | {
            name: {**(found := timed(call, runs, 1)), "products": found["cpu"] / product["cpu"]}
            for name, call in calls.items()
        }
    return results


def mutual_neighbours() -> dict[str, Any]:
    """Mutual-NN distance of two 60 x 60 x 3968 maps against one matrix product of the same size."""
    source, target = channels_last(3968, 60), channels_last(3968, 60)
    rows, columns = source.flatten(1).T.contiguous(), target.flatten(1).contiguous()
    measured = compared(timed(lambda: mutual_nn_distance(source, target)), timed(lambda: rows @ columns))
    code = (
        "import re, torch; from geoaware.method.alignment import mutual_nn_distance as f;"
        "kib = lambda key: int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "before = kib('VmRSS'); a, b = torch.randn(3968, 60, 60), torch.randn(3968, 60, 60); f(a, b);"
        "print((kib('VmHWM') - before) / 1024)"
    )
    # Growth of a process from before the two maps (109 MiB) are made to the peak of the call; Linux only.
    if Path("/proc/self/status").exists():
        measured["memory_with_inputs_mib"] = round(float(run([sys.executable, "-c", code])), 1)
    return measured


def instance_distance() -> dict[str, Any]:
    """IMD of two 60 x 60 x 768 maps at 64 x 64, a mask of 1,600 pixels, against a loop over those pixels."""
    source, target = channels_last(768, 60), channels_last(768, 60)
    mask = torch.zeros(64, 64)
    mask[12:52, 12:52] = 1

    def loop() -> float:
        resized = (F.interpolate(each[None], size=(64, 64), mode="bilinear")[0] for each in (source, target))
        unit_source, unit_target = (F.normalize(each, dim=0) for each in resized)
        candidates = unit_target.flatten(1).T.contiguous()
        total = 0.0
        pixels = mask.nonzero().tolist()
        for y, x in pixels:
            total += (candidates - unit_source[:, y, x]).norm(dim=1).min().item()
        return total / len(pixels)

    fast = instance_matching_distance(source, target, mask)
    assert abs(fast - loop()) < 1e-4
    masked = timed(lambda: instance_matching_distance(source, target, mask), runs=11)
    return compared(masked, timed(loop, runs=3, warmup=0))


def command_line() -> dict[str, Any]:
    """Whole processes: help, one match from a cold start, and each further image of a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in (1, 21):
            (folder / str(count)).mkdir()
            for index in range(count):
                image = Image.effect_noise((640, 480), 80).convert("RGB")
                image.save(folder / str(count) / f"{index:02}.jpg")
        first = folder / "1" / "00.jpg"

        def match(target: Path) -> None:
            run(
                [
                    *GEOAWARE,
                    "match",
                    first,
                    target,
                    "--point",
                    "100,100",
                    "--out",
                    folder / "o",
                    "--json",
                    folder / "j",
                ]
            )

        cold = timed(
            lambda: run(
                [*GEOAWARE, "match", first, first, "--point", "100,100", "--out", folder / "one.png"]
            ),
            5,
            1,
        )
        few, many = timed(lambda: match(folder / "1"), 5, 1), timed(lambda: match(folder / "21"), 3, 0)
        return {
            "help": timed(lambda: run([*GEOAWARE, "--help"]), 7, 1),
            "match_cold": cold,
            "each_further_image": {"median": (many["median"] - few["median"]) / 20},
        }


GEOAWARE = [sys.executable, "-m", "geoaware.cli"]


def extraction(folder: Path | None = None) -> dict[str, Any]:
    """The zero-shot features and `lite`, without and with zoom, of an image of 640 x 480, or of each image of
    a folder: reading it excluded, resizing included."""
    images = [Image.effect_noise((640, 480), 80).convert("RGB")]
    images = images if folder is None else [load_image(each) for each in list_images(folder)[:240]]
    matchers = {"zero-shot": geoaware.Matcher.from_pretrained("efficientnet-lite0", device="cpu")}
    for zoom in ("off", "auto"):
        matchers[f"lite, zoom {zoom}"] = geoaware.Matcher.from_pretrained("lite", zoom=zoom, device="cpu")

    def encode(matcher: geoaware.Matcher) -> None:
        for image in images:
            matcher.features([image])

    runs = 15 if folder is None else 3
    return {"images": len(images)} | {
        name: timed(partial(encode, matcher), runs, 1) for name, matcher in matchers.items()
    }


def compared(fast: dict[str, float], reference: dict[str, float]) -> dict[str, Any]:
    """Both timings and how many times faster the first is, by medians."""
    return {"fast": fast, "reference": reference, "times_faster": reference["median"] / fast["median"]}


def run(command: list[Any]) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    "matching": matching,
    "ordinary_maps": ordinary_maps,
    "mutual_nn": mutual_neighbours,
    "imd": instance_distance,
    "command_line": command_line,
    "extraction": extraction,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], help="which to run; all when none is named"
    )
    parser.add_argument("--images", type=Path, help="a folder, for extraction")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results: dict[str, Any] = {"machine": machine()}
    for name in arguments.names or BENCHMARKS:
        given = (arguments.images,) if name == "extraction" else ()
        results[name] = {"what": (BENCHMARKS[name].__doc__ or "").strip(), **BENCHMARKS[name](*given)}
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    results["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
