"""The loss of a batch of groups: each view refined once, only the rows of annotated keypoints computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.refined import blended
from geoaware.method.losses import contrastive_loss, dense_errors, distillation_loss, disturbed
from geoaware.method.matching import read_descriptors
from geoaware.method.post_processor import PostProcessor
from geoaware.training.post_processor.augment import Example, Labels, Term, target_positions
from geoaware.training.post_processor.config import Loss

_DRAWN, _DISTILLED = 64, 32
"""Points drawn on a view for the distillation, and those used at most."""

_AROUND, _APART = 1.5, 1.25
"""Cells: how far around the keypoints points are drawn, and how far from each keypoint they stay."""


class Step(nn.Module):
    """The network with its objective: raw maps and labels in, losses out.

    A module, so that the gradients of several processes are averaged whatever part of it they belong to.

    Args:
        network: to be trained.
        loss: the objective.
        seed: of the noise on target positions.
        blend: share of the refined descriptors in what is matched; the rest are the extractor's own.
        combine: makes the extractor's descriptors of its raw maps, on a grid of so many cells.
    """

    def __init__(
        self,
        network: PostProcessor,
        loss: Loss,
        seed: int,
        blend: float = 1.0,
        combine: Callable[[Sequence[Tensor], int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.seed = seed
        self.blend = blend
        self.combine = combine

    def forward(
        self, levels: Sequence[Float[Tensor, "v _ _ _"]], examples: Sequence[Example]
    ) -> tuple[Float[Tensor, " g"], dict[str, Float[Tensor, " g"]]]:
        """The loss of each group; and without gradient its parts, unweighted, by the names of their weights.

        ``levels`` are the raw maps of the examples' views, one after the other.
        """
        maps, plain = self.network(levels).float(), None
        if self.combine is not None and (self.blend < 1 or self.loss.distillation):
            with torch.no_grad():
                plain = self.combine(levels, self.network.settings.grid)
            if self.blend < 1:
                maps = blended(maps, plain, self.blend, self.network.settings.grid)
        counts, losses = [len(example.views) for example in examples], []
        # The network may run in bfloat16; positions need more digits.
        with torch.autocast(maps.device.type, enabled=False):
            own = [None] * len(counts) if plain is None else plain.split(counts)
            for views, plain_views, example in zip(maps.split(counts), own, examples, strict=True):
                draws = torch.Generator().manual_seed(self.seed * 1_000_003 + example.group.number)
                parts = group_losses(views, example, self.loss, self.network.logit_scale, draws)
                distilled = parts[0].detach() * 0.0
                if plain_views is not None and self.loss.distillation:
                    distilled = view_distillation(views, plain_views, example, draws)
                losses.append((*parts, distilled))
        dense, sparse, distillation = (torch.stack(each) for each in zip(*losses, strict=True))
        total = self.loss.dense * dense + self.loss.sparse * sparse + self.loss.distillation * distillation
        unweighted = {"dense": dense, "sparse": sparse, "distillation": distillation}
        return total, {name: part.detach() for name, part in unweighted.items()}


def group_losses(
    maps: Float[Tensor, "v c p p"],
    example: Example,
    loss: Loss,
    logit_scale: Float[Tensor, ""],
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Dense and sparse loss of a group, from the refined maps of its views.

    The generator is of the noise on target positions, and on the CPU.
    """
    device = maps.device
    # Read the descriptors of every view at its keypoints. Unbound and read once for each view: the backward
    # pass pays a whole map for every use of one.
    views = maps.unbind()
    read = [
        read_descriptors(each, labels.xy.to(device))
        for each, labels in zip(views, example.labels, strict=True)
    ]
    dense, sparse = read[0].sum() * 0.0, logit_scale * 0.0
    # Dense: search each view once, for the keypoints of all terms that look into it.
    targets: dict[int, list[Term]] = defaultdict(list)
    for term in example.terms if loss.dense else ():
        targets[term.target].append(term)
    for target, terms in targets.items():
        queries = torch.cat([read[term.source][term.ids.to(device)] for term in terms])
        truth = torch.cat([_truth(example.labels, term, loss, generator) for term in terms]).to(device)
        counted = [len(term.ids) if loss.reduction == "mean" else 1 for term in terms]
        weights = torch.cat(
            [torch.full(term.ids.shape, term.dense / n) for term, n in zip(terms, counted, strict=True)]
        )
        errors = dense_errors(queries, views[target], truth, loss.temperature, loss.window)
        dense = dense + errors @ weights.to(device)
    # Sparse: pairs as they are, whose terms alone have such a weight.
    for term in example.terms if loss.sparse else ():
        if term.sparse:
            ids = term.ids.to(device)
            ends = read[term.source][ids], read[term.target][ids]
            sparse = sparse + term.sparse * contrastive_loss(*ends, logit_scale)
    return dense, sparse


def view_distillation(
    maps: Float[Tensor, "v c p p"],
    plain: Float[Tensor, "v d p p"],
    example: Example,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Distillation at points of the object that nobody annotated; see `losses.distillation_loss`.

    For every view, points drawn on a view of another image are looked for in it. The plain maps are the
    extractor's own, on the same grid; the generator is on the CPU.
    """
    refined, own = maps.unbind(), plain.unbind()
    total = read_descriptors(refined[0], torch.zeros(0, 2, device=maps.device)).sum()
    for target, (place, _) in enumerate(example.views):
        # Choose a view of another image, and points on it that are no keypoints.
        others = [row for row, (other, _) in enumerate(example.views) if other != place]
        if not others:
            continue
        source = others[int(torch.randint(len(others), (1,), generator=generator))]
        xy = _unannotated(example.labels[source], maps.shape[-1], generator).to(maps.device)
        # Hold where they are found in this view to where the plain descriptors find them.
        total = total + distillation_loss(
            read_descriptors(refined[source], xy),
            refined[target],
            read_descriptors(own[source], xy),
            own[target],
        )
    return total / len(example.views)


def _unannotated(labels: Labels, grid: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Random positions in the box around a view's keypoints, none within a cell or so of one of them."""
    annotated = labels.xy[labels.visible]
    low, high = annotated.amin(dim=0) - _AROUND, annotated.amax(dim=0) + _AROUND
    drawn = low + torch.rand(_DRAWN, 2, generator=generator) * (high - low)
    inside = ((drawn >= 0) & (drawn <= grid - 1)).all(dim=1)
    free = torch.cdist(drawn, annotated).amin(dim=1) > _APART
    return drawn[inside & free][:_DISTILLED]


def _truth(labels: Sequence[Labels], term: Term, loss: Loss, generator: torch.Generator) -> Tensor:
    """Where the keypoints of a term are wanted, with noise in units of the target's object."""
    truth = target_positions(labels[term.source], labels[term.target], term.ids, loss)
    return disturbed(truth, loss.noise * labels[term.target].reach, generator) if loss.noise else truth
