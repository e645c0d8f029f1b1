"""The training of the backbone: steps, validations and checkpoints.

The run's folder is described in `geoaware.training.kit`; its weights are ``weights/``, which
`TunedNetwork.from_pretrained` takes.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware._version import __version__
from geoaware.data import DataSet
from geoaware.data.images import load_image
from geoaware.data.sampling import permutation
from geoaware.features.efficientnet_lite import MEAN, STD, EfficientNetLite
from geoaware.features.extractor import choose_device
from geoaware.features.tuned import CANVAS, GRID, Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.method.geometry import Canvas
from geoaware.method.matching import MatchSettings, sample_descriptors
from geoaware.runs import checkpoint
from geoaware.runs.checkpoint import Position
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell, silent
from geoaware.training.backbone.config import TuneConfig
from geoaware.training.backbone.images import Images
from geoaware.training.backbone.objective import Criterion, Parts
from geoaware.training.backbone.views import Batch, make_batch, restyled
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
from geoaware.training.validation import Score, validate

WEIGHTS = "weights"

_PLAIN_AT_ONCE = 32
"""Views whose plain descriptors are computed at once."""

CENTRED = 200
"""Images of each kind that the centres are the means of."""


class Learner(nn.Module):
    """All that a checkpoint keeps: the network, its moving average, and what the loss learns."""

    def __init__(self, network: TunedNetwork, criterion: Criterion) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    def forward(
        self, pixels: Tensor, batch: Batch, precision: torch.dtype, plain: Tensor | None = None
    ) -> Parts:
        """The parts of a step's loss; the network may compute in bfloat16, the losses do not."""
        with torch.autocast(pixels.device.type, precision, enabled=precision != torch.float32):
            descriptors, presence = self.network(pixels, lambda maps: restyled(maps, *batch.styles))
        return self.criterion(descriptors.float(), presence.float(), batch, plain)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average a little towards the network."""
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in names], [theirs[name] for name in names], 1 - decay)


@dataclass(frozen=True)
class _Run:
    config: TuneConfig
    device: torch.device
    images: Images
    validation: list[DataSet]
    learner: Learner
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    journal: Journal
    plain: EfficientNetLite

    def plain_maps(self, pixels: Tensor, precision: torch.dtype) -> Tensor | None:
        """The plain extractor's descriptors on the grid of the trained ones, if the loss looks at them."""
        if not self.config.objective.distillation:
            return None
        with (
            torch.inference_mode(),
            torch.autocast(pixels.device.type, precision, enabled=precision != torch.float32),
        ):
            parts = pixels.split(_PLAIN_AT_ONCE)
            return torch.cat(
                [self.plain.combine(self.plain.levels(part), GRID).to(precision) for part in parts]
            )


def tune(
    config: TuneConfig,
    out: Path,
    *,
    device: str = "auto",
    restart: bool = False,
    tell: Tell = silent,
    say: Say = lambda _: None,
) -> Path:
    """Train the backbone with its decoder, or go on with a run that was stopped.

    Args:
        config: what to do.
        out: the run's folder.
        device: as for `load_extractor`.
        restart: throw away what an earlier run left in the folder.
        tell: is told how far the training is.
        say: takes lines on what happens.

    Returns:
        The folder of the weights.

    Raises:
        InputError: a setting, data set or file does not fit; the folder belongs to another run.
        DivergedError: the loss became NaN or infinite.
    """
    run = _prepare(config, out, device, restart, tell, say)
    position = run.journal.position

    def save(_: Mapping[str, float] | None) -> None:
        learner = run.learner
        if position.total == config.steps:
            learn_centres(learner.average, run.plain, run.images)
        learner.average.info = {**learner.network.info, "steps": position.total}
        learner.average.save_pretrained(out / WEIGHTS)
        checkpoint.save(out, learner, run.optimiser, run.schedule.state_dict(), position)

    try:
        for step, batch in read_ahead(lambda each: _read(run, each), position.total, config.steps):
            figures = _step(run, step, batch)
            run.journal.after_step(figures, step + 1 == config.steps, lambda: _scores(run), save)
    finally:
        run.journal.log.close()
        run.images.close()
    return out / WEIGHTS


def _prepare(config: TuneConfig, out: Path, device: str, restart: bool, tell: Tell, say: Say) -> _Run:
    place = choose_device(device)
    sets, validation = load_sets(config.data, config.root), load_validation(config)
    say_notes([*sets, *validation], say)
    shares = [choice.share for choice in config.data]
    room, workers = int(config.memory * 2**30), config.workers or os.cpu_count() or 1
    images = Images(sets, shares, CANVAS, room, workers)
    saved = open_folder(config, out, restart, (WEIGHTS,))
    torch.manual_seed(config.seed)
    counts = [len(each.schema) for each in images.groups]
    network = _network(config, counts)
    criterion = Criterion(counts, network.shape.descriptor, config.objective)
    learner = Learner(network, criterion).to(place)
    optimiser = _optimiser(learner, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    position = Position()
    if saved is not None:
        learner.load_state_dict(saved.network)
        saved.restore(optimiser, schedule)
        position = saved.position
        say(f"going on at step {position.total}")
    plain = EfficientNetLite.load("efficientnet-lite0").to(place).eval()
    journal = Journal(config, config.steps, position, Log(out, position.total), tell, say)
    return _Run(config, place, images, validation, learner, optimiser, schedule, journal, plain)


def _network(config: TuneConfig, keypoints: Sequence[int]) -> TunedNetwork:
    """A new network, or the one to go on from.

    Raises:
        InputError: the latter is not there, or of another shape.
    """
    shape = TunedShape(**config.shape.model_dump(), keypoints=tuple(keypoints))
    if config.start is None:
        network = TunedNetwork.from_imagenet(shape)
    else:
        network = TunedNetwork.from_pretrained(config.start)
        if network.shape != shape:
            raise InputError(
                f"{config.start}: has {network.shape}, the run {shape}; set shape and data accordingly"
            )
    network.info = {
        "training": config.model_dump(mode="json", exclude_defaults=True, exclude={"root"}),
        "versions": {"geoaware": __version__, "torch": str(torch.__version__)},
    }
    return network


def _optimiser(learner: Learner, config: TuneConfig) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone, weights decay in convolutions alone."""
    backbone = {
        id(each) for part in (learner.network.stem, learner.network.blocks) for each in part.parameters()
    }
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for each in (*learner.network.parameters(), *learner.criterion.parameters()):
        groups.setdefault((id(each) in backbone, each.ndim > 1), []).append(each)
    return torch.optim.AdamW(
        {
            "params": members,
            "lr": config.learning_rate * (config.backbone_rate if old else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (old, decays), members in groups.items()
    )


def _rate(step: int, config: TuneConfig) -> float:
    """Share of the peak: up in a line, down along a cosine."""
    rising = max(1, round(config.rising * config.steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, config.steps - rising)))


def _read(run: _Run, step: int) -> Batch:
    """The views of a step, made while the step before it is computed."""
    config, images = run.config, run.images
    key = f"{config.seed}/tune/{step}"
    shown = images.read(images.draw(config.images, key))
    generator = torch.Generator().manual_seed(next(permutation(2**63, key)))
    schemas = [each.schema for each in images.groups]
    objective = config.objective
    return make_batch(
        shown, schemas, config.views, objective.points, objective.limbs, GRID, generator, run.device
    )


def _step(run: _Run, step: int, batch: Batch) -> dict[str, float]:
    """One step of the optimiser.

    Raises:
        DivergedError: loss or gradient is not finite; nothing was changed.
    """
    config, learner = run.config, run.learner
    learner.train()
    learner.average.eval()
    run.optimiser.zero_grad(set_to_none=True)
    precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
    pixels = _normalised(batch.pixels)
    parts = learner(pixels, batch, precision, run.plain_maps(pixels, precision))
    loss = parts.total(config.objective)
    loss.backward()
    trained = [*learner.network.parameters(), *learner.criterion.parameters()]
    norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
    figures = {"loss": loss, "gradient": norm, **vars(parts)}
    values = dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))
    if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient"]):
        raise DivergedError(
            f"the loss is {values['loss']}, its gradient {values['gradient']} at step {step + 1}; the "
            "checkpoint before it is kept; lower learning_rate"
        )
    run.optimiser.step()
    run.schedule.step()
    learner.follow(min(config.average, (1 + step) / (10 + step)))
    return values


def _normalised(pixels: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v 3 s s"]:
    """Pixels of 0…1 as the networks take them."""
    mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


def _scores(run: _Run) -> list[Score]:
    """PCK of the averaged network's descriptors alone."""
    checks = run.config.validation
    settings = TunedSettings(share=1.0, familiar=())
    extractor = Tuned("efficientnet-lite0-tuned", settings, run.learner.average, run.plain)
    extractor = extractor.to(run.device).eval()
    matching = MatchSettings(
        window=checks.window, temperature=checks.temperature, inside_picture=True, interpolate=True
    )
    return validate(lambda image: extractor(load_image(image.path)), run.validation, matching, checks.alpha)


@torch.inference_mode()
def learn_centres(
    network: TunedNetwork, plain: EfficientNetLite, images: Images, count: int = CENTRED
) -> None:
    """Set a network's centres: mean unit descriptors, tuned and plain, of every keypoint, kind after kind.

    Those of a keypoint that no image shows are zero.

    Args:
        network: as it will be used.
        plain: the extractor beside which it will be used, on the same device.
        images: trained on.
        count: images of each kind that are looked at, evenly spread over them.
    """
    device = network.centres.device
    canvas = Canvas(CANVAS, CANVAS, CANVAS)
    buffers = network.centres, network.plain_centres
    for buffer in buffers:
        buffer.zero_()
    begin = 0
    for number, kind in enumerate(images.groups):
        rows = slice(begin, begin + len(kind.schema))
        begin = rows.stop
        step = max(1, len(kind.images) // count)
        for (shown,) in (images.read([(number, each)]) for each in kind.images[::step][:count]):
            pixels = _normalised(shown.pixels[None].to(device) / 255)
            xy = canvas.to_grid(shown.xy, GRID).to(device)[None]
            maps = network(pixels)[0], plain.combine(plain.levels(pixels), GRID)
            for buffer, each in zip(buffers, maps, strict=True):
                buffer[rows] += F.normalize(sample_descriptors(each, xy)[0], dim=1) * shown.visible[
                    :, None
                ].to(device)
    for buffer in buffers:
        buffer.copy_(F.normalize(buffer, dim=1))
