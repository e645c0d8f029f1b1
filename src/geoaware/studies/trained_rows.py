"""Rows that had to be trained, from the JSON that ``geoaware ablation --json`` printed (tables 5 and 9)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geoaware.evaluation.tables import MISSING, Grid, percent
from geoaware.runs.errors import InputError
from geoaware.studies.ablation import METRICS
from geoaware.studies.outcome import Outcome
from geoaware.studies.paper import TABLE_9

_MARKS = {"better": " ▲", "worse": " ▼"}


def trained_rows(path: Path) -> Outcome:
    """The leave-one-out rows of an ablation, a table for each of its data sets.

    Raises:
        InputError: the file is missing, or is not what ``geoaware ablation --json`` prints.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        grids = tuple(_grid(each, content["rows"], len(content["seeds"])) for each in content["sets"])
        said = " ".join(map(str, content["sentences"]))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give what `geoaware ablation --json` printed"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not what `geoaware ablation --json` prints ({type(error).__name__}: {error})"
        ) from None
    return Outcome(
        name="ablation",
        title="Leave-one-out rows, trained",
        about="Every part of the training left out in turn, as `geoaware ablation` trained and compared "
        "them (tables 5 and 9).",
        grids=(*grids, _paper_grid()),
        finding=said,
        figures={"sets": content["sets"], "seeds": content["seeds"]},
    )


def _grid(data: dict[str, Any], rows: list[str], seeds: int) -> Grid:
    lines = []
    for row in rows:
        cells = []
        for metric in METRICS:
            figure = data["figures"][row][metric.key]
            value = float("nan") if figure["value"] is None else float(figure["value"])
            cells.append(percent(value) + _MARKS.get(figure["verdict"], ""))
        lines.append((row, *cells))
    title = f"{data['name']}: {data['pairs']:,} pairs, protocol {data['protocol']}, in per cent"
    note = (
        f"Per image, pose alignment off, mean of {seeds} training runs. ▲ better, ▼ worse than full: the "
        "whole 95 % interval of the difference is on one side of 0."
    )
    return Grid(title, ("row", *(metric.label for metric in METRICS)), tuple(lines), note)


def _paper_grid() -> Grid:
    rows = []
    for each in TABLE_9:
        known = {**each.errors, **{f"pck@{alpha:g}": value for alpha, value in each.standard.items()}}
        cells = (f"{known[metric.key]:.1f}" if metric.key in known else MISSING for metric in METRICS)
        rows.append((each.label, *cells))
    return Grid(
        "The paper's rows (table 9), in per cent", ("row", *(metric.label for metric in METRICS)), tuple(rows)
    )
