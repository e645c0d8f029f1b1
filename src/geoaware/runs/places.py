"""Where files are: paths of this machine, and URLs (``s3://bucket/key``) that are read and written by fsspec.

`Remote` is a `Path`, so whoever reads through the methods of a path reads from a URL too. fsspec is imported
when a URL is first used. Credentials are found as its packages find them: environment, profiles, roles.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from geoaware.runs.errors import InputError, MissingDependencyError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a single letter is a drive of Windows
_PASSWORD = re.compile(r"://[^/]*:[^/]*@")


def place(given: str | os.PathLike[str]) -> Path:
    """The path that a text names; that of a URL is a `Remote`.

    Raises:
        InputError: the URL holds a password, or another URL.
    """
    text = os.fspath(given)
    found = None if isinstance(given, Path) else _URL.match(text)
    if found is None:
        return given if isinstance(given, Path) else Path(given)
    if _PASSWORD.search(text):
        raise InputError(
            f"{found[0]}…: a URL may hold no password; give it to the protocol's package, by the environment"
        )
    if "::" in text:
        raise InputError(f"{text}: is a URL in a URL; unpack the file, and give its own place")
    if found[1].lower() == "file":
        return Path(text[found.end() :])
    return Remote(f"{found[1].lower()}://{text[found.end() :]}")


def is_remote(path: object) -> bool:
    """Whether a path is that of a URL."""
    return isinstance(path, Remote)


def absolute(path: Path) -> Path:
    """The path from the root; links are not followed."""
    return path if is_remote(path) else Path(os.path.abspath(path))  # noqa: PTH100


def real(path: Path) -> str:
    """The same text for all paths that lead to a file."""
    return str(path) if is_remote(path) else os.path.realpath(path)


def common_folder(paths: Sequence[Path]) -> Path:
    """The innermost folder that all these folders lie in, given by their paths from the root.

    Raises:
        InputError: some are of this machine and others at a URL, or they are in several buckets.
    """
    if not any(map(is_remote, paths)):
        return Path(os.path.commonpath(paths))
    above = [(each, *each.parents) for each in paths]
    shared = next((each for each in above[0] if all(each in others for others in above)), Path())
    if len(shared.parts) < 2:
        raise InputError(f"{paths[0]} and {paths[-1]} are in no common folder; give those of one bucket")
    return shared


def missing_bucket(path: Path) -> str:
    """For the message that nothing is at a URL: whether its bucket is missing too; empty if not."""
    bucket = Remote(*path.parts[:2])
    try:
        return "" if bucket.exists() else f"; there is no {bucket}, or it may not be listed"
    except (OSError, InputError):
        return ""


class Remote(type(Path())):  # type: ignore[misc]  # PosixPath or WindowsPath
    """A path of a URL. Its first part is the protocol (``s3:``), its second the bucket.

    Folders exist as long as something is in them, as object stores have it. Nothing that is listed is kept.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.parts[0]}//{'/'.join(self.parts[1:])}" if self.parts else "."

    def as_posix(self) -> str:
        """The URL."""
        return str(self)

    def __truediv__(self, key: str | os.PathLike[str]) -> Path:
        if is_remote(key) or Path(key).is_absolute():
            return Path(key) if not isinstance(key, Path) else key
        made: Path = super().__truediv__(key)
        return made

    def __rtruediv__(self, _: object) -> Path:
        return self

    def relative_to(self, *other: Any, **options: Any) -> Path:
        """The path from a folder, with no protocol any more."""
        return Path(*super().relative_to(*other, **options).parts)

    def absolute(self) -> Remote:
        """The same."""
        return self

    def resolve(self, strict: bool = False) -> Remote:
        """The same: no links are followed."""
        return self

    def exists(self, **_: Any) -> bool:
        """Whether something is there; what keeps us from knowing is an error."""
        return self._info() is not None

    def is_file(self, **_: Any) -> bool:
        """Whether an object is there."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self, **_: Any) -> bool:
        """Whether something lies in it."""
        return (self._info() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        """None is known."""
        return False

    def is_fifo(self) -> bool:
        """None is known."""
        return False

    def stat(self, **_: Any) -> os.stat_result:
        """Kind, length and time of the last change, as far as the store says so."""
        found = self._info()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        kind = stat.S_IFDIR if found.get("type") == "directory" else stat.S_IFREG
        changed = next((found[key] for key in ("LastModified", "mtime", "created") if key in found), 0)
        time = int(changed.timestamp()) if isinstance(changed, datetime) else int(changed or 0)
        fine = dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), time * 10**9)
        return os.stat_result((kind, 0, 0, 1, 0, 0, int(found.get("size") or 0), time, time, time), fine)

    def lstat(self) -> os.stat_result:
        """As `stat`."""
        return self.stat()

    def iterdir(self) -> Iterator[Path]:
        """What is directly in the folder."""
        with self._system() as (system, path):
            yield from (self / name for name in _names(system.ls(path, detail=False), path))

    def rglob(self, pattern: str, **_: Any) -> Iterator[Path]:
        """The files in the folder and in those inside it."""
        with self._system() as (system, path):
            inside = [PurePosixPath(name) for name in _names(system.find(path), path)]
        yield from (self / each for each in inside if each.match(pattern))

    def glob(self, pattern: str, **_: Any) -> Iterator[Path]:
        """What matches; the pattern has as many parts as the paths that do."""
        depth = len(PurePosixPath(pattern).parts)
        with self._system() as (system, path):
            inside = [PurePosixPath(name) for name in _names(system.find(path, maxdepth=depth), path)]
        yield from (self / each for each in inside if len(each.parts) == depth and each.match(pattern))

    def sizes(self) -> dict[Path, int]:
        """The files in the folder and in those inside it with their lengths, in their order; none is fine."""
        try:
            with self._system() as (system, path):
                listed = system.find(path, detail=True)
        except FileNotFoundError:
            return {}
        sizes = {next(_names([each], path), ""): about.get("size") for each, about in listed.items()}
        return {self / name: int(sizes[name] or 0) for name in sorted(sizes) if name}

    def open(self, mode: str = "r", *_: Any, **options: Any) -> Any:
        """The object as a file, which is read piece by piece."""
        with self._system() as (system, path):
            return system.open(path, mode, **options)

    def read_bytes(self) -> bytes:
        """The whole object, in one request."""
        with self._system() as (system, path):
            return bytes(system.cat_file(path))

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        """The whole object as text; line ends become ``\\n``."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8", errors).read()

    def write_bytes(self, data: Any) -> int:
        """Put an object there, whole."""
        with self._system() as (system, path):
            system.pipe_file(path, bytes(data))
        return len(data)

    def put(self, file: Path) -> None:
        """Put a file of this machine there, whole."""
        with self._system() as (system, path):
            system.put_file(str(file), path)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: folders exist by what is in them, and no bucket is made."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        try:
            with self._system() as (system, path):
                system.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _info(self) -> dict[str, Any] | None:
        """What the store says of the object or folder; ``None`` if there is none."""
        try:
            with self._system() as (system, path):
                return dict(system.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _system(self) -> Iterator[tuple[Any, str]]:
        """What reads and writes such URLs, and the path as it has it; its errors become ours.

        Raises:
            FileNotFoundError: nothing is there; ``PermissionError``: it may not be used.
            MissingDependencyError: the package of the protocol is not installed.
            InputError: anything else, such as missing credentials.
        """
        from geoaware.runs.optional import require

        name = str(self)
        try:
            yield require("fsspec", "cloud").core.url_to_fs(name, use_listings_cache=False)
        except (InputError, MissingDependencyError):
            raise
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            number = next(each for kind, each in _NUMBERS.items() if isinstance(error, kind))
            raise type(error)(number, _words(error) or os.strerror(number), name) from None
        except ImportError as error:
            extra = " (pip install 'geoaware[cloud]')" if name.startswith("s3") else ""
            raise MissingDependencyError(f"{name}: {_words(error)}{extra}") from None
        except ValueError as error:
            raise InputError(f"{name}: {_words(error)}; is this URL right?") from None
        except Exception as error:
            what = _words(error) or type(error).__name__
            raise InputError(f"{name}: cannot be reached ({what}); look at address and credentials") from None


_NUMBERS: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    NotADirectoryError: errno.ENOTDIR,
}


def _words(error: Exception) -> str:
    """What an error says, in one line without a point at its end; empty where it only repeats a path."""
    said = getattr(error, "strerror", None) or str(error)
    text = " ".join(said.split()).rstrip(".")
    return text if " " in text else ""


def _names(found: Sequence[str], folder: str) -> Iterator[str]:
    """Names relative to a folder, in their order; an object that stands for a folder is passed over."""
    begin = folder.strip("/") + "/"
    for each in sorted(found):
        name = each.lstrip("/").removeprefix(begin)
        if name and not each.endswith("/") and each.strip("/") != folder.strip("/"):
            yield name
