"""What the difference between two ways on the same pairs says, in one word and in one sentence.

The difference is an `Estimate` of the first way less the second, pair by pair. It decides something only
where its whole 95 % interval lies on one side of 0.
"""

from __future__ import annotations

import math
from typing import Literal

from geoaware.evaluation.statistics import Estimate

Verdict = Literal["better", "worse", "not distinguishable"]


def judge(difference: Estimate, higher_is_better: bool = True) -> Verdict:
    """Whether the first way is better than the second."""
    if not difference.sign:
        return "not distinguishable"
    return "better" if (difference.sign > 0) == higher_is_better else "worse"


def points(difference: Estimate) -> str:
    """``+1.0 points, 95 % +0.4 to +1.6``: the difference of two shares, in per cent."""
    # Adding 0 takes the sign off a -0.0.
    bounds = (difference.value, difference.low, difference.high)
    value, low, high = (f"{100 * each + 0.0:+.1f}" for each in bounds)
    return f"{value} points, 95 % {low} to {high}"


def verdict(difference: Estimate) -> str:
    """``higher (+1.0 points, 95 % …)``, ``lower (…)`` or ``no clear difference (…)``."""
    if math.isnan(difference.low):
        return "cannot be compared"
    if difference.value == difference.low == difference.high == 0:
        return "the same"
    word = {1: "higher", -1: "lower", 0: "no clear difference"}[difference.sign]
    return f"{word} ({points(difference)})"


def compared(name: str, base: str, difference: Estimate) -> str:
    """``A against B: higher (…)``."""
    return f"{name} against {base}: {verdict(difference)}"
