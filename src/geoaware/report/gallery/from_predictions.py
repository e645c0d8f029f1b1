"""Predictions files to entries: figures from the file, images and source points from the data set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from geoaware.data import coco, load, options
from geoaware.data.dataset import require_files
from geoaware.evaluation.counts import PointTable, correct_points, error_flags
from geoaware.evaluation.predictions import Header, keypoint_names, read, records
from geoaware.evaluation.protocols import get_protocol
from geoaware.method.geometry import POSES
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.method.metrics.pck import distances
from geoaware.method.types import AnnotatedImage
from geoaware.report.gallery.entries import Entry, Match
from geoaware.runs.errors import InputError

_MOVED = 0.5
"""Pixels: a true point further than this from the annotation is of other annotations, not of rounding."""

Images = Mapping[str, AnnotatedImage]
"""The images of a data set by id."""


@dataclass(frozen=True)
class Judged:
    """A predictions file with every prediction judged at one threshold: p pairs, n points.

    Attributes:
        path: the file.
        header: its first line.
        table: its points.
        pairs: pair id, source, target and pose of each pair, in the file's order.
        error: distances from the truth as shares of the threshold base.
        correct: which are correct, as PCK counts them.
        types: error types, columns in the order of `ERROR_TYPES`; ``None`` where the file cannot tell.
    """

    path: Path
    header: Header
    table: PointTable
    pairs: tuple[tuple[str, str, str, str], ...]
    error: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    types: Bool[np.ndarray, "n 5"] | None

    @cached_property
    def row(self) -> dict[str, int]:
        """Position of each pair by its id."""
        return {names[0]: row for row, names in enumerate(self.pairs)}

    @cached_property
    def edges(self) -> Int[np.ndarray, " p1"]:
        """First point of each pair; with one more entry at the end."""
        return np.searchsorted(self.table.pair, np.arange(len(self.pairs) + 1))

    def points(self, row: int) -> slice:
        """The points of a pair."""
        return slice(int(self.edges[row]), int(self.edges[row + 1]))

    def ids(self, row: int) -> list[int]:
        """Annotation ids of a pair's points."""
        return self.table.keypoint[self.points(row)].tolist()

    def worst(self, count: int) -> list[int]:
        """The ``count`` pairs with the largest mean error, in the file's order; the earlier one of equals."""
        points = np.diff(self.edges)
        sums = np.bincount(self.table.pair, weights=self.error, minlength=len(self.pairs))
        mean = np.where(points > 0, sums / np.maximum(points, 1), -math.inf)
        return sorted(np.argsort(-mean, kind="stable")[:count].tolist())


def judge(path: Path, alpha: float = 0.1) -> Judged:
    """Read a predictions file and judge every prediction, by the rules of `geoaware score`.

    Args:
        path: what `geoaware predict` wrote.
        alpha: threshold of correct and of the error types, as a share of the protocol's base.

    Raises:
        InputError: the file cannot be used, or alpha is not a positive number.
    """
    if not 0 < alpha < math.inf:
        raise InputError(f"alpha must be a positive share such as 0.1, got {alpha}")
    header, table = read(path)
    strict = get_protocol(header.protocol).strict
    error = distances(table.predicted, table.truth) / table.size[table.pair]
    correct = correct_points(table, (alpha,), strict)[:, 0]
    return Judged(path, header, table, tuple(_names(path)), error, correct, error_flags(table, alpha, strict))


def _names(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Pair, source, target and pose of each record of a file that `read` has checked."""
    for number, record in enumerate(records(path), start=2):
        pair, source, target, pose = (record.get(key, "") for key in ("pair", "source", "target", "pose"))
        if not all(isinstance(each, str) and each for each in (pair, source, target)) or pose not in POSES:
            raise InputError(
                f"{path}, line {number}: pair, source and target must be names and pose one of "
                f"{', '.join(POSES)}; got {(pair, source, target, pose)}"
            )
        yield pair, source, target, pose


def find_images(name: str, root: Path, split: str, **given: Any) -> dict[str, AnnotatedImage]:
    """Every image of a data set's split by id.

    Args:
        name: of the data set.
        root: its folder.
        split: of it.
        given: options of the loader. Those that only choose the pairs of a COCO file do not matter.

    Raises:
        InputError: as `data.load`.
    """
    if name != coco.NAME:
        return {each.id: each for each in load(name, root, split, **given).images}
    # The loader would draw pairs, and an image in none of them is as good as any.
    known = options(name)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"data set {name} has no option {unknown[0]!r}; its options: {', '.join(known)}")
    taken = ("annotations", "images", "masks", "hidden")
    _, images, _ = coco.open_folder(root, split, **{key: given[key] for key in taken if key in given})
    return {each.id: each for each in images}


def entries(runs: Sequence[Judged], images: Images, chosen: Sequence[int] | None = None) -> Iterator[Entry]:
    """Entries of one predictions file, or of two of the same pairs.

    Everything is checked before the first entry is made.

    Args:
        runs: one or two.
        images: of the data set, by id.
        chosen: positions of the pairs to show, in the first file; all when ``None``.

    Raises:
        InputError: the files are of different pairs, or name images or keypoints that the data set has not,
            or image files are missing.
    """
    if len(runs) not in (1, 2):
        raise InputError(f"{len(runs)} predictions files; give one, or two to compare")
    if len(runs) == 2:
        _check_alike(*runs)
    ids = [each[0] for each in runs[0].pairs]
    wanted = ids if chosen is None else [ids[row] for row in chosen]
    used: dict[str, AnnotatedImage] = {}
    for run, pair in product(runs, wanted):
        if mismatch := _mismatch(run, run.row[pair], images):
            raise InputError(
                f"{run.path}: {mismatch}; give the data set, folder, split and options that were predicted"
            )
        used |= {each: images[each] for each in run.pairs[run.row[pair]][1:3]}
    require_files(list(used.values()))
    return (_entry(runs, images, each) for each in wanted)


def _check_alike(a: Judged, b: Judged) -> None:
    """Make sure that two files are of the same pairs under the same rules."""
    if a.header.protocol != b.header.protocol:
        raise InputError(
            f"{b.path}: is of protocol {b.header.protocol}, {a.path} of {a.header.protocol}; predict one of "
            "them again"
        )
    lacking = sorted({each[:3] for each in a.pairs} ^ {each[:3] for each in b.pairs})
    if lacking:
        raise InputError(
            f"{a.path} and {b.path}: {len(lacking)} pairs are in one only, such as {lacking[0][0]!r}; "
            "give two files of the same pairs"
        )
    for pair, row in a.row.items():
        if a.ids(row) != b.ids(b.row[pair]):
            raise InputError(f"{b.path}: pair {pair!r} has other keypoints than {a.path}; predict again")


def _mismatch(run: Judged, row: int, images: Images) -> str | None:
    """What shows that a pair is of another data set than the images."""
    pair, source, target, _ = run.pairs[row]
    ids = run.ids(row)
    for each in (source, target):
        if each not in images:
            return f"image {each!r} of pair {pair!r} is not among the {len(images)} of the data set"
        lacking = sorted(set(ids) - set(images[each].keypoints.visible_ids))
        if lacking:
            return f"keypoint {lacking[0]} of pair {pair!r} is not annotated in {each!r}"
    annotated = images[target].keypoints.at(ids).numpy()
    if ids and distances(run.table.truth[run.points(row)], annotated).max() > _MOVED:
        return f"the true points of pair {pair!r} are not those of {target!r} in the data set"
    return None


def _entry(runs: Sequence[Judged], images: Images, pair: str) -> Entry:
    first, last = runs[0], runs[-1]
    row = first.row[pair]
    _, source, target, pose = first.pairs[row]
    azimuth = int(first.table.azimuth[row])
    return Entry(
        id=pair,
        category=first.table.names[first.table.category[row]],
        source=images[source].path,
        target=images[target].path,
        matches=_matches(first, row, images),
        azimuth_difference=None if azimuth < 0 else azimuth,
        pose=pose,
        source_name=source,
        target_name=target,
        other=_matches(last, last.row[pair], images) if len(runs) > 1 else None,
        other_pose=last.pairs[last.row[pair]][3],
    )


def _matches(run: Judged, row: int, images: Images) -> tuple[Match, ...]:
    points, ids, table = run.points(row), run.ids(row), run.table
    names = keypoint_names(run.header.schemas).get(table.names[table.category[row]], {})
    places = images[run.pairs[row][1]].keypoints.at(ids).tolist()
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
        for point, each, (x, y) in zip(range(points.start, points.stop), ids, places, strict=True)
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
