"""``geoaware predict``, ``score`` and ``evaluate``: a data set to predictions, predictions to figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.commands.options import (
    Blend,
    Device,
    Dtype,
    PoseRuleText,
    PostProcessorPlace,
    parse_pose_rule,
    parse_settings,
)
from geoaware.errors import InputError

if TYPE_CHECKING:
    from geoaware.data import DataSet
    from geoaware.matcher import Matcher
    from geoaware.metrics.result import PCKResult

Dataset = Annotated[
    str, typer.Option("--dataset", help="spair71k, pf-pascal, pf-willow, ap10k, coco or pairs.")
]
Root = Annotated[Path, typer.Option("--root", help="Folder of the data set.")]
Split = Annotated[str, typer.Option("--split", help="Its split: trn, val, test …")]
Annotations = Annotated[
    str | None, typer.Option("--annotations", help="Annotation file of a COCO data set, if not SPLIT.json.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the data set's loader; may be repeated."
    ),
]
Extractor = Annotated[
    str, typer.Option("--extractor", help="`lite` or an extractor that `geoaware info` lists.")
]
Pose = Annotated[str, typer.Option("--pose", help="Turn the source: auto (as measured), off, flip, rotate.")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="paper, released, dift, pf-pascal, pf-willow; the data set's usual one if not given.",
    ),
]
MatchingChoice = Annotated[
    str,
    typer.Option(
        "--matching",
        help="auto: the window measured for the features, looking where the protocol looks; paper: its "
        "constants; extractor: as `geoaware match` does.",
    ),
]
Labels = Annotated[
    bool,
    typer.Option(
        "--labels/--no-labels", help="In a mirrored source, read at the annotated flip partner (†)."
    ),
]
Masks = Annotated[
    bool, typer.Option("--masks/--no-masks", help="Choose the pose on the source's annotated object mask.")
]
Pairs = Annotated[str, typer.Option("--pairs", metavar="N|all", help="How many pairs, chosen by --seed.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the choice of pairs.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Predictions file to write; named after the run if not given.")
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the matching (window, temperature …) or of the extractor; may be repeated.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", help="Pictures extracted together; 0: by device.")]
CacheSize = Annotated[int, typer.Option("--cache-mb", help="Memory for features, in megabytes.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", help="Read features from `geoaware extract`'s folder, and keep new ones there."),
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
    data = _DataChoice(dataset, root, split, annotations, option, pairs, seed)
    run = _Run(
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
    error_alpha: Annotated[
        float, typer.Option("--error-alpha", help="Threshold of the kinds of mistake.")
    ] = 0.1,
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
    data = _DataChoice(dataset, root, split, annotations, option, pairs, seed)
    run = _Run(
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


@dataclass(frozen=True)
class _DataChoice:
    """Which pairs."""

    dataset: str
    root: Path
    split: str
    annotations: str | None
    option: list[str] | None
    pairs: str
    seed: int

    def load(self) -> DataSet:
        """The data set, cut down to the pairs asked for."""
        from geoaware.data import load, options
        from geoaware.evaluation.predict import choose_pairs

        given = parse_settings(self.option)
        if self.annotations is not None:
            given["annotations"] = self.annotations
        draws_pairs = "seed" in options(self.dataset)
        if draws_pairs:
            # Such a loader makes the pairs itself; it would give its usual number before we could choose.
            given = {"pairs": self.pairs or None, "seed": self.seed, **given}
        data = load(self.dataset, self.root, self.split, **given)
        if draws_pairs or self.pairs in ("", "all"):
            return data
        if not self.pairs.isdecimal():
            raise InputError(
                f"--pairs {self.pairs!r}: give a number or all; a list of pairs is --option pairs=FILE"
            )
        return choose_pairs(data, int(self.pairs), self.seed)


@dataclass(frozen=True)
class _Run:
    """With what to predict."""

    extractor: str
    post_processor: str
    blend: float | None
    pose: str
    pose_rule: str | None
    protocol: str | None
    matching: str
    labels: bool
    masks: bool
    setting: list[str] | None
    batch: int
    cache_mb: int
    cache: Path | None
    device: str
    dtype: str


def _predict(choice: _DataChoice, run: _Run, out: Path | None, restart: bool) -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from geoaware.evaluation.predict import PredictSettings, predict
    from geoaware.evaluation.protocols import FOR_BASE, get_protocol
    from geoaware.features.store import CachedExtractor, FeatureStore

    if run.protocol is not None:
        get_protocol(run.protocol)
    data = choice.load()
    protocol = get_protocol(run.protocol or FOR_BASE[data.threshold_base])
    matcher = _matcher(run, protocol.name)
    if run.cache is not None:
        matcher.extractor = CachedExtractor(matcher.extractor, FeatureStore.of(run.cache, matcher.extractor))
    for note in data.notes:
        typer.echo(f"note: {note}", err=True)
    pictures = len({side.path for pair in data.pairs for side in (pair.source, pair.target)})
    typer.echo(
        f"{data.name} {data.split}: {len(data.pairs):,} pairs of {pictures:,} pictures, "
        f"{matcher.identity}\n"
        f"protocol {protocol.name}: correct is {protocol.rule}",
        err=True,
    )
    path = out or Path(f"{data.name}-{data.split}-{run.extractor}-{protocol.name}.jsonl")
    how = PredictSettings(protocol.name, run.labels, run.masks, run.batch, run.cache_mb * 2**20)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("predicting", total=len(data.pairs))
        return predict(
            data,
            matcher,
            path,
            how,
            restart=restart,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _matcher(run: _Run, protocol: str) -> Matcher:
    """The matcher of a run; what is wrong with its settings is found before the extractor is loaded."""
    from geoaware.evaluation.predict import matching_settings
    from geoaware.matcher import PRESETS, Matcher, choose_post_processor
    from geoaware.matching import MatchSettings

    given = parse_settings(run.setting)
    for_matching = {key: given.pop(key) for key in list(given) if key in MatchSettings.__dataclass_fields__}
    network = choose_post_processor(run.extractor, run.post_processor)
    if run.blend == 0:
        network = None
    extractor = PRESETS.get(run.extractor, run.extractor)
    return Matcher.from_pretrained(
        run.extractor,
        pose=run.pose,
        pose_rule=parse_pose_rule(run.pose_rule),
        settings=matching_settings(extractor, protocol, run.matching, for_matching, network),
        post_processor=network,
        blend=run.blend,
        device=run.device,
        dtype=run.dtype,
        **given,
    )


def _check_by(by: str | None) -> None:
    if by not in (None, "category", "azimuth", "keypoint"):
        raise InputError(f"--by {by!r}: choose category, azimuth or keypoint")


def _report(result: PCKResult, by: Any, json: bool, csv: Path | None, markdown: Path | None) -> None:
    from geoaware.files import replacing
    from geoaware.metrics.report import to_text

    # Made first: a breakdown that cannot be shown must not leave some of the files behind.
    text = result.to_json() if json else to_text(result, by)
    for path, content in ((csv, result.to_csv), (markdown, result.to_markdown)):
        if path is not None:
            with replacing(path) as draft:
                draft.write_text(content(), encoding="utf-8", newline="\n")
    typer.echo(text)


def _plot(result: PCKResult, others: list[PCKResult], folder: Path) -> None:
    from geoaware.metrics.plots import figures, pck_against_window, save

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
