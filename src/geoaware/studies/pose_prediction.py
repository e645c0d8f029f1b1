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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoaware.apps.pose.predict import PosePrediction, PoseSettings
from geoaware.apps.pose.run import PoseWork, predict_poses
from geoaware.apps.pose.scores import (
    SCORE_COLUMNS,
    PoseScores,
    confusion_grid,
    score_cells,
    score_poses,
)
from geoaware.apps.pose.templates import DIRECTIONS, TemplateSets
from geoaware.data import DataSet
from geoaware.data.dataset import shortened
from geoaware.data.masks import has_mask
from geoaware.data.sampling import permutation
from geoaware.evaluation.statistics import Estimate
from geoaware.evaluation.tables import MISSING, Grid, percent, plain
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.studies.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Pose prediction by template matching (table 1)"
ABOUT = (
    "From which side does an image show its object? The template (left, right, front, back) at the smallest "
    "distance has the vote of its set, and most votes win (section 3.4). Nothing is trained for it."
)

CHANCE: Mapping[str, float] = {"left_right": 0.5, "front_back": 0.5, "either": 0.5, "all_four": 0.25}
"""What guessing gets right, by accuracy."""

PAPER = (
    ("paper: DINOv2", "struggles", "excels", MISSING, MISSING, "100"),
    ("paper: SD", "well", "well", MISSING, MISSING, "100"),
    ("paper: SD+DINOv2", *["best, near-perfect"] * 4, "100"),
)
"""What the paper's text says of its table, on 100 hand-labelled cats of SPair-71k."""

_BY_DEGREES = ("front", "left", "back", "right")
"""Directions at azimuth 0, 90, 180 and 270 degrees."""

_LABELS = dict(zip(CHANCE, SCORE_COLUMNS[:-1], strict=True))
_BLUE, _ORANGE = "#0072B2", "#E69F00"


def table1(
    data: DataSet,
    matcher: Matcher,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    sets: int = 10,
    seed: int = 0,
    metric: Literal["imd", "mutual-nn"] = "imd",
    masks: bool | None = None,
) -> Outcome:
    """Accuracy of the pose that templates predict.

    Args:
        data: its images, not its pairs, are used; they need an azimuth (see `facing`).
        matcher: whose features are compared.
        out: folder for the predictions, a JSON file, which is read when the same work is asked for again.
        progress: called with the number of images done and to do.
        sets: template sets of each category, as far as its images go.
        seed: of the choice of templates.
        metric: see `PoseSettings`.
        masks: whether IMD runs over the object only; when not given, if the data set has a mask of each.

    Raises:
        InputError: no image says its azimuth, no category shows all four poses, or an image or mask cannot
            be used.
    """
    if sets < 1:
        raise InputError(f"the number of template sets must be at least 1, got {sets}")
    plan = _plan(data, sets, seed)
    shown = [*plan.images, *_members(plan.templates)]
    masked = all(map(has_mask, shown)) and metric == "imd" if masks is None else masks
    work = PoseWork(
        matcher,
        plan.templates,
        plan.images,
        PoseSettings(metric, masked),
        {"dataset": data.name, "split": data.split},
    )
    path = Path(out) / f"poses-{data.name}-{data.split}-{_digest(work)}.json"

    def tell(what: str, done: int, total: int, note: str = "", /) -> None:
        if progress is not None:
            progress(done, total)

    predictions = predict_poses(work, path, progress=tell)
    return replace(
        _outcome(plan, matcher, predictions, work.settings),
        data=f"{data.name}, split {data.split}",
        predictions=(path,),
    )


def facing(image: AnnotatedImage) -> str | None:
    """The nearest of the four directions, or ``None`` where that cannot be told.

    ``azimuth`` counts in degrees and ``azimuth_id`` in steps of 45 degrees. 0 is the front: the object looks
    into the camera. At 90 (id 2) its left side shows, and it looks to the left of the image; 180 (id 4) is
    the back, 270 (id 6) the right side. SPair-71k and the rendered quadrupeds count alike. With degrees every
    image has a nearest direction; an odd id lies between two.

    Raises:
        InputError: the azimuth is no number, or the id not 0 … 7.
    """
    degrees, number = _azimuth(image)
    if degrees is not None:
        return _BY_DEGREES[int((degrees % 360 + 45) // 90) % 4]
    if number is None or number % 2:
        return None
    return _BY_DEGREES[number // 2]


def is_clear(image: AnnotatedImage) -> bool:
    """Whether the view is within 22.5 degrees of its direction, so that nobody would call it another."""
    degrees, number = _azimuth(image)
    if degrees is None:
        return number is not None and number % 2 == 0
    return abs((degrees + 45) % 90 - 45) <= 22.5


def _azimuth(image: AnnotatedImage) -> tuple[float | None, int | None]:
    degrees, number = (image.attributes.get(key) for key in ("azimuth", "azimuth_id"))
    try:
        angle = None if degrees is None else float(degrees)
    except (TypeError, ValueError):
        angle = math.nan
    if angle is not None and not math.isfinite(angle):
        raise InputError(f"{image.id}: azimuth is {degrees!r}; expected degrees")
    if number is not None and number not in range(8):
        raise InputError(f"{image.id}: azimuth_id is {number!r}; expected 0 … 7")
    return angle, number


@dataclass(frozen=True)
class _Plan:
    """Which images are templates, which are predicted, and why others are neither."""

    templates: Mapping[str, TemplateSets]
    images: tuple[AnnotatedImage, ...]
    truth: Mapping[str, str]
    clear: frozenset[str]
    notes: tuple[str, ...]


def _plan(data: DataSet, sets: int, seed: int) -> _Plan:
    """Templates and images to predict.

    Raises:
        InputError: no image has an azimuth, or no category has an image of each pose.
    """
    truth = {each.id: pose for each in data.images if (pose := facing(each)) is not None}
    if not any(value is not None for each in data.images for value in _azimuth(each)):
        raise InputError(
            f"{data.name}, split {data.split}: no image says its azimuth, by which poses are scored; "
            "take a data set with azimuth (degrees) or azimuth_id (0 … 7), such as SPair-71k"
        )
    posed: dict[str, dict[str, list[AnnotatedImage]]] = defaultdict(lambda: {pose: [] for pose in DIRECTIONS})
    # By id, so that neither the draw nor the file depends on which pairs the data set makes of its images.
    ordered = sorted(data.images, key=lambda each: each.id)
    for image in ordered:
        if image.id in truth:
            posed[image.category][truth[image.id]].append(image)
    lacking = {
        category: [pose for pose in DIRECTIONS if not poses[pose]]
        for category, poses in sorted(posed.items())
    }
    usable = [category for category, missing in lacking.items() if not missing]
    if not usable:
        category, missing = next(iter(lacking.items()), ("", list(DIRECTIONS)))
        raise InputError(
            f"{data.name}, split {data.split}: category {category!r} has no image of the pose "
            f"{', '.join(missing)} to make templates of, and no other category has all four; "
            "take more images"
        )
    templates = {category: _draw_sets(posed[category], sets, f"{seed}/{category}") for category in usable}
    taken = {each.path for each in _members(templates)}
    images = tuple(
        each for each in ordered if each.category in templates and each.id in truth and each.path not in taken
    )
    if not images:
        raise InputError(
            f"{data.name}, split {data.split}: all images are needed as templates, none is left to "
            "predict; take more images"
        )
    incomplete = [f"{name} ({', '.join(missing)})" for name, missing in lacking.items() if missing]
    return _Plan(
        templates,
        images,
        truth,
        frozenset(each.id for each in images if is_clear(each)),
        _notes(data, templates, truth, incomplete, sets),
    )


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


def _notes(
    data: DataSet,
    templates: Mapping[str, TemplateSets],
    truth: Mapping[str, str],
    incomplete: Sequence[str],
    wanted: int,
) -> tuple[str, ...]:
    """What was left out and what is not as asked for, a sentence each."""
    notes = []
    untold = sum(each.id not in truth for each in data.images)
    if untold:
        total = len(data.images)
        notes.append(f"Left out, between two directions or without azimuth: {untold:,} images of {total:,}.")
    if incomplete:
        notes.append(f"Left out, without all four poses: {shortened(incomplete)}.")
    counts = [len(each) for each in templates.values()]
    if min(counts) < wanted:
        spread = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        notes.append(f"{spread} template sets a category instead of {wanted}: there are too few images.")
    return tuple(notes)


def _digest(work: PoseWork) -> str:
    """Eight digits that name the work, so that other features or templates go to another file."""
    return hashlib.sha256(json.dumps(work.header(), sort_keys=True).encode()).hexdigest()[:8]


def _outcome(
    plan: _Plan,
    matcher: Matcher,
    predictions: Sequence[PosePrediction],
    settings: PoseSettings,
) -> Outcome:
    everything = score_poses(predictions, plan.truth)
    clear = score_poses([each for each in predictions if each.image in plan.clear], plan.truth)
    categories = {
        name: score_poses([each for each in predictions if each.category == name], plan.truth)
        for name in sorted(plan.templates)
    }
    grids = [
        _main_grid(everything, clear, matcher, settings),
        confusion_grid(everything, "True pose (rows) and predicted pose, number of images"),
    ]
    if len(categories) > 1:
        grids.append(_category_grid(categories, plan))
    return Outcome(
        name="table1",
        title=TITLE,
        about=ABOUT,
        grids=tuple(grids),
        finding=_finding(everything),
        plots={"table1": _plot(everything)},
        figures={
            "all": _figures(everything),
            "clear": _figures(clear),
            "by_category": {name: _figures(each) for name, each in categories.items()},
            "sets": {name: len(each) for name, each in sorted(plan.templates.items())},
            "metric": settings.metric,
            "masks": settings.masks,
        },
        left_out=plan.notes,
    )


def _main_grid(everything: PoseScores, clear: PoseScores, matcher: Matcher, settings: PoseSettings) -> Grid:
    name = matcher.extractor.name + (" + post-processor" if matcher.extractor.post_processor else "")
    rows = [*PAPER, (f"ours: {name}", *score_cells(everything))]
    if clear.all_four.of < everything.all_four.of:
        rows.append(("ours: views within 22.5°", *score_cells(clear)))
    rows.append(("chance", *(percent(each) for each in CHANCE.values()), ""))
    over = "the image's object" if settings.masks else "the whole image"
    how = f"IMD over {over}" if settings.metric == "imd" else "Mutual nearest neighbours"
    note = " ".join(
        [
            f"{how}. L/R and F/B: {everything.left_right.of:,} and {everything.front_back.of:,} images, "
            "two poses to choose from; then both together; then four poses to choose from. In brackets 95 % "
            "CI. The paper's rows are the words of its text on 100 cats of SPair-71k.",
        ]
    )
    title = "Pose prediction, accuracy in per cent"
    return Grid(title, ("features", *SCORE_COLUMNS), tuple(rows), note)


def _category_grid(categories: Mapping[str, PoseScores], plan: _Plan) -> Grid:
    rows = tuple(
        (name, *score_cells(scores), f"{len(plan.templates[name])}") for name, scores in categories.items()
    )
    return Grid(
        "Pose prediction by category, accuracy in per cent (95 % CI)",
        ("category", *SCORE_COLUMNS, "sets"),
        rows,
    )


def _finding(scores: PoseScores) -> str:
    """What the figures show; every comparison is made with the intervals."""
    four, sides, ends = scores.all_four, scores.left_right.share, scores.front_back.share
    found = [
        f"Of {four.of:,} images, {percent(four.share.value)} % get the right one of four poses "
        f"({_against(four.share, CHANCE['all_four'])})."
    ]
    if scores.left_right.of and scores.front_back.of:
        harder = "the difference is within the intervals"
        if sides.high < ends.low:
            harder = "left and right are harder"
        elif ends.high < sides.low:
            harder = "front and back are harder"
        found.append(
            f"Left and right are told apart on {percent(sides.value)} % ({_against(sides, 0.5)}), front and "
            f"back on {percent(ends.value)} % ({_against(ends, 0.5)}); {harder}."
        )
    return " ".join(found)


def _against(share: Estimate, chance: float) -> str:
    word = "above" if share.low > chance else "below" if share.high < chance else "not clearly above"
    return f"{word} chance, {100 * chance:g} %"


def _figures(scores: PoseScores) -> dict[str, Any]:
    shares = {
        name: {
            "value": each.share.value,
            "low": each.share.low,
            "high": each.share.high,
            "correct": each.correct,
            "of": each.of,
        }
        for name, each in scores.accuracies.items()
    }
    return plain({**shares, "confusion": scores.confusion})


def _plot(scores: PoseScores) -> Figure:
    """The four accuracies as bars, with intervals and what guessing gets right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.0))
    axes = figure.subplots()
    shown = {name: each for name, each in scores.accuracies.items() if each.of}
    places = list(range(len(shown)))
    found = [each.share for each in shown.values()]
    values = [100 * each.value for each in found]
    below = [100 * (each.value - each.low) for each in found]
    above = [100 * (each.high - each.value) for each in found]
    axes.bar(places, values, 0.6, color=_BLUE, label="accuracy, 95 % CI")
    axes.errorbar(places, values, [below, above], fmt="none", ecolor="black", capsize=4)
    for place, name in zip(places, shown, strict=True):
        label = "chance" if place == 0 else None
        level = 100 * CHANCE[name]
        axes.plot([place - 0.4, place + 0.4], [level, level], "--", color=_ORANGE, linewidth=2, label=label)
    axes.set_xticks(places, [f"{_LABELS[name]}\n({each.of:,})" for name, each in shown.items()])
    axes.set_ylabel("accuracy in % (number of images below)")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure
