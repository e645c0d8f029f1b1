"""What the feature store costs: bytes, time to read, and PCK, against fp32 files and fp32 features.

    python benchmarks/store.py [--dataset pf-willow --root PF-dataset-WILLOW --split test] [--out FILE]

Sizes and times are of random maps shaped like those of ``sd15+dinov2-base``. Times are medians with a warm
page cache, for the two images of a pair. Without --root the PCK is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from geoaware.store.feature_store import FeatureStore
from geoaware.store.stored_file import STORED, SetKey, Stored

SHAPES = ((640, 60, 60), (1280, 30, 30), (1280, 15, 15), (768, 60, 60))
PICTURES = ("0" * 64, "1" * 64)


def median_ms(function: Callable[[], object], runs: int = 41) -> dict[str, float]:
    """Milliseconds of a call after three to warm up: median, smallest, largest."""
    for _ in range(3):
        function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def random_store(folder: Path, stored: Stored) -> FeatureStore:
    """A store of a pair of random images."""
    key = SetKey("random", "random", "0" * 64, "fp32", stored)
    store = FeatureStore(folder / key.folder, key)
    for seed, image in enumerate(PICTURES):
        generator = torch.Generator().manual_seed(seed)
        maps = [torch.randn(shape, generator=generator) for shape in SHAPES]
        store.write(image, "identity", maps, (640, 480))
        torch.save(maps, folder / f"{image}.pt")
    return store


def touched(levels: Any) -> None:
    """Read every value once, so that nothing is left for later."""
    for level in levels:
        level.sum()


def sizes_and_times(folder: Path) -> dict[str, Any]:
    """Bytes of an image and milliseconds to read a pair, stored in each way."""
    results: dict[str, Any] = {}
    stores = {stored: random_store(folder, stored) for stored in STORED}

    def load_fp32() -> list[Any]:
        return [torch.load(folder / f"{image}.pt", weights_only=True) for image in PICTURES]

    results["torch.load, fp32 files"] = {
        "megabytes": (folder / f"{PICTURES[0]}.pt").stat().st_size / 1e6,
        "read_ms": median_ms(load_fp32),
        "read_and_touch_ms": median_ms(lambda: [touched(maps) for maps in load_fp32()]),
    }
    for stored, store in stores.items():

        def read(store: FeatureStore = store) -> list[Any]:
            return [store.read(image).levels for image in PICTURES]

        def read_new(store: FeatureStore = store) -> list[Any]:
            fresh = FeatureStore(store.folder, store.key)
            return [fresh.read(image).levels for image in PICTURES]

        results[stored] = {
            "megabytes": store.path(PICTURES[0]).stat().st_size / 1e6,
            "read_ms": median_ms(read),
            "first_read_ms": median_ms(read_new),
            "read_and_touch_ms": median_ms(lambda read=read: [touched(levels) for levels in read()]),
        }
    # The smallest of both too: how long torch.load takes depends on whether its memory was in use before.
    reference = results["torch.load, fp32 files"]["read_ms"]
    for stored in STORED:
        own = results[stored]["read_ms"]
        results[stored]["times_faster"] = {each: reference[each] / own[each] for each in ("median", "min")}
    return results


def pck(data: Any, name: str, folder: Path) -> dict[str, Any]:
    """PCK of a data set's usual protocol with features as computed and as stored in each way, in per cent."""
    from geoaware.evaluation.predict import PredictSettings, predict
    from geoaware.evaluation.protocols import FOR_BASE
    from geoaware.evaluation.score import score_file
    from geoaware.features import load_extractor
    from geoaware.matcher import Matcher
    from geoaware.store.feature_store import CachedExtractor

    extractor = load_extractor(name, device="cpu")
    settings = PredictSettings(FOR_BASE[data.threshold_base])

    def figures(matcher: Matcher, label: str) -> dict[str, float]:
        path = predict(data, matcher, folder / f"{label}.jsonl", settings)
        result = score_file(path, draws=0)
        return {f"{alpha:g}": 100 * result.value(alpha) for alpha in result.alphas}

    points = sum(len(pair.common_ids) for pair in data.pairs)
    results: dict[str, Any] = {"pairs": len(data.pairs), "points": points}
    results |= {"computed": figures(Matcher(extractor), "computed")}
    for stored in STORED:
        cached = CachedExtractor(extractor, FeatureStore.of(folder / "cache", extractor, stored))
        results[stored] = figures(Matcher(cached), stored)
        change = [abs(results[stored][alpha] - value) for alpha, value in results["computed"].items()]
        results[f"largest change, {stored}"] = max(change)
    return results


def main() -> None:
    from geoaware.data import load
    from geoaware.evaluation.predict import choose_pairs

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of a data set")
    parser.add_argument("--dataset", default="pf-willow")
    parser.add_argument("--split", default="test")
    parser.add_argument("--pairs", type=int, default=300, help="at most so many")
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = {"threads": torch.get_num_threads(), "store": sizes_and_times(Path(name))}
        if given.root is not None:
            data = choose_pairs(load(given.dataset, given.root, given.split), given.pairs)
            about = {"extractor": given.extractor, "dataset": data.name, "split": data.split}
            results["pck"] = {**about, **pck(data, given.extractor, Path(name))}
    text = json.dumps(results, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
