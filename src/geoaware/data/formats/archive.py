"""Archives that are unpacked, and folders for the time of this process to do so."""

from __future__ import annotations

import atexit
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import ExitStack
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import scratch

MOST_BYTES, MOST_FILES = 16 << 30, 500_000
"""Of an archive, unpacked."""


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
        InputError: see `unpack`.
    """
    folder = workplace("zip")
    unpack(path, folder)
    return folder


def unpack(path: Path, folder: Path) -> None:
    """Put what is in a zip, or in a tar however compressed, into a folder.

    Raises:
        InputError: it is damaged, encrypted or too large, holds anything but files and folders, or a name in
            it leads out of its folder.
    """
    damaged = (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        EOFError,
        NotImplementedError,
    )
    try:
        with path.open("rb") as raw:
            begin = raw.read(4)
            raw.seek(0)
            (_unpack_zip if is_zip(begin) else _unpack_tar)(raw, path, folder)
    except (*damaged, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be unpacked ({reason(error)}); fetch it again, or unpack it yourself"
        ) from None


def _unpack_zip(raw: BinaryIO, path: Path, folder: Path) -> None:
    with zipfile.ZipFile(raw) as archive:
        members = [
            each for each in archive.infolist() if not each.is_dir() and not _passed_over(each.filename)
        ]
        for each in members:
            _check_name(path, each.filename)
            if stat.S_ISLNK(each.external_attr >> 16):
                raise _special(path, each.filename)
            if each.flag_bits & 1:
                raise InputError(f"{path}: is encrypted; unpack it yourself, and give the folder")
        _check_size(path, folder, [each.file_size for each in members])
        for each in members:
            archive.extract(each, folder)


def _unpack_tar(raw: BinaryIO, path: Path, folder: Path) -> None:
    with tarfile.open(fileobj=raw) as archive:
        members = [each for each in archive.getmembers() if not each.isdir() and not _passed_over(each.name)]
        for each in members:
            _check_name(path, each.name)
            if not each.isfile():
                raise _special(path, each.name)
        _check_size(path, folder, [each.size for each in members])
        for each in members:
            source = archive.extractfile(each)
            assert source is not None
            (folder / each.name).parent.mkdir(parents=True, exist_ok=True)
            with source, (folder / each.name).open("wb") as goal:
                shutil.copyfileobj(source, goal)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[:1] == ("/",) or ":" in parts[0]:
        raise InputError(f"{path}: {name!r} in it leads out of its folder; do not trust this archive")


def _special(path: Path, name: str) -> InputError:
    return InputError(f"{path}: {name!r} in it is a link, or no file; pack the files themselves")


def _check_size(path: Path, folder: Path, sizes: list[int]) -> None:
    size = sum(sizes)
    if len(sizes) > MOST_FILES or size > MOST_BYTES or size > shutil.disk_usage(folder).free:
        text = f"{len(sizes):,} files of {size / 2**30:,.1f} GiB"
        raise InputError(f"{path}: would be {text}, too much here; unpack it yourself, and give the folder")


def _passed_over(name: str) -> bool:
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")
