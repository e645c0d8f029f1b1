"""Whole processes: killed again and again, and several that train together."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from geoaware.runs import log
from tests.command_line import geoaware
from tests.training.post_processor.test_loop import lines, traces
from tests.training.tiny import settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
KILLS = 5


def start(config: Path, out: Path, *more: str, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command = [
        sys.executable,
        "-m",
        *(launcher if processes > 1 else []),
        "geoaware.cli",
        "train",
        str(config),
    ]
    return subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu", *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def here(config: Path, out: Path) -> str:
    """The same in this process, which is quicker; what it told."""
    done = geoaware("train", config, "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return done.stderr


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out, error


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def steps_done(folder: Path) -> int:
    """As the log has them, which is written through at every checkpoint."""
    found = log.read(folder) if (folder / log.FILE).exists() else []
    return found[-1]["step"] if found else 0


def test_killed_five_times_at_random(data: Path, cache: Path, tmp_path: Path) -> None:
    steps = 120
    content = settings(data, cache, stages__0__steps=steps, validation__every=15, save_every=4)
    config = write(tmp_path / "run.yaml", content)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    here(config, whole)
    chance = random.Random()
    seen = []
    for number in range(KILLS):
        process = start(config, killed)
        # Anywhere in its part of the run, so that every attempt gets some way.
        wanted = steps * number // (KILLS + 1)
        while steps_done(killed) < wanted + 1:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        seen.append(steps_done(killed))
    assert seen[0] > 0, "killed before the first checkpoint only"
    assert "going on at step" in here(config, killed)
    assert traces(killed) == traces(whole), f"killed after steps {seen}"


@pytest.mark.skipif(importlib.util.find_spec("torch.distributed.run") is None, reason="no torchrun here")
def test_two_processes_are_one_with_the_whole_batch(data: Path, cache: Path, tmp_path: Path) -> None:
    content = settings(
        data, cache, stages__0__steps=10, stages__0__batch=4, stages__0__accumulate=2, network__dropout=0.0,
        log_every=1, validation__every=5, loss__distillation=0.5,
    )  # fmt: skip
    config = write(tmp_path / "run.yaml", content)
    here(config, tmp_path / "one")
    out, error = finish(start(config, tmp_path / "two", processes=2))
    assert out == f"{tmp_path / 'two' / 'best'}\n", "one process speaks"
    assert error.count("best weights") == 1
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line["step"] for line in one] == [*range(1, 6), 5, *range(6, 11), 10]
    for a, b in zip(one, two, strict=True):
        # The length of the gradient is the first to show a ReLU that falls on the other side of 0.
        assert b.pop("gradient", 0) == pytest.approx(a.pop("gradient", 0), rel=0.02)
        assert b == pytest.approx(a, rel=1e-4), "the two curves part"
    # A finished run goes on from its end in both, and begins anew in both.
    before = traces(tmp_path / "two")
    finish(start(config, tmp_path / "two", processes=2))
    assert traces(tmp_path / "two") == before
    (tmp_path / "two" / "best" / "mark").touch()
    finish(start(config, tmp_path / "two", "--restart", processes=2))
    assert traces(tmp_path / "two") == before
