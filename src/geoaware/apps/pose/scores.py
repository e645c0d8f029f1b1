"""How often the predicted pose is right: the four accuracies of the paper's table 1, and the confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geoaware.apps.pose.predict import PosePrediction, vote
from geoaware.apps.pose.templates import DIRECTIONS, ENDS, SIDES
from geoaware.evaluation.statistics import Estimate, proportion
from geoaware.evaluation.tables import MISSING, Grid, bounds, percent

SCORE_COLUMNS = ("L/R", "F/B", "L/R or F/B", "L/R/F/B", "images")
"""Heads of a row of `score_cells`."""


@dataclass(frozen=True)
class Accuracy:
    """How many of a number of images are right."""

    correct: int
    of: int

    @property
    def share(self) -> Estimate:
        """0 to 1, with an interval that takes images as independent and the templates as given."""
        return proportion(self.correct, self.of)

    def __str__(self) -> str:
        return f"{percent(self.share.value)} ({bounds(self.share)})" if self.of else MISSING


@dataclass(frozen=True)
class PoseScores:
    """The four accuracies of the paper's table 1 and the confusion behind the last.

    Attributes:
        left_right: of the images from the left or right, with only those two to choose from.
        front_back: of the images from the front or back, likewise.
        either: of all images, each in its own one of the two choices above.
        all_four: of all images, with four poses to choose from.
        confusion: number of images by true pose and by predicted one of the four.
    """

    left_right: Accuracy
    front_back: Accuracy
    either: Accuracy
    all_four: Accuracy
    confusion: Mapping[str, Mapping[str, int]]

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """By name, in the order of the paper's table."""
        return {name: each for name, each in vars(self).items() if isinstance(each, Accuracy)}


def score_poses(predictions: Sequence[PosePrediction], truth: Mapping[str, str]) -> PoseScores:
    """Compare predictions with the true poses.

    Args:
        predictions: those of images without a true pose are left out.
        truth: one of `DIRECTIONS` by image id.
    """
    known = [(each, truth[each.image]) for each in predictions if each.image in truth]
    left_right, front_back = (
        Accuracy(
            sum(vote(each.distances, axis) == pose for each, pose in known if pose in axis),
            sum(pose in axis for _, pose in known),
        )
        for axis in (SIDES, ENDS)
    )
    confusion = {true: dict.fromkeys(DIRECTIONS, 0) for true in DIRECTIONS}
    for each, pose in known:
        confusion[pose][each.pose] += 1
    return PoseScores(
        left_right=left_right,
        front_back=front_back,
        either=Accuracy(left_right.correct + front_back.correct, len(known)),
        all_four=Accuracy(sum(confusion[pose][pose] for pose in DIRECTIONS), len(known)),
        confusion=confusion,
    )


def score_cells(scores: PoseScores) -> tuple[str, ...]:
    """Accuracies with intervals in per cent, and the number of images, as cells of a table."""
    return (*map(str, scores.accuracies.values()), f"{scores.all_four.of:,}")


def accuracy_grid(scores: PoseScores) -> Grid:
    """The four accuracies as a table."""
    note = (
        f"L/R: {scores.left_right.of:,} images from left or right, with these two to choose from; F/B "
        "likewise; then both together; then four poses to choose from."
    )
    title = "Pose prediction, accuracy in per cent (95 % CI)"
    return Grid(title, ("", *SCORE_COLUMNS), (("all", *score_cells(scores)),), note)


def confusion_grid(scores: PoseScores, title: str = "True pose (rows) and predicted pose") -> Grid:
    """The confusion as a table."""
    rows = tuple((true, *(f"{count:,}" for count in scores.confusion[true].values())) for true in DIRECTIONS)
    return Grid(title, ("true", *DIRECTIONS), rows)
