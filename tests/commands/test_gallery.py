from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from geoaware.commands.gallery import gallery
from geoaware.runs.errors import InputError
from tests.command_line import geoaware
from tests.report.gallery.small import EVIL, EXACT, MIXED, write_data, write_predictions
from tests.report.gallery.test_write import content, images
from tests.runs.test_files import HANG, unix


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(gallery)
    return CliRunner().invoke(app, [str(each) for each in arguments])


def shown(path: Path) -> list[str]:
    return [each["id"] for each in content(path.read_text(encoding="utf-8"))["pairs"]]


def test_a_gallery(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(write_predictions(tmp_path / "found.jsonl"), "--root", root)
    assert done.exit_code == 0, done.output
    assert "wrote found.html (0." in done.stderr
    assert "MB, 4 pairs); open it in a browser" in done.stderr
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert shown(tmp_path / "found.html") == ["mixed", "exact", EVIL, "near"]
    assert "<dd>coco val, 4 of 4 pairs</dd>" in page
    assert "distance &lt; 0.1 x longer side of the target&#x27;s object box" in page
    assert str(tmp_path) not in page
    assert str(root) not in page


@unix
def test_what_a_killed_gallery_left_goes_with_the_next(root: Path, tmp_path: Path) -> None:
    for name in ("g.html", "mine.html"):
        hung = [sys.executable, "-c", HANG, str(tmp_path / name)]
        with subprocess.Popen(hung, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
    done = run(write_predictions(tmp_path / "found.jsonl"), "--root", root, "--out", tmp_path / "g.html")
    assert done.exit_code == 0, done.output
    (left,) = (path.name for path in tmp_path.iterdir() if path.name.startswith("."))
    assert left.startswith(".mine.")  # of another result


def test_choices(root: Path, tmp_path: Path) -> None:
    path, out = write_predictions(tmp_path / "found.jsonl"), tmp_path / "deep" / "g.html"
    given = (path, "--root", root, "--out", out, "--annotations", "val.json", "--option", "pairs=1")
    assert run(*given, "--worst", 2).exit_code == 0
    assert shown(out) == ["mixed", EVIL]
    assert run(*given, "--pairs", 2, "--seed", 1, "--size", 50, "--alpha", 0.04).exit_code == 0
    first = shown(out)
    assert len(first) == 2
    assert max(side for each in images(out.read_text(encoding="utf-8")).values() for side in each.size) == 50
    assert content(out.read_text(encoding="utf-8"))["alpha"] == 0.04
    assert run(*given, "--pairs", 2, "--seed", 1).exit_code == 0
    assert shown(out) == first
    chosen = []
    for seed in range(8):
        run(*given, "--pairs", 2, "--seed", seed)
        chosen.append(tuple(shown(out)))
    assert len(set(chosen)) > 1


def test_two_files(root: Path, tmp_path: Path) -> None:
    a = write_predictions(tmp_path / "a.jsonl", [MIXED, EXACT])
    b = write_predictions(tmp_path / "b.jsonl", [EXACT, {**MIXED, "predicted": MIXED["truth"]}])
    assert run(a, b, "--root", root, "--out", tmp_path / "g.html").exit_code == 0
    data = content((tmp_path / "g.html").read_text(encoding="utf-8"))
    assert data["labels"] == ["a.jsonl", "b.jsonl"]
    assert [[each["all"]["correct"] for each in pair["runs"]] for pair in data["pairs"]] == [[1, 3], [3, 3]]


@pytest.mark.parametrize(
    ("records", "header", "arguments", "message"),
    [
        ([], {}, (), "holds no predictions, only a header"),
        ([MIXED], {"pairs": 2}, (), "holds 1 of the 2 pairs"),
        ([MIXED], {"dataset": ""}, (), "does not say of what data set and split it is; give --dataset"),
        ([MIXED], {"split": ""}, (), "does not say of what data set and split it is; give --split"),
        ([MIXED], {}, ("--dataset", "horses"), "unknown data set 'horses'"),
        ([MIXED], {}, ("--annotations", "gone.json"), "gone.json: no such file"),
        ([MIXED], {}, ("--option", "colour=1"), "data set coco has no option 'colour'"),
        ([{**MIXED, "target": "z.png"}], {}, (), "image 'z.png' of pair 'mixed' is not one of the data set"),
        ([MIXED], {}, ("--pairs", "1", "--worst", "1"), "--pairs and --worst are two choices"),
        ([MIXED], {}, ("--worst", "0"), "--worst 0: give a number from 1"),
        (
            [MIXED],
            {},
            ("--alpha", "-1"),
            "alpha is a share of the threshold base, above 0",
        ),
        ([MIXED], {}, ("--alpha", "10"), "got 10; for 10 % give 0.1"),
        ([MIXED], {}, ("--size", "3"), "images of 3 pixels cannot be shown"),
        ([MIXED], {"protocol": "mine"}, (), "unknown protocol 'mine'"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, records: list[object], header: dict[str, object], arguments: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    path, out = write_predictions(tmp_path / "p.jsonl", records, **header), tmp_path / "g.html"
    done = run(path, "--root", root, "--out", out, *arguments)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


def test_three_files_and_no_root(root: Path, tmp_path: Path) -> None:
    whole = write_predictions(tmp_path / "p.jsonl")
    done = run(whole, whole, whole, "--root", root)
    assert str(done.exception) == "3 predictions files; give one, or two to compare"
    done = run(whole, "--root", tmp_path / "gone")
    assert isinstance(done.exception, InputError)
    assert "gone" in str(done.exception)


def test_exit_codes_and_what_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    whole = write_predictions(tmp_path / "p.jsonl")
    for arguments, code, message in (
        (["empty.jsonl", "--root", root], 2, "error: empty.jsonl: is empty; write predictions with"),
        ([whole, "--root", root, "--out", "g.html"], 0, "wrote g.html"),
    ):
        done = geoaware("gallery", *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
