"""``geoaware reproduce paper``: from data and weights to the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geoaware.commands.options import parse_extractor_settings, predict_settings, say
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.commands.options import PairOptions, ProtocolOptions, RunOptions
    from geoaware.runs.progress import Tell
    from geoaware.studies.conduct import Report
    from geoaware.studies.reproduction import Reproduction

PAPER = "paper"

CAPTIONER = "captioner.safetensors"
"""In the root, it is taken if no other is given."""


@dataclass(frozen=True)
class Asked:
    """What the command was given."""

    root: Path
    out: Path
    study: str | None
    post_processor: str
    rules: ProtocolOptions
    pairs: PairOptions
    run: RunOptions
    training: bool
    ablation: Path | None
    dry_run: bool
    smoke: bool


def reproduce_paper(asked: Asked) -> None:
    """Do what is left of the steps and print the tables; or list the steps."""
    from geoaware.evaluation.tables import as_text
    from geoaware.runs.progress import progress_bars
    from geoaware.studies.conduct import check_places, write
    from geoaware.studies.costs import plan_grid
    from geoaware.studies.reproduction import ABLATION, RUNS
    from geoaware.studies.steps import carry_out
    from geoaware.studies.study import keep_out_of_git

    asked.rules.check()
    check_places(PAPER, asked.out)
    with progress_bars() as tell:
        work = _reproduction(asked, tell)
        if asked.dry_run:
            steps = work.steps()
            grid = plan_grid([each.line for each in steps], work.rates, _note(work))
            typer.echo(as_text([grid]))
            for each in steps:
                if each.missing:
                    say(f"missing: {each.missing}")
            return
        work.check()
        large = [work.cache] if asked.run.cache is None else []
        large += [asked.out / RUNS, asked.out / ABLATION] if asked.training else []
        for folder in large:
            keep_out_of_git(folder)
        carry_out(work.steps, work.rates, say)
        report = work.report()
        path = write(report, asked.out)
    print_report(report, path)


def print_report(report: Report, path: Path) -> None:
    """Print a report that was written to a path, and say where all of it is."""
    from geoaware.studies.case import PREDICTIONS
    from geoaware.studies.conduct import to_text

    typer.echo(to_text(report))
    for line in report.left_out:
        say(f"left out: {line}")
    figures, predictions = path.with_name(f"{report.name}.json"), path.with_name(PREDICTIONS)
    say(f"wrote {path}\nfigures: {figures}; predictions: {predictions}")


def _reproduction(asked: Asked, tell: Tell) -> Reproduction:
    from geoaware.studies.costs import load_rates
    from geoaware.studies.reproduction import Choices, Reproduction
    from geoaware.studies.study import FEATURES, load_study

    run, given = asked.run, parse_extractor_settings(asked.run.setting)
    root, more = asked.root, dict[str, Any]()
    if asked.smoke:
        from geoaware.studies.rehearsal import RULES, rehearse

        made = rehearse(root, asked.out)
        root, given = made.root, {**made.settings, **given}
        more = {"changes": made.changes, "rules": RULES, "widths": made.widths}
    elif "sd15.captioner" not in given and (root / CAPTIONER).is_file():
        given["sd15.captioner"] = str(root / CAPTIONER)
    if asked.training and run.dtype != "fp32":
        raise InputError("trainings read features that were computed in fp32; leave this out", "dtype")
    choices = Choices(
        settings=given,
        training=asked.training,
        post_processor=asked.post_processor,
        ablation=asked.ablation,
        pairs=asked.pairs.count,
        seed=asked.pairs.seed,
        protocol=asked.rules.protocol,
        matching=asked.rules.matching,
        predict=predict_settings("paper", asked.rules, run),
        memory=run.cache_mb * 2**20,
        device=run.device,
        dtype=run.dtype,
        **more,
    )
    cache, study = run.cache or asked.out / FEATURES, load_study(asked.study or PAPER)
    return Reproduction(
        root, asked.out, cache, study, choices, load_rates(asked.out, not asked.smoke), tell, say
    )


def _note(work: Reproduction) -> str:
    """What the estimates rest on."""
    from geoaware.store.extraction import free_disk

    free = free_disk(work.cache)
    room = "" if free is None else f" {free / 1e9:,.1f} GB are free."
    return (
        f"Time at the rates of {work.rates.source}; disk: bytes of a feature file (fp16) times files, and "
        "measured bytes of a prediction and of a run; memory: measured peaks, with the networks and full "
        f"caches. What is not there yet is counted as published.{room}"
    )
