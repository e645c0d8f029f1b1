"""Data sets from a server on loopback that stops, begins anew and sends what it should not."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import socket
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from geoaware import cli
from geoaware.data import get as module
from geoaware.data import load
from geoaware.data.get import DOWNLOADS, Download, get
from geoaware.runs.errors import InputError
from tests.data import benchmarks
from tests.data.test_spair import made_up

ARCHIVE = "SPair-71k.tar.gz"


class Server(ThreadingHTTPServer):
    """Gives files by their names; after ``stop`` bytes it hangs up, once, and it waits ``wait`` seconds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.stop: int | None = None
        self.ranges = True
        self.wait = 0.0
        self.asked: list[str | None] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if begin >= len(content) > 0:
            self.send_error(416)
            return
        rest = content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        stop, self.server.stop = self.server.stop, None
        time.sleep(self.server.wait)
        self.wfile.write(rest if stop is None else rest[:stop])


def offer(patch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    patch.setitem(DOWNLOADS, name, replace(DOWNLOADS[name], **changes))  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.files[ARCHIVE] = packed(made_up(tmp_path / "source"))
        offer(monkeypatch, "spair71k", url=server.url(ARCHIVE))
        yield server
        server.shutdown()
        thread.join()


def packed(folder: Path, top: str = "SPair-71k") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        archive.add(folder, top)
    return written.getvalue()


def inside(folder: Path) -> dict[str, bytes]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_set_is_fetched_and_unpacked(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    root = get("spair71k", tmp_path / "data", tell=lambda *step: told.append(step))  # type: ignore[arg-type]
    assert root == tmp_path / "data" / "SPair-71k"
    assert inside(root) == inside(tmp_path / "source")
    assert names(root.parent) == ["SPair-71k"]
    size = len(server.files[ARCHIVE])
    assert told[-1] == (f"fetching {ARCHIVE}", size, size)
    assert get("spair71k", tmp_path / "data") == root
    assert server.asked == [None]  # what is there is not fetched again
    get("spair71k", tmp_path / "kept", keep=True)
    assert (tmp_path / "kept" / ARCHIVE).read_bytes() == server.files[ARCHIVE]


def test_an_archive_that_lies_there_is_unpacked_and_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ARCHIVE).write_bytes(server.files[ARCHIVE])
    assert inside(get("spair71k", tmp_path / "data")) == inside(tmp_path / "source")
    assert server.asked == []
    assert names(tmp_path / "data") == ["SPair-71k", ARCHIVE]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.stop, server.ranges = 300, ranges
    with pytest.raises(InputError, match="the same command goes on where it stopped"):
        get("spair71k", tmp_path / "data")
    assert names(tmp_path / "data") == [f"{ARCHIVE}.part"]
    assert (tmp_path / "data" / f"{ARCHIVE}.part").read_bytes() == server.files[ARCHIVE][:300]
    root = get("spair71k", tmp_path / "data")
    assert server.asked == [None, "bytes=300-"]
    assert inside(root) == inside(tmp_path / "source")


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{ARCHIVE}.part").write_bytes(server.files[ARCHIVE])
    assert inside(get("spair71k", tmp_path / "data")) == inside(tmp_path / "source")


def test_files_beside_the_archive_go_into_the_root(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("PF-dataset-PASCAL/Annotations/cat/a.mat", b"mat")
        archive.writestr("__MACOSX/PF-dataset-PASCAL/._a", b"mac")
    server.files |= {"pf.zip": zipped.getvalue(), "test_pairs_pf_pascal.csv": b"a,b"}
    beside = {"test_pairs.csv": server.url("test_pairs_pf_pascal.csv")}
    offer(monkeypatch, "pf-pascal", url=server.url("pf.zip"), beside=beside)
    root = get("pf-pascal", tmp_path / "data")
    assert inside(root) == {"Annotations/cat/a.mat": b"mat", "test_pairs.csv": b"a,b"}
    assert names(root.parent) == ["PF-PASCAL"]


def test_several_archives_and_a_list_beside_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {f"{name}.zip": zipped((f"{name}/a", name.encode())) for name in ("Images", "Pairs")}
    offer(monkeypatch, "soco", url=server.url("Pairs.zip"), more=(server.url("Images.zip"),))
    assert inside(get("soco", tmp_path)) == {"Images/a": b"Images", "Pairs/a": b"Pairs"}
    server.files["CUB_200_2011.tgz"] = cub = packed(benchmarks.cub(tmp_path / "birds"), "CUB_200_2011")
    server.files["random_pairs.txt"] = b"3 4\n"
    assert DOWNLOADS["cub"].md5 == "97eceeb196236b17998738112f37df78"
    beside = {"random_pairs.txt": server.url("random_pairs.txt")}
    offer(monkeypatch, "cub", url=server.url("CUB_200_2011.tgz"), beside=beside)
    with pytest.raises(InputError, match="is not the file that was expected"):
        get("cub", tmp_path)
    offer(monkeypatch, "cub", md5=hashlib.md5(cub).hexdigest())
    root = get("cub", tmp_path)
    assert [pair.source.id[-10:] for pair in load("cub", root, "all").pairs] == ["bird_3.jpg"]
    assert names(tmp_path) == ["CUB_200_2011", "CUB_200_2011.tgz", "SOCO", "birds", "source"]


def test_what_is_fetched_is_what_the_loader_reads(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["TSS.tgz"] = packed(benchmarks.tss(tmp_path / "flows"), "TSS_CVPR2016")
    offer(monkeypatch, "tss", url=server.url("TSS.tgz"))
    assert len(load("tss", get("tss", tmp_path), "test")) == 4
    benchmarks.spair_u(tmp_path / "SPair-U")
    (tmp_path / "SPair-U").rename(tmp_path / "unseen")
    server.files["u.tgz"] = packed(tmp_path / "unseen", "datasets/SPair-U")
    offer(monkeypatch, "spair-u", url=server.url("u.tgz"))
    assert len(load("spair-u", get("spair-u", tmp_path), "test")) == 1


def zipped(*members: tuple[str, bytes], link: str = "") -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == link else 0o100644) << 16
            archive.writestr(info, content)
    return written.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", r"SPair-71k.tar.gz: cannot be unpacked \("),
        (tarred("other/file"), "SPair-71k.tar.gz: holds no folder SPair-71k; remove it, and fetch it again"),
        (tarred("../out"), "'../out' in it leads out of its folder; do not trust this archive"),
        (tarred("/etc/out"), "'/etc/out' in it leads out of its folder"),
        (tarred("SPair-71k/l", tarfile.SYMTYPE, "/etc/passwd"), "'SPair-71k/l' in it is a link, or no file"),
        (tarred("SPair-71k/l", tarfile.LNKTYPE, "../../x"), "'SPair-71k/l' in it is a link, or no file"),
        (tarred("SPair-71k/fifo", tarfile.FIFOTYPE), "'SPair-71k/fifo' in it is a link, or no file"),
        (zipped(("../out", b"")), "'../out' in it leads out of its folder; do not trust this archive"),
        (zipped(("SPair-71k/l", b"/etc"), link="SPair-71k/l"), "'SPair-71k/l' in it is a link, or no file"),
        (zipped(("SPair-71k/a", b"1234")).replace(b"1234", b"1235"), r"cannot be unpacked \("),
    ],
    ids=[
        "none",
        "other folder",
        "above",
        "absolute",
        "link",
        "hard link",
        "pipe",
        "zip above",
        "zip link",
        "bit",
    ],
)
def test_archives_that_are_not_to_be_trusted(
    server: Server, tmp_path: Path, content: bytes, message: str
) -> None:
    server.files[ARCHIVE] = content
    with pytest.raises(InputError, match=message):
        get("spair71k", tmp_path / "data")
    assert names(tmp_path / "data") == [ARCHIVE]
    assert not (tmp_path / "out").exists()


def test_a_cut_archive_leaves_nothing_half_unpacked(server: Server, tmp_path: Path) -> None:
    server.files[ARCHIVE] = server.files[ARCHIVE][:-200]
    with pytest.raises(InputError, match="cannot be unpacked"):
        get("spair71k", tmp_path / "data")
    assert names(tmp_path / "data") == [ARCHIVE]


def test_another_file_than_expected(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = hashlib.md5(server.files[ARCHIVE]).hexdigest()
    offer(monkeypatch, "spair71k", md5="0" * 32)
    message = rf"is not the file that was expected \(MD5 {right} instead of 0+\); remove it"
    with pytest.raises(InputError, match=message):
        get("spair71k", tmp_path / "data")
    offer(monkeypatch, "spair71k", md5=right)
    assert inside(get("spair71k", tmp_path / "data")) == inside(tmp_path / "source")


def test_too_little_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(InputError, match="MB are still to come, 0 MB are free; make room, or choose another"):
        get("spair71k", tmp_path / "data")


def test_a_disk_that_fills_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy", full)
        with pytest.raises(InputError, match=r"\.part: cannot be written \(No space left on device\);"):
            get("spair71k", tmp_path / "data")
    assert names(tmp_path / "data") == [f"{ARCHIVE}.part"]
    with monkeypatch.context() as patch:
        patch.setattr("geoaware.data.formats.archive.shutil.copyfileobj", full)
        with pytest.raises(InputError, match=r"tar\.gz: cannot be unpacked \(.*No space left on device"):
            get("spair71k", tmp_path / "data")
    assert names(tmp_path / "data") == [ARCHIVE]
    assert inside(get("spair71k", tmp_path / "data")) == inside(tmp_path / "source")


def test_a_network_that_is_not_there_or_stalls(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    server.wait = 0.3
    with pytest.raises(InputError, match=r"cannot be fetched \(.*timed out.*\); the same command goes on"):
        get("spair71k", tmp_path)

    def unknown(*_: Any, **__: Any) -> None:
        raise URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(module.urllib.request, "urlopen", unknown)
    with pytest.raises(InputError, match=r"cannot be fetched \(.*Name or service not known\); the same"):
        get("spair71k", tmp_path)


def test_what_cannot_be_fetched(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files.clear()
    with pytest.raises(InputError, match=r"SPair-71k.tar.gz: cannot be fetched \(.*Not Found"):
        get("spair71k", tmp_path)
    with pytest.raises(InputError, match="ap10k must be fetched by hand: its page links to a drive"):
        get("ap10k", tmp_path)
    with pytest.raises(InputError, match="awa-pose must be fetched by hand: images and annotations"):
        get("awa-pose", tmp_path)
    with pytest.raises(InputError, match="'coco' cannot be fetched; known: spair71k, pf-pascal, pf-willow"):
        get("coco", tmp_path)
    monkeypatch.setitem(DOWNLOADS, "spair71k", Download("x", "http://127.0.0.1:9/x.zip"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"cannot be fetched \(.*refused.*\); the same command goes on"):
        get("spair71k", tmp_path)


def test_a_folder_of_the_users_is_left_alone(server: Server, tmp_path: Path) -> None:
    mine = tmp_path / "data" / "SPair-71k" / "mine"
    mine.mkdir(parents=True)
    assert get("spair71k", tmp_path / "data") == mine.parent
    assert server.asked == []
    shutil.rmtree(mine)
    assert inside(get("spair71k", tmp_path / "data")) == inside(tmp_path / "source")


def test_the_command_says_what_it_holds_and_its_licence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["geoaware", "data", "get", "spair71k", str(tmp_path / "data")])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(tmp_path / "data" / "SPair-71k")
    assert "1 pairs, 2 images, 1 categories" in said.out
    assert "licence: images from PASCAL 3D+" in said.err
