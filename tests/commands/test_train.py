"""`geoaware train` as a user runs it, on the drawn data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from geoaware.commands import train as command
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from tests.command_line import assert_refused, geoaware
from tests.training.tiny import draw_data, settings

for package in ("efficientnet_lite_pytorch", "accelerate", "tensorboard"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file beside its data, with names relative to where the command runs."""
    folder = tmp_path_factory.mktemp("train")
    draw_data(folder / "faces")
    content = settings(Path("faces"), Path("features"), flips={"double": 0, "single": 0, "self": 0})
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "mine.yaml"


def test_a_run_and_its_continuation(config: Path) -> None:
    call = (
        "train",
        "mine.yaml",
        "--device",
        "cpu",
        "--set",
        "loss.window=3",
        "--set",
        "extractor_settings.blocks=[7]",
    )
    done = geoaware(*call, cwd=config.parent)
    assert done.returncode == 0, done.stderr
    best = Path("runs", "mine", "best")
    assert done.stdout == f"{best}\n"
    assert "training" in done.stderr
    assert "6/6" in done.stderr
    assert f"--post-processor {best}" in done.stderr
    assert "best PCK" in done.stderr
    saved = PostProcessor.from_pretrained(config.parent / best)
    assert saved.info["training"]["loss"] == {"window": 3}
    weights = (config.parent / best / "model.safetensors").read_bytes()
    again = geoaware(*call, cwd=config.parent)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert "going on at step 6" in again.stderr
    assert (config.parent / best / "model.safetensors").read_bytes() == weights
    # What was trained can be matched with.
    images = config.parent / "faces" / "images"
    image = json.loads((config.parent / "faces" / "train.json").read_text())["annotations"][0]["keypoints"]
    found = config.parent / "m.json"
    extractor = [
        part
        for key in ("canvas=64", "coarse_canvas=64", "grid=8", "blocks=[7]", "coarse_blocks=[13]")
        for part in ("--set", key)
    ]
    done = geoaware(
        "match", images / "0.png", images / "2.png", "--point", f"{image[0]},{image[1]}", "--json", found,
        "--extractor", "efficientnet-lite0", *extractor, "--post-processor", config.parent / best,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(found.read_text())["post_processor"] == saved.weights_hash()
    assert_refused(
        geoaware(*call, "--set", "seed=5", cwd=config.parent),
        "mine: belongs to another run (different: seed)", "--restart",
    )  # fmt: skip


def test_a_run_that_diverges(config: Path) -> None:
    done = geoaware(
        "train", "mine.yaml", "--device", "cpu", "--out", "wild", "--set", "stages.0.learning_rate=1e30",
        cwd=config.parent,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: failed while working: the loss is nan at step 2, ")
    assert ".png--" in last
    assert "lower learning_rate" in last


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"config": "nothing"}, "nothing: no such file; give a YAML file or one that is shipped: "),
        ({"setting": ["loss.tau=1"]}, "mine.yaml: unknown key 'loss.tau'; there are dense, sparse"),
        ({"setting": ["loss.noise"]}, "--set 'loss.noise' is not of the form key=value"),
        ({"setting": ["stages.1.steps=3"]}, "stages.1.steps: there is no '1' to set something in"),
        ({"setting": ["stages.0.epochs=3"]}, "mine.yaml: stages.0 needs either epochs or steps"),
        ({"setting": ["root=nowhere"]}, "nowhere: no such folder"),
        ({"setting": ["stages.0.data.0.name=imagenet"]}, "unknown data set 'imagenet'; known: spair71k"),
        ({"setting": ["stages.0.data.0.split=tset"]}, "no tset.json or annotations/tset.json"),
        ({"setting": ["stages.0.data.0.options.pears=3"]}, "data set coco has no option 'pears'"),
        ({"setting": ["extractor=resnet"]}, "unknown extractor 'resnet'"),
        ({"setting": ["extractor_settings.depth=3"]}, "efficientnet-lite0 has no setting depth"),
        ({"setting": ["network.width=100"]}, "the width must be a multiple of 128 channels, got 100"),
        ({"device": "cuda:7"}, "the device 'cuda:7' is not available here"),
    ],
)
def test_what_cannot_be_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, given: dict, message: str
) -> None:
    monkeypatch.chdir(config.parent)
    with pytest.raises(InputError) as caught:
        command.train(**{"config": "mine.yaml", "out": tmp_path / "run", "device": "cpu", **given})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert capsys.readouterr().out == ""
