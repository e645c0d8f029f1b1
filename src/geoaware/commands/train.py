"""``geoaware train``: a post-processor from a configuration, resumable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from geoaware.commands.options import ConfigSettings, Device, RestartRun, parse_settings

if TYPE_CHECKING:
    from geoaware.training.post_processor.loop import Show


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
    from geoaware.runs.progress import advancing, progress_bars

    with progress_bars(main) as tell:

        @contextmanager
        def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
            yield advancing(tell, title, total)

        def show(done: int, total: int, figures: dict[str, float]) -> None:
            tell("training", done, total, _shown(figures))
            if "validation" in figures and not sys.stderr.isatty():
                typer.echo(f"step {done} of {total}: {_shown(figures)}", err=True)

        yield bar, show


def _shown(figures: dict[str, float]) -> str:
    """The latest losses and the best validation figure, in a few characters."""
    parts = [f"{name} {figures[name]:.2f}" for name in ("cells", "dense", "sparse") if name in figures]
    if "best" in figures:
        parts.append(f"best PCK {100 * figures['best']:.1f}")
    return ", ".join(parts)
