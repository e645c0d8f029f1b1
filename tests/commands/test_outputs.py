"""Results go over nothing of the user's, whichever command writes them; what stops a command is told once."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from geoaware import cli
from geoaware.commands import data
from geoaware.commands.options import WRITTEN
from geoaware.features import EXTRACTORS, Entry
from tests.commands.test_reproduce import faces
from tests.toys import save_face

SET = ["--dataset", "coco", "--root", ".", "--split", "val", "--annotations", "val.json"]
TOY = ["--extractor", "toy", "--device", "cpu"]
MATCH = ["match", "a.png", "b.png", "--point", "50,50", *TOY]

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in a folder with two images, points and a COCO file; exit code and standard error."""
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    monkeypatch.chdir(faces(tmp_path))
    save_face(Path("a.png"))
    save_face(Path("b.png"), colour="khaki")
    Path("p.csv").write_text("50,50\n")

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["geoaware", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code or 0)), capsys.readouterr().err

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


READ = "is what is read from; choose another place for the result"
FOREIGN = "exists and was not written by geoaware; choose another file"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([*MATCH, "--out", "a.png"], f"a.png: {READ}"),
        ([*MATCH, "--out", "./b.png"], f"b.png: {READ}"),
        (["match", "a.png", "b.png", "--points", "p.csv", *TOY, "--json", "p.csv"], f"p.csv: {READ}"),
        (["match", "a.png", "images", "--point", "50,50", *TOY, "--out", "images"], f"images: {READ}"),
        ([*MATCH, "--out", "x.png", "--json", "x.png"], "x.png: two results would go there"),
        (["match", "out/0.png.png", "images", "--point", "5,5", *TOY, "--out", "out"], f"0.png.png: {READ}"),
        (["dense", "a.png", "b.png", *TOY, "--out", "b.png"], f"b.png: {READ}"),
        (["warp", "a.png", "b.png", *TOY, "--edit", "images/0.png", "--out", "images/0.png"], READ),
        (["score", "q.jsonl", "--csv", "q.jsonl"], f"q.jsonl: {READ}"),
        (["score", "q.jsonl", "--markdown", "link"], f"link: {READ}"),
        (["gallery", "q.jsonl", "--root", ".", "--out", "q.jsonl"], f"q.jsonl: {READ}"),
        (["gallery", "q.jsonl", "--root", ".", "--annotations", "val.json", "--out", "val.json"], READ),
        (["gallery", "q.jsonl", "--root", ".", "--out", "images/1.png"], f"1.png: {READ}"),
        (["evaluate", *SET, *TOY, "--csv", "val.json"], f"val.json: {READ}"),
        (["evaluate", *SET, *TOY, "--markdown", "images/0.png"], f"0.png: {READ}"),
        (
            ["evaluate", *SET, *TOY, "--out", "r.jsonl", "--csv", "r.jsonl"],
            "r.jsonl: two results would go there",
        ),
        (["transfer", "val.json", "a.png", *TOY, "--out", "t.json", "--review", "a.png"], f"a.png: {READ}"),
        (["transfer", "val.json", ".", *TOY, "--out", "t.json", "--review", "b.png"], f"b.png: {READ}"),
        (["transfer", "val.json", "a.png", *TOY, "--out", "val.json"], f"val.json: {READ}"),
        (["train", "my.yaml", "--out", "my.yaml"], f"my.yaml: {READ}"),
        (["info", "--convert-captioner", "my.yaml", "--out", "my.yaml"], f"my.yaml: {READ}"),
        (["predict", *SET, *TOY, "--out", "p.csv", "--restart"], f"p.csv: {FOREIGN}"),
        (["pose", "a.png", "--templates", "sets", *TOY, "--out", "p.csv", "--restart"], f"p.csv: {FOREIGN}"),
        (["reproduce", "table2", *SET, *TOY, "--out", "made"], f"table2.md: {FOREIGN}"),
        (["data", "build-ap10k", ".", "--out", "made"], f"manifest.json: {FOREIGN}"),
        (["examples", "made"], f"SOURCES.txt: {FOREIGN}"),
    ],
)
def test_nothing_of_the_user_is_written_over(words: list[str], named: str, run: Run, tmp_path: Path) -> None:
    assert run("predict", *SET, *TOY, "--out", "q.jsonl")[0] == 0
    Path("link").symlink_to("q.jsonl")
    Path("my.yaml").write_text("seed: 1\n")
    for folder in ("made", "out", "sets/one"):
        Path(folder).mkdir(parents=True)
    for name in ("table2.md", "manifest.json", "SOURCES.txt"):
        (Path("made") / name).write_text("mine")
    for pose in ("left", "right", "front", "back"):
        save_face(Path("sets/one") / f"{pose}.png")
    save_face(Path("out/0.png.png"))
    before = contents(tmp_path)
    code, error = run(*words)
    assert (code, named in error) == (2, True), error
    assert contents(tmp_path) == before


def test_every_place_is_known_to_be_read_or_written() -> None:
    """A new option for results must be in the list that the check goes by."""
    read = {
        "a",
        "ablation",
        "annotations",
        "b",
        "cache",
        "convert",
        "detections",
        "edit",
        "exclude",
        "file",
        "folder",
        "images",
        "labels",
        "mask",
    }
    read |= {"masks", "points", "predictions", "root", "source", "source_images", "target_mask", "targets"}
    read |= {"targets_images", "templates", "window_run"}
    places = {
        name
        for command in (*cli.app.registered_commands, *data.app.registered_commands)
        for name, each in inspect.signature(command.callback).parameters.items()  # type: ignore[arg-type]
        if "Path" in str(each.annotation)
    }
    assert places == read | WRITTEN


def test_a_report_is_written_over_an_earlier_one(run: Run) -> None:
    for _ in range(2):
        assert run("reproduce", "table2", *SET, *TOY, "--out", "made")[0] == 0


@pytest.mark.parametrize("command", ["predict", "pose", "transfer"])
def test_a_wrong_setting_can_be_mended(command: str, run: Run, tmp_path: Path) -> None:
    for pose in ("left", "right", "front", "back"):
        (tmp_path / "sets" / "one").mkdir(parents=True, exist_ok=True)
        save_face(tmp_path / "sets" / "one" / f"{pose}.png")
    words = {
        "predict": ["predict", *SET],
        "pose": ["pose", "a.png", "--templates", "sets"],
        "transfer": ["transfer", "val.json", "a.png"],
    }[command]
    before = contents(tmp_path)
    code, error = run(*words, *TOY, "--out", "out", "--set", "window=4")
    assert (code, "the window must be an odd number of cells" in error) == (2, True), error
    assert contents(tmp_path) == before
    assert run(*words, *TOY, "--out", "out", "--set", "window=5")[0] == 0


def test_a_part_with_nothing_but_its_head_is_begun_anew(run: Run) -> None:
    """Whatever setting was wrong: nothing is lost with it."""
    assert run("predict", *SET, *TOY, "--out", "one.jsonl")[0] == 0
    lines = Path("one.jsonl").read_text().splitlines(keepends=True)
    Path("two.jsonl.part").write_text(lines[0])
    assert run("predict", *SET, *TOY, "--out", "two.jsonl", "--set", "window=5")[0] == 0
    Path("three.jsonl.part").write_text(lines[0] + lines[1])
    code, error = run("predict", *SET, *TOY, "--out", "three.jsonl", "--set", "window=5")
    assert (code, "belongs to another run" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*MATCH, "--out", ""], "an empty value follows --out; give one, or leave it out"),
        (["train", "lite-frozen", "--out="], "an empty value follows --out; give one"),
        (["match", "", "b.png"], "an empty value follows match; give one"),
        (["score", "q.jsonl", "--seed", "-1"], "'--seed'"),
        (["gallery", "q.jsonl", "--root", ".", "--seed", "-1"], "'--seed'"),
        (["predict", *SET, *TOY, "--seed", "-1"], "'--seed'"),
        (["predict", *SET, *TOY, "--cache-mb", "-1"], "'--cache-mb'"),
        (["data", "build-ap10k", ".", "--seed", "-1"], "'--seed'"),
        (["score", "q.jsonl", "--draws", "1000000000000"], "'--draws'"),
        (["extract", ".", "--cache", "c", "--max-memory", "inf"], "--max-memory takes gigabytes, above 0"),
        (["match", "a.png", "b.png", "--points", "twice.json", *TOY], 'twice.json: "flip_pairs" must be'),
        (["match", "a.png", "b.png", "--points", "self.json", *TOY], "each in one pair at most"),
        ([*MATCH, "--device", "meta"], "the device 'meta' is not available here"),
        (["predict", *SET, *TOY, "--out", "/"], "/: is a folder; give the name of a file to write"),
        ([*MATCH, "--mask", "one.png"], "the source mask is empty at 64x64: too small an object"),
    ],
)
def test_values_that_cannot_be_are_wrong_usage(
    words: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    points = [[50, 50], [60, 60], [70, 70]]
    for name, pairs in (("twice", [[0, 1], [1, 2]]), ("self", [[1, 1]])):
        Path(f"{name}.json").write_text(json.dumps({"points": points, "flip_pairs": pairs}))
    mask = Image.new("L", (160, 160))
    mask.putpixel((80, 80), 255)
    mask.save("one.png")
    before = contents(tmp_path)
    code, error = run(*words)
    assert (code, message in error) == (2, True), error
    assert contents(tmp_path) == before


@pytest.mark.parametrize("words", [MATCH, ["score", "q.jsonl"], ["info"]])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "x/y"),
            2,
            "x/y: permission denied; look at the path",
        ),
        (OSError(errno.ELOOP, "Too many links", b"x"), 2, "x: too many links; look at the path"),
        (
            OSError(errno.ENOSPC, "No space left"),
            1,
            "failed while working: no space left (--debug shows where)",
        ),
        (MemoryError(), 1, "not enough memory; choose smaller settings"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory; "),
        (ConnectionError("nobody there"), 1, "failed while working: nobody there"),
    ],
)
def test_paths_that_the_system_refuses_are_told_once(
    words: list[str], error: OSError, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(typer.core.TyperCommand, "invoke", refuse)
    ended, told = run(*words)
    assert (ended, told.count("\n")) == (code, 1)
    assert told.startswith(f"error: {message}")


def test_what_libraries_warn_of_is_for_programmers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: Any, **__: Any) -> None:
        warnings.warn("Corrupt EXIF data", stacklevel=1)

    monkeypatch.setattr(typer.core.TyperCommand, "invoke", warn)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        run(*MATCH)
        assert not shown
        warnings.simplefilter("always")
        monkeypatch.setattr(sys, "argv", ["geoaware", "--debug", *MATCH])
        with pytest.raises(SystemExit):
            cli.main()
        assert [str(each.message) for each in shown] == ["Corrupt EXIF data"]


@pytest.mark.parametrize("words", [MATCH, ["data", "check", "coco", "."]])
@pytest.mark.parametrize(("given", "code"), [((), 130), ((signal.SIGINT,), 130), ((signal.SIGTERM,), 143)])
def test_an_interruption_is_one_line(
    words: list[str], given: tuple[int, ...], code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt(*given)

    monkeypatch.setattr(typer.core.TyperCommand, "invoke", interrupt)
    assert run(*words) == (code, "interrupted; run the same command again to go on\n")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("geoaware.cli", signal.SIGINT, 130),
        ("typer", signal.SIGTERM, 143),
        ("geoaware.commands.match", signal.SIGTERM, 143),
        ("numpy", signal.SIGINT, 130),
    ],
)
def test_so_is_one_while_modules_are_loaded(moment: str, number: int, code: int, tmp_path: Path) -> None:
    """The interruption comes while the module is imported."""
    program = (
        "import os, runpy, signal, sys, time\n"
        # Whatever runs in the background passes on that it does not hear it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {moment!r}: sys.meta_path.remove(self); print(flush=True); time.sleep(30)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['geoaware', 'match', 'a.png', 'b.png', '--point', '5,5']\n"
        "runpy.run_module('geoaware', run_name='__main__', alter_sys=True)"
    )
    for name in ("a.png", "b.png"):
        save_face(tmp_path / name)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(number)
        _, told = process.communicate()
    assert (process.returncode, told) == (code, "interrupted; run the same command again to go on\n")
