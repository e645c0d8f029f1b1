"""Variance of a mean over pairs that share images, by loops (Aronow, Samii and Assenova 2015)."""

from __future__ import annotations

from collections.abc import Sequence


def variance_of_mean(values: Sequence[float], source: Sequence[str], target: Sequence[str]) -> float:
    """Products of the deviations of every two pairs that share an image, each pair with itself included."""
    mean = sum(values) / len(values)
    total = 0.0
    for a, s, t in zip(values, source, target, strict=True):
        for b, u, v in zip(values, source, target, strict=True):
            if {s, t} & {u, v}:
                total += (a - mean) * (b - mean)
    return total / len(values) ** 2
