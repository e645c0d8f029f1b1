"""``geoaware transfer``: keypoints from a few annotated images to a whole collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    EngineOptions,
    ExifPixels,
    FeatureOptions,
    PoseOptions,
    Restart,
    RunOptions,
    Without,
    expand,
    load_matcher,
    say,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.apps.transfer import Outcome, Sources, Targets, TransferSettings


@dataclass(frozen=True)
class ImageOptions:
    """What is annotated already, and what is to be."""

    source: Annotated[
        Path, Argument(metavar="SOURCE", help="Annotated images: a file, folder or zip of a known format.")
    ]
    out: Annotated[Path, Option(help="File or folder to write; a name in .parquet makes Parquet.")]
    images: Annotated[
        list[Path] | None, Argument(metavar="IMAGES…", help="Files and folders to annotate, or videos.")
    ] = None
    targets: Annotated[
        Path | None,
        Option(metavar="FILE", help="Instead: a file of images, with boxes and masks, of any format."),
    ] = None
    source_images: Annotated[
        Path | None,
        Option(metavar="DIR", help="Their folder; where exporters put it, if not given."),
    ] = None
    targets_images: Annotated[Path | None, Option(metavar="DIR", help="The same for --targets.")] = None
    root: Annotated[
        Path | None,
        Option(metavar="DIR", help="Names in the result are relative to it; the common folder."),
    ] = None
    recursive: Annotated[bool, Option("--recursive", help="Look into the folders inside too.")] = False
    category: Annotated[str | None, Option(help="Whose annotations to use, if there are several.")] = None
    hidden: Annotated[
        bool, Option("--hidden", help="Count annotated but hidden keypoints (flag 1) as visible.")
    ] = False

    accepted: Annotated[
        bool, Option("--accepted", help="Of what was reviewed (geoaware review), use only what is accepted.")
    ] = False

    exif: ExifPixels = "upright"

    def check(self) -> None:
        """Make sure that the images are given in one way."""
        if bool(self.images) == (self.targets is not None):
            raise InputError("give the images to annotate either as files and folders or by --targets FILE")

    def read(self, video: VideoOptions, several: SeveralOptions) -> tuple[Sources, Targets]:
        """The annotated images, and the others; says what there is to do."""
        from geoaware.apps.transfer import list_targets, read_sources, read_targets

        sources = read_sources(
            self.source, self.source_images, self.category, self.hidden, self.exif, self.accepted
        )
        if self.targets is None:
            everything = list_targets(
                self.images or [], self.root, self.recursive, self.exif, video.every, video.frames
            )
        elif video.every is not None or video.frames is not None:
            raise InputError("--every and --frames belong to videos, which --targets cannot give")
        else:
            given = not several.any
            everything = read_targets(self.targets, sources, self.targets_images, self.exif, given)
        wanted = several.within(everything.without(sources), sources)
        for note in (*sources.notes, *wanted.notes):
            say(f"note: {note}")
        if left_out := len(everything) - len(wanted):
            say(f"note: {left_out} targets left out, their images are sources")
        counts = f"{len(sources.images):,} sources, {len(wanted):,} targets"
        say(f"{sources.name}: {len(sources.schema)} keypoints, {counts}")
        return sources, wanted


@dataclass(frozen=True)
class VideoOptions:
    """What is made of a video."""

    every: Annotated[int | None, Option(metavar="N", help="Of a video, annotate only every N-th frame.")] = (
        None
    )
    frames: Annotated[
        Path | None, Option(metavar="DIR", help="Write these frames as images, which most formats need.")
    ] = None
    smooth: Annotated[
        bool, Option("--smooth/--no-smooth", help="Choose places that move little from frame to frame.")
    ] = True


@dataclass(frozen=True)
class SeveralOptions:
    """How several objects in an image are told apart."""

    detections: Annotated[
        Path | None,
        Option(metavar="FILE", help="Boxes of objects: COCO results, or MegaDetector's JSON."),
    ] = None
    detection_category: Annotated[
        str | None, Option(metavar="NAME", help="Of these boxes; the sources', or animal, if not given.")
    ] = None
    find: Annotated[bool, Option("--find", help="Find the objects in every image (lite only).")] = False
    min_detection: Annotated[
        float | None,
        Option(metavar="SCORE", help="Less probable boxes are none; 0.2 of --detections, 0.3 of --find."),
    ] = None

    @property
    def any(self) -> bool:
        """Whether an image may hold any number of objects."""
        return self.find or self.detections is not None

    def check(self, evaluate: bool) -> None:
        """Find out what does not go together."""
        if self.find and self.detections is not None:
            raise InputError("give either --find or --detections FILE: objects are found, or they are given")
        if self.detection_category is not None and self.detections is None:
            raise InputError("--detection-category belongs to --detections; give both")
        if self.min_detection is not None and not self.any:
            raise InputError("--min-detection belongs to --detections or --find; give one of them")
        if self.any and evaluate:
            raise InputError(
                "--evaluate compares objects that --targets gives; leave --find and --detections out"
            )

    def within(self, targets: Targets, sources: Sources) -> Targets:
        """The targets with the boxes of a detector, if there are any."""
        from geoaware.apps.transfer import detections

        if self.detections is None:
            return targets
        least = detections.MINIMUM if self.min_detection is None else self.min_detection
        return detections.with_detections(
            targets, self.detections, sources.name, chosen=self.detection_category, least=least
        )

    def added(self, settings: TransferSettings) -> TransferSettings:
        """The settings of a run that finds objects."""
        from geoaware.apps.transfer.find import MINIMUM

        least = MINIMUM if self.min_detection is None else self.min_detection
        return replace(settings, find=least) if self.find else settings


@dataclass(frozen=True)
class VoteOptions:
    """How the sources decide on a target."""

    nearest: Annotated[int, Option(metavar="K", help="Only the K best-fitting sources vote; 0: all.")] = 0
    threshold: Annotated[float, Option(help="Less probable keypoints are marked not visible.")] = 0.5
    below: Annotated[
        str, Option(help="These are absent, or hidden: where they are likeliest, with flag 1.")
    ] = "absent"
    keep_guesses: Annotated[
        bool, Option("--keep-guesses", help="Write [x, y, probability] of every keypoint too.")
    ] = False
    crop: Annotated[
        bool, Option("--crop/--no-crop", help="Cut small objects out by their boxes, where given.")
    ] = True
    given_masks: Annotated[
        bool,
        Option("--given-masks/--no-masks", help="Look only on the target's mask, where one is given."),
    ] = True
    masks: Annotated[bool, Option("--masks", help="Carry the sources' masks over too.")] = False

    def settings(self, batch: int, guesses: bool) -> TransferSettings:
        """The options as the library takes them."""
        from geoaware.apps.transfer import TransferSettings, VoteSettings

        votes = VoteSettings(nearest=self.nearest)
        guesses = guesses or self.keep_guesses
        settings = TransferSettings(
            votes,
            self.threshold,
            guesses,
            masks=self.given_masks,
            batch=batch,
            unshown=self.below,
            carry_masks=self.masks,
        )
        return settings if self.crop else replace(settings, below=0.0)


@dataclass(frozen=True)
class ResultOptions:
    """What is made of the result."""

    to: Annotated[
        str | None,
        Option(help="coco, cvat, labelstudio, dlc, slp, yolo or labelme; by the name, or that of SOURCE."),
    ] = None
    review: Annotated[Path | None, Option(metavar="FILE", help="HTML page to look at the result.")] = None
    review_count: Annotated[int, Option(help="Targets on that page at most, evenly spread.")] = 200
    evaluate: Annotated[bool, Option("--evaluate", help="Compare with the annotations in --targets.")] = False
    report: Annotated[Path | None, Option(metavar="DIR", help="Write the evaluation as JSON and PNG.")] = None
    protocol: Annotated[
        str | None, Option(help="Of the evaluation; by box (paper) or image if not given.")
    ] = None

    def check(self, out: Path) -> None:
        """Find out what does not go together, or cannot be written, before anything is read."""
        from geoaware.evaluation.predictions import BEGIN
        from geoaware.runs.files import check_goals, check_own
        from geoaware.runs.tables import is_table

        check_goals(None if out.is_dir() else out, self.review)
        if is_table(out) and (self.evaluate or self.review is not None):
            raise InputError("--review and --evaluate are made of a COCO result; give --out FILE.json")
        if self.evaluate:
            check_own(self.predictions(out), BEGIN)
        if (self.report is not None or self.protocol is not None) and not self.evaluate:
            raise InputError("--report and --protocol belong to an evaluation; give --evaluate too")
        if self.review_count < 1:
            raise InputError(f"--review-count must be at least 1, got {self.review_count}")

    def predictions(self, out: Path) -> Path:
        """Where those of the evaluation go."""
        return (self.report or out.parent) / f"{out.stem}.predictions.jsonl"

    def check_evaluation(self, sources: Sources, targets: Targets) -> None:
        """Find out before the work what would stop the evaluation, or the page."""
        from geoaware.apps.transfer.evaluate import read_truth
        from geoaware.evaluation.protocols import get_protocol
        from geoaware.runs.files import check_apart

        if self.review is not None:
            if targets.shots and not targets.kept:
                raise InputError("--review shows image files; give --frames DIR for those of the video")
            check_apart([self.review], [each.path for each in (*sources.images, *targets)])

        if self.evaluate:
            read_truth(sources, targets)
            if self.protocol is not None:
                get_protocol(self.protocol)

    def make(self, outcome: Outcome, sources: Sources, targets: Targets, hidden: bool) -> None:
        """Evaluate the result and write the page, where asked for."""
        from geoaware.apps.transfer import evaluate
        from geoaware.apps.transfer.review import write_review
        from geoaware.evaluation.formats import to_text

        if self.evaluate:
            predictions = self.predictions(outcome.out)
            found = evaluate.evaluate(outcome.found, sources, targets, predictions, self.protocol, hidden)
            typer.echo(to_text(found.places))
            typer.echo(evaluate.to_text(found.visibility))
            say(f"predictions: {predictions}; geoaware score {predictions} prints the same")
            for path in [] if self.report is None else evaluate.save_report(found, self.report):
                say(f"wrote {path}")
        if self.review is not None:
            say(f"wrote {write_review(outcome.found, sources, targets, self.review, self.review_count)}")


@expand
def transfer(
    images: ImageOptions,
    video: VideoOptions,
    several: SeveralOptions,
    voting: VoteOptions,
    result: ResultOptions,
    restart: Restart = False,
    *,
    features: FeatureOptions,
    pose: PoseOptions,
    run: Annotated[RunOptions, Without("cache_mb")],
    engine: EngineOptions,
) -> None:
    """Annotate a few images and have the others annotated.

    An interrupted run goes on where it stopped when the same command is given again.

    Examples:

    geoaware transfer cats.json photos/ --out found.json --review found.html

    geoaware transfer cats.json --targets boxes.json --out found.json --threshold 0.7

    geoaware transfer cvat.zip photos/ --out found.xml --below hidden

    geoaware transfer labels.json clip.mp4 --every 5 --out tracks.slp

    geoaware transfer cats.json photos/ --detections megadetector.json --out found.json

    geoaware transfer train.json --targets val.json --out found.json --evaluate --report figures/
    """
    images.check()
    several.check(result.evaluate)
    result.check(images.out)

    from geoaware.apps import transfer as library
    from geoaware.runs.progress import progress_bars

    settings = several.added(voting.settings(run.batch, result.evaluate))
    sources, targets = images.read(video, several)
    for note in library.mask_notes(sources, images.out, result.to) if voting.masks else ():
        say(f"note: {note}")
    result.check_evaluation(sources, targets)
    worker = engine.load(len(targets), "geoaware.apps.transfer.run")
    matcher = load_matcher(features, run, pose, matching="extractor")
    with progress_bars(terminal_only=True) as tell:
        outcome = library.transfer(
            sources,
            targets,
            matcher,
            images.out,
            settings,
            engine=worker,
            to=result.to,
            smooth=video.smooth,
            restart=restart,
            progress=tell,
        )
    result.make(outcome, sources, targets, images.hidden)
    _report(outcome)


def _report(outcome: Outcome) -> None:
    """What came out; exit code 1 if a target failed, or nothing was found."""
    counts = outcome.counts
    for reason in outcome.reasons:
        say(f"failed: {reason}")
    if outcome.failed > len(outcome.reasons):
        say(f"… and {outcome.failed - len(outcome.reasons)} more")
    annotated = outcome.targets - outcome.failed
    shown = f"{counts.shown_keypoints:,} of {counts.sought_keypoints:,} keypoints shown"
    if counts.objects is not None:
        say(f"{counts.objects:,} objects in {annotated:,} images, {counts.bare_images:,} without any")
    say(f"{annotated:,} annotated, {outcome.failed:,} failed; {shown}, {counts.empty_targets:,} empty")
    if outcome.found != outcome.out:
        say(f"the same as COCO, with what is known of the run: {outcome.found}")
    typer.echo(outcome.out)
    if annotated and not counts.shown_keypoints and counts.objects != 0:
        say(
            "warning: no keypoint is probable enough to be shown; annotate more sources, or give a lower "
            "--threshold, which costs no work"
        )
    if outcome.failed or not counts.shown_keypoints:
        raise typer.Exit(1)
