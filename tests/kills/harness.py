"""Kill a run again and again, go on after each kill, and compare what comes out with an undisturbed run.

Nothing but the command line and the files in the folder of a run is looked at.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tests.kills.jobs import Job
from tests.kills.program import Fault, Process, load, start

LINE = "interrupted; run the same command again to go on"

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

TIMED = ("seconds",)
"""Keys of a line of ``log.jsonl`` that tell time, and the only values that may differ."""

MEMORIES = ("pictures.jsonl",)
"""Files to which several runs may append the same lines, in any order: a set of lines is compared."""

LOG, BOARD = "log.jsonl", "tensorboard"


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: a share of the run's length after its begin, or after so many changes of files,
    or before the so-manieth operation of a kind on a file; and some milliseconds later."""

    share: float | None = None
    changes: int = 0
    operation: str = ""
    count: int = 0
    later: float = 0.0

    def __str__(self) -> str:
        if self.share is not None:
            return f"at {self.share:.3f} of the length"
        if self.operation:
            return f"before operation {self.count} of: {self.operation}"
        return f"{1000 * self.later:.1f} ms after change {self.changes}"


@dataclass
class Trial:
    """Runs of a job, in folders below one."""

    job: Job
    folder: Path
    chance: random.Random
    say: Callable[[str], None] = print
    expected: dict[str, bytes] = field(default_factory=dict)
    printed: str = ""
    length: float = 0.0
    changes: int = 0
    operations: list[str] = field(default_factory=list)
    before: dict[str, bytes] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Where the disturbed runs work."""
        return self.folder / "killed"

    def undisturbed(self) -> None:
        """Run it twice in peace, to know what comes out, how long it takes and what it does to files.

        Then once more: a finished run is left as it is.
        """
        self.job.make(self.folder / "in")
        for path in (self.folder / "in").rglob("*"):
            os.utime(path, (1e9, 1e9))
        time.sleep(2.1)  # what is younger may change yet, and is not remembered
        first, second = self.folder / "first", self.folder / "second"
        seen, modules = self.folder / "operations", self.folder / "modules"
        descriptor = os.open(seen, os.O_WRONLY | os.O_CREAT)
        process = start(
            self.job.words,
            first,
            watch=lambda what: os.write(descriptor, f"{what}\n".encode()),
            leave=partial(_tell_modules, modules),
        )
        if process.wait() != self.job.code:
            raise Fault(f"ended with {process.code}\n{process.told}")
        os.close(descriptor)
        self.operations = seen.read_text(encoding="utf-8").splitlines()
        self.expected, self.printed = contents(first), process.printed
        load(modules.read_text(encoding="utf-8").splitlines())
        process = start(self.job.words, second)
        self.changes = sum(1 for _ in changes(second, process))
        self.length = time.monotonic() - process.began
        self.check_end(process, second)
        process = start(self.job.words, second)
        process.wait()
        self.check_end(process, second)

    def moments(self, count: int) -> list[Moment]:
        """Half of them spread evenly over the length, the others at operations and changes, all shuffled."""
        chance, timed = self.chance, (count + 1) // 2
        found = [Moment(share=(row + chance.random()) / timed) for row in range(timed)]
        # First each operation once.
        rows = chance.sample(range(len(self.operations)), k=len(self.operations))
        for row in rows[: (count - timed + 1) * 2 // 3]:
            what = self.operations[row]
            found.append(Moment(operation=what, count=self.operations[: row + 1].count(what)))
        while len(found) < count:
            at = chance.randint(1, max(1, self.changes))
            found.append(Moment(changes=at, later=chance.uniform(0, 0.005)))
        chance.shuffle(found)
        return found

    def reach(self, moment: Moment, number: int, group: bool) -> tuple[Process, bool]:
        """Start the run and send it a signal at a moment; whether it had not ended before."""
        count = 0

        def watch(what: str) -> None:
            nonlocal count
            count += what == moment.operation
            if what == moment.operation and count == moment.count:
                os.kill(os.getpid(), number)

        process = start(self.job.words, self.place, watch if moment.operation else None)
        if moment.operation:
            process.wait()
            return process, process.code == -number or process.code == CODES.get(signal.Signals(number))
        if moment.share is not None:
            until = process.began + moment.share * self.length
            while not process.ended() and time.monotonic() < until:
                time.sleep(0.0005)
        else:
            seen = changes(self.place, process)
            for _ in range(moment.changes):
                next(seen, None)
            time.sleep(moment.later)
        reached = not process.ended()
        if reached:
            process.send(number, group)
        process.wait()
        return process, reached

    def disturb(self, moment: Moment, number: int, group: bool) -> Process:
        """Go on with the run and disturb it; if it ends before the moment, look at it and begin anew."""
        for attempt in range(8):
            process, reached = self.reach(moment, number, group)
            if reached:
                return process
            if attempt:
                # A whole run: other processes of the machine may have ended since the last one.
                self.length = process.took
            if attempt > 1 and moment.share is not None:
                moment = replace(moment, share=0.97 * moment.share)
            elif attempt > 1 and moment.changes:  # not every one is seen each time
                moment = replace(moment, changes=max(1, moment.changes * 9 // 10))
            self.finished(process)
        raise Fault(f"ended {moment} again and again")

    def finished(self, process: Process) -> None:
        """Compare with the undisturbed run, and clear the place for the next one."""
        self.check_end(process, self.place)
        self.clear()

    def clear(self) -> None:
        """The next run begins anew."""
        shutil.rmtree(self.place)
        self.before = {}

    def finish(self) -> None:
        """Let the run end in peace."""
        process = start(self.job.words, self.place)
        process.wait()
        self.finished(process)

    def kills(self, count: int) -> None:
        """So many kills; after each the same command goes on."""
        for row, moment in enumerate(self.moments(count)):
            process = self.disturb(moment, signal.SIGKILL, group=self.chance.random() < 0.5)
            if process.code != -signal.SIGKILL:
                # It ended by itself in the very moment of the kill.
                self.check_end(process, self.place)
            now = contents(self.place)
            self.check_whole(now)
            self.check_kept(self.before, now)
            self.before = now
            if now == self.expected:
                self.clear()  # killed after all was done
            self.say(f"kill {row + 1}, {moment}: {len(now)} files, {sum(map(len, now.values()))} bytes")
        self.finish()

    def signals(self, number: signal.Signals, count: int) -> None:
        """Interrupted so many times: one line, the exit code of the signal, and the same bytes in the end."""
        moments = [each for each in self.moments(6 * count) if each.operation or each.changes][:count]
        for moment in moments:
            # A terminal sends to the program and all that it started, `kill` to one process.
            process = self.disturb(moment, number, group=number == signal.SIGINT)
            if process.code in (self.job.code, -number):
                self.check_end(process, self.place, (self.job.code, -number))
                continue
            lines = process.told.splitlines()
            if process.code != CODES[number] or lines.count(LINE) != 1 or lines[-1] != LINE:
                raise Fault(f"{number.name} {moment}: ended with {process.code}\n{process.told}")
            if "Traceback" in process.told:
                raise Fault(f"{number.name} {moment}: a traceback\n{process.told}")
            self.check_whole(contents(self.place))
        self.finish()

    def two_at_once(self) -> None:
        """The second run on the same output is refused and changes nothing, or both come to the same end."""
        one = start(self.job.words, self.place)
        seen = changes(self.place, one)
        for _ in range(max(2, self.changes // 2)):
            next(seen, None)
        one.stop()
        if one.ended():
            raise Fault("ended before another could be started")
        before = contents(self.place)
        logs, kept = one.logs, self.folder / "first.logs"
        logs.rename(kept := kept.with_name("one.logs"))
        other = start(self.job.words, self.place)
        code = other.wait()
        if not self.job.shared:
            last = other.told.splitlines()[-1:]
            if code != 2 or not last or not last[0].startswith("error: ") or "another process" not in last[0]:
                raise Fault(f"a second run at once ended with {code}\n{other.told}")
            if contents(self.place) != before:
                raise Fault("a second run changed files of the first")
        one.logs = kept
        one.send(signal.SIGCONT, group=True)
        one.wait()
        self.finished(one)

    def check_end(self, process: Process, place: Path, codes: tuple[int, ...] = ()) -> None:
        """A run has ended as the undisturbed one did, and left the same files with the same bytes."""
        if process.code not in (codes or (self.job.code,)):
            raise Fault(f"ended with {process.code}, not {self.job.code}\n{process.told}")
        if self.printed and process.code == self.job.code and process.printed != self.printed:
            raise Fault(f"printed {process.printed!r}, undisturbed {self.printed!r}\n{process.told}")
        found = contents(place)
        wrong = differences(found, self.expected)
        for name in [each for each in found if Path(each).name == BOARD]:
            wrong += (
                []
                if curves(place / name) == curves(self.folder / "first" / name)
                else [f"{name}: other curves"]
            )
        if wrong:
            raise Fault("other than undisturbed: " + "; ".join(wrong))
        if left := sorted(each.name for each in place.with_name("tmp").glob("geoaware*")):
            raise Fault(f"left behind in the folder of temporary files: {', '.join(left)}")

    def check_whole(self, now: dict[str, bytes]) -> None:
        """Results are whole or absent."""
        for name, content in now.items():
            result = any(Path(name).match(each) for each in self.job.whole) and not hidden(name)
            if result and content != self.expected.get(name):
                raise Fault(f"{name}: is there and not whole")

    def check_kept(self, before: dict[str, bytes], now: dict[str, bytes]) -> None:
        """What one run has finished the next one does not change: whole lines, but for a head alone."""
        ended = any(name in now for name in self.job.whole)
        for name, content in before.items():
            if not any(Path(name).match(each) for each in self.job.keeps) or hidden(name) or ended or not now:
                continue
            if name.endswith(".part") and name.removesuffix(".part") in now:
                continue  # the next run has finished it
            lines = content[: content.rfind(b"\n") + 1]
            kept = content if name.endswith(".safetensors") else lines if lines.count(b"\n") > 1 else b""
            if not now.get(name, b"").startswith(kept):
                raise Fault(f"{name}: the next run threw finished work away")


def hidden(name: str) -> bool:
    """Whether a path is, or lies in, a hidden one: drafts are."""
    return any(part.startswith(".") for part in Path(name).parts)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what must not depend on kills, by its path; also folders.

    The files of TensorBoard have times in names and contents; `curves` looks at them.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.parent.name == BOARD:
            continue
        found[name] = path.read_bytes() if path.is_file() else b"a folder"
        if path.name == LOG:
            found[name] = untimed(found[name])
        if path.name in MEMORIES:
            found[name] = b"".join(sorted(set(found[name].splitlines(keepends=True))))
    return found


def untimed(log: bytes) -> bytes:
    """The lines of a log in their order, without the values that tell time; half a line stays as it is."""
    lines = []
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            values = json.loads(line)
            line = (
                json.dumps({key: None if key in TIMED else each for key, each in values.items()}).encode()
                + b"\n"
            )
        lines.append(line)
    return b"".join(lines)


def curves(folder: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows, but for the time that a validation took: tag, step and value."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    attempts = [list(LegacyEventFileLoader(str(path)).Load()) for path in folder.iterdir()]
    shown: list[tuple[str, int, float]] = []
    for events in sorted(attempts, key=lambda each: each[0].wall_time if each else 0):
        for event in events:
            if event.HasField(
                "session_log"
            ):  # what an earlier attempt wrote from this step on does not count
                shown = [each for each in shown if each[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return sorted(each for each in shown if each[0] not in TIMED)


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """What differs, a few words each."""
    wrong = [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [f"{name} is left behind" for name in found.keys() - expected.keys()]
    for name in found.keys() & expected.keys():
        if found[name] != expected[name]:
            at = next((n for n, (a, b) in enumerate(zip(found[name], expected[name])) if a != b), None)  # noqa: B905
            sizes = f"{len(found[name])} and {len(expected[name])} bytes"
            wrong.append(f"{name} has other bytes ({sizes}, first at {at})")
    return sorted(wrong)


def changes(folder: Path, process: Process) -> Iterator[None]:
    """Something for each change of the folder's files that is seen, until the process has ended."""
    before = _state(folder)
    while not process.ended():
        now = _state(folder)
        if now != before:
            before = now
            yield None
        time.sleep(0.0005)


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of all files."""
    found, waiting = [], [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
            except FileNotFoundError:
                continue
            found.append((entry.path, state.st_size, state.st_mtime_ns))
    return found


def _tell_modules(path: Path) -> None:
    names = (name for name in sys.modules if name not in ("__main__", "geoaware.__main__"))
    path.write_text("\n".join(names), encoding="utf-8")
