"""PCK of a network during training: mean over pairs, pose alignment off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from geoaware.data import DataSet
from geoaware.evaluation.predict import scorable
from geoaware.evaluation.protocols import usual_protocol
from geoaware.method.matching import MatchSettings, match
from geoaware.method.metrics.pck import as_xy, distances, within
from geoaware.method.types import AnnotatedImage, FeatureMap
from geoaware.runs.recent import Recent

_ROOM = 3 << 30
"""Bytes of feature maps that are kept: an image is in several pairs."""


@dataclass(frozen=True)
class Score:
    """PCK of one data set, per image.

    Attributes:
        standard: mean over all pairs, a share.
        geometry_aware: mean over the pairs that have such keypoints; NaN where none has.
    """

    standard: float
    geometry_aware: float


class RecentMaps(Recent[tuple[Path, tuple[int, int]], FeatureMap]):
    """Feature maps of the images that came up last, as many as fit in ``room`` bytes, without raw maps."""

    def __init__(self, make: Callable[[AnnotatedImage], FeatureMap], room: int = _ROOM) -> None:
        super().__init__(room, lambda made: made.data.nbytes)
        self._make = make

    def __call__(self, image: AnnotatedImage) -> FeatureMap:
        """The feature map of an image, made if it is not kept."""
        key = image.path, image.size
        if key not in self:
            self[key] = replace(self._make(image), levels=())
        return self[key]


@torch.inference_mode()
def validate(
    make: Callable[[AnnotatedImage], FeatureMap],
    sets: Sequence[DataSet],
    settings: MatchSettings,
    alpha: float,
) -> list[Score]:
    """PCK at ``alpha`` (a share) of each data set, under its usual protocol.

    ``make`` gives the feature map of an image, by the network as it is now.
    """
    maps = RecentMaps(make)
    return [_score(each, maps, settings, alpha) for each in sets]


def _score(data: DataSet, maps: RecentMaps, settings: MatchSettings, alpha: float) -> Score:
    protocol = usual_protocol(data)
    standard, aware = [], []
    for pair in scorable(data, protocol).pairs:
        # Match the keypoints that both images show.
        source, target = maps(pair.source), maps(pair.target)
        matches = match(source, target, pair.source.keypoints.at(pair.common_ids), settings)
        # Compare with the annotation.
        truth = as_xy(pair.truth(matches.points.tolist()), "true")
        far = distances(as_xy(matches.points, "found"), truth)
        correct = within(far, alpha * protocol.size(pair.target), protocol.strict).tolist()
        # The geometry-aware keypoints are counted a second time, by themselves.
        ids = data.schemas[pair.category].geometry_aware_ids(pair.source.keypoints, pair.target.keypoints)
        hits = [value for each, value in zip(pair.common_ids, correct, strict=True) if each in ids]
        standard.append(sum(correct) / len(correct))
        if hits:
            aware.append(sum(hits) / len(hits))
    return Score(sum(standard) / len(standard), sum(aware) / len(aware) if aware else float("nan"))
