"""``geoaware reproduce``: the paper's analyses on its own data or on any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoaware.commands.choices import (
    Annotations,
    Batch,
    CacheFolder,
    CacheSize,
    DataChoice,
    DataOption,
    Extractor,
    Labels,
    MatchingChoice,
    Pairs,
    ProtocolName,
    RunChoice,
    Seed,
    Setting,
)
from geoaware.commands.options import Device, Dtype, PostProcessorPlace, parse_settings
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.studies.catalogue import Analysis
    from geoaware.studies.study import StudyConfig, StudySet, Training
    from geoaware.studies.variants import Bench


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="table1 … table5, table7, table9 … table13, unseen, fig4, fig5, fig15, fig18; or all.",
        ),
    ],
    root: Annotated[
        Path, typer.Option("--root", help="Folder of the data set, or of the data sets of a study.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of report, plots and predictions.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="spair71k, pf-pascal, pf-willow, ap10k, coco or pairs; or a study: shared, or a YAML file "
            "that lists data sets. The paper's own if not given.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of the data set: trn, val, test …; not for a study.")
    ] = None,
    annotations: Annotations = None,
    option: DataOption = None,
    extractor: Extractor = "lite",
    post_processor: PostProcessorPlace = "auto",
    protocol: ProtocolName = None,
    matching: MatchingChoice = "auto",
    labels: Labels = True,
    pairs: Pairs = "",
    seed: Seed = 0,
    setting: Setting = None,
    batch: Batch = 0,
    cache_mb: CacheSize = 2048,
    cache: CacheFolder = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="PLACE",
            help="What table10, table11 or unseen trains: a YAML file or a shipped one; a study has its own.",
        ),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Whether `all` has the analyses that train.")
    ] = True,
    ablation: Annotated[
        Path | None,
        typer.Option(
            "--ablation",
            metavar="FILE",
            help="What `geoaware ablation --json` printed, to stand beside table5 and table9.",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw away the predictions that are needed and make them again."),
    ] = False,
) -> None:
    """Make an analysis of the paper, or all of them, on its data or on yours.

    Tables, plots and a sentence on what they show; the paper's figures stand beside ours. Predictions are
    kept in OUT/predictions and reused; a run that was stopped goes on when the same command is given again.
    Features are kept in OUT/features unless --cache names another folder.

    Examples:

    geoaware reproduce table12 --root SPair-71k --out results

    geoaware reproduce fig4 --dataset coco --root lspet --annotations val.json --split val --out results

    geoaware reproduce all --dataset shared --root DATA --out docs/results
    """
    from geoaware.runs.progress import progress_bars
    from geoaware.studies.ablation_table import trained_rows
    from geoaware.studies.catalogue import choose
    from geoaware.studies.conduct import conduct, to_text, write
    from geoaware.studies.study import FEATURES, Study, keep_out_of_git

    chosen = [each for each in choose(name) if training or not each.trains or name == each.name]
    trained = None if ablation is None else trained_rows(ablation)
    features = cache or out / FEATURES
    run = RunChoice(
        extractor,
        "none",
        None,
        "off",
        None,
        protocol,
        matching,
        labels,
        False,
        setting,
        batch,
        cache_mb,
        features,
        device,
        dtype,
    )
    run.check()
    choice = DataChoice(dataset or "", root, split or "", annotations, option, pairs, seed)
    study, sets = _load(chosen, choice, protocol)
    trainings = _trainings(chosen, study, config, root if study.sets else None, features)
    for each in sets:
        for note in each.data.notes:
            typer.echo(f"note: {each.title}: {note}", err=True)
    if cache is None:
        keep_out_of_git(features)
    bench = _bench(run, post_processor)
    with progress_bars() as tell:
        work = Study(
            tuple(sets),
            bench,
            out,
            run.how("paper"),
            trainings=trainings,
            tell=tell,
            say=lambda text: typer.echo(text, err=True),
            restart=restart,
            as_in_paper=dataset is None,
        )
        report = conduct(work, name, chosen, about=study.about)
        if trained is not None:
            report = replace(report, outcomes=(*report.outcomes, trained))
        path = write(report, out)
    typer.echo(to_text(report))
    for line in report.left_out:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"wrote {path}\nfigures: {out / f'{name}.json'}; predictions: {out / 'predictions'}", err=True)


def _load(
    chosen: list[Analysis], choice: DataChoice, protocol: str | None
) -> tuple[StudyConfig, list[StudySet]]:
    """The study, without sets where a single data set was asked for, and the data sets.

    Raises:
        InputError: data is not there, or an option does not go with the rest.
    """
    from geoaware.evaluation.protocols import FOR_BASE, get_protocol
    from geoaware.studies.case import slug
    from geoaware.studies.study import (
        PAPER,
        SetConfig,
        StudyConfig,
        StudySet,
        is_study,
        load_set,
        load_study,
    )

    if choice.dataset and not is_study(choice.dataset):
        if not choice.split:
            raise InputError(f"--dataset {choice.dataset} needs --split (trn, val, test …)")
        data = choice.load()
        label = slug(f"{choice.root.resolve().name or data.name} {data.split}") or data.name
        config = SetConfig(label=label, name=data.name, split=data.split)
        rules = get_protocol(protocol or FOR_BASE[data.threshold_base])
        return StudyConfig.model_construct(sets=()), [StudySet(config, data, rules)]
    if choice.split or choice.annotations or choice.option:
        raise InputError("--split, --annotations and --option go with --dataset NAME; a study has its own")
    study = load_study(choice.dataset or PAPER)
    needed = {label for each in chosen for label in each.needs}
    sets = [each for each in study.sets if choice.dataset or each.label in needed]
    count = None if choice.pairs in ("", "all") else _count(choice.pairs)
    return study, [
        load_set(each, choice.root, pairs=count, seed=choice.seed, protocol=protocol) for each in sets
    ]


def _trainings(
    chosen: list[Analysis], study: StudyConfig, config: str | None, root: Path | None, cache: Path
) -> dict[str, Training]:
    """What the chosen analyses train.

    Raises:
        InputError: a configuration is wrong, or is given where nothing is trained.
    """
    from geoaware.studies.study import Training, TrainingConfig
    from geoaware.training.post_processor.config import load_config

    named = {each.name: study.trainings.get(each.name) for each in chosen if each.trains}
    if config is not None:
        if len(chosen) != 1 or not named:
            raise InputError("--config is for an analysis that trains: table10, table11 or unseen")
        named = {chosen[0].name: TrainingConfig(config=config)}
    changes = {"cache": str(cache), **({} if root is None else {"root": str(root)})}
    return {
        name: Training(load_config(each.config, changes), each.tests)
        for name, each in named.items()
        if each is not None
    }


def _count(pairs: str) -> int:
    if not pairs.isdecimal() or int(pairs) < 1:
        raise InputError(f"--pairs {pairs!r}: give a number, or all")
    return int(pairs)


def _bench(run: RunChoice, post_processor: str) -> Bench:
    """The extractor once, for all variants.

    Raises:
        InputError: unknown names, missing weights, a post-processor for other features, or a setting of the
            matching, which is for the analyses to vary.
    """
    from geoaware.features.refined import check_fit
    from geoaware.method.matching import MatchSettings
    from geoaware.presets import choose_post_processor
    from geoaware.studies.variants import Bench

    varied = [key for key in parse_settings(run.setting) if key in MatchSettings.__dataclass_fields__]
    if varied:
        raise InputError(f"--set {varied[0]}: the analyses vary how similarity is read; use --matching")
    network = choose_post_processor(run.extractor, post_processor)
    extractor = run.matcher("paper").extractor
    if network is not None:
        check_fit(network, extractor)  # before anything is predicted
    return Bench(extractor, network, run.matching, run.cache_mb * 2**20)
