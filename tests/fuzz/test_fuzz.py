"""A short round on every command: 2,000 runs, the same ones each time; the long one is by hand."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import runs, seeds
from tests.fuzz.cases import CASES, Case

for package in ("resource", "efficientnet_lite_pytorch", "accelerate", "tensorboard"):
    pytest.importorskip(package)

pytestmark = pytest.mark.usefixtures("unchecked_types", "one_thread")

SEED, RUNS, PART = 0, 2_000, 100


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeds.make(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_command_is_right_before_it_is_spoiled(case: Case, world: Path, tmp_path: Path) -> None:
    done = runs.run_case(case, Random(0), "", world, tmp_path)
    assert (done.faults, done.ended.code in ((0,) if case.stop is None else (0, 130))) == ([], True), done


@pytest.mark.parametrize("first", range(0, RUNS, PART))
def test_nothing_breaks_a_command(first: int, world: Path, tmp_path: Path) -> None:
    wrong = []
    for number in range(first, first + PART):
        done = runs.run(SEED, number, world, tmp_path)
        if done.faults:
            again = f"python -m tests.fuzz --seed {SEED} --only {number}"
            wrong.append(f"{again}: {done.words}\n{'; '.join(done.faults)}\n{done.ended.err}")
    assert not wrong, "\n\n".join(wrong)
