"""The geometry-aware subset: how large it is, how far it lies behind, what the viewpoint does to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import fmean

from geoaware.evaluation.averages import LABELS, Averaging, within_category
from geoaware.evaluation.result import SETS, BothSets
from geoaware.evaluation.tables import MISSING, Grid, percent
from geoaware.report.plots import dumbbells
from geoaware.studies.case import Case, Outcome, Run
from geoaware.studies.paper import (
    GAP_SUPERVISED,
    GAP_ZERO_SHOT,
    SHARE_OF_KEYPOINTS,
    SHARE_OF_KEYPOINTS_AP10K,
    SHARE_OF_PAIRS,
)
from geoaware.studies.variants import Bench, Variant
from geoaware.studies.wording import count_of, figure_rows, gap, sentence

Both = tuple[float, float]
"""A share of all keypoints, and the same of the geometry-aware ones."""


def usual(bench: Bench) -> list[Variant]:
    """Every subject as it is matched by default."""
    return [Variant(each) for each in bench.subjects]


def fig4(case: Case) -> Outcome:
    """PCK of each category, standard against geometry-aware."""
    runs, first = case.subjects, case.first
    alpha, averaging = first.headline_alpha, within_category(first.averaging)
    categories = {
        name: {subject: _pck(run.result.by_category[name], averaging, run) for subject, run in runs.items()}
        for name in first.by_category
    }
    mean: Averaging = "category_per_point" if averaging == "per_point" else "category_per_image"
    said = [_behind(each, run, [of[each] for of in categories.values()]) for each, run in runs.items()]
    if len(categories) > 1:
        means = {subject: _pck(run.result.overall, mean, run) for subject, run in runs.items()}
        categories["category mean"] = means
    title = f"PCK@{alpha:g} in per cent, {LABELS[averaging]}"
    note = (
        f"Gap: (standard - geometry-aware) / standard. The paper has about {GAP_ZERO_SHOT} % for zero-shot "
        f"and {GAP_SUPERVISED} % for supervised methods before it on SPair-71k; its figure is a plot."
    )
    return case.outcome(
        (_category_grid(title, runs, categories, ("geo.", "gap"), note),),
        sentence(*said),
        {"fig4": dumbbells(list(categories.items()), f"PCK@{alpha:g} in % ({LABELS[averaging]})")},
        {"alpha": alpha, "categories": categories, "rows": figure_rows(runs.items())},
    )


def fig5(case: Case) -> Outcome:
    """Sensitivity to the difference of azimuth."""
    runs, alpha = case.subjects, case.first.headline_alpha
    categories = {}
    for name in case.first.sensitivity:
        values = {subject: _sensitivity(run, name, alpha) for subject, run in runs.items()}
        if not all(math.isnan(each) for both in values.values() for each in both):
            categories[name] = values
    means = {subject: _mean([of[subject] for of in categories.values()]) for subject in runs}
    shown = {**categories, **({"mean": means} if len(categories) > 1 else {})}
    title = f"Sensitivity (max - min) / max over the azimuth subsets, PCK@{alpha:g}, in per cent"
    note = (
        "0: found as well from every side. The paper shows it as a plot: higher on the geometry-aware "
        "subset in every category of SPair-71k."
    )
    grid = _category_grid(title, runs, shown, ("geo.",), note)
    label = f"azimuth sensitivity at PCK@{alpha:g} in %"
    said = [_sensitive(each, means[each], [of[each] for of in categories.values()]) for each in runs]
    return case.outcome(
        (grid, _by_azimuth(runs, alpha)),
        sentence(*said),
        {"fig5": dumbbells(list(shown.items()), label)} if categories else {},
        {"alpha": alpha, "categories": categories, "mean": means},
    )


def fig15(case: Case) -> Outcome:
    """Which share of pairs and keypoints is geometry-aware."""
    whole, parts = case.first.overall, dict(case.first.by_category)
    if len(parts) > 1:
        parts["all"] = whole
    shares = {name: (each.pair_share, each.keypoint_share) for name, each in parts.items()}
    rows = []
    for name, each in parts.items():
        counts = (f"{count:,}" for count in (each.standard.pairs, each.standard.keypoints))
        rows.append((name, *counts, *map(percent, shares[name])))
    rows += [
        ("paper, SPair-71k test: all", MISSING, MISSING, f"{SHARE_OF_PAIRS}", f"{SHARE_OF_KEYPOINTS}"),
        ("paper, AP-10K intra-species test: all", MISSING, MISSING, MISSING, f"{SHARE_OF_KEYPOINTS_AP10K}"),
    ]
    grid = Grid(
        "Share of the geometry-aware subset in per cent",
        ("category", "pairs", "keypoints", "of the pairs", "of the keypoints"),
        tuple(rows),
        "A keypoint counts where the target shows at least two of its kind; a pair where it has such a "
        "keypoint.",
    )
    groups = [(name, {"share": both}) for name, both in shares.items()]
    ends = ("of the pairs", "of the keypoints")
    return case.outcome(
        (grid,),
        sentence(
            f"{percent(whole.pair_share)} % of the pairs and {percent(whole.keypoint_share)} % of the "
            f"keypoints are geometry-aware ({SHARE_OF_PAIRS} % and {SHARE_OF_KEYPOINTS} % on the paper's "
            "SPair-71k test)"
        ),
        {"fig15": dumbbells(groups, "geometry-aware share in %", ends)},
        {name: {"pairs": pairs, "keypoints": keypoints} for name, (pairs, keypoints) in shares.items()},
    )


def _category_grid(
    title: str,
    subjects: Iterable[str],
    categories: Mapping[str, Mapping[str, Both]],
    heads: Sequence[str],
    note: str,
) -> Grid:
    """A row a category; of each subject the shares below its name and the heads, and their gap."""
    columns = ("category", *(head for subject in subjects for head in (subject, *heads)))
    rows = []
    for name, of in categories.items():
        both = [_with_gap(*of[subject])[: len(heads) + 1] for subject in subjects]
        rows.append((name, *chain.from_iterable(both)))
    return Grid(title, columns, tuple(rows), note)


def _pck(comparison: BothSets, averaging: Averaging, run: Run) -> Both:
    """PCK at the headline alpha."""
    column = run.result.column(run.result.headline_alpha)
    standard, aware = (comparison.sets[kind].values[averaging][column] for kind in SETS)
    return standard, aware


def _sensitivity(run: Run, category: str, alpha: float) -> Both:
    sets, column = run.result.sensitivity[category], run.result.column(alpha)
    return sets["standard"][column], sets["geometry_aware"][column]


def _with_gap(standard: float, aware: float) -> list[str]:
    relative = (standard - aware) / standard if standard else math.nan
    return [percent(standard), percent(aware), percent(relative)]


def _behind(subject: str, run: Run, categories: Sequence[Both]) -> str:
    """By how much the subset lies behind, and in how many categories."""
    there = [both for both in categories if not math.isnan(both[1])]
    lower = sum(aware < standard for standard, aware in there)
    said = f"{subject}: relative gap {percent(gap(run.result))} %"
    if len(there) < 2:
        return said
    return f"{said}, geometry-aware below all keypoints in {lower} of {len(there)} categories"


def _sensitive(subject: str, mean: Both, categories: Sequence[Both]) -> str:
    """Mean sensitivity on both sets, and in how many categories that of the subset is higher."""
    there = [both for both in categories if not math.isnan(sum(both))]
    higher = sum(aware > standard for standard, aware in there)
    return (
        f"{subject}: mean sensitivity {percent(mean[0])} % on all keypoints and {percent(mean[1])} % on the "
        f"geometry-aware, on which it is higher in {higher} of {count_of(there, 'category', 'categories')}"
    )


def _by_azimuth(runs: Mapping[str, Run], alpha: float) -> Grid:
    steps = sorted({step for run in runs.values() for step in run.result.by_azimuth})
    head = next(iter(runs.values())).result.by_azimuth
    rows = [("pairs", *(f"{head[step].standard.pairs:,}" for step in steps))]
    for subject, run in runs.items():
        of, averaging, column = run.result.by_azimuth, run.result.averaging, run.result.column(alpha)
        for kind, name in zip(SETS, ("", ", geo."), strict=True):
            values = [
                of[step].sets[kind].values[averaging][column] if step in of else math.nan for step in steps
            ]
            rows.append((subject + name, *map(percent, values)))
    title = f"PCK@{alpha:g} in per cent by difference of azimuth"
    return Grid(title, ("subject", *(f"{45 * step}°" for step in steps)), tuple(rows))


def _mean(categories: Sequence[Both]) -> Both:
    """Of the categories that have a figure; NaN where none has."""
    known = [[each for each in values if not math.isnan(each)] for values in zip(*categories, strict=True)]
    standard, aware = (fmean(values) if values else math.nan for values in known or ([], []))
    return standard, aware
