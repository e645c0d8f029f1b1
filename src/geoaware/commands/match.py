"""``geoaware match``: points of one image, found in another or in every image of a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.options import (
    Blend,
    Device,
    Dtype,
    PoseRuleText,
    PostProcessorPlace,
    Settings,
    parse_pose_rule,
    parse_settings,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.data.points_file import QueryPoints
    from geoaware.matcher import Matcher
    from geoaware.result import Encoded, MatchResult


def match(
    a: Annotated[Path, typer.Argument(metavar="A", help="The image that the points are on.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other image, or a folder of images.")],
    point: Annotated[
        list[str] | None, typer.Option("--point", metavar="X,Y", help="Pixel of A; may be repeated.")
    ] = None,
    points: Annotated[
        Path | None, typer.Option("--points", help="CSV or JSON file of points, with names if it has any.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write an image of the matches (a folder, if B is one).")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the matches as JSON (a folder, if B is one).")
    ] = None,
    heatmap: Annotated[
        int | None,
        typer.Option("--heatmap", metavar="N", help="Write to --out where on B the point number N could be."),
    ] = None,
    model: Annotated[
        str, typer.Option("--extractor", help="`lite` or an extractor that `geoaware info` lists.")
    ] = "lite",
    post_processor: PostProcessorPlace = "auto",
    blend: Blend = None,
    pose: Annotated[
        str, typer.Option("--pose", help="Turn A to the pose of B: auto (as measured), off, flip, rotate.")
    ] = "auto",
    pose_rule: PoseRuleText = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Image of A's object, white on black, to choose the pose.")
    ] = None,
    target_mask: Annotated[
        Path | None, typer.Option("--target-mask", help="The same of B; with --mask only, B not a folder.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="With a folder: go on where an earlier run stopped.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    setting: Settings = None,
) -> None:
    """Find points of image A in image B.

    Examples:

    geoaware match cat1.jpg cat2.jpg --point 120,85 --point 310,90 --out matches.png

    geoaware match cat1.jpg photos/ --points ears.csv --json found/ --out images/
    """
    from geoaware.data.images import list_images, load_mask

    queries = _queries(point, points)
    for path in (a, b):
        if not path.exists():
            raise InputError(f"{path}: no such file")
    targets = list_images(b) if b.is_dir() else [b]
    if heatmap is not None and out is None:
        raise InputError("--heatmap needs --out FILE to write the image to")
    if target_mask is not None and (mask is None or b.is_dir()):
        raise InputError("--target-mask goes with --mask, and with a single image as B")
    source_object, target_object = (None if path is None else load_mask(path) for path in (mask, target_mask))

    from geoaware.matcher import Matcher, check_points

    matcher = Matcher.from_pretrained(
        model,
        pose=pose,
        pose_rule=parse_pose_rule(pose_rule),
        post_processor=post_processor,
        blend=blend,
        device=device,
        dtype=dtype,
        **parse_settings(setting),
    )
    source = matcher.encode(a, source_object)
    check_points(queries.points, source.size)
    output = _Output(a, queries, out, json_file, heatmap)
    if b.is_dir():
        _match_folder(matcher, source, targets, output, skip_existing)
    else:
        result = _run(matcher, source, matcher.encode(b, target_object), queries)
        output.write(result, b, out, json_file)
        _print_result(result, queries)


@dataclass(frozen=True)
class _Output:
    """What is written for each target image."""

    source: Path
    queries: QueryPoints
    out: Path | None
    json_file: Path | None
    heatmap: int | None

    def places(self, target: Path) -> tuple[Path | None, Path | None]:
        """Image and JSON file of one target of a folder."""
        image = None if self.out is None else self.out / f"{target.name}.png"
        return image, None if self.json_file is None else self.json_file / f"{target.name}.json"

    def write(self, result: MatchResult, target: Path, drawn: Path | None, data: Path | None) -> None:
        from geoaware.runs.files import replacing

        if drawn is not None:
            image = (
                result.draw(labels=self.queries.names)
                if self.heatmap is None
                else result.heatmap(self.heatmap)
            )
            _save(image, drawn)
        if data is not None:
            content = {"source": str(self.source), "target": str(target), **result.to_dict()}
            for entry, name in zip(content["matches"], self.queries.names or [], strict=False):
                entry["name"] = name
            with replacing(data) as draft:
                draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _queries(point: list[str] | None, points: Path | None) -> QueryPoints:
    from geoaware.data.points_file import QueryPoints, parse_point, read_points

    if points is not None and point:
        raise InputError("give the points either by --point or by --points FILE, not both")
    if points is not None:
        return read_points(points)
    if not point:
        raise InputError("no points: give --point x,y (may be repeated) or --points FILE")
    return QueryPoints([parse_point(each) for each in point])


def _run(matcher: Matcher, source: Encoded, target: Path | Encoded, queries: QueryPoints) -> MatchResult:
    return matcher.match(source, target, queries.points, flip_pairs=queries.flip_pairs)


def _match_folder(
    matcher: Matcher, source: Encoded, targets: list[Path], output: _Output, skip_existing: bool
) -> None:
    """Match against every image; one that fails is reported and the rest goes on (exit code 1)."""
    from rich.console import Console
    from rich.progress import Progress

    if output.out is None and output.json_file is None:
        typer.echo("note: neither --out nor --json is given; results are only printed", err=True)
    failed = skipped = 0
    with Progress(console=Console(stderr=True)) as progress:
        for target in progress.track(targets, description="matching"):
            image, data = output.places(target)
            wanted = [place for place in (image, data) if place is not None]
            if skip_existing and wanted and all(place.exists() for place in wanted):
                skipped += 1
                continue
            try:
                result = _run(matcher, source, target, output.queries)
            except InputError as error:
                failed += 1
                progress.console.print(f"skipped: {error}", style="red", highlight=False, markup=False)
                continue
            output.write(result, target, image, data)
            typer.echo(_summary(target, result))
    done = len(targets) - failed - skipped
    typer.echo(f"{done} matched, {skipped} already there, {failed} failed", err=True)
    if failed:
        raise typer.Exit(1)


def _summary(target: Path, result: MatchResult) -> str:
    matches = "  ".join(
        f"{x:.1f},{y:.1f} ({c:.2f})"
        for (x, y), c in zip(result.points.tolist(), result.confidence.tolist(), strict=True)
    )
    return f"{target.name}: {matches}"


def _print_result(result: MatchResult, queries: QueryPoints) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("point", "in A", "in B", "confidence", "cycle error")
    names = queries.names or [str(number) for number in range(len(result.queries))]
    rows: list[Any] = [names, result.queries.tolist(), result.points.tolist()]
    rows += [result.confidence.tolist(), result.cycle_error.tolist()]
    for name, query, found, confidence, cycle in zip(*rows, strict=True):
        table.add_row(name, _xy(query), _xy(found), f"{confidence:.2f}", f"{cycle:.3f}")
    console = Console()
    console.print(table)
    distances = ", ".join(f"{pose} {value:.4f}" for pose, value in result.distances.items())
    console.print(
        f"pose: {result.pose}" + (f" (distances: {distances})" if distances else " (alignment off)")
    )


def _xy(point: list[float]) -> str:
    return f"{point[0]:.1f}, {point[1]:.1f}"


def _save(image: Any, path: Path) -> None:
    """Write a PIL image in the format of the suffix."""
    from PIL import Image

    from geoaware.runs.files import replacing

    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: cannot tell the image format from {path.suffix!r}; end the name in .png")
    quick = {"compress_level": 1} if path.suffix.lower() == ".png" else {}
    with replacing(path) as draft:
        image.save(draft, **quick)
