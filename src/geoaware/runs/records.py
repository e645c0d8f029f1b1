"""Work whose results go into one file, in a way that an interruption cannot harm.

Finished items are appended to ``FILE.part``, one whole line at a time, as they are finished. When all are
there, ``FILE`` is written in the order of the items, and the part file goes. A killed run leaves at worst a
last line cut off; the next run drops it, checks that it would do the same work, and goes on.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from geoaware.runs.files import PART, check_own, discard, open_part, reading_part, replacing
from geoaware.runs.progress import Tell, silent
from geoaware.runs.work import Batch, Engine, Job, Local, one_thread


class Run(ABC):
    """Work with its result: what makes two runs the same, and what stands in the file.

    Attributes:
        what: what is done, for the progress.
        begins: how every result begins, white space aside.
        part_begins: how every file of what is done so far begins.
    """

    what: str
    begins: str
    part_begins: str

    @property
    @abstractmethod
    def job(self) -> Job:
        """The work, as processes do it; asked for when some of it is left. A result is a line of JSON."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""

    @abstractmethod
    def batches(self) -> Sequence[Batch]:
        """All items, once each, in the order of work."""

    @abstractmethod
    def check_whole(self, goal: Path) -> None:
        """Make sure that a whole result is of this run; anything else is an `InputError`."""

    @abstractmethod
    def head(self) -> str:
        """First line of a part file: which run it is. Long preparations may be part of making it."""

    @abstractmethod
    def check_head(self, content: Any, part: Path) -> None:
        """Make sure that a part file's first line is of this run, and take from it what was prepared."""

    @abstractmethod
    def place(self, content: Any) -> int:
        """The number of the item that a line is of; any error says that the line is damaged."""

    @abstractmethod
    def write(self, draft: Path, records: Records) -> None:
        """Write the result from the lines of all items."""

    def keeps(self, line: str) -> bool:
        """Whether a line that has come is kept; if not, the next run tries its item again."""
        return True


@runtime_checkable
class Records(Protocol):
    """The lines of the items that are finished."""

    head: Any
    """First line; ``None`` if nothing has been done yet."""

    def begin(self, line: str) -> None:
        """Write the first line."""

    def put(self, place: int, line: str) -> None:
        """Keep the line of an item; from here on a killed process cannot lose it."""

    def __contains__(self, place: object) -> bool: ...

    def __len__(self) -> int: ...

    def lines(self) -> Iterator[bytes]:
        """The lines of the items, in their order."""


def complete(
    run: Run, goal: Path, engine: Engine | None = None, *, restart: bool = False, tell: Tell = silent
) -> None:
    """Do what is left of a run, and write its result. A whole result of the same run is left as it is.

    Args:
        run: the work.
        goal: the file to write; beside it ``.part`` holds what is done so far.
        engine: what does the work; this process if not given.
        restart: discard what an earlier run left instead of going on.
        tell: told of every item.

    Raises:
        InputError: files of another run are in the way, or in use.
    """
    part = goal.with_name(goal.name + PART)
    for path, begins in ((goal, run.begins), (part, run.part_begins)):
        check_own(path, begins)
    if goal.exists() and not restart:
        run.check_whole(goal)
        tell(run.what, len(run), len(run))
        part.unlink(missing_ok=True)
        return
    with RecordFile(part, run, restart) as records:
        if restart:
            discard(goal)
        carry_out(run, records, engine or Local(), tell)
        with replacing(goal) as draft:
            run.write(draft, records)
    part.unlink(missing_ok=True)


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


class RecordFile:
    """A part file, locked while it is open; only where each line stands is in memory.

    Args:
        path: the file; folders that are missing are made.
        run: whose lines they are.
        restart: empty it.

    Raises:
        InputError: it cannot be written, is in use, is damaged, or is of another run.
    """

    def __init__(self, path: Path, run: Run, restart: bool = False) -> None:
        self.path, self.head = path, None
        self._places, self._count = array("q", [-1]) * len(run), 0
        self._file = open_part(path, restart)
        try:
            self._read(run)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RecordFile:
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
