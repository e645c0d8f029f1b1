"""The geometry-aware subset: how large it is, how far it lies behind, what the viewpoint does to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from geoaware.evaluation.averages import LABELS, Averaging, within_category
from geoaware.evaluation.result import BothSets
from geoaware.evaluation.tables import MISSING, Grid, percent, plain
from geoaware.report.plots import dumbbells
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import (
    GAP_SUPERVISED,
    GAP_ZERO_SHOT,
    SHARE_OF_KEYPOINTS,
    SHARE_OF_KEYPOINTS_AP10K,
    SHARE_OF_PAIRS,
)
from geoaware.studies.study import Case, Run
from geoaware.studies.variants import Bench, Variant
from geoaware.studies.wording import SETS, count_of, figures_of, gap, known, sentence


def usual(bench: Bench) -> list[Variant]:
    """Every subject as it is matched by default."""
    return [Variant(each) for each in bench.subjects]


def plain_only(bench: Bench) -> list[Variant]:
    """One file is enough where only the annotations count."""
    return [Variant()]


def fig4(case: Case) -> Outcome:
    """PCK of each category, standard against geometry-aware."""
    runs = {variant.subject: run for variant, run in case.runs.items()}
    first = next(iter(runs.values())).result
    alpha, averaging = first.headline_alpha, within_category(first.averaging)
    categories = {
        name: {subject: _both(run.result.by_category[name], averaging, run) for subject, run in runs.items()}
        for name in first.by_category
    }
    mean: Averaging = "category_per_point" if averaging == "per_point" else "category_per_image"
    if len(categories) > 1:
        means = {subject: _both(run.result.overall, mean, run) for subject, run in runs.items()}
        categories["category mean"] = means
    columns = ["category"]
    for subject in runs:
        columns += [subject, "geo.", "gap"]
    rows = [
        (name, *(cell for subject in runs for cell in _with_gap(*of[subject])))
        for name, of in categories.items()
    ]
    note = (
        f"Gap: (standard - geometry-aware) / standard. The paper has about {GAP_ZERO_SHOT} % for zero-shot "
        f"and {GAP_SUPERVISED} % for supervised methods before it on SPair-71k; its figure is a plot."
    )
    return Outcome(
        name="fig4",
        title="The geometry-aware subset, category by category",
        about="PCK of all keypoints and of those that only geometry tells apart (figures 4 and 16).",
        grids=(Grid(f"PCK@{alpha:g} in per cent, {LABELS[averaging]}", tuple(columns), tuple(rows), note),),
        finding=sentence(*(_behind(subject, run) for subject, run in runs.items())),
        plots={"fig4": dumbbells(list(categories.items()), f"PCK@{alpha:g} in % ({LABELS[averaging]})")},
        figures=plain(
            {
                "alpha": alpha,
                "categories": categories,
                "rows": [{"row": subject, **figures_of(run)} for subject, run in runs.items()],
            }
        ),
        predictions=case.paths,
    )


def fig5(case: Case) -> Outcome:
    """Sensitivity to the difference of azimuth."""
    runs = {variant.subject: run for variant, run in case.runs.items()}
    first = next(iter(runs.values())).result
    alpha = first.headline_alpha
    column = first.column(alpha)
    categories = {}
    for name in first.sensitivity:
        values = {subject: _sensitivities(run, name, column) for subject, run in runs.items()}
        if known(value for both in values.values() for value in both):
            categories[name] = values
    means = {
        subject: (
            _mean(known(of[subject][0] for of in categories.values())),
            _mean(known(of[subject][1] for of in categories.values())),
        )
        for subject in runs
    }
    shown = {**categories, **({"mean": means} if len(categories) > 1 else {})}
    columns = ["category"]
    for subject in runs:
        columns += [subject, "geo."]
    rows = [(name, *(percent(v) for subject in runs for v in of[subject])) for name, of in shown.items()]
    grids = (
        Grid(
            f"Sensitivity (max - min) / max over the azimuth subsets, PCK@{alpha:g}, in per cent",
            tuple(columns),
            tuple(rows),
            "0: found as well from every side. The paper shows it as a plot: higher on the geometry-aware "
            "subset in every category of SPair-71k.",
        ),
        _by_azimuth(runs, alpha),
    )
    return Outcome(
        name="fig5",
        title="Sensitivity to the viewpoint",
        about="How much worse matching gets in the worst of the five subsets by difference of azimuth "
        "(section 3.3, figures 5 and 17).",
        grids=grids,
        finding=sentence(*(_sensitive(subject, means[subject], categories) for subject in runs)),
        plots={"fig5": dumbbells(list(shown.items()), f"azimuth sensitivity at PCK@{alpha:g} in %")}
        if categories
        else {},
        figures=plain({"alpha": alpha, "categories": categories, "mean": means}),
        predictions=case.paths,
    )


def fig15(case: Case) -> Outcome:
    """Which share of pairs and keypoints is geometry-aware."""
    (run,) = case.runs.values()
    parts: dict[str, BothSets] = dict(run.result.by_category)
    whole = run.result.overall
    shares = {name: (each.pair_share, each.keypoint_share) for name, each in parts.items()}
    if len(parts) > 1:
        shares["all"] = whole.pair_share, whole.keypoint_share
    counts = {**parts, "all": whole}
    rows = [
        (
            name,
            f"{counts[name].standard.pairs:,}",
            f"{counts[name].standard.keypoints:,}",
            *map(percent, both),
        )
        for name, both in shares.items()
    ]
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
    return Outcome(
        name="fig15",
        title="Share of the geometry-aware subset",
        about="How many pairs and keypoints need geometry to be told apart (section 3.2, figure 15).",
        grids=(grid,),
        finding=sentence(
            f"{percent(whole.pair_share)} % of the pairs and {percent(whole.keypoint_share)} % of the "
            f"keypoints are geometry-aware ({SHARE_OF_PAIRS} % and {SHARE_OF_KEYPOINTS} % on the paper's "
            "SPair-71k test)"
        ),
        plots={
            "fig15": dumbbells(
                [(name, {"share": both}) for name, both in shares.items()],
                "geometry-aware share in %",
                ("of the pairs", "of the keypoints"),
            )
        },
        figures=plain({name: {"pairs": a, "keypoints": b} for name, (a, b) in shares.items()}),
        predictions=case.paths,
    )


def _sensitivities(run: Run, category: str, column: int) -> tuple[float, float]:
    """Of the standard and the geometry-aware set."""
    sets = run.result.sensitivity[category]
    return sets["standard"][column], sets["geometry_aware"][column]


def _both(comparison: BothSets, averaging: Averaging, run: Run) -> tuple[float, float]:
    """Standard and geometry-aware PCK at the headline alpha."""
    column = run.result.column(run.result.headline_alpha)
    sets = comparison.sets
    return sets["standard"].values[averaging][column], sets["geometry_aware"].values[averaging][column]


def _with_gap(standard: float, aware: float) -> tuple[str, str, str]:
    relative = (standard - aware) / standard if standard else math.nan
    return percent(standard), percent(aware), percent(relative)


def _behind(subject: str, run: Run) -> str:
    """By how much the subset lies behind, and in how many categories."""
    averaging = within_category(run.result.averaging)
    both = [_both(each, averaging, run) for each in run.result.by_category.values()]
    there = [(standard, aware) for standard, aware in both if not math.isnan(aware)]
    lower = sum(aware < standard for standard, aware in there)
    said = f"{subject}: relative gap {percent(gap(run.result))} %"
    if len(there) < 2:
        return said
    return f"{said}, geometry-aware below all keypoints in {lower} of {len(there)} categories"


def _sensitive(
    subject: str, mean: tuple[float, float], categories: Mapping[str, Mapping[str, tuple[float, float]]]
) -> str:
    """Mean sensitivity on both sets, and in how many categories that of the subset is higher."""
    both = [of[subject] for of in categories.values()]
    there = [(standard, aware) for standard, aware in both if not math.isnan(standard + aware)]
    higher = sum(aware > standard for standard, aware in there)
    return (
        f"{subject}: mean sensitivity {percent(mean[0])} % on all keypoints and {percent(mean[1])} % on the "
        f"geometry-aware, on which it is higher in {higher} of {count_of(there, 'category', 'categories')}"
    )


def _by_azimuth(runs: dict[str, Run], alpha: float) -> Grid:
    steps = sorted({step for run in runs.values() for step in run.result.by_azimuth})
    rows = []
    for subject, run in runs.items():
        result = run.result
        averaging, column = result.averaging, result.column(alpha)
        for kind, name in zip(SETS, ("", ", geo."), strict=True):
            values = [
                result.by_azimuth[step].sets[kind].values[averaging][column]
                if step in result.by_azimuth
                else math.nan
                for step in steps
            ]
            rows.append((subject + name, *map(percent, values)))
    head = next(iter(runs.values())).result
    counted = tuple(f"{head.by_azimuth[step].standard.pairs:,}" for step in steps)
    return Grid(
        f"PCK@{alpha:g} in per cent by difference of azimuth",
        ("subject", *(f"{45 * step}°" for step in steps)),
        (("pairs", *counted), *rows),
    )


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan
