"""How sure a figure is: one type for a value with its interval, and the intervals of means and of shares.

Resampling pairs, as `averages.bootstrap` does for the figures of one predictions file, takes pairs as if each
came from images of its own. When a comparison is made on many pairs of few images, that is too narrow: an
image that is hard to match is hard in all its pairs, so ten times the pairs is not ten times the evidence.
`estimate` allows for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

_CONFIDENCE = 0.95
_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""
_DRAWS_AT_ONCE = 50
_DECIMALS = 6


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; the bounds are NaN where they cannot be told.

    Attributes:
        value: the figure.
        low: lower bound.
        high: upper bound.
    """

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def proportion(correct: int, of: int) -> Estimate:
    """Share of the correct ones among independent trials, with Wilson's interval.

    Unlike the usual interval, Wilson's stays within 0 and 1 and means something for few trials and for
    shares near 1. All three figures are NaN where there was no trial.
    """
    if not of:
        return Estimate(math.nan, math.nan, math.nan)
    share, more = correct / of, _Z**2 / of
    half = _Z * math.sqrt(share * (1 - share) / of + more / (4 * of))
    low, high = ((share + more / 2 + side) / (1 + more) for side in (-half, half))
    return Estimate(share, max(min(low, share), 0.0), min(max(high, share), 1.0))


def estimate(
    values: Float[np.ndarray, "s p m"],
    source: Sequence[str],
    target: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """Means over pairs and trainings, with intervals for other images and other seeds.

    For a comparison give the differences of two ways, pair by pair: what is hard for both then cancels.

    The variance has two parts, which are added:

    * **images**: images are drawn with replacement, and a pair counts as often as its source times as
      often as its target was drawn (the pigeonhole bootstrap, Owen 2007). Drawing pairs alone would be too
      narrow, because pairs that share an image succeed and fail together. But this product counts what is
      peculiar to one couple of images three times, so twice the variance from drawing couples is taken
      off again; what is left is at least that of drawing couples.
    * **trainings**: the variance of the means of the trainings, over their number. With one training there is
      none, and the interval says nothing on what another seed would give.

    The interval is Student's t with the degrees of freedom of Welch and Satterthwaite: three trainings do not
    show their spread as well as three hundred images do.

    Args:
        values: of s trainings (the same pairs each), p pairs and m figures; NaN where a pair has none.
        source: id of each pair's source image.
        target: id of its target image.
        draws: number of resamples.
        seed: of the resampling; the same values and seed give the same intervals.

    Raises:
        ValueError: the ids are not as many as the pairs, or a value is missing in one training only.
    """
    from scipy.special import stdtrit

    if not len(source) == len(target) == values.shape[1]:
        raise ValueError(
            f"{values.shape[1]} pairs, {len(source)} sources and {len(target)} targets do not agree"
        )
    known = ~np.isnan(values)
    if not (known == known[:1]).all():
        raise ValueError("a pair has a value in some trainings and none in others; are the pairs the same?")
    each_training = _means(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))
    value = each_training.mean(axis=0)
    images = _image_variance(values.mean(axis=0), source, target, draws, seed)
    count = len(values)
    trainings = each_training.var(axis=0, ddof=1) / count if count > 1 else np.zeros_like(value)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (images + trainings) ** 2 / (
            images**2 / (len({*source, *target}) - 1) + trainings**2 / max(count - 1, 1)
        )
    margin = np.sqrt(images + trainings) * stdtrit(freedom, (1 + _CONFIDENCE) / 2)
    margin = np.where(images + trainings == 0, 0.0, margin)
    bounds = zip(value.tolist(), (value - margin).tolist(), (value + margin).tolist(), strict=True)
    return tuple(Estimate(*(round(each, _DECIMALS) for each in three)) for three in bounds)


def _image_variance(
    values: Float[np.ndarray, "p m"], source: Sequence[str], target: Sequence[str], draws: int, seed: int
) -> Float[np.ndarray, " m"]:
    """Variance of the mean over pairs that comes from which images were there; NaN below two pairs."""
    ends = _numbers(source, target)
    # Both orders of two images are one couple: they are not drawn apart.
    _, couple = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    known = ~np.isnan(values)
    columns = np.concatenate([np.where(known, values, 0.0), known], axis=1)
    generator = np.random.default_rng(seed)
    by_image, by_couple = [], []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        images = multiplicities(generator, size, int(ends.max(initial=-1)) + 1)
        product = images[:, ends[:, 0]] * images[:, ends[:, 1]]
        # An image paired with itself is one image, not two that were drawn alike.
        itself = ends[:, 0] == ends[:, 1]
        product[:, itself] = images[:, ends[itself, 0]]
        couples = multiplicities(generator, size, int(couple.max(initial=-1)) + 1)
        by_image.append(product @ columns)
        by_couple.append(couples[:, couple.ravel()] @ columns)
    of_images, of_couples = (_variance(np.concatenate(each)) for each in (by_image, by_couple))
    variance = np.maximum(of_images - 2 * of_couples, of_couples)
    return np.where(known.sum(axis=0) < 2, math.nan, variance)


def _numbers(source: Sequence[str], target: Sequence[str]) -> Int[np.ndarray, "p 2"]:
    """Images as numbers from 0, by first appearance."""
    number: dict[str, int] = {}
    pairs = zip(source, target, strict=True)
    ends = [[number.setdefault(each, len(number)) for each in pair] for pair in pairs]
    return np.array(ends, dtype=np.int64).reshape(-1, 2)


def multiplicities(generator: np.random.Generator, draws: int, count: int) -> Float[np.ndarray, "d n"]:
    """How often each of ``count`` things is drawn in each resample."""
    chosen = generator.integers(0, max(count, 1), size=(draws, count))
    return np.stack([np.bincount(row, minlength=count) for row in chosen]).astype(np.float64)


def _variance(sums: Float[np.ndarray, "d n"]) -> Float[np.ndarray, " m"]:
    """Variance over the draws of sum by count; the first half of the columns are sums."""
    totals, counts = np.split(sums, 2, axis=1)
    means = _means(totals, counts)
    drawn = (~np.isnan(means)).sum(axis=0)
    centred = np.where(np.isnan(means), 0.0, means - _means(np.nansum(means, axis=0), drawn))
    return _means((centred**2).sum(axis=0), np.maximum(drawn - 1, 0))


def _means(sums: Shaped[np.ndarray, "*n"], counts: Shaped[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Sums by counts; NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, math.nan)
