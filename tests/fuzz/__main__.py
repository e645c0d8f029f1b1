"""The long round, by hand: ``python -m tests.fuzz --runs 20000 --seed 1``; exit code 1 if something is wrong.

``--only NUMBER`` repeats one run of a seed and shows what it printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import torch

from tests.fuzz import runs, seeds
from tests.fuzz.cases import CASES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=None)
    parser.add_argument("--place", default=None, help="folder to work in; one in memory is quick")
    parser.add_argument("--unspoiled", action="store_true", help="run every command once as it should be")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.unspoiled:
        return unspoiled(given.place)
    numbers = range(given.first, given.first + given.runs) if given.only is None else [given.only]
    codes: dict[str, Counter[int]] = defaultdict(Counter)
    slowest: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    longest: dict[str, int] = defaultdict(int)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=given.place) as place:
        world = seeds.make(Path(place, "world"))
        for number in numbers:
            began = time.perf_counter()
            print(f"run {number}", end="\r", file=sys.stderr, flush=True)
            done = runs.run(given.seed, number, world, Path(place))
            name = done.case.name
            codes[name][done.ended.code] += 1
            slowest[name] = max(slowest[name], (time.perf_counter() - began, number))
            longest[name] = max(longest[name], *map(len, done.ended.err.split("\n")))
            wrong += bool(done.faults)
            if done.faults or given.only is not None:
                print(f"--seed {given.seed} --only {number}: {' '.join(map(repr, done.words))}")
                print(f"  {done.ended.code}: " + "; ".join(done.faults))
                print(
                    "  " + (done.ended.err if given.only is not None else done.ended.err[-600:]), flush=True
                )
            if given.only is not None:
                print(done.ended.out)
    print(f"{'command':24}{'runs':>6}  {'exit codes':32}{'slowest':>9}  {'number':>6}{'longest line':>14}")
    for name, count in sorted(codes.items()):
        told = ", ".join(f"{code}: {times}" for code, times in sorted(count.items()))
        seconds, number = slowest[name]
        print(f"{name:24}{count.total():6}  {told:32}{seconds:7.2f} s  {number:6}{longest[name]:14}")
    total = sum(map(Counter.total, codes.values()))
    print(f"{total:,} runs of seed {given.seed}, {wrong:,} with faults")
    return 1 if wrong else 0


def unspoiled(folder: str | None) -> int:
    """Every command is right before it is spoiled."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=folder) as place:
        world = seeds.make(Path(place, "world"))
        for case in CASES:
            done = runs.run_case(case, Random(0), "", world, Path(place))
            if done.faults or done.ended.code not in ((0,) if case.stop is None else (0, 130)):
                wrong += 1
                print(f"{case.name}: {done.ended.code}: {'; '.join(done.faults)}\n{done.ended.err[-600:]}")
    print(f"{len(CASES)} commands, {wrong} with faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
