"""Keypoints of a video, made steady by what is known of their motion.

*Path* (Viterbi 1967). Each frame offers several places of a keypoint with probabilities, and a path takes
one in every frame. It costs the negative log-probability of its places, plus a penalty for every move from
frame to frame. The path that costs least is taken. The penalty has a limit, so that fast moves stay possible.

*Steadying* (Kalman 1960; Rauch, Tung and Striebel 1965). Along its path a keypoint is expected to keep its
velocity. Each place counts with its probability, so that what is hidden follows the frames before and after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from geoaware.apps.transfer.targets import Target
from geoaware.runs.records import Lines

PEAKS = 4
"""So many places of a keypoint are kept beside the likeliest."""

_UNKNOWN = 1e4
"""Variance of what nothing is known of."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Motion:
    """How keypoints move; lengths are shares of the object's longer side.

    Attributes:
        floor: added to every probability: below it, they differ little.
        step: what a keypoint moves in a frame, as a standard deviation; in several frames by the root of
            their number.
        limit: what a move costs a path at most.
        change: what the velocity changes in a frame, likewise.
        noise: standard deviation of a place of probability 1.
    """

    floor: float = 0.05
    step: float = 0.04
    limit: float = 0.5
    change: float = 0.012
    noise: float = 0.015


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


def steadied(
    numbers: Sequence[int],
    points: Float[np.ndarray, "t k 2"],
    chance: Float[np.ndarray, "t k"],
    size: float,
    motion: Motion | None = None,
) -> Float[np.ndarray, "t k 2"]:
    """The points where keypoints of nearly constant velocity most likely are.

    Args:
        numbers: of the frames, rising.
        points: pixels (x, y) by frame and keypoint; where they are NaN, so is the result.
        chance: their probabilities.
        size: of the object, in pixels.
        motion: what is expected.
    """
    motion = motion or Motion()
    there = np.isfinite(points).all(axis=-1)
    seen = np.where(there[..., None], points / size, 0.0)
    noise = np.where(there, motion.noise**2 / np.clip(chance, motion.floor, 1.0), np.inf)
    steps = np.diff(np.asarray(numbers, dtype=np.float64))
    keypoints = points.shape[1]
    # Position and velocity (k, 2, 2), and their covariance (k, 2, 2), which x and y share.
    state, spread = np.zeros((keypoints, 2, 2)), np.tile(_UNKNOWN * np.eye(2), (keypoints, 1, 1))
    states, spreads = list[np.ndarray](), list[np.ndarray]()
    for row in range(len(points)):
        if row:
            state, spread = _expected(state, spread, steps[row - 1], motion)
        gain = spread[:, :, 0] / (spread[:, 0, 0] + noise[row])[:, None]
        missed = np.where(there[row][:, None], seen[row] - state[:, 0], 0.0)
        state = state + gain[:, :, None] * missed[:, None, :]
        spread = spread - gain[:, :, None] * spread[:, 0, None, :]
        states.append(state)
        spreads.append(spread)
    found = np.full(points.shape, np.nan)
    for row in range(len(points) - 1, -1, -1):
        if row + 1 < len(points):
            ahead, wide = _expected(states[row], spreads[row], steps[row], motion)
            back = np.linalg.solve(wide, _ahead(steps[row]) @ spreads[row]).swapaxes(1, 2)
            state = states[row] + back @ (state - ahead)
        found[row] = np.where(there[row][:, None], state[:, 0] * size, np.nan)
    return found


def _ahead(step: float) -> Float[np.ndarray, "2 2"]:
    """What some frames make of position and velocity."""
    return np.array([[1.0, step], [0.0, 1.0]])


def _expected(
    state: Float[np.ndarray, "k 2 2"], spread: Float[np.ndarray, "k 2 2"], step: float, motion: Motion
) -> tuple[Float[np.ndarray, "k 2 2"], Float[np.ndarray, "k 2 2"]]:
    """Position and velocity some frames later, and their covariance."""
    ahead = _ahead(step)
    added = motion.change**2 * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
    return ahead @ state, ahead @ spread @ ahead.T + added


class Smoothed:
    """The records of a run, with the keypoints of videos made steady; those of images stay as they are."""

    def __init__(self, records: Lines, targets: Sequence[Target]) -> None:
        self.head, self._records, self._targets = records.head, records, targets
        places, sizes = dict[str, list[int]](), dict[str, list[float]]()
        for name, place, _, record in self._of_videos():
            places.setdefault(name, []).append(place)
            sizes.setdefault(name, []).append(_extent(record))
        size = {name: float(np.median(each)) or 1.0 for name, each in sizes.items()}
        paths = {name: likeliest_paths(frames, size[name]) for name, frames in self._frames()}
        self._found: dict[int, np.ndarray] = {}
        for name, frames in self._frames():
            numbers, chosen = list[int](), list[np.ndarray]()
            for frame, path in zip(frames, paths[name], strict=True):
                numbers.append(frame.number)
                table = np.concatenate([frame.points, frame.chance[..., None]], axis=-1)
                chosen.append(np.take_along_axis(table, path[:, None, None], axis=1)[:, 0])
            found = np.stack(chosen)
            found[..., :2] = steadied(numbers, found[..., :2], found[..., 2], size[name])
            self._found |= zip(places[name], found, strict=True)

    def lines(self) -> Iterator[bytes]:
        """The lines of all targets, in their order."""
        for place, line in enumerate(self._records.lines()):
            if place in self._found:
                record, found = json.loads(line), self._found[place]
                inside = np.clip(found[:, :2], 0, np.array(record["size"]) - 1).round(2).tolist()
                there = [point is not None for point in record["points"]]
                record["points"] = [xy if each else None for xy, each in zip(inside, there, strict=True)]
                record["probability"] = np.where(there, found[:, 2], 0.0).round(4).tolist()
                line = json.dumps(record).encode() + b"\n"
            yield line

    def _of_videos(self) -> Iterator[tuple[str, int, int, Record]]:
        """Video, place and number of every frame that did not fail, and its record."""
        for place, (line, target) in enumerate(zip(self._records.lines(), self._targets, strict=True)):
            if target.shot is not None and "failed" not in (record := json.loads(line)):
                yield target.shot.name, place, target.shot.number, record

    def _frames(self) -> Iterator[tuple[str, Iterator[Frame]]]:
        """The videos, and the frames of each."""
        for name, group in groupby(self._of_videos(), itemgetter(0)):
            yield name, (_frame(number, record) for _, _, number, record in group)


def _extent(record: Record) -> float:
    """Longer side of the box around the keypoints that are likely there, or around all of them."""
    found = list(zip(record["points"], record["probability"], strict=True))
    likely = [point for point, chance in found if point is not None and chance >= 0.5]
    xy = np.array(likely if len(likely) > 1 else [point for point, _ in found if point is not None])
    return float(np.ptp(xy, axis=0).max()) if len(xy) else 0.0


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
