"""A short round on every command: 2,000 runs, the same ones each time; the long one is by hand."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED, RUNS, PART = 0, 2_000, 1_000

pytestmark = [
    pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")
    for package in ("resource", "efficientnet_lite_pytorch", "accelerate", "tensorboard")
]


def fuzz(*words: object) -> str:
    """In a process of its own, without the type checks, the threads and the memory of this one."""
    command = [sys.executable, "-m", "tests.fuzz", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


def test_commands_are_right_before_they_are_spoiled(tmp_path: Path) -> None:
    assert " commands, 0 with faults" in fuzz("--unspoiled", "--place", tmp_path)


@pytest.mark.parametrize("first", range(0, RUNS, PART))
def test_nothing_breaks_a_command(first: int, tmp_path: Path) -> None:
    told = fuzz("--seed", SEED, "--first", first, "--runs", PART, "--place", tmp_path)
    assert f"{PART:,} runs of seed {SEED}, 0 with faults" in told
