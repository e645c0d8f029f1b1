"""The training of a post-processor: stages of steps on cached features.

The run's folder is described in `geoaware.training.kit`; its weights are ``best/`` and ``last/``, which
`PostProcessor.from_pretrained` takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.sampling import permutation
from geoaware.features import Extractor, load_extractor
from geoaware.features.refined import RefinedExtractor
from geoaware.method.post_processor import PostProcessor, PostProcessorSettings
from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.optional import require
from geoaware.runs.progress import Tell, silent
from geoaware.store.feature_store import FeatureStore
from geoaware.training import kit
from geoaware.training.kit import DivergedError, Run, Say
from geoaware.training.post_processor.augment import POSES, Example, make_example
from geoaware.training.post_processor.config import SPAIR_PAIRS, Stage, TrainConfig
from geoaware.training.post_processor.features import StoredFeatures, complete
from geoaware.training.post_processor.groups import ImageGroups, PairGroups, make_groups
from geoaware.training.post_processor.step import Step
from geoaware.training.processes import Shard
from geoaware.training.validation import Score, validate

BEST, LAST = "best", "last"

Part = tuple[tuple[Tensor, ...], list[Example]]
"""Features and labels of some groups of a step, computed at once."""

_NEXT = "the checkpoint before it is kept; lower learning_rate, or look at this pair's features"


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
    with ExitStack() as held:
        run = _prepare(config.as_released(), out, device, restart, tell, say, held)
        held.callback(run.log.close)
        position = run.position
        while position.stage < len(run.tasks):
            run.begin_stage()
            run.run_stage(run.task.steps)
            position.stage, position.step = position.stage + 1, 0
    return out / (BEST if run.validation else LAST)


@dataclass(frozen=True)
class _Task:
    """A stage with its groups, the key of everything drawn in it, its steps, and its schedule's length."""

    stage: Stage
    groups: PairGroups | ImageGroups
    key: str
    steps: int
    length: int

    @classmethod
    def of(cls, stage: Stage, sets: Sequence[DataSet], key: str, released: bool) -> _Task:
        """The length of a stage of epochs is that of its own data; in the released code, of SPair-71k."""
        groups, epochs = make_groups(stage, sets, key), stage.epochs or 0.0
        if stage.batch > len(groups):
            raise InputError(
                f"a batch of {stage.batch:,} in a step is more than the {len(groups):,} groups of the whole "
                "training data; give a smaller batch"
            )
        steps = stage.length(len(groups))
        fixed = math.ceil(epochs * SPAIR_PAIRS / stage.batch) if released else 0
        return cls(stage, groups, key, steps, max(steps, fixed))


@dataclass
class _Run(Run[list[Part]]):
    """A run of one or several processes; ``model`` is the step with gradients averaged over them."""

    config: TrainConfig
    accelerator: Any
    step: Step
    model: torch.nn.Module
    extractor: Extractor
    features: StoredFeatures
    tasks: list[_Task]
    saved: checkpoint.Saved | None
    optimiser: torch.optim.Optimizer = field(init=False)
    schedule: torch.optim.lr_scheduler.LRScheduler = field(init=False)

    @property
    def task(self) -> _Task:
        return self.tasks[self.position.stage]

    @property
    def network(self) -> PostProcessor:
        return self.step.network

    @property
    def share(self) -> int:
        """Groups that a process takes of each step."""
        return self.task.stage.batch // self.accelerator.num_processes

    def begin_stage(self) -> None:
        """Make an optimiser and its schedule, or go on with those of the checkpoint."""
        stage, length = self.task.stage, self.task.length
        trained = [each for each in self.step.parameters() if each.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay)
        # With exactly one rising step PyTorch would divide by zero.
        rising = stage.rising * (1 + 1e-9) if stage.rising * length == 1 else stage.rising
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, stage.learning_rate, total_steps=length, pct_start=rising
        )
        if self.saved is not None and self.position.step:
            with checkpoint.reading(self.out):
                self.saved.restore(self.optimiser, self.schedule)
        self.model.train()

    def read(self, step: int) -> list[Part]:
        """Features and labels of this process's groups, in parts to be accumulated."""
        stage, size, grid = self.task.stage, self.extractor.layout.size, self.network.settings.grid
        start = step * stage.batch + self.accelerator.process_index * self.share
        examples = [
            make_example(self.task.groups.group(number), self.config.flips, size, grid)
            for number in range(start, start + self.share)
        ]
        count = self.share // stage.accumulate
        parts = [examples[row : row + count] for row in range(0, self.share, count)]
        return [(self.features.batch(part), part) for part in parts]

    def take(self, step: int, ready: list[Part]) -> dict[str, float]:
        """The figures are means over the groups of all processes."""
        accelerator, where = self.accelerator, f"step {self.position.total + 1}"
        # Dropout is drawn anew from the seed at each step, so that a resumed run draws the same.
        key = f"{self.task.key}/{step}/{accelerator.process_index}"
        torch.manual_seed(next(permutation(2**63, key)))
        self.optimiser.zero_grad(set_to_none=True)
        bfloat16, device = self.config.precision == "bf16", accelerator.device
        parted = []
        for row, (levels, examples) in enumerate(ready):
            # Processes exchange gradients with the last part only.
            with nullcontext() if row + 1 == len(ready) else accelerator.no_sync(self.model):
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    losses, parts = self.model([each.to(device) for each in levels], examples)
                for loss, example in zip(losses.tolist(), examples, strict=True):
                    if not math.isfinite(loss):
                        raise DivergedError(f"the loss is {loss} at {where}, {example.group.name}; {_NEXT}")
                (losses.sum() / self.share).backward()
            parted.append(torch.stack(list(parts.values()), dim=1))
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf))
        if not math.isfinite(norm):
            names = "; ".join(example.group.name for _, examples in ready for example in examples)
            raise DivergedError(f"the gradient is not finite at {where} ({names}); {_NEXT}")
        self.optimiser.step()
        means = [float(column.mean()) for column in accelerator.gather(torch.cat(parted)).unbind(1)]
        rate = self.optimiser.param_groups[0]["lr"]
        if step + 1 < self.task.steps:
            self.schedule.step()
        return dict(zip(parts, means, strict=True)) | {"gradient": norm, "learning_rate": rate}

    def scores(self) -> list[Score]:
        """Blended as it will be matched."""
        matching = self.config.matching
        extractor = RefinedExtractor(self.extractor, self.network, matching.blend)
        scores = validate(
            lambda image: extractor.feature_map(self.features.levels(image.path), image.size),
            self.validation,
            matching.settings(),
            self.config.validation.alpha,
        )
        self.network.train()
        return scores

    def save(self, best: Mapping[str, float] | None) -> None:
        network, position = self.network, self.position
        if best is not None:
            info = network.info
            network.info = {**info, "validation": {"step": position.total, **best}}
            network.save_pretrained(self.out / BEST)
            network.info = info
        network.save_pretrained(self.out / LAST)
        states = network.state_dict(), self.optimiser.state_dict(), self.schedule.state_dict()
        checkpoint.save(self.out, checkpoint.Saved(*states, position))

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def _prepare(
    config: TrainConfig, out: Path, device: str, restart: bool, tell: Tell, say: Say, held: ExitStack
) -> _Run:
    accelerate = require("accelerate", extra="train")
    # What does not fit is refused before features are extracted, which may take hours.
    stages = [kit.load_sets(stage.data, config.root) for stage in config.stages]
    sets, validation = [data for each in stages for data in each], kit.load_validation(config)
    for data in sets if config.flips.used else ():
        kit.require_flip_pairs(data, ", or set flips.double, flips.single and flips.self to 0")
    tasks = [
        _Task.of(stage, each, f"{config.seed}/{number}", config.preset == "released")
        for number, (stage, each) in enumerate(zip(config.stages, stages, strict=True))
    ]
    place = Shard.from_environment().device(device)
    extractor = load_extractor(config.extractor, device=place, **config.extractor_settings)
    # Its own bf16 mode would hold for every later run of the process.
    accelerator = accelerate.Accelerator(cpu=extractor.device.type == "cpu", mixed_precision="no")
    for number, stage in enumerate(config.stages):
        # Every process has equally many groups in every part of a step.
        processes, parts = accelerator.num_processes, stage.accumulate
        if stage.batch % (processes * parts):
            raise InputError(
                f"stages.{number}: a batch of {stage.batch} cannot be shared by {processes} processes in "
                f"{parts} parts; make it a multiple of {processes * parts}"
            )
    begun = None if config.start is None else _begun(config.start, config.network, extractor)
    main = accelerator.is_main_process
    with accelerator.main_process_first():
        saved, position = kit.open_folder(
            config, out, restart and main, (BEST, LAST), say, held if main else None
        )
    store = FeatureStore.of(config.cache, extractor, config.stored)
    trained = {image.path for task in tasks for image in task.groups.images}
    validated = {image.path for data in validation for image in data.images}
    complete(store, extractor, trained, POSES if config.flips.used else POSES[:1], tell)
    complete(store, extractor, validated - trained, POSES[:1], tell)
    accelerator.wait_for_everyone()
    features = StoredFeatures(store)
    network = _network(config, extractor, features.levels(tasks[0].groups.images[0].path), begun)
    kit.say_notes([*sets, *validation], say)
    if saved is not None:
        with checkpoint.reading(out):
            network.load_state_dict(saved.network)
    step = Step(network, config.loss, config.seed, config.matching.blend, extractor.combine)
    model = accelerator.prepare_model(step)
    total, log = sum(task.steps for task in tasks), Log(out, position.total, main)
    common = config, out, total, position, validation, log, tell, say, main
    return _Run(*common, accelerator, step, model, extractor, features, tasks, saved)


def _begun(start: str, shape: PostProcessorSettings, extractor: Extractor) -> PostProcessor:
    """The post-processor to go on from, which must be of this extractor and shape."""
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
    """A new post-processor for such raw maps, or with the weights to go on from, which must be for them."""
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
