"""Networks of the real classes and topology, few channels and random weights, saved as on the hub.

For a rehearsal of long work, and for tests; what they compute means nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WIDTHS = (32, 64, 128, 128)
TEXT = 24
EMBEDDING = 20
DINOV2 = 24


def tiny_stable_diffusion(folder: Path, *, sd21: bool = False) -> Path:
    """Stable Diffusion 1.5 (or 2.1, with its linear projections and heads) in `diffusers` layout."""
    import diffusers
    import transformers

    torch.manual_seed(21 if sd21 else 15)
    heads = {"attention_head_dim": [2, 4, 8, 8], "use_linear_projection": True} if sd21 else {}
    unet: Any = diffusers.UNet2DConditionModel(
        **{
            "sample_size": 64,
            "block_out_channels": WIDTHS,
            "cross_attention_dim": TEXT,
            "norm_num_groups": 8,
            "attention_head_dim": 4,
            **heads,
        }
    )
    # The library starts them at one and zero, where a mistake in their place would not show.
    for name, parameter in unet.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    unet.save_pretrained(folder / "unet")
    vae: Any = diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
    )
    vae.save_pretrained(folder / "vae")
    text = transformers.CLIPTextConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=TEXT,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=len(_vocabulary()) - 2,
        eos_token_id=len(_vocabulary()) - 1,
        pad_token_id=len(_vocabulary()) - 1,
    )
    transformers.CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    _save_tokenizer(folder / "tokenizer")
    return folder


def tiny_dinov2(folder: Path, registers: bool = False) -> Path:
    """A DINOv2 network, with or without registers."""
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": DINOV2,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 70,
        "patch_size": 14,
    }
    model: Any
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    model.save_pretrained(folder)
    return folder


def tiny_clip(folder: Path) -> Path:
    """The image encoder of CLIP ViT-L/14-336, with its patch and image size."""
    import transformers

    torch.manual_seed(336)
    config = transformers.CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
        projection_dim=EMBEDDING,
    )
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def odise_state(tokens: int = 77, text: int = TEXT, time: int = 4 * WIDTHS[0]) -> dict[str, torch.Tensor]:
    """The captioner's tensors as an ODISE checkpoint has them, among others, with leading axes of one."""
    generator = torch.Generator().manual_seed(50)
    shapes = {
        "clip_project.linear.weight": (text, EMBEDDING),
        "clip_project.linear.bias": (text,),
        "clip_project.positional_embedding": (1, tokens, text),
        "alpha_cond": (1, tokens, text),
        "time_embed_project.linear.weight": (time, EMBEDDING),
        "time_embed_project.linear.bias": (time,),
        "time_embed_project.positional_embedding": (1, 1, time),
        "alpha_cond_time_embed": (time,),
    }
    prefix = "backbone.feature_extractor."
    state = {prefix + key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return {**state, "backbone.feature_projections.0.weight": torch.ones(2), "alpha_condition": torch.ones(1)}


def _vocabulary() -> list[str]:
    letters = [*map(chr, range(33, 127))]
    return [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]


def _save_tokenizer(folder: Path) -> None:
    """A vocabulary of single characters without any merges."""
    folder.mkdir(parents=True)
    vocabulary = {token: number for number, token in enumerate(_vocabulary())}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
