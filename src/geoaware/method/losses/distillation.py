"""Distillation: where no keypoint is annotated, the refined features find what the extractor finds.

Not in the paper. A network that is trained on keypoints alone forgets the parts that nobody annotated: there
supervised features fall below those without training (Mariotti et al. 2025). So the similarity maps of such
points are held to those of the plain descriptors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geoaware.method.matching import similarity


def distillation_loss(
    queries: Float[Tensor, "k c"],
    target: Float[Tensor, "c h w"],
    plain_queries: Float[Tensor, "k d"],
    plain_target: Float[Tensor, "d h w"],
    temperature: float = 0.03,
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence from the plain to the refined distribution over the target's cells.

    Args:
        queries: refined descriptors at points of the source.
        target: refined map.
        plain_queries: plain descriptors at the same points; no gradient flows into them.
        plain_target: plain map, of the same grid.
        temperature: of both softmaxes.

    Returns:
        The mean over the points; 0 without any.
    """
    if not len(queries):
        return queries.sum() * 0.0
    with torch.no_grad():
        wanted = (similarity(plain_queries, plain_target).flatten(1) / temperature).softmax(dim=1)
    found = (similarity(queries, target).flatten(1) / temperature).log_softmax(dim=1)
    return F.kl_div(found, wanted, reduction="batchmean")
