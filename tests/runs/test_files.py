"""What killed writers leave behind is found and removed; everything else stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geoaware.runs.errors import InputError
from geoaware.runs.files import ABANDONED_S, check_goals, check_same_run, replacing, sweep

HANG = """
import sys, time
from pathlib import Path
from geoaware.runs.files import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print("begun", flush=True)
    time.sleep(100)
"""

unix = pytest.mark.skipif(os.name != "posix", reason="asks the system for processes")


@pytest.fixture
def writer() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Another process that is in the midst of writing a file."""
    begun = []

    def begin(goal: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HANG, str(goal)], stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def drafts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".geoaware-" in path.name]


@unix
def test_the_draft_of_a_killed_process_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, writer: Callable[[Path], subprocess.Popen[str]]
) -> None:
    goal = tmp_path / "config.json"
    with replacing(goal) as draft:
        draft.write_text("whole")
    process = writer(goal)
    assert len(drafts(tmp_path)) == 1
    assert sweep(tmp_path) == 0
    assert len(drafts(tmp_path)) == 1
    process.kill()
    process.wait()
    assert sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert goal.read_text() == "whole"


def test_drafts_of_this_process_stay(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.json") as draft:
        assert sweep(tmp_path) == 0
        draft.write_text("whole")
    assert (tmp_path / "a.json").read_text() == "whole"


@pytest.mark.parametrize(
    "name",
    [
        ".thesis.partial",
        ".movie.part1.rar",
        ".config.abcd1234.part.json",
        ".notes.part",
        "part.json",
        ".a.geoaware-me-1-00000000.part.json",
        "a.geoaware-00000000-1-00000000.part.json",
    ],
)
def test_files_of_the_user_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("precious")
    os.utime(path, (1e9, 1e9))
    assert sweep(tmp_path) == 0
    assert path.read_text() == "precious"


def test_folders_inside_are_left_alone(tmp_path: Path) -> None:
    inside = tmp_path / "last"
    inside.mkdir()
    path = inside / ".a.geoaware-00000000-1-00000000.part.json"
    path.write_text("half")
    os.utime(path, (1e9, 1e9))
    assert sweep(tmp_path) == 0
    assert sweep(tmp_path, inside) == 1


def test_drafts_of_other_computers_go_when_nobody_has_touched_them_for_long(tmp_path: Path) -> None:
    ages = {"old": ABANDONED_S + 60, "young": ABANDONED_S - 60}
    paths = {name: tmp_path / f".{name}.geoaware-00000000-1-00000000.part.json" for name in ages}
    for name, path in paths.items():
        path.write_text("half")
        os.utime(path, (time.time() - ages[name],) * 2)
    assert sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == [paths["young"].name]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert sweep(tmp_path / "absent") == 0
    assert not (tmp_path / "absent").exists()


@unix
def test_files_have_the_permissions_of_any_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            # Another thread that makes a file meanwhile would get the changed mask.
            patched.delattr(os, "umask")
            with replacing(tmp_path / "a.json") as draft:
                draft.write_text("whole")
            with replacing(tmp_path / "a.safetensors") as draft:
                save_file({"a": torch.ones(2)}, draft)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o640, 0o640]


@pytest.mark.parametrize("name", ["a.json", ".hidden", "x" * 240 + ".json", "é" * 120])
def test_a_file_of_any_name_is_replaced_whole(tmp_path: Path, name: str) -> None:
    goal = tmp_path / "new" / name
    for text in ("first", "second"):
        with replacing(goal) as draft:
            assert draft.suffix == (goal.suffix or ".part")
            draft.write_text(text)
        assert goal.read_text() == text
    with pytest.raises(NotADirectoryError), replacing(goal) as draft:
        (draft / "inside a file").write_text("third")
    assert [(path.name, path.read_text()) for path in goal.parent.iterdir()] == [(name, "second")]


def test_another_run(tmp_path: Path) -> None:
    one, other = (
        {"seed": 1, "loss": {"window": 5, "noise": 0}},
        {"seed": 1, "loss": {"window": 7, "noise": 0}},
    )
    check_same_run(one, dict(one), tmp_path)
    with pytest.raises(InputError) as caught:
        check_same_run(one, other, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: belongs to another run (different: loss.window); choose another place, or restart to "
        "throw it away"
    )
    assert caught.value.parameter == "restart"


def test_places_that_cannot_be_written_are_found_before(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    check_goals(None, tmp_path / "new" / "a.json", tmp_path / "text")
    with pytest.raises(InputError, match="is a folder; give the name of a file to write"):
        check_goals(None, tmp_path)
    with pytest.raises(InputError, match=r"a\.json: cannot be written \(.*text is no folder to write"):
        check_goals(tmp_path / "text" / "a.json")
    assert [each.name for each in tmp_path.iterdir()] == ["text"]
