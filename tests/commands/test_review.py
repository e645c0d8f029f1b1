"""``geoaware review`` as a process: what it says, where it listens, what it refuses and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.apps.demo.serving import fetch
from tests.apps.review.made import THREE, write_result
from tests.command_line import Done, assert_refused, geoaware

COMMAND = [sys.executable, "-m", "geoaware.cli", "review"]
PATIENCE = 120


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A review as a program of its own, killed at the end if it still runs."""
    pytest.importorskip("uvicorn", reason="needs uvicorn (pip install 'geoaware[review]')")
    process = subprocess.Popen(
        [*COMMAND, "found.json", "--images", "photos", "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("open http://127.0.0.1:"), line
    return line.split()[1]


def run(folder: Path, *words: str) -> Done:
    return geoaware("review", *words, cwd=folder)


@pytest.mark.slow
def test_a_review_from_start_to_end(tmp_path: Path) -> None:
    write_result(tmp_path, THREE)
    with started(tmp_path) as process:
        where = url(process)
        change = json.dumps({"revision": 0, "accepted": True}).encode()
        assert fetch(where, urlsplit(where).path + "target/0", change)[0] == 200
        second = run(tmp_path, "found.json", "--images", "photos")
        assert_refused(second, "found.reviewed.json: another process is at work on it")
        port = str(urlsplit(where).port)
        busy = run(tmp_path, "found.json", "--images", "photos", "--out", "other.json", "--port", port)
        assert_refused(busy, f"cannot listen at 127.0.0.1, port {port}", "(--port)")
        next_ones = run(tmp_path, "found.json", "--images", "photos", "--suggest", "1")
        assert (next_ones.returncode, next_ones.stdout) == (0, "003.png\n")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    assert "3 objects, 0 accepted; changes go to found.reviewed.json" in said
    assert said.endswith("ended; 1 of 3 accepted\n")
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["found.json", "found.reviewed.json", "photos"], "and no lock"


def test_what_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path, THREE)
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert_refused(run(tmp_path, "found.json"), "001.png: no such image, likewise 002.png", "(--images)")
    (tmp_path / "own.json").write_text("{}")
    foreign = run(tmp_path, "found.json", "--images", "moved", "--out", "own.json")
    assert_refused(foreign, "own.json: exists and was not written by geoaware review", "(--out)")
    same = run(tmp_path, "found.json", "--images", "moved", "--out", "found.json")
    assert_refused(same, "found.json: is what is read from; choose another place")
    assert_refused(run(tmp_path, "found.parquet"), "found.parquet: no such file")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["found.json", "moved", "own.json"]


def test_without_the_extra(tmp_path: Path) -> None:
    write_result(tmp_path, THREE)
    code = "import sys; sys.modules['uvicorn'] = None; from geoaware.cli import main; main()"
    words = [sys.executable, "-c", code, "review", "found.json", "--images", "photos", "--port", "0"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "the package 'uvicorn' is not installed: pip install 'geoaware[review]'" in done.stderr
