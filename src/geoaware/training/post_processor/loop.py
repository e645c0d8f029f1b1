"""The training of a post-processor: stages of steps on cached features.

The run's folder is described in `geoaware.training.kit`; its weights are ``best/`` and ``last/``, which
`PostProcessor.from_pretrained` takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.sampling import permutation
from geoaware.features import Extractor, load_extractor
from geoaware.features.refined import RefinedExtractor
from geoaware.method.geometry import Pose
from geoaware.method.post_processor import PostProcessor, PostProcessorSettings
from geoaware.runs import checkpoint
from geoaware.runs.checkpoint import Position
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.optional import require
from geoaware.runs.progress import Tell, silent
from geoaware.store.extraction import Shard
from geoaware.store.feature_store import FeatureStore
from geoaware.training.kit import (
    DivergedError,
    Journal,
    Say,
    load_sets,
    load_validation,
    open_folder,
    read_ahead,
    say_notes,
)
from geoaware.training.post_processor.augment import Example, make_example
from geoaware.training.post_processor.config import SPAIR_PAIRS, Stage, TrainConfig
from geoaware.training.post_processor.features import StoredFeatures, complete
from geoaware.training.post_processor.groups import ImageGroups, PairGroups, make_groups
from geoaware.training.post_processor.step import Step
from geoaware.training.validation import Score, validate

BEST, LAST = "best", "last"

Part = tuple[tuple[Tensor, ...], list[Example]]
"""Features and labels of some groups of a step, computed at once."""


def train(
    config: TrainConfig,
    out: Path,
    *,
    device: str = "auto",
    restart: bool = False,
    tell: Tell = silent,
    say: Say = lambda _: None,
) -> Path:
    """Train a post-processor, or go on with a run that was stopped.

    Args:
        config: what to do.
        out: the run's folder.
        device: as for `load_extractor`.
        restart: throw away what an earlier run left in the folder.
        tell: is told how far extracting features and training are.
        say: takes lines on what happens.

    Returns:
        The folder of the best weights (of the last ones, without validation).

    Raises:
        InputError: a setting, data set or file does not fit; the folder belongs to another run.
        DivergedError: the loss became NaN or infinite.
    """
    run = _prepare(config.as_released(), out, device, restart, tell, say)
    position = run.journal.position
    try:
        while position.stage < len(run.tasks):
            _run_stage(run, run.tasks[position.stage])
            position.stage, position.step = position.stage + 1, 0
    finally:
        run.journal.log.close()
    return out / (BEST if run.validation else LAST)


@dataclass(frozen=True)
class _Task:
    """A stage with what it trains on.

    Attributes:
        stage: its settings.
        groups: of images.
        key: of everything drawn in it.
        steps: of the optimiser.
        length: of the one-cycle schedule; fixed at SPair-71k's in the released code.
    """

    stage: Stage
    groups: PairGroups | ImageGroups
    key: str
    steps: int
    length: int

    @classmethod
    def of(cls, stage: Stage, sets: Sequence[DataSet], key: str, released: bool) -> _Task:
        """The length of a stage of epochs is that of its own data, whatever the data set."""
        groups = make_groups(stage, sets, key)
        if stage.steps is not None or stage.epochs is None:
            return cls(stage, groups, key, stage.steps or 0, stage.steps or 0)
        steps = max(1, math.ceil(stage.epochs * len(groups) / stage.batch))
        fixed = math.ceil(stage.epochs * SPAIR_PAIRS / stage.batch) if released else 0
        return cls(stage, groups, key, steps, max(steps, fixed))


@dataclass(frozen=True)
class _Run:
    """Everything that the stages share.

    Attributes:
        config: of the run.
        out: its folder.
        accelerator: of the processes that train together.
        step: the network with its objective.
        model: the same, with gradients averaged over the processes.
        extractor: of the features.
        features: of every image.
        tasks: the stages.
        validation: sets.
        saved: the state to go on from.
        journal: where the run is.
    """

    config: TrainConfig
    out: Path
    accelerator: Any
    step: Step
    model: torch.nn.Module
    extractor: Extractor
    features: StoredFeatures
    tasks: list[_Task]
    validation: list[DataSet]
    saved: checkpoint.Saved | None
    journal: Journal

    @property
    def network(self) -> PostProcessor:
        """What is trained."""
        return self.step.network


def _prepare(config: TrainConfig, out: Path, device: str, restart: bool, tell: Tell, say: Say) -> _Run:
    accelerate = require("accelerate", extra="train")
    # What does not fit is refused before features are extracted, which may take hours.
    sets = [load_sets(stage.data, config.root) for stage in config.stages]
    validation = load_validation(config)
    if config.flips.used:
        for each in (data for stage in sets for data in stage):
            _check_flips(each)
    released = config.preset == "released"
    tasks = [
        _Task.of(stage, data, f"{config.seed}/{number}", released)
        for number, (stage, data) in enumerate(zip(config.stages, sets, strict=True))
    ]
    place = Shard.from_environment().device(device)
    extractor = load_extractor(config.extractor, device=place, **config.extractor_settings)
    # Its own bf16 mode would hold for every later run of the process.
    accelerator = accelerate.Accelerator(cpu=extractor.device.type == "cpu", mixed_precision="no")
    for number, stage in enumerate(config.stages):
        _check_batch(stage, number, accelerator.num_processes)
    begun = None if config.start is None else _begun(config.start, config.network, extractor)
    main = accelerator.is_main_process
    with accelerator.main_process_first():
        saved = open_folder(config, out, restart and main, (BEST, LAST))
    features = _features(config, extractor, tasks, validation, tell)
    accelerator.wait_for_everyone()
    network = _network(config, extractor, features.levels(tasks[0].groups.images[0].path), begun)
    say_notes([*(data for stage in sets for data in stage), *validation], say)
    position = Position() if saved is None else saved.position
    if saved is not None:
        network.load_state_dict(saved.network)
        say(f"going on at step {position.total}")
    step = Step(network, config.loss, config.seed, config.matching.blend, extractor.combine)
    journal = Journal(
        config, sum(each.steps for each in tasks), position, Log(out, position.total, main), tell, say, main
    )
    model = accelerator.prepare_model(step)
    return _Run(config, out, accelerator, step, model, extractor, features, tasks, validation, saved, journal)


def _check_flips(data: DataSet) -> None:
    """Refuse flips where nothing says what becomes of the labels.

    Raises:
        InputError: no category of the data set has flip pairs.
    """
    if not any(data.schemas[pair.category].flip_pairs for pair in data.pairs):
        raise InputError(
            f"{data.name}, split {data.split}: has no flip pairs, so mirrored images cannot be labelled; "
            "add flip_pairs to the annotation file, or set flips.double, flips.single and flips.self to 0"
        )


def _check_batch(stage: Stage, number: int, processes: int) -> None:
    """Make sure that every process has equally many groups in every part of a step.

    Raises:
        InputError: it has not.
    """
    if stage.batch % (processes * stage.accumulate):
        raise InputError(
            f"stages.{number}: a batch of {stage.batch} cannot be shared by {processes} processes in "
            f"{stage.accumulate} parts; make it a multiple of {processes * stage.accumulate}"
        )


def _features(
    config: TrainConfig,
    extractor: Extractor,
    tasks: Sequence[_Task],
    validation: Sequence[DataSet],
    tell: Tell,
) -> StoredFeatures:
    """The store, with everything in it that the run reads."""
    store = FeatureStore.of(config.cache, extractor, config.stored)
    poses: tuple[Pose, ...] = ("identity", "flip") if config.flips.used else ("identity",)
    trained = {image.path for task in tasks for image in task.groups.images}
    validated = {
        image.path for data in validation for pair in data.pairs for image in (pair.source, pair.target)
    }
    complete(store, extractor, trained, poses, tell)
    complete(store, extractor, validated - trained, ("identity",), tell)
    return StoredFeatures(store)


def _begun(start: str, shape: PostProcessorSettings, extractor: Extractor) -> PostProcessor:
    """The post-processor to go on from.

    Raises:
        InputError: it is of another extractor or shape.
    """
    begun = PostProcessor.from_pretrained(start)
    known = begun.info.get("extractor", extractor.identity)
    if known != extractor.identity:
        raise InputError(
            f"{start}: was trained on features of {known}, not of {extractor.identity}; choose that extractor"
        )
    for name in ("width", "context", "centred"):
        there, here = getattr(begun.settings, name), getattr(shape, name)
        if there != here:
            raise InputError(f"{start}: has {name} {there}, the run has {here}; set network.{name}={there}")
    return begun


def _network(
    config: TrainConfig, extractor: Extractor, levels: Sequence[Tensor], begun: PostProcessor | None
) -> PostProcessor:
    """A new post-processor for such raw maps, or one with the weights to go on from.

    Raises:
        InputError: the weights to go on from are for other maps.
    """
    channels = tuple(level.shape[0] for level in levels)
    torch.manual_seed(config.seed)
    network = PostProcessor(**asdict(replace(config.network, channels=channels)))
    if begun is not None:
        if begun.settings.channels != channels:
            raise InputError(
                f"{config.start}: takes maps of {begun.settings.channels} channels, {extractor.identity} "
                f"gives {channels}; choose the extractor that it was trained on"
            )
        network.load_state_dict(begun.state_dict())
    network.self_logit_scale.requires_grad_(False)
    network.logit_scale.requires_grad_(config.loss.sparse > 0)
    network.info = {
        "extractor": extractor.identity,
        "extractor_weights": extractor.weights_hash(),
        "matching": config.matching.model_dump(exclude_none=True),
        "training": config.model_dump(exclude_defaults=True, exclude={"root", "cache", "matching"}),
        "versions": {"geoaware": __version__, "torch": str(torch.__version__)},
    }
    return network.to(extractor.device)


def _run_stage(run: _Run, task: _Task) -> None:
    stage, position = task.stage, run.journal.position
    trained = [each for each in run.step.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    # With exactly one rising step PyTorch would divide by zero.
    rising = stage.rising * (1 + 1e-9) if stage.rising * task.length == 1 else stage.rising
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, stage.learning_rate, total_steps=task.length, pct_start=rising
    )
    if run.saved is not None and position.step:
        run.saved.restore(optimiser, schedule)

    def save(best: Mapping[str, float] | None) -> None:
        if best is not None:
            info = run.network.info
            run.network.info = {**info, "validation": {"step": position.total, **best}}
            run.network.save_pretrained(run.out / BEST)
            run.network.info = info
        run.network.save_pretrained(run.out / LAST)
        checkpoint.save(run.out, run.network, optimiser, schedule.state_dict(), position)

    run.model.train()
    for step, parts in read_ahead(lambda each: _read(run, task, each), position.step, task.steps):
        figures = _take(run, task, step, parts, optimiser)
        figures["learning_rate"] = optimiser.param_groups[0]["lr"]
        last = step + 1 == task.steps
        if not last:
            schedule.step()
        if run.journal.after_step(figures, last, lambda: _scores(run), save):
            run.accelerator.wait_for_everyone()


def _scores(run: _Run) -> list[Score]:
    """PCK of the network as it is, blended as it will be matched."""
    matching = run.config.matching
    extractor = RefinedExtractor(run.extractor, run.network, matching.blend)
    scores = validate(
        lambda image: extractor.feature_map(run.features.levels(image.path), image.size),
        run.validation,
        matching.settings(),
        run.config.validation.alpha,
    )
    run.network.train()
    return scores


def _read(run: _Run, task: _Task, step: int) -> list[Part]:
    """Features and labels of this process's groups of a step, in parts to be accumulated."""
    stage, settings = task.stage, run.network.settings
    share = stage.batch // run.accelerator.num_processes
    start = step * stage.batch + run.accelerator.process_index * share
    examples = [
        make_example(task.groups.group(number), run.config.flips, run.extractor.layout.size, settings.grid)
        for number in range(start, start + share)
    ]
    size = share // stage.accumulate
    parts = [examples[row : row + size] for row in range(0, share, size)]
    return [(run.features.batch(part), part) for part in parts]


def _take(
    run: _Run, task: _Task, step: int, parts: Sequence[Part], optimiser: torch.optim.Optimizer
) -> dict[str, float]:
    """One step of the optimiser, and its figures: means over the groups of all processes.

    Raises:
        DivergedError: the loss of a group, or the gradient, is not finite; nothing was changed.
    """
    share = task.stage.batch // run.accelerator.num_processes
    rank, device = run.accelerator.process_index, run.accelerator.device
    where = f"step {run.journal.position.total + 1}"
    # Dropout is drawn anew from the seed at each step, so that a resumed run draws the same.
    torch.manual_seed(next(permutation(2**63, f"{task.key}/{step}/{rank}")))
    optimiser.zero_grad(set_to_none=True)
    values = []
    for row, (levels, examples) in enumerate(parts):
        # Processes exchange gradients with the last part only.
        with nullcontext() if row + 1 == len(parts) else run.accelerator.no_sync(run.model):
            with torch.autocast(device.type, torch.bfloat16, enabled=run.config.precision == "bf16"):
                losses, parted = run.model([each.to(device) for each in levels], examples)
            _check_finite(losses, examples, where)
            (losses.sum() / share).backward()
        values.append(torch.stack([parted.dense, parted.sparse, parted.distillation], dim=1))
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), math.inf)
    if not torch.isfinite(norm):
        names = "; ".join(example.group.name for _, examples in parts for example in examples)
        raise DivergedError(f"the gradient is not finite at {where} ({names}); {_NEXT}")
    optimiser.step()
    gathered = run.accelerator.gather(torch.cat(values))
    means = [float(column.mean()) for column in gathered.unbind(1)]
    return dict(zip(("dense", "sparse", "distillation"), means, strict=True)) | {"gradient": float(norm)}


_NEXT = "the checkpoint before it is kept; lower learning_rate, or look at this pair's features"


def _check_finite(losses: Tensor, examples: Sequence[Example], where: str) -> None:
    losses = losses.detach()
    wrong = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if wrong:
        name = examples[wrong[0]].group.name
        raise DivergedError(f"the loss is {float(losses[wrong[0]])} at {where}, {name}; {_NEXT}")
