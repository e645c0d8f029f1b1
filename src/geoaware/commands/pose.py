"""``geoaware pose``: from which side images show their object, by comparison with template images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    EngineOptions,
    FeatureOptions,
    PoseOptions,
    Restart,
    RunOptions,
    Without,
    cut,
    expand,
    load_matcher,
    say,
)

if TYPE_CHECKING:
    from geoaware.apps.pose.predict import PosePrediction


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
    features: Annotated[FeatureOptions, Without("views")],
    compared: ComparisonOptions,
    labels: Annotated[
        Path | None, Option(metavar="FILE", help="True poses, JSON or CSV: prints the accuracies.")
    ] = None,
    out: Annotated[Path | None, Option(metavar="FILE", help="Poses, votes and distances as JSON.")] = None,
    restart: Restart = False,
    *,
    run: Annotated[RunOptions, Without("batch", "cache_mb")],
    engine: EngineOptions,
) -> None:
    """Predict whether images show their object from the left, the right, the front or the back.

    In each template set the nearest template has a vote; most votes win.

    With --out, the same command again goes on where a run was stopped, and reads a finished one.

    Examples:

    geoaware pose photos/ --templates cats/

    geoaware pose photos/ --templates cats/ --masks masks/ --labels poses.csv --out poses.json
    """
    from geoaware.apps.pose import PoseSettings, PoseWork, read_template_sets
    from geoaware.apps.pose.inputs import read_images, read_labels
    from geoaware.apps.pose.run import predict_poses
    from geoaware.runs.files import check_goals
    from geoaware.runs.progress import progress_bars

    check_goals(out)
    failures: dict[str, Exception] = {}

    def failed(image: str, error: Exception) -> None:
        failures[image] = error
        typer.secho(f"skipped: {cut(str(error))}", fg="red", err=True)

    how = PoseSettings(compared.metric, bool(compared.masks), compared.template_masks)  # type: ignore[arg-type]
    sets = read_template_sets(templates, compared.template_masks)
    chosen = read_images(images, compared.masks, failed)
    truth = {} if labels is None else read_labels(labels, [*(each.id for each in chosen), *failures])
    if not chosen:
        raise next(iter(failures.values()))
    worker = engine.load(len(chosen), "geoaware.apps.pose.run")
    work = PoseWork(load_matcher(features, run, PoseOptions("off")), {"": sets}, chosen, how)
    say(f"images: {len(chosen):,}, template sets: {len(sets):,}, {work.matcher.identity}")
    with progress_bars() as tell:
        found = predict_poses(work, out, engine=worker, restart=restart, progress=tell, failed=failed)
    if out is not None:
        say(f"wrote {out}; the same command again reads it")
    _report(found, truth, labels is not None, len(failures))


def _report(found: list[PosePrediction], truth: dict[str, str], scored: bool, failed: int) -> None:
    """A line for each image, and the accuracies where there are labels; exit code 1 if an image failed."""
    from geoaware.apps.pose.scores import accuracy_grid, confusion_grid, score_poses
    from geoaware.evaluation.tables import as_text

    for each in found:
        typer.echo(_line(each, truth.get(each.image)))
    scores = score_poses(found, truth) if scored else None
    for grid in () if scores is None else (accuracy_grid(scores), confusion_grid(scores)):
        typer.echo("\n" + as_text([grid]))
    if failed:
        say(f"{len(found):,} images predicted, {failed:,} failed")
        raise typer.Exit(1)


def _line(found: PosePrediction, truth: str | None) -> str:
    """``cat1.jpg: left (8 of 10 sets; left 0.412, …)``: mean distances, and the label where it differs."""
    sets = len(found.distances)
    means = ", ".join(
        f"{pose} {sum(each[pose] for each in found.distances.values()) / sets:.4f}" for pose in found.votes
    )
    wrong = f", labelled {truth}" if truth not in (None, found.pose) else ""
    return f"{found.image}: {found.pose}{wrong} ({found.votes[found.pose]} of {sets} sets; {means})"
