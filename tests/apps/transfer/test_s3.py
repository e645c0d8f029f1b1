"""A transfer between URLs: images, annotations and results on an S3 server, as the command line runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoaware import cli
from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, transfer
from geoaware.features import EXTRACTORS, Entry
from geoaware.runs.places import place
from tests import s3
from tests.apps.transfer.tiny import matcher, photos, view, write_sources
from tests.films import LOSSLESS, film

COUNT = 30


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, images, one of them unreadable, and the result of a transfer on this machine."""
    folder = tmp_path_factory.mktemp("local")
    write_sources(folder / "sources", [(0, 0), (9, 9)])
    (photos(folder / "photos", COUNT) / "002.png").write_bytes(b"")
    transfer(*inputs(folder), matcher(), folder / "out.json")
    return folder


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[None]:
    with s3.served():
        s3.upload(local, s3.url("in"))
        yield


def inputs(folder: Path) -> tuple[Any, Any]:
    return read_sources(folder / "sources" / "source.json"), list_targets([folder / "photos"])


def called(*words: object) -> list[str]:
    return ["geoaware", "transfer", *map(str, words), "--extractor", "toy", "--device", "cpu"]


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """The lines that are said of an error."""
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    monkeypatch.setattr(sys, "argv", called(*words))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    return [each for each in said if not each.startswith(("note:", "cat:"))]


@pytest.mark.usefixtures("server")
def test_the_result_has_the_bytes_of_a_local_run(local: Path) -> None:
    out = s3.url("out/found.json")
    outcome = transfer(*inputs(s3.url("in")), matcher(), out)
    assert outcome.out == out
    assert (outcome.targets, outcome.failed) == (COUNT, 1)
    assert outcome.reasons == ("002.png: not an image that can be read; convert it to JPEG or PNG",)
    assert out.read_bytes() == (local / "out.json").read_bytes()
    assert list(out.parent.iterdir()) == [out, out.with_name("found.json.records")]
    again = transfer(*inputs(s3.url("in")), matcher(), out)  # it is known as its own
    assert again == outcome
    first = out.read_bytes()
    for threshold in (0.9, TransferSettings().threshold):
        shown = TransferSettings(threshold=threshold)
        transfer(*inputs(s3.url("in")), matcher(), out, shown, progress=no_work)
        assert (out.read_bytes() == first) == (threshold != 0.9)


def no_work(what: str, done: int, total: int) -> None:
    assert (what, done) == ("annotating", total)


@pytest.mark.usefixtures("server")
def test_an_interrupted_run_goes_on(local: Path) -> None:
    out = s3.url("stopped/found.json")

    def stop(what: str, done: int, total: int) -> None:
        if what == "annotating" and done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(*inputs(s3.url("in")), matcher(), out, progress=stop)
    head, lines = sorted(out.with_name("found.json.part").iterdir(), reverse=True)
    assert head.name == "head.json"
    assert len(lines.read_bytes().splitlines()) == 12
    done = list[int]()
    transfer(*inputs(s3.url("in")), matcher(), out, progress=lambda what, n, of: done.append(n))
    assert done[0] == 12
    assert out.read_bytes() == (local / "out.json").read_bytes()
    assert list(out.parent.iterdir()) == [out, out.with_name("found.json.records")]


SLOW = """
import time
from geoaware.runs import records
from tests import s3
from tests.apps.transfer.test_s3 import inputs, matcher, transfer

records.SECONDS = 0.2
transfer(*inputs(s3.url("in")), matcher(), s3.url("killed/found.json"), progress=lambda *_: time.sleep(0.1))
"""


@pytest.mark.usefixtures("server")
def test_a_killed_run_goes_on(local: Path) -> None:
    out = s3.url("killed/found.json")
    part = out.with_name("found.json.part")
    with subprocess.Popen([sys.executable, "-c", SLOW]) as slow:
        while slow.poll() is None and all(each.suffix != ".jsonl" for each in part.sizes()):
            time.sleep(0.1)
        slow.kill()
    assert not out.exists()
    names = {each.name for each in part.sizes()}
    assert {"head.json", "owner.json"} < names
    done = list[int]()
    transfer(*inputs(s3.url("in")), matcher(), out, progress=lambda what, n, of: done.append(n))
    assert 0 < done[0] < COUNT
    assert out.read_bytes() == (local / "out.json").read_bytes()
    assert list(out.parent.iterdir()) == [out, out.with_name("found.json.records")]


@pytest.mark.usefixtures("server")
def test_the_command_line_takes_urls(tmp_path: Path) -> None:
    """As a program of its own, with several processes, and from a COCO file of targets."""
    words = ["--out", s3.url("cli/out.json"), "--review", s3.url("cli/out.html"), "--threshold", "0.1"]
    folder = s3.url("in")
    given = called(folder / "sources/source.json", folder / "photos", *words, "--workers", 2)
    program = [sys.executable, "-m", "tests.commands.toy_program", *given[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr  # an image cannot be read
    assert "failed: 002.png: not an image that can be read" in done.stderr
    assert done.stdout.strip() == "s3://photos/cli/out.json"
    found = json.loads(s3.url("cli/out.json").read_bytes())
    assert len(found["images"]) == COUNT - 1
    assert found["images"][0]["file_name"] == "000.png"
    assert [each.name for each in s3.url("cli").iterdir()] == ["out.html", "out.json", "out.json.records"]


@pytest.mark.usefixtures("server")
def test_what_is_wrong_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: Path
) -> None:
    source, images = s3.url("in/sources/source.json"), local / "photos"
    assert refused(monkeypatch, capsys, source, images, "--out", "s3://missing/out.json") == [
        "error: s3://missing/out.json: cannot be written (The specified bucket does not exist); choose "
        "another place"
    ]
    out = s3.url("other.json")
    assert refused(monkeypatch, capsys, "s3://missing/a.json", images, "--out", out) == [
        "error: s3://missing/a.json: no such file; there is no s3://missing, or it may not be listed; give a "
        "COCO-keypoints JSON of the annotated images"
    ]
    assert refused(monkeypatch, capsys, source, s3.url("in/nothing"), "--out", out) == [
        "error: s3://photos/in/nothing: no such image or folder"
    ]
    assert refused(monkeypatch, capsys, source, images, "--out", source) == [
        "error: s3://photos/in/sources/source.json: is what is read from; choose another place for the result"
    ]
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert refused(monkeypatch, capsys, source, images, "--out", "gs://bucket/out.json") == [
        "error: gs://bucket/out.json: Please install gcsfs to access Google Storage"
    ]
    assert not out.exists()


@pytest.mark.usefixtures("server")
def test_a_bucket_that_may_not_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: Path
) -> None:
    import s3fs

    async def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    s3.forget()
    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", denied)
    out = s3.url("denied.json")
    said = refused(monkeypatch, capsys, local / "sources/source.json", local / "photos", "--out", out)
    s3.forget()
    assert said == [f"error: {out}: cannot be written (Access Denied); choose another place"]


@pytest.mark.usefixtures("server")
def test_missing_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3.forget()
    out = s3.url("none.json")
    said = refused(monkeypatch, capsys, local / "sources/source.json", local / "photos", "--out", out)
    assert said == [
        f"error: {out}: cannot be reached (Unable to locate credentials); look at address and credentials"
    ]
    s3.forget()


def test_urls_of_the_source_and_of_its_images_may_differ(local: Path, tmp_path: Path) -> None:
    """The annotations on this machine, the images elsewhere; no server."""
    folder = place(f"memory://{tmp_path.name}-{os.getpid()}")
    s3.upload(local / "sources" / "images", folder / "sources")
    s3.upload(local / "photos", folder / "targets")
    sources = read_sources(local / "sources" / "source.json", folder / "sources")
    assert {each.path.parent for each in sources.images} == {folder / "sources"}
    out = tmp_path / "out.json"
    transfer(sources, list_targets([folder / "targets"]), matcher(), out)
    assert out.read_bytes() == (local / "out.json").read_bytes()


def test_a_video_at_a_url_gives_the_same(server: None, tmp_path: Path) -> None:
    """Also its frames as images there."""
    pytest.importorskip("av")
    film(tmp_path / "films" / "clip.mp4", [view(each, each) for each in range(6)], options=LOSSLESS)
    sources = read_sources(write_sources(tmp_path / "sources"))
    there = s3.url("films")
    s3.upload(tmp_path / "films", there)
    results = []
    for name, folder in (("local", tmp_path / "films"), ("remote", place(there))):
        for frames in (None, folder / "frames"):
            targets = list_targets([folder / "clip.mp4"], frames=frames, every=2)
            out = tmp_path / f"{name}{bool(frames)}.json"
            results.append(transfer(sources, targets, matcher(), out).out.read_bytes())
    assert len({*results}) == 1
    assert len(list((place(there) / "frames" / "clip").glob("img*.png"))) == 3
    assert not Path("s3:").exists()
