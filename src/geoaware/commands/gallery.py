"""``geoaware gallery``: predictions as one HTML file to look through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.choices import Annotations, DataOption
from geoaware.commands.options import parse_settings
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.report.gallery import Judged


def gallery(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS [OTHER]",
            help="What `geoaware predict` wrote; a second file of the same pairs is compared with it.",
        ),
    ],
    root: Annotated[Path, typer.Option("--root", help="Folder of the data set.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Its name, if not as the predictions say.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Its split, if not as the predictions say.")
    ] = None,
    annotations: Annotations = None,
    option: DataOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file to write; named after PREDICTIONS if not given.")
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Threshold of right and wrong.")] = 0.1,
    size: Annotated[int, typer.Option("--size", help="Longer side of the images, in pixels.")] = 320,
    pairs: Annotated[
        int | None, typer.Option("--pairs", metavar="N", help="Only so many pairs, chosen by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the choice of pairs.")] = 0,
    worst: Annotated[
        int | None, typer.Option("--worst", metavar="N", help="Only the pairs with the largest mean error.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an image that cannot be read, instead of a grey box.")
    ] = False,
) -> None:
    """Write pairs and their matches to one HTML file to sort, filter and look through.

    The file needs no server and fetches nothing.

    Examples:

    geoaware gallery spair.jsonl --root SPair-71k --out spair.html

    geoaware gallery with.jsonl without.jsonl --root lspet --annotations val.json --worst 200
    """
    if len(predictions) > 2:
        raise InputError(f"{len(predictions)} predictions files; give one, or two to compare")
    if pairs is not None and worst is not None:
        raise InputError("--pairs and --worst are two choices of pairs; give one of them")

    from geoaware.report.gallery import entries, find_images, judge, write_gallery

    runs = [judge(each, alpha) for each in predictions]
    first = runs[0]
    chosen = _chosen(first, pairs, seed, worst)
    given: dict[str, Any] = parse_settings(option)
    if annotations is not None:
        given["annotations"] = annotations
    name, part = _named(first, dataset, split)
    shown = entries(runs, find_images(name, root, part, **given), chosen)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    path = out or Path(f"{first.path.stem}.html")
    columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("writing", total=len(chosen))
        write_gallery(
            shown,
            path,
            title=" against ".join(f"{each.path.stem}" for each in runs),
            about=_about(runs, name, part, alpha, len(chosen)),
            size=size,
            alpha=alpha,
            labels=[each.path.name for each in runs],
            strict=strict,
            progress=lambda done: bar.update(task, completed=done),
        )
    megabytes = path.stat().st_size / 2**20
    typer.echo(f"wrote {path} ({megabytes:.1f} MB, {len(chosen):,} pairs); open it in a browser", err=True)
    if megabytes > 100:
        typer.echo("smaller: --worst 500, --pairs 500 or --size 200", err=True)


def _chosen(run: Judged, pairs: int | None, seed: int, worst: int | None) -> list[int]:
    from geoaware.data.sampling import draw

    for option, count in (("--pairs", pairs), ("--worst", worst)):
        if count is not None and count < 1:
            raise InputError(f"{option} {count}: give a number from 1")
    total = len(run.pairs)
    if worst is not None:
        return run.worst(worst)
    return list(range(total)) if pairs is None else draw(total, pairs, f"{seed}/gallery")


def _named(run: Judged, dataset: str | None, split: str | None) -> tuple[str, str]:
    """Data set and split: as given, else as the file says."""
    name, part = dataset or run.header.dataset, split or run.header.split
    if not (name and part):
        lacking = "--dataset" if not name else "--split"
        raise InputError(f"{run.path}: does not say of what data set and split it is; give {lacking}")
    return name, part


def _about(runs: list[Judged], name: str, split: str, alpha: float, shown: int) -> dict[str, str]:
    from geoaware.evaluation.protocols import get_protocol

    first = runs[0]
    protocol = get_protocol(first.header.protocol)
    about = {
        "data": f"{name} {split}, {shown:,} of {len(first.pairs):,} pairs",
        "protocol": protocol.name,
        "correct": protocol.rule.replace("alpha", f"{alpha:g}"),
        "error": "distance from the true point as a share of the threshold base, which is the "
        + protocol.rule.partition(" x ")[2],
        "kinds": "as `geoaware score` counts them: a match can be of several (a jitter is a miss or a swap "
        "too, a correct one can be nearer to another keypoint). Drawn is correct, else the first that holds "
        "of swap left-right, swap, jitter, miss",
    }
    for letter, run in zip("AB" if len(runs) > 1 else [""], runs, strict=True):
        about[f"{letter} predictions".strip()] = run.path.name
        about[f"{letter} features".strip()] = run.header.extractor or "not said"
        if pose := run.header.settings.get("pose"):
            about[f"{letter} pose alignment".strip()] = str(pose)
    return about
