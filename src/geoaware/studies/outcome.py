"""What an analysis found, before it is printed, written as Markdown or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaware.evaluation.tables import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Outcome:
    """One analysis of one data set, or of several side by side.

    Attributes:
        grids: the tables; the paper's rows stand in them beside ours, marked as the paper's.
        finding: one or two sentences made of the figures, so that they cannot say anything else.
        plots: figures by file name without suffix; an empty name stands for that of the analysis, and
            `conduct` adds the label of the data set.
        figures: every number of the tables as plain values (shares 0 to 1, ``None`` where there is none).
        predictions: the predictions files that everything was computed from.
        left_out: what could not be measured on this data and why, a sentence each.
        data: the data set as a heading names it; empty where it is several. `conduct` completes it.
        name: of the analysis: ``table9``, ``fig4`` … This and what follows are taken from the list of
            analyses where they are empty.
        title: a heading.
        about: what is measured, and where the paper does it, in a sentence or two.
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
