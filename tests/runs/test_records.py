from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from geoaware.runs.errors import InputError
from geoaware.runs.records import Records, Run, complete
from geoaware.runs.work import Batch, Done, Job, batched
from tests.runs.test_work import Squares

NAME = "caf\udce9"  # a name that is no UTF-8


class Numbers(Run):
    """Lines of numbers; the result has them in their order."""

    what = "counting"
    begins = '{"numbers"'
    part_begins = '{"of"'

    def __init__(self, count: int = 5, batch: int = 2, of: str = NAME) -> None:
        super().__init__({"of": of}, count, map(str, range(count)))
        self.batch, self.of, self.checked = batch, of, list[Path]()

    @property
    def job(self) -> Job:
        return Squares()

    def batches(self) -> Sequence[Batch]:
        """In an order of their own."""
        return batched(len(self), self.batch)[::-1]

    def is_current(self, goal: Path) -> bool:
        self.checked.append(goal)
        return not self.reusable

    def head(self) -> str:
        return json.dumps({"of": self.of}) + "\n"

    def check_head(self, content: Any, part: Path) -> None:
        if content != {"of": self.of}:
            raise InputError(f"{part}: of {content['of']}")

    def place(self, content: Any) -> int:
        return int(content["item"])

    def write(self, draft: Path, records: Records) -> None:
        found = [json.loads(line)["square"] for line in records.lines()]
        draft.write_text(json.dumps({"numbers": found, **records.head}))


class Slow:
    """An engine that computes lines, notes the batches, and stops when it is told to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.seen = stop_after, list[list[int]]()

    def results(self, job: Job, batches: Sequence[Batch]) -> Iterator[Done]:
        for batch in batches:
            if len(self.seen) == self.stop_after:
                raise KeyboardInterrupt
            self.seen.append(list(batch))
            yield batch, [json.dumps({"item": each, "square": each * each}) + "\n" for each in batch]


def test_the_result_is_in_the_order_of_the_items(tmp_path: Path) -> None:
    told, goal = list[tuple[str, int, int]](), tmp_path / "new" / "n.json"
    complete(Numbers(), goal, Slow(), tell=lambda *step: told.append(step))
    assert json.loads(goal.read_text()) == {"numbers": [0, 1, 4, 9, 16], "of": NAME}
    assert told == [("counting", done, 5) for done in range(6)]
    assert [each.name for each in goal.parent.iterdir()] == ["n.json"]


def test_what_is_done_is_not_done_again_and_batches_stay_whole(tmp_path: Path) -> None:
    goal, part = tmp_path / "n.json", tmp_path / "n.json.part"
    with pytest.raises(KeyboardInterrupt):
        complete(Numbers(), goal, Slow(2))
    lines = part.read_bytes().splitlines(keepends=True)
    assert [json.loads(each) for each in lines[1:]] == [
        {"item": each, "square": each * each} for each in (4, 2, 3)
    ]
    # Item 3 is lost with half of its line; its batch is computed whole, and item 2 is not written twice.
    part.write_bytes(b"".join(lines[:3]) + lines[3][:9])
    engine = Slow()
    complete(Numbers(), goal, engine)
    assert engine.seen == [[2, 3], [0, 1]]
    assert json.loads(goal.read_text())["numbers"] == [0, 1, 4, 9, 16]
    assert not part.exists()


def test_a_whole_result_is_left_as_it_is_unless_restarted(tmp_path: Path) -> None:
    goal, run, told = tmp_path / "n.json", Numbers(), list[tuple[str, int, int]]()
    goal.write_text('{"numbers": "of an earlier run"}')
    complete(run, goal, Slow(0), tell=lambda *step: told.append(step))
    assert (run.checked, told) == ([goal], [("counting", 5, 5)])
    complete(run, goal, Slow(), restart=True)
    assert json.loads(goal.read_text())["numbers"] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"item": 4}', "line 3: is damaged; restart to begin anew"),  # a second time
        ('{"item": 5}', "line 3: is damaged"),
        ('{"item": -1}', "line 3: is damaged"),
        ('{"other": 1}', "line 3: is damaged"),
        ("[" * 100_000, "line 3: is damaged"),
    ],
)
def test_damage_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    part = tmp_path / "n.json.part"
    part.write_text(f'{Numbers().head()}{{"item": 4}}\n{line}\n')
    before = part.read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        complete(Numbers(), tmp_path / "n.json", Slow())
    assert caught.value.parameter == "restart"
    assert part.read_bytes() == before


def test_lines_of_another_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        complete(Numbers(of="dogs"), tmp_path / "n.json", Slow(1))
    with pytest.raises(InputError, match=r"n.json.part: of dogs"):
        complete(Numbers(of="cats"), tmp_path / "n.json", Slow())


def test_a_run_that_fails_before_its_first_line_leaves_nothing(tmp_path: Path) -> None:
    class Unready(Numbers):
        def head(self) -> str:
            raise InputError("a source cannot be read")

    with pytest.raises(InputError, match="a source cannot be read"):
        complete(Unready(), tmp_path / "n.json", Slow())
    assert not list(tmp_path.iterdir())


def test_items_that_are_not_kept_are_tried_again(tmp_path: Path) -> None:
    class Picky(Numbers):
        def keeps(self, line: str) -> bool:
            return '"item": 2' not in line

    goal = tmp_path / "n.json"
    complete(Picky(), goal, Slow())
    assert json.loads(goal.read_text())["numbers"] == [0, 1, 9, 16]
    with pytest.raises(KeyboardInterrupt):
        complete(Picky(), goal, Slow(2), restart=True)
    engine = Slow()
    complete(Picky(), goal, engine)
    assert engine.seen == [[2, 3], [0, 1]]


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_that_keeps_no_lines_leaves_a_file_of_that_name_alone(tmp_path: Path, restart: bool) -> None:
    goal, foreign = tmp_path / "n.json", tmp_path / "n.json.records"
    foreign.write_text("notes of a user")
    complete(Numbers(), goal, Slow(), restart=restart)
    assert json.loads(goal.read_text())["numbers"] == [0, 1, 4, 9, 16]
    assert foreign.read_text() == "notes of a user"
    complete(Numbers(), goal, Slow(), restart=restart)
    assert foreign.read_text() == "notes of a user"


def test_no_item(tmp_path: Path) -> None:
    complete(Numbers(0), tmp_path / "n.json", Slow(0))
    assert json.loads((tmp_path / "n.json").read_text())["numbers"] == []


def test_lines_are_read_while_others_are_written(tmp_path: Path) -> None:
    with Records(tmp_path / "n.json.part", Numbers()) as records:
        records.begin(Numbers().head())
        for item, there in ((3, [3]), (0, [0, 3]), (4, [0, 3, 4])):
            records.put(item, json.dumps({"item": item}) + "\n")
            assert [json.loads(each)["item"] for each in records.lines()] == there
        assert (3 in records, 1 in records, len(records)) == (True, False, 3)
