"""What `geoaware reproduce paper` takes for each unit of work, with the paper's features at full size.

    python benchmarks/paper.py --out src/geoaware/configs/rates.json

Networks have their real sizes and random weights, which cost what trained ones do. On a CPU everything runs
in one thread and CPU time is counted: so the figures are those of one core, however busy the machine is.
Elsewhere it is the time that passes. Each part runs in a process of its own, whose peak
of memory is its own. With ``--out OUT/rates.json`` the estimates of a run in OUT rest on this machine's
figures. Needs about 8 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image
from stable_diffusion import clip, networks
from torch import Tensor

from geoaware.data import DataSet
from geoaware.features.captioner import ImplicitCaptioner
from geoaware.features.dinov2 import Dinov2, Dinov2Settings
from geoaware.features.extractor import Extractor, choose_device
from geoaware.features.fused import Fused
from geoaware.features.stable_diffusion import Prompt, StableDiffusion, StableDiffusionSettings
from geoaware.method.keypoints import Schema
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import AnnotatedImage, Keypoints, Pair
from geoaware.runs.settings import parse
from geoaware.store.feature_store import CachedExtractor, FeatureStore
from geoaware.store.memory import weights_size
from geoaware.store.stored_file import encoded_size
from geoaware.studies.costs import kind_of
from geoaware.studies.planned import map_shapes, planned_extractor
from geoaware.studies.study import SetConfig, Study, StudySet
from geoaware.studies.variants import POST_PROCESSOR, ZERO_SHOT, Bench, Variant

PARTS = ("extract", "predict", "train", "build")
IMAGES, PAIRS, KEYPOINTS, STEPS = 6, 12, 12, 4


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """CPU time of this process on a CPU, elsewhere the time that passes."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def peak(device: torch.device) -> int:
    """Bytes: of the device's memory where it has its own, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def full_size() -> Extractor:
    """The paper's features with their real networks and random weights."""
    import transformers

    width, embedding, time_width = 768, 768, 1280
    tensors = {
        "clip_project.linear.weight": torch.randn(width, embedding) / 30,
        "clip_project.linear.bias": torch.zeros(width),
        "clip_project.positional_embedding": torch.zeros(77, width),
        "alpha_cond": torch.zeros(1),
        "time_embed_project.linear.weight": torch.randn(time_width, embedding) / 30,
        "time_embed_project.linear.bias": torch.zeros(time_width),
        "time_embed_project.positional_embedding": torch.zeros(1, time_width),
        "alpha_cond_time_embed": torch.zeros(1),
    }
    prompt = Prompt(torch.zeros(1, 77, width), torch.zeros(32, dtype=torch.uint8))
    settings = StableDiffusionSettings(captioner="random")
    captioner = ImplicitCaptioner(tensors)
    diffusion = StableDiffusion("sd15", settings, *networks(), prompt, captioner, clip())
    dino: Any = transformers.Dinov2Model(transformers.Dinov2Config(image_size=518, patch_size=14))
    parts = [diffusion, Dinov2("dinov2-base", Dinov2Settings(), dino)]
    return Fused(parts).eval().requires_grad_(False)


def photograph(number: int) -> Image.Image:
    """Coarse noise of the size of a photograph of PASCAL VOC."""
    values = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((500, 375), Image.Resampling.BICUBIC)


def extract(device: torch.device, folder: Path) -> dict[str, Any]:
    """One file: an image of `photograph`, encoded, rounded and written."""
    torch.manual_seed(0)
    extractor = full_size().to(device)
    store = FeatureStore.of(folder, extractor)
    image = photograph(0)
    cached = CachedExtractor(extractor, store)
    found: list[tuple[Tensor, ...]] = []
    times = [] if device.type == "cpu" else [seconds(lambda: cached.levels_of([photograph(1)]), device)]
    times.append(seconds(lambda: found.append(cached.levels_of([image])), device))
    shapes = [level.shape[1:] for level in found[0]]
    return {
        "seconds": {"extract": times[-1]},
        "memory": {"extract": peak(device)},
        "size": {"feature file": encoded_size(shapes, "fp16"), "weights": weights_size(extractor)},
    }


def stored(device: torch.device, folder: Path) -> tuple[DataSet, CachedExtractor]:
    """Annotated images and pairs, and an extractor with random maps of them on disk."""
    extractor = planned_extractor({}).to(device)
    store = FeatureStore.of(folder / "features", extractor)
    store.prepare()
    generator, dice = torch.Generator().manual_seed(0), np.random.default_rng(0)
    images = []
    for number in range(IMAGES):
        path, image = folder / f"{number}.png", photograph(number)
        image.save(path)
        xy = torch.from_numpy(dice.uniform((0, 0), (499, 374), (KEYPOINTS, 2)))
        points = Keypoints(tuple(range(KEYPOINTS)), xy, torch.ones(KEYPOINTS, dtype=torch.bool))
        box = (20.0, 20.0, 480.0, 350.0)
        images.append(AnnotatedImage(path.name, path, image.size, "cat", points, box))
        for pose in ("identity", "flip"):
            maps = [torch.randn(shape, generator=generator) for shape in map_shapes({})]
            store.write(store.image(path), pose, maps, image.size)
    names = [f"point {number}" for number in range(KEYPOINTS)]
    schema = Schema(names, {"points": (0, 1)}, ((0, 1),))
    both = [(a, b) for a in images for b in images if a is not b]
    chosen = [both[row] for row in dice.permutation(len(both))[:PAIRS]]
    pairs = [Pair(f"{a.id}>{b.id}", "cat", a, b) for a, b in chosen]
    return DataSet("bench", "test", {"cat": schema}, tuple(pairs), "box"), CachedExtractor(extractor, store)


def predict(device: torch.device, folder: Path) -> dict[str, Any]:
    """A pair of each kind, through the study that the command runs, without memory for features."""
    from geoaware.evaluation.predict import PredictSettings
    from geoaware.evaluation.protocols import get_protocol

    data, extractor = stored(device, folder)
    bench = Bench(extractor, PostProcessor(), memory=0)
    of = StudySet(SetConfig(label="bench", name="bench", split="test"), data, get_protocol("paper"))
    study = Study((of,), bench, folder, PredictSettings(cache_bytes=0))
    found, sizes = dict[str, float](), list[Path]()
    for subject in (ZERO_SHOT, POST_PROCESSOR):
        study.run(of, Variant(subject, window=7, pose="off"))  # reads what is read once
        for variant in (
            Variant(subject, pose="off"),
            Variant(subject, pose="mutual-nn"),
            Variant(subject, window=5, pose="mutual-nn"),
            Variant(subject, pose="imd"),
        ):
            taken = seconds(lambda variant=variant: sizes.append(study.run(of, variant).path), device)
            again = variant.window is not None
            kind = kind_of(variant.subject, variant.pose, again)
            found[kind] = max(found.get(kind, 0.0), taken / PAIRS)  # of the distances, the dearer one
    record = sum(path.stat().st_size for path in sizes) / len(sizes) / PAIRS
    return {
        "seconds": found,
        "memory": dict.fromkeys((ZERO_SHOT, POST_PROCESSOR), peak(device)),
        "size": {"record": round(record)},
    }


def train(device: torch.device, folder: Path) -> dict[str, Any]:
    """A step of the paper's run, read from disk."""
    from geoaware.training.post_processor import loop
    from geoaware.training.post_processor.config import TrainConfig

    data, extractor = stored(device, folder)
    content = {"stages": [{"data": [{"name": "coco", "root": "."}], "steps": STEPS + 1}], "log_every": 1}
    config = parse(TrainConfig, {**content, "cache": str(folder / "features")}, "bench")
    times: list[float] = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    # The run's own functions; only data and extractor are not loaded, but those above.
    loop.kit.load_sets = lambda *_: [data]
    loop.load_extractor = lambda *_, **__: extractor.extractor
    loop.train(config, folder / "run", device=str(device), tell=lambda *_: times.append(clock()))
    steps = [b - a for a, b in zip(times[-STEPS - 1 :], times[-STEPS:], strict=False)]
    size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    return {
        "seconds": {"step": float(np.mean(steps))},
        "memory": {"step": peak(device)},
        "size": {"run": size},
    }


def build(device: torch.device, folder: Path) -> dict[str, Any]:
    """AP-10K's benchmark of as many images as it has."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.data.ap10k_files import full_size as annotations
    from tests.data.ap10k_files import write_files

    from geoaware.data.ap10k_pairs import OFFICIAL_IMAGES
    from geoaware.data.ap10k_pairs import build as built

    write_files(folder, annotations())
    taken = seconds(lambda: built(folder), torch.device("cpu"))
    size = sum(path.stat().st_size for path in (folder / "correspondence").rglob("*") if path.is_file())
    return {"seconds": {"build": taken / OFFICIAL_IMAGES}, "memory": {"build": peak(torch.device("cpu"))},
            "size": {"benchmark": size}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--part", choices=PARTS, help="measure only this, and print it")
    given = parser.parse_args()
    device = choose_device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    if given.part:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(globals()[given.part](device, Path(folder))))
        return
    where = {**machine(), "torch_threads": torch.get_num_threads()}
    name = where["processor"] if device.type == "cpu" else torch.cuda.get_device_name(device)
    results: dict[str, Any] = {
        "source": f"one core of an {name}" if device.type == "cpu" else name,
        "machine": where,
        "seconds": {},
        "memory": {},
        "size": {},
    }
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part, "--device", str(device)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for key, value in json.loads(done.stdout.splitlines()[-1]).items():
            results[key] = results[key] | value if isinstance(value, dict) else value
    text = json.dumps(results, indent=1) + "\n"
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
