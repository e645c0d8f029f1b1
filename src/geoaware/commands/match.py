"""``geoaware match``: points of one image, found in another or in every image of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    FeatureOptions,
    PoseOptions,
    RunOptions,
    Without,
    expand,
    load_matcher,
    say,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.data.points_file import QueryPoints
    from geoaware.result import MatchResult


@dataclass(frozen=True)
class PointOptions:
    """The points on A."""

    point: Annotated[list[str] | None, Option(metavar="X,Y", help="Pixel of A; may be repeated.")] = None
    points: Annotated[Path | None, Option(help="CSV or JSON file of points, named or not.")] = None

    def read(self) -> QueryPoints:
        """The points, whichever way they are given."""
        from geoaware.data.points_file import QueryPoints, parse_point, read_points

        if self.points is not None and self.point:
            raise InputError("give the points either by --point or by --points FILE, not both")
        if self.points is not None:
            return read_points(self.points)
        if not self.point:
            raise InputError("no points: give --point x,y (may be repeated) or --points FILE")
        return QueryPoints([parse_point(each) for each in self.point])


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each target image."""

    out: Annotated[Path | None, Option(help="Write an image of the matches (a folder, if B is one).")] = None
    json_file: Annotated[
        Path | None, Option("--json", help="Write the matches as JSON (a folder, if B is one).")
    ] = None
    heatmap: Annotated[
        int | None, Option(metavar="N", help="Write to --out where on B the point number N could be.")
    ] = None

    def of(self, target: Path) -> OutputOptions:
        """The files of one target of a folder."""
        image = None if self.out is None else self.out / f"{target.name}.png"
        data = None if self.json_file is None else self.json_file / f"{target.name}.json"
        return OutputOptions(image, data, self.heatmap)

    def are_there(self) -> bool:
        """Whether something is to be written, and all of it exists."""
        wanted = [place for place in (self.out, self.json_file) if place is not None]
        return bool(wanted) and all(place.exists() for place in wanted)

    def write(self, result: MatchResult, source: Path, target: Path, queries: QueryPoints) -> None:
        """Write what is asked for."""
        from geoaware.runs.files import replacing

        if self.out is not None:
            number = self.heatmap
            _save(result.draw(labels=queries.names) if number is None else result.heatmap(number), self.out)
        if self.json_file is not None:
            content = {"source": str(source), "target": str(target), **result.to_dict()}
            for entry, name in zip(content["matches"], queries.names or [], strict=False):
                entry["name"] = name
            with replacing(self.json_file) as draft:
                draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class MaskOptions:
    """The objects, to choose the pose."""

    mask: Annotated[Path | None, Option(help="Image of A's object, white on black, for the pose.")] = None
    target_mask: Annotated[Path | None, Option(help="The same of B; with --mask and a single B only.")] = None

    def read(self, target: Path) -> list[Any]:
        """The masks of A and B, where given."""
        from geoaware.data.images import load_mask

        if self.target_mask is not None and (self.mask is None or target.is_dir()):
            raise InputError("--target-mask goes with --mask, and with a single image as B")
        return [None if path is None else load_mask(path) for path in (self.mask, self.target_mask)]


@expand
def match(
    a: Annotated[Path, Argument(metavar="A", help="The source, the image that the points are on.")],
    b: Annotated[Path, Argument(metavar="B", help="The target, or a folder of images.")],
    points: PointOptions,
    output: OutputOptions,
    *,
    features: FeatureOptions,
    pose: PoseOptions,
    masks: MaskOptions,
    skip_existing: Annotated[
        bool, Option("--skip-existing", help="With a folder: go on where an earlier run stopped.")
    ] = False,
    run: Annotated[RunOptions, Without("batch", "cache_mb", "cache")],
) -> None:
    """Find points of image A in image B.

    Examples:

    geoaware match cat1.jpg cat2.jpg --point 120,85 --point 310,90 --out matches.png

    geoaware match cat1.jpg photos/ --points ears.csv --json found/ --out images/
    """
    if output.heatmap is not None and output.out is None:
        raise InputError("--heatmap needs --out FILE to write the image to")
    from geoaware.data.images import list_images

    queries = points.read()
    for path in (a, b):
        if not path.exists():
            raise InputError(f"{path}: no such file")
    targets = list_images(b) if b.is_dir() else [b]
    source_object, target_object = masks.read(b)

    from geoaware.data.points_file import check_pixels
    from geoaware.matcher import check_points

    matcher = load_matcher(features, run, pose, matching="extractor")
    source = matcher.encode(a, source_object)
    check_pixels(queries.points, source.size)
    check_points(queries.points, source.size)

    def find(target: Path) -> MatchResult:
        encoded = matcher.encode(target, target_object)
        return matcher.match(source, encoded, queries.points, flip_pairs=queries.flip_pairs)

    if b.is_dir():
        _match_folder(a, targets, find, output, queries, skip_existing)
    else:
        result = find(b)
        output.write(result, a, b, queries)
        _print_result(result, queries)


def _match_folder(
    source: Path,
    targets: list[Path],
    find: Callable[[Path], MatchResult],
    output: OutputOptions,
    queries: QueryPoints,
    skip_existing: bool,
) -> None:
    """Match against every image; one that fails is reported and the rest goes on (exit code 1)."""
    from geoaware.runs.progress import progress_bars

    if output.out is None and output.json_file is None:
        say("note: neither --out nor --json is given; results are only printed")
    failed = skipped = 0
    with progress_bars() as tell:
        for done, target in enumerate(targets):
            tell("matching", done, len(targets))
            files = output.of(target)
            if skip_existing and files.are_there():
                skipped += 1
                continue
            try:
                result = find(target)
            except InputError as error:
                failed += 1
                typer.secho(f"skipped: {error}", fg="red", err=True)
                continue
            files.write(result, source, target, queries)
            typer.echo(_summary(target, result))
        tell("matching", len(targets), len(targets))
    done = len(targets) - failed - skipped
    say(f"{done} matched, {skipped} already there, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _summary(target: Path, result: MatchResult) -> str:
    several = zip(result.points.tolist(), result.confidence.tolist(), strict=True)
    return f"{target.name}: " + "  ".join(f"{x:.1f},{y:.1f} ({c:.2f})" for (x, y), c in several)


def _print_result(result: MatchResult, queries: QueryPoints) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("point", "in A", "in B", "confidence", "cycle error")
    names = queries.names or [str(number) for number in range(len(result.queries))]
    figures = (result.queries, result.points, result.confidence, result.cycle_error)
    rows: list[Any] = [names, *(each.tolist() for each in figures)]
    for name, query, found, confidence, cycle in zip(*rows, strict=True):
        places = (f"{x:.1f}, {y:.1f}" for x, y in (query, found))
        table.add_row(name, *places, f"{confidence:.2f}", f"{cycle:.3f}")
    console = Console()
    console.print(table)
    distances = ", ".join(f"{pose} {value:.4f}" for pose, value in result.distances.items())
    console.print(
        f"pose: {result.pose}" + (f" (distances: {distances})" if distances else " (alignment off)")
    )


def _save(image: Any, path: Path) -> None:
    """Write a PIL image in the format of the suffix."""
    from PIL import Image

    from geoaware.runs.files import replacing

    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: cannot tell the image format from {path.suffix!r}; end the name in .png")
    quick = {"compress_level": 1} if path.suffix.lower() == ".png" else {}
    with replacing(path) as draft:
        image.save(draft, **quick)
