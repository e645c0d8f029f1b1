"""Networks of a hub, of the real classes, small and random: what they give is what `transformers` gives."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from geoaware.features import load_extractor
from geoaware.features.hub import DINOV3
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError
from tests.features.test_contract import tiny_dinov3
from tests.toys import noise


def tiny_vit(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48}
    transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(
        folder
    )
    content = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def normalised(image: Image.Image, extractor: Any) -> torch.Tensor:
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return ((values - extractor.mean) / extractor.std)[None]


def as_map(tokens: torch.Tensor, grid: int) -> torch.Tensor:
    return tokens[0, -grid * grid :].T.unflatten(1, (grid, grid))


@pytest.mark.parametrize("blocks", [(-1,), (0,), (1, 2)])
def test_dinov3_gives_the_hidden_states(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    folder, image = tiny_dinov3(tmp_path, False), noise(96, 96, 5)
    extractor = load_extractor("dinov3-base", device="cpu", weights=str(folder), canvas=96, blocks=blocks)
    model = transformers.DINOv3ViTModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(normalised(image, extractor), output_hidden_states=True).hidden_states
    expected = torch.stack([as_map(states[1 + each % 3], 6) for each in blocks]).mean(dim=0)
    (found,) = extractor.levels_of([image])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)
    assert (extractor.layout.grid, extractor.layout.channels) == (6, 24)
    # Later blocks are gone.
    assert len(
        extractor.model.model.layer if hasattr(extractor.model, "model") else extractor.model.layer
    ) == 1 + max(each % 3 for each in blocks)


@pytest.mark.parametrize("stage", [None, 0, -1])
def test_convnext_gives_the_map_of_a_stage(tmp_path: Path, stage: int | None) -> None:
    folder, image = tiny_dinov3(tmp_path, True), noise(96, 96, 5)
    options = {} if stage is None else {"blocks": (stage,)}
    extractor = load_extractor(
        "dinov3-convnext-tiny", device="cpu", weights=str(folder), canvas=96, **options
    )
    model = transformers.DINOv3ConvNextModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(normalised(image, extractor), output_hidden_states=True).hidden_states
    expected = states[-4:][-2 if stage is None else stage][0]
    (found,) = extractor.levels_of([image])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)
    assert found.shape[-1] == extractor.layout.grid == {None: 6, 0: 24, -1: 3}[stage]


def test_any_transformer_of_a_hub(tmp_path: Path) -> None:
    """On another canvas than its own, with its own normalisation."""
    folder, image = tiny_vit(tmp_path), noise(48, 48, 5)
    extractor = load_extractor(f"hub:{folder}", device="cpu", canvas=48, blocks=[1])
    assert extractor.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert extractor.std.flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])
    model = transformers.ViTModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(
            normalised(image, extractor), output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states
    (found,) = extractor.levels_of([image])
    torch.testing.assert_close(found[0], as_map(states[2], 6), atol=1e-5, rtol=1e-4)
    result = Matcher(extractor, pose="off").match(image, image, [(24, 24)])
    assert result.points[0].tolist() == pytest.approx([24, 24], abs=8)


def test_the_half_of_clip_that_sees(tmp_path: Path) -> None:
    text = transformers.CLIPTextConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=99
    )
    seen = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vision = transformers.CLIPVisionConfig(**seen, image_size=32, patch_size=8)
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    extractor = load_extractor(f"hub:{tmp_path}", device="cpu", canvas=48)
    (found,) = extractor.levels_of([noise(48, 48, 5)])
    assert found.shape == (1, 24, 6, 6)


@pytest.mark.parametrize("facet", ["key", "query", "value"])
def test_facets_are_projections_of_the_block(tmp_path: Path, facet: str) -> None:
    folder, image = tiny_dinov3(tmp_path, False), noise(96, 96, 5)
    extractor = load_extractor("dinov3-base", device="cpu", weights=str(folder), canvas=96, facet=facet)
    model = transformers.DINOv3ViTModel.from_pretrained(folder).eval()
    caught: list[torch.Tensor] = []
    layers = model.model.layer if hasattr(model, "model") else model.layer
    getattr(layers[-1].attention, f"{facet[0]}_proj").register_forward_hook(
        lambda *each: caught.append(each[2])
    )
    with torch.inference_mode():
        model(normalised(image, extractor))
    (found,) = extractor.levels_of([image])
    torch.testing.assert_close(found[0], as_map(caught[0], 6), atol=1e-5, rtol=1e-4)


def test_every_name_has_its_hub_id() -> None:
    assert len(set(DINOV3.values())) == len(DINOV3) == 8
    assert all(each.startswith("facebook/dinov3-") and each.endswith("-lvd1689m") for each in DINOV3.values())


@pytest.mark.parametrize(
    ("name", "convolutional", "settings", "message"),
    [
        ("dinov3-base", False, {"canvas": 100}, "multiple of 16, got 100; the nearest is 96"),
        ("dinov3-base", False, {"blocks": (3,)}, "block 3 does not exist: dinov3-base has blocks 0…2"),
        ("dinov3-convnext-tiny", True, {"blocks": (1, 2)}, "has stages 0…3; give one as blocks"),
        ("dinov3-convnext-tiny", True, {"facet": "key"}, "has no attention; leave the facet as it is"),
        ("dinov3-convnext-tiny", True, {"canvas": 100}, "multiple of 16, got 100; the nearest is 96"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, name: str, convolutional: bool, settings: dict[str, Any], message: str
) -> None:
    folder = tiny_dinov3(tmp_path, convolutional)
    with pytest.raises(InputError, match=message):
        load_extractor(name, device="cpu", weights=str(folder), **settings)


class Gated(BaseHTTPRequestHandler):
    """A hub whose repositories are all gated."""

    def do_HEAD(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: Any) -> None:
        pass


def test_gated_weights_and_no_network_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with ThreadingHTTPServer(("127.0.0.1", 0), Gated) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        template = place + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        with pytest.raises(InputError) as caught:
            load_extractor("dinov3-base", device="cpu")
        server.shutdown()
    # Nobody answers there any more.
    with pytest.raises(
        InputError, match=r"no weights for dinov3-small .*\nremedy: with a network, accept the"
    ):
        load_extractor("dinov3-small", device="cpu")
    first, second = str(caught.value).splitlines()
    assert "no weights for dinov3-base at 'facebook/dinov3-vitb16-pretrain-lvd1689m' (" in first
    assert "gated repo" in first
    assert "accept the licence at https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m" in second
    assert "hf download facebook/dinov3-vitb16-pretrain-lvd1689m" in second
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_missing_weights_say_where_the_licence_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    from geoaware.runs import weights

    monkeypatch.setattr(weights, "hub_options", lambda: {"local_files_only": True})
    with pytest.raises(InputError) as caught:
        load_extractor("dinov3-base", device="cpu")
    assert "no weights for dinov3-base at 'facebook/dinov3-vitb16-pretrain-lvd1689m'" in str(caught.value)
    assert (
        "accept the licence at https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m, log in"
        in str(caught.value)
    )
    with pytest.raises(InputError) as caught:
        load_extractor("hub:nobody/nothing", device="cpu")
    assert "licence" not in str(caught.value)
    assert "hf download nobody/nothing" in str(caught.value)
