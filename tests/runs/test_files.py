"""What killed writers leave behind is found and removed; everything else stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from geoaware.runs.errors import InputError
from geoaware.runs.files import (
    ABANDONED_S,
    check_apart,
    check_goals,
    check_own,
    check_same_run,
    locked,
    open_part,
    replacing,
    sweep,
)
from geoaware.runs.weights import write_safetensors

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


@unix
def test_what_killed_processes_left_of_a_file_goes_when_it_is_written(
    tmp_path: Path, writer: Callable[[Path], subprocess.Popen[str]]
) -> None:
    goal, other = tmp_path / "figures.csv", tmp_path / "poses.json"
    killed, elsewhere, living = (writer(each) for each in (goal, other, goal))
    for process in (killed, elsewhere):
        process.kill()
        process.wait()
    with replacing(goal) as draft:
        draft.write_text("whole")
    left = drafts(tmp_path)
    assert len(left) == 2, "of another file, and of a process that lives"
    assert {name.split(".geoaware-")[0] for name in left} == {".figures", ".poses"}
    living.kill()


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
            write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})
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


@unix
def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path: Path) -> None:
    goal, near, far = tmp_path / "data" / "a.json", tmp_path / "near", tmp_path / "far"
    near.symlink_to(goal)
    far.symlink_to("near")
    for link, text in ((near, "made"), (far, "replaced")):
        with replacing(link) as draft:
            draft.write_text(text)
        assert (near.is_symlink(), far.is_symlink()) == (True, True)
        assert goal.read_text() == text
    assert [each.name for each in goal.parent.iterdir()] == ["a.json"]


@unix
def test_a_pipe_stays_one_and_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(pipe.read_text)
        with replacing(pipe) as draft:
            assert draft.suffix == ".json"
            draft.write_text("passed on")
        assert reader.result() == "passed on"
    assert pipe.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe.json"]


@unix
def test_a_device_stays_one() -> None:
    before = Path(os.devnull).stat()
    with replacing(os.devnull) as draft:
        draft.write_text("lost")
    assert os.path.samestat(before, Path(os.devnull).stat())


@unix
@pytest.mark.parametrize("name", ["/dev/stdout", "link", "out.txt"])
def test_an_output_of_the_process_goes_on_behind(tmp_path: Path, name: str) -> None:
    program = (
        "import sys; from geoaware.runs.files import replacing\n"
        "print('before')\n"
        "with replacing(sys.argv[1]) as draft: draft.write_text('between\\n')\n"
        "print('after')"
    )
    (tmp_path / "link").symlink_to("/dev/stdout")
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", program, name], stdout=out, check=True, cwd=tmp_path)
    assert (tmp_path / "out.txt").read_text() == "before\nbetween\nafter\n"


@unix
def test_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("end")
        with pytest.raises(InputError, match="end: is a disk or a socket; give the name of a file to write"):
            check_goals(Path("end"))


def test_results_stay_apart_from_what_is_read_and_from_each_other(tmp_path: Path) -> None:
    read, other, new = tmp_path / "read.json", tmp_path / "other.json", tmp_path / "new.json"
    read.touch()
    other.touch()
    (tmp_path / "link").symlink_to(read)
    os.link(read, tmp_path / "hard")
    check_apart([other, new], [read, tmp_path / "missing"])
    check_apart([Path(os.devnull), Path(os.devnull)], [read])
    for name in ("read.json", "link", "hard", "../" + tmp_path.name + "/read.json"):
        with pytest.raises(InputError, match=f"{name}: is what is read from; choose another place"):
            check_apart([new, tmp_path / name], [other, read])
    for name in ("new.json", "other.json"):
        with pytest.raises(InputError, match=f"{name}: two results would go there"):
            check_apart([new, other, tmp_path / name], [read])


@pytest.mark.parametrize(
    ("content", "own"),
    [
        ("", True),
        ('{"a": 1, "b"', True),
        ('{\n "a":\n1}', True),
        ('{"a', True),
        ("[", False),
        ('{"b": 1}', False),
    ],
)
def test_what_may_be_thrown_away(tmp_path: Path, content: str, own: bool) -> None:
    path = tmp_path / "a.json"
    check_own(path, '{"a": 1')
    path.write_text(content)
    with nullcontext() if own else pytest.raises(InputError, match="was not written by geoaware; choose"):
        check_own(path, '{"a": 1')


@unix
def test_a_pipe_may_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: exists and was not written by geoaware"):
        check_own(tmp_path / "pipe", "{")


def _is_open(descriptor: int, file: int) -> bool:
    try:
        return os.fstat(descriptor).st_ino == file
    except OSError:
        return False


class Msvcrt:
    """Stands in for the module of Windows: a byte of a file is locked by one open file at a time."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        file = os.fstat(descriptor).st_ino
        byte = (file, os.lseek(descriptor, 0, os.SEEK_CUR))
        holder = self.held.get(byte, descriptor)
        if holder != descriptor and _is_open(holder, file):
            raise PermissionError(13, "Permission denied")
        self.held[byte] = descriptor


@unix
def test_files_and_folders_are_locked_on_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Msvcrt()
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setattr(sys, "platform", "win32")
    part, busy = tmp_path / "a.jsonl.part", "another process is at work on it; wait"
    part.write_bytes(b"1\n2\n")
    with open_part(part) as file:
        with pytest.raises(InputError, match=f"a.jsonl.part: {busy}"):
            open_part(part)
        file.write(b"3\n")
        file.flush()
        assert part.read_bytes() == b"1\n2\n3\n"
    with locked(tmp_path):
        with pytest.raises(InputError, match=busy), locked(tmp_path):
            pass
        assert (tmp_path / ".geoaware.lock").exists()
    with locked(tmp_path / "b.json"):
        with pytest.raises(InputError, match=f"b.json: {busy}"), locked(tmp_path / "b.json"):
            pass
        assert (tmp_path / ".b.json.geoaware.lock").exists()
    with locked(tmp_path), open_part(part) as file:
        assert file.read() == b"3\n"
    assert [each.name for each in tmp_path.iterdir()] == [part.name]
    assert min(place for _, place in windows.held) > 1e12, "no file reaches it"


@unix
def test_a_file_stays_locked_when_it_is_replaced(tmp_path: Path) -> None:
    goal = tmp_path / "new" / "a.json"
    busy = "a.json: another process is at work on it; wait"
    with locked(goal):
        for text in ("1", "2"):
            with replacing(goal) as draft:
                draft.write_text(text)
            with pytest.raises(InputError, match=busy), locked(goal):
                pass
        with locked(tmp_path / "new" / "b.json"):
            pass
    with locked(goal):
        pass
    assert [each.name for each in goal.parent.iterdir()] == ["a.json"]


@unix
def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = tmp_path / "a.json"
    # Whoever held it ends between the opening of the file and its lock.
    monkeypatch.setattr("geoaware.runs.files._lock", lambda *_: (tmp_path / ".a.json.geoaware.lock").unlink())
    with pytest.raises(InputError, match="another process is at work on it"), locked(goal):
        pass


@unix
def test_the_lock_of_a_killed_process_ends(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from geoaware.runs.files import locked\n"
        "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(100)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(InputError, match="another process is at work on it; wait"), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path):
        pass
