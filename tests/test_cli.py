"""What the command line itself understands and says, whichever command runs."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from geoaware import cli
from geoaware.commands import data
from geoaware.features import EXTRACTORS, Entry
from tests.commands.test_reproduce import faces
from tests.toys import save_face

LONG = "n" * 300
NO_FILE = "no file can have this name; it is too long or no text"


def _path_options() -> Iterator[Any]:
    """Words of every command with one path that is left to be filled in, for each path that it takes."""
    group: Any = typer.main.get_command(cli.app)
    commands = [(each.callback, group.commands) for each in cli.app.registered_commands]
    commands += [(each.callback, group.commands["data"].commands) for each in data.app.registered_commands]
    for callback, among in commands:
        command = next(each for each in among.values() if each.callback.__name__ == callback.__name__)
        before = [command.name] if among is group.commands else ["data", command.name]
        kinds = inspect.signature(callback).parameters
        for tested in command.params:
            if tested.name in kinds and "Path" in str(kinds[tested.name].annotation):
                words = [
                    word
                    for each in command.params
                    if each.required or each is tested
                    for word in [
                        *([each.opts[0]] if each.param_type_name == "option" else []),
                        "{}" if each is tested else "x",
                    ]
                ]
                yield pytest.param([*before, *words], id=f"{command.name}-{tested.name}")


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What is said of wrong usage."""
    monkeypatch.setattr(sys, "argv", ["geoaware", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", list(_path_options()))
def test_a_path_that_no_file_can_have_is_refused_by_every_command(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fail(monkeypatch, capsys, [each.format(LONG) for each in words])
    assert error == f"error: {'n' * 59}…{'n' * 20}: {NO_FILE}\n"
    # Typer refuses some of these itself.
    error = fail(monkeypatch, capsys, [each.format("\ud800.png") for each in words])
    assert error == f"error: \\ud800.png: {NO_FILE}\n" or "surrogates not allowed" in error


@pytest.mark.parametrize(
    "words",
    [
        ["match", "a.png", "a.png", "--point", "1,2", "--post-processor", "{}/a.pth"],
        ["match", "a.png", "a.png", "--point", "1,2", "--extractor", "dinov2-base", "--set", "weights={}"],
        ["train", "{}"],
        ["tune", "{}.yaml"],
        ["ablation", "{}/a.yaml", "--out", "x"],
        ["data", "check", "coco", ".", "--annotations", "{}.json"],
        ["data", "check", "pairs", ".", "--pairs", "{}.csv"],
        ["data", "check", "coco", ".", "--split", "val", "--images", "{}"],
        ["evaluate", "--dataset", "coco", "--root", ".", "--split", "val", "--annotations", "{}.json"],
    ],
)
@pytest.mark.parametrize("name", [LONG, "\ud800"])
def test_so_is_a_text_that_stands_for_a_file(
    words: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(faces(tmp_path))
    save_face(Path("a.png"))
    error = fail(monkeypatch, capsys, [each.format(name) for each in words])
    assert error.startswith(("error: ", "problem: "))
    assert ("n" * 12 if name == LONG else "\\ud800") in error
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}"], "No such command '"),
        (["--{}"], "No such option: "),
        (["data", "{}"], "No such command '"),
        (["score", "f", "--{}"], "No such option: "),
        (["score", "f", "{}"], "Got unexpected extra argument"),
        (["gallery", "f", "--root", "x", "--alpha", "{}"], "Invalid value for '--alpha'"),
    ],
)
@pytest.mark.parametrize("long", ["x" * 100_000, "a b" * 30_000, "'\"a" * 30_000])
def test_wrong_usage_is_told_without_its_long_arguments(
    words: list[str],
    message: str,
    long: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = fail(monkeypatch, capsys, [each.format(long) for each in words])
    told = " ".join(error.replace("│", " ").split())
    assert message in told
    assert len(told) < 400


@pytest.mark.parametrize(
    "words",
    [
        ["match", "A.PNG", "a.png", "--point", "1,2"],
        ["match", "a.png", "A.PNG", "--point", "1,2"],
        ["match", "a.png", "a.png", "--points", "A.PNG"],
        ["score", "A.PNG"],
        ["gallery", "A.PNG", "--root", "."],
        ["transfer", "A.PNG", ".", "--out", "x"],
        ["pose", "A.PNG", "--templates", "sets"],
    ],
)
def test_a_file_that_is_spelled_in_another_way_is_named(
    words: list[str],
    strange: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_face(strange / "a.png")
    assert "error: A.PNG: no such file; a.png is there" in fail(monkeypatch, capsys, words)


STRANGE = "[/x][b]cat[/b] :eye:"
"""A name that holds what looks like rich's markup, one that nobody opened too, and an emoji."""


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COCO folder, template sets and points whose names are all `STRANGE`."""
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    root, name = faces(tmp_path), STRANGE.replace("/", "|")
    content = json.loads((root / "val.json").read_text())
    content["categories"][0]["name"] = STRANGE
    content["categories"][0]["keypoints"] = [f"{STRANGE} {number}" for number in range(3)]
    for image in content["images"]:
        Path(root / "images" / image["file_name"]).rename(root / "images" / f"{name} {image['id']}.png")
        image["file_name"] = f"{name} {image['id']}.png"
    (root / "val.json").write_text(json.dumps(content))
    (root / "points.json").write_text(json.dumps({STRANGE: [30, 40]}))
    (root / "sets" / name).mkdir(parents=True)
    for pose in ("left", "right", "front", "back"):
        save_face(root / "sets" / name / f"{pose}.png")
    monkeypatch.chdir(root)
    return root


SET = ["--dataset", "coco", "--root", ".", "--split", "val"]
TOY = ["--extractor", "toy", "--device", "cpu"]
FILE = f"images/{STRANGE.replace('/', '|')} 0.png"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["match", FILE, FILE, "--points", "points.json", *TOY], STRANGE),
        (["evaluate", *SET, "--by", "category", "--out", "p.jsonl", *TOY], STRANGE),
        (["score", "p.jsonl", "--by", "keypoint"], f"{STRANGE} 2"),
        (["gallery", "p.jsonl", "--root", ".", "--out", f"{FILE}.html"], FILE),
        (["data", "check", "coco", ".", "--split", "val"], "coco: fine"),
        (["pose", "images", "--templates", "sets", *TOY], FILE.removeprefix("images/")),
        (["extract", "images", "--cache", STRANGE.replace("/", "|"), *TOY], STRANGE.replace("/", "|")),
        (["transfer", "val.json", "sets", "--recursive", "--out", FILE + ".json", *TOY], STRANGE),
        (["reproduce", "table2", *SET, "--out", "made", *TOY], STRANGE),
        (["info"], "efficientnet-lite0"),
    ],
)
def test_names_are_printed_as_they_are(
    words: list[str],
    shown: str,
    strange: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    if words[1:2] == ["p.jsonl"]:
        monkeypatch.setattr(sys, "argv", ["geoaware", "predict", *SET, "--out", "p.jsonl", *TOY])
        with pytest.raises(SystemExit):
            cli.main()
    monkeypatch.setattr(sys, "argv", ["geoaware", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert shown in told.out + told.err


@pytest.mark.parametrize(
    "words", [["info", "--convert-captioner", "/"], ["info", "--convert-captioner", "a", "--out", "."]]
)
def test_a_folder_without_a_name_is_no_file(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    assert fail(monkeypatch, capsys, words).startswith("error: ")
