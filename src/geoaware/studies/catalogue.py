"""The table of analyses: what each is called, which data it needs, and what computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from geoaware.runs.errors import InputError
from geoaware.studies import (
    mistakes,
    overview,
    pose_prediction,
    strategies,
    subsets,
    training_transfer,
    windows,
)
from geoaware.studies.ablation import slug
from geoaware.studies.outcome import Outcome
from geoaware.studies.study import PREDICTIONS, Case, Requirement, Study, StudySet
from geoaware.studies.variants import Bench, Variant

SPAIR = ("spair71k",)
WITH_INTRA = ("spair71k", "ap10k-intra")
EVERY_SET = ("spair71k", "ap10k-intra", "ap10k-cross-species", "ap10k-cross-family", "pf-pascal")


def nothing(bench: Bench) -> list[Variant]:
    """No predictions are needed."""
    return []


def table1(study: Study, of: StudySet) -> list[Outcome]:
    """Pose prediction with the plain features, and with the post-processor if there is one."""
    found = []
    for subject in study.bench.subjects[:2]:
        with study.telling.progress(f"table1, {subject}", len(of.data.images)) as follow:
            outcome = pose_prediction.table1(
                of.data,
                study.bench.setup(Variant(subject), of.protocol.name).matcher,
                study.out / PREDICTIONS / of.config.label,
                progress=follow,
            )
        plots = {f"{name}-{slug(subject)}": figure for name, figure in outcome.plots.items()}
        found.append(replace(outcome, data=subject, plots=plots))
    return found


def transfer(name: str, study: Study, sets: Sequence[StudySet]) -> Outcome:
    """Tables 10 and 11: train here, test there."""
    return training_transfer.transfer_table(
        name, study.trainings[name].config, sets, study.out, **_how(study)
    )


def unseen(study: Study, of: StudySet) -> list[Outcome]:
    """Keypoints that training never saw."""
    return [training_transfer.unseen(study.trainings["unseen"].config, of, study.out, **_how(study))]


def _how(study: Study) -> dict[str, Any]:
    telling = study.telling
    return {
        "device": str(study.bench.extractor.device),
        "restart": study.restart,
        "bar": telling.bar,
        "show": telling.steps,
        "say": telling.say,
    }


@dataclass(frozen=True)
class Analysis:
    """One of the paper's analyses.

    Exactly one of the four functions is there.

    Attributes:
        name: on the command line.
        about: for the list of names, in a few words.
        variants: what has to be predicted.
        tell: makes the outcome of one data set from its runs.
        tell_all: makes the outcome of all data sets from their runs.
        work: does work of its own on one data set; or
        work_all: on all data sets together.
        trains: whether it trains, so that it needs the configuration of a training run.
        needs: the paper's data sets that it is about, by their labels in the study "paper".
        requires: what a data set must have.
        partly: what a data set must have for some of it; variants that need masks are then left out.
    """

    name: str
    about: str
    variants: Callable[[Bench], list[Variant]] = nothing
    tell: Callable[[Case], Outcome] | None = None
    tell_all: Callable[[Sequence[Case]], Outcome] | None = None
    work: Callable[[Study, StudySet], list[Outcome]] | None = None
    work_all: Callable[[Study, Sequence[StudySet]], Outcome] | None = None
    trains: bool = False
    needs: tuple[str, ...] = SPAIR
    requires: tuple[Requirement, ...] = ()
    partly: tuple[Requirement, ...] = ()


ANALYSES: dict[str, Analysis] = {
    each.name: each
    for each in (
        Analysis("table1", "pose prediction", work=table1, requires=("azimuth",)),
        Analysis(
            "table3",
            "PCK on every data set",
            overview.with_and_without_pose,
            tell_all=overview.table3,
            needs=EVERY_SET,
        ),
        Analysis(
            "table4",
            "PCK on the geometry-aware subset",
            overview.with_and_without_pose,
            tell_all=overview.table4,
            needs=WITH_INTRA,
            requires=("subgroups",),
        ),
        Analysis("table2", "PCK by category", subsets.usual, overview.table2),
        Analysis(
            "fig4",
            "by category, standard against geometry-aware (also figure 16)",
            subsets.usual,
            subsets.fig4,
            requires=("subgroups",),
        ),
        Analysis(
            "fig5",
            "sensitivity to the viewpoint (also figure 17)",
            subsets.usual,
            subsets.fig5,
            requires=("azimuth",),
        ),
        Analysis(
            "fig15",
            "share of the geometry-aware subset",
            subsets.plain_only,
            subsets.fig15,
            needs=WITH_INTRA,
            requires=("subgroups",),
        ),
        Analysis("table9", "kinds of mistake", subsets.usual, mistakes.table9),
        Analysis("table5", "what each part is worth", overview.parts, overview.table5),
        Analysis("fig18", "side of the soft-argmax window", windows.windows, windows.fig18),
        Analysis("table7", "window against Gaussian kernel", windows.windows_and_kernels, windows.table7),
        Analysis(
            "table12", "zero-shot inference, with and without pose", strategies.strategies, strategies.table12
        ),
        Analysis(
            "table13",
            "how the pose is chosen",
            strategies.alignments,
            strategies.table13,
            partly=("masks",),
        ),
        *(
            Analysis(
                name,
                "trained on one data set, tested on others",
                work_all=partial(transfer, name),
                trains=True,
                needs=training_transfer.TRANSFERS[name].tests,
            )
            for name in ("table10", "table11")
        ),
        Analysis("unseen", "keypoints that training never saw", work=unseen, trains=True),
    )
}
"""In the order of a report."""

ALL = "all"


def choose(name: str) -> list[Analysis]:
    """The analysis of a name, or all.

    Raises:
        InputError: there is none of that name.
    """
    if name == ALL:
        return list(ANALYSES.values())
    if name not in ANALYSES:
        raise InputError(f"there is no analysis {name!r}; choose {', '.join(ANALYSES)} or {ALL}")
    return [ANALYSES[name]]
