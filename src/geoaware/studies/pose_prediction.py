"""Whether features know where an object faces: the paper's table 1, on any data set with azimuths.

Templates are images of the data set itself. Per category and set one image of each pose is drawn by a
seed; template images are never predicted, and an image is only compared with templates of its category.
A set has its images for itself, and at least half of the images of a pose remain to be predicted, so
small categories get fewer sets than asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from geoaware.apps.pose.predict import PosePrediction, PoseSettings
from geoaware.apps.pose.run import PoseWork, predict_poses
from geoaware.apps.pose.scores import SCORE_COLUMNS, PoseScores, confusion_grid, score_cells, score_poses
from geoaware.apps.pose.templates import DIRECTIONS, TemplateSets
from geoaware.data import DataSet
from geoaware.data.dataset import shortened
from geoaware.data.masks import has_mask
from geoaware.data.sampling import permutation
from geoaware.evaluation.statistics import Estimate
from geoaware.evaluation.tables import Grid, percent, plain
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage
from geoaware.report.plots import accuracy_bars
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell, silent
from geoaware.studies.case import Outcome
from geoaware.studies.paper import TABLE_1

CHANCE: Mapping[str, float] = {"left_right": 0.5, "front_back": 0.5, "either": 0.5, "all_four": 0.25}
"""What guessing gets right, by accuracy."""

_BY_DEGREES = ("front", "left", "back", "right")
"""Directions at azimuth 0, 90, 180 and 270 degrees."""

_AZIMUTHS = ("azimuth", "azimuth_id")

_LABELS = dict(zip(CHANCE, SCORE_COLUMNS[:-1], strict=True))


def table1(
    data: DataSet,
    matcher: Matcher,
    out: Path,
    *,
    tell: Tell = silent,
    restart: bool = False,
    sets: int = 10,
    seed: int = 0,
    metric: Literal["imd", "mutual-nn"] = "imd",
    masks: bool | None = None,
) -> Outcome:
    """Accuracy of the pose that templates predict for the images, not the pairs, of a data set.

    Predictions go to a JSON file in ``out``, which is read when the same work is asked for again. A category
    has as many template ``sets``, drawn by the ``seed``, as its images allow. ``masks`` says whether IMD runs
    over the object only; when not given, it does where the data set has a mask of each.

    Raises:
        InputError: no image says its azimuth (see `facing`), no category shows all four poses, or an image or
            mask cannot be used.
    """
    if sets < 1:
        raise InputError(f"the number of template sets must be at least 1, got {sets}")
    plan = _plan(data, sets, seed)
    if masks is None:
        masks = metric == "imd" and all(map(has_mask, [*plan.images, *_members(plan.templates)]))
    about = {"dataset": data.name, "split": data.split}
    work = PoseWork(matcher, plan.templates, plan.images, PoseSettings(metric, masks), about)
    # Eight digits that name the work, so that other features or templates go to another file.
    digest = hashlib.sha256(json.dumps(work.header(), sort_keys=True).encode()).hexdigest()[:8]
    path = Path(out) / f"poses-{data.name}-{data.split}-{digest}.json"
    predictions = predict_poses(work, path, restart=restart, progress=tell)
    found = _outcome(plan, work, predictions)
    where = f"{data.name}, split {data.split}"
    return replace(found, data=where, predictions=(path,), left_out=_notes(data, plan, sets))


def facing(image: AnnotatedImage) -> str | None:
    """The nearest of the four directions, or ``None`` where that cannot be told.

    ``azimuth`` counts in degrees and ``azimuth_id`` in steps of 45 degrees. 0 is the front: the object looks
    into the camera. At 90 (id 2) its left side shows, and it looks to the left of the image; 180 (id 4) is
    the back, 270 (id 6) the right side. SPair-71k and the rendered quadrupeds count alike. With degrees every
    image has a nearest direction; an odd id lies between two.
    """
    degrees = _azimuth(image)
    return None if degrees is None else _BY_DEGREES[int((degrees % 360 + 45) // 90) % 4]


def is_clear(image: AnnotatedImage) -> bool:
    """Whether the view is within 22.5 degrees of its direction, so that nobody would call it another."""
    degrees = _azimuth(image)
    return degrees is not None and abs((degrees + 45) % 90 - 45) <= 22.5


def _azimuth(image: AnnotatedImage) -> float | None:
    """In degrees; ``None`` where it is not given, or only as the id of a view between two directions."""
    degrees, number = (image.attributes.get(key) for key in _AZIMUTHS)
    try:
        angle = None if degrees is None else float(degrees)
    except (TypeError, ValueError):
        angle = math.nan
    if angle is not None and not math.isfinite(angle):
        raise InputError(f"{image.id}: azimuth is {degrees!r}; expected degrees")
    if number is not None and number not in range(8):
        raise InputError(f"{image.id}: azimuth_id is {number!r}; expected 0 … 7")
    if angle is None and number is not None and number % 2 == 0:
        return 45.0 * number
    return angle


@dataclass(frozen=True)
class _Plan:
    """Which images are templates, which are predicted, and the poses that each category lacks."""

    templates: Mapping[str, TemplateSets]
    images: tuple[AnnotatedImage, ...]
    truth: Mapping[str, str]
    lacking: Mapping[str, Sequence[str]]


def _plan(data: DataSet, sets: int, seed: int) -> _Plan:
    """Templates and images to predict; without azimuths or all four poses of a category an `InputError`."""
    where = f"{data.name}, split {data.split}"
    truth = {each.id: pose for each in data.images if (pose := facing(each)) is not None}
    if not any(each.attributes.get(key) is not None for each in data.images for key in _AZIMUTHS):
        raise InputError(
            f"{where}: no image says its azimuth, by which poses are scored; "
            "take a data set with azimuth (degrees) or azimuth_id (0 … 7), such as SPair-71k"
        )
    posed: dict[str, dict[str, list[AnnotatedImage]]] = defaultdict(lambda: {pose: [] for pose in DIRECTIONS})
    # By id, so that neither the draw nor the file depends on which pairs the data set makes of its images.
    ordered = sorted((each for each in data.images if each.id in truth), key=lambda each: each.id)
    for image in ordered:
        posed[image.category][truth[image.id]].append(image)
    lacking = {name: [pose for pose in DIRECTIONS if not posed[name][pose]] for name in sorted(posed)}
    whole = [name for name, missing in lacking.items() if not missing]
    templates = {name: _draw_sets(posed[name], sets, f"{seed}/{name}") for name in whole}
    if not templates:
        category, missing = next(iter(lacking.items()), ("", list(DIRECTIONS)))
        raise InputError(
            f"{where}: category {category!r} has no image of the pose {', '.join(missing)} to make templates "
            "of, and no other category has all four; take more images"
        )
    taken = {each.path for each in _members(templates)}
    images = tuple(each for each in ordered if each.category in templates and each.path not in taken)
    if not images:
        raise InputError(
            f"{where}: all images are needed as templates, none is left to predict; take more images"
        )
    return _Plan(templates, images, truth, lacking)


def _draw_sets(poses: Mapping[str, Sequence[AnnotatedImage]], wanted: int, key: str) -> TemplateSets:
    """Disjoint sets of one image a pose; no more than leave half of every pose's images."""
    count = min(wanted, *(max(1, len(images) // 2) for images in poses.values()))
    drawn = {
        pose: [images[each] for each in permutation(len(images), f"table1/{key}/{pose}")]
        for pose, images in poses.items()
    }
    return {str(number + 1): {pose: drawn[pose][number] for pose in DIRECTIONS} for number in range(count)}


def _members(templates: Mapping[str, TemplateSets]) -> list[AnnotatedImage]:
    return [each for sets in templates.values() for poses in sets.values() for each in poses.values()]


def _notes(data: DataSet, plan: _Plan, wanted: int) -> tuple[str, ...]:
    """What was left out and what is not as asked for, a sentence each."""
    notes, total = [], len(data.images)
    if untold := sum(each.id not in plan.truth for each in data.images):
        notes.append(f"Left out, between two directions or without azimuth: {untold:,} images of {total:,}.")
    if incomplete := [f"{name} ({', '.join(missing)})" for name, missing in plan.lacking.items() if missing]:
        notes.append(f"Left out, without all four poses: {shortened(incomplete)}.")
    counts = sorted({len(each) for each in plan.templates.values()})
    if counts[0] < wanted:
        spread = " to ".join(str(each) for each in dict.fromkeys((counts[0], counts[-1])))
        notes.append(f"{spread} template sets a category instead of {wanted}: there are too few images.")
    return tuple(notes)


def _outcome(plan: _Plan, work: PoseWork, predictions: Sequence[PosePrediction]) -> Outcome:
    everything = score_poses(predictions, plan.truth)
    sure = {each.id: plan.truth[each.id] for each in plan.images if is_clear(each)}
    clear = score_poses(predictions, sure)
    categories = {
        name: score_poses([each for each in predictions if each.category == name], plan.truth)
        for name in sorted(plan.templates)
    }
    sets = {name: len(plan.templates[name]) for name in categories}
    grids = [
        _main_grid(everything, clear, work),
        confusion_grid(everything, "True pose (rows) and predicted pose, number of images"),
    ]
    if len(categories) > 1:
        rows = [(name, *score_cells(scores), f"{sets[name]}") for name, scores in categories.items()]
        title = "Pose prediction by category, accuracy in per cent (95 % CI)"
        grids.append(Grid(title, ("category", *SCORE_COLUMNS, "sets"), tuple(rows)))
    known = [(name, each) for name, each in everything.accuracies.items() if each.of]
    bars = {f"{_LABELS[name]}\n({each.of:,})": each.share for name, each in known}
    chance = [CHANCE[name] for name, _ in known]
    return Outcome(
        grids=tuple(grids),
        finding=_finding(everything),
        plots={"table1": accuracy_bars(bars, chance, "accuracy in % (number of images below)")},
        figures={
            "all": _figures(everything),
            "clear": _figures(clear),
            "by_category": {name: _figures(each) for name, each in categories.items()},
            "sets": sets,
            "metric": work.settings.metric,
            "masks": work.settings.masks,
        },
    )


def _main_grid(everything: PoseScores, clear: PoseScores, work: PoseWork) -> Grid:
    matcher, settings = work.matcher, work.settings
    name = matcher.extractor.name + (" + post-processor" if matcher.extractor.post_processor else "")
    rows = [*TABLE_1, (f"ours: {name}", *score_cells(everything))]
    if clear.all_four.of < everything.all_four.of:
        rows.append(("ours: views within 22.5°", *score_cells(clear)))
    rows.append(("chance", *map(percent, CHANCE.values()), ""))
    over = "the image's object" if settings.masks else "the whole image"
    how = f"IMD over {over}" if settings.metric == "imd" else "Mutual nearest neighbours"
    note = (
        f"{how}. L/R and F/B: {everything.left_right.of:,} and {everything.front_back.of:,} images, "
        "two poses to choose from; then both together; then four poses to choose from. In brackets 95 % "
        "CI. The paper's rows are the words of its text on 100 cats of SPair-71k."
    )
    return Grid("Pose prediction, accuracy in per cent", ("features", *SCORE_COLUMNS), tuple(rows), note)


def _finding(scores: PoseScores) -> str:
    """What the figures show; every comparison is made with the intervals."""
    four, sides, ends = scores.all_four.share, scores.left_right.share, scores.front_back.share
    said = (
        f"Of {scores.all_four.of:,} images, {percent(four.value)} % get the right one of four poses "
        f"({_against(four, CHANCE['all_four'])})."
    )
    if not (scores.left_right.of and scores.front_back.of):
        return said
    harder = "the difference is within the intervals"
    if sides.high < ends.low or ends.high < sides.low:
        harder = f"{'left and right' if sides.value < ends.value else 'front and back'} are harder"
    return (
        f"{said} Left and right are told apart on {percent(sides.value)} % ({_against(sides, 0.5)}), front "
        f"and back on {percent(ends.value)} % ({_against(ends, 0.5)}); {harder}."
    )


def _against(share: Estimate, chance: float) -> str:
    word = "above" if share.low > chance else "below" if share.high < chance else "not clearly above"
    return f"{word} chance, {100 * chance:g} %"


def _figures(scores: PoseScores) -> dict[str, Any]:
    accuracies = {
        name: {**vars(each.share), "correct": each.correct, "of": each.of}
        for name, each in scores.accuracies.items()
    }
    return plain({**accuracies, "confusion": scores.confusion})
