"""Files of records that are made once: each is there whole or not at all, under a name that says of what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geoaware.runs.files import replacing, sweep
from geoaware.runs.progress import Tell

T = TypeVar("T")
Made = TypeVar("Made")


def records(
    folder: Path, name: str, decided_by: Any, dtype: np.dtype, count: int, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Records on the disk, read when they are looked at; made by ``fill`` if they are not there yet.

    Args:
        folder: of the files.
        name: begin of the file's name.
        decided_by: all that the records follow from; of other values there is another file.
        dtype: of a record.
        count: how many there are.
        fill: writes them into the array that it is given.
    """
    key = hashlib.sha256(json.dumps([dtype.descr, count, decided_by], default=str).encode()).hexdigest()
    path = folder / f"{name}-{key[:16]}.npy"
    if not path.is_file():
        sweep(folder)
        with replacing(path) as draft:
            made = np.lib.format.open_memmap(draft, mode="w+", dtype=dtype, shape=(count,))
            fill(made)
            made.flush()
    return np.load(path, mmap_mode="r")


def file_state(path: Path) -> tuple[str, int, int]:
    """Name, bytes and time of the last change: another one means another content."""
    state = path.stat()
    return path.name, state.st_size, state.st_mtime_ns


def made_by_threads(
    make: Callable[[T], Made], items: Iterable[T], workers: int, tell: Tell, what: str
) -> Iterator[Made]:
    """What ``make`` gives of each item, in their order, with as many made ahead as there are threads."""
    items = list(items)
    with ThreadPoolExecutor(workers) as pool:
        ahead = 2 * workers
        waiting = [pool.submit(make, each) for each in items[:ahead]]
        for done in range(len(items)):
            tell(what, done, len(items))
            ready = waiting.pop(0).result()
            if done + ahead < len(items):
                waiting.append(pool.submit(make, items[done + ahead]))
            yield ready
    tell(what, len(items), len(items))
