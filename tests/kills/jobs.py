"""Small jobs of the resumable commands: what they read, and the words of the command line.

Each runs in a folder of its own; what it reads lies in ``../in``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tests.apps.transfer.tiny import photos, view, write_sources
from tests.films import LOSSLESS, film
from tests.toys import noise
from tests.training import tiny as training
from tests.training.backbone import tiny as tuning

SMALL = ("canvas=64", "coarse_canvas=64", "grid=8", "blocks=[7]", "coarse_blocks=[13]")
"""The embedded network on a canvas of a few milliseconds."""

NETWORK = ("--extractor", "efficientnet-lite0", "--device", "cpu", *(w for s in SMALL for w in ("--set", s)))


@dataclass(frozen=True)
class Job:
    """A run of a command.

    Attributes:
        words: of the command line.
        make: writes what it reads into a folder.
        whole: patterns of results, which have all their bytes whenever they are there.
        keeps: patterns of files in which a later run may change nothing that an earlier one wrote.
        shared: whether two runs may work on one output at once; else the second is refused.
        code: with which an undisturbed run ends: 1 where one of the images cannot be read.
    """

    words: tuple[str, ...]
    make: Callable[[Path], object]
    whole: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    shared: bool = False
    code: int = 0


def _faces(folder: Path) -> None:
    training.draw_data(folder / "faces")


def _poses(folder: Path) -> None:
    """Three template sets, and eleven images, one of them no image."""
    for number, name in enumerate(("first", "second", "third")):
        (folder / "sets" / name).mkdir(parents=True)
        for place, pose in enumerate(("left", "right", "front", "back")):
            noise(64, 64, 10 * number + place).save(folder / "sets" / name / f"{pose}.png")
    _images(folder / "photos", 10)


def _images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        noise(60 + number, 64, 100 + number).save(folder / f"{number:03}.png")
    (folder / "004.jpg").write_text("no image")


def _scene(folder: Path) -> None:
    """Two annotated views of a scene, and twenty others, one of them no image."""
    write_sources(folder / "sources", [(0, 0), (9, 9)])
    (photos(folder / "photos", 20) / "004.png").write_text("no image")


def _film(folder: Path) -> None:
    """Two annotated views of a scene, and a film of it."""
    write_sources(folder / "sources", [(0, 0), (9, 9)])
    film(folder / "clip.mp4", [view(each, each) for each in range(24)], options=LOSSLESS)


def _training(folder: Path, **changes: Any) -> None:
    """Six steps in two stages, with validation; features go to the folder of the run."""
    _faces(folder)
    content = training.settings(Path("../in/faces"), Path("features"), **changes)
    stage = content["stages"][0]
    content["stages"] = [{**stage, "steps": 4}, {**stage, "steps": 2}]
    _save(folder, content)


def _tuning(folder: Path) -> None:
    tuning.draw_sets(folder)
    chosen = {"name": "coco", "root": "plain", "split": "val", "options": {"pairs": 1}}
    content = tuning.settings(Path("../in"), Path("decoded"), validation={"data": [chosen], "every": 3})
    _save(folder, content)


def _save(folder: Path, content: dict[str, Any]) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


ONE = ("--workers", "1")

JOBS = {
    "predict": Job(
        ("predict", "--dataset", "coco", "--root", "../in/faces", "--split", "train", "--out", "found.jsonl",
         *NETWORK, "--post-processor", "none", *ONE),
        _faces,
        whole=("found.jsonl",),
        keeps=("found.jsonl.part",),
    ),
    "evaluate": Job(
        ("evaluate", "--dataset", "coco", "--root", "../in/faces", "--split", "train", "--out", "found.jsonl",
         "--csv", "figures.csv", "--markdown", "figures.md", *NETWORK, "--post-processor", "none", *ONE),
        _faces,
        whole=("found.jsonl", "figures.csv", "figures.md"),
        keeps=("found.jsonl.part",),
    ),
    "pose": Job(
        ("pose", "../in/photos", "--templates", "../in/sets", "--out", "poses.json",
         *NETWORK, "--post-processor", "none", *ONE),
        lambda folder: _poses(folder),
        whole=("poses.json",),
        keeps=("poses.json.part",),
        code=1,
    ),
    "transfer": Job(
        ("transfer", "../in/sources/source.json", "../in/photos", "--out", "found.json",
         "--review", "review.html", "--keep-guesses", *NETWORK, "--post-processor", "none", *ONE),
        _scene,
        whole=("found.json", "review.html"),
        keeps=("found.json.part",),
        code=1,
    ),
    "video": Job(
        ("transfer", "../in/sources/source.json", "../in/clip.mp4", "--every", "2", "--frames", "frames",
         "--out", "found.slp", *NETWORK, "--post-processor", "none", *ONE),
        _film,
        whole=("found.slp", "found.coco.json", "frames/clip/*.png"),
        keeps=("found.coco.json.part",),
    ),
    "extract": Job(
        ("extract", "../in/photos", "--cache", "features", "--poses", "identity,flip", *NETWORK, *ONE),
        lambda folder: _images(folder / "photos", 20),
        whole=("features/*/??/*.safetensors",),
        keeps=("features/*/??/*.safetensors",),
        shared=True,
        code=1,
    ),
    "train": Job(("train", "../in/mine.yaml", "--out", "run", "--device", "cpu"), _training),
    "tune": Job(("tune", "../in/mine.yaml", "--out", "run", "--device", "cpu"), _tuning),
    "ablation": Job(
        ("ablation", "../in/mine.yaml", "--out", "runs", "--seeds", "1", "--rows", "without flips",
         "--markdown", "ablation.md", "--device", "cpu"),
        _training,
        whole=("ablation.md", "runs/*/*/*-*.jsonl"),
        keeps=("*.jsonl.part",),
    ),
    "reproduce": Job(
        ("reproduce", "table3", "--dataset", "coco", "--root", "../in/faces", "--split", "train",
         "--out", "results", *NETWORK, "--post-processor", "none", "--pairs", "12"),
        _faces,
        whole=("results/predictions/*/*.jsonl", "results/table3.json", "results/table3.md"),
        keeps=("*.jsonl.part",),
        shared=True,  # each of its files is locked while it is written, not the folder
    ),
}  # fmt: skip

for _name in ("predict", "pose", "transfer", "extract"):
    _words = JOBS[_name].words
    JOBS[f"{_name}-by-two"] = replace(JOBS[_name], words=(*_words[: -len(ONE)], "--workers", "2"))
