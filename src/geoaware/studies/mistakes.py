"""Kinds of mistake: what a wrong match has hit instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import ERROR_LABELS, Grid, percent, plain
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.report.plots import dumbbells
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import TABLE_9
from geoaware.studies.study import Case, Run
from geoaware.studies.variants import ZERO_SHOT, Variant
from geoaware.studies.wording import (
    SETS,
    figures_of,
    names_of,
    paper_cells,
    pck_cells,
    sentence,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = ("pck_dagger", "miss", "swap", "swap_lr", "jitter")


def table9(case: Case) -> Outcome:
    """Kinds of mistake."""
    runs = {variant.subject: run for variant, run in case.runs.items()}
    first = next(iter(runs.values())).result
    columns = ("method", *(ERROR_LABELS[each] for each in ERROR_TYPES), *(f"PCK {a:g}" for a in first.alphas))
    grids = []
    for kind, what in zip(SETS, ("all keypoints", "the geometry-aware subset"), strict=True):
        rows = []
        for subject, run in runs.items():
            rows.append((subject, *map(percent, _errors(run, kind).values()), *pck_cells(run.result, kind)))
        if kind == "standard":
            rows += [
                (
                    each.label,
                    *(f"{each.errors[name]:.1f}" for name in ERROR_TYPES),
                    *paper_cells(each.standard, first.alphas),
                )
                for each in TABLE_9
            ]
        title = f"Kinds of mistake at alpha {first.error_alpha:g}, {what}, in per cent"
        if first.overall.sets[kind].keypoints:
            grids.append(
                Grid(title, columns, tuple(rows), "PCK† + miss + swap = 100." if kind == "standard" else "")
            )
    return Outcome(
        name="table9",
        title="Kinds of mistake",
        about="Jitter: beyond alpha, within twice alpha. Miss: nothing within alpha. Swap: another "
        "keypoint is nearest; swap LR: it is the mirror partner (Aygün & Mac Aodha 2022; section D.4, "
        "table 9). The paper's leave-one-out rows are trained; ours are made by `geoaware ablation`.",
        grids=tuple(grids),
        finding=sentence(*(_against(case, subject) for subject in runs if subject != ZERO_SHOT))
        or _largest(runs[ZERO_SHOT]),
        plots={"": _plot(runs, first.error_alpha)},
        figures=plain(
            {
                "alpha": first.error_alpha,
                "rows": [
                    {
                        "row": subject,
                        **figures_of(run),
                        "errors": {kind: _errors(run, kind) for kind in SETS},
                    }
                    for subject, run in runs.items()
                ],
            }
        ),
        predictions=case.paths,
    )


def _plot(runs: Mapping[str, Run], alpha: float) -> Figure:
    """Every kind with every subject, all keypoints and the geometry-aware ones."""
    errors = {subject: [_errors(run, kind) for kind in SETS] for subject, run in runs.items()}
    groups = [
        (ERROR_LABELS[each], {subject: (both[0][each], both[1][each]) for subject, both in errors.items()})
        for each in ERROR_TYPES
    ]
    return dumbbells(groups, f"share of the keypoints at alpha {alpha:g} in %")


def _errors(run: Run, kind: str) -> dict[str, float]:
    """Share of each kind of mistake, in the protocol's average; NaN where it cannot be told."""
    errors = run.result.errors
    if errors is None:
        return dict.fromkeys(ERROR_TYPES, math.nan)
    return dict(zip(ERROR_TYPES, errors.sets[kind].values[run.result.averaging], strict=True))


def _against(case: Case, subject: str) -> str:
    """Which shares differ between a subject and the plain features."""
    differences = case.runs[Variant(subject)].minus(case.runs[Variant()])
    clear = [each for each in _NAMED if differences[each].sign]
    said = [f"{ERROR_LABELS[each]} {verdict(differences[each])}" for each in clear]
    if len(clear) < len(_NAMED):
        rest = names_of([ERROR_LABELS[each] for each in _NAMED if each not in clear])
        said.append(f"no clear difference in {rest}")
    return f"{subject} against {ZERO_SHOT}: {', '.join(said)}"


def _largest(run: Run) -> str:
    """The most frequent kind, where there is nothing to compare with."""
    shares = {each: value for each, value in _errors(run, "standard").items() if each in ("miss", "swap")}
    top = max(shares, key=lambda each: shares[each])
    return sentence(
        f"most wrong matches are a {ERROR_LABELS[top]} ({percent(shares[top])} % of all keypoints)"
    )
