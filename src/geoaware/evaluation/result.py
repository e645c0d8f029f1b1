"""`PCKResult`: every figure of one evaluation, and the tables that ``print`` shows."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from geoaware.evaluation.averages import AVERAGINGS, LABELS, Averaging, Scores
from geoaware.evaluation.tables import ERROR_LABELS, Grid, as_table, as_text, interval, percent
from geoaware.method.metrics.geometry_aware import relative_gap

if TYPE_CHECKING:
    from rich.table import Table

CURVE: tuple[float, ...] = tuple(step / 200 for step in range(1, 41))
"""Alphas of the curve of PCK against alpha: 0.005 … 0.2."""

_FORMER = dict.fromkeys(("to_dict", "to_json", "to_csv", "to_markdown"), "geoaware.evaluation.formats")
_FORMER["figures"] = "geoaware.report.plots"
"""Former methods of `PCKResult`, and the modules whose functions they are now."""

SETS = ("standard", "geometry_aware")
"""The two sets of points, in the order of the set axis of counts."""


@dataclass(frozen=True)
class BothSets:
    """All evaluated points, and side by side with them those that only geometry tells apart."""

    standard: Scores
    geometry_aware: Scores

    @property
    def sets(self) -> dict[str, Scores]:
        """Both by name."""
        return dict(vars(self))

    @property
    def pair_share(self) -> float:
        """Share of the pairs that have a geometry-aware point."""
        return _share(self.geometry_aware.pairs, self.standard.pairs)

    @property
    def keypoint_share(self) -> float:
        """Share of the points that are geometry-aware."""
        return _share(self.geometry_aware.keypoints, self.standard.keypoints)

    def gap(self, averaging: Averaging) -> tuple[float, ...]:
        """Relative gap from standard to geometry-aware, by alpha."""
        return tuple(map(relative_gap, *(each.values[averaging] for each in self.sets.values())))


@dataclass(frozen=True)
class KeypointScore:
    """PCK of one keypoint of one category over all pairs.

    ``keypoints`` says how often it was evaluated, and ``values`` the shares correct by alpha, both by set.
    ``id`` is the annotation id, and ``name`` what the schema calls it.
    """

    category: str
    id: int
    name: str
    keypoints: Mapping[str, int]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class PCKResult:
    """Every figure of one evaluation; ``print`` shows the main table.

    Shares are 0 to 1 (printed in per cent); NaN stands where there is nothing to average, ``null`` in JSON.

    Attributes:
        protocol: name of the protocol.
        averaging: the average that the protocol's papers quote.
        alphas: thresholds as shares of the base; the order of all tuples of values.
        error_alpha: threshold of the error types.
        about: what was predicted with what (dataset, split, extractor, settings …), for the headings.
        overall: all pairs, with confidence intervals.
        by_category: each category, with confidence intervals.
        by_azimuth: each azimuth difference that occurs; empty where the data set gives none.
        sensitivity: by category and set, by alpha; categories of which fewer than two subsets occur are NaN.
        by_keypoint: each keypoint of each category.
        errors: columns in the order of `ERROR_TYPES`; ``None`` where the file has no target keypoints.
        curve: PCK against the alphas of `CURVE`.
        draws: bootstrap resamples behind the intervals.
    """

    protocol: str
    averaging: Averaging
    alphas: tuple[float, ...]
    error_alpha: float
    about: Mapping[str, Any]
    overall: BothSets
    by_category: Mapping[str, BothSets]
    by_azimuth: Mapping[int, BothSets]
    sensitivity: Mapping[str, Mapping[str, tuple[float, ...]]]
    by_keypoint: Sequence[KeypointScore]
    errors: BothSets | None
    curve: BothSets
    draws: int

    def value(
        self, alpha: float = 0.1, averaging: Averaging | None = None, geometry_aware: bool = False
    ) -> float:
        """One figure of the whole evaluation; `ValueError` where PCK was not computed at this alpha."""
        scores = self.overall.geometry_aware if geometry_aware else self.overall.standard
        return scores.values[averaging or self.averaging][self.column(alpha)]

    def column(self, alpha: float) -> int:
        """Position of an alpha in every tuple of values; `ValueError` as `value`."""
        if alpha not in self.alphas:
            known = ", ".join(f"{each:g}" for each in self.alphas)
            raise ValueError(f"no PCK at alpha {alpha:g} here; computed at {known}")
        return self.alphas.index(alpha)

    @property
    def headline_alpha(self) -> float:
        """0.1 where it was computed (the figure most papers quote), else the largest."""
        return 0.1 if 0.1 in self.alphas else max(self.alphas)

    def __getattr__(self, name: str) -> Any:
        """The methods of former releases, for one more release; they are functions now."""
        if name not in _FORMER:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        module = _FORMER[name]
        warnings.warn(f"PCKResult.{name} is now {module}.{name}", DeprecationWarning, stacklevel=2)
        return partial(getattr(importlib.import_module(module), name), self)

    def grids(self) -> list[Grid]:
        """The main tables: every average side by side and, where they are known, the error types."""
        return [_main(self)] if self.errors is None else [_main(self), _errors(self.errors, self.error_alpha)]

    def __str__(self) -> str:
        return as_text(self.grids())

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Table]:
        yield from map(as_table, self.grids())


def _main(result: PCKResult) -> Grid:
    sets, rows = result.overall, []
    for averaging in AVERAGINGS:
        label = LABELS[averaging] + " *" * (averaging == result.averaging)
        for number, alpha in enumerate(result.alphas):
            cells = [
                cell
                for scores in sets.sets.values()
                for cell in (percent(scores.values[averaging][number]), interval(scores, averaging, number))
            ]
            gap = percent(sets.gap(averaging)[number])
            rows.append(("" if number else label, f"{alpha:g}", *cells, gap))
    note = (
        f"* the average that protocol {result.protocol} quotes. "
        f"{sets.standard.pairs:,} pairs, {sets.standard.keypoints:,} keypoints; "
        f"geometry-aware: {percent(sets.pair_share)} % of the pairs, "
        f"{percent(sets.keypoint_share)} % of the keypoints."
    )
    columns = ("average", "alpha", "standard", "95 % CI", "geometry-aware", "95 % CI", "relative gap")
    what = [str(result.about[key]) for key in ("dataset", "split", "extractor") if result.about.get(key)]
    title = " · ".join(["PCK in per cent", f"protocol {result.protocol}", *what])
    return Grid(title, columns, tuple(rows), note)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _errors(errors: BothSets, alpha: float) -> Grid:
    rows = [
        (f"{LABELS[averaging]}, {kind.replace('_', '-')}", *map(percent, scores.values[averaging]))
        for averaging in AVERAGINGS[:2]
        for kind, scores in errors.sets.items()
    ]
    title = f"Error types at alpha {alpha:g} in per cent (PCK† + miss + swap = 100)"
    return Grid(title, ("average, set", *ERROR_LABELS.values()), tuple(rows))
