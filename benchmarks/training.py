"""A training step and an evaluation of the post-processor against the plain way, in the same run.

    python benchmarks/training.py --out benchmarks/results/training.json

The paper's network on random raw maps of its sizes. A step is forward and backward of one pair with all its
pose-variant pairs: the four views (source, target, both mirrored) are refined once each, 15 keypoints, dense
loss on the pair, the double, the single and the self flip, sparse loss on the pair.

* ours: maps enlarged after their 1 x 1 convolutions; similarities of the 15 keypoints.
* plain: maps enlarged first; all 3600 x 3600 similarities and a position for every cell, of which the rows of
  the keypoints are taken, as the released code does.

Both are checked to give the same loss and gradients, then timed in turn. Peak memory is the growth of a fresh
process over what it holds once network and maps are made (Linux only). Goals: a step at most 45 % of the time
and 50 % of the memory, an evaluation at most 75 % of the time. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

from geoaware.method.losses import contrastive_loss, dense_errors
from geoaware.method.matching import read_descriptors, soft_argmax
from geoaware.method.post_processor import PostProcessor

SIDES = (60, 30, 15, 60)
KEYPOINTS = 15
SOURCE, TARGET, FLIPPED_SOURCE, FLIPPED_TARGET = range(4)
WAYS = ("ours", "plain")

DenseErrors = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Flip:
    """A pose-variant pair: which views, its weight, and whether the labels are exchanged between the two."""

    source: int
    target: int
    weight: float
    exchanged: bool


FLIPS = (
    Flip(SOURCE, TARGET, 1.0, False),
    Flip(FLIPPED_SOURCE, FLIPPED_TARGET, 1.0, False),
    Flip(FLIPPED_SOURCE, TARGET, 1.0, True),
    Flip(FLIPPED_SOURCE, SOURCE, 0.25, True),
)


@dataclass(frozen=True)
class Bench:
    """Network, raw maps (4, c, h, h) of the four views, and their keypoints (4, k, 2) in cells."""

    network: PostProcessor
    maps: list[Tensor]
    keypoints: Tensor

    @classmethod
    def random(cls) -> Bench:
        torch.manual_seed(0)
        network = PostProcessor()
        maps = [
            torch.randn(4, channels, side, side).contiguous(memory_format=torch.channels_last)
            for channels, side in zip(network.settings.channels, SIDES, strict=True)
        ]
        grid = network.settings.grid
        straight = torch.rand(2, KEYPOINTS, 2) * (grid - 1)
        mirrored = torch.tensor([grid - 1.0, 0.0]) + straight * torch.tensor([-1.0, 1.0])
        return cls(network, maps, torch.cat([straight, mirrored]))

    def step(self, way: str) -> Tensor:
        """Loss of a pair, its gradients left in the network."""
        self.network.zero_grad(set_to_none=True)
        errors = errors_of_keypoints if way == "ours" else errors_of_all_cells
        loss = self.loss(self.refined(way).unbind(), errors)
        loss.backward()
        return loss.detach()

    def refined(self, way: str) -> Tensor:
        """The four refined maps (4, c, p, p)."""
        if way == "plain":
            return enlarged_first(self.network, self.maps)
        return self.network(self.maps)

    def loss(self, views: tuple[Tensor, ...], errors: DenseErrors) -> Tensor:
        """Weighted mean of the dense losses, and the sparse loss of the pair as it is."""
        # Left and right lie next to each other; the last keypoint is its own partner.
        partner = torch.tensor([each ^ 1 for each in range(KEYPOINTS - 1)] + [KEYPOINTS - 1])
        dense = torch.zeros(())
        for flip in FLIPS:
            truth = self.keypoints[flip.target]
            truth = truth[partner] if flip.exchanged else truth
            source_xy = self.keypoints[flip.source]
            found = errors(views[flip.source], source_xy, views[flip.target], truth)
            dense = dense + flip.weight * found.mean()
        pair = [read_descriptors(views[each], self.keypoints[each]) for each in (SOURCE, TARGET)]
        sparse = contrastive_loss(pair[0], pair[1], self.network.logit_scale)
        return dense / sum(flip.weight for flip in FLIPS) + sparse


def enlarged_first(network: PostProcessor, maps: list[Tensor]) -> Tensor:
    """What the network computes, every block at the size of the grid."""
    grid = network.settings.grid
    mixed = torch.zeros(())
    for share, (block,), level in zip(
        network.mixing_weights.softmax(dim=0), network.bottleneck_layers, maps, strict=True
    ):
        x = F.interpolate(level, size=(grid, grid), mode="bilinear")
        straight = x if block.shortcut is None else block.shortcut.norm(block.shortcut(x))
        out = F.relu(block.conv1.norm(block.conv1(x)))
        out = F.relu(block.conv2.norm(block.conv2(out)))
        mixed = mixed + share * F.relu(block.conv3.norm(block.conv3(out)) + straight)
    return mixed


def errors_of_keypoints(source: Tensor, source_xy: Tensor, target: Tensor, target_xy: Tensor) -> Tensor:
    """Distances (k) from the rows of the keypoints alone."""
    return dense_errors(read_descriptors(source, source_xy), target, target_xy)


def errors_of_all_cells(source: Tensor, source_xy: Tensor, target: Tensor, target_xy: Tensor) -> Tensor:
    """The same distances, picked from the positions that all source cells are matched to."""
    unit_source, unit_target = (F.normalize(each.flatten(1), dim=0) for each in (source, target))
    sim = (unit_source.T @ unit_target).unflatten(1, target.shape[1:])
    positions = soft_argmax(sim).T.unflatten(1, source.shape[1:])
    return torch.linalg.vector_norm(read_descriptors(positions, source_xy) - target_xy, dim=-1)


def check(bench: Bench) -> dict[str, float]:
    """Both ways give the same loss, gradients and evaluation; returns how far they are apart."""
    losses, gradients = {}, {}
    for way in WAYS:
        losses[way] = bench.step(way).item()
        gradients[way] = [each.grad for each in bench.network.parameters() if each.grad is not None]
    apart = max(
        ((a - b).norm() / b.norm().clamp_min(1e-6)).item()
        for a, b in zip(gradients["ours"], gradients["plain"], strict=True)
    )
    with torch.inference_mode():
        ours, plain = (bench.refined(way) for way in WAYS)
    found = {
        "loss": losses["ours"],
        "loss_apart": abs(losses["ours"] - losses["plain"]),
        "gradients_apart": apart,
        "evaluation_apart": (ours - plain).abs().max().item(),
    }
    if found["loss_apart"] > 1e-3 or apart > 1e-2 or found["evaluation_apart"] > 1e-4:
        raise SystemExit(f"the two ways disagree: {found}")
    return found


def in_turn(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, Any]:
    """Seconds of each way, run one after the other."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs + 1):
        for way, function in ways.items():
            start = time.perf_counter()
            function()
            if number:  # the first round warms up
                seconds[way].append(time.perf_counter() - start)
    return compared(seconds)


def compared(measured: dict[str, list[float]]) -> dict[str, Any]:
    """Median, smallest and largest of each way, and the ratio of the medians."""
    results: dict[str, Any] = {
        way: {"median": statistics.median(each), "min": min(each), "max": max(each), "runs": len(each)}
        for way, each in measured.items()
    }
    return results | {"ratio": results["ours"]["median"] / results["plain"]["median"]}


def memory(runs: int = 3) -> dict[str, Any]:
    """MiB that a step grows a fresh process by, each way."""
    grown: dict[str, list[float]] = {way: [] for way in WAYS}
    command = [sys.executable, __file__, "--threads", str(torch.get_num_threads()), "--memory-of"]
    for _ in range(runs):
        for way in WAYS:
            done = subprocess.run([*command, way], check=True, stdout=subprocess.PIPE, text=True)
            grown[way].append(float(done.stdout))
    return compared(grown)


def growth(way: str) -> float:
    """MiB between what this process holds before, and its peak during, two steps."""
    bench = Bench.random()
    before = _mib("VmRSS")
    for _ in range(2):  # the second one finds the heap as a training run would
        bench.step(way)
    return round(_mib("VmHWM") - before, 1)


def _mib(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def measure(runs: int) -> dict[str, Any]:
    """Everything, as the module says."""
    bench = Bench.random()
    results: dict[str, Any] = {"machine": machine(), "what": (__doc__ or "").strip(), "check": check(bench)}
    results["step_seconds"] = in_turn({way: lambda way=way: bench.step(way) for way in WAYS}, runs)
    with torch.inference_mode():
        results["evaluation_seconds"] = in_turn(
            {way: lambda way=way: bench.refined(way) for way in WAYS}, 2 * runs
        )
    if Path("/proc/self/status").exists():
        results["step_peak_mib"] = memory()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="of each way, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory_of:
        print(growth(given.memory_of))
        return
    results = measure(given.runs)
    text = json.dumps(results, indent=2)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
