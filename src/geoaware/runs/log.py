"""Figures by step, as JSON lines and for TensorBoard; a resumed run writes on as if it had never stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaware.runs.files import reading_part, replacing
from geoaware.runs.optional import require

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE = "log.jsonl"
TENSORBOARD = "tensorboard"


class Log:
    """Means of the figures of each step, over as many steps as lie between two lines.

    Args:
        folder: of the run.
        done: steps that the run has behind it; later lines of an earlier attempt are dropped.
        active: whether this process writes.
    """

    def __init__(self, folder: Path, done: int, active: bool = True) -> None:
        self._path = folder / FILE
        self._board: SummaryWriter | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        if not active:
            return
        if self._path.exists():
            # Drop what an interrupted attempt wrote after its last checkpoint.
            kept = [line for line in read(folder) if line["step"] <= done]
            with replacing(self._path) as draft:
                draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        require("tensorboard", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=done + 1)

    def add(self, step: int, values: Mapping[str, float], write: bool) -> None:
        """Take the figures of a step; with ``write``, note the means since the last line."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if write:
            self.write(step, {name: total / self._count for name, total in self._sums.items()})
            self._sums, self._count = {}, 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note figures as they are, without those that are no numbers; the line is handed over at once."""
        if self._board is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            known = {name: value for name, value in values.items() if math.isfinite(value)}
            file.write(json.dumps({"step": step, **known}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name.replace(" ", "_"), value, step)

    def flush(self) -> None:
        """Hand the rest to the operating system as well."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the file of TensorBoard."""
        if self._board is not None:
            self._board.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that was cut off by a kill is left out.

    Raises:
        InputError: it is damaged.
    """
    with reading_part(str(folder / FILE)):
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        if not all(type(line["step"]) is int for line in found):
            raise ValueError(found)
        return found
