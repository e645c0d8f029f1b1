"""Long work on the machines of a Ray cluster (extra ``cluster``)."""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from geoaware._version import __version__
from geoaware.runs.errors import InputError, MissingDependencyError, shortened
from geoaware.runs.optional import require
from geoaware.runs.work import FEWEST, Batch, Done, Job, Local, Note, do, pass_on, prepare

IDLE = 7200.0
"""Seconds without a result after which a run ends: its images kill every actor, or no actor finds room."""

GROUP = 64
"""Most items that an actor does before it sends results."""

_SHARES = 32
"""Groups for each actor, at least, where there are few items; the last ones to finish then end together."""

_PATIENCE = 5.0
"""Seconds until an address counts as dead."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
"""How HTTP/2 begins, which Ray's head speaks: a greeting, and settings of which there are none."""

_SETTINGS = b"\4"
"""The type of what such a server answers first."""

_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Ray reads it when it is loaded. It would print what its nodes have to tell, which its files hold too."""

_Group = list[Batch]
_Sent = tuple[list[tuple[Batch, list[Any], list[Note]]], Exception | None]
"""What an actor sends: batches with their results and notes, and what stopped it."""


class Ray:
    """Actors of one thread each on a Ray cluster; those that are lost are replaced, and their batches redone.

    Images, stores and weights must be found under the same names on every node.

    Args:
        address: ``"auto"``: of the cluster that this machine is part of; else its ``HOST:PORT``.
        workers: how many actors; ``None``: as many as the cluster has CPUs, or GPUs for.
        gpus_per_worker: GPUs of each actor, also a part of one; ``None``: one if the job computes on a GPU.

    Raises:
        InputError: no such cluster, or numbers that make no sense.
        MissingDependencyError: Ray is not installed.
    """

    def __init__(
        self, address: str = "auto", workers: int | None = None, gpus_per_worker: float | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"at least one actor must work, got {workers}", "workers")
        if gpus_per_worker is not None and not 0 <= gpus_per_worker < 1000:
            raise InputError(f"an actor takes 0 or more GPUs, got {gpus_per_worker}", "gpus_per_worker")
        self.workers, self.gpus_per_worker = workers, gpus_per_worker
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        for each in ("ray", "pyarrow"):
            require(each, extra="cluster")
        _connect(address)

    def results(self, job: Job, batches: Sequence[Batch]) -> Iterator[Done]:
        """Results of these batches, each as it is finished.

        Raises:
            InputError: the job cannot be sent, or the cluster cannot do it.
        """
        if len(batches) < FEWEST:
            yield from Local().results(job, batches)
            return
        ray, data = require("ray", "cluster"), require("ray.data", "cluster")
        gpus = self._gpus(job)
        workers = self.workers or _room(ray, gpus)
        payload = ray.put((_versions(), _pickled(job, ray)))
        groups = [{"group": pickle.dumps(group)} for group in _groups(batches, workers)]
        with data.DataContext.current(_context(data, workers)):
            rows = data.from_items(groups, override_num_blocks=len(groups)).map_batches(
                _Actor,
                fn_constructor_args=(payload,),
                batch_size=1,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(size=min(workers, len(groups))),
                num_cpus=1,
                num_gpus=gpus,
            )
        yield from _received(rows.iter_batches(batch_size=None, batch_format="pyarrow"), ray)

    def _gpus(self, job: Job) -> float:
        on_gpu = job.device != "cpu"
        if self.gpus_per_worker and not on_gpu:
            raise InputError(
                "the work was prepared for the CPU; choose the device cuda too, on a node with a GPU",
                "gpus_per_worker",
            )
        return float(on_gpu) if self.gpus_per_worker is None else self.gpus_per_worker


def _connect(address: str) -> None:
    """Make this process part of a cluster, unless it is part of one.

    Raises:
        InputError: there is none.
    """
    ray = require("ray", "cluster")
    if ray.is_initialized():
        return
    given = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if given != "auto":
        _knock(given)
    try:
        with _undisturbed():
            ray.init(given, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        if "find any running Ray instance" in str(error):
            raise InputError(
                "no Ray cluster runs on this machine: start a head with Ray's own program, or work without "
                "(engine local)",
                "address",
            ) from None
        why = shortened(str(error).strip().partition("\n")[0], 200)
        raise InputError(f"{given}: this machine cannot join the cluster there: {why}", "address") from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ray tells what level it logs at, past Python, and puts a handler in the place of the program's own."""
    sys.stderr.flush()
    before = signal.getsignal(signal.SIGTERM)
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        with suppress(ValueError):  # of a thread other than the first, which sets none
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """See whether somebody listens there; Ray itself would take minutes.

    Raises:
        InputError: nobody does, or it is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address or not 0 < int(port) < 65536:
        raise InputError(
            f"{shortened(address)!r} is no address of a cluster; give auto or HOST:PORT", "address"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as there:
            there.sendall(_HELLO)
            if "RAY_USE_TLS" not in os.environ and there.recv(4)[3:] != _SETTINGS:
                raise OSError("something else does")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{address}: no Ray cluster answers there ({why})", "address") from None


def _room(ray: Any, gpus: float) -> int:
    """How many actors the cluster has room for.

    Raises:
        InputError: not for one.
    """
    there = ray.cluster_resources()
    room = int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 0))
    if room < 1:
        what = f"{gpus:g} GPUs" if gpus else "a CPU"
        raise InputError(f"no actor finds {what} on this cluster", "gpus_per_worker" if gpus else None)
    return room


def _pickled(job: Job, ray: Any) -> bytes:
    """The job as it goes to actors, with what is defined in a notebook."""
    try:
        return bytes(ray.cloudpickle.dumps(job))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        why = shortened(str(error).partition("\n")[0], 120)
        raise InputError(f"the work cannot be sent to a cluster ({why})", "engine") from None


def _groups(batches: Sequence[Batch], workers: int) -> Iterator[_Group]:
    """Batches that an actor does in one go: few enough that all actors have work until the end."""
    items = min(max(sum(map(len, batches)) // (workers * _SHARES), 1), GROUP)
    group, size = _Group(), 0
    for batch in batches:
        group.append(batch)
        size += len(batch)
        if size >= items:
            yield group
            group, size = [], 0
    if group:
        yield group


def _context(data: Any, workers: int) -> Any:
    """Ray Data's settings: no bars and banners, and patience with actors that are lost."""
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = max(10, workers)  # a lost node takes many at once
    context.execution_no_progress_timeout_s = IDLE
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":  # to standard error; another writes to a file
            handler.setLevel(logging.CRITICAL + 1)
    return context


def _received(tables: Iterable[Any], ray: Any) -> Iterator[Done]:
    """What actors sent, as it comes."""
    said = set[Note]()
    try:
        for table in tables:
            for sent in table["sent"].to_pylist():
                done, failure = pickle.loads(sent)
                for batch, results, notes in done:
                    pass_on(notes, said)
                    yield batch, results
                if failure is not None:
                    raise failure
    except (
        ray.exceptions.RayError,
        require("ray.data", "cluster").exceptions.ExecutionTimeoutError,
    ) as error:
        raise _explained(error) from None


def _explained(error: Exception) -> InputError:
    """What a user can do about an error of Ray."""
    missing = re.search(r"No module named '([^']+)'", str(error))
    if missing:
        return InputError(_lacking(missing[1]))
    if "TimeoutError" in type(error).__name__:
        what = f"nothing was finished in {IDLE / 60:g} minutes: no actor finds room, or images kill them all"
    else:
        what = shortened(str(error).strip().rpartition("\n")[2], 200)
    return InputError(f"the cluster cannot do the work ({what}); the same command again goes on")


def _lacking(package: str) -> str:
    return f"a node of the cluster lacks the package {package!r}; install there what is installed here"


def _versions() -> dict[str, str]:
    """On what results depend."""
    import numpy
    import torch

    return {"geoaware": __version__, "torch": str(torch.__version__), "numpy": numpy.__version__}


class _Actor:
    """A process of the cluster: has loaded what the work needs, and does groups of batches."""

    def __init__(self, payload: Any) -> None:
        versions, job = require("ray", "cluster").get(payload)
        self._wrong = [
            f"{name} {own}, not {versions[name]}"
            for name, own in _versions().items()
            if versions[name] != own
        ]
        prepare(job)

    def __call__(self, table: Any) -> Any:
        """Do groups, a row each."""
        arrow = require("pyarrow", "cluster")
        sent = [pickle.dumps(self._do(pickle.loads(each))) for each in table["group"].to_pylist()]
        return arrow.table({"sent": arrow.array(sent, arrow.large_binary())})

    def _do(self, group: _Group) -> _Sent:
        done: list[tuple[Batch, list[Any], list[Note]]] = []
        try:
            if self._wrong:
                raise InputError(
                    f"a node of the cluster has {'; '.join(self._wrong)}; install the same there"
                )
            for batch in group:
                done.append((batch, *do(batch)))
        except Exception as error:
            return done, _portable(error)
        return done, None


def _portable(error: Exception) -> Exception:
    """The error as it reaches the user."""
    if isinstance(error, MissingDependencyError):
        return MissingDependencyError(f"{error} (on every node of the cluster)")
    if isinstance(error, ModuleNotFoundError) and error.name:
        return InputError(_lacking(error.name))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
