"""What is done of a run whose result goes to a URL."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from geoaware.runs import records
from geoaware.runs.errors import InputError
from geoaware.runs.places import place
from geoaware.runs.records import HEAD, OWNER, complete
from tests.runs.test_records import NAME, Numbers, Slow

SQUARES = [0, 1, 4, 9, 16]


@pytest.fixture
def goal() -> Path:
    return place(f"memory://{uuid.uuid4().hex}/n.json")


@pytest.fixture
def part(goal: Path) -> Path:
    return goal.with_name("n.json.part")


def stopped(goal: Path, after: int = 2, of: str = NAME) -> None:
    with pytest.raises(KeyboardInterrupt):
        complete(Numbers(of=of), goal, Slow(after))


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def test_the_result_is_in_the_order_of_the_items(goal: Path, tmp_path: Path) -> None:
    complete(Numbers(), goal, Slow())
    complete(Numbers(), tmp_path / "n.json", Slow())
    assert goal.read_bytes() == (tmp_path / "n.json").read_bytes()
    assert names(goal.parent) == ["n.json"]


def test_what_is_done_is_in_objects_named_by_their_items(goal: Path, part: Path) -> None:
    stopped(goal)
    head, lines = sorted(names(part), reverse=True)
    assert (head, lines[:20]) == (HEAD, "000000002-000000004-")
    content = [json.loads(line) for line in (part / lines).read_bytes().splitlines()]
    assert [each["item"] for each in content] == [4, 2, 3]
    engine = Slow()
    complete(Numbers(), goal, engine)
    assert engine.seen == [[0, 1]]
    assert json.loads(goal.read_text()) == {"numbers": SQUARES, "of": NAME}
    assert names(goal.parent) == ["n.json"]


def test_lines_are_written_when_enough_of_them_wait(
    goal: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "EACH", 2)
    stopped(goal)
    assert [each[:19] for each in names(part)] == ["000000002-000000004", "000000003-000000003", HEAD]
    complete(Numbers(), goal, Slow())
    assert json.loads(goal.read_text())["numbers"] == SQUARES


def test_lines_are_written_when_the_last_ones_are_old(
    goal: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SECONDS", 0.0)
    stopped(goal)
    assert len(names(part)) == 4


def test_what_two_processes_have_done_counts_once(goal: Path, part: Path) -> None:
    stopped(goal)
    own = next(each for each in part.iterdir() if each.suffix == ".jsonl")
    (part / f"000000004-000000004-{'0' * 16}.jsonl").write_bytes(own.read_bytes().splitlines(True)[0])
    engine = Slow()
    complete(Numbers(), goal, engine)
    assert engine.seen == [[0, 1]]
    assert json.loads(goal.read_text())["numbers"] == SQUARES


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"item": 4}\n{"item": 9}\n', ", line 2"),
        (b'{"item": 4}\n{"item": 3', ", line 2"),
        (b"\xff\n", ", line 1"),
        (b"[" * 100_000 + b"\n", ", line 1"),
    ],
)
def test_damage_is_named_by_object_and_line(goal: Path, part: Path, content: bytes, where: str) -> None:
    stopped(goal)
    own = next(each for each in part.iterdir() if each.suffix == ".jsonl")
    own.write_bytes(content)
    with pytest.raises(InputError) as caught:
        complete(Numbers(), goal, Slow())
    assert str(caught.value) == f"{own}{where}: is damaged; restart to begin anew"
    assert caught.value.parameter == "restart"
    assert own.read_bytes() == content
    complete(Numbers(), goal, Slow(), restart=True)
    assert json.loads(goal.read_text())["numbers"] == SQUARES


def test_a_missing_head_is_named(goal: Path, part: Path) -> None:
    stopped(goal)
    (part / HEAD).unlink()
    with pytest.raises(InputError, match=r"part/head.json: is missing; restart to begin anew"):
        complete(Numbers(), goal, Slow())


def test_another_run_is_refused_and_what_is_not_of_a_run_stays(goal: Path, part: Path) -> None:
    stopped(goal, of="dogs")
    (part / "notes.txt").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"n.json.part/head.json: of dogs"):
        complete(Numbers(of="cats"), goal, Slow())
    complete(Numbers(of="cats"), goal, Slow(), restart=True)
    assert json.loads(goal.read_text())["of"] == "cats"
    assert names(part) == ["notes.txt"]
    (part / HEAD).write_bytes(b"of mine")
    with pytest.raises(InputError, match=r"head.json: exists and was not written by geoaware"):
        complete(Numbers(), goal, Slow(), restart=True)


def test_a_head_alone_is_begun_anew(goal: Path, part: Path) -> None:
    stopped(goal, after=0, of="dogs")
    assert names(part) == [HEAD]
    complete(Numbers(of="cats"), goal, Slow())
    assert json.loads(goal.read_text())["of"] == "cats"


def test_a_second_process_is_told_of_the_first(
    goal: Path, part: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(goal)
    import socket

    gone = subprocess.Popen(["true"])
    gone.wait()
    about = {"host": socket.gethostname(), "process": gone.pid, "since": "then"}
    (part / OWNER).write_bytes(json.dumps(about).encode())
    stopped(goal, after=0)
    assert not caplog.messages
    (part / OWNER).write_bytes(json.dumps({**about, "process": os.getpid()}).encode())
    complete(Numbers(), goal, Slow())
    assert caplog.messages == [
        f"{part}: another process may be at work here "
        f"(process {os.getpid()} on {socket.gethostname()}, since then)"
    ]
    assert names(goal.parent) == ["n.json"]
