"""Error types: what a wrong match has hit instead."""

from __future__ import annotations

import math

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.result import SETS
from geoaware.evaluation.tables import ERROR_LABELS, Grid, percent
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.report.plots import dumbbells
from geoaware.studies.case import Case, Outcome, Run
from geoaware.studies.paper import TABLE_9
from geoaware.studies.variants import ZERO_SHOT, Variant
from geoaware.studies.wording import figure_rows, names_of, paper_cells, pck_cells, sentence

_NAMED = ("pck_dagger", "miss", "swap", "swap_lr", "jitter")


def table9(case: Case) -> Outcome:
    """Shares of the error types of every subject."""
    runs, first = case.subjects, case.first
    errors = {subject: {kind: _errors(run, kind) for kind in SETS} for subject, run in runs.items()}
    columns = ("method", *(ERROR_LABELS[each] for each in ERROR_TYPES), *(f"PCK {a:g}" for a in first.alphas))
    paper = [
        (each.label, *paper_cells(each.errors, ERROR_TYPES), *paper_cells(each.standard, first.alphas))
        for each in TABLE_9
    ]
    grids = []
    for kind, what in zip(SETS, ("all keypoints", "the geometry-aware subset"), strict=True):
        if not first.overall.sets[kind].keypoints:
            continue
        ours = [
            (subject, *map(percent, errors[subject][kind].values()), *pck_cells(run.result, [kind]))
            for subject, run in runs.items()
        ]
        title = f"Error types at alpha {first.error_alpha:g}, {what}, in per cent"
        whole = kind == "standard"
        rows = (*ours, *(paper if whole else ()))
        grids.append(Grid(title, columns, rows, "PCK† + miss + swap = 100." if whole else ""))
    standard, aware = SETS
    groups = [
        (label, {subject: (of[standard][name], of[aware][name]) for subject, of in errors.items()})
        for name, label in ERROR_LABELS.items()
    ]
    return case.outcome(
        tuple(grids),
        sentence(*(_against(case, subject) for subject in runs if subject != ZERO_SHOT))
        or _largest(errors[ZERO_SHOT]["standard"]),
        {"": dumbbells(groups, f"share of the keypoints at alpha {first.error_alpha:g} in %")},
        {
            "alpha": first.error_alpha,
            "rows": [{**each, "errors": errors[each["row"]]} for each in figure_rows(runs.items())],
        },
    )


def _errors(run: Run, kind: str) -> dict[str, float]:
    """Share of each error type, in the protocol's average; NaN where it cannot be told."""
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


def _largest(errors: dict[str, float]) -> str:
    """The most frequent type, where there is nothing to compare with."""
    top = max(("miss", "swap"), key=lambda each: errors[each])
    return sentence(
        f"most wrong matches are a {ERROR_LABELS[top]} ({percent(errors[top])} % of all keypoints)"
    )
