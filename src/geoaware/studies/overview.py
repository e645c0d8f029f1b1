"""Every subject on every data set: by category, by alpha, on the geometry-aware subset, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoaware.evaluation.averages import LABELS, Averaging, within_category
from geoaware.evaluation.comparison import compared, verdict
from geoaware.evaluation.tables import MISSING, Grid, percent, plain
from geoaware.report.plots import dumbbells
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import TABLE_9, PaperRow, supervised_rows, zero_shot_rows
from geoaware.studies.study import Case, Run
from geoaware.studies.variants import ALONE, POST_PROCESSOR, WHOLE, ZERO_SHOT, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    HEADLINE_AWARE,
    count_of,
    figures_of,
    gap,
    headline_interval,
    paper_cells,
    pck_grid,
    pck_groups,
    pck_rows,
    pck_values,
    sentence,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def with_and_without_pose(bench: Bench) -> list[Variant]:
    """Every subject with its usual pose alignment and without."""
    found = []
    for subject in bench.subjects:
        found += [Variant(subject, pose="off")] if subject != ALONE else []
        found.append(Variant(subject))
    return found


def parts(bench: Bench) -> list[Variant]:
    """What is added step by step, from argmax on plain features on."""
    found = [Variant(window=1, pose="off"), Variant(pose="off"), Variant()]
    if POST_PROCESSOR in bench.subjects:
        found += [
            Variant(POST_PROCESSOR, 1, pose="off"),
            Variant(POST_PROCESSOR, WHOLE, pose="off"),
            Variant(POST_PROCESSOR, pose="off"),
            Variant(POST_PROCESSOR),
        ]
    return found + [Variant(each) for each in bench.subjects if each == ALONE]


def table2(case: Case) -> Outcome:
    """PCK of each category at 0.1."""
    runs = {variant.subject: run for variant, run in case.runs.items()}
    first = next(iter(runs.values())).result
    alpha = first.headline_alpha
    names = list(first.by_category)
    rows = []
    for subject, run in runs.items():
        averages: tuple[Averaging, ...] = (within_category(run.result.averaging),)
        # The paper quotes unsupervised methods per point and supervised ones per image.
        if subject == ZERO_SHOT:
            averages = ("per_point", "per_image")
        for averaging in averages:
            column = run.result.column(alpha)
            by_category = [run.result.by_category[n].standard.values[averaging][column] for n in names]
            overall = run.result.overall.standard.values[averaging][column]
            label = f"{subject}, {LABELS[averaging]}"
            rows.append((label, *map(percent, by_category), percent(overall)))
    rows += [
        (f"{each.label}, per image", *[MISSING] * len(names), f"{each.standard[0.1]:.1f}")
        for each in supervised_rows()
    ]
    figures = {
        name: {subject: run.result.by_category[name].standard.values for subject, run in runs.items()}
        for name in names
    }
    return Outcome(
        name="table2",
        title="PCK by category",
        about="Table 2: unsupervised methods per point, supervised ones per image. Of the paper's figures "
        "only the averages are in the text that we have.",
        grids=(Grid(f"PCK@{alpha:g} in per cent", ("method", *names, "all"), tuple(rows)),),
        finding=sentence(*(_above(runs, subject, alpha) for subject in runs if subject != ZERO_SHOT)),
        plots={"": _by_category(runs, names, alpha)},
        figures=plain(
            {
                "alpha": alpha,
                "categories": figures,
                "rows": [{"row": subject, **figures_of(run)} for subject, run in runs.items()],
            }
        ),
        predictions=case.paths,
    )


def table3(cases: Sequence[Case]) -> Outcome:
    """PCK on every data set."""
    return _overview(
        cases,
        "standard",
        name="table3",
        title="Every data set at every alpha",
        about="PCK of all keypoints in the average that the protocol quotes (table 3). The paper's figures "
        "are of SPair-71k only: those of its other data sets are not in the text that we have.",
        metric=HEADLINE,
        paper=lambda each: each.standard,
    )


def table4(cases: Sequence[Case]) -> Outcome:
    """PCK on the geometry-aware subset of every data set."""
    return _overview(
        cases,
        "geometry_aware",
        name="table4",
        title="The geometry-aware subset of every data set",
        about="PCK of the keypoints that only geometry tells apart, and the relative gap to all keypoints "
        "at 0.1 (table 4, section 5.1).",
        metric=HEADLINE_AWARE,
        paper=lambda each: each.geometry_aware,
    )


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
    return Outcome(
        name="table5",
        title="What each part is worth",
        about="Table 5, as far as one set of weights tells; rows trained without a part are made by "
        "`geoaware ablation` (its --json output can be given as --ablation). The paper's figures are taken "
        "from its tables 9 and 12, which have the same rows.",
        grids=(pck_grid("PCK in per cent", "what is matched", rows, paper),),
        finding=sentence(f"at 0.1, {said[0]}", *said[1:]),
        plots={"": pck_rows(rows)},
        figures=plain({"rows": [{"row": name, **figures_of(run)} for name, run in rows]}),
        predictions=case.paths,
    )


def _overview(
    cases: Sequence[Case],
    kind: str,
    paper: Callable[[PaperRow], Mapping[float, float]],
    metric: str,
    *,
    name: str,
    title: str,
    about: str,
) -> Outcome:
    """One set of points on every data set: rows are data set and method, columns alphas."""
    alphas = sorted({alpha for case in cases for run in case.runs.values() for alpha in run.result.alphas})
    rows: list[tuple[str, ...]] = []
    for case in cases:
        for method, run in _methods(case):
            values = dict(zip(run.result.alphas, pck_values(run.result, kind), strict=True))
            rows.append(
                (
                    f"{case.title}: {method}",
                    LABELS[run.result.averaging],
                    *(percent(values[alpha]) if alpha in values else MISSING for alpha in alphas),
                    headline_interval(run.result, kind),
                    percent(gap(run.result)),
                )
            )
    for each in (*zero_shot_rows(), *supervised_rows()):
        relative = MISSING if each.gap is None else f"{each.gap:.1f}"
        cells = paper_cells(paper(each), alphas)
        if {*cells, relative} != {MISSING}:
            rows.append((each.label, LABELS["per_image"], *cells, MISSING, relative))
    columns = (
        "data set: method",
        "average",
        *(f"{alpha:g}" for alpha in alphas),
        "95 % CI at 0.1",
        "gap at 0.1",
    )
    note = "Gap: (standard - geometry-aware) / standard, relative."
    return Outcome(
        name=name,
        title=title,
        about=about,
        grids=(Grid("PCK in per cent", columns, tuple(rows), note),),
        finding=" ".join(
            f"{case.title}: {said}"
            for case in cases
            if (said := sentence(*_subject_differences(case, metric)))
        ),
        plots={"": pck_groups([(case.title, dict(_methods(case))) for case in cases])},
        figures=plain(
            {
                case.label: [{"row": method, **figures_of(run)} for method, run in _methods(case)]
                for case in cases
            }
        ),
        predictions=tuple(path for case in cases for path in case.paths),
    )


def _by_category(runs: Mapping[str, Run], names: Sequence[str], alpha: float) -> Figure:
    """Every subject in every category, in both averages that table 2 mixes."""
    averages: tuple[Averaging, Averaging] = ("per_image", "per_point")

    def ends(run: Run, name: str) -> tuple[float, float]:
        values = run.result.by_category[name].standard.values
        image, point = (values[each][run.result.column(alpha)] for each in averages)
        return image, point

    groups = [(name, {subject: ends(run, name) for subject, run in runs.items()}) for name in names]
    return dumbbells(groups, f"PCK@{alpha:g} in %", (LABELS[averages[0]], LABELS[averages[1]]))


def _methods(case: Case) -> Iterator[tuple[str, Run]]:
    """Each run once, by a name that says whether the pose was aligned."""
    for variant, run in {run.path: (variant, run) for variant, run in case.runs.items()}.values():
        setting = run.result.about.get("settings", {}).get("pose", "off")
        yield variant.subject + ("" if setting == "off" else ", pose"), run


def _subject_differences(case: Case, metric: str) -> list[str]:
    """Every subject against the plain features, each by default."""
    base = case.runs[Variant()]
    said = [
        f"{variant.subject} {verdict(run.minus(base)[metric])}"
        for variant, run in case.runs.items()
        if variant == Variant(variant.subject) and variant.subject != ZERO_SHOT
    ]
    return [f"at 0.1, against {ZERO_SHOT}: {said[0]}", *said[1:]] if said else []


def _above(runs: Mapping[str, Run], subject: str, alpha: float) -> str:
    """In how many categories a subject is above the plain features."""
    both = [runs[each].result for each in (subject, ZERO_SHOT)]
    averaging, column = within_category(both[0].averaging), both[0].column(alpha)
    names = list(both[0].by_category)
    above = sum(
        both[0].by_category[name].standard.values[averaging][column]
        > both[1].by_category[name].standard.values[averaging][column]
        for name in names
    )
    return f"{subject} is above {ZERO_SHOT} in {above} of {count_of(names, 'category', 'categories')}"
