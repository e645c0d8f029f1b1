"""How good a transfer was, where the targets are annotated.

Two questions are asked apart.

*Where*: the PCK of every guess at a keypoint that is visible in the target, whatever its probability. It is
computed from the predictions file that `geoaware score` reads.

*Whether*: how many of the keypoints that were marked visible are visible (precision), how many of the visible
ones were marked (recall), and whether a probability of 0.7 is right seven times in ten (reliability, expected
calibration error).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from geoaware.apps.transfer.calibration import ALPHA
from geoaware.apps.transfer.coco_out import read_results, read_run
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Target, Targets
from geoaware.data.coco_file import keypoint_places, read_places, visible_from
from geoaware.data.dataset import make_keypoints, usual_base
from geoaware.drawing.palette import BLACK, BLUE, ORANGE
from geoaware.evaluation import formats
from geoaware.evaluation.predictions import Header, describe_schema, hash_pairs, make_record
from geoaware.evaluation.protocols import FOR_BASE, Protocol, get_protocol
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.score import score_file
from geoaware.evaluation.tables import Grid, as_text, percent, plain
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.report import plots
from geoaware.runs.errors import InputError
from geoaware.runs.files import reading_part, record_line, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

BINS = 10
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Shown:
    """What one threshold does.

    Attributes:
        threshold: keypoints of at least this probability are marked visible.
        shown: share of all keypoints that are.
        precision: share of the shown that are visible in the target.
        recall: share of the visible that are shown.
        right: share of the shown that are visible and in their place.
    """

    threshold: float
    shown: float
    precision: float
    recall: float
    right: float


@dataclass(frozen=True)
class Bin:
    """Keypoints of probabilities from ``low`` to less than ``high``, or to 1 in the last bin.

    Attributes:
        keypoints: how many.
        probability: their mean.
        right: share that is visible and in its place.
    """

    low: float
    high: float
    keypoints: int
    probability: float
    right: float


@dataclass(frozen=True)
class Visibility:
    """Figures on probabilities and on what was marked visible; shares, NaN where there is nothing to share.

    Attributes:
        keypoints: of all targets, visible or not.
        visible: how many of them are visible in their target.
        at: figures of the run's own threshold.
        others: figures of `THRESHOLDS`.
        bins: `BINS` of equal width; those that are empty are left out.
        calibration_error: expected calibration error: the difference between probability and share right
            of a bin, on the mean over all keypoints.
    """

    keypoints: int
    visible: int
    at: Shown
    others: tuple[Shown, ...]
    bins: tuple[Bin, ...]
    calibration_error: float


@dataclass(frozen=True)
class Evaluation:
    """Every figure of a transfer.

    Attributes:
        places: PCK and what belongs to it, of all guesses at visible keypoints.
        predictions: the file that ``places`` was computed from.
        targets: how many were evaluated.
        failed: how many had failed, which count nowhere.
    """

    places: PCKResult
    visibility: Visibility
    predictions: Path
    targets: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values; NaN becomes ``None``."""
        own = {"targets": self.targets, "failed": self.failed, "visibility": asdict(self.visibility)}
        return {**plain(own), "places": formats.to_dict(self.places)}


def evaluate(
    out: Path,
    sources: Sources,
    targets: Targets,
    predictions: Path,
    protocol: str | None = None,
    hidden: bool = False,
    draws: int = 1000,
) -> Evaluation:
    """Compare a result with the annotations of its targets.

    Args:
        out: the result, with guesses (``keep_guesses``).
        sources: of the run.
        targets: of the run, from a file with keypoints.
        predictions: file to write, for `geoaware score`.
        protocol: decides what counts as the right place; by box where every target has one, else by image.
        hidden: count keypoints that are annotated but hidden (flag 1) as visible.
        draws: bootstrap resamples behind the confidence intervals.

    Raises:
        InputError: the targets have no keypoints, the result no guesses, or the protocol cannot be applied.
    """
    info = read_run(out)
    if info is None or not info["run"]["settings"]["keep_guesses"]:
        raise InputError(
            f"{out}: holds no guesses to evaluate; make it anew and keep them", parameter="keep_guesses"
        )
    rules, truth = _judged(sources, targets, protocol, hidden)
    by_id = {each.id: each for each in targets}
    pairs: list[Pair] = []
    lines: list[str] = []
    chances, visible, right, evaluated = list[float](), list[bool](), list[bool](), 0
    with reading_part(str(out)):
        for image, entry in read_results(out):
            if (places := truth.get(entry["id"])) is None:
                continue
            evaluated += 1
            pair, guesses = _pair(by_id[entry["id"]], image, entry, sources, places), entry["guesses"]
            # Whether: of every keypoint its probability, and whether it is visible and in its place.
            chances += entry["keypoint_scores"]
            visible += sources.schema.visibility(pair.target.keypoints).tolist()
            right += _right(guesses, pair.target, rules)
            # Where: a line of predictions for the keypoints that are visible and were guessed.
            if pair.common_ids:
                found = [guesses[each][:2] for each in pair.common_ids]
                pairs.append(pair)
                lines.append(record_line(make_record(pair, sources.schema, rules, found, entry["pose"])))
    if not pairs:
        raise InputError(f"{targets.file}: no visible keypoint in the targets that the sources have too")
    header = _header(info["run"], pairs, sources, targets, rules)
    with replacing(predictions) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines([header.to_line(), *lines])
    failed, threshold = info["failed_targets"], info["run"]["settings"]["threshold"]
    figures = visibility(np.array(chances), np.array(visible), np.array(right), threshold)
    return Evaluation(score_file(predictions, draws=draws), figures, predictions, evaluated, failed)


def _judged(
    sources: Sources, targets: Targets, protocol: str | None, hidden: bool
) -> tuple[Protocol, dict[int, dict[int, Any]]]:
    """The protocol, and places by keypoint of every target that can be judged by it, by the target's id."""
    truth = read_truth(sources, targets)
    least, notes = visible_from(list(truth.values()), hidden)
    if len(truth) < len(targets):
        notes.append(f"{len(targets) - len(truth)} targets have no keypoints annotated and are not evaluated")
    boxes = {each.id: each.box for each in targets if each.id in truth}
    base, said = usual_base([(f"annotation {number}", box) for number, box in boxes.items()])
    rules = get_protocol(protocol or FOR_BASE[base])
    if protocol is None and base == "image":
        notes += said
    judged = {each: values for each, values in truth.items() if rules.base != "box" or boxes[each]}
    if 0 < len(judged) < len(truth):
        notes.append(f"{len(truth) - len(judged)} targets have no box and are not evaluated")
    for note in notes:
        _log.info(note)
    # A protocol that fits no target at all says so itself.
    return rules, {each: keypoint_places(values, least) for each, values in (judged or truth).items()}


def _header(
    run: Mapping[str, Any], pairs: list[Pair], sources: Sources, targets: Targets, rules: Protocol
) -> Header:
    """Of the predictions file: the run's own facts, under the protocol of the evaluation."""
    return Header(
        protocol=rules.name,
        pairs=len(pairs),
        dataset=targets.file.name if targets.file is not None else "",
        split=f"transfer from {len(sources.images)}",
        extractor=run["extractor"],
        settings=run["settings"],
        versions=run["versions"],
        hashes={"pairs": hash_pairs(pairs), **run["hashes"]},
        schemas={sources.name: describe_schema(sources.schema)},
    )


def read_truth(sources: Sources, targets: Targets) -> dict[int, list[float]]:
    """Keypoints of the targets that have them, as numbers x, y, flag …, by the target's id.

    Raises:
        InputError: the targets do not come from a file, none has keypoints, or some cannot be read.
    """
    if targets.file is None:
        raise InputError(
            "an evaluation needs annotated targets; give their COCO-keypoints file", parameter="targets"
        )
    found = {}
    for each in targets:
        where = f"{targets.file}: {each.name}, annotation {each.id}"
        values = read_places(each.annotation or {}, len(sources.schema), where)
        if values is not None:
            found[each.id] = values
    if not found:
        raise InputError(f"{targets.file}: no target has keypoints annotated; an evaluation needs them")
    return found


def visibility(
    probability: Float[np.ndarray, " n"],
    visible: Bool[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    threshold: float,
) -> Visibility:
    """Figures from every keypoint of every target, for a run of this ``threshold``.

    A keypoint has a ``probability`` (0: no guess), is ``visible`` in its target or not, and ``right`` if it
    is visible and its guess in its place.
    """

    def shown(threshold: float) -> Shown:
        marked = probability >= threshold
        precision, recall = _mean(visible[marked]), _mean(marked[visible])
        return Shown(threshold, _mean(marked), precision, recall, _mean(right[marked]))

    bins = _bins(probability, right)
    error = sum(each.keypoints * abs(each.probability - each.right) for each in bins)
    return Visibility(
        len(probability),
        int(visible.sum()),
        shown(threshold),
        tuple(map(shown, THRESHOLDS)),
        bins,
        error / len(probability) if len(probability) else math.nan,
    )


def reliability_diagram(figures: Visibility) -> Figure:
    """Share right against probability, by bin, over how many keypoints each bin holds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.0, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], "--", color=BLACK, linewidth=1, label="as it should be")
    label = f"found (calibration error {percent(figures.calibration_error)} %)"
    chances, right = [each.probability for each in figures.bins], [each.right for each in figures.bins]
    upper.plot(chances, right, "o-", color=BLUE, linewidth=2, clip_on=False, label=label)
    middles = [(each.low + each.high) / 2 for each in figures.bins]
    counts = [each.keypoints for each in figures.bins]
    lower.bar(middles, counts, width=0.9 / BINS, color=ORANGE, edgecolor=BLACK, linewidth=0.5)
    for axes in (upper, lower):
        axes.axvline(figures.at.threshold, color=BLACK, linewidth=1, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    upper.text(figures.at.threshold + 0.01, 0.01, "threshold", fontsize=8)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel=f"visible and within {ALPHA:g} of the box")
    upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    lower.set(xlabel="probability given", ylabel="keypoints")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def to_text(figures: Visibility) -> str:
    """The figures on visibility as a table of plain text."""
    rows = []
    for each in sorted({figures.at, *figures.others}, key=lambda each: each.threshold):
        mark = "*" if each.threshold == figures.at.threshold else ""
        shares = (each.shown, each.precision, each.recall, each.right)
        rows.append((f"{each.threshold:g}{mark}", *map(percent, shares)))
    note = (
        f"{figures.keypoints:,} keypoints, {figures.visible:,} of them visible. *: this run. In place: share "
        f"of the shown that is visible and within {ALPHA:g} of the box. "
        f"Expected calibration error: {percent(figures.calibration_error)} %."
    )
    columns = ("threshold", "shown", "precision", "recall", "in place")
    return as_text([Grid("Marked visible, in per cent", columns, tuple(rows), note)])


def save_report(found: Evaluation, folder: Path) -> list[Path]:
    """Write ``evaluation.json``, ``reliability.png`` and the plots of `PCKResult` into a folder."""
    figures = folder / "evaluation.json"
    with replacing(figures) as draft:
        draft.write_text(
            json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8", newline="\n"
        )
    drawn = {"reliability": reliability_diagram(found.visibility), **plots.figures(found.places)}
    return [figures, *plots.save(drawn, folder)]


def _pair(
    target: Target,
    image: Mapping[str, Any],
    entry: Mapping[str, Any],
    sources: Sources,
    shown: Mapping[int, Any],
) -> Pair:
    """The target with the keypoints ``shown``, against all sources as one image, which has the guesses."""
    size, name = (int(image["width"]), int(image["height"])), f"{target.name}#{target.id}"
    truth = make_keypoints(shown, size, target.name, [])
    there = AnnotatedImage(name, target.path, size, sources.name, truth, target.box)
    first, count = sources.images[0], len(sources.images)
    places = {n: None if guess is None else (0.0, 0.0) for n, guess in enumerate(entry["guesses"])}
    guessed = make_keypoints(places, first.size, target.name, [])
    all_of_them = f"{count} source" + "s" * (count != 1)
    here = AnnotatedImage(all_of_them, first.path, first.size, sources.name, guessed, first.box)
    return Pair(name, sources.name, here, there)


def _right(guesses: Any, target: AnnotatedImage, rules: Protocol) -> list[bool]:
    """Whether each keypoint of the schema is visible and its guess within `ALPHA` of the threshold base."""
    limit, ids = ALPHA * rules.size(target), target.keypoints.visible_ids
    places = dict(zip(ids, target.keypoints.at(ids).tolist(), strict=True))
    return [
        each in places and guess is not None and math.dist(guess[:2], places[each]) < limit
        for each, guess in enumerate(guesses)
    ]


def _bins(probability: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> tuple[Bin, ...]:
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for each in np.unique(place).tolist():
        here = place == each
        mean, share = _mean(probability[here]), _mean(right[here])
        bins.append(Bin(each / BINS, (each + 1) / BINS, int(here.sum()), mean, share))
    return tuple(bins)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
