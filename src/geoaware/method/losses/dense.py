"""The dense objective: how far the soft-argmax of a similarity map lies from the truth (paper, equation 3).

Gradients reach every cell of the target map, but only the rows of the similarity matrix that belong to
annotated keypoints are computed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from geoaware.method.matching import read_descriptors, similarity, soft_argmax, window_soft_argmax


def dense_errors(
    queries: Float[Tensor, "k c"],
    target: Float[Tensor, "c h w"],
    target_xy: Float[Tensor, "k 2"],
    temperature: float = 0.02,
    window: int | None = None,
) -> Float[Tensor, " k"]:
    """Distance in cells between the position found for each query and the true one.

    Args:
        queries: descriptors to find; need not be normalised.
        target: where to find them.
        target_xy: true grid positions (x, y), fractional.
        temperature: of the softmax.
        window: side of the window around the best cell (odd); the whole map when ``None``, as in the paper.
    """
    # A zero descriptor (ReLU can make one) has no norm to differentiate: held off 0, its gradient is 0.
    norms = target.square().sum(dim=0).clamp_min(1e-24).sqrt()
    sim = similarity(queries, target, norms)
    found = soft_argmax(sim, temperature) if window is None else window_soft_argmax(sim, window, temperature)
    # The norm's gradient at 0 is 0 by PyTorch's convention, so a perfect match does no harm.
    return torch.linalg.vector_norm(found - target_xy.to(found), dim=-1)


def disturbed(
    xy: Float[Tensor, "k 2"], std: float, generator: torch.Generator | None = None
) -> Float[Tensor, "k 2"]:
    """True positions with the Gaussian noise that training adds to them (paper, section 4.2).

    Args:
        xy: grid positions.
        std: standard deviation, in cells.
        generator: of the noise, on the CPU; the global one when not given.
    """
    noise = torch.randn(xy.shape, generator=generator, dtype=xy.dtype)
    return xy + std * noise.to(xy.device)


def dense_loss(
    source: Float[Tensor, "c h w"],
    target: Float[Tensor, "c h2 w2"],
    source_xy: Float[Tensor, "k 2"],
    target_xy: Float[Tensor, "k 2"],
    temperature: float = 0.02,
    noise_std: float = 0.0,
    *,
    window: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Mean L2 distance between soft-argmax and annotation, over the keypoints of a pair.

    Training computes the same of several pairs at once, from `disturbed` and `dense_errors`.

    Args:
        source: feature map; need not be normalised.
        target: likewise.
        source_xy: grid positions (x, y) of the keypoints in the source.
        target_xy: of the same ones in the target.
        temperature: of the softmax.
        noise_std: standard deviation, in cells, of the Gaussian noise on ``target_xy``.
        window: see `dense_errors`.
        generator: see `disturbed`.

    Returns:
        A scalar; 0 without keypoints.
    """
    if noise_std:
        target_xy = disturbed(target_xy, noise_std, generator)
    errors = dense_errors(read_descriptors(source, source_xy), target, target_xy, temperature, window)
    return errors.mean() if len(errors) else errors.sum()
