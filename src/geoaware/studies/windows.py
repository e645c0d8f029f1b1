"""How similarity becomes a position: the side of the window, and the Gaussian kernel in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import Grid, percent, plain
from geoaware.report.plots import pck_against_window
from geoaware.studies.ablation import slug
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import BEST_WINDOWS, DEFAULT_SIGMA, DEFAULT_WINDOW, GRID
from geoaware.studies.study import Case, Run
from geoaware.studies.variants import ALONE, WHOLE, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    SETS,
    alpha_columns,
    figures_of,
    names_of,
    pck_cells,
    pck_rows,
    pck_values,
    sentence,
)

WINDOWS = (1, 3, 5, 7, 9, 11, 15, 21)
"""Sides tried beside the subject's own and the whole map, as far as they fit."""

SIGMAS = (1.0, 2.0, 3.0, DEFAULT_SIGMA, 8.0)
"""Widths of the Gaussian tried, in cells."""


def windows(bench: Bench) -> list[Variant]:
    """Every window, without pose alignment: nothing else differs, and only upright features are needed."""
    found = []
    for subject in _subjects(bench):
        facts = bench.facts(subject)
        sides = sorted({*WINDOWS, facts.window})
        found += [Variant(subject, each, pose="off") for each in sides if each < facts.grid]
        found += [Variant(subject, WHOLE, pose="off"), Variant(subject, pose="off")]
    return found


def windows_and_kernels(bench: Bench) -> list[Variant]:
    """Every window and every Gaussian, without pose alignment."""
    kernels = [Variant(subject, sigma=each, pose="off") for subject in _subjects(bench) for each in SIGMAS]
    return [*windows(bench), *kernels]


def fig18(case: Case) -> Outcome:
    """PCK against the side of the window."""
    grids, said, plots, figures = [], [], {}, {}
    for subject in _subjects_of(case):
        runs = _of_windows(case, subject)
        results = [run.result for run in runs.values()]
        best = {kind: _best(runs, kind) for kind in SETS}
        own = case.runs[Variant(subject, pose="off")]
        columns = ("window", *alpha_columns(results[0]), *alpha_columns(results[0], "geo. "))
        rows = tuple(
            (
                _name(side) + (" (default)" if run is own else ""),
                *(
                    cell + (" *" if side in best[kind][number] else "")
                    for kind in SETS
                    for number, cell in enumerate(pck_cells(run.result, kind))
                ),
            )
            for side, run in runs.items()
        )
        grids.append(Grid(f"{subject}: PCK in per cent by window, pose alignment off", columns, rows, _NOTE))
        said.append(_about_windows(subject, runs, own, best["standard"]))
        plots[f"fig18-{slug(subject)}"] = pck_against_window(results)
        figures[subject] = {_name(side): figures_of(run) for side, run in runs.items()}
    return Outcome(
        name="fig18",
        title="Side of the soft-argmax window",
        about="Window 1 is argmax, the whole map soft-argmax (section D.2, figure 18). The window that is "
        "best here was chosen on these same pairs.",
        grids=tuple(grids),
        finding=" ".join(said),
        plots=plots,
        figures=plain(figures),
        predictions=case.paths,
    )


def table7(case: Case) -> Outcome:
    """Window against Gaussian kernel: default, and best for each alpha."""
    grids, said, figures, plots = [], [], {}, {}
    for subject in _subjects_of(case):
        by_window, by_sigma = _of_windows(case, subject), _of_sigmas(case, subject)
        own, usual = case.runs[Variant(subject, pose="off")], by_sigma[DEFAULT_SIGMA]
        own_name = next(_name(side) for side, run in by_window.items() if run is own)
        rows = (
            (f"{own_name}, default", *_cells(own)),
            ("window, best at each alpha", *_best_cells(by_window, _name)),
            (f"kernel, sigma {DEFAULT_SIGMA:g}, SFNet's default", *_cells(usual)),
            ("kernel, best at each alpha", *_best_cells(by_sigma, lambda each: f"sigma {each:g}")),
        )
        first = own.result
        columns = ("how", *alpha_columns(first), *alpha_columns(first, "geo. "))
        grids.append(Grid(f"{subject}: PCK in per cent, pose alignment off", columns, rows, _NOTE_KERNEL))
        top = [_at_headline(each) for each in (by_window, by_sigma)]
        said.append(
            sentence(
                f"{subject}, window against kernel at 0.1: default {verdict(own.minus(usual)[HEADLINE])}",
                f"best {verdict(top[0].minus(top[1])[HEADLINE])}",
            )
        )
        named = (f"{own_name}, default", "best window", f"kernel, sigma {DEFAULT_SIGMA:g}", "best kernel")
        plots[f"table7-{slug(subject)}"] = pck_rows(zip(named, (own, top[0], usual, top[1]), strict=True))
        figures[subject] = {
            "windows": {_name(side): figures_of(run) for side, run in by_window.items()},
            "kernels": {f"sigma {sigma:g}": figures_of(run) for sigma, run in by_sigma.items()},
        }
    return Outcome(
        name="table7",
        title="Window against Gaussian kernel",
        about="Soft-argmax over a window around the best cell, or over the whole map weighted by a "
        "Gaussian around it (section D.2, table 7). What is best was chosen on these same pairs.",
        grids=tuple(grids),
        finding=" ".join(said),
        plots=plots,
        figures=plain(figures),
        predictions=case.paths,
    )


_NOTE = (
    "* best of the column. In cells of this map. The paper's best sides on SPair-71k: "
    + names_of([f"{side} at {alpha:g}" for alpha, side in BEST_WINDOWS.items()])
    + f", of a map of {GRID}; its default is {DEFAULT_WINDOW}."
)

_NOTE_KERNEL = (
    "In brackets what is best there. The paper finds the window better than the kernel throughout, default "
    "and best, on SPair-71k; the figures of its table are not in the text that we have."
)


def _subjects(bench: Bench) -> list[str]:
    return [each for each in bench.subjects if each != ALONE]


def _subjects_of(case: Case) -> list[str]:
    return list(dict.fromkeys(variant.subject for variant in case.runs))


def _of_windows(case: Case, subject: str) -> dict[int, Run]:
    """Runs by side, the whole map last."""
    found = {
        variant.window: run
        for variant, run in case.runs.items()
        if variant.subject == subject and variant.window is not None
    }
    return dict(sorted(found.items(), key=lambda each: (each[0] == WHOLE, each[0])))


def _of_sigmas(case: Case, subject: str) -> dict[float, Run]:
    found = {
        variant.sigma: run
        for variant, run in case.runs.items()
        if variant.subject == subject and variant.sigma is not None
    }
    return dict(sorted(found.items()))


def _name(side: int) -> str:
    return {1: "argmax", WHOLE: "whole map"}.get(side, f"window {side}")


def _best(runs: Mapping[Any, Run], kind: str) -> list[list[Any]]:
    """By alpha, the keys of the runs with the highest PCK as printed; empty where there is nothing."""
    table = {key: pck_cells(run.result, kind) for key, run in runs.items()}
    values = {key: pck_values(run.result, kind) for key, run in runs.items()}
    found = []
    for number in range(len(next(iter(table.values())))):
        there = {key: each[number] for key, each in values.items() if each[number] == each[number]}
        top = max(there, key=lambda key: there[key]) if there else None
        found.append([key for key in table if top is not None and table[key][number] == table[top][number]])
    return found


def _best_cells(runs: Mapping[Any, Run], name: Any) -> list[str]:
    cells = []
    for kind in SETS:
        for number, keys in enumerate(_best(runs, kind)):
            value = percent(pck_values(runs[keys[0]].result, kind)[number]) if keys else percent(float("nan"))
            cells.append(value + (f" ({name(keys[0])})" if keys else ""))
    return cells


def _cells(run: Run) -> list[str]:
    return [cell for kind in SETS for cell in pck_cells(run.result, kind)]


def _at_headline(runs: Mapping[Any, Run]) -> Run:
    """The run with the highest PCK at the headline alpha."""
    return max(runs.values(), key=lambda run: run.result.value(run.result.headline_alpha))


def _about_windows(subject: str, runs: dict[int, Run], own: Run, best: Sequence[Sequence[int]]) -> str:
    alphas = own.result.alphas
    tops = names_of(
        [f"{' or '.join(map(_name, keys))} at {alpha:g}" for alpha, keys in zip(alphas, best, strict=True)]
    )
    name = next(_name(side) for side, run in runs.items() if run is own)
    others = [
        f"against {_name(side)}: {verdict(own.minus(runs[side])[HEADLINE])}"
        for side in (1, WHOLE)
        if runs[side] is not own
    ]
    return sentence(f"{subject}: best is {tops}", f"at 0.1 the default ({name}) {', '.join(others)}")
