"""The table of analyses: what each is called, which data it needs, and what computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from geoaware.runs.errors import InputError
from geoaware.runs.progress import renamed
from geoaware.studies import error_types, overview, pose_prediction, strategies, subsets
from geoaware.studies.case import PREDICTIONS, Outcome, slug
from geoaware.studies.study import Requirement, Study, StudySet
from geoaware.studies.variants import Bench, Variant

SPAIR = ("spair71k",)
WITH_INTRA = ("spair71k", "ap10k-intra")
EVERY_SET = ("spair71k", "ap10k-intra", "ap10k-cross-species", "ap10k-cross-family", "pf-pascal")


def table1(study: Study, of: StudySet) -> list[Outcome]:
    """Pose prediction with the plain features, and with the post-processor if there is one."""
    found = []
    for subject in study.bench.subjects[:2]:
        outcome = pose_prediction.table1(
            of.data,
            study.bench.setup(Variant(subject), of.protocol.name).matcher,
            study.out / PREDICTIONS / of.config.label,
            tell=renamed(study.tell, f"table1, {subject}"),
            restart=study.restart,
        )
        plots = {f"{name}-{slug(subject)}": figure for name, figure in outcome.plots.items()}
        found.append(replace(outcome, data=subject, plots=plots))
    return found


def trained(name: str, study: Study, *sets: StudySet) -> list[Outcome]:
    """Train on one data set and test on others, or on keypoints that training never saw."""
    from geoaware.studies import training_transfer
    from geoaware.studies.trained import Trainer

    device = str(study.bench.extractor.device)
    trainer = Trainer(study.trainings[name].config, device, study.restart, study.tell, study.say)
    if name == "unseen":
        return [training_transfer.unseen(trainer, sets[0], study.out)]
    return [training_transfer.transfer_table(trainer, sets, study.out)]


@dataclass(frozen=True)
class Analysis:
    """One of the paper's analyses.

    Attributes:
        name: on the command line.
        title: a heading.
        about: what is measured, and where the paper does it, in a sentence or two.
        make: makes the outcome of a data set from its `Case`, or with ``together`` of several.
        variants: what has to be predicted for ``make``.
        work: instead of ``make``, does work of its own on a study's data set, or on several.
        together: whether all data sets are looked at side by side.
        trains: whether it trains, so that it needs the configuration of a training run.
        needs: the paper's data sets that it is about, by their labels in the study "paper".
        requires: what a data set must have.
        partly: what a data set must have for some of it; variants that need masks are then left out.
    """

    name: str
    title: str
    about: str
    make: Callable[..., Outcome] | None = None
    variants: Callable[[Bench], list[Variant]] = lambda _: []
    work: Callable[..., list[Outcome]] | None = None
    together: bool = False
    trains: bool = False
    needs: tuple[str, ...] = SPAIR
    requires: tuple[Requirement, ...] = ()
    partly: tuple[Requirement, ...] = ()


_TRANSFER = (
    "Trained on one data set, tested on others",
    "Trained on one data set and tested on each, against the same features without training. The paper does "
    "this with PF-PASCAL (table 10) and SPair-71k (table 11), appendix D.3, and finds its method ahead of "
    "other trained ones everywhere; its text as it is at hand lacks the figures of both tables, so no row of "
    "the paper stands here.",
)

# fmt: off
_TABLE: tuple[Analysis, ...] = (
    Analysis("table1", "Pose prediction by template matching",
             "From which side does an image show its object? The template (left, right, front, back) at the "
             "smallest distance has the vote of its set, and most votes win (section 3.4, table 1). Nothing "
             "is trained for it.",
             work=table1, requires=("azimuth",)),
    Analysis("table3", "Every data set at every alpha",
             "PCK of all keypoints in the average that the protocol quotes (table 3). The paper's figures "
             "are of SPair-71k only: those of its other data sets are not in the text that we have.",
             overview.table3, overview.with_and_without_pose, together=True, needs=EVERY_SET),
    Analysis("table4", "The geometry-aware subset of every data set",
             "PCK of the keypoints that only geometry tells apart, and the relative gap to all keypoints at "
             "0.1 (table 4, section 5.1).",
             overview.table4, overview.with_and_without_pose, together=True, needs=WITH_INTRA,
             requires=("subgroups",)),
    Analysis("table2", "PCK by category",
             "Table 2: unsupervised methods per point, supervised ones per image. Of the paper's figures "
             "only the averages are in the text that we have.",
             overview.table2, subsets.usual),
    Analysis("fig4", "The geometry-aware subset, category by category",
             "PCK of all keypoints and of those that only geometry tells apart (figures 4 and 16).",
             subsets.fig4, subsets.usual, requires=("subgroups",)),
    Analysis("fig5", "Sensitivity to the viewpoint",
             "How much worse matching gets in the worst of the five subsets by difference of azimuth "
             "(section 3.3, figures 5 and 17).",
             subsets.fig5, subsets.usual, requires=("azimuth",)),
    Analysis("fig15", "Share of the geometry-aware subset",
             "How many pairs and keypoints need geometry to be told apart (section 3.2, figure 15).",
             # One file is enough, because only the annotations count.
             subsets.fig15, lambda _: [Variant()], needs=WITH_INTRA, requires=("subgroups",)),
    Analysis("table9", "Error types",
             "Jitter: beyond alpha, within twice alpha. Miss: nothing within alpha. Swap: another keypoint "
             "is nearest; swap LR: it is the mirror partner (Aygün & Mac Aodha 2022; section D.4, table 9). "
             "The paper's leave-one-out rows are trained; ours are made by `geoaware ablation`.",
             error_types.table9, subsets.usual),
    Analysis("table5", "What each part is worth",
             "Table 5, as far as one set of weights tells; rows trained without a part are made by "
             "`geoaware ablation`, whose JSON can be given to stand here too. The paper's figures are taken "
             "from its tables 9 and 12, which have the same rows.",
             overview.table5, overview.parts),
    Analysis("fig18", "Side of the soft-argmax window",
             "Window 1 is argmax, the whole map soft-argmax (section D.2, figure 18). The window that is "
             "best here was chosen on these same pairs.",
             strategies.fig18, strategies.windows),
    Analysis("table7", "Window against Gaussian kernel",
             "Soft-argmax over a window around the best cell, or over the whole map weighted by a Gaussian "
             "around it (section D.2, table 7). What is best was chosen on these same pairs.",
             strategies.table7, strategies.windows_and_kernels),
    Analysis("table12", "Zero-shot inference strategies",
             "Plain features, argmax, soft-argmax or a window, without and with pose alignment as it is by "
             "default (section D.5, table 12). Windows are in cells, the paper's of a map of 60.",
             strategies.table12, strategies.strategies),
    Analysis("table13", "How the pose is chosen",
             "Zero-shot, mirrored or not: by the distance of mutual nearest neighbours, by IMD over the "
             "whole image, by IMD on an annotated mask (section E.1, table 13).",
             strategies.table13, strategies.alignments, partly=("masks",)),
    Analysis("table10", *_TRANSFER, work=partial(trained, "table10"), together=True, trains=True,
             needs=WITH_INTRA),
    Analysis("table11", *_TRANSFER, work=partial(trained, "table11"), together=True, trains=True,
             needs=("pf-pascal", "ap10k-intra")),
    Analysis("unseen", "Keypoints never trained on",
             "Trained on some of the keypoints, tested on these and on the others, which the training takes "
             "for not annotated. Supervised features are known to fall below zero-shot there: on SPair-U "
             "56.9 against 59.4 at PCK@0.10 (Mariotti et al. 2025). Distillation is the weight of the loss "
             "that holds unannotated points to the extractor's own similarities (not in the paper); the "
             "runs differ in nothing else.",
             work=partial(trained, "unseen"), trains=True),
)
# fmt: on

ANALYSES = {each.name: each for each in _TABLE}
"""By name, in the order of a report."""

ALL = "all"


def choose(name: str) -> list[Analysis]:
    """The analysis of a name, or all."""
    if name == ALL:
        return list(ANALYSES.values())
    if name not in ANALYSES:
        raise InputError(f"there is no analysis {name!r}; choose {', '.join(ANALYSES)} or {ALL}")
    return [ANALYSES[name]]
