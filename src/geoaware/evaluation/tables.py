"""One table, drawn as plain text, with rich, or as Markdown; and what stands in its cells."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoaware.evaluation.averages import Averaging, Scores
from geoaware.evaluation.statistics import Estimate
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.runs.files import without_html

if TYPE_CHECKING:
    from rich.table import Table

ERROR_LABELS = dict(zip(ERROR_TYPES, ("jitter", "miss", "swap", "swap LR", "PCK†"), strict=True))
MISSING = "–"
"""Stands where there is no figure."""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn: the one source of the rich and the Markdown form."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def as_table(grid: Grid) -> Table:
    """A grid as a rich table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text  # names of categories and files may hold what looks like markup or an emoji

    table = Table(
        title=Text(grid.title, "table.title"),
        caption=Text(grid.note, "table.caption") if grid.note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for number, name in enumerate(grid.columns):
        table.add_column(Text(name), justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


def as_text(several: Sequence[Grid]) -> str:
    """Grids as plain text, as wide as they need."""
    from rich.console import Console
    from rich.measure import Measurement

    out = io.StringIO()
    console = Console(file=out, width=10_000, force_terminal=False, color_system=None)
    for table in map(as_table, several):
        console.print(table, width=Measurement.get(console, console.options, table).maximum)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def as_markdown(grid: Grid) -> str:
    """A grid as a Markdown table below its title, the note last."""
    rule = [":---", *["---:"] * (len(grid.columns) - 1)]
    cells = [
        [" ".join(cell.replace("|", "\\|").splitlines()) for cell in row]
        for row in (grid.columns, rule, *grid.rows)
    ]
    lines = [f"**{grid.title}**", "", *(f"| {' | '.join(row)} |" for row in cells)]
    return without_html("\n".join([*lines, "", grid.note] if grid.note else lines))


def percent(share: float) -> str:
    """A share as per cent with one digit; `MISSING` for NaN."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f}"


def interval(scores: Scores, averaging: Averaging, number: int) -> str:
    """The 95 % interval of a column in per cent; `MISSING` where none was computed."""
    found = scores.intervals.get(averaging)
    return bounds(found[number]) if found else MISSING


def bounds(found: Estimate) -> str:
    """``75.0 to 85.0``, in per cent; `MISSING` where the bounds cannot be told."""
    return MISSING if math.isnan(found.low) else f"{percent(found.low)} to {percent(found.high)}"


def plain(value: Any) -> Any:
    """A value as JSON takes it: tuples as lists, NaN and infinity as ``None``."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
