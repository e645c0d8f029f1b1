"""The denoising network of Stable Diffusion 1.x and 2.x, run as far as its decoder maps are needed.

The decoder's twelve residual blocks, numbered as in the original code, are layers 0-2 of the four up blocks
of `diffusers`. The maps are the hidden states that enter blocks 2, 5 and 8: the outputs of
``up_blocks[0].resnets[1]``, ``up_blocks[1].attentions[1]`` and ``up_blocks[2].attentions[1]``. Block 8 and
all that follows is neither run nor kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.freeu import FreeU
from geoaware.runs.errors import InputError

_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
_LAST = 2  # of a decoder level: its input is the map, taken before the skip connection joins it


class DecoderMaps(nn.Module):
    """Everything of a `UNet2DConditionModel` up to its third decoder map.

    Args:
        unet: the network; its modules are taken over, what is not needed is let go.
        freeu: how hidden states and skip connections are reweighted; ``None`` leaves them.
        scale_maps: whether the maps carry FreeU's factors, as the released ones do, or only the network.

    Raises:
        InputError: the network is not laid out as Stable Diffusion 1.x and 2.x are.
    """

    def __init__(self, unet: Any, freeu: FreeU | None, scale_maps: bool) -> None:
        _check_layout(unet.config)
        super().__init__()
        self.widths: tuple[int, ...] = tuple(unet.config.block_out_channels)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.up_blocks = unet.up_blocks[:3]
        final = self.up_blocks[-1]
        final.resnets, final.attentions = final.resnets[:_LAST], final.attentions[:_LAST]
        final.upsamplers = None
        self.freeu = freeu or FreeU({})
        self.scale_maps = scale_maps

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three maps, finest first: (640, 1280, 1280) in Stable Diffusion 1.5."""
        return self.widths[1], self.widths[2], self.widths[3]

    def forward(
        self,
        latents: Float[Tensor, "b 4 h w"],
        timestep: int,
        context: Float[Tensor, "b n d"],
        time_offset: Float[Tensor, "b t"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of the decoder, finest first: sides h/2, h/4 and h/8.

        ``context`` is what the cross-attention reads, ``time_offset`` is added to the timestep's embedding.
        """
        steps = torch.full((len(latents),), timestep, device=latents.device)
        time = self.time_embedding(self.time_proj(steps).to(latents.dtype))
        if time_offset is not None:
            time = time + time_offset
        hidden, skips = self._encode(latents, time, context)
        maps = []
        for block in self.up_blocks:
            for index, resnet in enumerate(block.resnets):
                if index == _LAST:
                    maps.append(self._map(hidden))
                skip = self.freeu.damp(skips.pop(), hidden.shape[1])
                hidden = resnet(torch.cat([self.freeu.amplify(hidden), skip], dim=1), time)
                if hasattr(block, "attentions"):
                    attend = block.attentions[index]
                    hidden = attend(hidden, encoder_hidden_states=context, return_dict=False)[0]
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden)
        coarsest, middle = maps
        return self._map(hidden), middle, coarsest

    def _encode(self, latents: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The hidden state after the middle block, and the skip connections in the order they were made."""
        hidden = self.conv_in(latents)
        skips = [hidden]
        for block in self.down_blocks:
            told = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            hidden, made = block(hidden_states=hidden, temb=time, **told)
            skips.extend(made)
        return self.mid_block(hidden, time, encoder_hidden_states=context), skips

    def _map(self, hidden: Tensor) -> Tensor:
        return self.freeu.amplify(hidden) if self.scale_maps else hidden


def _check_layout(config: Any) -> None:
    """Refuse networks of other blocks, other inputs or further conditions, naming what differs."""
    expected = {
        "up_block_types": _UP,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "layers_per_block": 2,
        "in_channels": 4,
        "class_embed_type": None,
        "addition_embed_type": None,
        "encoder_hid_dim_type": None,
        "center_input_sample": False,
    }
    for key, wanted in expected.items():
        found = getattr(config, key, None)
        found = tuple(found) if isinstance(found, list) else found
        if found != wanted:
            raise InputError(
                f"the network has {key} = {found!r}, but Stable Diffusion 1.x and 2.x have {wanted!r}; "
                f"give the weights of one of these"
            )


class SlicedAttention:
    """Attention in slices of queries, so that no score matrix exceeds a limit; the same up to rounding.

    It takes the place of `diffusers`' processor in the attention of the denoising network. Kernels that never
    form the scores lose nothing by it; those that do (on MPS, say) stay within the limit.

    Args:
        limit: bytes that the scores of one call may take.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b m d"] | None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "b n c"]:
        """One attention layer; the arguments are those that `diffusers` gives."""
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, states in ((attn.to_q, hidden_states), (attn.to_k, read), (attn.to_v, read))
        )
        per_row = query.shape[0] * attn.heads * key.shape[2] * query.element_size()
        rows = max(1, self.limit // per_row)
        parts = [F.scaled_dot_product_attention(part, key, value) for part in query.split(rows, dim=2)]
        joined = torch.cat(parts, dim=2).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](joined))
