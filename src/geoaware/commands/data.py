"""``geoaware data``: fetch a data set, build the AP-10K benchmark, check a data set's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import cut, expand, parse_settings, say

if TYPE_CHECKING:
    from geoaware.data.ap10k_pairs import Benchmark
    from geoaware.data.check import Findings

app = typer.Typer(help="Fetch, build and check data sets.", no_args_is_help=True)


@app.command("build-ap10k")
@expand
def build_ap10k(
    root: Annotated[Path, Argument(metavar="ROOT", help="AP-10K's folder: annotations/ and data/.")],
    out: Annotated[Path | None, Option(help="Where to write; ROOT/correspondence if not given.")] = None,
    annotations: Annotated[
        list[Path] | None,
        Option(help="Annotation file instead of split 1; may be repeated."),
    ] = None,
    exclude: Annotated[
        Path | None,
        Option(help="Images to leave out, an id or file name a line."),
    ] = None,
    seed: Annotated[int, Option(min=0, help="Of the random choice of pairs.")] = 0,
) -> None:
    """Build the AP-10K correspondence benchmark from AP-10K's annotation files.

    Writes lists of pairs (JSON lines), the images' keypoints and a manifest with counts and hashes: the
    same bytes on every machine for the same annotations and seed.

    Example: geoaware data build-ap10k ap-10k --exclude several_animals.txt
    """
    from rich.console import Console

    from geoaware.data.ap10k_pairs import Rules, build

    with Console(stderr=True).status("building"):
        benchmark = build(root, out, annotations, exclude, Rules(seed=seed))
    _print_benchmark(benchmark)


@app.command("check")
@expand
def check(
    name: Annotated[
        str, Argument(metavar="NAME", help="spair71k, cub, coco, pairs … (docs/data.md has all).")
    ],
    root: Annotated[Path, Argument(metavar="ROOT", help="The data set's folder.")],
    split: Annotated[str | None, Option(help="Only this one.")] = None,
    annotations: Annotated[str | None, Option(help="coco: the annotation file, from ROOT.")] = None,
    images: Annotated[str | None, Option(help="Folder of the images, from ROOT.")] = None,
    pairs: Annotated[str | None, Option(help="Pairs to make (all, a number) or a file of them.")] = None,
    setting: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Another option of the loader; may be repeated."),
    ] = None,
) -> None:
    """Say what a data set's folder holds, what is missing or wrong, and where to get it.

    Exit code 0: fine; 2: there are problems.

    Examples:

    geoaware data check spair71k SPair-71k

    geoaware data check coco photos --annotations labels.json --images jpg
    """
    from geoaware.data import checked
    from geoaware.data.check import check as look_through

    given = {"annotations": annotations, "images": images, "pairs": pairs, **parse_settings(setting)}
    findings = look_through(name, root, split, **checked(name, given))
    _print_findings(name, findings)
    if not findings.fine:
        raise typer.Exit(2)


@app.command("get")
@expand
def get(
    name: Annotated[str, Argument(metavar="NAME", help="spair71k, cub, tss … (docs/data.md has all).")],
    folder: Annotated[Path, Argument(metavar="DIR", help="It becomes a folder in there.")],
    keep: Annotated[bool, Option("--keep", help="Keep the archive when it is unpacked.")] = False,
) -> None:
    """Fetch a data set from where its authors put it, and say what it holds.

    Mind its licence, which is printed. An interrupted download goes on with the same command.

    Example: geoaware data get spair71k DATA
    """
    from geoaware.data.check import SOURCES
    from geoaware.data.check import check as look_through
    from geoaware.data.get import DOWNLOADS
    from geoaware.data.get import get as fetch
    from geoaware.runs.progress import progress_bars

    with progress_bars(terminal_only=True) as tell:
        root = fetch(name, folder, keep, tell)
    _print_findings(name, look_through(name, root, None))
    say(f"licence: {SOURCES[name].licence}")
    if DOWNLOADS[name].missing:
        say(f"note: {DOWNLOADS[name].missing}")
    typer.echo(root)


def _print_benchmark(benchmark: Benchmark) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = benchmark.manifest
    table = Table("benchmark", "split", title="pairs", title_justify="left")
    table.add_column("built", justify="right")
    table.add_column("paper", justify="right")
    for name, counts in manifest["pairs"].items():
        for split, count in counts.items():
            table.add_row(name, split, f"{count:,}", f"{manifest['paper'][name][split]:,}")
    console = Console()
    console.print("images: " + ", ".join(f"{count:,} {what}" for what, count in manifest["images"].items()))
    console.print(table)
    for warning in benchmark.warnings:
        typer.echo(f"note: {warning}")
    typer.echo(f"written to {benchmark.folder}")


def _print_findings(name: str, findings: Findings) -> None:
    from geoaware.data.check import SOURCES

    for fact in findings.facts:
        typer.echo(f"  {fact}")
    for warning in findings.warnings:
        typer.echo(f"note: {warning}")
    for problem in findings.problems:
        typer.echo(f"problem: {cut(problem)}", err=True)
    source = SOURCES[name]
    if findings.problems:
        typer.echo(f"expected in the root: {source.layout}", err=True)
    if source.url:
        typer.echo(f"get it from {source.url} ({source.size}; {source.licence})", err=bool(findings.problems))
    if findings.fine:
        typer.echo(f"{name}: fine")
