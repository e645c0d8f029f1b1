"""Long work as a list of steps: what each is, how far it is, what it takes, and how it is done.

The list is made of what lies on disk. The first step that is not done is done, then the list is made anew, so
that a run which was stopped goes on where it was, and what one step finds decides those that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from geoaware.runs.errors import InputError
from geoaware.studies.costs import Line, Rates, Work, duration

DONE, TO_DO = "done", "to do"


@dataclass(frozen=True)
class Step:
    """A step of long work.

    Attributes:
        name: what it does.
        run: does it, or goes on with it; does nothing where all is done.
        done: how many of its parts are done.
        parts: how many it has.
        what: what the parts are called.
        left: what is left to do.
        missing: why it cannot be done, and what mends that; empty if it can.
    """

    name: str
    run: Callable[[], object]
    done: int
    parts: int = 1
    what: str = ""
    left: Work = field(default_factory=Work)
    missing: str = ""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return not self.missing and self.done >= self.parts

    @property
    def line(self) -> Line:
        """For a table of what there is to do."""
        state = DONE if self.finished else TO_DO
        if self.missing:
            state = "missing"
        elif self.what and not self.finished:
            state = f"{self.done:,} of {self.parts:,} {self.what}"
        return Line(self.name, state, Work() if self.finished else self.left)


def carry_out(plan: Callable[[], Sequence[Step]], rates: Rates, say: Callable[[str], None]) -> None:
    """Do what is not done, step by step.

    Raises:
        InputError: a step cannot be done, or did not do its work; and whatever a step raises.
    """
    began = set[str]()
    while True:
        steps = plan()
        number = next((row for row, each in enumerate(steps) if not each.finished), None)
        if number is None:
            return
        step = steps[number]
        if step.missing:
            raise InputError(step.missing)
        if step.name in began:
            raise InputError(f"{step.name}: ended, and is not done; something else works in the same folder")
        began.add(step.name)
        expected = duration(step.left.seconds(rates))
        say(f"step {number + 1} of {len(steps)}: {step.name} (expected: {expected})")
        start = time.monotonic()
        step.run()
        say(f"step {number + 1} of {len(steps)}: {step.name} took {duration(time.monotonic() - start)}")
