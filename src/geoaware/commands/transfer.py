"""``geoaware transfer``: keypoints from a few annotated images to a whole collection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.choices import Batch, CacheFolder, Extractor, Pose, RunChoice, Setting
from geoaware.commands.options import Blend, Device, Dtype, PoseRuleText, PostProcessorPlace
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.apps.transfer import Outcome, Sources, Targets, TransferSettings
    from geoaware.store.extraction import Shard


def transfer(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE.json", help="COCO-keypoints file of the annotated images.")
    ],
    out: Annotated[Path, typer.Option("--out", help="COCO-keypoints file to write.")],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES…", help="Files and folders to annotate.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            "--targets", metavar="FILE", help="Instead: a COCO file of images, with boxes and masks."
        ),
    ] = None,
    source_images: Annotated[
        Path | None,
        typer.Option(
            "--source-images", metavar="DIR", help="Their folder; images beside SOURCE.json, or its own."
        ),
    ] = None,
    targets_images: Annotated[
        Path | None, typer.Option("--targets-images", metavar="DIR", help="The same for --targets.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="DIR", help="Names in the result are relative to it; the common folder."
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the folders inside too.")] = False,
    category: Annotated[
        str | None, typer.Option("--category", help="Whose annotations to use, if SOURCE.json has several.")
    ] = None,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Count annotated but hidden keypoints (flag 1) as visible.")
    ] = False,
    nearest: Annotated[
        int, typer.Option("--nearest", metavar="K", help="Only the K best-fitting sources vote; 0: all.")
    ] = 0,
    threshold: Annotated[
        float,
        typer.Option("--threshold", help="Keypoints of a smaller probability are marked not visible."),
    ] = 0.5,
    keep_guesses: Annotated[
        bool, typer.Option("--keep-guesses", help="Write [x, y, probability] of every keypoint too.")
    ] = False,
    crop: Annotated[
        bool, typer.Option("--crop/--no-crop", help="Cut small objects out by their boxes, where given.")
    ] = True,
    masks: Annotated[
        bool, typer.Option("--masks/--no-masks", help="Look only on the target's mask, where one is given.")
    ] = True,
    review: Annotated[
        Path | None,
        typer.Option("--review", metavar="FILE", help="Write an HTML page to look at the result."),
    ] = None,
    review_count: Annotated[
        int, typer.Option("--review-count", help="Targets on that page at most, evenly spread.")
    ] = 200,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Compare with the annotations in --targets.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write the evaluation as JSON and PNG.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="Of the evaluation; by box (paper) or image if not given."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Only put the shares of several processes together.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier run wrote to the file.")
    ] = False,
    extractor: Extractor = "lite",
    post_processor: PostProcessorPlace = "auto",
    blend: Blend = None,
    pose: Pose = "auto",
    pose_rule: PoseRuleText = None,
    setting: Setting = None,
    batch: Batch = 0,
    cache: CacheFolder = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
) -> None:
    """Annotate a few images and have the others annotated.

    An interrupted run goes on where it stopped when the same command is given again. Under torchrun every
    process takes its share; the same command with --merge then puts the shares together.

    Examples:

    geoaware transfer cats.json photos/ --out found.json --review found.html

    geoaware transfer cats.json --targets boxes.json --out found.json --threshold 0.7

    geoaware transfer train.json --targets val.json --out found.json --evaluate --report figures/
    """
    if bool(images) == (targets is not None):
        raise InputError("give the images to annotate either as files and folders or by --targets FILE")
    if (report is not None or protocol is not None) and not evaluate:
        raise InputError("--report and --protocol belong to an evaluation; give --evaluate too")
    if review is not None and review == out:
        raise InputError(f"{out}: --out and --review name the same file; choose another for the page")
    if review_count < 1:
        raise InputError(f"--review-count must be at least 1, got {review_count}")

    from geoaware.apps.transfer import (
        TransferSettings,
        VoteSettings,
        list_targets,
        read_sources,
        read_targets,
    )
    from geoaware.store.extraction import Shard

    settings = TransferSettings(
        VoteSettings(nearest=nearest),
        threshold,
        keep_guesses or evaluate,
        masks=masks,
        batch=batch,
    )
    if not crop:
        settings = replace(settings, below=0.0)
    shard = Shard.from_environment()
    sources = read_sources(source, source_images, category, hidden)
    everything = (
        list_targets(images or [], root, recursive)
        if targets is None
        else read_targets(targets, sources, targets_images)
    )
    wanted = everything.without(sources)
    if evaluate:
        _check_evaluation(wanted, protocol)
    _say_what(sources, wanted, len(everything))
    if merge:
        outcome = _merge(sources, wanted, out)
    else:
        run = RunChoice(
            extractor,
            post_processor,
            blend,
            pose,
            pose_rule,
            None,
            "extractor",
            True,
            False,
            setting,
            batch,
            0,
            cache,
            shard.device(device),
            dtype,
        )
        outcome = _transfer(_Job(sources, wanted, settings, shard, restart), run, out)
    if outcome.out is not None:
        if evaluate:
            _evaluate(outcome.out, sources, wanted, report, protocol, hidden)
        if review is not None:
            _review(outcome.out, sources, wanted, review, review_count)
    _report(outcome, shard)


class _Job:
    """What is to be done."""

    def __init__(
        self, sources: Sources, targets: Targets, settings: TransferSettings, shard: Shard, restart: bool
    ) -> None:
        self.sources, self.targets, self.settings = sources, targets, settings
        self.shard, self.restart = shard, restart


def _transfer(job: _Job, run: RunChoice, out: Path) -> Outcome:
    from geoaware.apps.transfer import transfer

    matcher = run.matcher("paper")
    with _progress(job.shard) as progress:
        return transfer(
            job.sources,
            job.targets,
            matcher,
            out,
            job.settings,
            shard=job.shard,
            restart=job.restart,
            progress=progress,
        )


def _merge(sources: Sources, targets: Targets, out: Path) -> Outcome:
    from geoaware.apps.transfer import merge

    return merge(sources, targets, out)


def _check_evaluation(targets: Targets, protocol: str | None) -> None:
    """Find out before the work what would stop the evaluation."""
    from geoaware.apps.transfer.evaluate import check_annotated
    from geoaware.evaluation.protocols import get_protocol

    check_annotated(targets)
    if protocol is not None:
        get_protocol(protocol)


def _evaluate(
    out: Path, sources: Sources, targets: Targets, report: Path | None, protocol: str | None, hidden: bool
) -> None:
    from geoaware.apps.transfer import evaluate
    from geoaware.evaluation.formats import to_text

    predictions = (report or out.parent) / f"{out.stem}.predictions.jsonl"
    found = evaluate.evaluate(out, sources, targets, predictions, protocol, hidden)
    typer.echo(to_text(found.places))
    typer.echo(evaluate.to_text(found.visibility))
    typer.echo(f"predictions: {predictions}; geoaware score {predictions} prints the same", err=True)
    if report is not None:
        for path in evaluate.save_report(found, report):
            typer.echo(f"wrote {path}", err=True)


def _review(out: Path, sources: Sources, targets: Targets, page: Path, most: int) -> None:
    from geoaware.apps.transfer.review import write_review

    typer.echo(f"wrote {write_review(out, sources, targets, page, most)}", err=True)


def _say_what(sources: Sources, targets: Targets, all_targets: int) -> None:
    """What there is to do, before the work."""
    for note in sources.notes:
        typer.echo(f"note: {note}", err=True)
    if len(targets) < all_targets:
        typer.echo(f"note: {all_targets - len(targets)} targets left out, their images are sources", err=True)
    typer.echo(
        f"{sources.name}: {len(sources.schema)} keypoints, {len(sources.images):,} sources, "
        f"{len(targets):,} targets",
        err=True,
    )


def _report(outcome: Outcome, shard: Shard) -> None:
    """What came out; exit code 1 if a target failed."""
    who = f"[{shard.rank + 1} of {shard.world}] " if shard.world > 1 else ""
    for reason in outcome.reasons:
        typer.echo(f"{who}failed: {reason}", err=True)
    if outcome.failed > len(outcome.reasons):
        typer.echo(f"{who}… and {outcome.failed - len(outcome.reasons)} more", err=True)
    typer.echo(f"{who}{outcome.targets - outcome.failed:,} annotated, {outcome.failed:,} failed", err=True)
    if outcome.out is None:
        typer.echo(f"{who}when all processes are done: the same command, one process, with --merge", err=True)
    else:
        typer.echo(outcome.out)
    if outcome.failed:
        raise typer.Exit(1)


@contextmanager
def _progress(shard: Shard) -> Iterator[Any]:
    """A bar with the time left on standard error, one for each kind of work; only the first process's."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=shard.rank != 0 or not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield tell
