"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoaware.errors import InputError


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
