"""Several objects in an image: each box is cut out and voted on alone, and all are in the image's record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.crop import ALWAYS, Window, crop_window
from geoaware.apps.transfer.find import Candidate, Finder, vote_in
from geoaware.apps.transfer.masks import Covered
from geoaware.apps.transfer.targets import Detected
from geoaware.apps.transfer.vote import Evidence, Vote
from geoaware.apps.transfer.voters import Voters
from geoaware.data.exif import INVERSE, Exif, turned_box, turned_pixels, turned_points, turned_size
from geoaware.data.formats.hub import BOX_MARGIN
from geoaware.data.images import Frame
from geoaware.data.masks import encode_segmentation
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

    def mask(self, covered: Covered, window: Window, box: Box | None) -> dict[str, Any] | None:
        """What the object covers, if anything, as run lengths; of a known box, nothing is far outside."""
        width, height = self.frame.size
        (left, top, right, bottom), found = window, covered.pixels()
        x1, y1, x2, y2 = crop_window(box, (width, height), BOX_MARGIN, ALWAYS)
        x1, y1, x2, y2 = max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)
        mask = np.zeros((height, width), dtype=bool)
        mask[y1:y2, x1:x2] = found[y1 - top : y2 - top, x1 - left : x2 - left]
        if not mask.any():
            return None
        return encode_segmentation(turned_pixels(mask, self._back) if self.exif == "stored" else mask)

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


def entry(
    vote: Vote, window: Window, view: View, known: Calibration, box: Box | None = None
) -> dict[str, Any]:
    """What is in the record of a vote on a part of an image; ``peaks`` where other places were found too.

    With the object's ``box``, if known, its carried mask ends near that.
    """

    def rounded(points: torch.Tensor, evidence: Evidence) -> list[list[float]]:
        places, chances = view.points(points + torch.tensor(window[:2])), known.probability(evidence)
        found = zip(places.tolist(), chances.tolist(), strict=True)
        return [[round(x, 2), round(y, 2), round(chance, 4)] for (x, y), chance in found]

    seen = list(zip(rounded(vote.points, vote.evidence), vote.known.tolist(), strict=True))
    carried = {} if vote.covered is None else {"mask": view.mask(vote.covered, window, box)}
    made = {
        "points": [found[:2] if there else None for found, there in seen],
        "probability": [found[2] if there else 0.0 for found, there in seen],
        "source": vote.source,
        "pose": vote.pose,
        "distance": round(vote.distance, 4),
        **carried,
    }
    if vote.others is None:
        return made
    peaks, each = rounded(vote.others.points.flatten(0, 1), vote.others.evidence), vote.others.points.shape[1]
    return {**made, "peaks": [peaks[k * each : (k + 1) * each] * there for k, (_, there) in enumerate(seen)]}


def objects(
    view: View,
    voters: Voters,
    known: Calibration,
    detected: Detected | None = None,
    finder: Finder | None = None,
) -> list[dict[str, Any]]:
    """What is in an image's record of each object, detected or found; an empty list where there is none."""
    if finder is not None:
        found = different(finder.find(view.image), known)
    else:
        given = detected or Detected()
        boxes = zip(view.boxes(given), given.scores, strict=True)
        found = [Candidate(box, score, *vote_in(voters, view.image, box)) for box, score in boxes]
    return [
        {
            "box": view.box(each.box),
            "detection": None if each.score is None else round(each.score, 4),
            **entry(each.vote, each.window, view, known, each.box),
        }
        for each in found
    ]


def different(candidates: Sequence[Candidate], known: Calibration) -> list[Candidate]:
    """The candidates, in their order, whose keypoints are not those of one before them."""
    kept = list[tuple[Candidate, np.ndarray]]()
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
