"""Zero-shot matching: how a position is read off the similarity, and how the pose is chosen."""

from __future__ import annotations

from geoaware.evaluation.comparison import verdict
from geoaware.evaluation.tables import Grid, plain
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import TABLE_12
from geoaware.studies.study import Case, Run
from geoaware.studies.variants import WHOLE, Bench, Variant
from geoaware.studies.wording import (
    HEADLINE,
    HEADLINE_AWARE,
    alpha_columns,
    figures_of,
    headline_interval,
    pck_cells,
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
    argmax, soft = (case.runs[Variant(window=each)] for each in (1, WHOLE))
    return Outcome(
        name="table12",
        title="Zero-shot inference strategies",
        about="Plain features, argmax, soft-argmax or a window, without and with pose alignment as it is "
        "by default (section D.5, table 12). Windows are in cells, the paper's of a map of 60.",
        grids=(pck_grid("PCK in per cent, zero-shot", "strategy", rows, TABLE_12),),
        finding=sentence(
            f"at 0.1, the default window with pose alignment against without: {verdict(change[HEADLINE])}",
            f"on the geometry-aware subset: {verdict(change[HEADLINE_AWARE])}" if aware else "",
            f"against argmax, both with it: {verdict(usual.minus(argmax)[HEADLINE])}",
            f"against soft-argmax: {verdict(usual.minus(soft)[HEADLINE])}",
        ),
        plots={"": pck_rows(rows)},
        figures=plain({"rows": [{"row": name, **figures_of(run)} for name, run in rows]}),
        predictions=case.paths,
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
    runs = {variant.pose: run for variant, run in case.runs.items()}
    first = runs["off"].result
    columns = (
        "how the pose is chosen",
        "turned",
        *alpha_columns(first),
        "95 % CI at 0.1",
        *alpha_columns(first, "geo. "),
    )
    rows = tuple(
        (
            _ALIGNMENTS[pose],
            f"{100 * run.turned:.0f} %",
            *pck_cells(run.result),
            headline_interval(run.result),
            *pck_cells(run.result, "geometry_aware"),
        )
        for pose, run in runs.items()
    )
    said = [
        f"{_ALIGNMENTS[pose]} {verdict(run.minus(runs['off'])[HEADLINE])}"
        for pose, run in runs.items()
        if pose != "off"
    ]
    note = (
        "Turned: share of the pairs whose source was mirrored. The paper's rows (masks of ODISE, masks of "
        "SAM, mutual nearest neighbours) lie close together and well above none; its figures are not in "
        "the text that we have."
    )
    return Outcome(
        name="table13",
        title="How the pose is chosen",
        about="Zero-shot, mirrored or not: by the distance of mutual nearest neighbours, by IMD over the "
        "whole image, by IMD on an annotated mask (section E.1, table 13).",
        grids=(Grid("PCK in per cent, zero-shot", columns, rows, note),),
        finding=sentence(f"at 0.1, against no alignment: {said[0]}", *said[1:]),
        plots={"": pck_rows((_ALIGNMENTS[pose], run) for pose, run in runs.items())},
        figures=plain(
            {
                "rows": [
                    {"row": _ALIGNMENTS[pose], "turned": run.turned, **figures_of(run)}
                    for pose, run in runs.items()
                ]
            }
        ),
        predictions=case.paths,
    )


def _strategy_name(variant: Variant, run: Run) -> str:
    window = run.result.about["settings"]["matching"]["window"]
    own = {1: "argmax", WHOLE: "soft-argmax", None: f"window {window} (default)"}
    name = own.get(variant.window, f"window {variant.window}")
    return name if variant.pose == "off" else f"{name}, pose"
