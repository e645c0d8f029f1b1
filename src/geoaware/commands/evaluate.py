"""``geoaware predict``, ``score`` and ``evaluate``: a data set to predictions, predictions to figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.choices import (
    Annotations,
    Batch,
    CacheFolder,
    CacheSize,
    DataChoice,
    DataOption,
    Dataset,
    Extractor,
    Labels,
    Masks,
    MatchingChoice,
    Pairs,
    Pose,
    ProtocolName,
    Root,
    RunChoice,
    Seed,
    Setting,
    Split,
)
from geoaware.commands.options import Blend, Device, Dtype, PoseRuleText, PostProcessorPlace
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.evaluation.result import PCKResult

Out = Annotated[
    Path | None, typer.Option("--out", help="Predictions file to write; named after the run if not given.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run wrote to the file.")]

Alpha = Annotated[
    list[float] | None,
    typer.Option("--alpha", help="A threshold instead of the protocol's; may be repeated."),
]
By = Annotated[
    str | None, typer.Option("--by", help="Also show the figures by category, azimuth or keypoint.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as JSON and nothing else.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write all figures to a CSV file.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the tables to a Markdown file.")]
Plots = Annotated[Path | None, typer.Option("--plots", help="Write plots to this folder.")]


def predict(
    dataset: Dataset,
    root: Root,
    split: Split,
    annotations: Annotations = None,
    option: DataOption = None,
    extractor: Extractor = "lite",
    post_processor: PostProcessorPlace = "auto",
    blend: Blend = None,
    pose: Pose = "auto",
    pose_rule: PoseRuleText = None,
    protocol: ProtocolName = None,
    matching: MatchingChoice = "auto",
    labels: Labels = True,
    masks: Masks = False,
    pairs: Pairs = "",
    seed: Seed = 0,
    out: Out = None,
    setting: Setting = None,
    batch: Batch = 0,
    cache_mb: CacheSize = 2048,
    cache: CacheFolder = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    restart: Restart = False,
) -> None:
    """Match every pair of a data set and write where the keypoints were found.

    An interrupted run goes on where it stopped when the same command is given again.

    Example:

    geoaware predict --dataset spair71k --root SPair-71k --split test --out spair.jsonl
    """
    data = DataChoice(dataset, root, split, annotations, option, pairs, seed)
    run = RunChoice(
        extractor,
        post_processor,
        blend,
        pose,
        pose_rule,
        protocol,
        matching,
        labels,
        masks,
        setting,
        batch,
        cache_mb,
        cache,
        device,
        dtype,
    )
    path = _predict(data, run, out, restart)
    typer.echo(f"wrote {path}\nnext: geoaware score {path} --by category", err=True)


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `geoaware predict` wrote.")],
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Make sure that the file is of this protocol.")
    ] = None,
    by: By = None,
    alpha: Alpha = None,
    error_alpha: Annotated[float, typer.Option("--error-alpha", help="Threshold of the error types.")] = 0.1,
    draws: Annotated[
        int, typer.Option("--draws", help="Bootstrap resamples; 0: no confidence intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    json: AsJson = False,
    csv: Csv = None,
    markdown: Markdown = None,
    plots: Plots = None,
    window_run: Annotated[
        list[Path] | None,
        typer.Option(
            "--window-run",
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
    if window_run and plots is None:
        raise InputError("--window-run is for a plot; give --plots DIR too")
    from geoaware.evaluation.score import score_file

    _check_by(by)
    asked: dict[str, Any] = {
        "alphas": alpha or None,
        "error_alpha": error_alpha,
        "draws": draws,
        "seed": seed,
    }
    result = score_file(file, protocol, **asked)
    others = [score_file(each, protocol, **{**asked, "draws": 0}) for each in window_run or []]
    _report(result, by, json, csv, markdown)
    if plots is not None:
        _plot(result, others, plots)


def evaluate(
    dataset: Dataset,
    root: Root,
    split: Split,
    annotations: Annotations = None,
    option: DataOption = None,
    extractor: Extractor = "lite",
    post_processor: PostProcessorPlace = "auto",
    blend: Blend = None,
    pose: Pose = "auto",
    pose_rule: PoseRuleText = None,
    protocol: ProtocolName = None,
    matching: MatchingChoice = "auto",
    labels: Labels = True,
    masks: Masks = False,
    pairs: Pairs = "",
    seed: Seed = 0,
    out: Out = None,
    setting: Setting = None,
    batch: Batch = 0,
    cache_mb: CacheSize = 2048,
    cache: CacheFolder = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    restart: Restart = False,
    by: By = "category",
    alpha: Alpha = None,
    json: AsJson = False,
    csv: Csv = None,
    markdown: Markdown = None,
    plots: Plots = None,
) -> None:
    """Predict a data set and score it: `geoaware predict`, then `geoaware score`.

    Example:

    geoaware evaluate --dataset pf-willow --root PF-dataset-WILLOW --split test
    """
    _check_by(by)
    data = DataChoice(dataset, root, split, annotations, option, pairs, seed)
    run = RunChoice(
        extractor,
        post_processor,
        blend,
        pose,
        pose_rule,
        protocol,
        matching,
        labels,
        masks,
        setting,
        batch,
        cache_mb,
        cache,
        device,
        dtype,
    )
    path = _predict(data, run, out, restart)
    from geoaware.evaluation.score import score_file

    result = score_file(path, alphas=alpha or None)
    has_azimuth = bool(result.by_azimuth)
    _report(result, None if by == "azimuth" and not has_azimuth else by, json, csv, markdown)
    if plots is not None:
        _plot(result, [], plots)
    typer.echo(_what_next(path, result), err=True)


def _predict(choice: DataChoice, run: RunChoice, out: Path | None, restart: bool) -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from geoaware.evaluation.predict import predict

    run.check()
    data = choice.load()
    protocol = run.protocol_for(data)
    matcher = run.matcher(protocol.name)
    for note in data.notes:
        typer.echo(f"note: {note}", err=True)
    images = len({side.path for pair in data.pairs for side in (pair.source, pair.target)})
    typer.echo(
        f"{data.name} {data.split}: {len(data.pairs):,} pairs of {images:,} images, "
        f"{matcher.identity}\n"
        f"protocol {protocol.name}: correct is {protocol.rule}",
        err=True,
    )
    path = out or Path(f"{data.name}-{data.split}-{run.extractor}-{protocol.name}.jsonl")
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("predicting", total=len(data.pairs))
        return predict(
            data,
            matcher,
            path,
            run.how(protocol.name),
            restart=restart,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _check_by(by: str | None) -> None:
    if by not in (None, "category", "azimuth", "keypoint"):
        raise InputError(f"--by {by!r}: choose category, azimuth or keypoint")


def _report(result: PCKResult, by: Any, json: bool, csv: Path | None, markdown: Path | None) -> None:
    from geoaware.evaluation.formats import to_csv, to_json, to_markdown, to_text
    from geoaware.runs.files import replacing

    # Made first: a breakdown that cannot be shown must not leave some of the files behind.
    text = to_json(result) if json else to_text(result, by)
    for path, content in ((csv, to_csv), (markdown, to_markdown)):
        if path is not None:
            with replacing(path) as draft:
                draft.write_text(content(result), encoding="utf-8", newline="\n")
    typer.echo(text)


def _plot(result: PCKResult, others: list[PCKResult], folder: Path) -> None:
    from geoaware.report.plots import figures, pck_against_window, save

    plots = figures(result)
    if others:
        plots["pck_against_window"] = pck_against_window([result, *others])
    for path in save(plots, folder):
        typer.echo(f"wrote {path}", err=True)


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
