"""The post-processor as the paper describes it (section 4.2): every map is enlarged first.

Plain calls on the tensors of a state dict, in float64; nothing of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def normed_conv(
    state: Mapping[str, Tensor], name: str, x: Tensor, padding: int = 0, dilation: int = 1
) -> Tensor:
    out = F.conv2d(x, state[f"{name}.weight"], bias=None, padding=padding, dilation=dilation)
    return F.group_norm(out, 32, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"], eps=1e-5)


def bottleneck(state: Mapping[str, Tensor], name: str, x: Tensor, dilation: int = 1) -> Tensor:
    out = F.relu(normed_conv(state, f"{name}.conv1", x))
    out = F.relu(normed_conv(state, f"{name}.conv2", out, padding=dilation, dilation=dilation))
    out = normed_conv(state, f"{name}.conv3", out)
    if f"{name}.shortcut.weight" in state:
        x = normed_conv(state, f"{name}.shortcut", x)
    return F.relu(out + x)


def refined(
    state: Mapping[str, Tensor], maps: Sequence[Tensor], grid: int, context: Sequence[int] = ()
) -> Tensor:
    state = {name: tensor.double() for name, tensor in state.items()}
    weights = torch.exp(state["mixing_weights"]) / torch.exp(state["mixing_weights"]).sum()
    mixed = torch.zeros(())
    for index, level in enumerate(maps):
        x = F.interpolate(level.double(), size=(grid, grid), mode="bilinear", align_corners=False)
        mixed = mixed + weights[index] * bottleneck(state, f"bottleneck_layers.{index}.0", x)
    for index, dilation in enumerate(context):
        mixed = bottleneck(state, f"context_layers.{index}", mixed, dilation)
    return mixed


def released_state(channels: Sequence[int], width: int, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of a released checkpoint."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    state = {"mixing_weights": draw(len(channels)), "logit_scale": draw(), "self_logit_scale": draw()}
    for index, inputs in enumerate(channels):
        quarter = width // 4
        shapes = {
            "conv1": (quarter, inputs, 1, 1),
            "conv2": (quarter, quarter, 3, 3),
            "conv3": (width, quarter, 1, 1),
        }
        if inputs != width:
            shapes["shortcut"] = (width, inputs, 1, 1)
        for part, shape in shapes.items():
            name = f"bottleneck_layers.{index}.0.{part}"
            state[f"{name}.weight"] = draw(*shape)
            state[f"{name}.norm.weight"] = draw(shape[0])
            state[f"{name}.norm.bias"] = draw(shape[0])
    return state
