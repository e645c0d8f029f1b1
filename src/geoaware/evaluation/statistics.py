"""How sure a figure is: one type for a value with its interval, and the intervals of means and of shares.

Resampling pairs, as `averages.bootstrap` does for the figures of one predictions file, takes pairs as if each
came from images of its own. When a comparison is made on many pairs of few images, that is too narrow: an
image that is hard to match is hard in all its pairs, so ten times the pairs is not ten times the evidence.
`estimate` allows for that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_CONFIDENCE = 0.95
_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""
_DRAWS_AT_ONCE = 50
DECIMALS = 6
"""Far below what is printed, so that the last bits of a matrix product cannot show."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; the bounds are NaN where they cannot be told."""

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

    For a comparison give the differences of two ways, pair by pair: what is hard for both then cancels. The
    variance has two parts, which are added:

    * **images**: images are drawn with replacement, and a pair counts as often as its source times as
      often as its target was drawn (the pigeonhole bootstrap, Owen 2007). But this product counts what is
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
    if not (np.isnan(values) == np.isnan(values[:1])).all():
        raise ValueError("a pair has a value in some trainings and none in others; are the pairs the same?")
    names = [each for pair in zip(source, target, strict=True) for each in pair]
    number = {each: row for row, each in enumerate(dict.fromkeys(names))}
    ends = np.array([number[each] for each in names], dtype=np.int64).reshape(-1, 2)
    count = len(values)
    with warnings.catch_warnings():
        # Where there is too little for a mean or a variance, numpy warns and gives the NaN that is wanted.
        warnings.simplefilter("ignore", RuntimeWarning)
        each_training = np.nanmean(values, axis=1)
        value = each_training.mean(axis=0)
        images = _image_variance(values.mean(axis=0), ends, draws, seed)
        trainings = each_training.var(axis=0, ddof=1) / count if count > 1 else np.zeros_like(value)
        both = images + trainings
        freedom = both**2 / (images**2 / (len(number) - 1) + trainings**2 / max(count - 1, 1))
    margin = np.where(both == 0, 0.0, np.sqrt(both) * stdtrit(freedom, (1 + _CONFIDENCE) / 2))
    bounds = np.stack([value, value - margin, value + margin], axis=1).tolist()
    return tuple(Estimate(*(round(each, DECIMALS) for each in three)) for three in bounds)


def _image_variance(
    values: Float[np.ndarray, "p m"], ends: Int[np.ndarray, "p 2"], draws: int, seed: int
) -> Float[np.ndarray, " m"]:
    """Variance of the mean over pairs that comes from which images were there; NaN below two pairs."""
    # Both orders of two images are one couple: they are not drawn apart.
    _, couple = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    source, target, couple = ends[:, 0], ends[:, 1], couple.ravel()
    known = ~np.isnan(values)
    columns = np.concatenate([np.where(known, values, 0.0), known], axis=1)
    by_image, by_couple = [], []
    sizes = [int(each.max(initial=-1)) + 1 for each in (ends, couple)]
    for images, couples in resamples(draws, seed, *sizes):
        # An image paired with itself is one image, not two that were drawn alike.
        product = images[:, source] * np.where(source == target, 1.0, images[:, target])
        by_image.append(product @ columns)
        by_couple.append(couples[:, couple] @ columns)
    totals = np.stack([np.concatenate(by_image), np.concatenate(by_couple)])
    sums, counts = np.split(totals, 2, axis=2)
    of_images, of_couples = np.nanvar(sums / counts, axis=1, ddof=1)
    variance = np.maximum(of_images - 2 * of_couples, of_couples)
    return np.where(known.sum(axis=0) < 2, math.nan, variance)


def resamples(draws: int, seed: int, *counts: int) -> Iterator[list[Float[np.ndarray, "d n"]]]:
    """How often each of so many things is drawn in each resample, in blocks that fit the memory."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        block = []
        for count in counts:
            rows = generator.integers(0, max(count, 1), size=(size, count))
            block.append(np.stack([np.bincount(row, minlength=count) for row in rows]).astype(np.float64))
        yield block
