"""``geoaware pose``: from which side images show their object, by comparison with template images."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    CacheFolder,
    Device,
    Dtype,
    ExtractorSettings,
    FeatureOptions,
    PoseOptions,
    RunOptions,
    expand,
    load_matcher,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.apps.pose.predict import PosePrediction
    from geoaware.apps.pose.run import PoseWork
    from geoaware.method.types import AnnotatedImage


@dataclass(frozen=True)
class ComparisonOptions:
    """How images are compared with templates."""

    metric: Annotated[
        str, Option(help="imd: instance matching distance; mutual-nn: mutual nearest neighbours.")
    ] = "imd"
    masks: Annotated[
        Path | None,
        Option(metavar="DIR", help="Masks of the images' objects, of the same names, for imd."),
    ] = None
    template_masks: Annotated[
        bool,
        Option(
            "--template-masks", help="Compare with the templates' objects only: left_mask.png … beside them."
        ),
    ] = False


@expand
def pose(
    images: Annotated[list[Path], Argument(metavar="IMAGES", help="Images, or folders of images.")],
    templates: Annotated[
        Path,
        Option(
            metavar="DIR",
            help="A folder for each template set, in it left, right, front and back (.jpg, .png …).",
        ),
    ],
    features: FeatureOptions,
    compared: ComparisonOptions,
    labels: Annotated[
        Path | None, Option(metavar="FILE", help="True poses, JSON or CSV: prints the accuracies.")
    ] = None,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Write poses, votes and distances as JSON.")
    ] = None,
    restart: Annotated[
        bool, Option("--restart", help="Throw away what an earlier run wrote to --out.")
    ] = False,
    cache: CacheFolder = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    setting: ExtractorSettings = None,
) -> None:
    """Predict whether images show their object from the left, the right, the front or the back.

    In each template set the nearest template has a vote; most votes win.

    With --out, the same command again goes on where a run was stopped, and reads a finished one.

    Examples:

    geoaware pose photos/ --templates cats/

    geoaware pose photos/ --templates cats/ --masks masks/ --labels poses.csv --out poses.json
    """
    from geoaware.apps.pose import PoseSettings, PoseWork, read_template_sets

    masked = compared.masks is not None
    how = PoseSettings(compared.metric, masked, compared.template_masks)  # type: ignore[arg-type]
    sets = read_template_sets(templates, compared.template_masks)
    chosen = read_images(images, compared.masks)
    truth = None if labels is None else read_labels(labels, [each.id for each in chosen])
    run = RunOptions(setting, cache=cache, device=device, dtype=dtype)
    work = PoseWork(load_matcher(features, run, PoseOptions("off")), {"": sets}, chosen, how)
    found = _predict(work, out, restart)
    for each in found:
        typer.echo(_line(each, None if truth is None else truth.get(each.image)))
    if truth is not None:
        from geoaware.apps.pose.scores import accuracy_grid, confusion_grid, score_poses
        from geoaware.evaluation.tables import as_text

        scores = score_poses(found, truth)
        for grid in (accuracy_grid(scores), confusion_grid(scores)):
            typer.echo("\n" + as_text([grid]))


def _predict(work: PoseWork, out: Path | None, restart: bool) -> list[PosePrediction]:
    from geoaware.apps.pose.run import predict_poses
    from geoaware.runs.progress import progress_bars

    sets = len(work.templates[""])
    typer.echo(f"images: {len(work.images):,}, template sets: {sets:,}, {work.matcher.identity}", err=True)
    with progress_bars() as tell:
        found = predict_poses(work, out, restart=restart, progress=tell)
    if out is not None:
        typer.echo(f"wrote {out}; the same command again reads it", err=True)
    return found


def _line(found: PosePrediction, truth: str | None) -> str:
    """``cat1.jpg: left (8 of 10 sets; left 0.412, …)``: mean distances, and the label where it differs."""
    sets = len(found.distances)
    means = ", ".join(
        f"{pose} {sum(each[pose] for each in found.distances.values()) / sets:.4f}" for pose in found.votes
    )
    wrong = f", labelled {truth}" if truth not in (None, found.pose) else ""
    return f"{found.image}: {found.pose}{wrong} ({found.votes[found.pose]} of {sets} sets; {means})"


def read_images(paths: Sequence[Path], masks: Path | None = None) -> list[AnnotatedImage]:
    """Images of one's own; folders stand for the images directly in them.

    An image's id is its path from the folder that all of them have in common.

    Args:
        paths: files and folders; what is named twice counts once.
        masks: folder with a mask of the same name, but any suffix, for each image.

    Raises:
        InputError: nothing there, an unreadable image, or a mask is missing.
    """
    from geoaware.apps.pose.templates import bare_image
    from geoaware.data.images import list_images

    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        inside = list_images(path) if path.is_dir() else [path]
        files.update(dict.fromkeys(each.absolute() for each in inside))
    common = os.path.commonpath([each.parent for each in files])
    return [
        bare_image(
            each.relative_to(common).as_posix(), each, None if masks is None else _mask_of(each, masks)
        )
        for each in files
    ]


def _mask_of(image: Path, folder: Path) -> Path:
    from geoaware.data.images import SUFFIXES

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of the masks")
    names = [image.with_suffix(suffix).name for suffix in (image.suffix, ".png", *sorted(SUFFIXES))]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder}: no mask of {image.name} in it; add {names[1]}, or leave out --masks")
    return found


def read_labels(path: Path, images: Sequence[str]) -> dict[str, str]:
    """True poses from a JSON object ``{"cat1.jpg": "left", …}`` or from CSV lines ``cat1.jpg,left``.

    Args:
        path: the file; CSV unless it ends in .json. A first CSV line ``image,pose`` is a heading.
        images: ids of the images to be predicted.

    Raises:
        InputError: the file cannot be read, names an image that is not among them or twice, or no pose.
    """
    from geoaware.apps.pose.templates import DIRECTIONS

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a JSON or CSV file of image and pose") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    known, labels = set(images), dict[str, str]()
    for name, given in (
        _json_labels(text, path) if path.suffix.lower() == ".json" else _csv_labels(text, path)
    ):
        if name not in known:
            raise InputError(
                f"{path}: {name!r} is not among the images ({', '.join(images[:3])} …); name images "
                "as they are printed"
            )
        if given not in DIRECTIONS:
            raise InputError(f"{path}: {name!r} has the pose {given!r}; choose {', '.join(DIRECTIONS)}")
        if name in labels:
            raise InputError(f"{path}: {name!r} stands there twice; leave one of them")
        labels[name] = given
    if not labels:
        raise InputError(f"{path}: has no labels; write image and pose, such as {images[0]},left")
    return labels


def _json_labels(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        # As pairs: a dictionary would hide an image that stands there twice.
        pairs = json.loads(text, object_pairs_hook=list)
        yield from ((str(name), given) for name, given in pairs)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f'{path}: is no JSON object of {{"image": "pose"}} ({error})') from None


def _csv_labels(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells in (["image", "pose"], ["picture", "pose"])):
            continue
        if len(cells) != 2:
            raise InputError(f"{path}, line {number}: expected image,pose, got {len(cells)} values")
        yield cells[0], cells[1]
