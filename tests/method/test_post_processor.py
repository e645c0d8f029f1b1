from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoaware.method.geometry import Canvas
from geoaware.method.losses import contrastive_loss
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import CARD, CONFIG, WEIGHTS
from tests.reference import post_processor as slow

CHANNELS, WIDTH, GRID = (6, 128, 10), 128, 6
SIDES = (3, 6, 9)
"""Coarser than the grid, equal (and without a shortcut, as it has as many channels as the width), finer."""


def random_maps(
    seed: int = 0, batch: int = 2, channels: Sequence[int] = CHANNELS, sides: Sequence[int] = SIDES
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, count, side, side, generator=generator)
        for count, side in zip(channels, sides, strict=True)
    ]


def random_network(seed: int = 0, channels: Sequence[int] = CHANNELS, **options: Any) -> PostProcessor:
    """A network with no weight left at its initial 0 or 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PostProcessor(channels, **{"width": WIDTH, "grid": GRID, **options}).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return network


def feature_map(extractor: str = "toy", seed: int = 0, channels: Sequence[int] = CHANNELS) -> FeatureMap:
    levels = tuple(level[0] for level in random_maps(seed, 1, channels))
    return FeatureMap(torch.ones(4, 9, 9), Canvas(40, 30, 36), extractor, levels)


class TestForward:
    def test_parameters_of_the_paper(self) -> None:
        assert sum(each.numel() for each in PostProcessor().parameters()) == 5_150_214

    def test_names_of_the_released_checkpoint(self) -> None:
        released = slow.released_state((640, 1280, 1280, 768), 768)
        own = PostProcessor().state_dict()
        assert {name: tensor.shape for name, tensor in own.items()} == {
            name: tensor.shape for name, tensor in released.items()
        }
        assert own["mixing_weights"].shape == (4,)
        assert "bottleneck_layers.2.0.shortcut.weight" in own
        assert "bottleneck_layers.3.0.shortcut.weight" not in own

    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.lists(st.integers(1, 9), min_size=3, max_size=3),
        st.integers(2, 8),
        st.sampled_from([(), (1,), (1, 2)]),
    )
    def test_fast_equals_enlarging_first(self, seed: int, sides, grid: int, context) -> None:
        network = random_network(seed, grid=grid, context=context).double()
        maps = [level.double() for level in random_maps(seed, sides=sides)]
        with torch.no_grad():
            found = network(maps)
        assert found.shape == (2, WIDTH, grid, grid)
        expected = slow.refined(network.state_dict(), maps, grid, context)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)

    @pytest.mark.parametrize(
        ("channels", "width", "grid", "sides"),
        [
            (CHANNELS, WIDTH, GRID, SIDES),
            ((640, 1280, 1280, 768), 768, 16, (16, 8, 4, 16)),  # the paper's on a quarter of its grid
            ((640, 1280, 1280, 768), 768, 8, (16, 8, 4, 16)),
        ],
    )
    def test_fast_equals_enlarging_first_in_single_precision(self, channels, width, grid, sides) -> None:
        network = PostProcessor(channels, width, grid).eval()
        maps = random_maps(0, 1, channels, sides)
        with torch.no_grad():
            found = network(maps)
        expected = slow.refined(network.state_dict(), maps, grid)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)

    def test_initial_shares_are_equal(self) -> None:
        network = PostProcessor(CHANNELS, WIDTH, GRID)
        assert torch.equal(network.mixing_weights.softmax(0), torch.full((3,), 1 / 3))
        assert network.logit_scale.exp().item() == pytest.approx(1 / 0.07)
        # He, fan-out: variance 2 / (outputs x kernel).
        block = PostProcessor((600,), 768, GRID).bottleneck_layers[0][0]
        assert block.conv2.weight.std().item() == pytest.approx((2 / (192 * 9)) ** 0.5, rel=0.02)
        assert block.conv3.weight.std().item() == pytest.approx((2 / 768) ** 0.5, rel=0.02)

    def test_images_of_a_batch_do_not_meet(self) -> None:
        network, maps = random_network(), random_maps(batch=3)
        with torch.no_grad():
            together = network(maps)
            alone = torch.cat([network([level[i : i + 1] for level in maps]) for i in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    def test_empty_batch(self) -> None:
        with torch.no_grad():
            assert random_network()(random_maps(batch=0)).shape == (0, WIDTH, GRID, GRID)

    def test_layout_of_the_maps_does_not_matter(self) -> None:
        network, maps = random_network(), random_maps()
        strided = [torch.stack([level, level], dim=-1)[..., 0] for level in maps]
        with torch.no_grad():
            torch.testing.assert_close(network(strided), network(maps))

    def test_maps_are_left_as_they_came(self) -> None:
        network, maps = random_network(dropout=0.5).train(), random_maps()
        before = [level.clone() for level in maps]
        network(maps).sum().backward()
        assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))

    @pytest.mark.parametrize("channels", [(6, 128), (6, 128, 11), (6, 128, 10, 10)])
    def test_maps_of_another_extractor(self, channels: tuple[int, ...]) -> None:
        maps = random_maps(0, 1, channels, [3] * len(channels))
        with pytest.raises(
            InputError, match=r"takes maps of \(6, 128, 10\) channels, got " + re.escape(f"{channels}")
        ):
            random_network()(maps)


class TestTraining:
    @pytest.mark.parametrize("context", [(), (2,)])
    def test_gradients_equal_those_of_enlarging_first(self, context: tuple[int, ...]) -> None:
        """Of every parameter and of the maps; what is not kept is computed again as it was."""
        network = random_network(context=context).train().double()
        maps = [level.double().requires_grad_() for level in random_maps()]
        state = {name: each.detach().requires_grad_() for name, each in network.state_dict().items()}
        copies = [level.detach().requires_grad_() for level in maps]
        weights = torch.randn(2, WIDTH, GRID, GRID, dtype=torch.float64)
        (network(maps) * weights).sum().backward()
        (slow.refined(state, copies, GRID, context) * weights).sum().backward()
        for name, parameter in network.named_parameters():
            if "logit_scale" in name:
                assert parameter.grad is None
                continue
            assert parameter.grad.abs().max() > 0, name
            torch.testing.assert_close(parameter.grad, state[name].grad, atol=1e-9, rtol=1e-8, msg=name)
        for level, copy in zip(maps, copies, strict=True):
            torch.testing.assert_close(level.grad, copy.grad, atol=1e-9, rtol=1e-8)

    def test_every_parameter_but_one_learns(self) -> None:
        """The scale of an image with itself is only carried along, for released checkpoints."""
        network = random_network().train()
        refined = network(random_maps())
        contrastive_loss(refined[0].flatten(1).T, refined[1].flatten(1).T, network.logit_scale).backward()
        idle = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
        assert idle == ["self_logit_scale"]

    def test_same_gradients_each_time(self) -> None:
        gradients = []
        for _ in range(2):
            network = random_network(dropout=0.3).train()
            torch.manual_seed(5)
            network(random_maps()).square().sum().backward()
            gradients.append([each.grad for each in network.parameters() if each.grad is not None])
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

    def test_dropout_only_while_training(self) -> None:
        network, maps = random_network(dropout=0.5), random_maps()
        plain = random_network()
        with torch.no_grad():
            assert torch.equal(network(maps), plain(maps))
            network.train()
            torch.manual_seed(3)
            dropped = network(maps)
            torch.manual_seed(3)
            expected = plain([F.dropout(level, 0.5) for level in maps])
        assert torch.equal(dropped, expected)
        assert not torch.equal(dropped, plain(maps))

    def test_training_without_dropout_is_evaluation(self) -> None:
        network, maps = random_network(), random_maps()
        with torch.no_grad():
            evaluated = network(maps)
        assert torch.equal(network.train()(maps), evaluated)


class TestRefine:
    def test_refined_map(self) -> None:
        network, features = random_network(), feature_map()
        refined = network(features)
        with torch.no_grad():
            assert torch.equal(refined.data, network([level[None] for level in features.levels])[0])
        assert refined.grid == GRID
        assert refined.canvas == features.canvas
        assert refined.levels == ()
        assert refined.extractor == f"toy + {network.identity}"

    def test_identity_tells_weights_and_grids_apart(self) -> None:
        networks = [random_network(), random_network(1), random_network(grid=7)]
        assert len({each.identity for each in networks}) == 3
        assert random_network().identity == networks[0].identity

    def test_features_that_it_was_trained_on(self) -> None:
        network = random_network()
        network.info = {"extractor": "toy"}
        assert network(feature_map()).grid == GRID
        with pytest.raises(
            InputError, match=r"was trained on features of toy, not of dino\nremedy: use that extractor"
        ):
            network(feature_map("dino"))

    def test_features_of_other_channels(self) -> None:
        with pytest.raises(InputError, match=r"takes maps of \(6, 128, 10\) channels, got \(6, 128, 12\)"):
            random_network()(feature_map(channels=(6, 128, 12)))

    def test_features_without_raw_maps(self) -> None:
        bare = FeatureMap(torch.ones(4, 9, 9), Canvas(40, 30, 36), "toy")
        with pytest.raises(InputError, match="have no raw maps"):
            random_network()(bare)

    def test_dropout_is_off_and_the_mode_stays(self) -> None:
        """Also of a network in the middle of its training."""
        network, features = random_network(dropout=0.5), feature_map()
        wanted = network.eval().refine(features).data
        assert torch.equal(network.train().refine(features).data, wanted)
        assert network.training
        network.eval().refine(features)
        assert not network.training


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channels": ()}, "channels must be positive numbers"),
            ({"channels": (3, 0)}, "channels must be positive numbers"),
            ({"width": 100}, "the width must be a multiple of 128 channels, got 100"),
            ({"width": 0}, "the width must be a multiple of 128 channels, got 0"),
            ({"grid": 0, "width": 256}, "the grid must have at least 1 cells a side, got 0"),
            ({"grid": 1, "width": 128}, "the grid must have at least 2 cells a side, got 1"),
            ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
            ({"context": (1, 0)}, "context takes dilations of at least 1"),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            PostProcessor(**{"channels": CHANNELS, "width": WIDTH, "grid": GRID, **changes})


class MakesAFolder:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class TestReleased:
    @pytest.mark.parametrize(
        ("channels", "width", "grid"), [(CHANNELS, 128, 60), ((7,), 256, 9), ((128,), 128, 5)]
    )
    def test_round_trip(self, tmp_path: Path, channels: tuple[int, ...], width: int, grid: int) -> None:
        state = slow.released_state(channels, width)
        torch.save(state, tmp_path / "best_856.PTH")
        network = PostProcessor.from_released(tmp_path / "best_856.PTH", grid)
        assert not network.training
        assert (network.settings.channels, network.settings.width, network.settings.grid) == (
            channels,
            width,
            grid,
        )
        saved = PostProcessor.from_pretrained(network.save_pretrained(tmp_path / "saved"))
        assert saved.settings == network.settings
        for each in (network, saved):
            assert set(each.state_dict()) == set(state)
            assert all(torch.equal(each.state_dict()[name], state[name]) for name in state)
        maps = random_maps(0, 1, channels, [4] * len(channels))
        with torch.no_grad():
            assert torch.equal(network(maps), saved(maps))
            expected = slow.refined(state, maps, grid)
        torch.testing.assert_close(saved(maps).double(), expected, atol=1e-4, rtol=1e-5)

    @pytest.mark.parametrize(
        ("channels", "width"),
        [((768,), 768), ((768,), 384), ((768,), 128), ((640, 1280, 1280, 768), 768)],
    )
    def test_adapters_of_diy_sc(self, tmp_path: Path, channels: tuple[int, ...], width: int) -> None:
        """Dünkel et al. 2025: one block for each map under the same names, narrower ones with a shortcut."""
        state, parts = {}, ["conv1", "conv2", "conv3"]
        released = slow.released_state(channels, width)
        for number, inputs in enumerate(channels):
            for part in parts if inputs == width else [*parts, "shortcut"]:
                for each in ("weight", "norm.weight", "norm.bias"):
                    name = f"bottleneck_layers.{number}.0.{part}.{each}"
                    state[name] = released[name]
        for name in ("mixing_weights", "logit_scale", "self_logit_scale"):
            state[name] = released[name]
        torch.save(state, tmp_path / "best.pth")
        network = PostProcessor.from_released(tmp_path / "best.pth", 3)
        assert (network.settings.channels, network.settings.width) == (channels, width)
        maps = random_maps(0, 1, channels, [3] * len(channels))
        with torch.no_grad():
            torch.testing.assert_close(
                network(maps).double(), slow.refined(state, maps, 3), atol=1e-3, rtol=1e-4
            )

    def test_default_network(self, tmp_path: Path) -> None:
        torch.save(slow.released_state((640, 1280, 1280, 768), 768), tmp_path / "last.PTH")
        assert PostProcessor.from_released(tmp_path / "last.PTH").settings == PostProcessor().settings

    def test_a_pickle_is_not_executed(self, tmp_path: Path) -> None:
        trap = tmp_path / "made"
        pickle.loads(pickle.dumps(MakesAFolder(trap)))
        assert trap.is_dir()  # the trap works
        trap.rmdir()
        state = {**slow.released_state(CHANNELS, WIDTH), "extra": MakesAFolder(trap)}
        torch.save(state, tmp_path / "zip.PTH")
        torch.save(state, tmp_path / "old.PTH", _use_new_zipfile_serialization=False)
        (tmp_path / "plain.pkl").write_bytes(pickle.dumps(state, protocol=2))
        for name in ("zip.PTH", "old.PTH", "plain.pkl"):
            with pytest.raises(
                InputError, match=rf"{name}: damaged, or holds more than tensors, and was not opened"
            ):
                PostProcessor.from_released(tmp_path / name)
            assert not trap.exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"keypoints,x,y\n1,2,3\n", "damaged, or holds more than tensors"),
            (b"", "damaged, or holds more than tensors"),
            (b"l", "damaged, or holds more than tensors"),
            (bytes(range(256)), "damaged, or holds more than tensors"),
            (pickle.dumps({"epoch": 3}, protocol=2), "damaged, or holds more than tensors"),
        ],
    )
    def test_no_checkpoint_at_all(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "file.PTH"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            PostProcessor.from_released(path)

    def test_cut_at_any_place(self, tmp_path: Path) -> None:
        """Pickles fail in many ways; all of them must be told as one."""
        path = tmp_path / "cut.PTH"
        for new in (True, False):
            torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=new)
            whole = path.read_bytes()
            for length in range(0, len(whole), 23):
                path.write_bytes(whole[:length])
                with pytest.raises(InputError, match=r"cut\.PTH"):
                    PostProcessor.from_released(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([torch.zeros(2)], "is no state dict"),
            ({"state_dict": {"a": torch.zeros(2)}}, "is no state dict"),
            ({3: torch.zeros(2)}, "is no state dict"),
            ({}, "is no checkpoint of a post-processor"),
            ({"a": torch.zeros(2)}, "is no checkpoint of a post-processor"),
            ({"bottleneck_layers.0.0.conv1.weight": torch.zeros(2)}, "is no checkpoint of a post-processor"),
            (
                {f"bottleneck_layers.0.0.{part}.weight": torch.zeros(128) for part in ("conv1", "conv3")},
                "is no checkpoint of a post-processor",
            ),
        ],
    )
    def test_other_tensors(self, tmp_path: Path, content: Any, message: str) -> None:
        torch.save(content, tmp_path / "other.PTH")
        with pytest.raises(InputError, match=rf"other\.PTH: {message}"):
            PostProcessor.from_released(tmp_path / "other.PTH")

    def test_missing_strange_and_misshapen(self, tmp_path: Path) -> None:
        path, state = tmp_path / "last.PTH", slow.released_state(CHANNELS, WIDTH)
        name = "bottleneck_layers.1.0.conv2.norm.bias"
        cases = [
            ({key: each for key, each in state.items() if key != name}, f"lacks {name}"),
            ({**state, "grid": torch.zeros(2)}, "has grid, which is not known"),
            (
                {**state, "bottleneck_layers.0.1.conv1.weight": torch.zeros(2)},
                "has bottleneck_layers.0.1.conv1.weight, which is not known",
            ),
            ({**state, name: torch.zeros(64)}, rf"{name} has shape \(64,\), expected \(32,\); the width or"),
            (
                {**state, "mixing_weights": torch.zeros(4)},
                r"mixing_weights has shape \(4,\), expected \(3,\)",
            ),
        ]
        for content, message in cases:
            torch.save(content, path)
            with pytest.raises(InputError, match=rf"last\.PTH: .*{message}"):
                PostProcessor.from_released(path)

    def test_width_that_makes_no_network(self, tmp_path: Path) -> None:
        torch.save(slow.released_state((6,), 64), tmp_path / "last.PTH")
        with pytest.raises(
            InputError, match=r"last\.PTH: is no checkpoint .*multiple of 128 channels, got 64"
        ):
            PostProcessor.from_released(tmp_path / "last.PTH")

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent\.PTH: no such file; give a released checkpoint"):
            PostProcessor.from_released(tmp_path / "absent.PTH")
        with pytest.raises(InputError, match="cannot be read"):
            PostProcessor.from_released(tmp_path)


class TestPretrained:
    INFO: dict[str, Any] = {  # noqa: RUF012  (never changed)
        "extractor": "toy",
        "licence": "the weights may be used freely",
        "figures": {"lspet val PCK@0.1": 21.5, "größe": 3},
        "stages": [{"steps": 3}],
    }

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        network = random_network(dropout=0.2, context=(2,))
        network.info = self.INFO
        return network.save_pretrained(tmp_path / "deep" / "saved")

    def test_round_trip(self, folder: Path) -> None:
        first, again = random_network(dropout=0.2, context=(2,)), PostProcessor.from_pretrained(str(folder))
        assert not again.training
        assert again.settings == first.settings
        assert again.info == self.INFO
        assert again.weights_hash() == first.weights_hash()
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), first.parameters(), strict=True))

    def test_files(self, folder: Path, tmp_path: Path) -> None:
        assert sorted(each.name for each in folder.iterdir()) == sorted([WEIGHTS, CONFIG, CARD])
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        assert config["format"] == "geoaware post-processor"
        assert config["info"] == self.INFO
        assert config["settings"]["channels"] == list(CHANNELS)
        again = PostProcessor.from_pretrained(folder).save_pretrained(tmp_path / "again")
        for name in (WEIGHTS, CONFIG, CARD):
            assert (again / name).read_bytes() == (folder / name).read_bytes()

    def test_card(self, folder: Path) -> None:
        card = (folder / CARD).read_text(encoding="utf-8")
        count = sum(each.numel() for each in PostProcessor.from_pretrained(folder).parameters())
        assert f"{count:,} parameters: channels (6, 128, 10), width 128, grid 6, dropout 0.2" in card
        assert "## Licence\n\nthe weights may be used freely\n" in card
        assert "- lspet val PCK@0.1: 21.5\n- größe: 3\n" in card
        assert "## Stages\n\n```json\n" in card

    def test_place_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(
            InputError, match=r"file/model\.safetensors: cannot be written .*; choose another place"
        ):
            random_network().save_pretrained(tmp_path / "file")

    def test_information_that_cannot_be_written_changes_nothing(self, folder: Path) -> None:
        before = (folder / WEIGHTS).read_bytes()
        network = random_network(1)
        network.info = {"figures": {1, 2}}
        with pytest.raises(TypeError):
            network.save_pretrained(folder)
        assert (folder / WEIGHTS).read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64, None])
    def test_damaged_weights(self, folder: Path, content: bytes | None) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(InputError, match=rf"{WEIGHTS}: damaged, cannot be read .*; copy it anew"):
            PostProcessor.from_pretrained(folder)

    def test_missing_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        with pytest.raises(InputError, match=rf"{WEIGHTS}: no such file; the folder is not complete"):
            PostProcessor.from_pretrained(folder)

    def test_weights_of_another_width(self, folder: Path, tmp_path: Path) -> None:
        channels = (6, 300, 10)
        other = random_network(channels=channels, width=256).save_pretrained(tmp_path / "wide")
        (folder / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
        with pytest.raises(
            InputError, match=rf"{WEIGHTS}: is not of this post-processor \(lacks context_layers"
        ):
            PostProcessor.from_pretrained(folder)
        _change(folder, lambda config: config["settings"].update(context=[], channels=channels))
        with pytest.raises(InputError, match=rf"{WEIGHTS}: .* has shape .*, expected .*; the width or"):
            PostProcessor.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda config: config.update(format="geoaware predictions"),
                "is not the config of a geoaware post",
            ),
            (lambda config: config.clear(), "is not the config of a geoaware post-processor"),
            (lambda config: config["settings"].update(depth=3), "unknown setting depth; a newer geoaware"),
            (lambda config: config.pop("settings"), "damaged, lacks settings or info"),
            (lambda config: config.update(settings=[3]), "damaged, lacks settings or info"),
            (lambda config: config.update(info=None), "damaged, lacks settings or info"),
            (lambda config: config["settings"].update(width="768"), "damaged, no post-processor can be made"),
            (
                lambda config: config["settings"].update(grid=True),
                ".*context and dropout must be numbers, got",
            ),
            (
                lambda config: config["settings"].update(width=2**40),
                ".*context can be 1,048,576 at most, got",
            ),
            (lambda config: config["settings"].update(channels=5), "damaged, no post-processor can be made"),
            (
                lambda config: config["settings"].update(width=100),
                "damaged, no post.* of its settings .*multiple of 128 channels, got 100",
            ),
        ],
    )
    def test_config_of_something_else(self, folder: Path, change: Any, message: str) -> None:
        _change(folder, change)
        with pytest.raises(InputError, match=rf"config\.json: {message}"):
            PostProcessor.from_pretrained(folder)

    @pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
    def test_no_config(self, folder: Path, content: bytes | None) -> None:
        if content is None:
            (folder / CONFIG).unlink()
        else:
            (folder / CONFIG).write_bytes(content)
        with pytest.raises(
            InputError, match=r"config\.json: (no such file|cannot be read|is not the config)"
        ):
            PostProcessor.from_pretrained(folder)

    def test_from_the_hub(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def download(place: str, revision: str | None = None, allow_patterns: Any = None) -> str:
            asked.append((place, revision, sorted(allow_patterns)))
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr("geoaware.method.post_processor.hub_options", dict)
        network = PostProcessor.from_pretrained("someone/refiner", revision="v2")
        assert network.info == self.INFO
        assert asked == [("someone/refiner", "v2", sorted([WEIGHTS, CONFIG, CARD]))]

    def test_unknown_name_without_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(*_: Any, **__: Any) -> str:
            raise OSError("no route to host.\nand a traceback")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr("geoaware.method.post_processor.hub_options", dict)
        expected = r"no post-processor at 'someone/refiner' \(no route to host\)\nremedy: give a folder"
        with pytest.raises(InputError, match=expected):
            PostProcessor.from_pretrained("someone/refiner")

    def test_a_hub_that_does_not_answer_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def head(*_: Any, **options: Any) -> None:
            asked.append(options["timeout"])
            raise OSError("no route to host")

        monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=head))
        with pytest.raises(InputError, match="the hub cannot be reached, nothing is in its cache"):
            PostProcessor.from_pretrained("someone/refiner")
        assert asked == [5]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
                "a pointer of Git LFS",
            ),
            (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page, not the file; download"),
        ],
    )
    def test_what_only_stands_for_weights(self, folder: Path, content: bytes, message: str) -> None:
        released = folder.parent / "best.pth"
        released.write_bytes(content)
        with pytest.raises(InputError, match=message):
            PostProcessor.from_released(released)
        for name in (WEIGHTS, CONFIG):
            (folder / name).write_bytes(content)
            with pytest.raises(InputError, match=rf"{name}: is .*{message.removeprefix('is ')}"):
                PostProcessor.from_pretrained(folder)


def _change(folder: Path, change: Any) -> None:
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")
