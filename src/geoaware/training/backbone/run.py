"""The training of the backbone: what a step is, and what a run begins and ends with.

The run's folder is described in `geoaware.training.kit`; its weights are ``weights/``, which
`TunedNetwork.from_pretrained` takes. Decoded images are kept in another folder, for all runs.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.images import load_image
from geoaware.data.sampling import permutation
from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.features.extractor import choose_device
from geoaware.features.tuned import Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.method.matching import MatchSettings, sample_descriptors
from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell, silent
from geoaware.training import kit
from geoaware.training.backbone.config import TuneConfig
from geoaware.training.backbone.crops import make_crops
from geoaware.training.backbone.objective import Criterion
from geoaware.training.backbone.unlabelled import Unlabelled, make_unlabelled, used_images
from geoaware.training.backbone.views import Batch, Camera, Share, to_device
from geoaware.training.backbone.vocabulary import Vocabulary
from geoaware.training.kit import DivergedError, Run, Say
from geoaware.training.validation import Score, validate

WEIGHTS = "weights"

_LOOKED_AT = 10
"""Steps that the mean descriptors come from at which the prototypes begin."""


class Learner(nn.Module):
    """All that a checkpoint keeps: the network, its moving average, and what the loss learns."""

    def __init__(self, network: TunedNetwork, criterion: Criterion) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.average = copy.deepcopy(network).requires_grad_(False)

    def forward(
        self, early: Float[Tensor, "n c h h"], batch: Batch, precision: torch.autocast
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of a step's loss, of what the shared blocks make of its views and then of its negatives.

        The network may compute in bfloat16, the losses do not.
        """
        with precision:
            maps, presence, turns = (each.float() for each in self.network(early))
        familiarity = self.network.familiarity(presence.detach())
        return self.criterion(maps[: len(batch.pixels)], presence, familiarity, turns[:, :, 0, 0], batch)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average a little towards the network."""
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in names], [theirs[name] for name in names], 1 - decay)


def tune(
    config: TuneConfig,
    out: Path,
    *,
    device: str = "auto",
    restart: bool = False,
    tell: Tell = silent,
    say: Say = lambda _: None,
) -> Path:
    """Train the backbone with its decoder, or go on with a run that was stopped; the folder of the weights.

    Parameters and errors are those of `geoaware.training.post_processor.loop.train`.
    """
    with ExitStack() as held:
        run = _prepare(config, out, choose_device(device), restart, tell, say, held)
        held.callback(run.pool.shutdown, cancel_futures=True)
        held.callback(run.log.close)
        run.run_stage(config.steps)
    return out / WEIGHTS


@dataclass(frozen=True)
class Drawing:
    """Makes what any step shows."""

    config: TuneConfig
    shares: Sequence[Share]
    vocabulary: Vocabulary
    unlabelled: Unlabelled

    def step(self, number: int) -> Batch:
        """The views, decided by the seed and the step's number alone."""
        config, objective = self.config, self.config.objective
        generator = torch.Generator().manual_seed(next(permutation(2**63, f"{config.seed}/one/{number}")))
        camera = Camera(config.views, self.vocabulary, self.unlabelled, config.size, generator)
        return camera.batch(self.shares, objective.limbs, objective.points, config.unlabelled.negatives)


@dataclass
class _Run(Run[Batch]):
    config: TuneConfig
    device: torch.device
    drawing: Drawing
    plain: EfficientNetLite
    learner: Learner
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    workers: int
    pool: ThreadPoolExecutor
    waiting: dict[int, Future[Batch]] = field(default_factory=dict)

    def read(self, step: int) -> Batch:
        # Made some steps ahead: a GPU takes several steps in the time in which one is made.
        for each in range(step, min(step + self.workers, self.total)):
            if each not in self.waiting:
                self.waiting[each] = self.pool.submit(self.drawing.step, each)
        return self.waiting.pop(step).result()

    def take(self, step: int, ready: Batch) -> dict[str, float]:
        config, learner = self.config, self.learner
        # Batch normalisations keep the mean and deviation that they had: batches are small and mixed.
        learner.eval()
        self.optimiser.zero_grad(set_to_none=True)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        precision = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        batch = to_device(ready, self.device)
        early = shared_maps(self.plain, torch.cat([batch.pixels, batch.negatives]))
        parts = learner(early, batch, precision)
        loss = learner.criterion.total(parts)
        loss.backward()
        trained = [each for group in self.optimiser.param_groups for each in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
        slope, offset = learner.network.familiar.detach()
        scale = learner.criterion.log_scale.detach().exp()
        figures = {"loss": loss, "gradient": norm, **parts, "scale": scale, "slope": slope, "offset": offset}
        values = dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))
        if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient"]):
            raise DivergedError(
                f"the loss is {values['loss']}, its gradient {values['gradient']} at step {step + 1}; the "
                "checkpoint before it is kept; lower learning_rate"
            )
        self.optimiser.step()
        self.schedule.step()
        learner.follow(min(config.average, (2 + step) / (11 + step)))
        return values

    def scores(self) -> list[Score]:
        checks, average = self.config.validation, self.learner.average
        extractor = Tuned("efficientnet-lite0-tuned", TunedSettings(), average).to(self.device).eval()
        matching = MatchSettings(
            window=checks.window, temperature=checks.temperature, inside_picture=True, interpolate=True
        )
        return validate(
            lambda image: extractor(load_image(image.path)), self.validation, matching, checks.alpha
        )

    def save(self, best: Mapping[str, float] | None) -> None:
        network = self.learner.average
        network.info = {**self.learner.network.info, "steps": self.position.total}
        network.save_pretrained(self.out / WEIGHTS)
        states = self.learner.state_dict(), self.optimiser.state_dict(), self.schedule.state_dict()
        checkpoint.save(self.out, checkpoint.Saved(*states, self.position))


@torch.no_grad()
def shared_maps(plain: EfficientNetLite, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h h"]:
    """What the blocks give that both networks share, of pixels from 0 to 1; they compute in bfloat16."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        return plain.early((pixels - plain.mean) / plain.std).float()


def _prepare(
    config: TuneConfig,
    out: Path,
    device: torch.device,
    restart: bool,
    tell: Tell,
    say: Say,
    held: ExitStack,
) -> _Run:
    sets, validation = kit.load_sets(config.data, config.root), kit.load_validation(config)
    known = {category for data in sets for category in data.schemas}
    for name in config.without:
        if name not in known:
            raise InputError(f"without: there is no category {name!r}; there are {', '.join(sorted(known))}")
    for data in sets:
        kit.require_flip_pairs(data)
    wanted = config.unlabelled
    images = used_images(Path(config.root) / wanted.root, wanted.every, wanted.negatives)
    kit.say_notes([*sets, *validation], say)
    vocabulary = Vocabulary.of(data.schemas[each] for data in sets for each in sorted(data.schemas))
    # What does not fit is refused before images are decoded, which takes minutes.
    saved, position = kit.open_folder(config, out, restart, (WEIGHTS,), say, held)
    torch.manual_seed(config.seed)
    network = _network(config)
    criterion = Criterion(len(vocabulary), network.shape.descriptor, config.objective)
    workers = config.workers or os.cpu_count() or 1
    drawing = _drawing(config, sets, images, vocabulary, workers, tell)
    plain = EfficientNetLite.load("efficientnet-lite0").to(device).eval()
    if saved is None:
        _set_prototypes(network.to(device), criterion, drawing, plain)
    learner = Learner(network, criterion).to(device)
    optimiser = _optimiser(learner, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    if saved is not None:
        with checkpoint.reading(out):
            learner.load_state_dict(saved.network)
            saved.restore(optimiser, schedule)
    common = config, out, config.steps, position, validation, Log(out, position.total), tell, say, True
    # Each thread makes a step alone; threads that each start threads would fight for the cores.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    return _Run(*common, device, drawing, plain, learner, optimiser, schedule, workers, pool)


def _drawing(
    config: TuneConfig,
    sets: Sequence[DataSet],
    images: Sequence[Path],
    vocabulary: Vocabulary,
    workers: int,
    tell: Tell,
) -> Drawing:
    """What steps are made of; objects and images are decoded if that was not done before."""
    cache = Path(config.cache)
    shares = [
        Share(
            make_crops(data, vocabulary, cache, workers, tell, config.without), choice.objects, choice.twice
        )
        for data, choice in zip(sets, config.data, strict=True)
    ]
    return Drawing(config, shares, vocabulary, make_unlabelled(images, cache, workers, tell))


def _network(config: TuneConfig) -> TunedNetwork:
    """A new network, or the one to go on from.

    Raises:
        InputError: the latter is not there, or of another shape.
    """
    shape = TunedShape(**config.shape.model_dump())
    if config.start is None:
        network = TunedNetwork.from_imagenet(shape)
    else:
        network = TunedNetwork.from_pretrained(config.start)
        if network.shape != shape:
            raise InputError(f"{config.start}: has {network.shape}, the run {shape}; set shape accordingly")
    network.info = {
        "training": config.model_dump(mode="json", exclude_defaults=True, exclude={"root", "cache"}),
        "versions": {"geoaware": __version__, "torch": str(torch.__version__)},
    }
    return network


@torch.no_grad()
def _set_prototypes(
    network: TunedNetwork, criterion: Criterion, drawing: Drawing, plain: EfficientNetLite
) -> None:
    """Let the prototypes begin as mean descriptors: random ones would pull the network to nowhere."""
    network.eval()
    sums = torch.zeros_like(criterion.prototypes)
    for step in range(_LOOKED_AT):
        batch = drawing.step(step)
        maps = network(shared_maps(plain, batch.pixels.to(plain.device)))[0].cpu()
        found = F.normalize(sample_descriptors(maps, batch.xy), dim=2)
        sums += (found * batch.visible[..., None]).sum(dim=0)[: len(sums)]
    known = sums.abs().sum(dim=1) > 0
    criterion.prototypes[known] = sums.shape[1] ** 0.5 * F.normalize(sums[known], dim=1)


def _optimiser(learner: Learner, config: TuneConfig) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone, faster for what the loss learns; only convolutions decay."""
    network, criterion = learner.network, learner.criterion
    backbone = {id(each) for each in network.blocks.parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, each in network.named_parameters():
        if name == "familiar":
            continue
        rate = config.backbone_rate if id(each) in backbone else 1.0
        groups.setdefault((rate, each.ndim > 1), []).append(each)
    groups[config.prototype_rate, False] = [*criterion.parameters(), network.familiar]
    return torch.optim.AdamW(
        {
            "params": members,
            "lr": config.learning_rate * rate,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (rate, decays), members in groups.items()
    )


def _rate(step: int, config: TuneConfig) -> float:
    """Share of the peak: up in a line, constant, and in the last steps down in a line."""
    rising = min(1.0, (step + 1) / config.warmup)
    return rising * min(1.0, (config.steps - step) / max(1, config.cooling))
