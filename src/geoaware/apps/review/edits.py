"""What a correction makes of an annotation: values in, values out.

Places are pixels (x, y) with COCO's flag: 0 absent, 1 hidden, 2 visible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from geoaware.data import fields
from geoaware.data.formats.hub import ABSENT, HIDDEN, VISIBLE, box_around, mean_score
from geoaware.runs.errors import InputError

Point = tuple[float, float, int]
Entry = Mapping[str, Any]


def points_of(annotation: Entry) -> list[Point]:
    """The keypoints of an annotation; absent ones have no place."""
    values = annotation["keypoints"]
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [(x, y, int(flag)) if flag > 0 else (0, 0, ABSENT) for x, y, flag in triples]


def scores_of(annotation: Entry) -> list[float] | None:
    """The probability of each keypoint, if it is known."""
    given = annotation.get("keypoint_scores")
    fits = isinstance(given, list) and 3 * len(given) == len(annotation["keypoints"])
    return given if fits and fields.are_numbers(given) else None


def confidence(annotation: Entry) -> float | None:
    """The mean probability of all keypoints, else the object's score; ``None`` where neither is given."""
    scores = scores_of(annotation)
    if scores:
        return math.fsum(scores) / len(scores)
    score = annotation.get("score")
    return float(str(score)) if fields.are_numbers([score]) else None


def check_points(given: Any, count: int, size: Sequence[int]) -> list[Point]:
    """Places that a page sends; those beyond the image's edge move to it.

    Raises:
        InputError: there are not so many, or one is no place.
    """
    if not isinstance(given, list) or len(given) != count:
        raise InputError(f"there must be {count} keypoints")
    points: list[Point] = []
    for each in given:
        fine = isinstance(each, list) and len(each) == 3 and fields.are_numbers(each)
        if not fine or each[2] not in (ABSENT, HIDDEN, VISIBLE):
            raise InputError("a keypoint is not [x, y, flag]")
        x, y = (min(max(float(value), 0.0), float(most)) for value, most in zip(each, size, strict=False))
        points.append((x, y, int(each[2])) if each[2] else (0.0, 0.0, ABSENT))
    return points


def corrected(given: Entry, points: Sequence[Point], size: Sequence[int]) -> dict[str, Any]:
    """An annotation as it was given, with other keypoints, on an image of this size.

    Keypoints that differ have the probability 1. A box that was made around the keypoints is made again; any
    other is only enlarged where it must be. What did not change stays as it was, to the digit.
    """
    before = points_of(given)
    same = [old == tuple(new) for old, new in zip(before, points, strict=True)]
    if all(same):
        return dict(given)
    own = given["keypoints"]
    values = [
        own[3 * each : 3 * each + 3] if same[each] else [round(x, 2), round(y, 2), flag]
        for each, (x, y, flag) in enumerate(points)
    ]
    made = {**given, "keypoints": [*chain(*values)], "num_keypoints": sum(flag > 0 for *_, flag in points)}
    known = scores_of(given)
    if known:
        scores = [
            score if kept else float(flag > 0)
            for score, kept, (*_, flag) in zip(known, same, points, strict=True)
        ]
        made["keypoint_scores"] = scores
        if "score" in given:
            made["score"] = mean_score(scores, [flag == VISIBLE for *_, flag in points])
    box = given.get("bbox")
    if box:
        made["bbox"] = _box(box, before, points, size)
        if given.get("area") == round(box[2] * box[3], 2):
            made["area"] = round(made["bbox"][2] * made["bbox"][3], 2)
    return made


def _box(
    box: Sequence[float], before: Sequence[Point], points: Sequence[Point], size: Sequence[int]
) -> list[float]:
    """The box of an object whose keypoints have changed."""
    for least in (VISIBLE, HIDDEN):
        old = [each for each in before if each[2] >= least]
        new = [each for each in points if each[2] >= least]
        if old and new and _close(box, box_around([each[:2] for each in old], size)):
            return box_around([each[:2] for each in new], size)
    there = [each for each in points if each[2]]
    if not there:
        return list(box)
    (left, right), (top, bottom) = ((min(axis), max(axis)) for axis in list(zip(*there, strict=True))[:2])
    x1, y1 = min(box[0], left), min(box[1], top)
    x2, y2 = max(box[0] + box[2], right), max(box[1] + box[3], bottom)
    same = _close(box, [x1, y1, x2 - x1, y2 - y1])
    return list(box) if same else [round(each, 2) for each in (x1, y1, x2 - x1, y2 - y1)]


def _close(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(a - b) < 0.02 for a, b in zip(some, others, strict=True))
