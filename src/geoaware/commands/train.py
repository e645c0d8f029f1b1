"""``geoaware train``: a post-processor from a configuration, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import ConfigSettings, Device, RestartRun, expand, parse_settings, say


@expand
def train(
    config: Annotated[str, Argument(help="A YAML file, or the name of a configuration that is shipped.")],
    setting: ConfigSettings = None,
    out: Annotated[Path | None, Option(help="Folder of the run; runs/CONFIG if not given.")] = None,
    device: Device = "auto",
    restart: RestartRun = False,
) -> None:
    """Train a post-processor on cached features; what is missing in the cache is extracted first.

    A run that was stopped goes on where it was, bit for bit, when the same command is given again. Under
    accelerate launch or torchrun every process takes its share of each batch.

    Shipped: lite-frozen (the shared data), spair71k, ap10k, ap10k-spair71k, pf-pascal.

    Examples:

    geoaware train lite-frozen --set root=data --set cache=features --out runs/lite-frozen

    geoaware train spair71k --set root=datasets --set extractor=dinov2-base --set preset=released

    geoaware train my.yaml --set stages.0.steps=2000 --set loss.window=15
    """
    from geoaware.runs.progress import progress_bars
    from geoaware.training.post_processor.config import load_config
    from geoaware.training.post_processor.loop import train as run
    from geoaware.training.processes import Shard

    chosen = load_config(config, parse_settings(setting))
    folder = out or Path("runs") / Path(config).stem
    main = Shard.from_environment().rank == 0
    with progress_bars(main) as tell:
        said = say if main else lambda _: None
        best = run(chosen, folder, device=device, restart=restart, tell=tell, say=said)
    if main:
        say(f"best weights: {best}\nuse them: geoaware match A B --point x,y --post-processor {best}")
        typer.echo(best)
