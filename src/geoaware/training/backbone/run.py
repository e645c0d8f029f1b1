"""The training of the backbone: what a step is, and what a run begins and ends with.

The run's folder is described in `geoaware.training.kit`; its weights are ``weights/``, which
`TunedNetwork.from_pretrained` takes, or `Adapter.from_pretrained` if a transformer was trained. Decoded
images are kept in another folder, for all runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.images import load_image
from geoaware.data.sampling import permutation
from geoaware.features.extractor import choose_device
from geoaware.features.patches import twin
from geoaware.method.matching import MatchSettings, sample_descriptors
from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell, silent
from geoaware.training import kit
from geoaware.training.backbone.config import EMBEDDED, TuneConfig
from geoaware.training.backbone.crops import make_crops
from geoaware.training.backbone.kinds import Embedded, Kind
from geoaware.training.backbone.objective import Criterion
from geoaware.training.backbone.transformer import Transformer
from geoaware.training.backbone.unlabelled import Unlabelled, make_unlabelled, used_images
from geoaware.training.backbone.views import Batch, Camera, Share, to_device
from geoaware.training.backbone.vocabulary import Vocabulary, with_own_names
from geoaware.training.kit import DivergedError, Run, Say
from geoaware.training.validation import Score, validate

WEIGHTS = "weights"

_LOOKED_AT = 10
"""Steps that the mean descriptors come from at which the prototypes begin."""


class Learner(nn.Module):
    """All that a checkpoint keeps: the network, its moving average, and what the loss learns."""

    def __init__(self, network: Any, criterion: Criterion) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.average = twin(network, own=True).requires_grad_(False)

    def forward(
        self, shown: Float[Tensor, "n c h h"], batch: Batch, precision: torch.autocast
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of a step's loss, of what the network is shown of its views and then of its negatives.

        The network may compute in bfloat16, the losses do not.
        """
        with precision:
            maps, *seen = (each.float() for each in self.network(shown))
        if not seen:
            return self.criterion.matched(maps, batch)
        presence, turns = seen
        familiarity = self.network.familiarity(presence.detach())
        return self.criterion(maps[: len(batch.pixels)], presence, familiarity, turns[:, :, 0, 0], batch)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average a little towards the network."""
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in names], [theirs[name] for name in names], 1 - decay)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint.

        Raises:
            ValueError, RuntimeError: it is of another network.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError("the tensors are those of another network")
        self.load_state_dict(dict(state), strict=False)


def tune(
    config: TuneConfig,
    out: Path,
    *,
    device: str = "auto",
    restart: bool = False,
    tell: Tell = silent,
    say: Say = lambda _: None,
) -> Path:
    """Train the backbone, or go on with a run that was stopped; the folder of the weights.

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
    stride: int

    def step(self, number: int) -> Batch:
        """The views, decided by the seed and the step's number alone."""
        config, objective = self.config, self.config.objective
        generator = torch.Generator().manual_seed(next(permutation(2**63, f"{config.seed}/one/{number}")))
        camera = Camera(
            config.views, self.vocabulary, self.unlabelled, config.size, generator, self.stride, config.crop
        )
        negatives = config.unlabelled.negatives if config.unlabelled else 0
        return camera.batch(self.shares, objective.limbs, objective.points, negatives)


@dataclass
class _Run(Run[Batch]):
    config: TuneConfig
    device: torch.device
    drawing: Drawing
    kind: Kind[Any]
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
        self.kind.begin(learner.network, step)
        self.optimiser.zero_grad(set_to_none=True)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        precision = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        batch = to_device(ready, self.device)
        shown = self.kind.shown(torch.cat([batch.pixels, batch.negatives]))
        parts = learner(shown, batch, precision)
        loss = learner.criterion.total(parts)
        loss.backward()
        trained = [each for group in self.optimiser.param_groups for each in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
        scale = learner.criterion.log_scale.detach().exp()
        figures = {"loss": loss, "gradient": norm, **parts, "scale": scale}
        if "familiar" in parts:
            figures["slope"], figures["offset"] = learner.network.familiar.detach()
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
        checks, extractor = self.config.validation, self.kind.extractor(self.learner.average)
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


def _prepare(
    config: TuneConfig,
    out: Path,
    device: torch.device,
    restart: bool,
    tell: Tell,
    say: Say,
    held: ExitStack,
) -> _Run:
    sets = [with_own_names(each) for each in kit.load_sets(config.data, config.root)]
    validation = kit.load_validation(config)
    known = {category for data in sets for category in data.schemas}
    for name in config.without:
        if name not in known:
            raise InputError(f"without: there is no category {name!r}; there are {', '.join(sorted(known))}")
    for data in sets:
        kit.require_flip_pairs(data)
    wanted, images = config.unlabelled, []
    if wanted is not None:
        images = used_images(Path(config.root) / wanted.root, wanted.every, wanted.negatives)
    kind: Kind[Any] = Embedded(config) if config.backbone == EMBEDDED else Transformer(config)
    kit.say_notes([*sets, *validation], say)
    vocabulary = Vocabulary.of(data.schemas[each] for data in sets for each in sorted(data.schemas))
    # What does not fit is refused before images are decoded, which takes minutes.
    saved, position = kit.open_folder(config, out, restart, (WEIGHTS,), say, held)
    torch.manual_seed(config.seed)
    network = _network(config, kind)
    criterion = Criterion(len(vocabulary), kind.channels, config.objective)
    workers = config.workers or os.cpu_count() or 1
    drawing = _drawing(config, kind, sets, images, vocabulary, workers, tell)
    kind.to(device)
    if saved is None:
        _set_prototypes(network.to(device), criterion, drawing, kind, device)
    learner = Learner(network, criterion).to(device)
    optimiser = _optimiser(learner, config, kind)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    if saved is not None:
        with checkpoint.reading(out):
            learner.restore(saved.network)
            saved.restore(optimiser, schedule)
    common = config, out, config.steps, position, validation, Log(out, position.total), tell, say, True
    # Each thread makes a step alone; threads that each start threads would fight for the cores.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    return _Run(*common, device, drawing, kind, learner, optimiser, schedule, workers, pool)


def _drawing(
    config: TuneConfig,
    kind: Kind[Any],
    sets: Sequence[DataSet],
    images: Sequence[Path],
    vocabulary: Vocabulary,
    workers: int,
    tell: Tell,
) -> Drawing:
    """What steps are made of; objects and images are decoded if that was not done before."""
    cache, shares = Path(config.cache), []
    for data, choice in zip(sets, config.data, strict=True):
        crops = make_crops(data, vocabulary, cache, workers, tell, config.without, config.crop)
        shares.append(Share(crops, choice.objects, choice.twice, choice.categories))
    others = make_unlabelled(images, cache, workers, tell) if images else Unlabelled.none()
    return Drawing(config, shares, vocabulary, others, kind.stride)


def _network(config: TuneConfig, kind: Kind[Any]) -> Any:
    """A new network, or the one to go on from, with what is known of it.

    Raises:
        InputError: the latter is not there, or of another shape.
    """
    network = kind.make()
    chosen = config.model_dump(mode="json", exclude_defaults=True, exclude={"root", "cache"})
    chosen.get("backbone_settings", {}).pop("weights", None)
    network.info = {
        "training": chosen,
        "versions": {"geoaware": __version__, "torch": str(torch.__version__)},
    }
    return network


@torch.no_grad()
def _set_prototypes(
    network: Any, criterion: Criterion, drawing: Drawing, kind: Kind[Any], device: torch.device
) -> None:
    """Let the prototypes begin as mean descriptors: random ones would pull the network to nowhere."""
    network.eval()
    sums = torch.zeros_like(criterion.prototypes)
    for step in range(_LOOKED_AT):
        batch = drawing.step(step)
        maps = network(kind.shown(batch.pixels.to(device)))[0].cpu()
        found = F.normalize(sample_descriptors(maps, batch.xy), dim=2)
        sums += (found * batch.visible[..., None]).sum(dim=0)[: len(sums)]
    known = sums.abs().sum(dim=1) > 0
    criterion.prototypes[known] = sums.shape[1] ** 0.5 * F.normalize(sums[known], dim=1)


def _optimiser(learner: Learner, config: TuneConfig, kind: Kind[Any]) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone, faster for what the loss learns; only matrices decay."""
    network, criterion = learner.network, learner.criterion
    backbone = {id(each) for each in kind.backbone(network)}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, each in network.named_parameters():
        if name == "familiar" or not each.requires_grad:
            continue
        rate = config.backbone_rate if id(each) in backbone else 1.0
        groups.setdefault((rate, each.ndim > 1), []).append(each)
    own = [network.familiar] if hasattr(network, "familiar") else []
    groups[config.prototype_rate, False] = [*criterion.parameters(), *own]
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
