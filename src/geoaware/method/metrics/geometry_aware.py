"""The geometry-aware subset (paper, section 3.2 and appendix C).

A keypoint of a pair is in it when it belongs to a subgroup of alike parts (the paws, say) and the target
shows at least two visible members of that subgroup: then only geometry tells which one is meant. Subgroups,
and the rule by annotation id, are at home in `geoaware.method.keypoints`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.method.keypoints import Schema
    from geoaware.method.types import Pair


def pair_mask(pair: Pair, schema: Schema) -> Bool[np.ndarray, " k"]:
    """Which of the pair's common keypoints are geometry-aware, in the order of ``pair.common_ids``.

    A keypoint of the images that the schema does not know is an `InputError`.
    """
    try:
        inside = set(schema.geometry_aware_ids(pair.source.keypoints, pair.target.keypoints))
    except KeyError as error:
        raise InputError(f"pair {pair.id} ({pair.category}): {error.args[0]}") from None
    return np.array([each in inside for each in pair.common_ids], dtype=bool)


def relative_gap(standard: float, geometry_aware: float) -> float:
    """``(standard - geometry_aware) / standard``; NaN where standard is 0 or either is NaN.

    Example:
        >>> relative_gap(0.5, 0.25)
        0.5
    """
    return (standard - geometry_aware) / standard if standard else float("nan")
