"""Every subject on every data set: by category, by alpha, on the geometry-aware subset, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geoaware.evaluation.averages import LABELS, Averaging, within_category
from geoaware.evaluation.comparison import compared, verdict
from geoaware.evaluation.tables import MISSING, Grid, percent, plain
from geoaware.report.plots import dumbbells
from geoaware.studies.case import Case, Outcome, Run
from geoaware.studies.paper import TABLE_9, supervised_rows, zero_shot_rows
from geoaware.studies.variants import ALONE, POST_PROCESSOR, WHOLE, ZERO_SHOT, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    count_of,
    figure_rows,
    gap,
    headline_interval,
    paper_cells,
    pck_grid,
    pck_groups,
    pck_rows,
    pck_values,
    sentence,
)


def with_and_without_pose(bench: Bench) -> list[Variant]:
    """Every subject with its usual pose alignment and without."""
    both = [(Variant(each, pose="off"), Variant(each)) for each in bench.subjects if each != ALONE]
    return [each for pair in both for each in pair] + [Variant(ALONE)] * (ALONE in bench.subjects)


def table2(case: Case) -> Outcome:
    """PCK of each category at 0.1."""
    runs, first = case.subjects, case.first
    alpha, names = first.headline_alpha, list(first.by_category)
    column = first.column(alpha)
    averaging = within_category(first.averaging)
    # The paper quotes unsupervised methods per point and supervised ones per image.
    averages: dict[str, tuple[Averaging, ...]] = {ZERO_SHOT: ("per_point", "per_image")}
    rows = []
    for subject, run in runs.items():
        parts = [*(run.result.by_category[name] for name in names), run.result.overall]
        for each in averages.get(subject, (averaging,)):
            values = [part.standard.values[each][column] for part in parts]
            rows.append((f"{subject}, {LABELS[each]}", *map(percent, values)))
    rows += [
        (f"{each.label}, per image", *[MISSING] * len(names), *paper_cells(each.standard, [0.1]))
        for each in supervised_rows()
    ]
    categories = {
        name: {subject: run.result.by_category[name].standard.values for subject, run in runs.items()}
        for name in names
    }
    said = []
    for subject in (each for each in runs if each != ZERO_SHOT):
        both = [[of[each][averaging][column] for each in (subject, ZERO_SHOT)] for of in categories.values()]
        above = sum(ours > theirs for ours, theirs in both)
        said.append(
            f"{subject} is above {ZERO_SHOT} in {above} of {count_of(names, 'category', 'categories')}"
        )
    # Both averages that the table mixes.
    ends: tuple[Averaging, Averaging] = ("per_image", "per_point")
    groups = [
        (name, {subject: (of[ends[0]][column], of[ends[1]][column]) for subject, of in several.items()})
        for name, several in categories.items()
    ]
    return case.outcome(
        (Grid(f"PCK@{alpha:g} in per cent", ("method", *names, "all"), tuple(rows)),),
        sentence(*said),
        {"": dumbbells(groups, f"PCK@{alpha:g} in %", (LABELS[ends[0]], LABELS[ends[1]]))},
        {"alpha": alpha, "categories": categories, "rows": figure_rows(runs.items())},
    )


def table3(*cases: Case) -> Outcome:
    """PCK on every data set."""
    return _overview(cases, "standard")


def table4(*cases: Case) -> Outcome:
    """PCK on the geometry-aware subset of every data set."""
    return _overview(cases, "geometry_aware")


_PARTS = {
    Variant(window=1, pose="off"): "plain features, argmax",
    Variant(pose="off"): "plain features, window",
    Variant(): "plain features, window, pose",
    Variant(POST_PROCESSOR, 1, pose="off"): "post-processor, argmax",
    Variant(POST_PROCESSOR, WHOLE, pose="off"): "post-processor, soft-argmax",
    Variant(POST_PROCESSOR, pose="off"): "post-processor, window",
    Variant(POST_PROCESSOR): "post-processor, window, pose",
    Variant(ALONE): "post-processor alone, window",
}

_STEPS = (
    (Variant(pose="off"), Variant(window=1, pose="off")),
    (Variant(), Variant(pose="off")),
    (Variant(POST_PROCESSOR, pose="off"), Variant(pose="off")),
    (Variant(POST_PROCESSOR, pose="off"), Variant(POST_PROCESSOR, 1, pose="off")),
    (Variant(POST_PROCESSOR, pose="off"), Variant(POST_PROCESSOR, WHOLE, pose="off")),
    (Variant(POST_PROCESSOR), Variant(POST_PROCESSOR, pose="off")),
)
"""What the sentence of table 5 compares."""


def parts(bench: Bench) -> list[Variant]:
    """What is added step by step, from argmax on plain features on."""
    return [variant for variant in _PARTS if variant.subject in bench.subjects]


def table5(case: Case) -> Outcome:
    """What each part is worth, as far as it needs no training."""
    # Where the default is no alignment, its row is that of the part before, which then stands alone.
    by_path: dict[Path, tuple[str, Run]] = {}
    for variant, name in _PARTS.items():
        if variant in case.runs:
            by_path.setdefault(case.runs[variant].path, (name, case.runs[variant]))
    rows = list(by_path.values())
    paper = (*zero_shot_rows("argmax", "window 11", "window 11, pose"), *TABLE_9)
    said = [
        compared(_PARTS[to], _PARTS[base], case.runs[to].minus(case.runs[base])[HEADLINE])
        for to, base in _STEPS
        if to in case.runs and case.runs[to].path != case.runs[base].path
    ]
    return case.outcome(
        (pck_grid("PCK in per cent", "what is matched", rows, paper),),
        sentence(f"at 0.1, {said[0]}", *said[1:]),
        {"": pck_rows(rows)},
        {"rows": figure_rows(rows)},
    )


def _overview(cases: Sequence[Case], kind: str) -> Outcome:
    """One set of points on every data set: rows are data set and method, columns alphas."""
    alphas = sorted({alpha for case in cases for run in case.runs.values() for alpha in run.result.alphas})
    rows: list[tuple[str, ...]] = []
    for case in cases:
        for method, run in _methods(case):
            result = run.result
            values = dict(zip(result.alphas, pck_values(result, kind), strict=True))
            shown = (percent(values[alpha]) if alpha in values else MISSING for alpha in alphas)
            bounds = headline_interval(result, kind)
            name, average = f"{case.title}: {method}", LABELS[result.averaging]
            rows.append((name, average, *shown, bounds, percent(gap(result))))
    for each in (*zero_shot_rows(), *supervised_rows()):
        relative = MISSING if each.gap is None else f"{each.gap:.1f}"
        cells = paper_cells(getattr(each, kind), alphas)
        if {*cells, relative} != {MISSING}:
            rows.append((each.label, LABELS["per_image"], *cells, MISSING, relative))
    columns = ("data set: method", "average", *(f"{a:g}" for a in alphas), "95 % CI at 0.1", "gap at 0.1")
    note = "Gap: (standard - geometry-aware) / standard, relative."
    metric = HEADLINE if kind == "standard" else f"{kind}_{HEADLINE}"
    found = [(case.title, sentence(_differences(case, metric))) for case in cases]
    return Outcome(
        grids=(Grid("PCK in per cent", columns, tuple(rows), note),),
        finding=" ".join(f"{title}: {said}" for title, said in found if said),
        plots={"": pck_groups([(case.title, dict(_methods(case))) for case in cases])},
        figures=plain({case.label: figure_rows(_methods(case)) for case in cases}),
        predictions=tuple(path for case in cases for path in case.paths),
    )


def _methods(case: Case) -> list[tuple[str, Run]]:
    """Each run once, by a name that says whether the pose was aligned."""
    found = []
    for variant, run in {run.path: (variant, run) for variant, run in case.runs.items()}.values():
        setting = run.result.about.get("settings", {}).get("pose", "off")
        found.append((variant.subject + ("" if setting == "off" else ", pose"), run))
    return found


def _differences(case: Case, metric: str) -> str:
    """Every other subject against the plain features, each by default."""
    base = case.runs[Variant()]
    others = [each for each in case.runs if each == Variant(each.subject) and each.subject != ZERO_SHOT]
    said = [f"{each.subject} {verdict(case.runs[each].minus(base)[metric])}" for each in others]
    return f"at 0.1, against {ZERO_SHOT}: {'; '.join(said)}" if said else ""
