"""Which images to annotate next: those that a result is unsure of, and that are unlike its sources."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from geoaware.apps.review.edits import confidence
from geoaware.data import fields


class Doubt(NamedTuple):
    """What makes an object worth annotating.

    Attributes:
        confidence: the lower, the more it is worth; ``None``: nobody knows.
        distance: of its features to those of the source that fits best; likewise.
        kind: objects of one kind show about the same.
    """

    confidence: float | None
    distance: float | None
    kind: Hashable = None


def doubt(annotation: Mapping[str, Any]) -> Doubt:
    """Of an annotation as `transfer` writes it; one kind is what fits the same source in the same pose."""
    distance, kind = annotation.get("distance"), (annotation.get("source"), annotation.get("pose"))
    known = fields.are_numbers([distance])
    return Doubt(confidence(annotation), distance if known else None, str(kind))


def suggest(doubts: Sequence[Doubt], count: int = 10) -> list[int]:
    """Positions of the objects to annotate next, the most useful first.

    An object's worth is the share of the others that are more confident, plus the share of those that are
    nearer to a source. It is divided by one more than the number of objects of its kind that are chosen
    already, so that ten of one kind are not chosen.
    """
    confident = sorted(each.confidence for each in doubts if each.confidence is not None)
    near = sorted(each.distance for each in doubts if each.distance is not None)
    worth = []
    for each in doubts:
        surer = 0 if each.confidence is None else len(confident) - bisect_right(confident, each.confidence)
        nearer = 0 if each.distance is None else bisect_left(near, each.distance)
        worth.append(surer / max(len(confident), 1) + nearer / max(len(near), 1))
    chosen, known, left = list[int](), Counter[Hashable](), list(range(len(doubts)))
    while left and len(chosen) < count:
        best = max(left, key=lambda row: (worth[row] / (1 + known[doubts[row].kind]), -row))
        left.remove(best)
        chosen.append(best)
        known[doubts[best].kind] += 1
    return chosen
