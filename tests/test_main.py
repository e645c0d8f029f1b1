"""How the program ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"


def ended(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )


def test_what_was_to_be_done_at_the_end_is_done() -> None:
    """Other threads are waited for, functions of the end run, and what was printed arrives."""
    found = ended(
        """
import atexit, threading
from geoaware.__main__ import main

class Late:
    def __del__(self):
        print("taken apart")

late = Late()
atexit.register(lambda: print("at the end"))
threading.Thread(target=lambda: (threading.main_thread().join(), print("thread"))).start()
main()
""",
        "--version",
    )
    assert found.returncode == 0
    assert found.stdout.splitlines()[1:] == ["thread", "at the end"]
    assert not found.stderr


def test_the_exit_code_is_that_of_the_command() -> None:
    found = ended("from geoaware.__main__ import main; main()", "score", "nowhere.jsonl")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: nowhere.jsonl")


def test_a_reader_that_left_is_no_fault_of_the_program() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "geoaware", "--version"]
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=env)
    os.close(writing)
    assert found.returncode != 0
    assert "Traceback" not in found.stderr
