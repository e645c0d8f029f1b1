"""The paper's figures, all in per cent: facts to put beside ours, by table or figure of the paper.

Only what its text gives in numbers is here; bars of its plots are not read off. Where a table's figures are
not here (2 by category, 3 and 4 beyond SPair-71k, 5, 7, 8, 10, 11, 13), no row of the paper is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from geoaware.evaluation.tables import MISSING
from geoaware.method.metrics.errors import ERROR_TYPES

DATA = "SPair-71k"
"""The data set of every row here."""


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables, on the test split of SPair-71k.

    PCK is per image by alpha, errors are those at alpha 0.1 by the names of `metrics.errors.ERROR_TYPES`, the
    gap is the relative one from standard to geometry-aware at alpha 0.1; what the text lacks is empty.
    """

    name: str
    standard: Mapping[float, float]
    geometry_aware: Mapping[float, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    gap: float | None = None

    @property
    def label(self) -> str:
        """How the row is called in a table of ours."""
        return f"paper, {DATA}: {self.name}"

    @property
    def figures(self) -> dict[str, float]:
        """Errors and PCK of all keypoints by the keys of `ablation.METRICS`."""
        return {**self.errors, **{f"pck@{alpha:g}": value for alpha, value in self.standard.items()}}


def _pck(*values: float) -> dict[float, float]:
    return dict(zip((0.01, 0.05, 0.1), values, strict=True))


def _errors(*values: float) -> dict[str, float]:
    return dict(zip(ERROR_TYPES, values, strict=True))


TABLE_1 = (
    ("paper: DINOv2", "struggles", "excels", MISSING, MISSING, "100"),
    ("paper: SD", "well", "well", MISSING, MISSING, "100"),
    ("paper: SD+DINOv2", *["best, near-perfect"] * 4, "100"),
)
"""What the text says of pose prediction on 100 hand-labelled cats of SPair-71k, which has no numbers."""

TABLE_9: tuple[PaperRow, ...] = (
    PaperRow("supervised baseline", _pck(9.6, 57.7, 74.6), errors=_errors(9.7, 13.7, 15.8, 9.4, 70.5),
             gap=9.38),
    PaperRow("without dense", _pck(15.2, 64.5, 78.3), errors=_errors(8.3, 11.8, 13.7, 8.5, 74.5)),
    PaperRow("without flips", _pck(19.0, 70.3, 81.5), errors=_errors(7.4, 10.0, 13.9, 8.7, 76.1)),
    PaperRow("without noise and dropout", _pck(20.3, 71.8, 82.3), errors=_errors(6.9, 9.9, 12.3, 7.2, 77.8)),
    PaperRow("without window", _pck(15.1, 69.3, 81.3), errors=_errors(8.1, 9.8, 14.1, 8.7, 76.1)),
    PaperRow("supervised", _pck(21.6, 72.6, 82.9), errors=_errors(6.9, 9.3, 12.0, 7.0, 78.7), gap=3.86),
    PaperRow("supervised, AP-10K first", _pck(22.0, 75.3, 85.6), errors=_errors(6.1, 8.7, 10.4, 5.6, 80.9)),
)  # fmt: skip
"""Leave-one-out rows, trained (table 9); the relative gaps are section 5.1's."""

TABLE_12: tuple[PaperRow, ...] = (
    PaperRow("argmax", _pck(7.9, 44.7, 59.9), _pck(5.3, 34.5, 49.3)),
    # The paper prints the same figures for both sets in this row; those of the standard set look right.
    PaperRow("soft-argmax", _pck(6.4, 36.5, 53.7)),
    PaperRow("window 3", _pck(10.0, 45.9, 60.1), _pck(6.7, 35.5, 49.6)),
    PaperRow("window 5", _pck(9.9, 46.3, 60.5), _pck(6.6, 35.8, 50.1)),
    PaperRow("window 11", _pck(8.7, 45.3, 61.3), _pck(5.5, 34.3, 51.1)),
    PaperRow("argmax, pose", _pck(8.9, 48.7, 64.2), _pck(6.3, 39.6, 55.0)),
    PaperRow("soft-argmax, pose", _pck(7.6, 40.7, 58.4), _pck(4.1, 29.0, 48.2)),
    PaperRow("window 3, pose", _pck(11.2, 49.7, 64.3), _pck(8.3, 40.8, 55.4)),
    PaperRow("window 5, pose", _pck(11.1, 50.1, 64.8), _pck(8.1, 41.1, 56.0)),
    PaperRow("window 11, pose", _pck(9.9, 49.1, 65.4), _pck(6.9, 39.5, 56.8)),
)
"""Zero-shot inference, without and with pose alignment (table 12)."""


def row(name: str) -> PaperRow:
    """A row of table 9 or 12 by its name."""
    return {each.name: each for each in (*TABLE_9, *TABLE_12)}[name]


def zero_shot_rows(*names: str) -> tuple[PaperRow, ...]:
    """Rows of table 12, named to stand beside supervised ones; SD+DINO and the paper's method by default."""
    chosen = map(row, names or ("argmax", "window 11, pose"))
    return tuple(replace(each, name=f"zero-shot, {each.name}") for each in chosen)


def supervised_rows() -> tuple[PaperRow, ...]:
    """The supervised baseline and the paper's two supervised methods."""
    return row("supervised baseline"), row("supervised"), row("supervised, AP-10K first")


SHARE_OF_PAIRS, SHARE_OF_KEYPOINTS, SHARE_OF_KEYPOINTS_AP10K = 82.4, 59.6, 45.7
"""The geometry-aware subset (section 3.2, figure 15): of SPair-71k's test split; of AP-10K intra-species."""

BEST_WINDOWS: Mapping[float, int] = {0.01: 5, 0.05: 11, 0.1: 17}
"""Side of the best window by alpha, on a grid of 60 with the supervised features (section D.2, figure 18)."""

DEFAULT_WINDOW, DEFAULT_SIGMA, GRID = 15, 5.0, 60
"""The paper's window and SFNet's sigma, in cells of the paper's grid."""

GAP_ZERO_SHOT, GAP_SUPERVISED = 20, 10
"""About how far the subset lies behind, relative, per cent, for methods before the paper (section 3.2)."""
