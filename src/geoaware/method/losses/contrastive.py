"""The sparse objective: symmetric cross-entropy between annotated descriptors (paper, equation 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def contrastive_loss(
    source: Float[Tensor, "k c"], target: Float[Tensor, "k c"], logit_scale: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """CLIP's loss with keypoints in the place of images and captions.

    Row i of the source belongs to row i of the target; every other row is a negative, in both directions.
    With fewer than two keypoints there is nothing to tell apart, and the loss is 0.

    Args:
        source: descriptors at the source keypoints; need not be normalised.
        target: likewise, in the same order.
        logit_scale: logarithm of the factor of the cosines; starts at ln(1 / 0.07).

    Raises:
        ValueError: the two sides differ in shape.
    """
    if source.shape != target.shape:
        raise ValueError(f"source {tuple(source.shape)} and target {tuple(target.shape)} differ in shape")
    if len(source) < 2:
        return (source.sum() + target.sum()) * 0.0
    scale = torch.as_tensor(logit_scale, device=source.device).exp()
    logits = scale * F.normalize(source, dim=-1) @ F.normalize(target, dim=-1).T
    own = torch.arange(len(source), device=source.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
