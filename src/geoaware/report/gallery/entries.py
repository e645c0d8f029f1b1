"""What a gallery shows: pairs of images, and the matches between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geoaware.runs.errors import InputError

Point = tuple[float, float]

KINDS: Mapping[str, str] = {
    "correct": "within the threshold of the true point",
    "jitter": "wrong, but within twice the threshold",
    "miss": "wrong, and near no keypoint",
    "swap": "wrong, and on another keypoint",
    "swap_lr": "wrong, and on the left-right partner",
    "wrong": "wrong; the file does not say in which way",
    "unjudged": "nothing to compare with",
}
"""Every kind of match, in the order of the legend, with what it says there."""


@dataclass(frozen=True)
class Match:
    """One point of the source and where it was found; pixels (x, y) of the full images.

    Attributes:
        name: of the keypoint.
        keypoint: its annotation id.
        source: where it is in the source image, or ``None``.
        predicted: where it was found in the target image, or ``None``.
        truth: where it is, if that is known.
        kind: one of `KINDS`; decides colour and marker.
        error: distance from the truth as a share of the threshold base.
        confidence: 0 to 1, if the matcher gave one.
        geometry_aware: whether only geometry tells it from other keypoints.
        visible: whether it is taken to be seen in the target; drawn hollow if not.
        types: all error types that hold, where they are more than the kind (a jitter is mostly a miss too).
    """

    name: str
    keypoint: int
    source: Point | None
    predicted: Point | None
    truth: Point | None = None
    kind: str = "unjudged"
    error: float | None = None
    confidence: float | None = None
    geometry_aware: bool = False
    visible: bool = True
    types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [each for each in (self.kind, *self.types) if each not in KINDS]
        if unknown:
            raise InputError(f"keypoint {self.name}: no kind {unknown[0]!r}; known: {', '.join(KINDS)}")
        places = (each for point in (self.source, self.predicted, self.truth) for each in point or ())
        if not all(each is None or math.isfinite(each) for each in (self.error, self.confidence, *places)):
            raise InputError(f"keypoint {self.name}: a number is not finite; put None where there is none")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the page; what is usual is left out. Points to 0.01 pixels, errors to 0.0001."""
        points = {"source": self.source, "found": self.predicted, "truth": self.truth}
        numbers = {"error": self.error, "confidence": self.confidence}
        rest = {"aware": self.geometry_aware, "hidden": not self.visible, "types": list(self.types)}
        return {
            "name": self.name,
            "kind": self.kind,
            **{key: [round(float(each), 2) for each in xy] for key, xy in points.items() if xy is not None},
            **{key: round(float(value), 4) for key, value in numbers.items() if value is not None},
            **{key: value for key, value in rest.items() if value},
        }


@dataclass(frozen=True)
class Entry:
    """A pair of images with its matches.

    Attributes:
        id: of the pair; ids of a gallery differ.
        category: under which it is found.
        source: the image that the points come from, or ``None`` where only the target is to be seen.
        target: the image that they were found in.
        matches: one for each point.
        azimuth_difference: 0 … 4 steps of 45 degrees, or ``None``.
        pose: how the source was turned before matching; it is shown as it is.
        note: a sentence shown with the pair.
        source_name: what to call the source; its file's name if empty.
        target_name: what to call the target.
        other: what a second method found for the same points, to be compared; ``None``: there is none.
        other_pose: the pose that the second method chose.
        mask: of the target (h, w); what is outside is shown paler.
    """

    id: str
    category: str
    source: Path | None
    target: Path
    matches: tuple[Match, ...]
    azimuth_difference: int | None = None
    pose: str = "identity"
    note: str = ""
    source_name: str = ""
    target_name: str = ""
    other: tuple[Match, ...] | None = None
    other_pose: str = "identity"
    mask: np.ndarray | None = field(default=None, compare=False)

    def to_dict(self, source: int | None, target: int) -> dict[str, Any]:
        """As it stands in the page; ``source`` and ``target`` are the numbers of the images there."""
        runs = [(self.pose, self.matches), (self.other_pose, self.other)]
        source_name = self.source_name or (self.source.name if self.source else "")
        content = {
            "id": self.id,
            "category": self.category,
            "source": source,
            "target": target,
            "names": [source_name, self.target_name or self.target.name],
            "azimuth": self.azimuth_difference,
            "runs": [
                {
                    "pose": pose,
                    "all": figures(matches),
                    "aware": figures([each for each in matches if each.geometry_aware]),
                    "matches": [each.to_dict() for each in matches],
                }
                for pose, matches in runs
                if matches is not None
            ],
        }
        return {**content, "note": self.note} if self.note else content


def figures(matches: Sequence[Match]) -> dict[str, Any]:
    """What pairs are sorted by and summed up from, of the points that can be judged; ``None`` without any."""
    judged = [each for each in matches if each.kind != "unjudged"]
    correct = sum(each.kind == "correct" for each in judged)
    errors = [each.error for each in judged if each.error is not None]
    confidences = [each.confidence for each in matches if each.confidence is not None]
    return {
        "points": len(judged),
        "correct": correct,
        "pck": correct / len(judged) if judged else None,
        "mean": round(math.fsum(errors) / len(errors), 6) if errors else None,
        "worst": round(max(errors), 6) if errors else None,
        "lowest": round(min(confidences), 6) if confidences else None,
    }
