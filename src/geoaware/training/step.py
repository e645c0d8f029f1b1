"""The loss of a batch of groups: each view refined once, only the rows of annotated keypoints computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.blending import blended
from geoaware.losses import contrastive_loss, dense_errors, read_descriptors
from geoaware.post_processor import PostProcessor
from geoaware.training.augment import Example, Labels, Term, target_positions
from geoaware.training.config import Loss


@dataclass(frozen=True)
class Losses:
    """Of each group, without gradient, for the log.

    Attributes:
        dense: mean over a group's pairs, in cells.
        sparse: likewise.
    """

    dense: Float[Tensor, " g"]
    sparse: Float[Tensor, " g"]


class Step(nn.Module):
    """The network with its objective: raw maps and labels in, losses out.

    A module, so that the gradients of several processes are averaged whatever part of it they belong to.

    Args:
        network: to be trained.
        loss: the objective.
        seed: of the noise on target positions.
        blend: share of the refined descriptors in what is matched; the rest are the extractor's own.
        combine: makes the extractor's descriptors of its raw maps.
    """

    def __init__(
        self,
        network: PostProcessor,
        loss: Loss,
        seed: int,
        blend: float = 1.0,
        combine: Callable[[Sequence[Tensor]], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.seed = seed
        self.blend = blend
        self.combine = combine

    def forward(
        self, levels: Sequence[Float[Tensor, "v _ _ _"]], examples: Sequence[Example]
    ) -> tuple[Float[Tensor, " g"], Losses]:
        """The loss of each group.

        Args:
            levels: raw maps of the examples' views, one after the other.
            examples: the groups.
        """
        maps = self._matched(levels)
        parts = maps.split([len(example.views) for example in examples])
        # The network may run in bfloat16; positions need more digits.
        with torch.autocast(maps.device.type, enabled=False):
            pairs = [self._group(*each) for each in zip(parts, examples, strict=True)]
        dense, sparse = (torch.stack(each) for each in zip(*pairs, strict=True))
        total = self.loss.dense * dense + self.loss.sparse * sparse
        return total, Losses(dense.detach(), sparse.detach())

    def _matched(self, levels: Sequence[Tensor]) -> Float[Tensor, "v c p p"]:
        """Refined maps, blended with the extractor's own where they are to be matched so."""
        refined = self.network(levels).float()
        if self.blend == 1 or self.combine is None:
            return refined
        with torch.no_grad():
            plain = self.combine(levels)
        return blended(refined, plain, self.blend, self.network.settings.grid)

    def _group(self, maps: Float[Tensor, "v c p p"], example: Example) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(self.seed * 1_000_003 + example.group.number)
        return group_losses(maps, example, self.loss, self.network.logit_scale, noise)


def group_losses(
    maps: Float[Tensor, "v c p p"],
    example: Example,
    loss: Loss,
    logit_scale: Float[Tensor, ""],
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Dense and sparse loss of a group.

    Args:
        maps: refined maps of the example's views.
        example: labels and terms.
        loss: the objective.
        logit_scale: of the sparse loss.
        generator: of the noise, on the CPU.
    """
    device = maps.device
    # Read once for each view: reading is what the backward pass pays for, once a map.
    read = [
        read_descriptors(each, labels.xy.to(device))
        for each, labels in zip(maps, example.labels, strict=True)
    ]
    dense, sparse = maps.sum() * 0.0, logit_scale * 0.0
    if loss.dense:
        for target, terms in _by_target(example.terms).items():
            queries = torch.cat([read[term.source][term.ids.to(device)] for term in terms])
            truth = torch.cat([_noisy(example.labels, term, loss, generator) for term in terms]).to(device)
            weights = torch.cat([_row_weights(term, loss) for term in terms]).to(device)
            dense = (
                dense + dense_errors(queries, maps[target], truth, loss.temperature, loss.window) @ weights
            )
    if loss.sparse:
        for term in example.terms:
            if term.sparse:
                ids = term.ids.to(device)
                ends = read[term.source][ids], read[term.target][ids]
                sparse = sparse + term.sparse * contrastive_loss(*ends, logit_scale)
    return dense, sparse


def _by_target(terms: Sequence[Term]) -> dict[int, list[Term]]:
    """Terms that look into the same view, so that it is searched in one product."""
    found: dict[int, list[Term]] = defaultdict(list)
    for term in terms:
        found[term.target].append(term)
    return found


def _noisy(labels: Sequence[Labels], term: Term, loss: Loss, generator: torch.Generator) -> Tensor:
    truth = target_positions(labels[term.source], labels[term.target], term.ids, loss)
    if not loss.noise:
        return truth
    return truth + loss.noise * labels[term.target].reach * torch.randn(truth.shape, generator=generator)


def _row_weights(term: Term, loss: Loss) -> Float[Tensor, " n"]:
    count = len(term.ids)
    return torch.full((count,), term.dense / (count if loss.reduction == "mean" else 1))
