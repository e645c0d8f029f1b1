"""Writing files whole or not at all, and files that a run appends to and goes on with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from geoaware.runs.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` if all went well.

    The temporary file keeps the suffix of ``path``, for writers that choose the format by it. Missing parent
    folders are made. When the block raises, nothing is left behind and an older file stays as it was.

    Raises:
        InputError: the folder cannot be written to, or ``path`` is a folder.
    """
    goal = Path(path)
    if goal.is_dir():
        raise InputError(f"{goal}: is a folder; give the name of a file to write")
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=goal.parent, prefix=f".{goal.stem}.", suffix=f".part{goal.suffix}"
        )
    except OSError as error:
        raise InputError(f"{goal}: cannot be written ({error.strerror}); choose another place") from None
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(goal)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind in a folder: files that `replacing` never renamed."""
    for draft in folder.rglob(".*.part*"):
        draft.unlink(missing_ok=True)


def append_line(file: BinaryIO, line: str) -> None:
    """Hand a whole line to the operating system: from here on a killed process cannot lose it."""
    file.write(line.encode())
    file.flush()


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, depth: int = 2) -> None:
    """Make sure that what lies at ``path`` is of the run that goes on with it.

    Args:
        found: what the file says of its run.
        wanted: what this run says of itself.
        path: for the message.
        depth: levels of mappings that the message looks into.

    Raises:
        InputError: they differ; the message names the values that do.
    """
    if found != wanted:
        raise InputError(
            f"{path}: belongs to another run (different: {', '.join(_differing(found, wanted, depth))}); "
            "choose another --out, or give --restart to throw it away"
        )


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any], depth: int) -> list[str]:
    """Dotted names of the values that differ, in the order of ``wanted``."""
    names = []
    for key in {**wanted, **found}:
        one, other = found.get(key), wanted.get(key)
        if one == other:
            continue
        if depth > 1 and isinstance(one, Mapping) and isinstance(other, Mapping):
            names += [f"{key}.{each}" for each in _differing(one, other, depth - 1)]
        else:
            names.append(key)
    return names


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
