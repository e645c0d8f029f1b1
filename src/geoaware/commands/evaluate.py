"""``geoaware predict``, ``score`` and ``evaluate``: a data set to predictions, predictions to figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    AsJson,
    DataOptions,
    EngineOptions,
    FeatureOptions,
    Markdown,
    PairOptions,
    PoseOptions,
    ProtocolOptions,
    Restart,
    RunOptions,
    expand,
    load_data,
    load_matcher,
    predict_settings,
    say,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.data import DataSet
    from geoaware.evaluation.result import PCKResult

By = Annotated[str | None, Option(help="Also show the figures by category, azimuth or keypoint.")]
Alpha = Annotated[list[float] | None, Option(help="A threshold instead of the protocol's; may be repeated.")]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is predicted, with what, and where it goes."""

    data: DataOptions
    features: FeatureOptions
    pose: PoseOptions
    rules: ProtocolOptions
    chosen: PairOptions
    out: Annotated[Path | None, Option(help="File to write; named after the run if not given.")] = None
    run: RunOptions
    engine: EngineOptions
    restart: Restart = False

    def path(self, data: DataSet, protocol: str) -> Path:
        """Where the predictions go; a COCO data set is known by its folder, since all are named ``coco``."""
        name = self.data.root.resolve().name if data.name == "coco" else data.name
        return self.out or Path(f"{name}-{data.split}-{self.features.extractor}-{protocol}.jsonl")


@dataclass(frozen=True)
class FigureOptions:
    """Where figures go, beside the tables that are printed."""

    json: AsJson = False
    csv: Annotated[Path | None, Option(help="Write all figures to a CSV file.")] = None
    markdown: Markdown = None
    plots: Annotated[Path | None, Option(help="Write plots to this folder.")] = None

    def check(self, *others: Path | None) -> None:
        """Find out before the work whether these files, and others, can be written."""
        from geoaware.runs.files import check_goals

        check_goals(self.csv, self.markdown, *others)

    def write(self, result: PCKResult, by: Any, others: list[PCKResult]) -> None:
        """Print the figures, and write the files that are asked for."""
        from geoaware.evaluation.formats import to_csv, to_json, to_markdown, to_text
        from geoaware.runs.files import replacing

        # Made first: a breakdown that cannot be shown must not leave some of the files behind.
        text = to_json(result) if self.json else to_text(result, by)
        for path, content in ((self.csv, to_csv), (self.markdown, to_markdown)):
            if path is not None:
                with replacing(path) as draft:
                    draft.write_text(content(result), encoding="utf-8", newline="\n")
        typer.echo(text)
        if self.plots is not None:
            from geoaware.report.plots import figures, pck_against_window, save

            plots = figures(result)
            if others:
                plots["pck_against_window"] = pck_against_window([result, *others])
            for path in save(plots, self.plots):
                say(f"wrote {path}")


@expand
def predict(options: PredictOptions) -> None:
    """Match every pair of a data set and write where the keypoints were found.

    An interrupted run goes on where it stopped when the same command is given again.

    Example:

    geoaware predict --dataset spair71k --root SPair-71k --split test --out spair.jsonl
    """
    path = _predict(options)
    say(f"wrote {path}\nnext: geoaware score {path} --by category")


@expand
def score(
    file: Annotated[Path, Argument(metavar="FILE", help="What `geoaware predict` wrote.")],
    protocol: Annotated[str | None, Option(help="Make sure that the file is of this protocol.")] = None,
    by: By = None,
    alpha: Alpha = None,
    error_alpha: Annotated[float, Option(help="Threshold of the error types.")] = 0.1,
    draws: Annotated[
        int, Option(min=0, max=1_000_000, help="Bootstrap resamples; 0: no confidence intervals.")
    ] = 1000,
    seed: Annotated[int, Option(min=0, help="Of the bootstrap.")] = 0,
    *,
    figures: FigureOptions,
    window_run: Annotated[
        list[Path] | None,
        Option(
            metavar="FILE",
            help="The same pairs with another window, for the plot of PCK against it; may be repeated.",
        ),
    ] = None,
) -> None:
    """Turn predictions into figures; reads nothing but the file.

    Examples:

    geoaware score spair.jsonl --by category --plots plots/

    geoaware score window15.jsonl --window-run window1.jsonl --window-run window5.jsonl --plots plots/
    """
    if window_run and figures.plots is None:
        raise InputError("--window-run is for a plot; give --plots DIR too")
    from geoaware.evaluation.score import score_file

    _check_by(by)
    figures.check()
    scored = partial(score_file, protocol=protocol, alphas=alpha or None, error_alpha=error_alpha, seed=seed)
    result = scored(file, draws=draws)
    figures.write(result, by, [scored(each, draws=0) for each in window_run or []])


@expand
def evaluate(
    options: PredictOptions, by: By = "category", alpha: Alpha = None, *, figures: FigureOptions
) -> None:
    """Predict a data set and score it: `geoaware predict`, then `geoaware score`.

    Example:

    geoaware evaluate --dataset pf-willow --root PF-dataset-WILLOW --split test
    """
    _check_by(by)
    figures.check()
    path = _predict(options, figures)
    from geoaware.evaluation.score import score_file

    result = score_file(path, alphas=alpha or None)
    figures.write(result, None if by == "azimuth" and not result.by_azimuth else by, [])
    say(_what_next(path, result))


def _check_by(by: str | None) -> None:
    if by not in (None, "category", "azimuth", "keypoint"):
        raise InputError(f"--by {by!r}: choose category, azimuth or keypoint")


def _predict(options: PredictOptions, figures: FigureOptions | None = None) -> Path:
    from geoaware.evaluation.predict import predict
    from geoaware.runs.files import check_apart, check_goals
    from geoaware.runs.progress import progress_bars

    options.rules.check()
    check_goals(options.out)
    data = load_data(options.data, options.chosen)
    protocol = options.rules.of(data)
    path = options.path(data, protocol.name)
    results = [path, *([] if figures is None else (figures.csv, figures.markdown))]
    check_apart([each for each in results if each is not None], [each.path for each in data.images])
    engine = options.engine.load(len(data.pairs), "geoaware.evaluation.predict")
    matcher = load_matcher(options.features, options.run, options.pose, protocol.name, options.rules.matching)
    for note in data.notes:
        say(f"note: {note}")
    images = len({side.path for pair in data.pairs for side in (pair.source, pair.target)})
    say(
        f"{data.name} {data.split}: {len(data.pairs):,} pairs of {images:,} images, {matcher.identity}\n"
        f"protocol {protocol.name}: correct is {protocol.rule}"
    )
    settings = predict_settings(protocol.name, options.rules, options.run)
    with progress_bars() as tell:
        return predict(
            data,
            matcher,
            path,
            settings,
            engine=engine,
            restart=options.restart,
            progress=tell,
        )


def _what_next(path: Path, result: PCKResult) -> str:
    """What the figures mean and where to go from here."""
    lines = [
        f"predictions: {path}; the same command again scores them without predicting anew",
        f"by keypoint: geoaware score {path} --by keypoint",
    ]
    if result.by_azimuth:
        lines.append(f"by viewpoint: geoaware score {path} --by azimuth")
    if result.overall.geometry_aware.keypoints:
        lines.append(
            "expect geometry-aware figures below the standard ones: 20 % and more in relation for zero-shot "
            "features, about 10 % for trained ones, 4 % for the paper's (SPair-71k, alpha 0.1)"
        )
    lines.append("compare with other work only under the same protocol and average")
    return "\n".join(lines)
