"""The run of the one network: steps and checkpoints in a folder; stopped at any moment, it goes on."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoaware.data.sampling import permutation
from geoaware.features.efficientnet_lite import MEAN, STD, imagenet_network
from geoaware.features.one import READ, OneNetwork
from geoaware.features.tuned import TunedNetwork
from geoaware.runs.errors import InputError
from geoaware.training.backbone.crops import Crops, read_crops
from geoaware.training.backbone.mixed_objective import MixedCriterion, MixedWeights
from geoaware.training.backbone.mixture import Plain, Share, Turning, Views, Windows, draw_views
from geoaware.training.backbone.objective import read
from geoaware.training.backbone.vocabulary import Vocabulary

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class MixedConfig:
    """A run.

    Attributes:
        crops: folder with a folder of crops for each data set.
        plain: folder of whole images with plain descriptors.
        shares: of each data set, objects a step and how many of them are shown twice.
        windows: a step.
        unlabelled: how many of them are of images without labels.
        size: side of views and windows in pixels.
        limbs: points on limbs a step.
        points: that nobody annotated, on objects shown twice.
        frozen: the last block that stays as it is; early maps are the dearest and the most general.
        learning_rate: of the decoder.
        backbone_rate: of the backbone, relative to it.
        prototype_rate: of the prototypes, relative to it.
        reading: whether the plain way out is trained; else it stays as fitted, and distillation keeps the
            backbone such that it fits.
        weight_decay: of AdamW.
        warmup: steps in which the rate rises.
        average: decay of the moving average.
        seed: of everything drawn.
        turning: how objects are shown.
        weights: of the loss.
        without: categories that are left out.
    """

    crops: str
    plain: str
    shares: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"animalpose": (12, 2), "lspet": (3, 0), "quaternius": (2, 0)}
    )
    windows: int = 5
    unlabelled: int = 3
    size: int = 256
    limbs: int = 8
    points: int = 48
    frozen: int = 2
    learning_rate: float = 5e-4
    backbone_rate: float = 0.1
    prototype_rate: float = 6.0
    reading: bool = False
    weight_decay: float = 0.02
    warmup: int = 50
    average: float = 0.995
    seed: int = 0
    turning: Turning = field(default_factory=Turning)
    weights: MixedWeights = field(default_factory=MixedWeights)
    without: tuple[str, ...] = ()


class Drawing:
    """Makes the views and windows of any step.

    Args:
        config: of the run.
    """

    def __init__(self, config: MixedConfig) -> None:
        self.config = config
        self.sets = {name: read_crops(Path(config.crops) / name) for name in config.shares}
        self.vocabulary = read_vocabulary(Path(config.crops) / "vocabulary.json")
        self.plain = Plain(Path(config.plain))

    def step(self, number: int) -> tuple[Views, Windows]:
        """What a step shows, decided by its number."""
        config = self.config
        key = f"{config.seed}/one/{number}"
        generator = torch.Generator().manual_seed(next(permutation(2**63, key)))
        shares = [
            Share(self._left(self.sets[name]), objects, twice)
            for name, (objects, twice) in config.shares.items()
            if objects
        ]
        views = draw_views(
            shares,
            self.vocabulary,
            config.turning,
            self.plain,
            config.size,
            config.limbs,
            config.points,
            generator,
        )
        return views, self.plain.windows(config.windows, config.size, config.unlabelled, generator)

    def _left(self, crops: Crops) -> Crops:
        """The crops with categories that are left out named nowhere, so that none is drawn."""
        if not set(self.config.without) & set(crops.categories):
            return crops
        kept = tuple(each for each in crops.categories if each not in self.config.without)
        number = {crops.categories.index(name): place for place, name in enumerate(kept)}
        category = crops.category.copy()
        for row, each in enumerate(crops.category):
            category[row] = number.get(int(each), -1)
        values = {**vars(crops), "category": category, "categories": kept}
        return Crops(**values)


class MixedLearner(nn.Module):
    """All that a checkpoint keeps: the network, its moving average, and what the loss learns."""

    def __init__(self, network: OneNetwork, criterion: MixedCriterion) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    def forward(self, views: Views, windows: Windows) -> dict[str, Tensor]:
        """The parts of a step's loss."""
        count = len(views.pixels)
        pixels = normalised(torch.cat([views.pixels, windows.pixels]))
        trained, plain, presence = self.network.parts(pixels)
        # Keypoints teach the trained descriptors alone: the plain ones are there for all that has none.
        of_views = self.network.joined(trained[:count], plain[:count].detach(), presence[:count])
        of_windows = self.network.joined(trained[count:], plain[count:], presence[count:])
        return self.criterion(
            of_views, presence[:count], views, plain[count:], of_windows, presence[count:], windows
        )

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average a little towards the network."""
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in names], [theirs[name] for name in names], 1 - decay)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels of 0 to 1 as the network takes them."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write the classes beside their crops."""
    path.write_text(json.dumps(asdict(vocabulary)), encoding="utf-8")


def read_vocabulary(path: Path) -> Vocabulary:
    """Classes that `write_vocabulary` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    limbs = tuple((first, second) for first, second in values["limbs"])
    return Vocabulary(tuple(values["names"]), tuple(values["partners"]), limbs)


@torch.no_grad()
def towards_imagenet(network: OneNetwork, kept: float) -> None:
    """Move the backbone a part of the way back to ImageNet's weights (Wortsman et al. 2022).

    Plain descriptors are better there, and the decoder still understands what it reads.

    Args:
        network: whose backbone moves.
        kept: share of its own weights.
    """
    there = OneNetwork(network.shape, imagenet_network()).state_dict()
    for name, value in network.state_dict().items():
        if name.startswith(("stem", "blocks")) and value.is_floating_point():
            value.copy_(torch.lerp(there[name], value, kept))


@torch.inference_mode()
def fit_reading(network: OneNetwork, plain: Plain, count: int = 400, cells: int = 120) -> float:
    """Set the plain way out by ridge regression onto the plain extractor's descriptors.

    Args:
        network: as it stands; its reading is overwritten, its correction becomes 0.
        plain: images with these descriptors.
        count: images that are looked at, the first ones.
        cells: of each.

    Returns:
        The share of the descriptors' energy that is explained.
    """
    network.eval()
    for each in network.correction.parameters():
        each.zero_()
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = [], []
    for row in range(min(count, len(plain.pixels))):
        pixels = torch.from_numpy(plain.pixels[row].copy()).permute(2, 0, 1)[None].float() / 255
        levels = network._levels(normalised(pixels), lambda maps: maps)[1]
        side = plain.maps.shape[-1]
        joined = torch.cat(
            [F.interpolate(levels[str(each)], size=(side, side), mode="bilinear") for each in READ], dim=1
        )[0]
        top, bottom, left, right = plain.inside[row].tolist()
        y = torch.randint(top, bottom, (cells,), generator=generator)
        x = torch.randint(left, right, (cells,), generator=generator)
        inputs.append(joined[:, y, x].T)
        target = F.normalize(torch.from_numpy(plain.maps[row].astype("float32")), dim=0)
        wanted.append(target[:, y, x].T)
    rows, targets = torch.cat(inputs).double(), torch.cat(wanted).double()
    gram = rows.T @ rows
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, rows.T @ targets)
    begin = 0
    for index, channels in READ.items():
        reading = cast(nn.Conv2d, network.reading[str(index)])
        reading.weight.copy_(solution[begin : begin + channels].T.float()[..., None, None])
        begin += channels
    return 1 - float((rows @ solution - targets).square().sum() / targets.square().sum())


def first_learner(config: MixedConfig, start: str, channels: int, drawing: Drawing) -> MixedLearner:
    """The learner of a new run.

    Args:
        config: of the run.
        start: a tuned network, whose plain way out is fitted, or a folder of a `OneNetwork`.
        channels: of the plain descriptors of the former.
        drawing: of the run.
    """
    torch.manual_seed(config.seed)
    try:
        network = OneNetwork.from_pretrained(start)
    except InputError:
        network = OneNetwork.from_tuned(TunedNetwork.from_pretrained(start), channels)
        fit_reading(network, drawing.plain)
    width = network.shape.descriptor + network.shape.plain
    criterion = MixedCriterion(len(drawing.vocabulary), width, config.weights)
    set_prototypes(network, criterion, drawing)
    return MixedLearner(network, criterion)


@torch.inference_mode()
def set_prototypes(network: OneNetwork, criterion: MixedCriterion, drawing: Drawing, steps: int = 10) -> None:
    """Let the prototypes begin as mean descriptors: random ones would pull the network to nowhere."""
    network.eval()
    sums = torch.zeros_like(criterion.prototypes)
    for step in range(steps):
        views, _ = drawing.step(step)
        found = F.normalize(read(network(normalised(views.pixels))[0], views.xy), dim=2)
        seen = views.visible.unsqueeze(2)
        sums += torch.where(seen, found, torch.zeros_like(found)).sum(dim=0)[: len(sums)]
    known = sums.abs().sum(dim=1) > 0
    length = sums.shape[1] ** 0.5
    criterion.prototypes[known] = length * F.normalize(sums[known], dim=1)


def make_optimiser(learner: MixedLearner, config: MixedConfig) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone; weights decay in convolutions alone."""
    network = learner.network
    network.fixed = config.frozen
    for part in (network.stem, *network.blocks[: config.frozen + 1]):
        part.requires_grad_(False)
    for part in (network.reading, network.correction):
        part.requires_grad_(config.reading)
    backbone = {id(each) for each in network.blocks.parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for each in network.parameters():
        if each.requires_grad:
            rate = config.backbone_rate if id(each) in backbone else 1.0
            groups.setdefault((rate, each.ndim > 1), []).append(each)
    groups[config.prototype_rate, False] = list(learner.criterion.parameters())
    return torch.optim.AdamW(
        {
            "params": members,
            "lr": config.learning_rate * rate,
            "peak": config.learning_rate * rate,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (rate, decays), members in groups.items()
    )


def train(
    config: MixedConfig,
    out: Path,
    *,
    start: str,
    channels: int,
    until: float = math.inf,
    steps: int | None = None,
    cooling: int = 0,
    save_every: float = 240.0,
    say: Callable[[str], None] = print,
) -> None:
    """Train, or go on training, until a moment or for some steps.

    The rate is constant, so that a run can always go on; ``cooling`` steps from the checkpoint with a rate
    that falls to 0 give weights to use and leave the checkpoint alone.

    Args:
        config: what to do.
        out: the run's folder.
        start: tuned network that a new run begins from.
        channels: of the plain descriptors of a new run.
        until: seconds since the epoch.
        steps: at most so many.
        cooling: steps, instead of a part of the run.
        save_every: seconds between checkpoints.
        say: takes lines of the log.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawing = Drawing(config)
    classes = len(drawing.vocabulary)
    place = out / CHECKPOINT
    if place.is_file():
        saved = torch.load(place, map_location="cpu", weights_only=True)
        network = OneNetwork.from_pretrained(out / "weights")
        width = network.shape.descriptor + network.shape.plain
        learner = MixedLearner(network, MixedCriterion(classes, width, config.weights))
        learner.load_state_dict(saved["learner"])
        optimiser = make_optimiser(learner, config)
        optimiser.load_state_dict(saved["optimiser"])
        for group, rate in zip(optimiser.param_groups, _peaks(learner, config), strict=True):
            group["peak"] = rate
        step, views = saved["step"], saved["views"]
        say(f"going on at step {step}")
    else:
        learner = first_learner(config, start, channels, drawing)
        optimiser = make_optimiser(learner, config)
        step, views = 0, 0
        save(out, learner, optimiser, step, views, config)
    began, last_saved, first = time.monotonic(), time.monotonic(), step
    sums: dict[str, float] = {}
    # Batch normalisations keep the mean and deviation that they had: batches are small and mixed.
    learner.eval()
    last = first + cooling if cooling else math.inf if steps is None else first + steps
    while time.time() < until and step < last:
        factor = min(1.0, (step + 1) / config.warmup)
        factor *= 1 - (step - first) / cooling if cooling else 1.0
        for group in optimiser.param_groups:
            group["lr"] = factor * group["peak"]
        shown = drawing.step(step)
        figures = _step(learner, optimiser, *shown)
        step += 1
        views += len(shown[0].pixels) + len(shown[1].pixels)
        learner.follow(min(config.average, (1 + step) / (10 + step)))
        sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        if step % 20 == 0:
            line = {"step": step, "views": views, "seconds": round(time.monotonic() - began)}
            done = min(20, step - first)
            say(json.dumps({**line, **{name: round(value / done, 4) for name, value in sums.items()}}))
            sums = {}
        if not cooling and time.monotonic() - last_saved > save_every:
            save(out, learner, optimiser, step, views, config)
            last_saved = time.monotonic()
    if cooling:
        learner.average.info = {"steps": step, "views": views, "cooled": cooling}
        learner.average.save_pretrained(out / "cooled")
    else:
        save(out, learner, optimiser, step, views, config)


def _peaks(learner: MixedLearner, config: MixedConfig) -> list[float]:
    return [group["peak"] for group in make_optimiser(learner, config).param_groups]


def _step(
    learner: MixedLearner, optimiser: torch.optim.Optimizer, views: Views, windows: Windows
) -> dict[str, float]:
    """One step of the optimiser; one whose loss or gradient is not finite changes nothing."""
    optimiser.zero_grad(set_to_none=True)
    parts = learner(views, windows)
    loss = learner.criterion.total(parts)
    loss.backward()
    trained = [each for group in optimiser.param_groups for each in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, 5.0)
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
        optimiser.step()
    scale = learner.criterion.log_scale.exp()
    gate = learner.network.gate
    values = {"loss": loss, **parts, "gradient": norm, "scale": scale, "gate": gate[0], "bias": gate[1]}
    return {name: float(value.detach()) for name, value in values.items()}


def save(
    out: Path,
    learner: MixedLearner,
    optimiser: torch.optim.Optimizer,
    step: int,
    views: int,
    config: MixedConfig,
) -> None:
    """Write the weights to use and the state to go on from, the latter in one move."""
    learner.average.info = {"steps": step, "views": views}
    learner.average.save_pretrained(out / "weights")
    state = {
        "learner": learner.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "views": views,
        "config": json.dumps(asdict(config)),
    }
    waiting = out / f"{CHECKPOINT}.part"
    torch.save(state, waiting)
    waiting.replace(out / CHECKPOINT)
