"""Long work, done batch by batch by this process or by several of this machine.

Work is a `Job`: numbered items in batches. A batch gives the same results whoever does it, because every
process computes in one thread on a CPU. So neither the number of processes nor the order in which they finish
changes a result.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from geoaware.runs.errors import InputError
from geoaware.runs.files import scratch
from geoaware.runs.memory import free_host_memory, keep_freed_memory
from geoaware.runs.progress import Tell

Batch = Sequence[int]
"""Numbers of items that are computed together."""

Done = tuple[Batch, list[Any]]
"""A batch and a result for each of its items."""

FEWEST = 16
"""One more process is not worth its start unless so many batches are left for it."""

_AHEAD = 3
"""Batches that wait for each process, so that none is idle while results are written."""

_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

_log = logging.getLogger(__name__)


@runtime_checkable
class Job(Protocol):
    """Work on numbered items; it is pickled to the processes that take part, each of which does batches."""

    @property
    def device(self) -> str:
        """Type of the device that computes; only on ``"cpu"`` several processes are of use."""

    def load(self, batch: Batch) -> Any:
        """Read what a batch needs; may run in a thread of its own, beside the computation of another."""

    def work(self, batch: Batch, loaded: Any) -> list[Any]:
        """A result for each item, which can be pickled; what went wrong with an item is a result too."""


@runtime_checkable
class Engine(Protocol):
    """What does a job."""

    def results(self, job: Job, batches: Sequence[Batch]) -> Iterator[Done]:
        """Results of these batches, each as it is finished."""


class Local:
    """This process alone, or several processes of one thread each.

    Args:
        workers: how many processes; ``None``: one for each core, as far as there is work and memory for them.

    Raises:
        InputError: fewer than one.
    """

    def __init__(self, workers: int | None = 1) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"at least one process must work, got {workers}", "workers")
        self.workers = workers

    def prepare(self, batches: int, module: str) -> None:
        """Begin what several processes need, beside what is done before their job.

        Args:
            batches: how many there will be; nothing is begun where one process will do them all.
            module: of the job, which every process will need.
        """
        if self._count(batches) > 1:
            _preload(module)

    def _count(self, batches: int) -> int:
        return min(self.workers or min(cores(), batches // FEWEST), batches)

    def results(self, job: Job, batches: Sequence[Batch]) -> Iterator[Done]:
        """Results of these batches, each as it is finished.

        Raises:
            InputError: a process was ended from outside, or several were asked for and the job, because of
                something that the user made, cannot be pickled.
        """
        count = self._count(len(batches))
        if job.device != "cpu" or count < 2:
            return _here(job, batches)
        try:
            payload = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            if self.workers is None:
                return _here(job, batches)
            raise InputError(f"only one process can do this work ({error})", "workers") from None
        if self.workers is None:
            # A process holds what was pickled, and once more what it makes of it, beside the libraries.
            count = min(count, free_host_memory() // (2 * len(payload) + (1 << 29)))
        return _here(job, batches) if count < 2 else _pool(payload, batches, count)


@dataclass(frozen=True)
class _Calls:
    """A job whose results are those of a function of the item."""

    function: Callable[[int], Any]
    device: str

    def load(self, batch: Batch) -> None:
        return

    def work(self, batch: Batch, loaded: None) -> list[Any]:
        return [self.function(item) for item in batch]


def calls(
    engine: Engine, function: Callable[[int], Any], items: Sequence[int], device: str, tell: Tell, what: str
) -> list[Any]:
    """What a function that can be pickled gives for each item, in their order."""
    if isinstance(engine, Local) and len(items) < FEWEST:
        engine = Local()  # done sooner than processes are started
    found = dict[int, Any]()
    for (item,), (result,) in engine.results(_Calls(function, device), [(item,) for item in items]):
        found[item] = result
        tell(what, len(found), len(items))
    return [found[item] for item in items]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, because the last bits of features depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batched(count: int, size: int) -> list[range]:
    """Items 0 … ``count`` - 1 in batches of ``size``."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory is used up."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the second: torch's
        return True
    words = ("out of memory", "can't allocate memory", "size calculation overflowed")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)


class Careful:
    """A job whose batches are done in parts where they do not fit the memory."""

    def __init__(self, job: Job) -> None:
        self.load, self._work = job.load, job.work
        self._most = sys.maxsize

    def work(self, batch: Batch, loaded: Any) -> list[Any]:
        """As the job; what does not fit is halved, and no later part is larger.

        Raises:
            InputError: a single item does not fit.
        """
        if len(batch) <= self._most:
            try:
                return self._work(batch, loaded)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if len(batch) == 1:
                remedy = "use a smaller canvas, half precision (bf16) or the CPU"
                raise InputError(f"one image does not fit the memory; {remedy}")
            self._most = len(batch) // 2
            _log.warning("a batch of %d did not fit the memory: going on with %d", len(batch), self._most)
            _free_device_memory()
        parts = (batch[each.start : each.stop] for each in batched(len(batch), self._most))
        return [each for part in parts for each in self.work(part, self.load(part))]


def _free_device_memory() -> None:
    import torch

    torch.cuda.empty_cache()


def _here(job: Job, batches: Sequence[Batch]) -> Iterator[Done]:
    """In this process; what the next batch needs is read in a second thread meanwhile."""
    careful = Careful(job)
    with ThreadPoolExecutor(1) as reader:
        following = [reader.submit(job.load, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches, start=1):
            loaded = following.pop().result()
            following += [reader.submit(job.load, each) for each in batches[number : number + 1]]
            yield batch, careful.work(batch, loaded)


def _preload(*modules: str) -> None:
    """Begin the process that those of `_pool` are made of, with what all of them need."""
    if _START == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload([__name__, "torch", *modules])
        forkserver.ensure_running()


def _pool(payload: bytes, batches: Sequence[Batch], workers: int) -> Iterator[Done]:
    """In processes of this machine, which end with this one however it ends."""
    with scratch() as folder:
        yield from _pooled(payload, batches, Shared(workers, folder))


def _pooled(payload: bytes, batches: Sequence[Batch], with_whom: Shared) -> Iterator[Done]:
    from concurrent.futures.process import BrokenProcessPool

    _preload()
    context = multiprocessing.get_context(_START)
    others, workers = set(multiprocessing.active_children()), with_whom.processes
    pool = ProcessPoolExecutor(workers, context, _begin, (payload, with_whom))
    left, waiting, said = iter(batches), dict[Future[Any], Batch](), set[Note]()
    try:
        while True:
            while len(waiting) < workers * _AHEAD and (batch := next(left, None)) is not None:
                waiting[pool.submit(do, batch)] = batch
            if not waiting:
                return
            for finished in wait(waiting, return_when=FIRST_COMPLETED).done:
                results, notes = finished.result()
                pass_on(notes, said)
                yield waiting.pop(finished), results
    except (BrokenProcessPool, ConnectionError, EOFError):
        raise InputError(
            "a process at work was ended from outside, perhaps for its memory; run the same command again "
            "with fewer processes",
            "workers",
        ) from None
    finally:
        if waiting:  # what they compute now is of no use any more
            for each in set(multiprocessing.active_children()) - others:
                each.kill()
        pool.shutdown(cancel_futures=True)


Note = tuple[str, int, str]
"""What a process has to tell: the logger's name, the level and the text."""


def pass_on(notes: Iterable[Note], said: set[Note]) -> None:
    """Tell what processes have to tell; what several of them say is told once."""
    for note in notes:
        if note not in said:
            said.add(note)
            name, level, text = note
            logging.getLogger(name).log(level, "%s", text)


class Shared(NamedTuple):
    """How many processes do a job, and the folder in which they leave things for each other, if they can."""

    processes: int = 1
    folder: Path | None = None


# Of a process that takes part: what it works with, or why it cannot, what it has to tell, and with whom.
_job: Careful | Exception | None = None
_notes = BufferingHandler(sys.maxsize)
among = Shared()


def _begin(payload: bytes, with_whom: Shared) -> None:
    """Make a process of `_pool` ready."""
    global among
    among = with_whom
    # An interruption reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(payload)


def prepare(payload: bytes) -> None:
    """Make this process ready to do batches of a pickled job; `do` raises what goes wrong here."""
    global _job
    keep_freed_memory()
    logger = logging.getLogger("geoaware")
    logger.addHandler(_notes)
    logger.setLevel(logging.INFO)
    try:
        import torch

        torch.set_num_threads(1)
        _job = Careful(pickle.loads(payload))
    except Exception as error:
        _job = error


def do(batch: Batch) -> tuple[list[Any], list[Note]]:
    """Do a batch in a process that is ready: results, and what there is to tell."""
    if isinstance(_job, Exception):
        raise _job
    assert _job is not None
    results = _job.work(batch, _job.load(batch))
    notes = [(each.name, each.levelno, each.getMessage()) for each in _notes.buffer]
    _notes.flush()
    return results, notes


def _end_with_parent() -> None:
    """End this process when the one that began it is gone, even if that was killed."""
    from multiprocessing.connection import wait as wait_for

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
