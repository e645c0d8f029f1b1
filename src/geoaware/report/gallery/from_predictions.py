"""Predictions files to entries: figures from the file, images and source points from the data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from geoaware.data import checked, coco, load
from geoaware.data.dataset import require_files
from geoaware.data.names import Names
from geoaware.evaluation.counts import PointTable, correct_points, error_flags
from geoaware.evaluation.predictions import Header, keypoint_names, read, records
from geoaware.evaluation.protocols import check_alphas
from geoaware.method.geometry import POSES
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.method.metrics.pck import distances
from geoaware.method.types import AnnotatedImage
from geoaware.report.gallery.entries import Entry, Match
from geoaware.runs.errors import InputError

_log = logging.getLogger(__name__)

_MOVED = 0.5
"""Pixels: a true point further than this from the annotation is of other annotations, not of rounding."""

Images = Mapping[str, AnnotatedImage]
"""The images of a data set by id."""


class Place(NamedTuple):
    """A pair of a predictions file: its names, its row, and its points in the file's table."""

    pair: str
    source: str
    target: str
    pose: str
    row: int
    points: slice
    ids: list[int]


@dataclass(frozen=True)
class Judged:
    """A predictions file with every prediction judged at one threshold: n points.

    Attributes:
        pairs: the file's pairs by id, in its order.
        error: distances from the truth as shares of the threshold base.
        types: error types, columns in the order of `ERROR_TYPES`; ``None`` where the file cannot tell.
    """

    path: Path
    header: Header
    table: PointTable
    pairs: Mapping[str, Place]
    error: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    types: Bool[np.ndarray, "n 5"] | None

    def worst(self, count: int) -> list[int]:
        """The ``count`` pairs with the largest mean error, in the file's order; the earlier one of equals."""
        of, pairs = self.table.pair, len(self.pairs)
        points, sums = np.bincount(of, minlength=pairs), np.bincount(of, self.error, pairs)
        mean = np.where(points > 0, sums / np.maximum(points, 1), -math.inf)
        return sorted(np.argsort(-mean, kind="stable")[:count].tolist())


def judge(path: Path, alpha: float = 0.1) -> Judged:
    """Read a predictions file and judge every prediction, by the rules of `geoaware score`.

    ``alpha`` is the threshold of correct and of the error types, as a share of the protocol's base.
    """
    check_alphas([alpha])
    header, table = read(path)
    edges = np.searchsorted(table.pair, np.arange(len(table.category) + 1)).tolist()
    pairs = {}
    for row, record in enumerate(records(path)):
        pair, source, target, pose = (record.get(key, "") for key in ("pair", "source", "target", "pose"))
        if not all(isinstance(each, str) and each for each in (pair, source, target)) or pose not in POSES:
            raise InputError(
                f"{path}, line {row + 2}: pair, source and target must be names and pose one of "
                f"{', '.join(POSES)}; got {(pair, source, target, pose)}"
            )
        points = slice(edges[row], edges[row + 1])
        pairs[pair] = Place(pair, source, target, pose, row, points, table.keypoint[points].tolist())
    strict = header.rules.strict
    error = distances(table.predicted, table.truth) / table.size[table.pair]
    correct = correct_points(table, (alpha,), strict)[:, 0]
    return Judged(path, header, table, pairs, error, correct, error_flags(table, alpha, strict))


def describe(runs: Sequence[Judged], data: str, alpha: float, shown: int) -> dict[str, str]:
    """What a gallery of one or two predictions files of a data set shows, and how it was judged."""
    first = runs[0]
    protocol = first.header.rules
    about = {
        "data": f"{data}, {shown:,} of {len(first.pairs):,} pairs",
        "protocol": protocol.name,
        "correct": protocol.rule.replace("alpha", f"{alpha:g}"),
        "error": "distance from the true point as a share of the threshold base, which is the "
        + protocol.rule.partition(" x ")[2],
        "error types": "counted as `geoaware score` counts them. A match can have several: a jitter is also "
        "a miss or a swap, and a correct match can lie nearer to another keypoint. A match is drawn as "
        "correct, or else as the first of these that it is: swap left-right, swap, jitter, miss",
    }
    for letter, run in zip("AB" if len(runs) > 1 else [""], runs, strict=True):
        about[f"{letter} predictions".strip()] = run.path.name
        about[f"{letter} features".strip()] = run.header.extractor or "not said"
        if pose := run.header.settings.get("pose"):
            about[f"{letter} pose alignment".strip()] = str(pose)
    return about


def find_images(name: str, root: Path, split: str, **given: Any) -> dict[str, AnnotatedImage]:
    """Every image of a data set's split by id, from what `data.load` is given.

    Options that only choose the pairs of a COCO file do not matter.
    """
    if name != coco.NAME:
        return {each.id: each for each in load(name, root, split, **given).images}
    # The loader would draw pairs, and an image in none of them is as good as any.
    taken = {"annotations", "images", "masks", "hidden", "exif"}
    wanted = {key: value for key, value in checked(name, given).items() if key in taken}
    _, images, _ = coco.open_folder(root, split, **wanted)
    return {each.id: each for each in images}


def entries(runs: Sequence[Judged], images: Images, chosen: Sequence[int] | None = None) -> Iterator[Entry]:
    """Entries of one predictions file, or of two of the same pairs; all is checked before the first is made.

    Args:
        runs: one or two.
        images: of the data set, by id.
        chosen: positions of the pairs to show, in the first file; all when ``None``.

    Raises:
        InputError: the files are of different pairs or of another data set, or image files are missing.
    """
    if len(runs) not in (1, 2):
        raise InputError(f"{len(runs)} predictions files; give one, or two to compare")
    if len(runs) == 2:
        _check_alike(*runs)
    names = list(runs[0].pairs)
    wanted = names if chosen is None else [names[row] for row in chosen]
    there = _meant(runs, wanted, images)
    for run, name in product(runs, wanted):
        if mismatch := _mismatch(run, run.pairs[name], there):
            raise InputError(
                f"{run.path}: {mismatch}; give the data set, folder, split and options that were predicted"
            )
    require_files(list(there.values()))
    return (_entry(runs, there, each) for each in wanted)


def _meant(runs: Sequence[Judged], wanted: Sequence[str], images: Images) -> Images:
    """The images of the pairs, by the ids that the files give them: they may be spelled in another way."""
    known, there = Names(images, str(runs[0].path)), dict[str, AnnotatedImage]()
    for run, name in product(runs, wanted):
        for each in (run.pairs[name].source, run.pairs[name].target):
            if (found := known.find(each)) is not None:
                there[each] = images[found]
    for note in known.notes():
        _log.info("%s: %s", runs[0].path, note)
    return there


def _check_alike(a: Judged, b: Judged) -> None:
    """Make sure that two files are of the same pairs under the same rules."""
    if a.header.rules != b.header.rules:
        raise InputError(
            f"{b.path}: is of protocol {b.header.protocol}, {a.path} of {a.header.protocol}; predict one of "
            "them again"
        )
    lacking = sorted({each[:3] for each in a.pairs.values()} ^ {each[:3] for each in b.pairs.values()})
    if lacking:
        raise InputError(
            f"{a.path} and {b.path}: {len(lacking)} pairs are in one only, such as {lacking[0][0]!r}; "
            "give two files of the same pairs"
        )
    for pair, place in a.pairs.items():
        if place.ids != b.pairs[pair].ids:
            raise InputError(f"{b.path}: pair {pair!r} has other keypoints than {a.path}; predict again")


def _mismatch(run: Judged, place: Place, images: Images) -> str | None:
    """What shows that a pair is of another data set than the images."""
    for each in (place.source, place.target):
        if each not in images:
            return f"image {each!r} of pair {place.pair!r} is not one of the data set"
        lacking = sorted(set(place.ids) - set(images[each].keypoints.visible_ids))
        if lacking:
            return f"keypoint {lacking[0]} of pair {place.pair!r} is not annotated in {each!r}"
    annotated = images[place.target].keypoints.at(place.ids).numpy()
    if place.ids and distances(run.table.truth[place.points], annotated).max() > _MOVED:
        return f"the true points of pair {place.pair!r} are not those of {place.target!r} in the data set"
    return None


def _entry(runs: Sequence[Judged], images: Images, name: str) -> Entry:
    table, place = runs[0].table, runs[0].pairs[name]
    matches, *other = (_matches(run, run.pairs[name], images) for run in runs)
    azimuth = int(table.azimuth[place.row])
    return Entry(
        id=name,
        category=table.names[table.category[place.row]],
        source=images[place.source].path,
        target=images[place.target].path,
        matches=matches,
        azimuth_difference=None if azimuth < 0 else azimuth,
        pose=place.pose,
        source_name=place.source,
        target_name=place.target,
        other=other[0] if other else None,
        other_pose=runs[-1].pairs[name].pose,
    )


def _matches(run: Judged, place: Place, images: Images) -> tuple[Match, ...]:
    table, first = run.table, place.points.start
    names = keypoint_names(run.header.schemas).get(table.names[table.category[place.row]], {})
    there = images[place.source].keypoints.at(place.ids).tolist()
    return tuple(
        Match(
            name=names.get(each) or f"keypoint {each}",
            keypoint=each,
            source=(x, y),
            predicted=tuple(table.predicted[point].tolist()),
            truth=tuple(table.truth[point].tolist()),
            error=float(run.error[point]),
            geometry_aware=bool(table.geometry_aware[point]),
            **_kind(bool(run.correct[point]), None if run.types is None else run.types[point]),
        )
        for point, (each, (x, y)) in enumerate(zip(place.ids, there, strict=True), start=first)
    )


def _kind(correct: bool, types: np.ndarray | None) -> dict[str, Any]:
    """What a match is drawn as, and all that it is.

    PCK decides between right and wrong. A wrong one within reach of another keypoint is a swap; else it is a
    jitter if it is within twice the threshold, else a plain miss.
    """
    if types is None:
        return {"kind": "correct" if correct else "wrong"}
    holds = [each for each in compress(ERROR_TYPES, types.tolist()) if each != "pck_dagger"]
    if correct:
        return {"kind": "correct", "types": ("correct", *holds) if holds else ()}
    kind = next(each for each in ("swap_lr", "swap", "jitter", "miss") if each in holds)
    return {"kind": kind, "types": tuple(holds) if holds != [kind] else ()}
