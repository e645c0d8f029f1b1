"""The likeliest path of each keypoint through the frames of a video (Viterbi 1967).

Each frame offers several places of a keypoint with their probabilities. A path takes one in every frame. It
costs the negative log-probability of its places, plus a penalty for every move from frame to frame. The path
that costs least is taken. Where the keypoint is hidden, no place is probable, so that the moves decide; after
a jump that the penalty cannot explain, its limit lets the path go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from geoaware.apps.transfer.targets import Target
from geoaware.apps.transfer.videos import Shot
from geoaware.method.types import longer_side
from geoaware.runs.records import Lines

PEAKS = 4
"""So many places of a keypoint are kept beside the likeliest."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Motion:
    """What a path costs.

    Attributes:
        floor: added to every probability: below it, they differ little.
        step: the object's share that a keypoint moves in a frame, as a standard deviation; in several frames
            by the root of their number.
        limit: what a move costs at most.
    """

    floor: float = 0.05
    step: float = 0.03
    limit: float = 3.0


@dataclass(frozen=True)
class Frame:
    """What a frame offers.

    Attributes:
        number: of the frame in its video.
        points: pixels (x, y) by keypoint and place; NaN where there are fewer places, or none.
        chance: their probabilities.
    """

    number: int
    points: Float[np.ndarray, "k n 2"]
    chance: Float[np.ndarray, "k n"]


def likeliest_paths(
    frames: Iterable[Frame], size: float, motion: Motion | None = None
) -> Int[np.ndarray, "t k"]:
    """Which place each keypoint takes in each frame.

    Only the way back is kept of the frames: one byte for each place. A frame without any place of a keypoint
    is passed over; there the result says nothing.

    Args:
        frames: in order, all with the same keypoints and number of places.
        size: of the object, in pixels.
        motion: what a path costs.
    """
    motion, ways = motion or Motion(), list[np.ndarray]()
    cost = places = seen = np.zeros(0)
    for frame in frames:
        here = np.isfinite(frame.points).all(axis=-1)
        own = np.where(here, -np.log(motion.floor + frame.chance), np.inf)
        count = frame.points.shape[1]
        stay = np.broadcast_to(np.arange(count), own.shape)
        if not ways:
            ways, cost, places = [stay.astype(np.uint8)], own, frame.points
            seen = np.full(len(own), float(frame.number))
        else:
            spread = size * motion.step * np.sqrt(np.maximum(frame.number - seen, 1))
            away = np.linalg.norm(frame.points[:, None] - places[:, :, None], axis=-1) / spread[:, None, None]
            ways_in = cost[:, :, None] + np.minimum(np.nan_to_num(away, nan=0.0) ** 2 / 2, motion.limit)
            there, before = np.any(here, axis=1), np.any(np.isfinite(cost), axis=1)
            best = np.where(before[:, None], ways_in.argmin(axis=1), stay)
            came = np.where(before[:, None], ways_in.min(axis=1), 0.0)
            ways.append(np.where(there[:, None], best, stay).astype(np.uint8))
            cost = np.where(there[:, None], came + own, cost)
            places = np.where(there[:, None, None], frame.points, places)
            seen = np.where(there, frame.number, seen)
    if not ways:
        return np.zeros((0, 0), np.int64)
    chosen = [cost.argmin(axis=1)]
    for way in reversed(ways[1:]):
        chosen.append(np.take_along_axis(way, chosen[-1][:, None], axis=1)[:, 0].astype(np.int64))
    return np.stack(chosen[::-1])


class Smoothed:
    """The records of a run, in which keypoints of videos lie on their likeliest paths.

    Nothing else of the records is changed, nor are those of images.
    """

    def __init__(self, records: Lines, targets: Sequence[Target]) -> None:
        self.head, self._records = records.head, records
        places, sizes = dict[str, list[int]](), dict[str, list[float]]()
        for place, shot, record in _of_videos(records, targets):
            places.setdefault(shot.name, []).append(place)
            sizes.setdefault(shot.name, []).append(_extent(record))
        self._chosen: dict[int, Sequence[int]] = {}
        for name, found in groupby(_of_videos(records, targets), lambda each: each[1].name):
            size = float(np.median(sizes[name])) or 1.0
            paths = likeliest_paths((_frame(shot.number, record) for _, shot, record in found), size)
            moved = ((place, path) for place, path in zip(places[name], paths, strict=True) if path.any())
            self._chosen |= {place: path.astype(np.uint8) for place, path in moved}

    def lines(self) -> Iterator[bytes]:
        """The lines of all targets, in their order."""
        for place, line in enumerate(self._records.lines()):
            if place in self._chosen:
                record = json.loads(line)
                for keypoint, choice in enumerate(self._chosen[place]):
                    if choice and record["points"][keypoint] is not None:
                        *point, chance = record["peaks"][keypoint][choice - 1]
                        record["points"][keypoint], record["probability"][keypoint] = point, chance
                line = json.dumps(record).encode() + b"\n"
            yield line


def _of_videos(records: Lines, targets: Sequence[Target]) -> Iterator[tuple[int, Shot, Record]]:
    """Place, frame and record of every target that is of a video and did not fail."""
    for place, (line, target) in enumerate(zip(records.lines(), targets, strict=True)):
        if target.shot is not None and "failed" not in (record := json.loads(line)):
            yield place, target.shot, record


def _extent(record: Record) -> float:
    """Longer side of the box around the keypoints that are likely there, or around all of them."""
    found = list(zip(record["points"], record["probability"], strict=True))
    likely = [point for point, chance in found if point is not None and chance >= 0.5]
    xy = np.array(likely if len(likely) > 1 else [point for point, _ in found if point is not None])
    return longer_side((*xy.min(axis=0), *xy.max(axis=0))) if len(xy) else 0.0


def _frame(number: int, record: Record) -> Frame:
    places = [
        [] if point is None else [[*point, chance], *others]
        for point, chance, others in zip(
            record["points"], record["probability"], record["peaks"], strict=True
        )
    ]
    table = np.full((len(places), 1 + PEAKS, 3), np.nan)
    for row, each in zip(table, places, strict=True):
        row[: len(each)] = np.reshape(each, (-1, 3))
    return Frame(number, table[..., :2], np.nan_to_num(table[..., 2]))
