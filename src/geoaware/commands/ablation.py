"""``geoaware ablation``: what each part of the method is worth, as a table with confidence intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.options import ConfigSettings, Device, parse_settings

if TYPE_CHECKING:
    from rich.table import Table

    from geoaware.evaluation.statistics import Estimate
    from geoaware.studies.ablation import Ablation, SetFigures, Show

_MISSING = "–"
_MARKS = {"better": " ▲", "worse": " ▼", "not distinguishable": ""}


def ablation(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a configuration that is shipped.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the training runs and their predictions.")],
    setting: ConfigSettings = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Training runs of each row.")] = 3,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--rows",
            metavar="NAME",
            help="A row beside full, or several with commas between; may be repeated; all if not given.",
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables to a Markdown file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as JSON and nothing else.")
    ] = False,
    device: Device = "auto",
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw away what an earlier ablation left of these rows and seeds."),
    ] = False,
) -> None:
    """Train the paper's leave-one-out rows and say which of them is really worse.

    Rows: full, without dense, without flips, without noise and dropout, without window (the weights of full,
    matched by soft-argmax over the whole map), sparse only (the paper's supervised baseline). They are
    compared on the configuration's validation sets, each with the weights of its last step. What is finished
    is not done again; a run that was stopped goes on when the same command is given again.

    Examples:

    geoaware ablation ablation-lite --set root=data --out runs/ablation --markdown ablation.md

    geoaware ablation my.yaml --rows "without flips" --seeds 5 --out runs/flips
    """
    from geoaware.runs.files import replacing
    from geoaware.studies.ablation import ablate
    from geoaware.training.post_processor.config import load_config

    chosen = load_config(config, parse_settings(setting))
    names = None if rows is None else [name for each in rows for name in each.split(",")]
    with _bars() as show:
        found = ablate(
            chosen,
            out,
            seeds=seeds,
            rows=names,
            device=device,
            restart=restart,
            show=show,
            say=lambda text: typer.echo(text, err=True),
        )
    if markdown is not None:
        with replacing(markdown) as draft:
            draft.write_text(_markdown(found), encoding="utf-8", newline="\n")
    typer.echo(_json(found) if as_json else _text(found))


@contextmanager
def _bars() -> Iterator[Show]:
    """One bar, for whatever is being done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for old in tasks.values():
                    progress.remove_task(old)
                tasks.clear()
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show


def _text(found: Ablation) -> str:
    """The tables as wide as they need, and the sentences."""
    from rich import box

    parts = [f"{title}\n{_drawn(table, box.SIMPLE_HEAD)}" for title, table in _tables(found)]
    return "\n\n".join([*parts, _note(found), *found.sentences()])


def _markdown(found: Ablation) -> str:
    from rich import box

    parts = [f"**{title}**\n\n{_drawn(table, box.MARKDOWN)}" for title, table in _tables(found)]
    sentences = "\n".join(f"- {each}" for each in found.sentences())
    return "\n\n".join([*parts, _note(found), sentences]) + "\n"


def _drawn(table: Table, box: Any) -> str:
    import io

    from rich.console import Console
    from rich.measure import Measurement

    table.box = box
    out = io.StringIO()
    console = Console(file=out, width=10_000, force_terminal=False, color_system=None)
    console.print(table, width=Measurement.get(console, console.options, table).maximum)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines() if line.strip())


def _tables(found: Ablation) -> Iterator[tuple[str, Table]]:
    """Titles and tables: of each data set the figures of every row, then its differences to full."""
    for each in found.sets:
        about = f"{each.name}: {each.pairs:,} pairs of {each.images:,} images, protocol {each.protocol}"
        yield f"{about}, in per cent", _table(found, each, differences=False)
        yield f"{each.name}: difference to full, in points", _table(found, each, differences=True)
    yield "SPair-71k, in per cent, as the paper has it (table 9)", _paper_table(found)


def _table(found: Ablation, data: SetFigures, differences: bool) -> Table:
    from geoaware.studies.ablation import FULL, METRICS

    table = _empty([metric.label for metric in METRICS])
    for row in found.rows:
        if differences and row is FULL:
            continue
        figures = [data.figures[row.name][metric.key] for metric in METRICS]
        cells = [
            _shown(each.difference, "+") + _MARKS[each.verdict] if differences else _shown(each.level)
            for each in figures
        ]
        table.add_row(row.name, *cells)
    return table


def _paper_table(found: Ablation) -> Table:
    from geoaware.studies.ablation import METRICS

    known = [metric for metric in METRICS if metric.key in found.rows[0].paper]
    table = _empty([metric.label for metric in known])
    for row in found.rows:
        table.add_row(row.name, *(f"{row.paper[metric.key]:.1f}" for metric in known))
    return table


def _empty(labels: list[str]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("row", no_wrap=True)
    for label in labels:
        table.add_column(label, justify="right", no_wrap=True)
    return table


def _shown(estimate: Estimate, sign: str = "") -> str:
    """A share as per cent with the margin of its interval."""
    if isnan(estimate.value):
        return _MISSING
    margin = "" if isnan(estimate.margin) else f" ± {100 * estimate.margin:.1f}"
    # Adding 0 takes the sign off a rounded -0.0.
    return f"{round(100 * estimate.value, 1) + 0:{sign}.1f}{margin}"


def _note(found: Ablation) -> str:
    """What the figures are, in a paragraph."""
    one = len(found.seeds) == 1
    seeds = f"seed {found.seeds[0]}" if one else f"seeds {', '.join(map(str, found.seeds))}"
    trainings = "not of other seeds, because there is only one" if one else "of other seeds"
    return (
        f"Per image, pose alignment off; error types at alpha 0.1; {seeds}. ± is half the 95 % "
        f"interval, over the choice of images, which pairs share, and {trainings}. ▲ better, ▼ worse than "
        "full: the whole interval of the difference is on one side of 0; where nothing differs, about one "
        "figure in twenty is marked by chance."
    )


def _json(found: Ablation) -> str:
    content = {
        "rows": [row.name for row in found.rows],
        "seeds": found.seeds,
        "sets": [
            {"name": each.name, "protocol": each.protocol, "pairs": each.pairs, "images": each.images,
             "figures": {row: {key: _plain(figure) for key, figure in cells.items()}
                         for row, cells in each.figures.items()}}
            for each in found.sets
        ],
        "paper": {row.name: dict(row.paper) for row in found.rows},
        "sentences": found.sentences(),
    }  # fmt: skip
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _plain(figure: Any) -> dict[str, Any]:
    """A cell as plain values; ``None`` for NaN."""

    def values(estimate: Estimate) -> dict[str, float | None]:
        return {key: None if isnan(value) else value for key, value in vars(estimate).items()}

    return {
        **values(figure.level),
        "difference": values(figure.difference),
        "verdict": figure.verdict,
    }
