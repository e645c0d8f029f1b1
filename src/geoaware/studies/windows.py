"""How similarity becomes a position: the side of the window, and the Gaussian kernel in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import MISSING, Grid
from geoaware.report.plots import pck_against_window
from geoaware.studies.case import Case, Outcome, Run, slug
from geoaware.studies.paper import BEST_WINDOWS, DEFAULT_SIGMA, DEFAULT_WINDOW, GRID
from geoaware.studies.variants import ALONE, WHOLE, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    figures_of,
    names_of,
    pck_cells,
    pck_columns,
    pck_rows,
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
        window, grid = bench.own_window(subject), bench.grid(subject)
        sides = sorted({*WINDOWS, window})
        found += [Variant(subject, each, pose="off") for each in sides if each < grid]
        found += [Variant(subject, WHOLE, pose="off"), Variant(subject, pose="off")]
    return found


def windows_and_kernels(bench: Bench) -> list[Variant]:
    """Every window and every Gaussian, without pose alignment."""
    kernels = [Variant(subject, sigma=each, pose="off") for subject in _subjects(bench) for each in SIGMAS]
    return [*windows(bench), *kernels]


def _subjects(bench: Bench) -> list[str]:
    return [each for each in bench.subjects if each != ALONE]


def fig18(case: Case) -> Outcome:
    """PCK against the side of the window."""
    grids, said, plots, figures = [], [], {}, {}
    for subject in case.subjects:
        runs, own = _of_windows(case, subject), case.runs[Variant(subject, pose="off")]
        best = _best(runs)
        rows = []
        for name, run in runs.items():
            cells = zip(pck_cells(run.result), best, strict=True)
            marked = (f"{cell} *" if name in names else cell for cell, names in cells)
            rows.append((f"{name} (default)" if run is own else name, *marked))
        columns = ("window", *pck_columns(own.result))
        grids.append(
            Grid(f"{subject}: PCK in per cent by window, pose alignment off", columns, tuple(rows), _NOTE)
        )
        said.append(_about_windows(subject, runs, own, best))
        plots[f"fig18-{slug(subject)}"] = pck_against_window([run.result for run in runs.values()])
        figures[subject] = {name: figures_of(run) for name, run in runs.items()}
    return case.outcome(tuple(grids), " ".join(said), plots, figures)


def table7(case: Case) -> Outcome:
    """Window against Gaussian kernel: default, and best for each alpha."""
    grids, said, plots, figures = [], [], {}, {}
    for subject in case.subjects:
        by_window, by_sigma = _of_windows(case, subject), _of_sigmas(case, subject)
        own, usual = case.runs[Variant(subject, pose="off")], by_sigma[_sigma_name(DEFAULT_SIGMA)]
        name = _name_of(own, by_window)
        kernel = f"kernel, {_sigma_name(DEFAULT_SIGMA)}"
        rows = (
            (f"{name}, default", *pck_cells(own.result)),
            ("window, best at each alpha", *_best_cells(by_window)),
            (f"{kernel}, SFNet's default", *pck_cells(usual.result)),
            ("kernel, best at each alpha", *_best_cells(by_sigma)),
        )
        columns = ("how", *pck_columns(own.result))
        grids.append(Grid(f"{subject}: PCK in per cent, pose alignment off", columns, rows, _NOTE_KERNEL))
        # The runs with the highest PCK at the headline alpha.
        window, gaussian = (
            max(runs.values(), key=lambda run: run.result.value(run.result.headline_alpha))
            for runs in (by_window, by_sigma)
        )
        said.append(
            sentence(
                f"{subject}, window against kernel at 0.1: default {verdict(own.minus(usual)[HEADLINE])}",
                f"best {verdict(window.minus(gaussian)[HEADLINE])}",
            )
        )
        drawn = {f"{name}, default": own, "best window": window, kernel: usual, "best kernel": gaussian}
        plots[f"table7-{slug(subject)}"] = pck_rows(drawn.items())
        figures[subject] = {
            what: {each: figures_of(run) for each, run in runs.items()}
            for what, runs in (("windows", by_window), ("kernels", by_sigma))
        }
    return case.outcome(tuple(grids), " ".join(said), plots, figures)


_NOTE = (
    "* best of the column. In cells of this map. The paper's best sides on SPair-71k: "
    + names_of([f"{side} at {alpha:g}" for alpha, side in BEST_WINDOWS.items()])
    + f", of a map of {GRID}; its default is {DEFAULT_WINDOW}."
)

_NOTE_KERNEL = (
    "In brackets what is best there. The paper finds the window better than the kernel throughout, default "
    "and best, on SPair-71k; the figures of its table are not in the text that we have."
)


def _of_windows(case: Case, subject: str) -> dict[str, Run]:
    """Runs by the name of their window, narrow ones first and the whole map last."""
    found = [(key.window, run) for key, run in _of(case, subject) if key.window is not None]
    ordered = sorted(found, key=lambda each: (each[0] == WHOLE, each[0]))
    return {_WINDOW_NAMES.get(side, f"window {side}"): run for side, run in ordered}


def _of_sigmas(case: Case, subject: str) -> dict[str, Run]:
    """Runs by the name of their Gaussian, narrow ones first."""
    found = [(key.sigma, run) for key, run in _of(case, subject) if key.sigma is not None]
    return {_sigma_name(sigma): run for sigma, run in sorted(found, key=lambda each: each[0])}


def _of(case: Case, subject: str) -> list[tuple[Variant, Run]]:
    return [(variant, run) for variant, run in case.runs.items() if variant.subject == subject]


_WINDOW_NAMES = {1: "argmax", WHOLE: "whole map"}


def _sigma_name(sigma: float) -> str:
    return f"sigma {sigma:g}"


def _name_of(wanted: Run, runs: Mapping[str, Run]) -> str:
    return next(name for name, run in runs.items() if run is wanted)


def _best(runs: Mapping[str, Run]) -> list[list[str]]:
    """By column of `pck_cells`, the runs with the highest PCK as printed; none where there is no figure."""
    best = []
    for cells in zip(*(pck_cells(run.result) for run in runs.values()), strict=True):
        top = max((float(cell) for cell in cells if cell != MISSING), default=None)
        pairs = zip(runs, cells, strict=True)
        best.append([name for name, cell in pairs if cell != MISSING and float(cell) == top])
    return best


def _best_cells(runs: Mapping[str, Run]) -> list[str]:
    """The highest PCK of each column, with the first run that has it."""
    return [
        f"{pck_cells(runs[names[0]].result)[column]} ({names[0]})" if names else MISSING
        for column, names in enumerate(_best(runs))
    ]


def _about_windows(subject: str, runs: Mapping[str, Run], own: Run, best: Sequence[Sequence[str]]) -> str:
    # The first columns are those of all keypoints, one for each alpha.
    pairs = zip(own.result.alphas, best, strict=False)
    tops = names_of([f"{' or '.join(names)} at {alpha:g}" for alpha, names in pairs])
    others = [
        f"against {name}: {verdict(own.minus(runs[name])[HEADLINE])}"
        for name in _WINDOW_NAMES.values()
        if runs[name] is not own
    ]
    default = f"at 0.1 the default ({_name_of(own, runs)}) {', '.join(others)}"
    return sentence(f"{subject}: best is {tops}", default)
