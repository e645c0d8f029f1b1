"""Zero-shot matching: how a position is read off the similarity, and how the pose is chosen."""

from __future__ import annotations

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import Grid
from geoaware.studies.case import Case, Outcome, Run
from geoaware.studies.paper import TABLE_12
from geoaware.studies.variants import WHOLE, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    HEADLINE_AWARE,
    figure_rows,
    figures_of,
    headline_interval,
    pck_cells,
    pck_columns,
    pck_grid,
    pck_rows,
    sentence,
)


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
