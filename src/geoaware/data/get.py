"""Data sets fetched from where their authors put them: resumed after an interruption, checked, unpacked."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from geoaware.data.formats.archive import unpack
from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import PART, check_goals, digest_of, new_folder, open_part
from geoaware.runs.progress import Tell, silent

_BLOCK, _PATIENCE_S = 1 << 20, 60.0

_AGAIN = "the same command goes on where it stopped"


@dataclass(frozen=True)
class Download:
    """Where a data set is.

    Attributes:
        root: name of the folder that it becomes.
        url: of its archive; empty: it cannot be fetched by a program.
        top: the folder in the archive that is its root.
        md5: of the archive, where its authors or users have published it.
        more: further archives, unpacked into the root as they are.
        beside: more files, by the names that they get in the root.
        missing: what has to be fetched by hand.
    """

    root: str
    url: str
    top: str = ""
    md5: str | None = None
    more: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


_PF = "https://www.di.ens.fr/willow/research"
_AYGUN = "https://raw.githubusercontent.com/MehmetAygun/demistfy_correspondence/main/pairs"
_SOCO = "https://huggingface.co/datasets/GenIntelLab/SOCO/resolve/main"

DOWNLOADS: Mapping[str, Download] = {
    "spair71k": Download(
        "SPair-71k", "http://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz", "SPair-71k"
    ),
    "pf-pascal": Download(
        "PF-PASCAL",
        f"{_PF}/proposalflow/dataset/PF-dataset-PASCAL.zip",
        "PF-dataset-PASCAL",
        beside={
            f"{split}_pairs.csv": f"{_PF}/cnngeometric/other_resources/{split}_pairs_pf_pascal.csv"
            for split in ("val", "test")
        },
        missing="trn_pairs.csv comes with later papers' code, from a page that only a browser can read",
    ),
    "pf-willow": Download("PF-WILLOW", f"{_PF}/proposalflow/dataset/PF-dataset.zip", "PF-dataset"),
    "ap10k": Download("ap-10k", "", missing="its page links to a drive that only a browser can read"),
    "spair-u": Download(
        "SPair-U",
        "https://groups.inf.ed.ac.uk/hbilen-data/data/JamaisVuData/SPair-U.zip",
        "datasets/SPair-U",
        missing="its images are those of spair71k, to be fetched into the same folder",
    ),
    "cub": Download(
        "CUB_200_2011",
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "CUB_200_2011",
        md5="97eceeb196236b17998738112f37df78",
        beside={"random_pairs.txt": f"{_AYGUN}/cub/random_pairs.txt"},
    ),
    "awa-pose": Download(
        "AwA-Pose", "", missing="images and annotations lie at two places, and go into one folder"
    ),
    "tss": Download(
        "TSS",
        "http://www.hci.iis.u-tokyo.ac.jp/datasets/data/JointCorrCoseg/TSS_CVPR2016.zip",
        "TSS_CVPR2016",
    ),
    "soco": Download("SOCO", f"{_SOCO}/PairAnnotations.zip", more=(f"{_SOCO}/Images.zip",)),
}


def get(name: str, folder: Path, keep: bool = False, tell: Tell = silent) -> Path:
    """Fetch a data set into a folder, where it gets a folder of its own.

    Args:
        name: as for `geoaware.data.load`.
        folder: where to put it; what is fetched so far lies there in ``ARCHIVE.part``. An archive that lies
            there already is not fetched, and stays.
        keep: whether a fetched archive stays when it is unpacked.
        tell: told of bytes as they arrive.

    Returns:
        The root of the data set. One that is there already is left as it is.

    Raises:
        InputError: nothing to fetch under this name, no network, too little room, or a file that is damaged
            or is not the one that was expected. What has arrived stays, and the next call goes on.
    """
    if name not in DOWNLOADS:
        raise InputError(f"{name!r} cannot be fetched; known: {', '.join(DOWNLOADS)}")
    what = DOWNLOADS[name]
    goal = folder / what.root
    if goal.is_dir() and any(goal.iterdir()):
        return goal
    if not what.url:
        raise InputError(
            f"{name} must be fetched by hand: {what.missing}; see geoaware data check {name} DIR"
        )
    check_goals(goal / "file")
    tops = {what.url: what.top, **dict.fromkeys(what.more, "")}
    there = {path for url in (*tops, *what.beside.values()) if (path := _path_of(url, folder)).exists()}
    archives = [(_fetched(url, folder, what, tell), top) for url, top in tops.items()]
    others = [_fetched(url, folder, what, tell) for url in what.beside.values()]
    with new_folder(goal) as draft:
        for archive, top in archives:
            _unpack(archive, top, draft)
        for path, inside in zip(others, what.beside, strict=True):
            shutil.copy(path, draft / inside)
    fetched = {*(archive for archive, _ in archives), *others} - there
    for each in () if keep else fetched:
        each.unlink()
    return goal


def _path_of(url: str, folder: Path) -> Path:
    return folder / urlsplit(url).path.rpartition("/")[2]


def _unpack(archive: Path, top: str, draft: Path) -> None:
    """Put what is in a folder of an archive into the draft."""
    with TemporaryDirectory(prefix=".unpacked", dir=draft) as inner:
        unpack(archive, Path(inner))
        if not (folder := Path(inner) / top).is_dir():
            raise InputError(f"{archive}: holds no folder {top}; remove it, and fetch it again")
        for each in folder.iterdir():
            each.rename(draft / each.name)


def _fetched(url: str, folder: Path, what: Download, tell: Tell) -> Path:
    """A file in the folder, fetched as far as it is not there."""
    path = _path_of(url, folder)
    if not path.exists():
        part = path.with_name(path.name + PART)
        with open_part(part, keep_all=True) as file:
            _fetch(url, file, part, partial(tell, f"fetching {path.name}"))
        part.rename(path)
    if what.md5 is not None and url == what.url and (found := digest_of(path, "md5")) != what.md5:
        raise InputError(
            f"{path}: is not the file that was expected (MD5 {found} instead of {what.md5}); remove it, and "
            "fetch it again"
        )
    return path


def _fetch(url: str, file: BinaryIO, part: Path, tell: Callable[[int, int], None]) -> None:
    """Append to a file what it lacks of a URL."""
    there = file.seek(0, 2)
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with ExitStack() as stack:
            try:
                answer = stack.enter_context(urllib.request.urlopen(request, timeout=_PATIENCE_S))
            except urllib.error.HTTPError as error:
                if there and error.code == 416:  # all of it was there
                    return
                raise
            if answer.status != 206:  # the server begins anew
                file.truncate(0)
                there = 0
            total = there + int(answer.headers.get("Content-Length") or 0)
            _check_room(part, total - there)
            done = _copy(answer, file, there, total, tell)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        why = getattr(error, "reason", None) or error
        raise InputError(f"{url}: cannot be fetched ({_told(why)}); {_AGAIN}") from None
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror}); {_AGAIN}") from None
    if done < total:
        raise InputError(f"{url}: only {done:,} of {total:,} bytes arrived; {_AGAIN}")


def _copy(
    answer: HTTPResponse, file: BinaryIO, done: int, total: int, tell: Callable[[int, int], None]
) -> int:
    """How many bytes of the file are there when the answer has ended."""
    while block := answer.read(_BLOCK):
        file.write(block)
        done += len(block)
        tell(done, max(total, done))
    return done


def _check_room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise InputError(
            f"{part.parent}: {size / 1e6:,.0f} MB are still to come, {free / 1e6:,.0f} MB are free; make "
            "room, or choose another folder"
        )


def _told(why: Any) -> str:
    return reason(why) if isinstance(why, Exception) else str(why)
