"""``geoaware ablation``: what each part of the method is worth, as a table with confidence intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import AsJson, ConfigSettings, Device, Markdown, expand, parse_settings, say


@expand
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
    from geoaware.evaluation.tables import as_markdown, as_text
    from geoaware.runs.files import check_goals, replacing, without_html
    from geoaware.runs.progress import progress_bars
    from geoaware.studies.ablation import ablate
    from geoaware.studies.ablation_table import ablation_grids, explanation, to_json
    from geoaware.training.post_processor.config import load_config

    check_goals(markdown)
    chosen = load_config(config, parse_settings(setting))
    names = None if rows is None else [name for each in rows for name in each.split(",")]
    with progress_bars() as tell:
        found = ablate(
            chosen, out, seeds=seeds, rows=names, device=device, restart=restart, tell=tell, say=say
        )
    grids, said, what = ablation_grids(found), found.sentences(), explanation(found)
    if markdown is not None:
        tables = [*map(as_markdown, grids), what, "\n".join(f"- {each}" for each in said)]
        with replacing(markdown) as draft:
            draft.write_text(without_html("\n\n".join(tables) + "\n"), encoding="utf-8", newline="\n")
    typer.echo(to_json(found) if as_json else "\n\n".join([as_text(grids), what, *said]))
