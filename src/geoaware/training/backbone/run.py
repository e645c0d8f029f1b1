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
from geoaware.data.images import load_image
from geoaware.data.sampling import permutation
from geoaware.features.efficientnet_lite import MEAN, STD, EfficientNetLite
from geoaware.features.extractor import choose_device
from geoaware.features.tuned import CANVAS, GRID, Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.method.geometry import Canvas
from geoaware.method.matching import MatchSettings, sample_descriptors
from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell, silent
from geoaware.training import kit
from geoaware.training.backbone.config import TuneConfig
from geoaware.training.backbone.images import Images
from geoaware.training.backbone.objective import Criterion, Parts
from geoaware.training.backbone.views import Batch, Camera, restyled
from geoaware.training.kit import DivergedError, Run, Say
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
        self, pixels: Tensor, batch: Batch, precision: torch.autocast, plain: Tensor | None = None
    ) -> Parts:
        """The parts of a step's loss; the network may compute in bfloat16, the losses do not."""
        with precision:
            descriptors, presence = self.network(pixels, lambda maps: restyled(maps, *batch.styles))
        return self.criterion(descriptors.float(), presence.float(), batch, plain)

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
        run.images.close()
    return out / WEIGHTS


@dataclass
class _Run(Run[Batch]):
    config: TuneConfig
    device: torch.device
    images: Images
    learner: Learner
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    plain: EfficientNetLite

    def read(self, step: int) -> Batch:
        config, images = self.config, self.images
        key = f"{config.seed}/tune/{step}"
        shown = images.read(images.draw(config.images, key))
        generator = torch.Generator().manual_seed(next(permutation(2**63, key)))
        schemas = [each.schema for each in images.groups]
        camera = Camera(config.views, schemas, CANVAS, GRID, self.device, generator)
        return camera.batch(shown, config.objective.points, config.objective.limbs)

    def take(self, step: int, ready: Batch) -> dict[str, float]:
        config, learner = self.config, self.learner
        learner.train()
        learner.average.eval()
        self.optimiser.zero_grad(set_to_none=True)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        precision = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        pixels, plain = _normalised(ready.pixels), None
        if config.objective.distillation:
            # The plain extractor's descriptors, on the grid of the trained ones.
            with torch.inference_mode(), precision:
                parts = pixels.split(_PLAIN_AT_ONCE)
                maps = [self.plain.combine(self.plain.levels(part), GRID).to(dtype) for part in parts]
                plain = torch.cat(maps)
        losses = learner(pixels, ready, precision, plain)
        loss = losses.total(config.objective)
        loss.backward()
        trained = [*learner.network.parameters(), *learner.criterion.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
        figures = {"loss": loss, "gradient": norm, **vars(losses)}
        values = dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))
        if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient"]):
            raise DivergedError(
                f"the loss is {values['loss']}, its gradient {values['gradient']} at step {step + 1}; the "
                "checkpoint before it is kept; lower learning_rate"
            )
        self.optimiser.step()
        self.schedule.step()
        learner.follow(min(config.average, (1 + step) / (10 + step)))
        return values

    def scores(self) -> list[Score]:
        """By the averaged network's descriptors alone."""
        checks, tuned = self.config.validation, TunedSettings(share=1.0, familiar=())
        extractor = Tuned("efficientnet-lite0-tuned", tuned, self.learner.average, self.plain)
        extractor = extractor.to(self.device).eval()
        matching = MatchSettings(
            window=checks.window, temperature=checks.temperature, inside_picture=True, interpolate=True
        )
        return validate(
            lambda image: extractor(load_image(image.path)), self.validation, matching, checks.alpha
        )

    def save(self, best: Mapping[str, float] | None) -> None:
        learner, position = self.learner, self.position
        if position.total == self.total:
            learn_centres(learner.average, self.plain, self.images)
        learner.average.info = {**learner.network.info, "steps": position.total}
        learner.average.save_pretrained(self.out / WEIGHTS)
        states = learner.state_dict(), self.optimiser.state_dict(), self.schedule.state_dict()
        checkpoint.save(self.out, checkpoint.Saved(*states, position))


def _prepare(
    config: TuneConfig, out: Path, device: torch.device, restart: bool, tell: Tell, say: Say
) -> _Run:
    sets, validation = kit.load_sets(config.data, config.root), kit.load_validation(config)
    kit.say_notes([*sets, *validation], say)
    shares = [choice.share for choice in config.data]
    room, workers = int(config.memory * 2**30), config.workers or os.cpu_count() or 1
    images = Images(sets, shares, CANVAS, room, workers)
    saved, position = kit.open_folder(config, out, restart, (WEIGHTS,), say)
    torch.manual_seed(config.seed)
    counts = [len(each.schema) for each in images.groups]
    network = _network(config, counts)
    criterion = Criterion(counts, network.shape.descriptor, config.objective)
    learner = Learner(network, criterion).to(device)
    optimiser = _optimiser(learner, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    if saved is not None:
        learner.load_state_dict(saved.network)
        saved.restore(optimiser, schedule)
    plain = EfficientNetLite.load("efficientnet-lite0").to(device).eval()
    common = config, out, config.steps, position, validation, Log(out, position.total), tell, say, True
    return _Run(*common, device, images, learner, optimiser, schedule, plain)


def _network(config: TuneConfig, keypoints: Sequence[int]) -> TunedNetwork:
    """A new network, or the one to go on from, which must be of the same shape."""
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


def _normalised(pixels: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v 3 s s"]:
    """Pixels of 0…1 as the networks take them."""
    mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


@torch.inference_mode()
def learn_centres(network: TunedNetwork, plain: EfficientNetLite, images: Images) -> None:
    """Set a network's centres: mean unit descriptors, tuned and plain, of every keypoint, kind after kind.

    Those of a keypoint that no image shows are zero. `CENTRED` images of each kind are looked at, evenly
    spread over those trained on.
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
        step = max(1, len(kind.images) // CENTRED)
        for (shown,) in (images.read([(number, each)]) for each in kind.images[::step][:CENTRED]):
            pixels = _normalised(shown.pixels[None].to(device) / 255)
            xy = canvas.to_grid(shown.xy, GRID).to(device)[None]
            visible = shown.visible[:, None].to(device)
            maps = network(pixels)[0], plain.combine(plain.levels(pixels), GRID)
            for buffer, each in zip(buffers, maps, strict=True):
                buffer[rows] += F.normalize(sample_descriptors(each, xy)[0], dim=1) * visible
    for buffer in buffers:
        buffer.copy_(F.normalize(buffer, dim=1))
