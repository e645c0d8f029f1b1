"""Stable Diffusion features against plain runs of the unmodified networks.

The networks are of the real classes and topology with few channels, random, saved to disk and loaded by path.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from geoaware.features import load_extractor
from geoaware.features import unet as unet_module
from geoaware.features.captioner import CLIP_MEAN, CLIP_STD, convert_captioner
from geoaware.features.fused import Fused
from geoaware.features.refined import RefinedExtractor, load_post_processor
from geoaware.features.stable_diffusion import StableDiffusion, cut, stitch
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.studies.tiny_networks import WIDTHS, odise_state, tiny_clip, tiny_stable_diffusion
from tests.reference.captioner import context_of, time_of
from tests.reference.freeu import maps_of_full_network
from tests.toys import Patches, noise

SMALL: dict[str, Any] = {"canvas": 192, "crop": 128}
TOP_WIDTHS = (128, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("weights") / "sd15")


@pytest.fixture(scope="module")
def sd21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("weights") / "sd21", sd21=True)


@pytest.fixture(scope="module")
def captioning(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a converted captioner and its image encoder."""
    place = tmp_path_factory.mktemp("captioner")
    torch.save({"model": odise_state()}, place / "odise.pth")
    return {
        "captioner": str(convert_captioner(place / "odise.pth")),
        "clip_weights": str(tiny_clip(place / "clip")),
    }


def load(folder: Path, name: str = "sd15", **settings: Any) -> StableDiffusion:
    extractor = load_extractor(name, device="cpu", weights=str(folder), **settings)
    assert isinstance(extractor, StableDiffusion)
    return extractor


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def latents_of(folder: Path, crops: Tensor) -> Tensor:
    """Noised latents from the recipe's words, with the scheduler and the whole autoencoder of `diffusers`."""
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    clean = vae.encode(crops).latent_dist.mean * 0.18215
    side = crops.shape[-1] // 8
    fixed = torch.randn(1, 4, side, side, generator=torch.Generator("cpu").manual_seed(42))
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    return scheduler.add_noise(clean, fixed.expand_as(clean), torch.tensor([50]))


@torch.no_grad()
def context_of_text(folder: Path, text: str) -> Tensor:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    ids = tokenizer([text], padding="max_length", max_length=77, return_tensors="pt").input_ids
    return encoder(ids).last_hidden_state


def whole_unet(folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()


def four_crops(image: Image.Image, side: int) -> Tensor:
    start = image.width - side
    boxes = [(x, y, x + side, y + side) for y in (0, start) for x in (0, start)]
    return torch.stack([pixels_of(image.crop(box)) for box in boxes])


def pasted(maps: Tensor, starts: tuple[int, int], grid: int) -> Tensor:
    """Maps of the four crops laid on the grid: every cell is the mean of the crops that cover it."""
    side, result = maps.shape[-1], torch.zeros(maps.shape[1], grid, grid)
    for y in range(grid):
        for x in range(grid):
            covering = [
                maps[2 * row + column, :, y - top, x - left]
                for row, top in enumerate(starts)
                for column, left in enumerate(starts)
                if 0 <= y - top < side and 0 <= x - left < side
            ]
            result[:, y, x] = torch.stack(covering).mean(dim=0)
    return result


def close(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=1e-4)


def far(a: Any, b: Any) -> list[bool]:
    return [not torch.allclose(mine, theirs, atol=1e-2) for mine, theirs in zip(a, b, strict=True)]


@pytest.mark.parametrize("freeu", [False, True])
def test_the_canvas_of_the_paper_equals_a_direct_computation_of_its_crops(folder: Path, freeu: bool) -> None:
    extractor = load(folder, freeu=freeu)
    image = noise(960, 960, 1)
    found = extractor(image)
    shapes = [tuple(level.shape) for level in found.levels]
    assert shapes == [(64, 60, 60), (128, 30, 30), (128, 15, 15)]
    latents = latents_of(folder, four_crops(image, 512))
    context = context_of_text(folder, "").expand(4, -1, -1)
    maps = maps_of_full_network(
        whole_unet(folder), latents, 50, context, TOP_WIDTHS if freeu else None, scaled=True
    )
    places = [((0, 28), 60), ((0, 14), 30), ((0, 7), 15)]
    close(found.levels, [pasted(each, *place) for each, place in zip(maps, places, strict=True)])


def test_plain_maps_are_the_outputs_of_the_named_modules(folder: Path) -> None:
    """FreeU off: hooks on up_blocks[2].attentions[1], up_blocks[1].attentions[1], up_blocks[0].resnets[1]."""
    extractor = load(folder, canvas=256, crops="none", freeu=False)
    image = noise(256, 256, 2)
    unet, caught = whole_unet(folder), []
    tapped = (unet.up_blocks[2].attentions[1], unet.up_blocks[1].attentions[1], unet.up_blocks[0].resnets[1])
    for module in tapped:
        module.register_forward_hook(lambda *call: caught.insert(0, call[2]))
    with torch.no_grad():
        unet(latents_of(folder, pixels_of(image)[None]), 50, context_of_text(folder, ""))
    expected = [output if isinstance(output, Tensor) else output[0] for output in caught]
    close(extractor(image).levels, [each[0] for each in expected])


@pytest.mark.parametrize("scaled", [True, False])
def test_freeu_goes_by_channel_count(folder: Path, scaled: bool) -> None:
    extractor = load(folder, canvas=256, crops="none", freeu_scales_maps=scaled)
    image = noise(256, 256, 3)
    latents, context = latents_of(folder, pixels_of(image)[None]), context_of_text(folder, "")
    expected = maps_of_full_network(whole_unet(folder), latents, 50, context, TOP_WIDTHS, scaled)
    found = extractor(image).levels
    close(found, [each[0] for each in expected])
    plain = load(folder, canvas=256, crops="none", freeu=False)(image).levels
    assert far(found, plain) == [True, True, True]


def test_scaled_maps_differ_from_unscaled_by_the_factors_alone(folder: Path) -> None:
    image = noise(192, 192, 4)
    scaled = load(folder, **SMALL)(image).levels
    plain = load(folder, **SMALL, freeu_scales_maps=False)(image).levels
    for width, factor, mine, theirs in zip((64, 128, 128), (1.4, 1.2, 1.2), scaled, plain, strict=True):
        torch.testing.assert_close(mine[: width // 2], theirs[: width // 2] * factor)
        assert torch.equal(mine[width // 2 :], theirs[width // 2 :])


def test_enable_freeu_of_diffusers_is_another_thing(folder: Path) -> None:
    latents, context = torch.randn(1, 4, 32, 32), context_of_text(folder, "")
    ours = maps_of_full_network(whole_unet(folder), latents, 50, context, TOP_WIDTHS, scaled=True)
    unet = whole_unet(folder)
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    theirs = maps_of_full_network(unet, latents, 50, context, None, scaled=False)
    assert torch.allclose(ours[2], theirs[2], atol=1e-4)
    assert far(ours[:2], theirs[:2]) == [True, True]


def test_sd21_has_the_same_maps_of_another_network(sd21: Path) -> None:
    extractor = load(sd21, "sd21", **SMALL)
    image = noise(192, 192, 5)
    latents = latents_of(sd21, four_crops(image, 128))
    context = context_of_text(sd21, "").expand(4, -1, -1)
    maps = maps_of_full_network(whole_unet(sd21), latents, 50, context, TOP_WIDTHS, scaled=True)
    places = [((0, 4), 12), ((0, 2), 6), ((0, 1), 3)]
    close(extractor(image).levels, [pasted(each, *place) for each, place in zip(maps, places, strict=True)])
    assert extractor.identity.startswith("sd21(")


def test_the_captioner_adds_to_text_and_time(folder: Path, captioning: dict[str, str]) -> None:
    extractor = load(folder, **SMALL, freeu=False, **captioning)
    image = noise(192, 192, 6)
    crops = four_crops(image, 128)
    clip = transformers.CLIPVisionModelWithProjection.from_pretrained(captioning["clip_weights"]).eval()
    resized = torch.nn.functional.interpolate((crops + 1) / 2, size=(336, 336), mode="bicubic")
    resized = (resized - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    with torch.no_grad():
        embeddings = clip(resized).image_embeds
    state, text = odise_state(), context_of_text(folder, "")[0]
    latents, maps = latents_of(folder, crops), []
    for row, embedding in enumerate(embeddings):
        unet = whole_unet(folder)
        unet.time_embedding.register_forward_hook(
            lambda _module, _inputs, output, e=embedding: time_of(state, output[0], e)[None]
        )
        context = context_of(state, text, embedding)[None]
        maps.append(maps_of_full_network(unet, latents[row : row + 1], 50, context, None, scaled=False))
    places = [((0, 4), 12), ((0, 2), 6), ((0, 1), 3)]
    expected = [pasted(torch.cat(each), *place) for each, place in zip(zip(*maps), places, strict=True)]  # noqa: B905
    found = extractor(image).levels
    close(found, expected)
    assert far(found, load(folder, **SMALL, freeu=False)(image).levels) == [True, True, True]


def test_a_prompt_changes_features_and_identity(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = noise(192, 192, 7)
    with caplog.at_level(logging.INFO, logger="geoaware"):
        empty = load(folder, **SMALL)
        told = load(folder, **SMALL, prompt="a photo of a cat")
    assert "no implicit captioner given; the empty prompt is the context" in caplog.messages[0]
    assert "the prompt 'a photo of a cat' is the context" in caplog.messages[1]
    torch.testing.assert_close(told.context, context_of_text(folder, "a photo of a cat"))
    assert 'prompt="", ' in empty.identity
    assert "captioner=none" in empty.identity
    assert 'prompt="a photo of a cat", ' in told.identity
    assert not torch.equal(empty(image).data, told(image).data)
    assert torch.equal(empty(image).data, load(folder, **SMALL)(image).data)


def test_the_identity_knows_the_captioner_by_what_is_in_it(
    folder: Path, captioning: dict[str, str], tmp_path: Path
) -> None:
    copied = shutil.copy(captioning["captioner"], tmp_path / "copy.safetensors")
    first = load(folder, **SMALL, **captioning).identity
    assert load(folder, **SMALL, **{**captioning, "captioner": str(copied)}).identity == first
    tensors = load_file(copied)
    tensors["alpha_cond"][0, 0, 0] += 1
    save_file(tensors, copied)
    assert load(folder, **SMALL, **{**captioning, "captioner": str(copied)}).identity != first


def test_other_weights_of_the_text_encoder_show_in_the_hash_of_the_weights(
    folder: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(folder, tmp_path / "sd15"))
    before = load(changed, **SMALL).weights_hash()
    assert load(changed, **SMALL).weights_hash() == before
    file = changed / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].add_(1e-3)
    save_file(tensors, file, metadata={"format": "pt"})
    assert load(changed, **SMALL).weights_hash() != before


def test_what_is_not_needed_is_not_kept(folder: Path) -> None:
    extractor = load(folder, **SMALL)
    kept = {name for name, _ in extractor.named_parameters()}
    whole = {f"maps.{name}" for name, _ in whole_unet(folder).named_parameters()}
    gone = {name for name in whole if name not in kept}
    late = ("maps.up_blocks.3.", "maps.conv_norm_out.", "maps.conv_out.", "maps.up_blocks.2.upsamplers.")
    block8 = ("maps.up_blocks.2.resnets.2.", "maps.up_blocks.2.attentions.2.")
    assert gone == {name for name in whole if name.startswith(late + block8)}
    assert not [name for name in kept if not name.startswith(("maps.", "encoder.", "to_moments."))]
    assert not [name for name in kept if "decoder" in name]


def test_the_noise_is_the_fixed_draw(folder: Path) -> None:
    whole = load(folder, crops="none")
    assert whole.noise.shape == (1, 4, 120, 120)
    fixed = load(folder).noise
    assert torch.equal(fixed, torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(42)))


def test_descriptors_are_the_three_maps_on_one_grid(folder: Path) -> None:
    found = load(folder, **SMALL)(noise(100, 60, 8))
    assert found.data.shape == (sum(WIDTHS[1:]), 12, 12)
    s3, s4, s5 = found.levels
    enlarge = torch.nn.Upsample((12, 12), mode="bilinear", align_corners=False)
    joined = torch.cat([s3, enlarge(s4[None])[0], enlarge(s5[None])[0]])
    torch.testing.assert_close(found.data, joined / joined.norm(dim=0))


def test_stitching_by_hand() -> None:
    maps = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    expected = [[1.0, 1.5, 2.0], [2.0, 2.5, 3.0], [3.0, 3.5, 4.0]]
    assert stitch(maps, (0, 64), 128, 192)[0, 0].tolist() == expected
    whole = torch.randn(2, 3, 5, 5)
    assert torch.equal(stitch(whole, (0,), 320, 320), whole)
    canvas = torch.arange(2 * 3 * 192 * 192.0).view(2, 3, 192, 192)
    crops = cut(canvas, (0, 64), 128)
    assert torch.equal(crops[5], canvas[1, :, :128, 64:])
    assert torch.equal(stitch(crops, (0, 64), 128, 192), canvas)


def test_little_memory_slices_attention_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(256, 256, 9)
    plain = load(folder, canvas=256, crops="none")
    sparing = load(folder, canvas=256, crops="none", max_memory=2**-10)
    expected, scores = plain(image), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        if not options:  # the library's own attention, in the image encoder, always gives some
            scores.append(math.prod(query.shape[:-1]) * key.shape[-2] * query.element_size())
        return attend(query, key, value, **options)

    monkeypatch.setattr(unet_module.F, "scaled_dot_product_attention", watched)
    found = sparing(image)
    assert max(scores) <= 2**18  # a quarter of the memory
    assert sum(scores) > 2**18 * 64  # a single layer would take 4 heads x 1024 x 1024 x 4 bytes
    close(found.levels, expected.levels)
    assert found.extractor == expected.extractor


def test_crops_per_pass_follow_the_memory(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = noise(192, 192, 10)
    sizes: dict[float | None, list[int]] = {}
    found = {}
    per_crop = 7 * 8 * 128**2 * 4 / 2**30
    for memory in (None, per_crop / 2, 3.5 * per_crop, 100.0):
        extractor = load(folder, **SMALL, max_memory=memory)
        seen = sizes.setdefault(memory, [])
        extractor.encoder.register_forward_pre_hook(lambda _module, inputs, s=seen: s.append(len(inputs[0])))
        found[memory] = extractor(image).levels
    assert list(sizes.values()) == [[1] * 4, [1] * 4, [3, 1], [4]]
    assert sum("use smaller crops or bf16" in each for each in caplog.messages) == 1
    for levels in found.values():
        close(levels, found[None])


def test_bf16_and_batches(folder: Path) -> None:
    images = [noise(120, 70, 11), noise(64, 64, 12)]
    exact = load(folder, **SMALL)
    batch = exact(images)
    for image, one in zip(images, batch, strict=True):
        close([one.data], [exact(image).data])
    rough = load_extractor("sd15", device="cpu", dtype="bf16", weights=str(folder), **SMALL)(images[0])
    assert rough.data.dtype == torch.float32
    assert (rough.data * batch[0].data).sum(dim=0).mean() > 0.97


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": 1000}, "canvas must be a multiple of 64, at least 128, got 1000"),
        ({"crop": 64}, "crop must be a multiple of 64, at least 128, got 64"),
        (
            {"canvas": 1152},
            "cover canvases from 576 to 1024, got 1152; change .*, or give crops=none",
        ),
        ({"canvas": 512}, "cover canvases from 576 to 1024, got 512"),
        ({"crops": "3x3"}, "crops: input should be '2x2' or 'none'"),
        ({"timestep": 1000}, "0 to 999, got 1000"),
        ({"prompt": True}, r"prompt: input should be a text; put it in quotes \(got True"),
        ({"prompt": "cat" * 80}, r"the prompt has 242 tokens, the text encoder takes 77; shorten it"),
        ({"max_memory": 0}, "positive number of GiB, got 0"),
        (
            {"captioner": "none.safetensors"},
            "no such file; make it from an ODISE checkpoint: convert_captioner",
        ),
        ({"colour": "red"}, "sd15 has no setting colour; it has: weights, .*max_memory"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_settings_that_cannot_be(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, **settings)


def test_without_weights_both_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "nowhere")
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5" in str(caught.value)
    assert "setting weights=FOLDER" in str(caught.value)
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("unet", r"unet: no config\.json in this folder; give the folder of a saved UNet2DConditionModel"),
        ("vae", r"vae: no config\.json"),
        ("text_encoder", r"text_encoder: no config\.json"),
        ("tokenizer", r"tokenizer: no tokenizer\.json or vocab\.json"),
    ],
)
def test_a_folder_that_lacks_a_part(folder: Path, tmp_path: Path, part: str, message: str) -> None:
    partial = Path(shutil.copytree(folder, tmp_path / "sd15"))
    shutil.rmtree(partial / part)
    with pytest.raises(InputError, match=message):
        load(partial)


def test_the_image_encoder_of_the_captioner_is_asked_for_by_its_own_setting(
    folder: Path, captioning: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = {**captioning, "clip_weights": str(tmp_path / "nowhere")}
    with pytest.raises(
        InputError, match=r"openai/clip-vit-large-patch14-336(.|\n)*setting clip_weights=FOLDER"
    ):
        load(folder, **given)


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def cut_short(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def without_a_tensor(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["mid_block.resnets.0.conv1.bias"]
    save_file(tensors, file, metadata={"format": "pt"})


def for_inpainting(folder: Path) -> None:
    unet = UNet2DConditionModel(
        block_out_channels=WIDTHS, cross_attention_dim=24, norm_num_groups=8, in_channels=9
    )
    unet.save_pretrained(folder / "unet")


def of_another_text(folder: Path) -> None:
    unet = UNet2DConditionModel(block_out_channels=WIDTHS, cross_attention_dim=48, norm_num_groups=8)
    unet.save_pretrained(folder / "unet")


def half_written_text(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_short, "unet"),
        (without_a_tensor, r"unet: the weights lack 1 tensors of UNet2DConditionModel, first mid_block"),
        (for_inpainting, "the network has in_channels = 9, but Stable Diffusion 1.x and 2.x have 4"),
        (of_another_text, "the text encoder gives vectors of 24, the network reads 48"),
        (half_written_text, "text_encoder: damaged, or not the weights of its config"),
        (lambda f: edit(f / "unet" / "config.json", cross_attention_dim=32), "expected shape"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, tmp_path: Path, harm: Any, message: str) -> None:
    harmed = Path(shutil.copytree(folder, tmp_path / "sd15"))
    harm(harmed)
    with pytest.raises(InputError, match=message):
        load(harmed)


def test_a_captioner_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save(odise_state(tokens=60), tmp_path / "odise.pth")
    given = {
        "captioner": str(convert_captioner(tmp_path / "odise.pth")),
        "clip_weights": str(tiny_clip(tmp_path / "clip")),
    }
    with pytest.raises(InputError, match=r"gives \[\(60, 24\), \(1, 128\)\], sd15 takes \[\(77, 24\)"):
        load(folder, **given)


def test_a_missing_extra_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[sd\]'"):
        load(folder)


def test_memory_can_be_limited_after_loading(folder: Path) -> None:
    plain, limited = load(folder, **SMALL), load(folder, **SMALL)
    limited.limit_memory(2**20)
    assert limited.settings.max_memory == load(folder, **SMALL, max_memory=2**-10).settings.max_memory
    image = noise(192, 192, 11)
    close(limited(image).levels, plain(image).levels)
    assert limited.identity == plain.identity


def test_released_weights_without_the_captioner_are_warned_of(folder, captioning, tmp_path, caplog) -> None:
    torch.manual_seed(0)
    channels = (64, 128, 128, 18)  # of the three maps and of the toy beside them
    torch.save(PostProcessor(channels, width=128, grid=12).state_dict(), tmp_path / "best_856.PTH")
    with caplog.at_level(logging.WARNING):
        for settings, warned in (({}, 1), (captioning, 0)):
            caplog.clear()
            released = load_post_processor(tmp_path / "best_856.PTH")
            fused = Fused([load(folder, **settings), Patches()]).eval()
            refined = RefinedExtractor(fused, released)
            assert [each.levelname for each in caplog.records] == ["WARNING"] * warned
            assert ("captioner=none" in caplog.text) == warned
        assert refined(noise(64, 64, 1)).data.shape == (128, 60, 60)
        # Weights that name their features were trained without one, if these have none.
        plain = load(folder)
        own = PostProcessor(channels[:3], width=128, grid=12)
        own.info = {"extractor": plain.identity}
        RefinedExtractor(plain, own)
        assert not caplog.records
