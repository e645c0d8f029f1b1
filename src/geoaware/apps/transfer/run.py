"""Carry keypoints from annotated images over to a collection, image by image, into a COCO-keypoints file.

As in `evaluation.predict`, finished targets are appended to ``OUT.part`` in order, a whole line at a time. A
killed run goes on where it stopped, and writes the same bytes as one that was not killed. Nothing is kept of
an image once its line is written.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.coco_out import (
    BEGIN,
    as_json,
    read_failures,
    read_records,
    read_run,
    write_result,
)
from geoaware.apps.transfer.crop import Window, crop_window
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.apps.transfer.voters import TransferSettings, Voters
from geoaware.data import object_mask
from geoaware.data.exif import INVERSE, turned_points, turned_size
from geoaware.data.images import Frame, load_framed
from geoaware.data.names import printable
from geoaware.evaluation.predictions import PART, versions
from geoaware.matcher import Matcher
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.files import (
    append_line,
    check_apart,
    check_own,
    check_same_run,
    discard,
    open_part,
    reading_part,
    whole_lines,
)
from geoaware.runs.progress import Tell, silent
from geoaware.runs.settings import checked
from geoaware.store.extraction import Shard

FORMAT = "geoaware transfer"
FORMAT_VERSION = 1

_DEPTH = 3
"""Levels that a message on differing runs looks into: ``settings.vote.rivals``."""

SHOWN = 20
"""So many failures are quoted; all of them are in the result."""


@dataclass(frozen=True)
class Outcome:
    """How a run, or a process's share of it, ended.

    Attributes:
        out: the result; ``None`` where other processes' shares are missing still.
        targets: how many there were.
        failed: how many of them failed.
        reasons: of the first failures, a line each.
    """

    out: Path | None
    targets: int
    failed: int
    reasons: tuple[str, ...]


def transfer(
    sources: Sources,
    targets: Targets,
    matcher: Matcher,
    out: str | os.PathLike[str],
    settings: TransferSettings | None = None,
    *,
    shard: Shard | None = None,
    restart: bool = False,
    progress: Tell = silent,
) -> Outcome:
    """Annotate the targets and write a COCO-keypoints file.

    Args:
        sources: annotated images.
        targets: images or objects to annotate.
        matcher: extractor, post-processor, matching settings and pose setting.
        out: the file to write; beside it ``.part`` holds what is done so far.
        settings: see there.
        shard: this process's share, where several work on one result; `merge` puts theirs together.
        restart: discard what an earlier run left instead of going on.
        progress: told of every source and of every target.

    Raises:
        InputError: files of another run are in the way, or a source image cannot be read. A target that
            cannot be read is counted, and the others are annotated.
    """
    goal, share = Path(out), shard or Shard()
    work = _Work(sources, targets, matcher, settings or TransferSettings(), share)
    run = work.run()
    part = part_path(goal, share)
    earlier = _check_goal(goal, sources, targets)
    check_own(part, f'{{"run":{{"format":"{FORMAT}"')
    if earlier is not None and not restart:
        check_same_run(earlier["run"], run, goal, _DEPTH)
        part.unlink(missing_ok=True)
        return _outcome(goal)
    _check_shards(goal, share)
    file = open_part(part, restart)
    try:
        with file:
            if restart and share.world == 1:
                discard(goal)
            known, done = _resume(file, part, work, run)
            if known is None or done < len(work.numbers):
                voters = Voters(sources, matcher, work.settings, progress)
                if known is None:
                    known = voters.calibrate(progress)
                    append_line(file, as_json({"run": run, "calibration": asdict(known)}) + "\n")
                _annotate(work, voters, known, file, done, progress)
            if share.world > 1:
                return Outcome(None, len(work.numbers), *_failures(part, work))
            _write(goal, [part], sources, targets)
    except BaseException:
        if not part.stat().st_size:
            part.unlink()
        raise
    part.unlink()
    return _outcome(goal)


def merge(sources: Sources, targets: Targets, out: str | os.PathLike[str]) -> Outcome:
    """Put the shares of several processes together, when all of them are done.

    Raises:
        InputError: there are none, one is missing or not finished, or they are not of this run.
    """
    goal = Path(out)
    _check_goal(goal, sources, targets)
    parts = sorted(goal.parent.glob(f"{escape(goal.name)}{PART}-*-of-*"))
    if not parts:
        raise InputError(f"{goal}{PART}-0-of-N: no such file; nothing is there to be merged")
    world = _world(parts[0])
    wanted = [part_path(goal, Shard(rank, world)) for rank in range(world)]
    wrong = [each for each in parts if each not in wanted] or [each for each in wanted if each not in parts]
    if wrong:
        raise InputError(
            f"{wrong[0]}: {'is of another number of processes' if wrong[0].exists() else 'is missing'}; "
            f"run all {world} processes first"
        )
    first = _head(wanted[0])["run"]
    about = {"hash": sources.hash(), "count": len(sources.images)}
    if first["sources"] != about or first["targets"] != {"hash": targets.hash(), "count": len(targets)}:
        raise InputError(f"{wanted[0]}: is of other sources or targets; give those of the run")
    for rank, path in enumerate(wanted):
        if _head(path)["run"] != first:
            raise InputError(
                f"{path}: is of another run than {wanted[0].name}; restart it", parameter="restart"
            )
        numbers = range(rank, len(targets), world)
        with path.open("rb") as file:
            lines = [line for line in islice(file, 1, None) if line.endswith(b"\n")]
        for row, (place, line) in enumerate(zip(numbers, lines, strict=False), start=2):
            _check_record(line, f"{path}, line {row}", place, sources)
        if len(lines) != len(numbers):
            raise InputError(f"{path}: is not finished; run process {rank} of {world} again")
    _write(goal, wanted, sources, targets)
    for each in wanted:
        each.unlink()
    return _outcome(goal)


def part_path(goal: Path, shard: Shard) -> Path:
    """Where a process puts what it has done."""
    suffix = PART if shard.world == 1 else f"{PART}-{shard.rank}-of-{shard.world}"
    return goal.with_name(goal.name + suffix)


@dataclass(frozen=True)
class _Work:
    """Everything that decides the result."""

    sources: Sources
    targets: Targets
    matcher: Matcher
    settings: TransferSettings
    shard: Shard

    @property
    def batch(self) -> int:
        return self.settings.batch or (1 if self.matcher.extractor.device.type == "cpu" else 8)

    @property
    def numbers(self) -> range:
        """Places of this process's targets."""
        return range(self.shard.rank, len(self.targets), self.shard.world)

    def run(self) -> dict[str, Any]:
        """What tells this run from others, as it comes back from a file; no time and no place."""
        matcher, provenance = self.matcher, self.matcher.extractor.provenance()
        values = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "category": self.sources.name,
            "sources": {"hash": self.sources.hash(), "count": len(self.sources.images)},
            "targets": {"hash": self.targets.hash(), "count": len(self.targets)},
            "extractor": matcher.identity,
            "settings": {
                **asdict(self.settings),
                "matching": asdict(matcher.settings),
                "pose": matcher.pose,
                "pose_rule": asdict(matcher.pose_rule),
                "batch": self.batch,
                **provenance.settings,
            },
            "versions": versions(),
            "hashes": provenance.hashes,
        }
        return dict(json.loads(json.dumps(values)))


class _Opened(NamedTuple):
    """A target, ready to be encoded: the part of the image in a window, and its object's mask there."""

    image: Image.Image
    frame: Frame
    window: Window
    mask: np.ndarray | None


def _annotate(
    work: _Work, voters: Voters, known: Calibration, file: BinaryIO, done: int, progress: Tell
) -> None:
    """Append the records that are missing; batches are the same whether or not the run was interrupted."""
    numbers = work.numbers
    for start in range(done - done % work.batch, len(numbers), work.batch):
        group = [work.targets[number] for number in numbers[start : start + work.batch]]
        opened = [_open(each, work) for each in group]
        maps = iter(work.matcher.features([each.image for each in opened if isinstance(each, _Opened)]))
        for place, (target, each) in enumerate(zip(group, opened, strict=True), start=start):
            features = next(maps) if isinstance(each, _Opened) else None
            if place < done:
                continue
            append_line(file, as_json(_record(target, each, features, voters, known)) + "\n")
            progress("annotating", place + 1, len(numbers))


def _open(target: Target, work: _Work) -> _Opened | str:
    """The part of the image to encode, or why it cannot be used."""
    settings = work.settings
    if printable(target.name) != target.name:
        return "its name is not UTF-8, so cannot stand in the result; rename the file"
    try:
        image, frame = load_framed(target.path)
        annotated = target.annotated(frame, work.targets.masks)
        window = crop_window(annotated.box, image.size, settings.margin, settings.below)
        mask = object_mask(annotated) if settings.masks else None
    except InputError as error:
        # Why, without the place on this machine.
        text = str(error).replace(f"{target.path}: ", "").replace(str(target.path), target.name)
        return text.replace(f"{work.targets.masks.folder}{os.sep}", "masks/")
    left, top, right, bottom = window
    if mask is not None:
        mask = mask[top:bottom, left:right]
        if not mask.any():
            return "its mask shows nothing inside its box; mend box or mask"
    return _Opened(image.crop(window), frame, window, mask)


def _record(
    target: Target, opened: _Opened | str, features: FeatureMap | None, voters: Voters, worth: Calibration
) -> dict[str, Any]:
    if isinstance(opened, str) or features is None:
        return {"n": target.number, "failed": opened}
    try:
        found = voters.locate(features, opened.mask)
    except NotFiniteError as error:
        return {"n": target.number, "failed": str(error)}
    chances = worth.probability(found.evidence)
    places = found.points + torch.tensor(opened.window[:2])
    size, turn = opened.frame.size, INVERSE[opened.frame.orientation]
    if target.exif == "stored":
        places, size = turned_points(places, size, turn), turned_size(size, turn)
    known = found.known.tolist()
    rows = [(x, y, chance) for (x, y), chance in zip(places.tolist(), chances.tolist(), strict=True)]
    seen = list(zip(rows, known, strict=True))
    return {
        "n": target.number,
        "size": list(size),
        "points": [[round(x, 2), round(y, 2)] if there else None for (x, y, _), there in seen],
        "probability": [round(chance, 4) if there else 0.0 for (*_, chance), there in seen],
        "source": found.source,
        "pose": found.pose,
        "distance": round(found.distance, 4),
    }


def _check_goal(goal: Path, sources: Sources, targets: Targets) -> dict[str, Any] | None:
    """What an earlier result says of itself; ``None`` if there is none. Nothing else is overwritten."""
    check_apart([goal], [each for each in (sources.path, targets.file) if each is not None])
    check_own(goal, BEGIN)
    if not goal.exists():
        return None
    found = read_run(goal)
    if found is None:
        raise InputError(
            f"{goal}: exists and was not written by geoaware transfer; choose another file", parameter="out"
        )
    return found


def _check_shards(goal: Path, share: Shard) -> None:
    """Refuse to begin beside part files of another number of processes, which would never be finished."""
    parts = sorted(goal.parent.glob(f"{escape(goal.name)}{PART}*"))
    other = next((each for each in parts if _world(each) != share.world), None)
    if other is not None:
        raise InputError(
            f"{other}: was begun by {_world(other)} process(es), this run has {share.world}; go on "
            "as it was begun, merge finished shares, or remove these files"
        )


def _resume(
    file: BinaryIO, part: Path, work: _Work, run: Mapping[str, Any]
) -> tuple[Calibration | None, int]:
    """What an earlier run left: its calibration, and how many records are whole."""
    known, number = None, 0
    for number, line in whole_lines(file):
        if number > 1:
            place = work.numbers[number - 2] if number - 2 < len(work.numbers) else -1
            _check_record(line, f"{part}, line {number}", place, work.sources)
            continue
        head = _head(part)
        check_same_run(head["run"], run, part, _DEPTH)
        with reading_part(f"{part}, line 1"):
            known = Calibration(**checked(Calibration, head["calibration"], "calibration"))
    return known, max(number - 1, 0)


def _check_record(line: bytes, where: str, place: int, sources: Sources) -> None:
    """Make sure that a line of a part file is the record of the target at a place."""
    with reading_part(where):
        record = json.loads(line)
        fine = record["n"] == place + 1
        if "failed" not in record:
            count, (width, height) = len(sources.schema), record["size"]
            points, chances = record["points"], record["probability"]
            fine &= len(points) == len(chances) == count and min(width, height) > 0
            fine &= all(point is None or len(point) == 2 for point in points)
            fine &= all(map(math.isfinite, chain(chances, *filter(None, points))))
            fine &= isinstance(sources.images[record["source"]].id, str) and "pose" in record
        if not fine:
            raise ValueError(record)


def _head(part: Path) -> dict[str, Any]:
    """First line of a part file."""
    try:
        with part.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
        if head["run"]["format"] != FORMAT or not isinstance(head["calibration"], dict):
            raise ValueError(head["run"]["format"])
        return dict(head)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{part}: is no part of a transfer; remove it, or choose another file", parameter="out"
        ) from None


def _write(goal: Path, parts: Sequence[Path], sources: Sources, targets: Targets) -> None:
    head = _head(parts[0])
    write_result(goal, parts, sources, targets, head["run"], head["calibration"])


def _outcome(goal: Path) -> Outcome:
    info = read_run(goal) or {}
    with reading_part(str(goal)):
        reasons = (f"{each['file_name']}: {each['reason']}" for each in read_failures(goal))
        count = info["run"]["targets"]["count"]
        return Outcome(goal, count, info["failed_targets"], tuple(islice(reasons, SHOWN)))


def _failures(part: Path, work: _Work) -> tuple[int, tuple[str, ...]]:
    """How many of a share's targets failed, and the first reasons."""
    failed = (each for each in read_records([part]) if "failed" in each)
    reasons = (f"{printable(work.targets[each['n'] - 1].name)}: {each['failed']}" for each in failed)
    shown = tuple(islice(reasons, SHOWN))
    return len(shown) + sum(1 for _ in reasons), shown


def _world(part: Path) -> int:
    """Of how many processes a part file is."""
    number = part.name.rpartition("-of-")[2]
    return int(number) if number.isdecimal() else 1
