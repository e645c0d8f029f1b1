"""PCK of a network during training, on features that are cached: mean over pairs, pose alignment off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from geoaware.data import DataSet
from geoaware.evaluation.protocols import FOR_BASE, get_protocol
from geoaware.features import Extractor
from geoaware.method.matching import MatchSettings, match
from geoaware.method.metrics.pck import as_xy, distances, within
from geoaware.method.types import FeatureMap
from geoaware.training.post_processor.features import StoredFeatures

_KEPT_BYTES = 3 << 30


@dataclass(frozen=True)
class Score:
    """PCK of one data set, per image.

    Attributes:
        standard: mean over all pairs, a share.
        geometry_aware: mean over the pairs that have such keypoints; NaN where none has.
    """

    standard: float
    geometry_aware: float


@torch.inference_mode()
def validate(
    extractor: Extractor,
    sets: Sequence[DataSet],
    features: StoredFeatures,
    settings: MatchSettings,
    alpha: float,
) -> list[Score]:
    """PCK at ``alpha`` of each data set, under the protocol that its boxes suggest.

    Args:
        extractor: with the network at work, blended as it will be matched.
        sets: with their pairs.
        features: of every image, upright.
        settings: of the matching.
        alpha: threshold, as a share.
    """
    layout = extractor.layout

    @lru_cache(maxsize=max(8, _KEPT_BYTES // (4 * layout.channels * layout.grid**2)))
    def matched(path: Path, width: int, height: int) -> FeatureMap:
        return extractor.feature_map(features.levels(path), (width, height))

    return [score(each, matched, settings, alpha) for each in sets]


def score(
    data: DataSet,
    matched: Callable[[Path, int, int], FeatureMap],
    settings: MatchSettings,
    alpha: float,
) -> Score:
    """PCK of one data set.

    Args:
        data: with its pairs.
        matched: the feature map of an image, by its path, width and height.
        settings: of the matching.
        alpha: threshold, as a share.
    """
    protocol = get_protocol(FOR_BASE[data.threshold_base])
    standard, aware = [], []
    for pair in data.pairs:
        source, target = (matched(each.path, *each.size) for each in (pair.source, pair.target))
        matches = match(source, target, pair.source.keypoints.at(pair.common_ids), settings)
        far = distances(
            as_xy(matches.points, "found"), as_xy(pair.target.keypoints.at(pair.common_ids), "true")
        )
        correct = within(far, alpha * protocol.size(pair.target), protocol.strict).tolist()
        ids = data.schemas[pair.category].geometry_aware_ids(pair.source.keypoints, pair.target.keypoints)
        hits = [value for each, value in zip(pair.common_ids, correct, strict=True) if each in ids]
        standard.append(sum(correct) / len(correct))
        if hits:
            aware.append(sum(hits) / len(hits))
    return Score(sum(standard) / len(standard), sum(aware) / len(aware) if aware else float("nan"))
