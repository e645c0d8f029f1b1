"""Whole runs on the drawn data set: what they learn, how they stop and go on, what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from geoaware.method.post_processor import PostProcessor
from geoaware.runs import checkpoint, log
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.store.feature_store import FeatureStore
from geoaware.training.kit import DivergedError, load_validation
from geoaware.training.post_processor import load_config, loop
from geoaware.training.post_processor.loop import train
from geoaware.training.post_processor.step import Step
from geoaware.training.validation import Score
from tests.training.tiny import CHANNELS, TRAIN, VAL, config, draw_data, edit

for package in ("efficientnet_lite_pytorch", "accelerate", "tensorboard"):
    pytest.importorskip(package)

NO_FLIPS = {"double": 0, "single": 0, "self": 0}
QUICK = {"flips": NO_FLIPS, "stages__0__batch": 1}
QUIET = {"network__dropout": 0.0, "loss__noise": 0.0}

Run = Callable[..., Path]


@pytest.fixture
def run(data: Path, cache: Path, tmp_path: Path) -> Run:
    """Train with changed settings into a folder of that name; gives the folder of the weights."""

    def start(
        name: str = "run", stop_at: int = 0, restart: bool = False, say: Any = None, **changes: Any
    ) -> Path:
        def interrupt(what: str, done: int, *_: object) -> None:
            _interrupt(what == "training" and done >= stop_at)

        return train(
            config(data, cache, **changes), tmp_path / name, device="cpu", restart=restart,
            tell=interrupt if stop_at else silent,
            say=say or (lambda _: None),
        )  # fmt: skip

    torch.set_num_threads(1)
    return start


def _interrupt(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log but for the time that validation took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in log.read(folder)]


def validated(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["validation"]) for line in lines(folder) if "validation" in line]


def traces(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves and that must not depend on interruptions."""
    files = [
        path for part in ("best", "last") for path in sorted((folder / part).glob("*")) if path.is_file()
    ]
    found: dict[str, Any] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    found[checkpoint.FILE] = (folder / checkpoint.FILE).read_bytes()
    return found | {"log": lines(folder), "config": (folder / "config.yaml").read_text()}


# What a run does


def test_a_run_and_what_it_leaves(run: Run, tmp_path: Path) -> None:
    best = run()
    folder = tmp_path / "run"
    assert best == folder / "best"
    expected = {"config.yaml", "checkpoint.safetensors", "log.jsonl", "tensorboard", "best", "last"}
    assert {path.name for path in folder.iterdir()} == expected
    assert load_config(folder / "config.yaml").network.width == 128
    found = lines(folder)
    assert [line["step"] for line in found] == [2, 3, 3, 4, 6, 6]
    assert [step for step, _ in validated(folder)] == [3, 6]
    trained = [line for line in found if "dense" in line]
    assert all(line["dense"] > 0 and line["sparse"] > 0 and line["gradient"] > 0 for line in trained)
    # The first two rates of six, of which 1.8 rise from a 25th of the peak.
    rates = [line["learning_rate"] for line in trained]
    first = [1.25e-3 / 25, 1.25e-3 * 0.997]
    assert rates[0] == pytest.approx(sum(first) / 2, rel=0.02)
    assert rates == [rates[0], *sorted(rates[1:], reverse=True)]
    assert list((folder / "tensorboard").glob("events*"))
    saved = PostProcessor.from_pretrained(best)
    assert saved.settings.channels == CHANNELS
    assert saved.info["extractor"].startswith("efficientnet-lite0(canvas=64")
    assert saved.info["training"]["network"] == {"width": 128, "grid": 8}
    step, value = max(validated(folder), key=lambda each: (each[1], -each[0]))
    assert saved.info["validation"]["step"] == step
    assert saved.info["validation"][". val standard"] == pytest.approx(100 * value, abs=0.01)
    last = PostProcessor.from_pretrained(folder / "last")
    assert all(
        torch.equal(a, b) for a, b in zip(last.parameters(), _network(folder).parameters(), strict=True)
    )


def _network(folder: Path) -> PostProcessor:
    network = PostProcessor(CHANNELS, 128, 8)
    saved = checkpoint.load(folder)
    assert saved is not None
    network.load_state_dict(saved.network)
    return network


def test_the_same_run_twice_is_the_same_and_another_seed_another(run: Run, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(name, seed=seed)
    assert traces(tmp_path / "a") == traces(tmp_path / "b")
    a, c = (weights(tmp_path / name / "last") for name in "ac")
    assert not a["mixing_weights"].equal(c["mixing_weights"])


def test_dropout_is_drawn_anew_at_every_step(run: Run, tmp_path: Path) -> None:
    """With weights that do not move, a single pair and no noise, nothing else tells the steps apart."""
    one = {"name": "coco", "root": ".", "split": "val", "options": {"pairs": 1}}
    still: dict[str, Any] = {"data": [one], "steps": 4, "learning_rate": 1e-12}
    changes = {"flips": NO_FLIPS, "validation": {}, "loss__noise": 0.0, "log_every": 1}
    # Each of the two kinds of animals has one pair, and each epoch both.
    counts = []
    for name, dropout in (("dropped", 0.2), ("whole", 0.0)):
        run(name, stages=[still], network__dropout=dropout, **changes)
        counts.append(len({line["dense"] for line in lines(tmp_path / name)}))
    assert counts == [4, 2]


def test_a_finished_run_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    run()
    before = traces(tmp_path / "run")
    said: list[str] = []
    assert run(say=said.append) == tmp_path / "run" / "best"
    assert traces(tmp_path / "run") == before
    assert "going on at step 6" in said


@pytest.mark.parametrize("grouped", ["pair", "images"])
def test_a_single_batch_can_be_learnt_by_heart(run: Run, data: Path, tmp_path: Path, grouped: str) -> None:
    images = json.loads((data / "train.json").read_text())["images"][:4:2]
    few = [(images[0], images[1]), (images[1], images[0])][: 1 if grouped == "pair" else 2]
    listed = tmp_path / "few.jsonl"
    listed.write_text(
        "".join(json.dumps({"source": a["file_name"], "target": b["file_name"]}) + "\n" for a, b in few)
    )
    chosen = {"name": "coco", "root": ".", "split": "train", "options": {"pairs": str(listed)}}
    stage: dict[str, Any] = {"data": [chosen], "steps": 120, "learning_rate": 3e-3}
    if grouped == "images":
        stage |= {"images": 2}
    run(
        stages=[stage], validation={"data": [chosen], "every": 1000, "alpha": 0.05}, log_every=10,
        save_every=1000, network__grid=16, flips=NO_FLIPS if grouped == "pair" else {}, **QUIET,
    )  # fmt: skip
    losses = [line["dense"] for line in lines(tmp_path / "run") if "dense" in line]
    assert validated(tmp_path / "run") == [(120, 1.0)]
    assert losses[-1] < 0.05 * losses[0]


def test_best_weights_are_those_of_the_highest_validation_figure(
    run: Run, tmp_path: Path, monkeypatch
) -> None:
    """The first of equals; later, lower figures do not replace them."""
    figures = iter([0.2, 0.5, 0.5, 0.1])

    def validate(*_: object) -> list[Score]:
        return [Score(next(figures), float("nan"))]

    monkeypatch.setattr(loop, "validate", validate)
    best = run(validation__every=1, stages__0__steps=4, **QUICK)
    assert validated(tmp_path / "run") == [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)]
    assert PostProcessor.from_pretrained(best).info["validation"] == {"step": 2, ". val standard": 50.0}
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert "NaN" not in text, "which is no JSON"


def test_validating_does_not_change_what_is_learnt(run: Run, tmp_path: Path) -> None:
    """Dropout is on again afterwards."""
    run("often", validation__every=1, **QUICK)
    run("never", validation={}, **QUICK)
    often, never = (weights(tmp_path / name / "last") for name in ("often", "never"))
    assert all(torch.equal(often[name], never[name]) for name in often)


def test_without_validation_the_last_weights_count(run: Run, tmp_path: Path) -> None:
    assert run(validation={}, **QUICK) == tmp_path / "run" / "last"
    assert not (tmp_path / "run" / "best").exists()


def test_another_data_set_beside_the_first_gives_other_weights(run: Run, tmp_path: Path) -> None:
    twice = [{"name": "coco", "root": ".", "split": each} for each in ("train", "val")]
    run("one", validation={}, **QUICK)
    run("two", validation={}, **QUICK, stages__0__data=[twice[0], {**twice[1], "share": 0.9}])
    a, b = (weights(tmp_path / name / "last") for name in ("one", "two"))
    assert not a["mixing_weights"].equal(b["mixing_weights"])


# Going on


STAGES: dict[str, Any] = {
    "stages": [
        {"data": [{"name": "coco", "root": ".", "split": "train"}], "steps": 7, "batch": 2, "accumulate": 2},
        {
            "data": [{"name": "coco", "root": ".", "split": "train", "options": {"pairs": 3}}],
            "images": 3, "mix": "schema", "steps": 6, "learning_rate": 5e-4,
        },
    ],
    "validation__every": 4, "save_every": 3, "log_every": 2,
    "loss__distillation": 0.5, "matching__blend": 0.7, "network__context": (2,), "network__centred": True,
}  # fmt: skip


def test_an_interrupted_run_goes_on_bit_for_bit(run: Run, tmp_path: Path) -> None:
    """In the middle, on and after checkpoints, at the change of stages, right before the end."""
    run("whole", **STAGES)
    wanted = traces(tmp_path / "whole")
    assert [line["step"] for line in wanted["log"] if "dense" in line] == [2, 3, 4, 6, 7, 8, 9, 10, 12, 13]
    for number, stops in enumerate(([1], [3, 5], [4, 7], [8, 12, 13])):
        name = f"stopped {number}"
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                run(name, stop_at=stop, **STAGES)
        said: list[str] = []
        run(name, say=said.append, **STAGES)
        done = max(each for each in (0, 3, 4, 6, 7, 8, 9, 12, 13) if each <= stops[-1])
        assert (f"going on at step {done}" in said) == (done > 0)
        assert traces(tmp_path / name) == wanted, f"stopped at {stops}"


def test_what_a_killed_run_wrote_after_its_checkpoint_is_dropped(run: Run, tmp_path: Path) -> None:
    run("whole", **QUICK)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=2, **QUICK)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "dense": 99.0}) + '\n{"step": 3, "valid')
    # Killed at step 3, while the best weights were written, before its checkpoint.
    shutil.copytree(tmp_path / "whole" / "last", folder / "best")
    (folder / "best" / "README.md").unlink()
    run(**QUICK)
    assert traces(folder) == traces(tmp_path / "whole")


def test_a_damaged_log_is_told_and_nothing_is_lost(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(**QUICK, log_every=1)
    path = folder / "log.jsonl"
    path.write_text(path.read_text().replace('{"step": 2', '{"step"= 2', 1))
    before = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    with pytest.raises(InputError, match=r"log\.jsonl: is damaged; restart to begin anew") as caught:
        run(**QUICK, log_every=1)
    assert caught.value.parameter == "restart"
    assert {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()} == before


def test_the_second_stage_goes_on_with_the_weights_of_the_first(run: Run, tmp_path: Path) -> None:
    train_split = {"data": [{"name": "coco", "root": ".", "split": "train"}], "steps": 3}
    run("one", stages=[train_split], flips=NO_FLIPS, validation={})
    run("both", stages=[train_split, {**train_split, "learning_rate": 1e-9}], flips=NO_FLIPS, validation={})
    a, b = (weights(tmp_path / name / "last") for name in ("one", "both"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert [line["step"] for line in lines(tmp_path / "both")] == [2, 3, 4, 6]
    assert checkpoint.load(tmp_path / "both").position == checkpoint.Position(1, 3, 6)  # type: ignore[union-attr]


@pytest.mark.parametrize(("steps", "rising"), [(10, 0.1), (1, 0.3), (2, 0.5)])
def test_any_length_has_a_schedule(run: Run, steps: int, rising: float, tmp_path: Path) -> None:
    run(**QUICK, validation={}, stages__0__steps=steps, stages__0__rising=rising)
    assert lines(tmp_path / "run")[-1]["step"] == steps


def test_epochs_are_of_the_real_length(run: Run, tmp_path: Path) -> None:
    """24 pairs of two kinds of animals, in batches of 5, one and a half times."""
    stage = {"data": [{"name": "coco", "root": ".", "split": "train"}], "epochs": 1.5, "batch": 5}
    run(stages=[stage], flips=NO_FLIPS, validation={})
    assert checkpoint.load(tmp_path / "run").position.total == 8  # type: ignore[union-attr]
    schedule = checkpoint.load(tmp_path / "run").schedule  # type: ignore[union-attr]
    assert schedule["total_steps"] == 8
    run("released", stages=[{**stage, "epochs": 0.25}], validation={}, preset="released")
    released = checkpoint.load(tmp_path / "released")
    assert released is not None
    assert released.position.total == 2
    assert released.schedule["total_steps"] == 2667, "as if there were 53,339 pairs"


def test_a_batch_in_two_parts_is_the_same_batch(run: Run, tmp_path: Path) -> None:
    run("whole", stages__0__batch=4, validation={}, **QUIET)
    run("parts", stages__0__batch=4, stages__0__accumulate=2, validation={}, **QUIET)
    whole, parts = (weights(tmp_path / name / "last") for name in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=2e-5, rtol=1e-3)
    for a, b in zip(*(lines(tmp_path / name) for name in ("whole", "parts")), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_bfloat16(run: Run, tmp_path: Path) -> None:
    """After a run in float32, in the same process."""
    run("exact", **QUICK, **QUIET, log_every=1)
    run("rough", **QUICK, **QUIET, log_every=1, precision="bf16")
    exact, rough = (lines(tmp_path / name)[0] for name in ("exact", "rough"))
    assert rough["dense"] != exact["dense"]
    assert rough["dense"] == pytest.approx(exact["dense"], rel=0.05)
    assert all(each.dtype == torch.float32 for each in weights(tmp_path / "rough" / "last").values())


def test_extractor_settings_from_the_command_line_are_the_same_the_next_time(run: Run) -> None:
    """A list is a tuple there, and a list when it is read from the run's folder."""
    for _ in range(2):
        run(**QUICK, validation={}, extractor_settings__blocks=(7,))


# Starting from weights


def test_a_run_that_starts_from_weights(run: Run, tmp_path: Path) -> None:
    first = run("first", **QUICK)
    slow = {**QUICK, "stages__0__learning_rate": 1e-9, "validation": {}}
    run("second", start=str(first), **slow)
    a, b, fresh = weights(first), weights(tmp_path / "second" / "last"), run("fresh", **slow)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert not torch.allclose(a["mixing_weights"], weights(fresh)["mixing_weights"], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "info", "message"),
    [
        ({"width": 256}, {}, r"has width 256, the run has 128; set network\.width=256"),
        ({"context": (2,)}, {}, r"has context \(2,\), the run has \(\); set network\.context=\(2,\)"),
        (
            {},
            {"extractor": "dinov2-base()"},
            r"was trained on features of dinov2-base\(\), not of efficientnet",
        ),
    ],
)
def test_weights_that_do_not_fit(run: Run, tmp_path: Path, shape: dict, info: dict, message: str) -> None:
    """They are refused before features are extracted, which may take hours."""
    saved = PostProcessor(CHANNELS, **{"width": 128, "grid": 8, **shape})
    saved.info = info
    saved.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=f"saved: {message}"):
        run(start=str(tmp_path / "saved"), cache=str(tmp_path / "cache"), **QUICK)
    assert not (tmp_path / "cache").exists()
    run(cache=str(tmp_path / "cache"), validation={}, **QUICK)


def test_weights_for_other_raw_maps(run: Run, tmp_path: Path) -> None:
    PostProcessor((80, 80), 128, 8).save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=r"saved: takes maps of \(80, 80\) channels, .* gives \(80, 192\)"):
        run(start=str(tmp_path / "saved"), **QUICK)
    with pytest.raises(InputError, match=r"no post-processor at '.*nowhere'"):
        run(start=str(tmp_path / "nowhere"), **QUICK)


# Refusals


def test_the_folder_of_another_run(run: Run, tmp_path: Path) -> None:
    run(**QUICK)
    before = traces(tmp_path / "run")
    with pytest.raises(InputError) as caught:
        run(**QUICK, loss__window=3, stages__0__steps=7)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: belongs to another run (different: loss.window, stages.0.steps); choose "
        "another place, or restart to throw it away"
    )
    assert caught.value.parameter == "restart"
    assert traces(tmp_path / "run") == before
    run("fresh", **QUICK, loss__window=3, validation={})
    run(**QUICK, loss__window=3, validation={}, restart=True)
    assert traces(tmp_path / "run") == traces(tmp_path / "fresh"), "nothing is left of the first run"


@pytest.mark.parametrize("name", ["best/thesis.txt", "last/a", "tensorboard/a", "log.jsonl", "config.yaml"])
@pytest.mark.parametrize("restart", [False, True])
def test_nothing_of_others_is_thrown_away(run: Run, tmp_path: Path, name: str, restart: bool) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("seed: 3\n")
    what = name.partition("/")[0]
    with pytest.raises(InputError, match=f"run: holds {what}, which no such run of geoaware wrote; choose"):
        run(**QUICK, restart=restart)
    assert [each for each in (tmp_path / "run").rglob("*") if each.is_file()] == [path]
    assert path.read_text() == "seed: 3\n"


def test_the_settings_of_a_user_are_not_written_over(
    run: Run, data: Path, cache: Path, tmp_path: Path
) -> None:
    wanted = config(data, cache, **QUICK)
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "config.yaml"
    path.write_text(yaml.safe_dump(wanted.model_dump(mode="json", exclude_defaults=True)))
    before = path.read_text()
    with pytest.raises(InputError, match=r"run: holds config\.yaml, which no such run"):
        run(**QUICK)
    assert path.read_text() == before


def test_two_runs_in_a_folder(run: Run, tmp_path: Path) -> None:
    tried = []

    def second(line: str) -> None:
        if line.startswith("step"):
            for restart in (False, True):
                with pytest.raises(InputError, match="run: another process is at work on it; wait until"):
                    run(**QUICK, restart=restart)
            tried.append(line)

    run(say=second, **QUICK)
    run("alone", **QUICK)
    assert tried
    assert traces(tmp_path / "run") == traces(tmp_path / "alone")


def test_a_damaged_checkpoint(run: Run, tmp_path: Path) -> None:
    run(**QUICK)
    whole = traces(tmp_path / "run")
    path = tmp_path / "run" / checkpoint.FILE
    for content in (path.read_bytes()[:-100], b"", b"nonsense" * 99):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"checkpoint\.safetensors: damaged, .*; restart to") as caught:
            run(**QUICK)
        assert caught.value.parameter == "restart"
    run(**QUICK, restart=True)
    assert traces(tmp_path / "run") == whole


def test_a_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match=r"run: cannot be made .*choose another folder") as caught:
        run(**QUICK)
    assert caught.value.parameter == "out"


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_pair(
    run: Run, tmp_path: Path, monkeypatch
) -> None:
    run("whole", validation={}, **QUICK)
    original, seen = Step.forward, []

    def forward(self: Step, levels: Any, examples: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses, parts = original(self, levels, examples)
        seen.append(examples[0].group.name)
        return losses * (float("nan") if len(seen) == 4 else 1.0), parts

    monkeypatch.setattr(Step, "forward", forward)
    with pytest.raises(DivergedError) as caught:
        run(validation={}, **QUICK)
    assert str(caught.value).startswith(
        f"the loss is nan at step 4, {seen[3]}; the checkpoint before it is kept"
    )
    kept = checkpoint.load(tmp_path / "run")
    assert kept is not None
    assert kept.position.total == 2
    assert all(each.isfinite().all() for each in weights(tmp_path / "run" / "last").values())
    monkeypatch.setattr(Step, "forward", original)
    run(validation={}, **QUICK)
    assert traces(tmp_path / "run") == traces(tmp_path / "whole")


def test_a_gradient_that_is_no_number_stops_the_run(run: Run, tmp_path: Path, monkeypatch) -> None:
    original = Step.forward

    def forward(self: Step, levels: Any, examples: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses, parts = original(self, levels, examples)
        # The root of 0 has an infinite slope, and 0 times that is no number.
        return losses + (losses * 0).sqrt(), parts

    monkeypatch.setattr(Step, "forward", forward)
    with pytest.raises(
        DivergedError, match=r"the gradient is not finite at step 1 \(\d\.png--\d\.png\); the check"
    ):
        run(validation={}, **QUICK)


def test_a_data_set_without_flip_pairs(run: Run, tmp_path: Path) -> None:
    folder = draw_data(tmp_path / "faces")
    edit(folder / "train.json", {"flip_pairs": []})
    with pytest.raises(
        InputError, match=r"coco, split train: has no flip pairs, so mirrored .*flips\.double"
    ):
        run(root=str(folder))
    run(root=str(folder), validation={}, **QUICK)


def test_a_batch_that_cannot_be_shared(run: Run) -> None:
    with pytest.raises(
        InputError, match=r"stages\.0: a batch of 3 cannot be shared by 1 processes in 2 parts"
    ):
        run(stages__0__batch=3, stages__0__accumulate=2)


def test_nothing_in_common(run: Run, tmp_path: Path) -> None:
    folder = draw_data(tmp_path / "faces")
    content = json.loads((folder / "train.json").read_text())
    for annotation in content["annotations"]:
        annotation["keypoints"][3:] = [0] * 12
    edit(folder / "train.json", content)
    with pytest.raises(InputError, match="coco, split train: no pair has 2 visible keypoints in common"):
        run(root=str(folder), **QUICK)


def test_a_missing_and_a_broken_image(run: Run, tmp_path: Path) -> None:
    folder = draw_data(tmp_path / "faces")
    (folder / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png.*\(1 images failed; mend them and run again\)"):
        run(root=str(folder), cache=str(tmp_path / "cache"), **QUICK)
    (folder / "images" / "2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png: no such image \(1 of 8 images are missing\)"):
        run(root=str(folder), **QUICK)


def test_missing_features_are_extracted_and_nothing_else(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run("plain", cache=str(cache), **QUICK)
    store = FeatureStore.open(cache)
    assert len(store.entries()) == TRAIN + VAL
    run("whole", cache=str(cache), stages__0__steps=2)
    entries = store.entries()
    assert len(entries) == 2 * TRAIN + VAL, "mirrored images are for training only"
    before = {each: store.path(each.image, each.pose).stat().st_mtime_ns for each in entries}
    lost = entries[3]
    content = store.path(lost.image, lost.pose).read_bytes()
    store.path(lost.image, lost.pose).unlink()
    run("again", cache=str(cache), stages__0__steps=2)
    assert store.path(lost.image, lost.pose).read_bytes() == content
    after = {each: store.path(each.image, each.pose).stat().st_mtime_ns for each in store.entries()}
    assert {each for each in before if before[each] != after[each]} == {lost}
    assert traces(tmp_path / "again") == traces(tmp_path / "whole")


def test_damaged_features_stop_the_run_and_keep_what_is_done(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run("whole", cache=str(cache), **QUICK)
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=2, cache=str(cache), **QUICK)
    store = FeatureStore.open(cache)
    for entry in store.entries():
        path = store.path(entry.image, entry.pose)
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"identity\.safetensors: damaged or cut off"):
        run(cache=str(cache), **QUICK)
    kept = checkpoint.load(tmp_path / "run")
    assert kept is not None
    assert kept.position.total == 2
    shutil.rmtree(cache)
    run(cache=str(cache), **QUICK)
    assert traces(tmp_path / "run") == traces(tmp_path / "whole")


def test_keypoints_of_a_data_set_can_be_left_out(data: Path, cache: Path, tmp_path: Path) -> None:
    choice = {"name": "coco", "root": ".", "split": "val", "keypoints": ["left eye", "right eye"]}
    (found,) = load_validation(config(data, cache, validation__data=[choice]))
    assert {each for pair in found.pairs for each in pair.common_ids} == {2, 3}
    # A stage trains on what it is told: keypoints that there are not, it refuses.
    wrong = config(data, cache, stages__0__data__0__keypoints=["nose", "beak"])
    with pytest.raises(
        InputError, match="coco, split train: there is no keypoint 'beak'; its keypoints: left"
    ):
        train(wrong, tmp_path / "out")
    # Other keypoints, other labels: another loss from the first step on.
    losses = set()
    for keypoints in (None, ["left ear", "right ear"]):
        given = config(data, cache, stages__0__data__0__keypoints=keypoints, stages__0__steps=1)
        train(given, tmp_path / str(keypoints))
        losses.add(lines(tmp_path / str(keypoints))[0]["dense"])
    assert len(losses) == 2
