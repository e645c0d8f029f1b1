"""How similarity becomes a position (strategy, window, Gaussian kernel), and how the pose is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import MISSING, Grid
from geoaware.report.plots import pck_against_window
from geoaware.studies.case import Case, Outcome, Run, slug
from geoaware.studies.paper import BEST_WINDOWS, DEFAULT_SIGMA, DEFAULT_WINDOW, GRID, TABLE_12
from geoaware.studies.variants import ALONE, WHOLE, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    HEADLINE_AWARE,
    figure_rows,
    figures_of,
    headline_interval,
    names_of,
    pck_cells,
    pck_columns,
    pck_grid,
    pck_rows,
    sentence,
)

WINDOWS = (1, 3, 5, 7, 9, 11, 15, 21)
"""Sides tried beside the subject's own and the whole map, as far as they fit."""

SIGMAS = (1.0, 2.0, 3.0, DEFAULT_SIGMA, 8.0)
"""Widths of the Gaussian tried, in cells."""


def strategies(bench: Bench) -> list[Variant]:
    """Zero-shot inference strategies, without and with pose alignment."""
    return [
        Variant(window=window, pose=pose) for pose in ("off", "default") for window in (1, WHOLE, 3, 5, None)
    ]


def alignments(bench: Bench) -> list[Variant]:
    """Zero-shot ways to choose the pose."""
    return [Variant(pose=pose) for pose in ("off", "default", "mutual-nn", "imd", "masks")]


def table12(case: Case) -> Outcome:
    """Zero-shot inference strategies."""
    rows = [(_strategy_name(variant, run), run) for variant, run in case.runs.items()]
    usual = case.runs[Variant()]
    change = usual.minus(case.runs[Variant(pose="off")])
    aware = usual.result.overall.geometry_aware.keypoints
    argmax, soft = (usual.minus(case.runs[Variant(window=each)])[HEADLINE] for each in (1, WHOLE))
    return case.outcome(
        (pck_grid("PCK in per cent, zero-shot", "strategy", rows, TABLE_12),),
        sentence(
            f"at 0.1, the default window with pose alignment against without: {verdict(change[HEADLINE])}",
            f"on the geometry-aware subset: {verdict(change[HEADLINE_AWARE])}" if aware else "",
            f"against argmax, both with it: {verdict(argmax)}",
            f"against soft-argmax: {verdict(soft)}",
        ),
        {"": pck_rows(rows)},
        {"rows": figure_rows(rows)},
    )


_ALIGNMENTS = {
    "off": "no alignment",
    "default": "default",
    "mutual-nn": "mutual nearest neighbours",
    "imd": "IMD over the whole image",
    "masks": "IMD on the given mask",
}


def table13(case: Case) -> Outcome:
    """Ways to choose the pose."""
    runs = {_ALIGNMENTS[variant.pose]: run for variant, run in case.runs.items()}
    base = case.runs[Variant(pose="off")]
    rows = []
    for name, run in runs.items():
        standard, aware = (pck_cells(run.result, [kind]) for kind in ("standard", "geometry_aware"))
        rows.append((name, f"{100 * run.turned:.0f} %", *standard, headline_interval(run.result), *aware))
    said = [f"{name} {verdict(run.minus(base)[HEADLINE])}" for name, run in runs.items() if run is not base]
    columns = ("how the pose is chosen", "turned", *pck_columns(case.first, "95 % CI at 0.1"))
    note = (
        "Turned: share of the pairs whose source was mirrored. The paper's rows (masks of ODISE, masks of "
        "SAM, mutual nearest neighbours) lie close together and well above none; its figures are not in "
        "the text that we have."
    )
    return case.outcome(
        (Grid("PCK in per cent, zero-shot", columns, tuple(rows), note),),
        sentence(f"at 0.1, against no alignment: {said[0]}", *said[1:]),
        {"": pck_rows(runs.items())},
        {"rows": [{"row": name, "turned": run.turned, **figures_of(run)} for name, run in runs.items()]},
    )


def _strategy_name(variant: Variant, run: Run) -> str:
    window = run.result.about["settings"]["matching"]["window"]
    own = {1: "argmax", WHOLE: "soft-argmax", None: f"window {window} (default)"}
    name = own.get(variant.window, f"window {variant.window}")
    return name if variant.pose == "off" else f"{name}, pose"


def windows(bench: Bench) -> list[Variant]:
    """Every window, without pose alignment: nothing else differs, and only upright features are needed."""
    found = []
    for subject in _subjects(bench):
        fitting = [
            each for each in sorted({*WINDOWS, bench.own_window(subject)}) if each < bench.grid(subject)
        ]
        found += [Variant(subject, each, pose="off") for each in (*fitting, WHOLE, None)]
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
        sigma = f"sigma {DEFAULT_SIGMA:g}"
        own, usual = case.runs[Variant(subject, pose="off")], by_sigma[sigma]
        name, kernel = _name_of(own, by_window), f"kernel, {sigma}"
        rows = (
            (f"{name}, default", *pck_cells(own.result)),
            ("window, best at each alpha", *_best_cells(by_window)),
            (f"{kernel}, SFNet's default", *pck_cells(usual.result)),
            ("kernel, best at each alpha", *_best_cells(by_sigma)),
        )
        title, columns = f"{subject}: PCK in per cent, pose alignment off", ("how", *pck_columns(own.result))
        grids.append(Grid(title, columns, rows, _NOTE_KERNEL))
        # The runs with the highest PCK at the headline alpha.
        window, gaussian = (
            max(runs.values(), key=lambda run: run.result.value(run.result.headline_alpha))
            for runs in (by_window, by_sigma)
        )
        default, best = (verdict(a.minus(b)[HEADLINE]) for a, b in ((own, usual), (window, gaussian)))
        said.append(sentence(f"{subject}, window against kernel at 0.1: default {default}", f"best {best}"))
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
    runs = {key.window: run for key, run in case.runs.items() if key.subject == subject}
    sides = sorted((side for side in runs if side is not None), key=lambda side: (side == WHOLE, side))
    return {_WINDOW_NAMES.get(side, f"window {side}"): runs[side] for side in sides}


def _of_sigmas(case: Case, subject: str) -> dict[str, Run]:
    """Runs by the name of their Gaussian, narrow ones first."""
    runs = {key.sigma: run for key, run in case.runs.items() if key.subject == subject}
    return {f"sigma {sigma:g}": runs[sigma] for sigma in sorted(each for each in runs if each is not None)}


_WINDOW_NAMES = {1: "argmax", WHOLE: "whole map"}


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
