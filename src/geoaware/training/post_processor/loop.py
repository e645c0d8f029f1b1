"""The run: stages of steps, validations and checkpoints; stopped at any moment, it goes on bit for bit.

What lies in the run's folder:

    config.yaml               what the run does, every value
    checkpoint.safetensors    where it is; with config.yaml all that is needed to go on
    log.jsonl, tensorboard/   losses, learning rate and validation figures by step
    best/, last/              post-processors as `PostProcessor.from_pretrained` takes them
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel
from torch import Tensor

from geoaware._version import __version__
from geoaware.data import DataSet, load
from geoaware.data.dataset import with_keypoints
from geoaware.data.sampling import permutation
from geoaware.evaluation.predict import choose_pairs
from geoaware.features import Extractor, load_extractor
from geoaware.features.refined import RefinedExtractor
from geoaware.method.geometry import Pose
from geoaware.method.post_processor import PostProcessor, PostProcessorSettings
from geoaware.runs import checkpoint, log
from geoaware.runs.checkpoint import Progress
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing, sweep
from geoaware.runs.log import Log
from geoaware.runs.optional import require
from geoaware.store.extraction import Shard
from geoaware.store.feature_store import FeatureStore
from geoaware.training.post_processor.augment import Example, make_example
from geoaware.training.post_processor.config import SPAIR_PAIRS, Stage, TrainConfig, load_config
from geoaware.training.post_processor.features import Bar, StoredFeatures, complete, silent
from geoaware.training.post_processor.groups import ImageGroups, PairGroups, make_groups
from geoaware.training.post_processor.step import Losses, Step
from geoaware.training.settings import DataChoice
from geoaware.training.validation import Score, validate

CONFIG = "config.yaml"
BEST, LAST = "best", "last"

Show = Callable[[int, int, dict[str, float]], None]
"""Told steps done, steps to do, and the latest figures."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no number; the checkpoint before it is in place."""


def train(
    config: TrainConfig,
    out: Path,
    *,
    device: str = "auto",
    restart: bool = False,
    bar: Bar | None = None,
    show: Show | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a post-processor, or go on with a run that was stopped.

    Args:
        config: what to do.
        out: the run's folder.
        device: as for `load_extractor`.
        restart: throw away what an earlier run left in the folder.
        bar: shows the progress of extracting features.
        show: shows the progress of training.
        say: takes lines on what happens.

    Returns:
        The folder of the best weights (of the last ones, without validation).

    Raises:
        InputError: a setting, data set or file does not fit; the folder belongs to another run.
        DivergedError: the loss became NaN or infinite.
    """
    run = _prepare(config.as_released(), out, device, restart, bar or silent, say)
    try:
        _run_stages(run, show)
    finally:
        run.log.close()
    return out / (BEST if run.validation else LAST)


@dataclass
class _Run:
    """Everything that a run needs, made once."""

    config: TrainConfig
    out: Path
    accelerator: Any
    network: PostProcessor
    features: StoredFeatures
    extractor: Extractor
    stages: list[PairGroups | ImageGroups]
    validation: list[DataSet]
    progress: Progress
    saved: checkpoint.Saved | None
    log: Log

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def totals(self) -> list[int]:
        """Steps of each stage."""
        return [_steps(stage, groups) for stage, groups in zip(self.config.stages, self.stages, strict=True)]


def _prepare(
    config: TrainConfig, out: Path, device: str, restart: bool, bar: Bar, say: Callable[[str], None]
) -> _Run:
    accelerate = require("accelerate", extra="train")
    sets = [[load_set(choice, config.root) for choice in stage.data] for stage in config.stages]
    validation = load_validation(config)
    if config.flips.used:
        for each in (data for stage in sets for data in stage):
            _check_flips(each)
    stages = [
        make_groups(stage, data, f"{config.seed}/{number}")
        for number, (stage, data) in enumerate(zip(config.stages, sets, strict=True))
    ]
    place = Shard.from_environment().device(device)
    extractor = load_extractor(config.extractor, device=place, **config.extractor_settings)
    # Its own bf16 mode would hold for every later run of the process.
    accelerator = accelerate.Accelerator(cpu=extractor.device.type == "cpu", mixed_precision="no")
    for number, stage in enumerate(config.stages):
        _check_batch(stage, number, accelerator.num_processes)
    # What does not fit is refused before features are extracted, which may take hours.
    begun = None if config.start is None else _begun(config.start, config.network, extractor)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            sweep(out, out / BEST, out / LAST)
        saved = open_folder(config, out, restart and accelerator.is_main_process)
    features = _features(config, extractor, stages, validation, bar)
    accelerator.wait_for_everyone()
    network = _network(config, extractor, features.levels(stages[0].images[0].path), begun)
    for note in dict.fromkeys(
        note for data in [*sets, [*validation]] for each in data for note in each.notes
    ):
        say(f"note: {note}")
    progress = saved.progress if saved is not None else Progress()
    if saved is not None:
        network.load_state_dict(saved.network)
        say(f"going on at step {progress.total}")
    lines = Log(out, progress.total, accelerator.is_main_process)
    return _Run(
        config,
        out,
        accelerator,
        network,
        features,
        extractor,
        stages,
        validation,
        progress,
        saved,
        lines,
    )


def load_validation(config: TrainConfig) -> list[DataSet]:
    """The validation sets, cut down to the pairs asked for, chosen by the seed."""
    sets = [load_set(choice, config.root) for choice in config.validation.data]
    return [choose_pairs(each, config.validation.pairs, config.seed) for each in sets]


def load_set(choice: DataChoice, root: str) -> DataSet:
    """A split of a data set, with the keypoints chosen."""
    data = load(choice.name, Path(root) / choice.root, choice.split, **choice.options)
    return data if choice.keypoints is None else with_keypoints(data, choice.keypoints)


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


def open_folder(
    config: BaseModel,
    out: Path,
    restart: bool,
    read: Callable[[Path], BaseModel] = load_config,
    results: Sequence[str] = (BEST, LAST),
) -> checkpoint.Saved | None:
    """Make the run's folder, or make sure that it belongs to this run.

    Args:
        config: of the run.
        out: the folder.
        restart: throw away what is in it.
        read: reads the settings of the run that it belongs to.
        results: folders in it that hold what came of the run.

    Returns:
        Where that run is, if it has begun.

    Raises:
        InputError: it belongs to another run, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another --out") from None
    path = out / CONFIG
    wanted = config.model_dump(mode="json")
    if restart:
        for file in (path, out / checkpoint.FILE, out / log.FILE):
            file.unlink(missing_ok=True)
        for folder in (*results, log.TENSORBOARD):
            shutil.rmtree(out / folder, ignore_errors=True)
    # Without a checkpoint there is nothing to lose: the settings of a run that never began may be mended.
    if path.exists() and (out / checkpoint.FILE).exists():
        found = read(path)
        differing = _differences(found.model_dump(mode="json"), wanted)
        if differing:
            raise InputError(
                f"{out}: belongs to another run (different: {', '.join(differing)}); choose another --out, "
                "or give --restart to throw it away"
            )
    else:
        with replacing(path) as draft:
            draft.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return checkpoint.load(out)


def _differences(found: Any, wanted: Any, key: str = "") -> list[str]:
    """Dotted keys of the values that differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = [(each, found.get(each), wanted.get(each)) for each in {**found, **wanted}]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(str(row), a, b) for row, (a, b) in enumerate(zip(found, wanted, strict=True))]
    else:
        return [] if found == wanted else [key]
    return [name for each, a, b in pairs for name in _differences(a, b, f"{key}.{each}" if key else each)]


def _features(
    config: TrainConfig,
    extractor: Extractor,
    stages: Sequence[PairGroups | ImageGroups],
    validation: Sequence[DataSet],
    bar: Bar,
) -> StoredFeatures:
    """The store, with everything in it that the run reads."""
    store = FeatureStore.of(config.cache, extractor, config.stored)
    poses: tuple[Pose, ...] = ("identity", "flip") if config.flips.used else ("identity",)
    trained = {image.path for groups in stages for image in groups.images}
    validated = {
        image.path for data in validation for pair in data.pairs for image in (pair.source, pair.target)
    }
    complete(store, extractor, trained, poses, bar)
    complete(store, extractor, validated - trained, ("identity",), bar)
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
    network.info = _info(config, extractor)
    return network.to(extractor.device)


def _info(config: TrainConfig, extractor: Extractor) -> dict[str, Any]:
    """What the weights' config says of their origin."""
    shown = config.model_dump(exclude_defaults=True, exclude={"root", "cache", "matching"})
    return {
        "extractor": extractor.identity,
        "extractor_weights": extractor.weights_hash(),
        "matching": config.matching.model_dump(exclude_none=True),
        "training": shown,
        "versions": {"geoaware": __version__, "torch": str(torch.__version__)},
    }


def _steps(stage: Stage, groups: PairGroups | ImageGroups) -> int:
    """Steps of a stage: its real length, whatever the data set."""
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None  # the configuration has seen to it
    return max(1, math.ceil(stage.epochs * len(groups) / stage.batch))


def _schedule_steps(run: _Run, number: int) -> int:
    """Length of the one-cycle schedule; fixed at SPair-71k's in the released code."""
    stage, steps = run.config.stages[number], run.totals[number]
    if run.config.preset == "released" and stage.epochs is not None:
        return max(steps, math.ceil(stage.epochs * SPAIR_PAIRS / stage.batch))
    return steps


def _run_stages(run: _Run, show: Show | None) -> None:
    progress = run.progress
    while progress.stage < len(run.config.stages):
        _run_stage(run, progress.stage, show)
        progress.stage, progress.step = progress.stage + 1, 0


def _run_stage(run: _Run, number: int, show: Show | None) -> None:
    stage, progress = run.config.stages[number], run.progress
    blend = run.config.matching.blend
    step = Step(run.network, run.config.loss, run.config.seed, blend, run.extractor.combine_on)
    trained = [each for each in step.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    length = _schedule_steps(run, number)
    # With exactly one rising step PyTorch would divide by zero.
    rising = stage.rising * (1 + 1e-9) if stage.rising * length == 1 else stage.rising
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, stage.learning_rate, total_steps=length, pct_start=rising
    )
    if run.saved is not None and progress.step:
        optimiser.load_state_dict(run.saved.optimiser)
        _lay_out(optimiser)
        schedule.load_state_dict(run.saved.schedule)
    model = run.accelerator.prepare_model(step)
    model.train()
    worker = _Worker(run, number, model, optimiser)
    total = run.totals[number]
    for losses, norm in worker.steps(progress.step, total):
        rate = optimiser.param_groups[0]["lr"]
        if progress.step + 1 < total:
            schedule.step()
        progress.step += 1
        progress.total += 1
        _after_step(run, worker, schedule, _Figures(losses, norm, rate), show, progress.step == total)


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Lay the moments in memory as their parameters are: read from a file they would be slow to update."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


@dataclass(frozen=True)
class _Figures:
    losses: Losses
    norm: float
    rate: float


def _after_step(
    run: _Run, worker: _Worker, schedule: Any, figures: _Figures, show: Show | None, last: bool
) -> None:
    """Log, validate and save where it is time."""
    progress, config = run.progress, run.config
    values = {
        "dense": float(figures.losses.dense.mean()),
        "sparse": float(figures.losses.sparse.mean()),
        "distillation": float(figures.losses.distillation.mean()),
        "gradient": figures.norm,
        "learning_rate": figures.rate,
    }
    validated = bool(run.validation) and (last or progress.total % config.validation.every == 0)
    saved = validated or last or progress.total % config.save_every == 0
    # A line at every checkpoint: a resumed run has lost the sums of the steps before it.
    run.log.add(progress.total, values, write=saved or progress.total % config.log_every == 0)
    if validated and run.main:
        values |= _validate(run)
    if saved and run.main:
        run.log.flush()
        run.network.save_pretrained(run.out / LAST)
        checkpoint.save(run.out, run.network, worker.optimiser, schedule.state_dict(), progress)
    if validated:
        run.accelerator.wait_for_everyone()
    if show is not None and run.main:
        shown = {**values, "best": progress.best} if progress.best >= 0 else values
        show(progress.total, sum(run.totals), shown)


def _validate(run: _Run) -> dict[str, float]:
    """Figures of every validation set; the best weights so far are kept."""
    config, progress = run.config, run.progress
    began = time.monotonic()
    scores = validate(
        RefinedExtractor(run.extractor, run.network, config.matching.blend),
        run.validation,
        run.features,
        config.matching.settings(),
        config.validation.alpha,
    )
    run.network.train()
    figures = named_scores(config.validation.data, scores)
    mean = sum(each.standard for each in scores) / len(scores)
    run.log.write(progress.total, {**figures, "validation": mean, "seconds": time.monotonic() - began})
    if mean > progress.best:
        progress.best = mean
        at = {key: round(100 * value, 2) for key, value in figures.items()}
        info = {**run.network.info, "validation": {"step": progress.total, **at}}
        kept, run.network.info = run.network.info, info
        run.network.save_pretrained(run.out / BEST)
        run.network.info = kept
    return {"validation": mean, **figures}


def named_scores(choices: Sequence[DataChoice], scores: Sequence[Score]) -> dict[str, float]:
    """Scores by the name of their data set, split and part."""
    named = {}
    for choice, score in zip(choices, scores, strict=True):
        named[f"{choice.root} {choice.split} standard"] = score.standard
        if not math.isnan(score.geometry_aware):
            named[f"{choice.root} {choice.split} geometry-aware"] = score.geometry_aware
    return named


@dataclass
class _Worker:
    """This process's part of a stage's steps."""

    run: _Run
    number: int
    model: torch.nn.Module
    optimiser: torch.optim.Optimizer

    def steps(self, first: int, total: int) -> Iterator[tuple[Losses, float]]:
        """Take the steps ``first`` … ``total - 1``; the next one's features are read meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._read, first) if first < total else None
            for step in range(first, total):
                assert waiting is not None
                parts = waiting.result()
                waiting = pool.submit(self._read, step + 1) if step + 1 < total else None
                yield self._take(step, parts)

    def _read(self, step: int) -> list[tuple[tuple[Tensor, ...], list[Example]]]:
        """Features and labels of this process's groups of a step, in parts to be accumulated."""
        run, stage = self.run, self.run.config.stages[self.number]
        rank, world = run.accelerator.process_index, run.accelerator.num_processes
        share = stage.batch // world
        start = step * stage.batch + rank * share
        groups = [run.stages[self.number].group(number) for number in range(start, start + share)]
        grid = run.network.settings.grid
        examples = [
            make_example(group, run.config.flips, run.extractor.layout.size, grid) for group in groups
        ]
        size = share // stage.accumulate
        parts = [examples[row : row + size] for row in range(0, share, size)]
        return [(run.features.batch(part), part) for part in parts]

    def _take(
        self, step: int, parts: Sequence[tuple[tuple[Tensor, ...], list[Example]]]
    ) -> tuple[Losses, float]:
        """One step of the optimiser.

        Raises:
            DivergedError: the loss of a group, or the gradient, is not finite; nothing was changed.
        """
        run, stage = self.run, self.run.config.stages[self.number]
        share = stage.batch // run.accelerator.num_processes
        rank, device = run.accelerator.process_index, run.accelerator.device
        torch.manual_seed(next(permutation(2**63, f"{run.config.seed}/{self.number}/{step}/{rank}")))
        self.optimiser.zero_grad(set_to_none=True)
        seen = []
        for row, (levels, examples) in enumerate(parts):
            last = row + 1 == len(parts)
            with nullcontext() if last else run.accelerator.no_sync(self.model):
                with torch.autocast(device.type, torch.bfloat16, enabled=run.config.precision == "bf16"):
                    losses, parted = self.model([each.to(device) for each in levels], examples)
                _check_finite(losses, examples, run)
                (losses.sum() / share).backward()
            seen.append(parted)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)
        if not torch.isfinite(norm):
            names = "; ".join(example.group.name for _, examples in parts for example in examples)
            raise DivergedError(
                f"the gradient is not finite at step {run.progress.total + 1} ({names}); {_NEXT}"
            )
        self.optimiser.step()
        values = [torch.stack([each.dense, each.sparse, each.distillation], dim=1) for each in seen]
        gathered = run.accelerator.gather(torch.cat(values))
        return Losses(*gathered.unbind(1)), float(norm)


_NEXT = "the checkpoint before it is kept; lower learning_rate, or look at this pair's features"


def _check_finite(losses: Tensor, examples: Sequence[Example], run: _Run) -> None:
    losses = losses.detach()
    wrong = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if wrong:
        name = examples[wrong[0]].group.name
        raise DivergedError(
            f"the loss is {float(losses[wrong[0]])} at step {run.progress.total + 1}, {name}; {_NEXT}"
        )
