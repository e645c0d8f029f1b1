from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from geoaware.runs import work
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.runs.work import FEWEST, Careful, Engine, Job, Local, batched, one_thread

ROOT = Path(__file__).resolve().parents[2]
_log = logging.getLogger("geoaware.tests")


@dataclass(frozen=True)
class Squares:
    """Squares of the items; what is done beside depends on the item."""

    device: str = "cpu"
    act: Callable[[int], Any] = abs

    def load(self, batch: Sequence[int]) -> list[int]:
        return list(batch)

    def work(self, batch: Sequence[int], loaded: list[int]) -> list[int]:
        for item in loaded:
            self.act(item)
        return [item * item for item in loaded]


def squares(engine: Engine, job: Job, batches: Sequence[Sequence[int]]) -> dict[int, int]:
    found = list(engine.results(job, batches))
    assert sorted(each for batch, _ in found for each in batch) == sorted(
        each for one in batches for each in one
    )
    return {item: value for batch, values in found for item, value in zip(batch, values, strict=True)}


def fail_at_three(item: int) -> None:
    if item == 3:
        raise InputError("item 3 cannot be squared", parameter="items")


def die_at_three(item: int) -> None:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def speak(item: int) -> None:
    _log.info("squares are computed")
    _log.warning("item %d", item)


def note_company(notes: Path, _: int) -> None:
    folder = work.among.folder
    assert folder is not None
    assert folder.is_dir()
    (notes / str(work.among.processes)).write_text(str(folder))


def no_threads(parent: int, _: int) -> None:
    assert torch.get_num_threads() == 1
    assert os.getpid() != parent


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_every_item_is_done_once(workers: int, count: int) -> None:
    assert squares(Local(workers), Squares(), batched(count, 3)) == {
        each: each * each for each in range(count)
    }


def test_batches() -> None:
    assert [list(each) for each in batched(5, 2)] == [[0, 1], [2, 3], [4]]
    assert batched(0, 2) == []


def test_the_default_is_one_process_a_core_where_there_is_enough_to_do(monkeypatch: Any) -> None:
    asked = []
    monkeypatch.setattr(work, "cores", lambda: 3)
    monkeypatch.setattr(work, "_pool", lambda payload, batches, count: asked.append(count) or iter(()))
    few, many = batched(2 * work.FEWEST - 1, 1), batched(100 * work.FEWEST, 1)
    for engine, job, batches, room in (
        (Local(None), Squares(), few, 1 << 40),
        (Local(None), Squares(), many, 1 << 40),
        (Local(None), Squares("cuda"), many, 1 << 40),
        (Local(None), Squares(), many, 1 << 30),
        (Local(5), Squares(), many, 0),
        (Local(5), Squares("cuda"), many, 0),
    ):
        monkeypatch.setattr(work, "free_host_memory", lambda room=room: room)
        list(engine.results(job, batches))
    assert asked == [3, 5]


def test_processes_compute_in_one_thread() -> None:
    assert len(squares(Local(2), Squares(act=partial(no_threads, os.getpid())), batched(4, 1))) == 4


def test_processes_share_a_folder_until_the_job_is_done(tmp_path: Path) -> None:
    squares(Local(2), Squares(act=partial(note_company, tmp_path)), batched(4, 1))
    (note,) = tmp_path.iterdir()
    assert note.name == "2"
    assert not Path(note.read_text()).exists()
    assert work.among == work.Shared(1, None), "this process does nothing with others"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_back_as_it_is(workers: int) -> None:
    with pytest.raises(InputError, match="item 3 cannot be squared") as caught:
        list(Local(workers).results(Squares(act=fail_at_three), batched(40, 1)))
    assert caught.value.parameter == "items"


def test_a_process_that_is_killed_ends_the_run_with_a_remedy() -> None:
    with pytest.raises(InputError, match=r"ended from outside.*with fewer processes") as caught:
        list(Local(2).results(Squares(act=die_at_three), batched(40, 1)))
    assert caught.value.parameter == "workers"


def test_what_cannot_be_pickled_is_done_here() -> None:
    job, batches = Squares(act=lambda _: None), batched(4 * work.FEWEST, 1)
    assert len(squares(Local(None), job, batches)) == len(batches)
    with pytest.raises(InputError, match=r"only one process can do this work \(.*lambda"):
        Local(2).results(job, batches)


def test_what_processes_say_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "geoaware"):
        squares(Local(2), Squares(act=speak), batched(6, 1))
    said = [record.getMessage() for record in caplog.records if record.name == "geoaware.tests"]
    assert sorted(said) == [f"item {each}" for each in range(6)] + ["squares are computed"]


def test_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from geoaware.runs.work import Local, batched\n"
        "from tests.runs.test_work import Squares, note_process\n"
        "if __name__ == '__main__':\n"
        "    for _ in Local(2).results(Squares(act=note_process), batched(10_000, 1)): pass\n"
    )
    environment = {**os.environ, "TEST_FOLDER": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    pids = [int(each.name) for each in tmp_path.iterdir()]
    assert len(pids) == 2
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, pids))


def note_process(_: int) -> None:
    Path(os.environ["TEST_FOLDER"], str(os.getpid())).touch()
    time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended while this was read
        return False


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


class Crowded:
    """Fits two items at a time."""

    device = "cpu"

    def __init__(self, most: int = 2) -> None:
        self.most, self.sizes = most, list[int]()

    def load(self, batch: Sequence[int]) -> list[int]:
        return list(batch)

    def work(self, batch: Sequence[int], loaded: list[int]) -> list[int]:
        self.sizes.append(len(loaded))
        if len(loaded) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GB")
        return loaded


def test_what_does_not_fit_the_memory_is_halved_and_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    crowded = Crowded()
    worker = Careful(crowded)
    assert [worker.work(each, worker.load(each)) for each in batched(12, 8)] == [
        list(range(8)),
        list(range(8, 12)),
    ]
    assert crowded.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert "a batch of 8 did not fit the memory: going on with 4" in caplog.text
    with pytest.raises(InputError, match=r"one image does not fit the memory; use a smaller canvas"):
        Careful(Crowded(0)).work(range(2), [0, 1])


def test_other_errors_are_not_hidden() -> None:
    class Broken(Crowded):
        def work(self, batch: Sequence[int], loaded: list[int]) -> list[int]:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Careful(Broken()).work(range(2), [0, 1])


def test_at_least_one_process() -> None:
    with pytest.raises(InputError, match="at least one process must work, got 0"):
        Local(0)


def process_of(item: int) -> int:
    return os.getpid()


def test_a_handful_of_calls_is_done_in_this_process() -> None:
    few = work.calls(Local(2), process_of, range(FEWEST - 1), "cpu", silent, "counting")
    assert set(few) == {os.getpid()}
    many = work.calls(Local(2), process_of, range(FEWEST), "cpu", silent, "counting")
    assert len(many) == FEWEST
    assert os.getpid() not in many


def test_processes_can_be_prepared_before_their_job() -> None:
    """What they need is loaded beside the rest, in the process that they are made of; for one, nothing is."""
    program = """
import multiprocessing, sys, time
from multiprocessing import forkserver
from geoaware.runs.work import Local, calls
from tests.runs.test_work import loaded

if __name__ == "__main__":
    Local(2).prepare(1, "geoaware.matcher")
    Local(1).prepare(100, "geoaware.matcher")
    assert forkserver._forkserver._forkserver_pid is None
    Local(2).prepare(100, "geoaware.apps.transfer.run")
    assert forkserver._forkserver._forkserver_pid is not None
    print(sum(calls(Local(2), loaded, range(20), "cpu", lambda *_: None, "counting")))
"""
    assert printed_by(program) == "20\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of what is loaded")
def test_processes_are_made_of_one_that_has_loaded_torch() -> None:
    program = """
from geoaware.runs.work import Local, calls
from tests.runs.test_work import parent_has_torch

if __name__ == "__main__":
    print(sum(calls(Local(2), parent_has_torch, range(20), "cpu", lambda *_: None, "counting")))
"""
    assert printed_by(program) == "20\n"


def printed_by(program: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def parent_has_torch(item: int) -> int:
    return int("libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text())


def loaded(item: int) -> int:
    return int("geoaware.apps.transfer.run" in sys.modules)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_kept_where_images_are_worked_on() -> None:
    """Blocks of 64 MB: once there is room, their 16,384 pages are not asked for again."""
    faults = work.calls(Local(2), faults_of_a_second_block, range(FEWEST), "cpu", silent, "counting")
    assert sorted(faults)[FEWEST // 2] < 1000


def faults_of_a_second_block(item: int) -> int:
    import resource

    torch.ones(16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
