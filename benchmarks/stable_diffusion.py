"""Cost of the full-size Stable Diffusion 1.5 extractor with random weights: seconds, memory, operations.

    python benchmarks/stable_diffusion.py --out benchmarks/results/stable_diffusion.json

Every measurement runs in a process of its own, so that its peak of memory is its own. One image, fp32. The
operations are counted by torch on tensors without data, and set against running every network whole on the
same crops: image encoder, CLIP ViT-L/14-336, denoising network and image decoder. Needs about 10 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import geoaware
from geoaware.features.stable_diffusion import Prompt, StableDiffusion, StableDiffusionSettings

CROPS = ("2x2", "none")


def networks() -> tuple[nn.Module, nn.Module]:
    """Image autoencoder and denoising network of Stable Diffusion 1.5, random."""
    import diffusers

    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    return vae, unet


def clip() -> nn.Module:
    """Image encoder ViT-L/14-336, random."""
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return transformers.CLIPVisionModelWithProjection(config)


def extractor(crops: str) -> StableDiffusion:
    settings = StableDiffusionSettings(crops=crops)  # type: ignore[arg-type]
    prompt = Prompt(torch.zeros(1, 77, 768), torch.zeros(32, dtype=torch.uint8))
    return StableDiffusion("sd15", settings, *networks(), prompt).eval().requires_grad_(False)


def one_image(crops: str) -> dict[str, float]:
    """Seconds and memory of one image; of a single run, as weights and activations fill most caches."""
    torch.manual_seed(0)
    model = extractor(crops)
    pixels = torch.rand(1, 3, 960, 960) * 2 - 1
    loaded = resident()
    start = time.perf_counter()
    with torch.inference_mode():
        levels = model.levels(pixels)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 2),
        "loaded_gib": round(loaded / 2**30, 2),
        "map_mib_fp32": round(sum(each.numel() for each in levels) * 4 / 2**20, 1),
    }


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def operations(crops: str) -> dict[str, float]:
    """TFLOP of our extractor, and of all networks whole on the same crops; nothing is computed."""
    number, side = (4, 512) if crops == "2x2" else (1, 960)
    with torch.device("meta"), torch.inference_mode():
        vae, unet = networks()
        images, latents = torch.empty(number, 3, side, side), torch.empty(number, 4, side // 8, side // 8)
        context, steps = torch.empty(number, 77, 768), torch.full((number,), 50)
        whole = {
            "image_encoder": counted(lambda: vae.encode(images)),
            "clip": counted(lambda: clip()(torch.empty(number, 3, 336, 336))),
            "denoising": counted(lambda: unet(latents, steps, context)),
            "image_decoder": counted(lambda: vae.decode(latents)),
        }
    model = extractor(crops).to("meta")
    with torch.inference_mode():
        ours = counted(lambda: model.levels(torch.empty(1, 3, 960, 960, device="meta")))
    total = sum(whole.values())
    with_clip = ours + whole["clip"]
    return {
        "ours_tflop": round(ours, 3),
        "ours_with_captioner_tflop": round(with_clip, 3),
        "whole_tflop": {key: round(value, 3) for key, value in whole.items()},
        "share": round(ours / total, 3),
        "share_with_captioner": round(with_clip / total, 3),
    }


def counted(run: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--part", choices=[f"{what}-{crops}" for what in ("run", "count") for crops in CROPS])
    options = parser.parse_args()
    if options.part:
        what, crops = options.part.split("-")
        print(json.dumps((one_image if what == "run" else operations)(crops)))
        return
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "versions": {"geoaware": geoaware.__version__, "torch": torch.__version__},
    }
    for crops in CROPS:
        results[crops] = {}
        for what in ("run", "count"):
            command = [sys.executable, __file__, "--part", f"{what}-{crops}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[crops] |= json.loads(done.stdout.splitlines()[-1])
    text = json.dumps(results, indent=2) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
