"""Kill the resumable commands by hand: ``python -m tests.kills --kills 200 [JOB …] [--seed 7]``.

It says what it does, and ends with 1 where a run does not come to the bytes of an undisturbed one. Words
after ``--`` are added to the command line of every job.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

from tests.kills.harness import Trial
from tests.kills.jobs import JOBS, Job
from tests.kills.program import Fault, load


def main(words: list[str]) -> int:
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("jobs", nargs="*", help=f"all if not given: {', '.join(JOBS)}")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each job")
    parser.add_argument("--signals", type=int, default=3, help="SIGINTs, and SIGTERMs, of each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to work in; stays")
    given = parser.parse_args(own)
    load(["geoaware.cli"])
    top = Path(tempfile.mkdtemp(prefix="kills-")) if given.folder is None else given.folder
    faults = 0
    for name in given.jobs or JOBS:
        job = replace(JOBS[name], words=(*JOBS[name].words, *more))
        faults += _try(name, job, top.resolve() / name, given)
    if given.folder is None and not faults:
        shutil.rmtree(top)
    return int(faults > 0)


def _try(name: str, job: Job, folder: Path, given: argparse.Namespace) -> int:
    """The whole trial of a job; 1 if there is a fault."""
    began = time.monotonic()
    trial = Trial(job, folder, random.Random(f"{name}/{given.seed}"), lambda text: print(f"{name}: {text}"))
    try:
        folder.mkdir(parents=True)
        trial.undisturbed()
        print(f"{name}: {trial.length:.2f} s, {trial.changes} changes, {len(trial.operations)} operations")
        if given.kills:
            trial.kills(given.kills)
        for number in (signal.SIGINT, signal.SIGTERM) if given.signals else ():
            trial.signals(number, given.signals)
        trial.two_at_once()
    except Fault as fault:
        print(f"{name}: FAULT: {fault}\n(seed {given.seed}; files in {folder})")
        return 1
    print(
        f"{name}: survived {given.kills} kills, {2 * given.signals} signals; {time.monotonic() - began:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
