"""``geoaware reproduce``: the paper's analyses on its own data or on any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from geoaware.commands.options import (
    DataOptions,
    FeatureOptions,
    LoaderOptions,
    PairOptions,
    PoseOptions,
    ProtocolOptions,
    RunOptions,
    Without,
    expand,
    load_data,
    load_matcher,
    parse_settings,
    predict_settings,
    say,
)
from geoaware.commands.paper import PAPER, Asked, print_report, reproduce_paper
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.studies.catalogue import Analysis
    from geoaware.studies.study import StudyConfig, StudySet, Training
    from geoaware.studies.variants import Bench


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """A data set, or a study of several."""

    dataset: Annotated[
        str | None,
        Option(
            help="spair71k, pf-pascal … (docs/data.md has all); or a study: shared, or a YAML file that "
            "lists data sets. The paper's own if not given."
        ),
    ] = None
    split: Annotated[str | None, Option(help="Of the data set: trn, val, test …; not for a study.")] = None
    loader: LoaderOptions


@dataclass(frozen=True)
class WorkOptions:
    """What is trained, what stands beside it, and what is made anew."""

    config: Annotated[
        str | None,
        Option(
            metavar="PLACE",
            help="What table10, table11 or unseen trains: a YAML file or a shipped one; a study has its own.",
        ),
    ] = None
    training: Annotated[
        bool, Option("--training/--no-training", help="Whether `all` and `paper` have what must be trained.")
    ] = True
    ablation: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="What `geoaware ablation --json` printed, to stand beside table5 and table9.",
        ),
    ] = None
    restart: Annotated[
        bool, Option("--restart", help="Throw away the predictions that are needed and make them again.")
    ] = False
    dry_run: Annotated[
        bool, Option("--dry-run", help="paper: list every step with disk, time and memory, and do nothing.")
    ] = False
    smoke: Annotated[
        bool, Option("--smoke", help="paper: rehearse all of it on a few images with tiny networks.")
    ] = False


@expand
def reproduce(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="table1 … table5, table7, table9 … table13, unseen, fig4, fig5, fig15, fig18; or all; or "
            "paper: everything from data and weights to tables 2 to 5, 9, 12 and 13.",
        ),
    ],
    root: Annotated[Path, Option(help="Folder of the data set, or of the data sets of a study.")],
    out: Annotated[Path, Option(help="Folder of report, plots and predictions.")],
    data: SetOptions,
    features: Annotated[FeatureOptions, Without("blend", "views")],
    rules: Annotated[ProtocolOptions, Without("masks")],
    chosen: PairOptions,
    run: RunOptions,
    work: WorkOptions,
) -> None:
    """Make an analysis of the paper, or all of them, on its data or on yours.

    Tables, plots and a sentence on what they show; the paper's figures stand beside ours. Predictions are
    kept in OUT/predictions and reused; a run that was stopped goes on when the same command is given again.
    Features are kept in OUT/features unless --cache names another folder.

    Examples:

    geoaware reproduce table12 --root SPair-71k --out results

    geoaware reproduce fig4 --dataset coco --root lspet --annotations val.json --split val --out results

    geoaware reproduce all --dataset shared --root DATA --out results

    geoaware reproduce paper --root DATA --out results --dry-run
    """
    if name == PAPER:
        _check_paper(data, features, work)
        given = root, out, data.dataset, features.post_processor, rules, chosen, run
        return reproduce_paper(Asked(*given, work.training, work.ablation, work.dry_run, work.smoke))
    if work.dry_run or work.smoke:
        raise InputError("this goes with `paper` only", "dry_run" if work.dry_run else "smoke")
    _analyse(name, root, out, data, features, rules, chosen, run, work)


def _analyse(
    name: str,
    root: Path,
    out: Path,
    data: SetOptions,
    features: FeatureOptions,
    rules: ProtocolOptions,
    chosen: PairOptions,
    run: RunOptions,
    work: WorkOptions,
) -> None:
    """Make one analysis, or all, of a data set or a study."""
    from geoaware.runs.progress import progress_bars
    from geoaware.studies.ablation_table import trained_rows
    from geoaware.studies.catalogue import choose
    from geoaware.studies.conduct import check_places, conduct, write
    from geoaware.studies.study import FEATURES, Study, keep_out_of_git

    analyses = [each for each in choose(name) if work.training or not each.trains or name == each.name]
    trained = [] if work.ablation is None else [trained_rows(work.ablation)]
    cache = run.cache or out / FEATURES
    rules.check()
    check_places(name, out)
    config, sets = _load(analyses, root, data, chosen, rules)
    trainings = _trainings(analyses, config, work.config, root if config.sets else None, cache)
    _say_notes(sets)
    if run.cache is None:
        keep_out_of_git(cache)
    bench = _bench(features, replace(run, cache=cache), rules)
    settings = predict_settings("paper", rules, run)
    as_in_paper = data.dataset is None
    with progress_bars() as tell:
        study = Study(tuple(sets), bench, out, settings, trainings, tell, say, work.restart, as_in_paper)
        report = conduct(study, name, analyses, about=config.about)
        report = replace(report, outcomes=(*report.outcomes, *trained))
        path = write(report, out)
    print_report(report, path)


def _check_paper(data: SetOptions, features: FeatureOptions, work: WorkOptions) -> None:
    """Refuse what `paper` does not take.

    Raises:
        InputError: it is given.
    """
    from geoaware.studies.planned import EXTRACTOR

    if data.split or data.loader.annotations or data.loader.option:
        raise InputError("paper takes the paper's data sets, or those of a study; leave this out", "split")
    # Lite is what stands there if nothing is given.
    if features.extractor not in ("lite", EXTRACTOR):
        raise InputError(f"paper takes the paper's features, {EXTRACTOR}; `all` takes others", "extractor")
    if work.config is not None:
        raise InputError("paper trains what the study names; leave this out", "config")
    if work.restart:
        raise InputError(
            "paper goes on with what is there; remove from its folder what is to be made anew", "restart"
        )


def _say_notes(sets: list[StudySet]) -> None:
    for each in sets:
        for note in each.data.notes:
            say(f"note: {each.title}: {note}")


def _load(
    analyses: list[Analysis], root: Path, data: SetOptions, chosen: PairOptions, rules: ProtocolOptions
) -> tuple[StudyConfig, list[StudySet]]:
    """The study, without sets where a single data set was asked for, and the data sets."""
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

    if data.dataset and not is_study(data.dataset):
        if not data.split:
            raise InputError(f"--dataset {data.dataset} needs --split (trn, val, test …)")
        one = load_data(DataOptions(data.dataset, root, data.split, data.loader), chosen)
        label = slug(f"{root.resolve().name or one.name} {one.split}") or one.name
        config = SetConfig(label=label, name=one.name, split=one.split)
        return StudyConfig.model_construct(sets=()), [StudySet(config, one, rules.of(one))]
    if data.split or data.loader.annotations or data.loader.option:
        raise InputError("--split, --annotations and --option go with --dataset NAME; a study has its own")
    study = load_study(data.dataset or PAPER)
    needed = {label for each in analyses for label in each.needs}
    return study, [
        load_set(each, root, pairs=chosen.count, seed=chosen.seed, protocol=rules.protocol)
        for each in study.sets
        if data.dataset or each.label in needed
    ]


def _trainings(
    analyses: list[Analysis], study: StudyConfig, config: str | None, root: Path | None, cache: Path
) -> dict[str, Training]:
    """What the chosen analyses train."""
    from geoaware.studies.study import Training, TrainingConfig
    from geoaware.training.post_processor.config import load_config

    named = {each.name: study.trainings.get(each.name) for each in analyses if each.trains}
    if config is not None:
        if len(analyses) != 1 or not named:
            raise InputError("--config is for an analysis that trains: table10, table11 or unseen")
        named = {analyses[0].name: TrainingConfig(config=config)}
    changes = {"cache": str(cache), **({} if root is None else {"root": str(root)})}
    return {
        name: Training(load_config(each.config, changes), each.tests)
        for name, each in named.items()
        if each is not None
    }


def _bench(features: FeatureOptions, run: RunOptions, rules: ProtocolOptions) -> Bench:
    """The extractor once, for all variants; settings of the matching are for the analyses to vary."""
    from geoaware.method.matching import MatchSettings
    from geoaware.presets import choose_post_processor
    from geoaware.studies.variants import Bench

    varied = [key for key in parse_settings(run.setting) if key in MatchSettings.__dataclass_fields__]
    if varied:
        raise InputError(f"--set {varied[0]}: the analyses vary how similarity is read; use --matching")
    network = choose_post_processor(features.extractor, features.post_processor)
    plain = replace(features, post_processor="none")
    extractor = load_matcher(plain, run, PoseOptions("off"), matching=rules.matching).extractor
    return Bench(extractor, network, rules.matching, run.cache_mb * 2**20)
