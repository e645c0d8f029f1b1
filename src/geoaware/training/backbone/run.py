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
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.images import list_images, load_image
from geoaware.data.sampling import draw, permutation
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
from geoaware.training.backbone.plain import Plain, fit_reading, make_plain, normalised, towards_imagenet
from geoaware.training.backbone.views import Batch, Camera, Share, Windows, to_device
from geoaware.training.backbone.vocabulary import Vocabulary
from geoaware.training.kit import DivergedError, Run, Say
from geoaware.training.validation import Score, validate

WEIGHTS = "weights"

Step = tuple[Batch, Windows]
"""What a step shows."""

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
        self, batch: Batch, windows: Windows, frozen: int, precision: torch.autocast
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of a step's loss; the network may compute in bfloat16, the losses do not."""
        count = len(batch.pixels)
        pixels = normalised(torch.cat([batch.pixels, windows.pixels]))
        with precision:
            found = self.network(pixels, frozen)
        trained, plain, presence = (each.float() for each in found)
        # Keypoints teach the trained descriptors alone: the plain ones are there for all that has none.
        of_views = self.network.joined(trained[:count], plain[:count].detach(), presence[:count])
        of_windows = self.network.joined(trained[count:], plain[count:], presence[count:])
        return self.criterion(
            of_views, presence[:count], batch, plain[count:], of_windows, presence[count:], windows
        )

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
    run = _prepare(config, out, choose_device(device), restart, tell, say)
    try:
        run.run_stage(config.steps)
    finally:
        run.log.close()
        run.pool.shutdown(cancel_futures=True)
    return out / WEIGHTS


@dataclass(frozen=True)
class Drawing:
    """Makes what any step shows."""

    config: TuneConfig
    shares: Sequence[Share]
    vocabulary: Vocabulary
    plain: Plain

    def step(self, number: int) -> Step:
        """Views and windows, decided by the seed and the step's number alone."""
        config, wanted = self.config, self.config.distillation
        generator = torch.Generator().manual_seed(next(permutation(2**63, f"{config.seed}/one/{number}")))
        camera = Camera(config.views, self.vocabulary, self.plain, config.size, generator)
        batch = camera.batch(self.shares, config.objective.limbs, config.objective.points)
        return batch, camera.windows(wanted.windows, wanted.unlabelled)


@dataclass
class _Run(Run[Step]):
    config: TuneConfig
    device: torch.device
    drawing: Drawing
    learner: Learner
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    workers: int
    pool: ThreadPoolExecutor
    waiting: dict[int, Future[Step]] = field(default_factory=dict)
    finished: TunedNetwork | None = None

    def read(self, step: int) -> Step:
        # Made some steps ahead: a GPU takes several steps in the time in which one is made.
        for each in range(step, min(step + self.workers, self.total)):
            if each not in self.waiting:
                self.waiting[each] = self.pool.submit(self.drawing.step, each)
        return self.waiting.pop(step).result()

    def take(self, step: int, ready: Step) -> dict[str, float]:
        config, learner = self.config, self.learner
        # Batch normalisations keep the mean and deviation that they had: batches are small and mixed.
        learner.eval()
        self.optimiser.zero_grad(set_to_none=True)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        precision = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        batch, windows = (to_device(each, self.device) for each in ready)
        parts = learner(batch, windows, config.frozen, precision)
        loss = learner.criterion.total(parts)
        loss.backward()
        trained = [each for group in self.optimiser.param_groups for each in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
        slope, offset = learner.network.gate.detach()
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
        checks, tuned = self.config.validation, TunedSettings()
        extractor = Tuned("efficientnet-lite0-tuned", tuned, self.to_use()).to(self.device).eval()
        matching = MatchSettings(
            window=checks.window, temperature=checks.temperature, inside_picture=True, interpolate=True
        )
        return validate(
            lambda image: extractor(load_image(image.path)), self.validation, matching, checks.alpha
        )

    def save(self, best: Mapping[str, float] | None) -> None:
        network = self.to_use()
        network.info = {**self.learner.network.info, "steps": self.position.total}
        network.save_pretrained(self.out / WEIGHTS)
        states = self.learner.state_dict(), self.optimiser.state_dict(), self.schedule.state_dict()
        checkpoint.save(self.out, checkpoint.Saved(*states, self.position))

    def to_use(self) -> TunedNetwork:
        """The average; at the end its backbone is moved towards ImageNet's, and its reading fitted anew."""
        if self.position.total < self.total:
            return self.learner.average
        if self.finished is None:
            self.finished = copy.deepcopy(self.learner.average)
            towards_imagenet(self.finished, self.config.kept)
            explained = fit_reading(self.finished, self.drawing.plain)
            self.say(f"plain descriptors: {100 * explained:.1f} % of the energy is explained")
        return self.finished


def _prepare(
    config: TuneConfig, out: Path, device: torch.device, restart: bool, tell: Tell, say: Say
) -> _Run:
    sets, validation = kit.load_sets(config.data, config.root), kit.load_validation(config)
    known = {category for data in sets for category in data.schemas}
    for name in config.without:
        if name not in known:
            raise InputError(f"without: there is no category {name!r}; there are {', '.join(sorted(known))}")
    for data in sets:
        kit.require_flip_pairs(data)
    kit.say_notes([*sets, *validation], say)
    vocabulary = Vocabulary.of(data.schemas[each] for data in sets for each in sorted(data.schemas))
    # What does not fit is refused before images are decoded, which takes minutes.
    saved, position = kit.open_folder(config, out, restart, (WEIGHTS,), say)
    torch.manual_seed(config.seed)
    network = _network(config)
    width = network.shape.descriptor + network.shape.plain
    criterion = Criterion(len(vocabulary), width, config.objective)
    workers = config.workers or os.cpu_count() or 1
    drawing = _drawing(config, sets, vocabulary, device, workers, tell)
    if saved is None:
        network.to(device)
        if config.start is None:
            fit_reading(network, drawing.plain)
        _set_prototypes(network, criterion, drawing)
    learner = Learner(network, criterion).to(device)
    optimiser = _optimiser(learner, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    if saved is not None:
        learner.load_state_dict(saved.network)
        saved.restore(optimiser, schedule)
    common = config, out, config.steps, position, validation, Log(out, position.total), tell, say, True
    # Each thread makes a step alone; threads that each start threads would fight for the cores.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    return _Run(*common, device, drawing, learner, optimiser, schedule, workers, pool)


def _drawing(
    config: TuneConfig,
    sets: Sequence[DataSet],
    vocabulary: Vocabulary,
    device: torch.device,
    workers: int,
    tell: Tell,
) -> Drawing:
    """What steps are made of; objects and images are decoded if that was not done before."""
    cache, wanted = Path(config.cache), config.distillation
    shares = [
        Share(
            make_crops(data, vocabulary, cache, workers, tell, config.without), choice.objects, choice.twice
        )
        for data, choice in zip(sets, config.data, strict=True)
    ]
    unlabelled = list_images(Path(config.root) / wanted.root)[:: wanted.every]
    images = [image for data in sets for image in data.images]
    left_out = {image.path for image in images if image.category in config.without}
    annotated = [path for path in dict.fromkeys(each.path for each in images) if path not in left_out]
    chosen = [annotated[each] for each in draw(len(annotated), wanted.annotated, "plain")]
    plain = make_plain(unlabelled, chosen, config.shape.plain, cache, device, workers, tell)
    return Drawing(config, shares, vocabulary, plain)


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
def _set_prototypes(network: TunedNetwork, criterion: Criterion, drawing: Drawing) -> None:
    """Let the prototypes begin as mean descriptors: random ones would pull the network to nowhere."""
    network.eval()
    sums = torch.zeros_like(criterion.prototypes)
    for step in range(_LOOKED_AT):
        batch, _ = drawing.step(step)
        maps = network.joined(*network(normalised(batch.pixels.to(network.gate.device)))).cpu()
        found = F.normalize(sample_descriptors(maps, batch.xy), dim=2)
        sums += (found * batch.visible[..., None]).sum(dim=0)[: len(sums)]
    known = sums.abs().sum(dim=1) > 0
    criterion.prototypes[known] = sums.shape[1] ** 0.5 * F.normalize(sums[known], dim=1)


def _optimiser(learner: Learner, config: TuneConfig) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone, faster for what the loss learns; weights decay in convolutions alone.

    The first blocks stay as they are, and so does the reading: distillation keeps the backbone such that it
    fits. (Trained, it became worse than one that is fitted.)
    """
    network, criterion = learner.network, learner.criterion
    for part in (network.stem, *network.blocks[: config.frozen], network.reading):
        part.requires_grad_(False)
    backbone = {id(each) for each in network.blocks.parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for each in network.parameters():
        if each.requires_grad:
            rate = config.backbone_rate if id(each) in backbone else 1.0
            groups.setdefault((rate, each.ndim > 1), []).append(each)
    groups[config.prototype_rate, False] = list(criterion.parameters())
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
