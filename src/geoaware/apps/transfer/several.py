"""Several objects in an image: each box is cut out and voted on alone, and all are in the image's record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.crop import ALWAYS, Window, crop_window
from geoaware.apps.transfer.find import Finder
from geoaware.apps.transfer.targets import Detected
from geoaware.apps.transfer.vote import Vote
from geoaware.apps.transfer.voters import Voters
from geoaware.data.exif import INVERSE, Exif, turned_box, turned_points, turned_size
from geoaware.data.images import Frame
from geoaware.method.geometry import Canvas
from geoaware.method.metrics import keypoint_similarity
from geoaware.method.types import Box

SAME = 0.8
"""Similarity of keypoints from which on two objects that were found are one. Chosen on training images."""


@dataclass(frozen=True)
class View:
    """An upright image, how it was turned, and of which pixels its record is."""

    image: Image.Image
    frame: Frame
    exif: Exif = "upright"

    def size(self) -> list[int]:
        """Width and height for the record."""
        size = self.frame.size
        return list(turned_size(size, self._back) if self.exif == "stored" else size)

    def points(self, places: torch.Tensor) -> torch.Tensor:
        """Points of the upright image for the record."""
        return turned_points(places, self.frame.size, self._back) if self.exif == "stored" else places

    def box(self, box: Box) -> list[float]:
        """Corners in the upright image as x, y, width, height for the record."""
        x1, y1, x2, y2 = turned_box(box, self.frame.size, self._back) if self.exif == "stored" else box
        return [round(each, 2) for each in (x1, y1, x2 - x1, y2 - y1)]

    def boxes(self, detected: Detected) -> Iterator[Box]:
        """Boxes of a detector as corners in the upright image."""
        width, height = self.frame.size
        for x, y, w, h in detected.boxes:
            if detected.shares:  # of the upright image, which detectors look at
                yield x * width, y * height, (x + w) * width, (y + h) * height
            elif self.exif == "stored":
                stored = turned_size(self.frame.size, self._back)
                yield turned_box((x, y, x + w, y + h), stored, self.frame.orientation)
            else:
                yield x, y, x + w, y + h

    @property
    def _back(self) -> int:
        return INVERSE[self.frame.orientation]


class _Candidate(NamedTuple):
    box: Box
    score: float | None
    vote: Vote
    window: Window


def entry(vote: Vote, window: Window, view: View, known: Calibration) -> dict[str, Any]:
    """What is in the record of a vote on a part of an image."""
    chances = known.probability(vote.evidence)
    places = view.points(vote.points + torch.tensor(window[:2]))
    seen = list(zip(places.tolist(), chances.tolist(), vote.known.tolist(), strict=True))
    return {
        "points": [[round(x, 2), round(y, 2)] if there else None for (x, y), _, there in seen],
        "probability": [round(chance, 4) if there else 0.0 for _, chance, there in seen],
        "source": vote.source,
        "pose": vote.pose,
        "distance": round(vote.distance, 4),
    }


def objects(
    view: View,
    voters: Voters,
    known: Calibration,
    detected: Detected | None = None,
    finder: Finder | None = None,
) -> list[dict[str, Any]]:
    """What is in an image's record of each object, detected or found; an empty list where there is none."""
    if finder is not None:
        found = [_voted(voters, view.image, *each) for each in finder.find(view.image)]
        found = different(found, known)
    else:
        given = detected or Detected()
        boxes = zip(view.boxes(given), given.scores, strict=True)
        found = [_voted(voters, view.image, box, score) for box, score in boxes]
    return [
        {
            "box": view.box(each.box),
            "detection": None if each.score is None else round(each.score, 4),
            **entry(each.vote, each.window, view, known),
        }
        for each in found
    ]


def different(candidates: Sequence[_Candidate], known: Calibration) -> list[_Candidate]:
    """The candidates, in their order, whose keypoints are not those of one before them."""
    kept = list[tuple[_Candidate, np.ndarray]]()
    for each in candidates:
        x1, y1, x2, y2 = each.box
        places = each.vote.points.numpy() + np.array(each.window[:2])
        weights = known.probability(each.vote.evidence) * each.vote.known.numpy()
        alike = (
            keypoint_similarity(places, other, (x2 - x1) * (y2 - y1), weights=weights) for _, other in kept
        )
        if not any(value >= SAME for value in alike):
            kept.append((each, places))
    return [each for each, _ in kept]


def _voted(voters: Voters, image: Image.Image, box: Box, score: float | None) -> _Candidate:
    """The vote on what a box holds: it alone is cut out, and keypoints are sought inside it."""
    settings, matcher = voters.settings, voters.matcher
    window = crop_window(box, image.size, settings.margin, ALWAYS if settings.below else 0.0)
    left, top, right, bottom = window
    part, mask = image.crop(window), np.zeros((bottom - top, right - left), dtype=bool)
    x1, y1 = (max(0, round(each - edge)) for each, edge in zip(box[:2], window[:2], strict=True))
    x2, y2 = (round(each - edge) for each, edge in zip(box[2:], window[:2], strict=True))
    mask[min(y1, bottom - top - 1) : max(y2, y1 + 1), min(x1, right - left - 1) : max(x2, x1 + 1)] = True
    # The part is known, so nothing is cut out of it.
    canvas = Canvas(*part.size, matcher.extractor.layout.size, box=(0, 0, *part.size))
    (features,) = matcher.features([part], [canvas])
    return _Candidate(box, score, voters.locate(features, mask), window)
