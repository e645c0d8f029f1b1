"""``geoaware train``: a post-processor from a configuration, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.options import ConfigSettings, Device, RestartRun, parse_settings

if TYPE_CHECKING:
    from geoaware.training.post_processor.loop import Show


def train(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a configuration that is shipped.")
    ],
    setting: ConfigSettings = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; runs/CONFIG if not given.")
    ] = None,
    device: Device = "auto",
    restart: RestartRun = False,
) -> None:
    """Train a post-processor on cached features; what is missing in the cache is extracted first.

    A run that was stopped goes on where it was, bit for bit, when the same command is given again. Under
    accelerate launch or torchrun every process takes its share of each batch.

    Shipped: lite (the shared data), spair71k, ap10k, ap10k-spair71k, pf-pascal.

    Examples:

    geoaware train lite --set root=data --set cache=features --out runs/lite

    geoaware train spair71k --set root=datasets --set extractor=dinov2-base --set preset=released

    geoaware train my.yaml --set stages.0.steps=2000 --set loss.window=15
    """
    from geoaware.store.extraction import Shard
    from geoaware.training.post_processor.config import load_config
    from geoaware.training.post_processor.loop import train as run

    chosen = load_config(config, parse_settings(setting))
    folder = out or Path("runs") / Path(config).stem
    main = Shard.from_environment().rank == 0

    def say(text: str) -> None:
        if main:
            typer.echo(text, err=True)

    with bars(main) as (bar, show):
        best = run(chosen, folder, device=device, restart=restart, bar=bar, show=show, say=say)
    say(f"best weights: {best}\nuse them: geoaware match A B --point x,y --post-processor {best}")
    if main:
        typer.echo(best)


@contextmanager
def bars(main: bool) -> Iterator[tuple[Any, Show]]:
    """A bar for each preparation, then one for the steps with the latest figures."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    progress = Progress(*columns, console=Console(stderr=True), disable=not main)
    steps: list[Any] = []

    @contextmanager
    def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
        progress.start()
        task = progress.add_task(title, total=total, figures="")
        yield lambda count: progress.advance(task, count)
        progress.remove_task(task)

    def show(done: int, total: int, figures: dict[str, float]) -> None:
        if not steps:
            progress.start()
            steps.append(progress.add_task("training", total=total, figures=""))
        progress.update(steps[0], completed=done, total=total, figures=_shown(figures))
        if "validation" in figures and not progress.console.is_terminal:
            typer.echo(f"step {done} of {total}: {_shown(figures)}", err=True)

    try:
        yield bar, show
    finally:
        # Stopping what never began would leave an empty line, before an error say.
        if progress.live.is_started:
            progress.stop()


def _shown(figures: dict[str, float]) -> str:
    """The latest losses and the best validation figure, in a few characters."""
    names = {"cells": "cells {:.2f}", "dense": "dense {:.2f}", "sparse": "sparse {:.2f}"}
    parts = [text.format(figures[name]) for name, text in names.items() if name in figures]
    if "best" in figures:
        parts.append(f"best PCK {100 * figures['best']:.1f}")
    return ", ".join(parts)
