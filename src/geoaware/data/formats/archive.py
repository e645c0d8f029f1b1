"""Folders for the time of this process, and zips that are unpacked into them."""

from __future__ import annotations

import atexit
import shutil
import stat
import zipfile
import zlib
from contextlib import ExitStack
from functools import cache
from pathlib import Path, PurePosixPath

from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import scratch

MOST_BYTES, MOST_FILES = 16 << 30, 500_000
"""Of a zip, unpacked."""


@cache
def _scratch() -> Path:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch())


def workplace(name: str) -> Path:
    """A new folder of this machine, which goes when the process ends."""
    folder = _scratch() / f"{name}-{sum(1 for _ in _scratch().iterdir())}"
    folder.mkdir()
    return folder


def is_zip(raw: bytes) -> bool:
    """Whether a file that begins so is a zip."""
    return raw.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def unpacked(path: Path) -> Path:
    """A folder with what is in a zip.

    Raises:
        InputError: it is damaged, encrypted or too large, or a name in it leads out of its folder.
    """
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            members = [
                each for each in archive.infolist() if not each.is_dir() and not _passed_over(each.filename)
            ]
            _check(path, members)
            folder = workplace("zip")
            for each in members:
                archive.extract(each, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be unpacked ({reason(error)}); fetch it again, or unpack it yourself"
        ) from None
    return folder


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for each in members:
        parts = PurePosixPath(each.filename.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",) or ":" in parts[0]:
            raise InputError(
                f"{path}: {each.filename!r} in it leads out of its folder; do not trust this zip"
            )
        if stat.S_ISLNK(each.external_attr >> 16):
            raise InputError(f"{path}: {each.filename!r} in it is a link; pack the files themselves")
        if each.flag_bits & 1:
            raise InputError(f"{path}: is encrypted; unpack it yourself, and give the folder")
    size = sum(each.file_size for each in members)
    if len(members) > MOST_FILES or size > MOST_BYTES or size > shutil.disk_usage(_scratch()).free:
        unpacked = f"{len(members):,} files of {size / 2**30:,.1f} GiB"
        raise InputError(f"{path}: would be {unpacked}; unpack it yourself, and give the folder")


def _passed_over(name: str) -> bool:
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")
