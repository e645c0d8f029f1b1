"""The implicit captioner's formulas, from an ODISE state dictionary, one vector at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def _named(state: dict[str, Tensor], ending: str) -> Tensor:
    (found,) = [value for key, value in state.items() if key.endswith("." + ending)]
    return found


def context_of(state: dict[str, Tensor], text: Tensor, embedding: Tensor) -> Tensor:
    """Text embedding (n, d) plus tanh(alpha_cond) * (Linear(embedding) + positional embedding)."""
    weight, bias = _named(state, "clip_project.linear.weight"), _named(state, "clip_project.linear.bias")
    position = _named(state, "clip_project.positional_embedding").reshape(text.shape)
    alpha = _named(state, "alpha_cond").reshape(text.shape)
    linear = torch.stack([weight[row] @ embedding for row in range(len(weight))]) + bias
    rows = [text[n] + torch.tanh(alpha[n]) * (linear + position[n]) for n in range(len(text))]
    return torch.stack(rows)


def time_of(state: dict[str, Tensor], time: Tensor, embedding: Tensor) -> Tensor:
    """Time embedding (t) plus tanh(alpha_cond_time_embed) * (Linear(embedding) + positional embedding)."""
    weight = _named(state, "time_embed_project.linear.weight")
    linear = weight @ embedding + _named(state, "time_embed_project.linear.bias")
    position = _named(state, "time_embed_project.positional_embedding").reshape(time.shape)
    return time + torch.tanh(_named(state, "alpha_cond_time_embed").reshape(time.shape)) * (linear + position)
