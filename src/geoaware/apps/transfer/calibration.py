"""From the evidence for a keypoint's place to the probability that it is right.

*Right* means: the keypoint is visible in the target, and the place lies within 0.1 of the longer side of the
object's box from it. The log-odds are a weighted sum of the logit of the mass, the peak and the margin (see
`vote.Evidence`) with weights that are never negative, so more evidence is never less probable.

The weights were measured once (`SHIPPED`), but what evidence is worth depends on objects and extractor. Where
there are enough sources, each is therefore voted on by the others, and the log-odds are shifted and stretched
to fit the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from geoaware.apps.transfer.vote import Evidence

ALPHA = 0.1
"""Share of the threshold base within which a place is right."""

MIN_SOURCES = 3
"""With fewer, the sources say too little of themselves; the shipped parameters stand."""

_SPREAD = (0.5, 0.25)
"""How far, in standard deviations, shift and stretch are expected to lie from 0 and 1."""


@dataclass(frozen=True)
class Calibration:
    """Weights of the log-odds.

    Attributes:
        mass: of the mass's logit; this, ``peak`` and ``margin`` are 0 or more.
        peak: of the similarity.
        margin: of the margin over the most alike keypoint.
        intercept: added to the sum.
        origin: where the numbers come from.
    """

    mass: float
    peak: float
    margin: float
    intercept: float
    origin: str

    def log_odds(self, evidence: Evidence) -> Float[np.ndarray, " k"]:
        """Of each keypoint."""
        return _features(evidence) @ [self.mass, self.peak, self.margin] + self.intercept

    def probability(self, evidence: Evidence) -> Float[np.ndarray, " k"]:
        """That each keypoint is visible and its place right, 0 to 1."""
        return 1 / (1 + np.exp(-self.log_odds(evidence)))

    def adapted(self, log_odds: Sequence[float], right: Sequence[bool], origin: str) -> Calibration:
        """Shifted and stretched to outcomes: the stretch stays 0 or more.

        The most probable shift and stretch are taken, given the outcomes and that they are expected at 0 and
        1, give or take `_SPREAD`. So few outcomes change little. ``log_odds`` are by this calibration.
        """
        given, sign = np.asarray(log_odds, dtype=np.float64), 2.0 * np.asarray(right, dtype=bool) - 1

        def loss(x: np.ndarray) -> float:
            expected = ((x - [0.0, 1.0]) / _SPREAD) ** 2
            return float(np.logaddexp(0, -sign * (x[0] + x[1] * given)).sum() + expected.sum() / 2)

        shift, stretch = minimize(loss, [0.0, 1.0], bounds=[(None, None), (0.0, None)]).x.tolist()
        mass, peak, margin = (stretch * each for each in (self.mass, self.peak, self.margin))
        return Calibration(mass, peak, margin, stretch * self.intercept + shift, origin)


def fit(
    evidence: Sequence[Evidence], right: Sequence[Sequence[bool]], groups: Sequence[str], origin: str
) -> Calibration:
    """Weights from outcomes alone: logistic regression, the weights kept from falling below 0.

    Groups (data sets) count alike, and each has an intercept of its own; the mean of these is the result's.
    So the weights say what tells right from wrong among objects of one kind, which is what is left to know
    once `Calibration.adapted` has found the level. Evidence, outcomes and groups are by target.
    """
    # All keypoints in one table: evidence, outcome (1 or -1), group.
    features = np.concatenate([_features(each) for each in evidence])
    sign = 2.0 * np.concatenate([np.asarray(each, dtype=bool) for each in right]) - 1
    names = sorted(set(groups))
    labels = np.repeat([names.index(each) for each in groups], [len(each) for each in right])
    member = labels[:, None] == np.arange(len(names))
    # Every group weighs the same, whatever its size.
    share = (member / member.sum(axis=0)).sum(axis=1) / len(names)
    # Columns of like size are found faster; the weights are scaled back below.
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = (features - centre) / scale

    def loss(x: np.ndarray) -> float:
        odds = scaled @ x[:3] + member @ x[3:]
        return float(share @ np.logaddexp(0, -sign * odds) + 1e-4 * (x[:3] ** 2).sum())

    bounds = [(0.0, None)] * 3 + [(None, None)] * len(names)
    found = minimize(loss, np.zeros(3 + len(names)), bounds=bounds).x
    weights = found[:3] / scale
    mass, peak, margin = weights.tolist()
    return Calibration(mass, peak, margin, float(found[3:].mean() - weights @ centre), origin)


def shipped(sources: int) -> Calibration:
    """The shipped parameters for the number of voting sources that is nearest in ratio."""
    nearest = min(SHIPPED, key=lambda each: abs(math.log(each / max(1, sources))))
    return SHIPPED[nearest]


_ORIGIN = "measured with lite on training pictures of lspet and quaternius"
"""Stands in every result, so its words stay as they are."""

SHIPPED: Mapping[int, Calibration] = {
    1: Calibration(0.28, 14.3, 2.9, -14.03, _ORIGIN),
    5: Calibration(0.19, 16.7, 3.1, -15.44, _ORIGIN),
    20: Calibration(0.15, 22.3, 3.7, -20.49, _ORIGIN),
}
"""By number of voting sources; what `benchmarks/transfer.py calibration` printed (docs/transfer.md)."""


def _features(evidence: Evidence) -> Float[np.ndarray, "k 3"]:
    mass, peak, margin = (each.double().numpy() for each in (evidence.mass, evidence.peak, evidence.margin))
    # Beyond these limits a mass says no more than that the map has one peak, or none.
    mass = mass.clip(1e-3, 1 - 1e-3)
    return np.stack([np.log(mass / (1 - mass)), peak, margin], axis=1)
