"""``geoaware ablation``: what each part of the method is worth, as a table with confidence intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import AsJson, ConfigSettings, Device, Markdown, parse_settings, say

if TYPE_CHECKING:
    from geoaware.studies.ablation_table import Ablation


def ablation(
    config: Annotated[str, Argument(help="A YAML file, or the name of a configuration that is shipped.")],
    out: Annotated[Path, Option(help="Folder of the training runs and their predictions.")],
    setting: ConfigSettings = None,
    seeds: Annotated[int, Option(help="Training runs of each row.")] = 3,
    rows: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="A row beside full, or several with commas between; may be repeated; all if not given.",
        ),
    ] = None,
    markdown: Markdown = None,
    as_json: AsJson = False,
    device: Device = "auto",
    restart: Annotated[
        bool, Option("--restart", help="Throw away what an earlier ablation left of these rows and seeds.")
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
    from geoaware.runs.progress import progress_bars
    from geoaware.studies.ablation import ablate
    from geoaware.studies.ablation_table import to_json
    from geoaware.training.post_processor.config import load_config

    chosen = load_config(config, parse_settings(setting))
    names = None if rows is None else [name for each in rows for name in each.split(",")]
    with progress_bars() as tell:
        found = ablate(
            chosen, out, seeds=seeds, rows=names, device=device, restart=restart, tell=tell, say=say
        )
    if markdown is not None:
        with replacing(markdown) as draft:
            draft.write_text(_markdown(found), encoding="utf-8", newline="\n")
    typer.echo(to_json(found) if as_json else _text(found))


def _text(found: Ablation) -> str:
    from geoaware.evaluation.tables import as_text
    from geoaware.studies.ablation_table import ablation_grids, explanation

    return "\n\n".join([as_text(ablation_grids(found)), explanation(found), *found.sentences()])


def _markdown(found: Ablation) -> str:
    from geoaware.evaluation.tables import as_markdown
    from geoaware.studies.ablation_table import ablation_grids, explanation

    sentences = "\n".join(f"- {each}" for each in found.sentences())
    return "\n\n".join([*map(as_markdown, ablation_grids(found)), explanation(found), sentences]) + "\n"
