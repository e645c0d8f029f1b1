"""Work whose results go into one file, in a way that an interruption cannot harm.

Finished items are appended to ``FILE.part``, one whole line at a time, as they are finished. When all are
there, ``FILE`` is written in the order of the items, and the part file goes. A killed run leaves at worst a
last line cut off; the next run drops it, checks that it would do the same work, and goes on.

A run may keep its lines in ``FILE.records``: a later one that has more items, or makes another result of
them, does only what is missing.

Where ``FILE`` is at a URL, ``FILE.part`` is a folder of objects: nothing can be appended to these.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from geoaware.runs.errors import InputError
from geoaware.runs.files import (
    PART,
    check_own,
    check_same_run,
    clear_drafts,
    digest_of,
    discard,
    is_alive,
    open_part,
    reading_part,
    record_line,
    replacing,
    scratch,
    writing,
)
from geoaware.runs.places import is_remote
from geoaware.runs.progress import Tell, silent
from geoaware.runs.tables import check_own_table, is_table
from geoaware.runs.work import Batch, Engine, Job, Local, one_thread

HEAD, OWNER = "head.json", "owner.json"
"""Objects of a `RecordFolder`: which run it is, and which process is at work on it."""

EACH, SECONDS = 500, 10.0
"""An object of lines is written when so many wait for it, or so long after the last one."""

KEPT = ".records"
"""Ends the name of the file with the lines of a finished run."""

_LINES = re.compile(r"[0-9]{9}-[0-9]{9}-[0-9a-f]{16}\.jsonl")

_log = logging.getLogger(__name__)


class Run(ABC):
    """Work with its result: what makes two runs the same, and what stands in the file.

    Args:
        about: what tells the run from others, as it comes back from JSON.
        count: how many items there are.
        names: of the items, as their lines have them; read when there are lines.

    Attributes:
        what: what is done, for the progress.
        begins: how every result begins, white space aside.
        part_begins: how every file of what is done so far begins.
        depth: levels that a message on differing runs looks into.
        reusable: whether its lines are kept when it has ended.
    """

    what: str
    begins: str
    part_begins: str
    depth = 2
    reusable = False

    def __init__(self, about: Mapping[str, Any], count: int, names: Iterable[str]) -> None:
        self.about, self._count, self._names = about, count, names

    def __len__(self) -> int:
        return self._count

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The numbers of the items by their names."""
        return {name: place for place, name in enumerate(self._names)}

    @property
    @abstractmethod
    def job(self) -> Job:
        """The work, as processes do it; asked for when some of it is left. A result is a line of JSON."""

    @abstractmethod
    def batches(self) -> Sequence[Batch]:
        """All items, once each, in the order of work."""

    @abstractmethod
    def is_current(self, goal: Path) -> bool:
        """Whether a whole result is of this run; if not, and it may not be replaced, `InputError`."""

    def head(self) -> str:
        """First line of a part file: which run it is. Long preparations may be part of making it."""
        return record_line(self.about)

    def check_head(self, content: Any, part: Path) -> None:
        """Make sure that a part file's first line is of this run, and take from it what was prepared."""
        check_same_run(content, self.about, part, self.depth)

    @abstractmethod
    def place(self, content: Any) -> int:
        """The number of the item that a line is of; any error says that the line is damaged."""

    @abstractmethod
    def write(self, draft: Path, records: Records) -> None:
        """Write the result from the lines of all items."""

    def keeps(self, line: str) -> bool:
        """Whether a line that has come is kept; if not, the next run tries its item again."""
        return True


def complete(
    run: Run, goal: Path, engine: Engine | None = None, *, restart: bool = False, tell: Tell = silent
) -> None:
    """Do what is left of a run, and write its result. A whole result of the same run is left as it is.

    Args:
        run: the work.
        goal: the file to write; beside it ``.part`` holds what is done so far, ``.records`` what was kept.
        engine: what does the work; this process if not given.
        restart: discard what an earlier run left instead of going on.
        tell: told of every item.

    Raises:
        InputError: files of another run are in the way, or in use.
    """
    part, kept = _part(goal), _kept(goal) if run.reusable else None
    if is_table(goal):
        check_own_table(goal, run.part_begins)
    else:
        check_own(goal, run.begins)
    check_own(part / HEAD if is_remote(part) else part, run.part_begins)
    if kept:
        check_own(kept, run.part_begins)
    current = goal.exists() and not restart and run.is_current(goal)
    if current:
        tell(run.what, len(run), len(run))
        clear_drafts(goal)
    elif goal.exists() and not restart and kept and kept.exists() and not is_unchanged(goal, goal):
        text = f"{goal}: was changed after it was written; choose another place, or restart"
        raise InputError(text, "restart")
    # A run that was killed at its very end may have left its lines.
    if not current or (kept and part.exists() and not kept.exists()):
        with (RecordFolder if is_remote(part) else Records)(part, run, restart) as records:
            if restart:
                discard(goal)
                if kept:
                    discard(kept)
            if kept and kept.exists():
                records.take(kept, run)
            if not current:
                carry_out(run, records, engine or Local(), tell)
                with replacing(goal) as draft:
                    run.write(draft, records)
            if kept and len(records) == len(run):
                records.keep(kept, goal)
    remove_part(part)


def is_unchanged(goal: Path, result: Path) -> bool:
    """Whether a file is still as the run that made ``goal`` left it, as far as its lines were kept."""
    try:
        with _kept(goal).open("rb") as file:
            known = json.loads(file.readline())["results"]
        return bool(known[result.name] == digest_of(result))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def note_made(goal: Path, made: Path) -> None:
    """Note how a file is that was made of the result of a finished run, for `is_unchanged`."""
    kept = _kept(goal)
    if kept.exists():
        with kept.open("rb") as file, replacing(kept) as draft, draft.open("wb") as copy:
            head = json.loads(file.readline())
            copy.write(_head_line(head, {**head["results"], made.name: digest_of(made)}))
            shutil.copyfileobj(file, copy)


def _head_line(head: Mapping[str, Any], results: Mapping[str, str]) -> bytes:
    return json.dumps({**head, "results": results}, separators=(",", ":")).encode() + b"\n"


def _part(goal: Path) -> Path:
    return goal.with_name(goal.name + PART)


def _kept(goal: Path) -> Path:
    return goal.with_name(goal.name + KEPT)


def carry_out(run: Run, records: Records, engine: Engine, tell: Tell = silent) -> None:
    """Do what is left of a run. Batches are computed whole, so that they are always the same ones."""
    with one_thread():
        if records.head is None:
            records.begin(run.head())
        left = [batch for batch in run.batches() if any(place not in records for place in batch)]
        tell(run.what, len(records), len(run))
        for batch, lines in engine.results(run.job, left) if left else ():
            for place, line in zip(batch, lines, strict=True):
                if place not in records and run.keeps(line):
                    records.put(place, line)
                    tell(run.what, len(records), len(run))


@runtime_checkable
class Lines(Protocol):
    """What a result is written from: the first line's content, and the lines of the items in their order."""

    head: Any

    def lines(self) -> Iterator[bytes]:
        """The lines of the items, in their order."""


class Records:
    """The lines of the items that are finished, in a part file, which is locked while it is open.

    Only where each line stands is in memory.

    Args:
        path: the file; folders that are missing are made.
        run: whose lines they are.
        restart: empty it.

    Attributes:
        head: what the first line says; ``None`` if nothing has been done yet.

    Raises:
        InputError: it cannot be written, is in use, is damaged, or is of another run.
    """

    def __init__(self, path: Path, run: Run, restart: bool = False) -> None:
        self.path = path
        self.head: Any = None
        self._results = dict[str, str]()
        self._places, self._count = array("q", [-1]) * len(run), 0
        self._file = open_part(path, restart)
        try:
            self._read(run)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        if kind is not None and self.head is None:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and self._places[place] >= 0

    def __len__(self) -> int:
        return self._count

    def begin(self, line: str) -> None:
        """Write the first line."""
        self._append(line)
        self.head = json.loads(line)

    def put(self, place: int, line: str) -> None:
        """Keep the line of an item; from here on a killed process cannot lose it."""
        self._note(place, self._append(line))

    def lines(self) -> Iterator[bytes]:
        """The lines of the items, in their order."""
        for place in filter(lambda each: each >= 0, self._places):
            self._file.seek(place)
            yield self._file.readline()

    def take(self, kept: Path, run: Run) -> None:
        """Take over the lines of a finished run that are missing here."""
        with kept.open("rb") as file:
            for number, line in enumerate(file, start=1):
                with reading_part(f"{kept}, line {number}"):
                    content = json.loads(line)
                    if number == 1:
                        run.check_head(content, kept)
                        self._results = dict(content["results"])
                        if self.head is None:
                            self.begin(line.decode())
                    elif (place := run.place(content)) not in self:
                        self.put(place, line.decode())

    def keep(self, kept: Path, goal: Path) -> None:
        """Keep the lines in their order, and how the result is that was made of them."""
        with replacing(kept) as draft, draft.open("wb") as file:
            file.write(_head_line(self.head, {**self._results, goal.name: digest_of(goal)}))
            file.writelines(self.lines())

    def _append(self, line: str) -> int:
        """Where a line begins that is handed to the operating system whole.

        Names that are not UTF-8 are written as JSON writes them in ASCII.
        """
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(line.encode(errors="backslashreplace"))
        self._file.flush()
        return begin

    def _note(self, place: int, begin: int) -> None:
        if place < 0 or self._places[place] >= 0:
            raise ValueError(place)
        self._places[place] = begin
        self._count += 1

    def _read(self, run: Run) -> None:
        """Find what is done; what follows the last line's end was being written, and is cut off."""
        begin = self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            with reading_part(f"{self.path}, line {number}"):
                content = json.loads(line)
                if number == 1:
                    run.check_head(content, self.path)
                    self.head = content
                else:
                    self._note(run.place(content), begin)
            begin += len(line)
        self._file.truncate(begin)


class RecordFolder(Records):
    """A folder at a URL with the first line in one object and the others in many, some in each.

    Objects are written whole, under names made of their items, so that a killed run loses at most what was
    finished in the last `SECONDS`. All lines are in a file of this machine too while the folder is open. A
    second process that works on the same folder is told of the first one; both write the same lines.

    Args:
        folder: it; nothing need be there.
        run: whose lines they are.
        restart: empty it.

    Raises:
        InputError: it cannot be written to, is damaged, or is of another run.
    """

    def __init__(self, folder: Path, run: Run, restart: bool = False) -> None:
        self.folder, self._waiting, self._last = folder, dict[int, str](), time.monotonic()
        self._local = ExitStack()
        super().__init__(self._local.enter_context(scratch()) / "lines", run)
        try:
            self._claim()
            self._fetch(run, restart)
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        try:
            self.flush()
            with suppress(OSError, InputError):  # it is only for others to know
                (self.folder / OWNER).unlink(missing_ok=True)
        finally:
            super().__exit__(kind)
            self._local.close()

    def begin(self, line: str) -> None:
        """Write the first line."""
        self._write(HEAD, line)
        super().begin(line)

    def put(self, place: int, line: str) -> None:
        """Keep the line of an item; from `flush` on a killed process cannot lose it."""
        super().put(place, line)
        self._waiting[place] = line
        if len(self._waiting) >= EACH or time.monotonic() - self._last >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        if self._waiting:
            mark = hashlib.sha256(json.dumps([*self._waiting]).encode()).hexdigest()[:16]
            name = f"{min(self._waiting):09}-{max(self._waiting):09}-{mark}.jsonl"
            self._write(name, "".join(self._waiting.values()))
            self._waiting.clear()
        self._last = time.monotonic()

    def _write(self, name: str, text: str) -> None:
        with writing(self.folder / name):
            (self.folder / name).write_bytes(text.encode(errors="backslashreplace"))

    def _claim(self) -> None:
        """Tell of a process that is at work here, and say that this one is."""
        owner = self.folder / OWNER
        mine = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T %z")}
        if owner.exists():
            with reading_part(str(owner)):
                other = json.loads(owner.read_bytes())
                if other["host"] != mine["host"] or is_alive(int(other["process"])):
                    who = "process {process} on {host}, since {since}".format_map(other)
                    _log.warning("%s: another process may be at work here (%s)", self.folder, who)
        self._write(OWNER, json.dumps(mine))

    def _fetch(self, run: Run, restart: bool) -> None:
        """Find what is done; what has only a first line is begun anew, as with a file."""
        names = [each.name for each in self.folder.glob("*")]
        done = [each for each in names if _LINES.fullmatch(each)]
        if restart or not done:
            remove_part(self.folder, keep=(OWNER,))
            return
        head = self.folder / HEAD
        if HEAD not in names:
            raise InputError(f"{head}: is missing; restart to begin anew", "restart")
        with reading_part(str(head)):
            text = head.read_bytes().decode()
            run.check_head(json.loads(text), head)
        super().begin(text)
        for each in done:
            for number, line in enumerate(BytesIO((self.folder / each).read_bytes()), start=1):
                with reading_part(f"{self.folder / each}, line {number}"):
                    place = run.place(json.loads(line if line.endswith(b"\n") else b""))
                    if place not in self:  # two processes may have done the same
                        super().put(place, line.decode())


def remove_part(part: Path, keep: Sequence[str] = ()) -> None:
    """Remove what an earlier run left of its work; in a folder only what is of a run, its head last."""
    if not is_remote(part):
        part.unlink(missing_ok=True)
        return
    names = {each.name for each in part.glob("*")}
    for each in [*filter(_LINES.fullmatch, names), *({HEAD, OWNER} & names - {*keep})]:
        (part / each).unlink(missing_ok=True)
