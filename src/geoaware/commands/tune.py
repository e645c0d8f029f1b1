"""``geoaware tune``: a backbone itself, trained on annotated images, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import ConfigSettings, Device, RestartRun, expand, parse_settings, say


@expand
def tune(
    config: Annotated[
        str, Argument(help="A YAML file, or the name of a shipped configuration, such as lite.")
    ],
    setting: ConfigSettings = None,
    out: Annotated[Path | None, Option(help="Folder of the run; runs/tune-CONFIG if not given.")] = None,
    device: Device = "auto",
    restart: RestartRun = False,
) -> None:
    """Train a backbone: the embedded one, as the weights of lite were made, or a transformer by LoRA.

    Slow without a GPU. A run that was stopped goes on where it was when the same command is given again.

    Before the first step objects and images are decoded into a cache, which later runs read.

    Examples:

    geoaware tune lite --set root=data --out runs/tune-lite

    geoaware tune lite --set root=data --set precision=bf16 --out runs/tune-lite

    geoaware tune lite --set root=data --set start=runs/tune-lite/weights --set learning_rate=0.0001

    geoaware match A B --point 120,85 --extractor lite --set weights=runs/tune-lite/weights

    geoaware tune spair71k-dinov2 --set root=SPair-71k --set backbone=dinov2-large --set checkpointing=true

    geoaware match A B --point 120,85 --extractor dinov2-large --set adapter=runs/tune-spair71k-dinov2/weights
    """
    from geoaware.runs.memory import keep_freed_memory
    from geoaware.runs.progress import progress_bars
    from geoaware.training.backbone.config import load_config, run_folder
    from geoaware.training.backbone.run import tune as run

    chosen = load_config(config, parse_settings(setting))
    folder = out or run_folder(config)
    keep_freed_memory()
    with progress_bars() as tell:
        weights = run(chosen, folder, device=device, restart=restart, tell=tell, say=say)
    say(f"use them: geoaware match A B --point x,y {chosen.use}{weights}")
    typer.echo(weights)
