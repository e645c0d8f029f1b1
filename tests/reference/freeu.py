"""FreeU of the released extractor, slowly: Fourier transforms of whole maps, in the unmodified network.

By channel count of the hidden state that enters a decoder block, as the paper's code has it; the widest:
first half of its channels x 1.2, skip connection filtered with 0.9; the second: x 1.4 and 0.2; threshold 1,
the 2x2 centre of the shifted spectrum. The scaling happens on the very tensor that is captured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BACKBONE = (1.2, 1.4)
SKIP = (0.9, 0.2)


def fourier_filter(x: Tensor, scale: float, threshold: int = 1) -> Tensor:
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.double(), dim=(-2, -1)), dim=(-2, -1))
    mask = torch.ones(x.shape[-2:], dtype=torch.float64)
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    mask[row - threshold : row + threshold, column - threshold : column + threshold] = scale
    spectrum = torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))
    return torch.fft.ifftn(spectrum, dim=(-2, -1)).real.to(x.dtype)


def freeu(hidden: Tensor, skip: Tensor, widths: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scales ``hidden`` in place; returns it with the filtered skip connection."""
    for width, backbone, scale in zip(widths, BACKBONE, SKIP, strict=True):
        if hidden.shape[1] == width:
            hidden[:, : width // 2] *= backbone
            return hidden, fourier_filter(skip, scale)
    return hidden, skip


@torch.no_grad()
def maps_of_full_network(
    unet: Any, latents: Tensor, timestep: int, context: Tensor, widths: tuple[int, int] | None, scaled: bool
) -> list[Tensor]:
    """Hidden states entering blocks 2, 5 and 8 (s3, s4, s5 order) of a plain run of the whole network.

    A hook on each of the twelve residual blocks takes its input, which is the hidden state and the skip
    connection put together, apart.
    """
    caught: dict[int, Tensor] = {}
    handles = []
    for level, block in enumerate(unet.up_blocks):
        for layer, resnet in enumerate(block.resnets):
            number = 3 * level + layer
            before = unet.up_blocks[level - 1] if layer == 0 and level else block
            width = unet.mid_block.resnets[-1].out_channels if number == 0 else before.resnets[0].out_channels

            def hook(_module: Any, inputs: Any, number: int = number, width: int = width) -> Any:
                hidden, skip = inputs[0][:, :width].clone(), inputs[0][:, width:]
                untouched = hidden.clone()
                if widths is not None:
                    hidden, skip = freeu(hidden, skip, widths)
                caught[number] = hidden if scaled else untouched
                return (torch.cat([hidden, skip], dim=1), *inputs[1:])

            handles.append(resnet.register_forward_pre_hook(hook))
    try:
        unet(latents, timestep, encoder_hidden_states=context)
    finally:
        for handle in handles:
            handle.remove()
    assert sorted(caught) == list(range(12))
    return [caught[8], caught[5], caught[2]]
