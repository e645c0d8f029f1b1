"""One run of the command line inside this process: what it returned, printed and changed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing import util
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import huggingface_hub.constants
import typer

from geoaware import cli
from geoaware.apps.demo import server
from geoaware.apps.serve import server as interface
from geoaware.features import EXTRACTORS, Entry
from geoaware.method import post_processor
from geoaware.runs import progress
from tests.command_line import fresh_state, outputs

LONGEST_S = 60
"""A run that takes longer hangs."""

MEMORY = 4 * 2**30
"""Bytes that a process may ask for, mapped files and libraries included."""

_LOOPS = ("predicting", "annotating", "training")
"""What the work that can be interrupted in the midst tells that it does."""


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code.
        out, err: what it printed.
        below: what libraries printed below Python.
        trouble: what went wrong outside the command line's own frame; empty if nothing did.
    """

    code: int
    out: str
    err: str
    below: str = ""
    trouble: str = ""


class _Hang(BaseException):
    """The run takes too long."""


@dataclass
class _Guard:
    """Refuses to let the interpreter change anything outside a folder, as the system would."""

    folder: str = ""
    events: tuple[str, ...] = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink")
    streams: tuple[str, ...] = ("/dev/", "/proc/self/fd/")
    inside: tuple[str, ...] = field(default=())

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._refuse(path)
        elif event in self.events:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    self._refuse(path)

    def _refuse(self, path: str | bytes) -> None:
        whole = os.path.realpath(os.fsdecode(path))
        if not whole.startswith((self.folder, *self.streams)):
            raise PermissionError(13, "Permission denied", os.fsdecode(path))


_guard = _Guard()


@lru_cache(1)
def commands() -> Any:
    """The tree of commands, which is built once a process; from then on writing is guarded."""
    sys.addaudithook(_guard)
    return typer.main.get_command(cli.app)


@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """The toy among the extractors, nobody to ask for weights, and no server."""
    tree = commands()
    with contextlib.ExitStack() as stack:
        for each in (
            mock.patch.dict(EXTRACTORS, {"toy": Entry("tests.fuzz.toy", "Toy", "a toy")}),
            mock.patch.object(server, "serve"),
            mock.patch.object(interface, "serve"),
            mock.patch.object(typer.main, "get_command", return_value=tree),
            mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
            mock.patch.object(post_processor, "hub_options", return_value={"local_files_only": True}),
        ):
            stack.enter_context(each)
        yield


def run(words: list[str], folder: Path, stop: int | None = None) -> Ended:
    """The command line with these words in a folder; interrupted after ``stop`` steps of long work."""
    util.get_temp_dir()  # of processes that work together, which stays when the folder of the run goes
    before = Path.cwd(), sys.argv, tempfile.tempdir
    temporary = folder / "tmp"
    temporary.mkdir()
    with _patched(), outputs(folder.parent) as told, fresh_state(), _limited(stop):
        try:
            os.chdir(folder)
            tempfile.tempdir = str(temporary)
            sys.argv = ["geoaware", *words]
            _guard.folder = str(folder.resolve())
            cli.main()
            ended = Ended(0, "", "", trouble="the command line returned")
        except SystemExit as error:
            ended = Ended(int(error.code or 0), "", "")  # type: ignore[arg-type]
        except BaseException:
            ended = Ended(-1, "", "", trouble=traceback.format_exc())
        finally:
            _guard.folder = ""
            os.chdir(before[0])
            _, sys.argv, tempfile.tempdir = before
    ended.out, ended.err, ended.below = told
    return ended


@contextlib.contextmanager
def _limited(stop: int | None) -> Iterator[None]:
    """End a run that hangs or wants all memory; interrupt one that may rightly take long."""

    import resource  # not on Windows

    def interrupt(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, hang)
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S, LONGEST_S)
        raise KeyboardInterrupt

    def hang(_: int, frame: FrameType | None) -> None:
        raise _Hang(f"after {LONGEST_S} s in {frame}")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + MEMORY, limits[1]))
    before, bars = signal.signal(signal.SIGALRM, hang if stop is None else interrupt), progress.progress_bars
    if stop is not None:
        progress.progress_bars = partial(_stopping, stop)  # type: ignore[assignment]
    # Again and again: what is raised may be caught on its way.
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S if stop is None else LONGEST_S / 6, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        progress.progress_bars = bars


def _addresses() -> int:
    """Bytes that this process has addresses for already; 0 where the system does not say."""
    import resource

    known = Path("/proc/self/statm")
    return int(known.read_text().split()[0]) * resource.getpagesize() if known.exists() else 0


@contextlib.contextmanager
def _stopping(after: int, *_: Any, **__: Any) -> Iterator[progress.Tell]:
    """Bars that nobody sees; they interrupt long work after some steps."""
    told = 0

    def tell(what: str, done: int, *_: Any) -> None:
        nonlocal told
        told += any(each in what for each in _LOOPS) and done > 0
        if told >= after:
            raise KeyboardInterrupt

    yield tell
