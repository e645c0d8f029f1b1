"""The program as a process of its own that starts in a few milliseconds: a fork of one that has loaded all.

The child is the program: it has its own session, signals, working directory and streams, runs the module
``geoaware`` as ``python -m geoaware`` does, and ends as an interpreter ends. No frame that it leaves behind
on its way out may hold a ``finally`` or ``with``: they would run in the child too.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

Watch = Callable[[str], object]
"""Is told of each operation on a file below the working directory, in the process, before it happens."""

_STOPPED_S = 60.0
"""So long the processes that a killed one had started may live on: they look for it once they are loaded."""

_ENDS_S = 300.0
"""A process that takes longer hangs."""


class Fault(Exception):
    """What the program did wrong."""


@dataclass
class Process:
    """One that runs; its output goes to files."""

    pid: int
    logs: Path
    code: int | None = None
    began: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def ended(self) -> bool:
        """Whether it has; its exit code then is negative for the signal that killed it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.took = os.waitstatus_to_exitcode(status), time.monotonic() - self.began
        return self.code is not None

    def wait(self) -> int:
        """Its exit code, once it and all that it started have ended."""
        until = time.monotonic() + _ENDS_S
        while not self.ended():
            if time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                raise Fault(f"hangs\n{self.told}")
            time.sleep(0.001)
        until = time.monotonic() + _STOPPED_S
        while self.left_behind():
            if time.monotonic() > until:
                left = subprocess.run(
                    ["ps", "-o", "args", "-g", str(self.pid)], capture_output=True, text=True
                )
                os.killpg(self.pid, signal.SIGKILL)
                raise Fault(f"left processes behind:\n{left.stdout}\n{self.told}")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal to it, or to all that it started too."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def stop(self) -> None:
        """Stop it and all that it started; a write that is under way when the signal comes is waited for."""
        self.send(signal.SIGSTOP, group=True)
        if not self.ended():
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                self.code, self.took = os.waitstatus_to_exitcode(status), time.monotonic() - self.began

    def left_behind(self) -> bool:
        """Whether a process that it started lives on without it."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def told(self) -> str:
        """Its standard error so far."""
        return (self.logs / "stderr").read_text(errors="replace")

    @property
    def printed(self) -> str:
        """Its standard output so far."""
        return (self.logs / "stdout").read_text(errors="replace")


def start(
    words: tuple[str, ...],
    folder: Path,
    watch: Watch | None = None,
    leave: Callable[[], object] | None = None,
) -> Process:
    """Run the program in a folder, and ``leave`` as its process ends; the child does not come back."""
    logs = folder.with_name(f"{folder.name}.logs")
    for each in (folder, logs, folder.with_name("tmp")):
        each.mkdir(exist_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Process(pid, logs)
    os.setsid()
    os.chdir(folder)
    for descriptor, name in enumerate(("/dev/null", logs / "stdout", logs / "stderr")):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ |= {"TMPDIR": str(folder.with_name("tmp")), "COLUMNS": "120"}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = ["geoaware", *words]
    if watch is not None:
        sys.addaudithook(_hook(str(folder), watch))
    if leave is not None:
        atexit.register(leave)
    runpy.run_module("geoaware", run_name="__main__", alter_sys=True)
    sys.exit(0)


def load(modules: list[str]) -> None:
    """Import what the program would."""
    import torch

    torch.set_num_threads(1)
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # a child need not look through all this at its end


_EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _hook(folder: str, watch: Watch) -> Callable[[str, tuple[object, ...]], None]:
    """Tells of the operations that change files; numbers in names, which may be of chance, become ``#``."""

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event not in _EVENTS or not isinstance(given[0], str | bytes | os.PathLike):
            return
        if event == "open" and not (isinstance(given[2], int) and given[2] & _WRITES):
            return
        path = os.path.normpath(os.path.join(folder, os.fsdecode(given[0])))  # noqa: PTH118 (may be bytes)
        if path.startswith(folder + os.sep):
            watch(f"{event} {re.sub('listener-.*|[0-9a-f]{4,}|[0-9]+', '#', path[len(folder) + 1 :])}")

    return hook
