"""``geoaware dense`` and ``geoaware warp``: every pixel of one image found in another, and carried over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.match import check_format, save_image
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
    import numpy as np
    from PIL import Image

    from geoaware.field import Field
    from geoaware.matcher import Matcher


COARSE = 24
"""Of a map with fewer cells a side, a warp shows the cells and not the object."""


@dataclass(frozen=True)
class FieldOptions:
    """How fine the field is."""

    size: Annotated[int, Option(help="Longer side of the field in pixels; 0: as the image.")] = 448
    step: Annotated[int, Option(help="Match every so many pixels of it, and read between them.")] = 4

    def find(self, matcher: Matcher, source: Path, target: Path, mask: np.ndarray | None = None) -> Field:
        """Where the pixels of one image lie in the other."""
        return matcher.dense(matcher.encode(source, mask), target, size=self.size or None, step=self.step)


@dataclass(frozen=True)
class SureOptions:
    """Which matches count."""

    min_confidence: Annotated[float, Option(help="Of a pixel's match, at least.")] = 0.3
    max_cycle: Annotated[
        float, Option(help="How far a match may lead back from its pixel, as a share of the longer side.")
    ] = 0.1
    smooth: Annotated[
        float | None, Option(metavar="S", help="Bend a thin plate of this stiffness instead; 0.001, say.")
    ] = None

    def apply(self, field: Field) -> Field:
        """The field, smoothed if asked for."""
        if self.smooth is None:
            return field
        if self.smooth < 0:
            raise InputError(f"--smooth must be 0 or more, got {self.smooth:g}")
        return field.smoothed(self.smooth, self.min_confidence, self.max_cycle)


@expand
def dense(
    a: Annotated[Path, Argument(metavar="A", help="The image whose pixels are looked for.")],
    b: Annotated[Path, Argument(metavar="B", help="The image to find them in.")],
    out: Annotated[Path, Option(help="Field to write: .npz, .flo, or .png to look at.")],
    field: FieldOptions,
    sure: SureOptions,
    *,
    mask: Annotated[
        Path | None, Option(help="Image of A's object, white on black: its pixels alone.")
    ] = None,
    features: FeatureOptions,
    pose: PoseOptions,
    run: Annotated[RunOptions, Without("batch", "cache_mb", "cache")],
) -> None:
    """Find every pixel of image A in image B.

    Example: geoaware dense cat1.jpg cat2.jpg --out field.npz
    """
    from geoaware.data.masks import read_mask
    from geoaware.field import check_suffix
    from geoaware.runs.files import check_goals

    check_suffix(out)
    check_goals(out)
    read = None if mask is None else read_mask(mask, a)
    found = sure.apply(field.find(load_matcher(features, run, pose, matching="extractor"), a, b, read))
    found.save(out)
    _tell(found, sure)
    typer.echo(out)


@expand
def warp(
    a: Annotated[Path, Argument(metavar="A", help="The image whose appearance is carried.")],
    b: Annotated[Path, Argument(metavar="B", help="The image whose shape it is laid on.")],
    out: Annotated[Path, Option(help="Image to write, of B's size; PNG keeps holes transparent.")],
    field: FieldOptions,
    sure: SureOptions,
    *,
    edit: Annotated[
        Path | None, Option(metavar="IMAGE", help="Carry this instead of A: an edit or texture of its size.")
    ] = None,
    mask: Annotated[
        Path | None, Option(help="Image of A's size, white on black: carry the white part alone.")
    ] = None,
    over: Annotated[bool, Option("--over", help="Lay it over B, not on a transparent ground.")] = False,
    features: FeatureOptions,
    pose: PoseOptions,
    run: Annotated[RunOptions, Without("batch", "cache_mb", "cache")],
) -> None:
    """Lay the appearance of image A on the shape of image B.

    Examples:

    geoaware warp cat1.jpg cat2.jpg --out warped.png --smooth 0.001

    geoaware warp cat1.jpg cat2.jpg --edit stripes.png --over --out striped.png
    """
    from geoaware.runs.files import check_goals

    check_format(out)
    check_goals(out)
    found = field.find(load_matcher(features, run, pose, matching="extractor"), b, a)
    carried = _carried(a, found.target.image, edit, mask)
    laid = sure.apply(found).carry(carried, sure.min_confidence, sure.max_cycle)
    if over:
        ground = found.source.image.convert("RGBA")
        ground.alpha_composite(laid)
        laid = ground.convert("RGB")
    save_image(laid if out.suffix.lower() == ".png" else laid.convert("RGB"), out)
    _tell(found, sure)
    typer.echo(out)


def _carried(path: Path, image: Image.Image, edit: Path | None, mask: Path | None) -> Image.Image:
    """What is carried: the image of the path or an edit of it, where the mask is white."""
    from PIL import Image

    from geoaware.data.images import load_rgba
    from geoaware.data.masks import read_mask

    carried = image.convert("RGBA")
    if edit is not None:
        carried = load_rgba(edit)
        if carried.size != image.size:
            is_now, needed = (f"{width}x{height}" for width, height in (carried.size, image.size))
            raise InputError(f"{edit}: has {is_now} pixels, and A {needed}; give one of A's size")
    if mask is not None:
        white = Image.fromarray(read_mask(mask, path))
        carried.putalpha(Image.composite(carried.getchannel("A"), Image.new("L", image.size), white))
    return carried


def _tell(field: Field, sure: SureOptions) -> None:
    shown = field.accepted(sure.min_confidence, sure.max_cycle).float().mean()
    say(f"pose: {field.pose}; {shown:.0%} of the pixels have a sure counterpart")
    grid = field.target.maps["identity"].grid
    if grid < COARSE:
        say(
            f"note: features of {grid} x {grid} cells are too coarse for the edges of a field; a larger "
            "canvas (--set canvas=SIDE), where the extractor has that setting, or another extractor is finer"
        )
