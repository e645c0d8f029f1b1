"""Pose prediction by loops, from the paper's section 3.4."""

from __future__ import annotations

import math


def vote(distances: dict[str, dict[str, float]], among: tuple[str, ...]) -> str:
    best = ""
    for pose in among:
        if not best or _rank(distances, pose, among) > _rank(distances, best, among):
            best = pose
    return best


def _rank(distances: dict[str, dict[str, float]], pose: str, among: tuple[str, ...]) -> tuple[int, float]:
    """Sets won, then nearness on the whole: the larger the better."""
    won, nearness = 0, 0.0
    for templates in distances.values():
        first = among[0]
        for other in among:
            if templates[other] < templates[first]:
                first = other
        won += first == pose
        nearness -= templates[pose]
    return won, nearness


def accuracies(
    distances: list[dict[str, dict[str, float]]], truth: list[str]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Correct and all: left or right, front or back, one or the other, one of four."""
    sides = ends = four = side_images = end_images = 0
    for each, pose in zip(distances, truth, strict=True):
        if pose in ("left", "right"):
            side_images += 1
            sides += vote(each, ("left", "right")) == pose
        else:
            end_images += 1
            ends += vote(each, ("front", "back")) == pose
        four += vote(each, ("left", "right", "front", "back")) == pose
    every = side_images + end_images
    return (sides, side_images), (ends, end_images), (sides + ends, every), (four, every)


def wilson(correct: int, of: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The shares p at which the observed one lies z standard deviations off: roots of a quadratic."""
    share = correct / of
    a, b, c = 1 + z * z / of, -(2 * share + z * z / of), share * share
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)
