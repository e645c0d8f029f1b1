"""FreeU (Si et al. 2023) as the released extractor of the paper applies it: by channel count.

Hidden states that enter a residual block of the decoder with as many channels as the network's widest level
(1280 in Stable Diffusion 1.5) have the first half of their channels multiplied by 1.2, and the lowest
frequencies of the skip connection by 0.9; with the second width (640): 1.4 and 0.2. Narrower ones pass. That
is blocks 0-6 and 7-9 of the decoder's twelve. `diffusers`' own ``enable_freeu`` goes by up block instead
(0-2 and 3-5) and gives other features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geoaware.runs.errors import InputError


class Strength(NamedTuple):
    """Factors for the first half of a hidden state's channels and for a skip connection's low frequencies."""

    backbone: float
    skip: float


STRENGTHS = Strength(1.2, 0.9), Strength(1.4, 0.2)
"""For the widest hidden states and for the second width."""


@dataclass(frozen=True)
class FreeU:
    """The factors by channel count of the hidden state; with no widths nothing is changed."""

    strengths: dict[int, Strength]

    @classmethod
    def of_widths(cls, widths: Sequence[int]) -> FreeU:
        """For a network of these channel counts by level: the two largest stand for 1280 and 640."""
        largest = sorted(set(widths), reverse=True)[:2]
        if len(largest) < 2:
            raise InputError(f"FreeU needs a network of two widths, got {tuple(widths)}; give freeu=false")
        return cls(dict(zip(largest, STRENGTHS, strict=True)))

    def amplify(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The hidden state with the first half of its channels scaled; a new tensor."""
        if hidden.shape[1] not in self.strengths:
            return hidden
        first, second = hidden.tensor_split([hidden.shape[1] // 2], dim=1)
        return torch.cat([first * self.strengths[hidden.shape[1]].backbone, second], dim=1)

    def damp(self, skip: Float[Tensor, "b d h w"], width: int) -> Float[Tensor, "b d h w"]:
        """The skip connection that joins a hidden state of ``width`` channels, low frequencies scaled."""
        strength = self.strengths.get(width)
        return skip if strength is None else scale_low_frequencies(skip, strength.skip)


def scale_low_frequencies(x: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c h w"]:
    """Multiply the four coefficients at the centre of the shifted spectrum; real part of the result.

    These are the frequencies {-1, 0} x {-1, 0} (threshold 1). The four are taken out by two small real matrix
    products per axis instead of two Fourier transforms of the whole map.
    """
    rows, columns = (_low_pass(side, x.device) for side in x.shape[-2:])
    values = x.float()
    low = rows[0] @ values @ columns[0].T - rows[1] @ values @ columns[1].T
    return torch.add(values, low, alpha=scale - 1).to(x.dtype)


def _low_pass(side: int, device: torch.device) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """Real and imaginary part of the projection onto frequencies 0 and -1 of a signal of ``side`` values."""
    steps = torch.arange(side, device=device)
    angle = (steps[None, :] - steps[:, None]).float() * (2 * math.pi / side)
    return (1 + angle.cos()) / side, angle.sin() / side
