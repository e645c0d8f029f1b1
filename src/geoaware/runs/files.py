"""Writing files whole or not at all, and files that a run appends to and goes on with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from geoaware.runs.errors import InputError
from geoaware.runs.places import Remote, is_remote, place, real

ABANDONED_S = 24 * 3600.0
"""Seconds after which a draft that a process of another computer has not touched counts as abandoned."""

PART = ".part"
"""Ends the name of a file that is still being written."""

LOCK = ".geoaware.lock"
"""The file that stands for its folder where folders cannot be locked; ends the name of one beside a file."""

_UNREACHED = 1 << 40
_BLOCK = 1 << 20
_MAKE = os.O_RDWR | os.O_CREAT

_DRAFT = re.compile(r"\..*\.geoaware-(?P<host>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{8}\.part(\..*)?")


def refuse_pretender(path: Path) -> None:
    """Find out that a file only stands for the one that is wanted.

    Raises:
        InputError: it is a pointer of Git LFS, or a web page that was saved.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(200).lstrip().lower()
    except OSError:  # missing, or a folder: for others to say
        return
    if begin.startswith(b"version https://git-lfs."):
        raise InputError(f"{path}: is a pointer of Git LFS, not the file; fetch it (git lfs pull)")
    if begin.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: is a web page, not the file; download the file itself (the raw file)")


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file, read in blocks; ``hashlib`` names the algorithms."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        for block in iter(partial(file.read, _BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def as_json(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def record_line(record: Any) -> str:
    """A record as it stands in a file of lines, with the line's end."""
    return as_json(record) + "\n"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` if all went well.

    The temporary file, a draft, keeps the suffix of ``path``, for writers that choose the format by it. Its
    name says which process on which computer writes it, so that `sweep` knows when it is abandoned. Missing
    parent folders are made. When the block raises, nothing is left behind and an older file stays as it was.
    What killed processes left of the same file goes. A link stays, and the file that it leads to is replaced;
    a pipe or a device is written to. What goes to a URL is written on this machine, and put there when it is
    whole.

    Raises:
        InputError: the folder cannot be written to, or ``path`` is a folder.
    """
    wanted = place(path)
    if not is_remote(wanted):
        check_goals(wanted)
    if is_remote(wanted) or _is_stream(wanted):
        with scratch() as folder:
            draft = (folder / "draft").with_suffix(wanted.suffix)
            yield draft
            _pour(draft, wanted)
        return
    goal = Path(os.path.realpath(wanted))
    draft = goal.with_name(draft_name(goal.stem, goal.suffix))
    with writing(wanted):
        goal.parent.mkdir(parents=True, exist_ok=True)
        # The system takes the user's umask off: the process cannot read it without changing it.
        draft.touch(exist_ok=False)
    clear_drafts(goal)
    try:
        yield draft
        draft.replace(goal)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to write to; rename it to ``path`` if all went well.

    It is named and removed as the drafts of `replacing`. Nothing but an empty folder is replaced.

    Raises:
        InputError: the folder cannot be made.
    """
    goal = Path(os.path.realpath(path))
    draft = goal.with_name(draft_name(goal.name))
    with writing(path):
        draft.mkdir(parents=True)
    clear_drafts(goal)
    try:
        with writing(path):
            yield draft
            if goal.is_dir():
                goal.rmdir()  # fails if it is not empty
            draft.rename(goal)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def clear_drafts(path: Path) -> None:
    """Remove what killed processes left of a file."""
    if not is_remote(path):
        goal = Path(os.path.realpath(path))
        for each in _left_in(goal.parent):
            if each.name.startswith(_begin(goal.stem)):
                _remove(each)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this machine, only for this user and for as long; those that killed processes left go."""
    above = Path(tempfile.gettempdir())
    clear_drafts(above / "scratch")
    folder = above / draft_name("scratch")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def without_html(markdown: str) -> str:
    """Markdown in which nothing is HTML: names of categories and files may hold anything."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", markdown)


def _is_stream(path: Path) -> bool:
    """Whether what is written to a path passes on: to a pipe, a device or this process's own output."""
    return _is(path, stat.S_ISFIFO, stat.S_ISCHR) or _output(path) is not None


def _is(path: Path, *kinds: Callable[[int], bool]) -> bool:
    """Whether something of these kinds is at a path."""
    return path.exists() and any(kind(path.stat().st_mode) for kind in kinds)


def _output(path: Path) -> int | None:
    """Which output of this process a path is (``/dev/stdout``, or the file that a shell sends it to)."""
    for descriptor in (1, 2):
        with suppress(OSError):  # one is closed, or nothing is at the path
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
    return None


def _pour(draft: Path, stream: Path) -> None:
    """Copy a draft into a stream, or to a URL."""
    if isinstance(stream, Remote):
        with writing(stream):
            stream.put(draft)
        return
    # Opened by its path, the file behind an output would be written over from its begin.
    output = _output(stream)
    sys.stdout.flush()
    with (
        draft.open("rb") as source,
        open(stream if output is None else output, "wb", closefd=output is None) as goal,
    ):
        shutil.copyfileobj(source, goal)


def check_goals(*goals: Path | None) -> None:
    """Find out before long work whether files can be written; those that are ``None`` are passed over.

    Raises:
        InputError: one is a folder, a disk or a socket, or its folder cannot be written to.
    """
    for goal in [each for each in goals if each is not None]:
        if goal.is_dir():
            raise InputError(f"{goal}: is a folder; give the name of a file to write")
        if isinstance(goal, Remote):
            probe = goal.with_name(draft_name(goal.stem))
            with writing(goal):  # only trying tells
                probe.write_bytes(b"")
                probe.unlink(missing_ok=True)
            continue
        if _is(goal, stat.S_ISBLK, stat.S_ISSOCK):
            raise InputError(f"{goal}: is a disk or a socket; give the name of a file to write")
        if _is_stream(goal):
            continue
        above = next(each for each in Path(os.path.realpath(goal)).parents if each.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(
                f"{goal}: cannot be written ({above} is no folder to write to); choose another place"
            )


@contextmanager
def writing(goal: Path) -> Iterator[None]:
    """Turn what the system says when a file is made, or put to a URL, into an error that names it.

    Raises:
        InputError: it may not be written to, or its folder or bucket cannot be.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{goal}: cannot be written ({error.strerror}); choose another place") from None


def check_apart(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Make sure that no result goes over what is read or over another result, also by another name.

    Pipes and devices may stand for several.

    Raises:
        InputError: one would.
    """
    sources = {_identity(each) for each in read}
    goals: set[object] = set()
    for each in written:
        own = _identity(each)
        if own in sources:
            raise InputError(f"{each}: is what is read from; choose another place for the result")
        if own in goals and not _is_stream(each):
            raise InputError(f"{each}: two results would go there; choose another place for one of them")
        goals.add(own)


def _identity(path: Path) -> object:
    """The same for all names of a file or folder."""
    try:
        if is_remote(path):
            return str(path)
        state = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return state.st_dev, state.st_ino


def draft_name(stem: str, suffix: str = "") -> str:
    """A name that only this process makes, by which `sweep` knows what is abandoned."""
    # A file system limits the length of names, and that of the goal may be near the limit already.
    return f"{_begin(stem)}{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part{suffix}"


def _begin(stem: str) -> str:
    """How the names of all drafts of a file begin."""
    return f".{stem[:40]}.geoaware-"


@lru_cache(maxsize=1024)
def _left_in(folder: Path) -> list[Path]:
    """The abandoned drafts that were in a folder when this process first wrote to it."""
    with suppress(PermissionError):  # a folder may be written to and not be read
        return [path for path in folder.iterdir() if _is_abandoned(path)]
    return []


def sweep(*folders: Path) -> int:
    """Remove the drafts that killed processes left behind, and say how many there were.

    Only files and folders under a `draft_name` are drafts, and only abandoned ones go. On this computer a
    draft is abandoned when no process has the number in its name any more. What other computers do on a
    shared disk cannot be seen, so their drafts are abandoned when nobody has touched them for `ABANDONED_S`.
    The same holds for all drafts on Windows, where asking for a process would end it.

    Folders inside those given are left alone, and a folder that does not exist, or is at a URL, holds no
    drafts. In folders of the user's only drafts of what is written there anew may go: `replacing` sees to it.
    """
    there = [each for each in folders if not is_remote(each) and each.is_dir()]
    drafts = [path for each in there for path in each.iterdir() if _is_abandoned(path)]
    for draft in drafts:
        _remove(draft)
    return len(drafts)


def _remove(draft: Path) -> None:
    """Remove a file or a folder, as far as the system allows it."""
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        with suppress(OSError):
            draft.unlink()


def _is_abandoned(path: Path) -> bool:
    match = _DRAFT.fullmatch(path.name)
    if match is None:
        return False
    try:
        if match["host"] != _host() or os.name != "posix":
            return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:  # finished meanwhile
        return False
    return not is_alive(int(match["process"]))


def is_alive(process: int) -> bool:
    """Whether a process of this computer has this number; on Windows nobody knows, and it counts as alive."""
    try:
        if os.name == "posix":
            os.kill(process, 0)  # signal 0 only asks whether it could be sent
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _host() -> str:
    """This computer's name in eight characters that may stand in any file name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def discard(path: Path) -> None:
    """Remove a file, or the one that a link leads to; the link stays."""
    place(real(path)).unlink(missing_ok=True)


def check_own(path: Path, begin: str) -> None:
    """Make sure that a file, if there is one, may be thrown away: it begins as those of the program do.

    White space does not count, and a file may have been cut off before it was as long as ``begin``.

    Raises:
        InputError: it begins otherwise, or is no file.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    wanted, found = b"".join(begin.encode().split()), b""
    if path.is_file():
        with path.open("rb") as file:
            found = b"".join(file.read(4 * len(begin)).split())[: len(wanted)]
    if not path.is_file() or not wanted.startswith(found):
        raise InputError(f"{path}: exists and was not written by geoaware; choose another file", "out")


def open_part(part: Path, restart: bool = False, keep_all: bool = False) -> BinaryIO:
    """Open the file of what a run has done so far, to be read and appended to; missing folders are made.

    No other process can open it so until it is closed. With ``restart`` it is emptied. So is one that has
    only its head, unless all is to be kept: nothing is lost, and settings that were wrong can be mended.

    Raises:
        InputError: it cannot be written, or is in use.
    """
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("a+b")
    try:
        _lock(file.fileno(), part)
        file.seek(0)
        if restart or not (keep_all or (file.readline() and file.readline().endswith(b"\n"))):
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder, or from a file that is replaced meanwhile.

    Nothing at a URL can be locked.

    Raises:
        InputError: one is there, or a lock cannot be made.
    """
    if is_remote(path):
        yield
        return
    goal = Path(os.path.realpath(path))
    if goal.is_dir():
        # Windows opens no folders.
        file, flags = (goal / LOCK, _MAKE) if sys.platform == "win32" else (goal, os.O_RDONLY)
    else:
        file, flags = goal.with_name(f".{goal.name[:200]}{LOCK}"), _MAKE
    with writing(path):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, flags)
    try:
        _lock(descriptor, path)
        if not file.exists() or not os.path.samestat(os.fstat(descriptor), file.stat()):
            raise _busy(path)  # who held it has just removed the file
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield
    finally:
        if sys.platform == "win32":
            os.close(descriptor)  # what is open is not removed there
        if flags == _MAKE:
            with suppress(OSError):  # another process has opened it meanwhile
                file.unlink()
        if sys.platform != "win32":
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    """Lock an open file or folder; the system ends the lock with the process, however that ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Others cannot read a locked byte there, so it is one that no file reaches.
            os.lseek(descriptor, _UNREACHED, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second on Windows
        raise _busy(path) from None
    except OSError:  # a disk of a network that knows no locks
        pass


def _busy(path: Path) -> InputError:
    return InputError(
        f"{path}: another process is at work on it; wait until it has ended, or choose another place"
    )


@contextmanager
def reading_part(where: str) -> Iterator[None]:
    """Turn whatever goes wrong while a line of a part file is understood into an error with the remedy.

    Raises:
        InputError: it is damaged: no JSON, a value is missing, of another kind or one too many.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: is damaged; restart to begin anew", "restart") from None


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, depth: int = 2) -> None:
    """Make sure that what the file at ``path`` says of its run is what the run that goes on says of itself.

    Raises:
        InputError: they differ; the message names the values that do, as many levels of mappings and lists
            down as ``depth``.
    """
    if found != wanted:
        raise InputError(
            f"{path}: belongs to another run (different: {', '.join(_differing(found, wanted, depth))}); "
            "choose another place, or restart to throw it away",
            parameter="restart",
        )


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any], depth: int) -> list[str]:
    """Dotted names of the values that differ, in the order of ``wanted``."""
    names = []
    for key in {**wanted, **found}:
        one, other = found.get(key), wanted.get(key)
        if one == other:
            continue
        if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            one, other = ({str(row): each for row, each in enumerate(values)} for values in (one, other))
        if depth > 1 and isinstance(one, Mapping) and isinstance(other, Mapping):
            names += [f"{key}.{each}" for each in _differing(one, other, depth - 1)]
        else:
            names.append(key)
    return names
