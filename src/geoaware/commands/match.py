"""``geoaware match``: points of one image, found in another or in every image of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    ExifPixels,
    FeatureOptions,
    PoseOptions,
    RunOptions,
    Without,
    cut,
    expand,
    load_matcher,
    say,
)
from geoaware.runs.errors import InputError, NotFiniteError

if TYPE_CHECKING:
    from geoaware.data.points_file import QueryPoints
    from geoaware.result import Encoded, MatchResult


_TABLE_ROWS = 200
"""Beyond so many points they are printed in plain columns."""


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

    def check(self, into_folder: bool) -> None:
        """Find out before the work what could not be written.

        Raises:
            InputError: no images are written in the format of the suffix, or a place is no file's.
        """
        from geoaware.runs.files import check_goals

        if self.heatmap is not None and self.out is None:
            raise InputError("--heatmap needs --out FILE to write the image to")
        if not into_folder:
            check_goals(self.out, self.json_file)
            if self.out is not None:
                check_format(self.out)

    def of(self, target: Path) -> OutputOptions:
        """The files of one target of a folder."""
        image = None if self.out is None else self.out / f"{target.name}.png"
        data = None if self.json_file is None else self.json_file / f"{target.name}.json"
        return OutputOptions(image, data, self.heatmap)

    @property
    def places(self) -> list[Path]:
        """Those that are given."""
        return [place for place in (self.out, self.json_file) if place is not None]

    def are_there(self) -> bool:
        """Whether something is to be written, and all of it exists."""
        return bool(self.places) and all(place.exists() for place in self.places)

    def write(
        self, result: MatchResult, told: MatchResult, source: Path, target: Path, queries: QueryPoints
    ) -> None:
        """Write what is asked for: the image of the result, and as JSON what is told of it."""
        from geoaware.runs.files import replacing

        if self.out is not None:
            number = self.heatmap
            save_image(
                result.draw(labels=queries.names) if number is None else result.heatmap(number), self.out
            )
        if self.json_file is not None:
            content = {"source": str(source), "target": str(target), **told.to_dict()}
            for entry, name in zip(content["matches"], queries.names or [], strict=False):
                entry["name"] = name
            with replacing(self.json_file) as draft:
                draft.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class MaskOptions:
    """The objects, to choose the pose."""

    mask: Annotated[Path | None, Option(help="Image of A's object, white on black, for the pose.")] = None
    target_mask: Annotated[Path | None, Option(help="The same of B; with --mask and a single B only.")] = None

    def read(self, source: Path, target: Path, turns: tuple[int, int]) -> list[Any]:
        """The masks of A and B, where given, turned by these orientations."""
        from geoaware.data.masks import read_mask

        if self.target_mask is not None and (self.mask is None or target.is_dir()):
            raise InputError("--target-mask goes with --mask, and with a single image as B")
        given = zip((self.mask, self.target_mask), (source, target), turns, strict=True)
        return [None if path is None else read_mask(path, image, turn) for path, image, turn in given]


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
    exif: ExifPixels = "upright",
    run: Annotated[RunOptions, Without("batch", "cache_mb", "cache")],
) -> None:
    """Find points of image A in image B.

    Examples:

    geoaware match cat1.jpg cat2.jpg --point 120,85 --point 310,90 --out matches.png

    geoaware match cat1.jpg photos/ --points ears.csv --json found/ --out images/
    """
    output.check(b.is_dir())
    from geoaware.data.images import list_images
    from geoaware.runs.files import check_apart

    queries = points.read()
    targets = list_images(b) if b.is_dir() else [b]
    if b.is_dir():
        results = [place for each in targets for place in output.of(each).places]
        check_apart(results, [each for each in (a, points.points, masks.mask, *targets) if each is not None])
    turns = (_turn(a, exif), 1 if b.is_dir() else _turn(b, exif, asked=False))
    source_object, target_object = masks.read(a, b, turns)

    from geoaware.data.exif import INVERSE, turned_points, turned_size
    from geoaware.data.points_file import check_pixels
    from geoaware.matcher import check_points

    matcher = load_matcher(features, run, pose, matching="extractor")
    source = matcher.encode(a, source_object)
    stored = turned_size(source.size, INVERSE[turns[0]])
    check_pixels(queries.points, stored)
    upright = turned_points(check_points(queries.points, stored), stored, turns[0])
    source = matcher.holding(source, upright)  # once, not for every target

    def find(target: Path) -> tuple[MatchResult, MatchResult]:
        encoded = matcher.encode(target, target_object)
        result = matcher.match(source, encoded, upright, flip_pairs=queries.flip_pairs)
        return result, _as_stored(result, (turns[0], _turn(target, exif, asked=False)))

    if b.is_dir():
        _match_folder(a, targets, find, output, queries, skip_existing)
    else:
        result, told = find(b)
        output.write(result, told, a, b, queries)
        _print_result(told, queries)


def _turn(path: Path, exif: str, asked: bool = True) -> int:
    """The orientation by which points of the stored pixels are turned; says so if points are asked for."""
    from geoaware.data.exif import check_exif
    from geoaware.data.images import image_frame, turned_note

    orientation = image_frame(path).orientation
    if check_exif(exif) == "stored":
        return orientation
    if asked and orientation > 1:
        say(f"note: {turned_note(path, orientation)}")
    return 1


def _as_stored(result: MatchResult, turns: tuple[int, int]) -> MatchResult:
    """The same result on the images as their files store them."""
    import numpy as np
    from PIL import Image

    from geoaware.data.exif import INVERSE, turned_pixels, turned_points

    def stored(side: Encoded, xy: Any, turn: int) -> tuple[Encoded, Any]:
        pixels = turned_pixels(np.asarray(side.image), INVERSE[turn])
        return replace(side, image=Image.fromarray(pixels)), turned_points(xy, side.size, INVERSE[turn])

    if turns == (1, 1):
        return result
    source, queries = stored(result.source, result.queries, turns[0])
    target, points = stored(result.target, result.points, turns[1])
    matches = replace(result.matches, points=points)
    return replace(result, source=source, target=target, queries=queries, matches=matches)


def _match_folder(
    source: Path,
    targets: list[Path],
    find: Callable[[Path], tuple[MatchResult, MatchResult]],
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
                result, told = find(target)
                files.write(result, told, source, target, queries)
            except (InputError, NotFiniteError, OSError) as error:
                failed += 1
                named = str(error) if str(target) in str(error) else f"{target}: {error}"
                typer.secho(f"skipped: {cut(named)}", fg="red", err=True)
                continue
            typer.echo(_summary(target, told))
        tell("matching", len(targets), len(targets))
    done = len(targets) - failed - skipped
    say(f"{done} matched, {skipped} already there, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _summary(target: Path, result: MatchResult) -> str:
    several = zip(result.points.tolist(), result.confidence.tolist(), strict=True)
    return f"{target.name}: " + "  ".join(f"{x:.1f},{y:.1f} ({c:.2f})" for (x, y), c in several)


def _print_result(result: MatchResult, queries: QueryPoints) -> None:
    heads = ("point", "in A", "in B", "confidence", "cycle error")
    names = queries.names or [str(number) for number in range(len(result.queries))]
    figures = (result.queries, result.points, result.confidence, result.cycle_error)
    rows: list[Any] = [names, *(each.numpy(force=True).tolist() for each in figures)]
    cells = [
        (name, *(f"{x:.1f}, {y:.1f}" for x, y in (query, found)), f"{confidence:.2f}", f"{cycle:.3f}")
        for name, query, found, confidence, cycle in zip(*rows, strict=True)
    ]
    if len(cells) <= _TABLE_ROWS:
        from rich.console import Console
        from rich.table import Table

        table = Table(*heads)
        for row in cells:
            table.add_row(*row)
        Console(markup=False, emoji=False).print(table)
    else:  # a table of many rows takes longer than finding the points
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *cells))
        typer.echo("\n".join(lines))
    distances = ", ".join(f"{pose} {value:.4f}" for pose, value in result.distances.items())
    typer.echo(f"pose: {result.pose} ({f'distances: {distances}' if distances else 'alignment off'})")


def check_format(path: Path) -> None:
    """Make sure that images can be written in the format of a suffix.

    Raises:
        InputError: it is none, or one in which no image can be written.
    """
    from io import BytesIO

    from PIL import Image

    try:
        Image.new("RGB", (8, 8)).save(BytesIO(), Image.registered_extensions()[path.suffix.lower()])
    except Exception:  # whatever a format's writer raises that cannot write, or is not there
        raise InputError(
            f"{path}: no image can be written as {path.suffix!r}; end the name in .png"
        ) from None


def save_image(image: Any, path: Path) -> None:
    """Write a PIL image in the format of the suffix."""
    from geoaware.runs.files import replacing

    quick = {"compress_level": 1} if path.suffix.lower() == ".png" else {}
    with replacing(path) as draft:
        image.save(draft, **quick)
