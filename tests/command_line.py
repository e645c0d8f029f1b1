"""The command line as a user calls it: as a program, or inside this process, where no torch need be loaded.

>>> geoaware("match", a, b, "--point", "5,5").stdout  # doctest: +SKIP
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jaxtyping

from geoaware import cli
from geoaware.data import images

Done = subprocess.CompletedProcess[str]


def program(*arguments: object, cwd: Path | None = None) -> Done:
    """In a process of its own, for what this one cannot show; it takes two seconds to load torch."""
    command = [sys.executable, "-m", "geoaware.cli", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def geoaware(*arguments: object, cwd: Path | None = None) -> Done:
    """In this process, without the type checks, as users run it."""
    words, before, unchecked = (
        ["geoaware", *map(str, arguments)],
        Path.cwd(),
        jaxtyping.config.jaxtyping_disable,
    )
    with (
        mock.patch.dict(os.environ, COLUMNS="120"),
        mock.patch.object(sys, "argv", words),
        outputs() as told,
        fresh_state(),
    ):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            os.chdir(cwd or before)
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            jaxtyping.config.update("jaxtyping_disable", unchecked)
            os.chdir(before)
    return Done(words, code, *told[:2])


def assert_refused(done: Done, *parts: str) -> None:
    """Exit code 2, one or two lines on standard error, no traceback, nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr


@contextmanager
def outputs(folder: Path | None = None) -> Iterator[list[str]]:
    """Catch both outputs, and by a file in the folder what lies below Python; told when the block ends."""
    told: list[str] = []
    streams, kept = (sys.stdout, sys.stderr), [os.dup(number) for number in (1, 2)]
    caught = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in streams]
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = caught
            yield told
        finally:
            sys.stdout, sys.stderr = streams
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
            told += [each.buffer.getvalue().decode() for each in caught]  # type: ignore[attr-defined]
            file.seek(0)
            told.append(file.read().decode(errors="backslashreplace"))


@contextmanager
def fresh_state() -> Iterator[None]:
    """What a process keeps between two runs is as at its start; warnings are shown as often as they come."""
    logger = logging.getLogger("geoaware")
    handlers, level = logger.handlers[:], logger.level
    images._said.clear()
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield
        finally:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")
