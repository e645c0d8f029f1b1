"""What steps of long work take: seconds, bytes on disk and memory, from rates that were measured.

The shipped rates are `benchmarks/paper.py`'s; where a run's folder has a ``rates.json``, what stands in it
goes before them. A run writes there what its own steps took.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from geoaware.evaluation.tables import MISSING, Grid
from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import replacing
from geoaware.runs.settings import Part, parse
from geoaware.studies.variants import POST_PROCESSOR, ZERO_SHOT, PoseChoice

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "rates.json"
FILE = "rates.json"


class Rates(Part):
    """Measured rates.

    Attributes:
        source: the machine, in words.
        machine: the same in detail.
        seconds: of a unit of work, by its kind.
        memory: bytes that a process takes at its peak, by the kind as far as its comma.
        size: bytes of things.
        measured: units of the work that a run's own figures are means of, by kind.
    """

    source: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    memory: dict[str, int] = Field(default_factory=dict)
    size: dict[str, int] = Field(default_factory=dict)
    measured: dict[str, int] = Field(default_factory=dict)


def kind_of(subject: str, pose: PoseChoice, again: bool = False) -> str:
    """Kind of the work of predicting a pair; ``again``: with poses that an earlier variant has chosen."""
    features = subject if subject == ZERO_SHOT else POST_PROCESSOR
    return f"{features}, {'pose off' if pose == 'off' else 'pose known' if again else 'pose chosen'}"


def load_rates(out: Path, full_size: bool = True) -> Rates:
    """The shipped rates, which are of networks of full size, with those of a run's folder before them.

    Raises:
        InputError: the folder's file is damaged.
    """
    shipped, own = _read(SHIPPED) if full_size else Rates(source="this run"), out / FILE
    if not own.is_file():
        return shipped
    found = _read(own)
    parts = {key: {**getattr(shipped, key), **getattr(found, key)} for key in ("seconds", "memory", "size")}
    kinds = ", ".join(sorted(found.seconds))
    source = f"{shipped.source}; of {kinds}: {found.source or 'this run'}" if full_size else shipped.source
    return shipped.model_copy(update={**parts, "source": source, "measured": found.measured})


def note_rate(out: Path, kind: str, units: int, seconds: float) -> None:
    """Write down what so many units took in a run's folder, as a mean with what it noted before."""
    path = out / FILE
    found = _read(path) if path.is_file() else Rates()
    before = found.measured.get(kind, 0)
    mean = (found.seconds.get(kind, 0.0) * before + seconds) / (before + units)
    changed = found.model_copy(
        update={
            "seconds": {**found.seconds, kind: mean},
            "measured": {**found.measured, kind: before + units},
        }
    )
    with replacing(path) as draft:
        draft.write_text(changed.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8")


def _read(path: Path) -> Rates:
    try:
        return parse(Rates, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a file of rates ({reason(error)}); remove it") from None


@dataclass(frozen=True)
class Work:
    """What is left of a step.

    Attributes:
        units: by kind, as in `Rates.seconds`; ``None`` where they cannot be counted yet.
        disk: bytes that are written.
        memory: bytes that are taken beside the rates' own, such as caches.
    """

    units: Mapping[str, int] | None = field(default_factory=dict)
    disk: int = 0
    memory: int = 0

    def seconds(self, rates: Rates) -> float | None:
        """How long it takes; ``None`` where that is not known."""
        if self.units is None or self.units.keys() - rates.seconds.keys():
            return None
        return sum(rates.seconds[kind] * count for kind, count in self.units.items())

    def peak(self, rates: Rates) -> int | None:
        """Bytes of memory at the peak; ``None`` where there is no work, or none that was measured."""
        words = {kind.partition(",")[0] for kind, count in (self.units or {}).items() if count}
        found = [rates.memory[word] for word in words if word in rates.memory]
        return max(found) + self.memory if found else None


@dataclass(frozen=True)
class Line:
    """A line of a plan: the step's name, how far it is in words, and what is left of it."""

    name: str
    state: str
    left: Work


def plan_grid(lines: Sequence[Line], rates: Rates, note: str) -> Grid:
    """Every step with what it will take, and all together: sums of disk and time, the largest memory."""
    rows, seconds, disk, peak = [], 0.0, 0, 0
    for number, each in enumerate(lines, start=1):
        taken, memory = each.left.seconds(rates), each.left.peak(rates)
        seconds, disk, peak = seconds + (taken or 0.0), disk + each.left.disk, max(peak, memory or 0)
        rows.append((f"{number} {each.name}", each.state, _gigabytes(each.left.disk), duration(taken),
                     _gigabytes(memory or 0)))  # fmt: skip
    rows.append(("all that is left", "", _gigabytes(disk), duration(seconds), _gigabytes(peak)))
    columns = ("step", "state", "disk", "time", "memory")
    return Grid("What there is to do", columns, tuple(rows), note)


def duration(seconds: float | None) -> str:
    """``3.2 h``; `MISSING` where it is not known, or nothing."""
    if not seconds:
        return MISSING
    for size, name in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} s"


def _gigabytes(size: int) -> str:
    if not size:
        return MISSING
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
