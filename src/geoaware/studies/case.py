"""What analyses are computed from, predictions that were made and scored, and what they find."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from geoaware.evaluation.predictions import records
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.statistics import Estimate, estimate
from geoaware.evaluation.tables import Grid, plain
from geoaware.studies.metrics import METRICS, pair_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geoaware.studies.variants import Variant

PREDICTIONS = "predictions"
"""Folder of a study's predictions files."""


@dataclass(frozen=True)
class Run:
    """A variant that was predicted and scored; its name is that of the predictions file without suffix."""

    name: str
    path: Path
    result: PCKResult

    @property
    def place(self) -> str:
        """The file below the study's folder of predictions, the same on every machine."""
        parts = self.path.parts
        below = len(parts) - parts[::-1].index(PREDICTIONS) if PREDICTIONS in parts else -1
        return "/".join(parts[below:])

    @cached_property
    def values(self) -> Float[np.ndarray, "p m"]:
        """Of each pair, in the file's order; columns as `METRICS`."""
        return pair_values(self.path)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The lines of the file, which was checked when it was scored."""
        return list(records(self.path))

    @property
    def ends(self) -> tuple[list[str], list[str]]:
        """Ids of the source and of the target images."""
        return [str(each["source"]) for each in self.records], [str(each["target"]) for each in self.records]

    @property
    def turned(self) -> float:
        """Share of the pairs whose source was turned."""
        return float(np.mean([each["pose"] != "identity" for each in self.records]))

    def minus(self, other: Run) -> dict[str, Estimate]:
        """Difference to another run on the same pairs, pair by pair, by the keys of `METRICS`."""
        if self.ends != other.ends:
            raise ValueError(f"{self.path} and {other.path} hold different pairs")
        found = estimate((self.values - other.values)[None], *self.ends)
        return {metric.key: each for metric, each in zip(METRICS, found, strict=True)}


@dataclass(frozen=True)
class Outcome:
    """One analysis of one data set, or of several side by side.

    Attributes:
        grids: the tables; the paper's rows stand in them beside ours, marked as the paper's.
        finding: one or two sentences made of the figures, so that they cannot say anything else.
        plots: by file name without suffix, which is the analysis's if empty; `conduct` adds the data set.
        figures: every number of the tables as plain values (shares 0 to 1, ``None`` where there is none).
        predictions: the files that everything was computed from.
        left_out: what could not be measured on this data and why, a sentence each.
        data: the data set as a heading names it; empty where it is several. `conduct` completes it.
        name: of the analysis. This and what follows are those of the list of analyses where they are empty.
    """

    grids: tuple[Grid, ...]
    finding: str
    plots: Mapping[str, Figure] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    predictions: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()
    data: str = ""
    name: str = ""
    title: str = ""
    about: str = ""


@dataclass(frozen=True)
class Case:
    """The runs of one data set by variant, in the order that an analysis asked for them.

    The label of the data set is for file names, its title for headings.
    """

    label: str
    title: str
    runs: Mapping[Variant, Run]

    @property
    def first(self) -> PCKResult:
        """Any one result, for what is the same in all: alphas, averaging, categories."""
        return next(iter(self.runs.values())).result

    @property
    def subjects(self) -> dict[str, Run]:
        """Runs by subject, where there is one of each."""
        return {variant.subject: run for variant, run in self.runs.items()}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every predictions file once."""
        return tuple(dict.fromkeys(run.path for run in self.runs.values()))

    def outcome(
        self, grids: tuple[Grid, ...], finding: str, plots: Mapping[str, Figure], figures: Mapping[str, Any]
    ) -> Outcome:
        """What was found of this data set, with the files that it was found in."""
        return Outcome(grids, finding, plots, plain(figures), self.paths)


def slug(name: str) -> str:
    """A name as part of a path, the same on every file system."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
