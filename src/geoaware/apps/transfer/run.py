"""Carry keypoints from annotated images over to a collection, image by image, into a COCO-keypoints file.

`runs.records` keeps what is done. Nothing is kept of an image once its line is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.coco_out import (
    BEGIN,
    Counts,
    as_result,
    read_failures,
    read_run,
    write_result,
)
from geoaware.apps.transfer.crop import Window, crop_window
from geoaware.apps.transfer.find import Finder, check_sees
from geoaware.apps.transfer.masks import hash_masks
from geoaware.apps.transfer.several import View, entry, objects
from geoaware.apps.transfer.smoothing import PEAKS, Smoothed
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.table_out import write_rows
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.apps.transfer.videos import keep_frames
from geoaware.apps.transfer.voters import TransferSettings, Voters
from geoaware.data import formats, object_mask
from geoaware.data.images import Frame, load_framed
from geoaware.data.masks import has_mask
from geoaware.data.names import printable
from geoaware.data.video import Reader
from geoaware.evaluation.predictions import versions
from geoaware.matcher import Matcher
from geoaware.method.types import Box, FeatureMap
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.files import (
    PART,
    as_json,
    check_apart,
    check_goals,
    check_same_run,
    reading_part,
    record_line,
)
from geoaware.runs.places import place
from geoaware.runs.progress import Tell, silent
from geoaware.runs.records import KEPT, Records, Run, complete, is_unchanged, note_made
from geoaware.runs.settings import checked
from geoaware.runs.tables import is_table
from geoaware.runs.work import Batch, Engine, batched

FORMAT = "geoaware transfer"
FORMAT_VERSION = 1

AT_WRITING = frozenset({"threshold", "keep_guesses", "unshown", "smooth"})
"""Settings that are applied when the result is written."""

SHOWN = 20
"""So many failures are quoted; all of them are in the result."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        out: the result.
        found: the same in COCO's format, with what is known of the run.
        targets: how many there were.
        counts: how many of them failed or show nothing, and what the others show.
        reasons: of the first failures, a line each.
    """

    out: Path
    found: Path
    targets: int
    counts: Counts
    reasons: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many targets failed."""
        return self.counts.failed_targets


def transfer(
    sources: Sources,
    targets: Targets,
    matcher: Matcher,
    out: str | os.PathLike[str],
    settings: TransferSettings | None = None,
    *,
    engine: Engine | None = None,
    to: str | None = None,
    smooth: bool = True,
    restart: bool = False,
    progress: Tell = silent,
) -> Outcome:
    """Annotate the targets and write a COCO-keypoints file, or that and another format.

    Args:
        sources: annotated images.
        targets: images or objects to annotate.
        matcher: extractor, post-processor, matching settings and pose setting.
        out: the file to write; beside it ``.part`` holds what is done so far.
        settings: see there.
        engine: what does the work; this process if not given.
        to: format of the result, by its name in `data.formats.FORMATS`; where it is not COCO's, the result is
            made of ``NAME.coco.json`` beside it. By default the suffix of ``out`` and the sources decide.
        smooth: place the keypoints of a video on their likeliest paths through its frames.
        restart: discard what an earlier run left instead of going on.
        progress: told of every source and of every target.

    Raises:
        InputError: files of another run are in the way, or a source image cannot be read. A target that
            cannot be read is counted, and the others are annotated.
    """
    goal = place(out)
    to = formats.choose(to, goal, sources.format)
    if to == "coco":
        check_goals(goal)
    found = goal if to == "coco" else goal.with_name(f"{goal.stem}.coco.json")
    settings = settings or TransferSettings()
    if settings.carry_masks:
        mask_notes(sources, goal, to)
    _check(sources, targets, matcher, settings, {goal, found}, to)
    run = _Transfer(sources, targets, matcher, settings, engine, progress, found, smooth)
    there = to == "coco" or formats.check_goal(to, goal, run.mark, restart, is_unchanged(found, goal))
    if targets.kept:
        keep_frames(targets.shots, targets.folder, progress)
    complete(run, found, engine, restart=restart, tell=progress)
    if not there:
        formats.write(to, goal, as_result(found, targets, run.mark))
        if goal.is_file():
            note_made(found, goal)
    return _outcome(goal, found)


def _check(
    sources: Sources,
    targets: Targets,
    matcher: Matcher,
    settings: TransferSettings,
    goals: set[Path],
    to: str,
) -> None:
    """Find out, before weights are read through, what does not go together.

    Raises:
        InputError: something does not.
    """
    videos = {each.video.path for each in targets.shots.values()}
    inputs = (sources.path, targets.file, targets.detector, *videos)
    check_apart(goals, [each for each in inputs if each is not None])
    if targets.shots and to not in ("coco", "slp") and not targets.kept:
        raise InputError(f"{formats.FORMATS[to].WHAT} names image files; have the frames written", "frames")
    if settings.find is not None:
        check_sees(matcher.extractor)
        if targets.detector is not None:
            raise InputError("objects are either found or given by a detector, not both", "find")
    if targets.shots and (settings.find is not None or targets.detector is not None):
        raise InputError(
            "several objects are not followed through a video; write its frames as images, and give these",
            "find" if targets.detector is None else "detections",
        )


def mask_notes(sources: Sources, out: Path, to: str | None) -> list[str]:
    """What there is to say of masks that are carried into a result, one sentence each; see `transfer`.

    Raises:
        InputError: no source has a mask, or the result can hold none.
    """
    without = sum(not has_mask(each) for each in sources.images)
    if without == len(sources.images):
        text = f"{sources.path}: no source has a mask to carry; draw one, or carry keypoints alone"
        raise InputError(text, "masks")
    if is_table(out):
        raise InputError(f"{out}: Parquet has no column for masks; write .json", "masks")
    notes = [f"{without} of {len(sources.images)} sources have no mask"] if without else []
    if (name := formats.choose(to, out, sources.format)) != "coco":
        notes.append(
            f"{formats.FORMATS[name].WHAT} is written without masks; the COCO file beside it has them"
        )
    return notes


@dataclass
class _Transfer(Run):
    """The result of a transfer; the sources are encoded when there is something to do."""

    sources: Sources
    targets: Targets
    matcher: Matcher
    settings: TransferSettings
    engine: Engine | None
    tell: Tell
    found: Path
    smooth: bool = True
    known: Calibration | None = None

    what, reusable = "annotating", True
    begins, part_begins = BEGIN, f'{{"run":{{"format":"{FORMAT}"'
    depth = 3  # settings.vote.rivals

    def __post_init__(self) -> None:
        targets = self.targets
        super().__init__(self._described(), len(targets), map(targets.key, range(len(targets))))

    @cached_property
    def voters(self) -> Voters:
        return Voters(self.sources, self.matcher, self.settings, self.engine, self.tell)

    def _described(self) -> dict[str, Any]:
        """What tells this run from others, as it comes back from a file; no time and no place."""
        matcher, provenance = self.matcher, self.matcher.extractor.provenance()
        masks = {"masks": hash_masks(self.sources.images)} if self.settings.carry_masks else {}
        # What was not there before is not in results of before.
        unsaid = ("unshown", "absent"), ("find", None), ("carry_masks", False)
        given = asdict(self.settings)
        values = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "category": self.sources.name,
            "sources": {"hash": self.sources.hash(), "count": len(self.sources.images), **masks},
            "targets": {"hash": self.targets.hash(), "count": len(self.targets)},
            "extractor": matcher.identity,
            "settings": {
                **{key: each for key, each in given.items() if (key, each) not in unsaid},
                **matcher.how(),
                "batch": matcher.together(self.settings.batch),
                **provenance.settings,
                **({"peaks": PEAKS, "smooth": self.smooth} if self.targets.shots else {}),
            },
            "versions": versions(),
            "hashes": provenance.hashes,
        }
        return dict(json.loads(json.dumps(values)))

    @property
    def mark(self) -> str:
        """What tells this run from others in short, to stand in a file of another format."""
        return hashlib.sha256(as_json(self.about).encode()).hexdigest()[:16]

    @property
    def job(self) -> _Job:
        assert self.known is not None
        finder = None if self.settings.find is None else Finder(self.voters, self.known)
        return _Job(self.voters, self.targets, self.known, finder)

    def batches(self) -> Sequence[Batch]:
        return batched(len(self), self.matcher.together(self.settings.batch))

    def is_current(self, goal: Path) -> bool:
        found = read_run(goal)
        if found is None:
            raise InputError(
                f"{goal}: exists and was not written by geoaware transfer; choose another file", "out"
            )
        if found["run"] != self.about:
            others = [goal.with_name(goal.name + each) for each in (PART, KEPT)]
            same = _work_of if any(each.exists() for each in others) else dict
            check_same_run(same(found["run"]), same(self.about), goal, self.depth)
        return found["run"] == self.about

    def head(self) -> str:
        self.known = self.voters.calibrate(self.engine, self.tell)
        return record_line(self._head())

    def _head(self) -> dict[str, Any]:
        assert self.known is not None
        return {"run": self.about, "calibration": asdict(self.known)}

    def check_head(self, content: Any, part: Path) -> None:
        check_same_run(_work_of(content["run"]), _work_of(self.about), part, self.depth)
        self.known = Calibration(**checked(Calibration, content["calibration"], "calibration"))

    def place(self, content: Any) -> int:
        """The place of a record's target; every value that the result is made of must be there."""
        fine = "failed" in content or (
            len(content["size"]) == 2
            and min(content["size"]) > 0
            and all(map(self._whole, content.get("objects", [content])))
            and (not self.targets.shots or _are_places(content["peaks"], len(self.sources.schema)))
        )
        if not fine:
            raise ValueError(content)
        if content["target"] not in self.places:
            raise InputError(
                f"{self.found}: is of other targets too; give these too, choose another place, or restart",
                "restart",
            )
        return self.places[content["target"]]

    def _whole(self, found: Any) -> bool:
        """Whether what a record says of an object is all there."""
        points, chances = found["points"], found["probability"]
        numbers = (found["distance"], *chances, *found.get("box", ()), *chain(*filter(None, points)))
        mask = found.get("mask") or {"size": (1, 1), "counts": ""}
        return (
            len(points) == len(chances) == len(self.sources.schema)
            and all(point is None or len(point) == 2 for point in points)
            and all(map(math.isfinite, numbers))
            and isinstance(self.sources.images[found["source"]].id, str)
            and "pose" in found
            and len(mask["size"]) == 2
            and isinstance(mask["counts"], str)
        )

    def write(self, draft: Path, records: Records) -> None:
        records.head = self._head()
        write = write_rows if is_table(draft) else write_result
        smooth = self.smooth and self.targets.shots
        write(draft, Smoothed(records, self.targets) if smooth else records, self.sources, self.targets)


class _Opened(NamedTuple):
    """A target, ready to be encoded: the part of its image in a window, its object's mask there, and box."""

    view: View
    window: Window
    mask: np.ndarray | None
    box: Box | None


@dataclass(frozen=True)
class _Job:
    """The work: what votes, on what, and what the votes are worth."""

    voters: Voters
    targets: Targets
    known: Calibration
    finder: Finder | None = None
    reader: Reader = field(default_factory=Reader)

    @property
    def device(self) -> str:
        return self.voters.matcher.extractor.device.type

    def load(self, batch: Batch) -> list[_Opened | str]:
        return [self._open(self.targets[place]) for place in batch]

    def work(self, batch: Batch, loaded: list[_Opened | str]) -> list[str]:
        several = self.finder is not None or self.targets.detector is not None
        opened = [] if several else [each for each in loaded if isinstance(each, _Opened)]
        matcher = self.voters.matcher
        canvases = [matcher.canvas(each.view.image, known=each.box is not None) for each in opened]
        maps = iter(matcher.features([each.view.image for each in opened], canvases))
        return [
            record_line({"target": self.targets.key(place), **self._record(self.targets[place], each, maps)})
            for place, each in zip(batch, loaded, strict=True)
        ]

    def _open(self, target: Target) -> _Opened | str:
        """The part of the image to encode, or why it cannot be used."""
        settings, masks = self.voters.settings, self.targets.masks
        if printable(target.name) != target.name:
            return "its name is not UTF-8, so cannot stand in the result; rename the file"
        if target.detected is not None and target.detected.failure:
            return target.detected.failure
        try:
            image, frame = self._read(target)
            annotated = target.annotated(frame, masks)
            window = crop_window(annotated.box, image.size, settings.margin, settings.below)
            mask = object_mask(annotated) if settings.masks else None
        except InputError as error:
            # Why, without the place on this machine.
            text = str(error).replace(f"{target.path}: ", "").replace(str(target.path), target.name)
            return text.replace(f"{masks.folder}{os.sep}", "masks/")
        left, top, right, bottom = window
        if mask is not None:
            mask = mask[top:bottom, left:right]
            if not mask.any():
                return "its mask shows nothing inside its box; mend box or mask"
        return _Opened(View(image.crop(window), frame, target.exif), window, mask, annotated.box)

    def _read(self, target: Target) -> tuple[Image.Image, Frame]:
        """The image of a target; that of a frame of a video is decoded where it is no file."""
        if target.shot is None or (self.targets.kept and target.path.exists()):
            return load_framed(target.path)
        video = target.shot.video
        try:
            image = self.reader.read(video, target.shot.number)
        except InputError as error:
            raise InputError(str(error).replace(f"{video.path}: ", "")) from None
        return image, Frame(image.size, 1)

    def _record(self, target: Target, opened: _Opened | str, maps: Iterator[FeatureMap]) -> dict[str, Any]:
        if isinstance(opened, str):
            return {"failed": opened}
        view, window, mask, box = opened
        try:
            if self.finder is not None or target.detected is not None:
                found = objects(view, self.voters, self.known, target.detected, self.finder)
                return {"size": view.size(), "objects": found}
            others, carry = PEAKS if target.shot else 0, mask is None
            vote = self.voters.locate(next(maps), mask, others=others, carry=carry)
        except (InputError, NotFiniteError) as error:
            return {"failed": str(error)}
        return {"size": view.size(), **entry(vote, window, view, self.known, box)}


def _are_places(peaks: Sequence[Any], count: int) -> bool:
    """Whether each of so many keypoints has places with their probabilities."""
    places = chain(*peaks)
    return len(peaks) == count and all(len(each) == 3 and all(map(math.isfinite, each)) for each in places)


def _work_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the work depends on: not what is decided when the result is written, nor how many targets."""
    settings = {key: each for key, each in about["settings"].items() if key not in AT_WRITING}
    return {**{key: each for key, each in about.items() if key != "targets"}, "settings": settings}


def _outcome(goal: Path, found: Path) -> Outcome:
    info = read_run(found) or {}
    with reading_part(str(found)):
        reasons = (f"{each['file_name']}: {each['reason']}" for each in read_failures(found))
        count = info["run"]["targets"]["count"]
        there = [each.name for each in fields(Counts) if each.default == 0 or each.name in info]
        counts = Counts(**{name: int(info[name]) for name in there})
        return Outcome(goal, found, count, counts, tuple(islice(reasons, SHOWN)))
