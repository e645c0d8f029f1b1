"""Runs on tiny random transformers of the real classes: LoRA, last blocks, and what is loaded afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from geoaware.features import Extractor, load_extractor
from geoaware.features.adapter import Adapter, AdapterShape
from geoaware.features.patches import PatchNetwork, twin
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.runs import checkpoint, log
from geoaware.runs.errors import InputError
from geoaware.runs.progress import silent
from geoaware.studies.tiny_networks import tiny_dinov2
from geoaware.training.backbone import run as running
from geoaware.training.backbone.run import tune
from tests.features.test_contract import tiny_dinov3
from tests.toys import noise
from tests.training.backbone.tiny import config

for package in ("peft", "tensorboard"):
    pytest.importorskip(package)

PLAIN = [{"name": "coco", "root": "plain", "split": "train", "objects": 3, "twice": 1}]
SIDE = {"dinov2-base": 56, "dinov3-base": 64}
CANVAS = {"dinov2-base": 84, "dinov3-base": 96}
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")

Weights = dict[str, Path]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return {
        "dinov2-base": tiny_dinov2(tmp_path_factory.mktemp("dinov2"), False),
        "dinov3-base": tiny_dinov3(tmp_path_factory.mktemp("dinov3"), False),
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(
    data: Path, cache: Path, networks: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Tune a transformer with changed settings into a folder of that name; the folder of the weights."""
    monkeypatch.setattr(running, "_LOOKED_AT", 1)

    def start(name: str = "run", backbone: str = "dinov2-base", stop_at: int = 0, **changes: Any) -> Path:
        def interrupt(what: str, done: int, *_: object) -> None:
            if done >= stop_at:
                raise KeyboardInterrupt

        known = backbone if backbone in networks else "dinov3-base"
        content = {
            "backbone": backbone,
            "backbone_settings": {"weights": str(networks[known]), "canvas": CANVAS[known]},
            "lora": {"rank": 2, "targets": ["attention"]},
            "shape": {}, "data": PLAIN, "unlabelled": None, "size": SIDE[known], "crop": 64, "steps": 2,
        }  # fmt: skip
        chosen = config(data, cache, **{**content, **changes})
        return tune(chosen, tmp_path / name, device="cpu", tell=interrupt if stop_at else silent)

    return start


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that take steps."""
    found: list[Any] = []
    original = running._Run.take

    def take(self: Any, step: int, ready: Any) -> dict[str, float]:
        found.append(self)
        return original(self, step, ready)

    monkeypatch.setattr(running._Run, "take", take)
    return found


def load(networks: Weights, name: str, **settings: Any) -> Extractor:
    given = {"weights": str(networks[name]), "canvas": CANVAS[name], **settings}
    return load_extractor(name, device="cpu", **given)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log.read(folder) if "loss" in line]


@pytest.mark.parametrize("name", ["dinov2-base", "dinov3-base"])
def test_only_updates_are_trained_and_saved_and_the_network_stays_as_it_was(
    run: Callable[..., Path], taken: list[Any], networks: Weights, tmp_path: Path, name: str
) -> None:
    weights = run(backbone=name)
    state = load_file(weights / "model.safetensors")
    expected = {f"{each}.lora_{factor}" for each in LAYERS for factor in "AB"}
    assert {key.rpartition(".attention.")[2] for key in state} == expected
    assert len(state) == 3 * 8, "three blocks"
    assert all(2 in each.shape and each.any() for each in state.values())
    assert (weights / "model.safetensors").stat().st_size < 12_000
    assert (tmp_path / "run" / checkpoint.FILE).stat().st_size < 60_000, "without the network"
    network = taken[0].learner.network
    plain = dict(load(networks, name).named_parameters())
    compared = 0
    for key, each in network.extractor.named_parameters():
        if "lora" in key:
            assert each.grad is not None, key
            assert each.grad.any(), key
        else:
            assert each.grad is None, key
            assert torch.equal(each, plain[key.replace(".base_layer", "")]), key
            compared += 1
    assert compared == len(plain)
    # The average shares what is frozen.
    pairs = zip(network.parameters(), taken[0].learner.average.parameters(), strict=True)
    assert all((a is b) is not a.requires_grad for a, b in pairs)


@pytest.mark.parametrize("name", ["dinov2-base", "dinov3-base"])
def test_merged_and_unmerged_agree(
    run: Callable[..., Path], taken: list[Any], networks: Weights, tmp_path: Path, name: str
) -> None:
    """With our merging, and with peft's."""
    weights = run(backbone=name, steps=3, warmup=1, learning_rate=0.05, backbone_rate=1.0, average=0)
    image = noise(90, 70, 3)
    merged, plain = load(networks, name, adapter=str(weights)), load(networks, name)
    unmerged = taken[0].kind.extractor(taken[0].learner.average)
    expected = merged(image).data
    torch.testing.assert_close(unmerged(image).data, expected, atol=1e-5, rtol=1e-5)
    assert float((plain(image).data - expected).abs().max()) > 0.01
    assert unmerged.layout == plain.layout
    by_peft = twin(unmerged, own=True)
    for each in by_peft.modules():
        if hasattr(each, "merge"):
            each.merge()
    torch.testing.assert_close(by_peft(image).data, expected, atol=1e-5, rtol=1e-5)
    # Named by its weights, wherever it lies.
    shutil.copytree(weights, tmp_path / "elsewhere")
    again = load(networks, name, adapter=str(tmp_path / "elsewhere"))
    assert again.identity == merged.identity != plain.identity
    assert merged.identity.startswith(plain.identity + " + adapter ")
    assert again.weights_hash() == merged.weights_hash() != plain.weights_hash()
    exact = MatchSettings(mode="argmax")
    found = Matcher(merged, exact, pose="off").match(image, image, [(30, 20)])
    assert found.points[0].tolist() == pytest.approx([30, 20], abs=10)


def test_the_loss_falls(run: Callable[..., Path], tmp_path: Path) -> None:
    chosen = {"steps": 12, "warmup": 1, "learning_rate": 0.005, "backbone_rate": 1.0, "log_every": 4}
    run(**chosen, save_every=100, lora={"rank": 4, "targets": ["attention", "mlp"]}, objective={"points": 20})
    first, _, last = losses(tmp_path / "run")
    assert last < 0.7 * first


def test_a_stopped_run_goes_on_bit_for_bit(run: Callable[..., Path], tmp_path: Path) -> None:
    """Also what drops out at random, and with blocks that are computed twice."""
    chosen = {"steps": 4, "lora": {"rank": 2, "dropout": 0.3}, "checkpointing": True}
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop_at=3, **chosen)
    torch.manual_seed(5)
    for name in ("stopped", "whole"):
        run(name, **chosen)
    for file in ("weights/model.safetensors", "weights/config.json", checkpoint.FILE):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    run("dry", **{**chosen, "lora": {"rank": 2}})
    assert losses(tmp_path / "dry") != losses(tmp_path / "whole")


def test_blocks_that_are_computed_twice_change_nothing(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.dinov2.modeling_dinov2 import Dinov2MLP

    computed: list[bool] = []
    original = Dinov2MLP.forward
    monkeypatch.setattr(
        Dinov2MLP,
        "forward",
        lambda self, *given: computed.append(torch.is_grad_enabled()) or original(self, *given),
    )
    for name, times in (("kept", 1), ("twice", 2)):
        computed.clear()
        run(name, checkpointing=name == "twice")
        assert sum(computed) == times * 2 * 3, "two steps, three blocks"
    assert losses(tmp_path / "twice") == pytest.approx(losses(tmp_path / "kept"), rel=1e-6)


def test_the_last_blocks_alone(
    run: Callable[..., Path], taken: list[Any], networks: Weights, tmp_path: Path
) -> None:
    weights = run(lora=None, unfreeze=1)
    state = load_file(weights / "model.safetensors")
    plain = load(networks, "dinov2-base")
    before = dict(plain.named_parameters())
    assert set(state) == {name for name in before if ".layer.2." in name}
    network = taken[0].learner.network
    for key, each in network.extractor.named_parameters():
        assert torch.equal(each, before[key]) is (key not in state), key
    merged = load(networks, "dinov2-base", adapter=str(weights))
    assert all(torch.equal(dict(merged.named_parameters())[key], each) for key, each in state.items())
    with pytest.raises(InputError, match="unfreeze: dinov2-base has 3 blocks, got 4"):
        run("more", lora=None, unfreeze=4)
    assert not (tmp_path / "more").exists()


def test_a_run_goes_on_from_an_adapter_of_its_shape(run: Callable[..., Path], tmp_path: Path) -> None:
    weights = run("first", steps=1, average=0)
    run("second", steps=1, start=str(weights), learning_rate=1e-9, average=0)
    a, b = (load_file(tmp_path / name / "weights" / "model.safetensors") for name in ("first", "second"))
    for key, each in a.items():
        torch.testing.assert_close(b[key], each, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match=r"rank=2.* the run .*rank=3"):
        run("third", steps=1, start=str(weights), lora={"rank": 3})


def test_bfloat16_and_a_validation(run: Callable[..., Path], tmp_path: Path) -> None:
    chosen = {"name": "coco", "root": "plain", "split": "val", "options": {"pairs": 2}}
    run("rough", precision="bf16", steps=1, validation={"data": [chosen], "every": 1})
    run("exact", steps=1)
    (rough,), (exact,) = losses(tmp_path / "rough"), losses(tmp_path / "exact")
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.1)
    noted = [line["validation"] for line in log.read(tmp_path / "rough") if "validation" in line]
    assert len(noted) == 1
    assert 0 <= noted[0] <= 1


@pytest.fixture(scope="module")
def adapter(networks: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as a run writes it, of one layer."""
    base = load(networks, "dinov2-base").weights_hash()[:16]
    layer = "model.encoder.layer.0.attention.q_proj"
    tensors = {f"{layer}.lora_A": torch.ones(2, 24), f"{layer}.lora_B": torch.ones(24, 2)}
    folder = tmp_path_factory.mktemp("adapter")
    return Adapter(AdapterShape("dinov2-base", base, 2, 4.0), tensors, {}).save_pretrained(folder)


class TestAdapters:
    def test_the_update_is_alpha_by_rank_times_the_product(self, networks: Weights, adapter: Path) -> None:
        plain, found = (load(networks, "dinov2-base", **each) for each in ({}, {"adapter": str(adapter)}))
        changed = [
            (name, each, value)
            for (name, each), value in zip(plain.named_parameters(), found.parameters(), strict=True)
            if not torch.equal(each, value)
        ]
        ((name, before, after),) = changed
        assert name == "model.encoder.layer.0.attention.q_proj.weight"
        torch.testing.assert_close(after - before, torch.full((24, 24), 4.0))

    @pytest.mark.parametrize(
        ("name", "settings"),
        [("dinov3-base", {}), ("dinov2-base", {"block": 1}), ("dinov2-base", {"positions": "transformers"})],
    )
    def test_of_another_network(
        self, networks: Weights, adapter: Path, name: str, settings: dict[str, Any]
    ) -> None:
        with pytest.raises(InputError, match=rf"was trained on dinov2-base, .* than {name} has here; give"):
            load(networks, name, adapter=str(adapter), **settings)

    @pytest.mark.parametrize("spoil", ["no factor", "another rank", "another width", "another layer"])
    def test_of_other_tensors(self, networks: Weights, adapter: Path, tmp_path: Path, spoil: str) -> None:
        shutil.copytree(adapter, tmp_path / "spoilt")
        file = tmp_path / "spoilt" / "model.safetensors"
        state: dict[str, Tensor] = load_file(file)
        (down, up) = sorted(state)
        if spoil == "no factor":
            del state[down]
        elif spoil == "another rank":
            state |= {down: torch.ones(3, 24), up: torch.ones(24, 3)}
        elif spoil == "another width":
            state[down] = torch.ones(2, 25)
        else:
            state["model.encoder.layer.9.norm1.weight"] = torch.ones(24)
        save_file(state, file)
        with pytest.raises(InputError, match=r"spoilt: model\.encoder\.\S+ fits no parameter of dinov2-base"):
            load(networks, "dinov2-base", adapter=str(tmp_path / "spoilt"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "other"}, "is not the config of a geoaware adapter 1"),
            ({"shape": {"rank": 1}}, "is no shape of an adapter"),
            ({"shape": {"backbone": "a", "base": "b", "alpha": 0}}, "alpha must be positive"),
            ({"shape": {"backbone": "a", "base": "b", "size": 1}}, "unknown setting size"),
        ],
    )
    def test_of_another_config(
        self, networks: Weights, adapter: Path, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        shutil.copytree(adapter, tmp_path / "spoilt")
        path = tmp_path / "spoilt" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(InputError, match=message):
            load(networks, "dinov2-base", adapter=str(tmp_path / "spoilt"))

    def test_of_nothing(self, networks: Weights, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file; give a folder that geoaware tune wrote"):
            load(networks, "dinov2-base", adapter=str(tmp_path))


class TestRefused:
    def test_a_size_that_is_no_multiple_of_the_patch(self, run: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"multiple of 14, the patch of dinov2-base, got 60; .* is 56"):
            run(size=60)
        assert not (tmp_path / "run").exists()

    def test_a_network_that_is_no_transformer(
        self, run: Callable[..., Path], networks: Weights, tmp_path: Path
    ) -> None:
        folder = tiny_dinov3(tmp_path / "convnext", True)
        with pytest.raises(InputError, match="dinov3-convnext-tiny is convolutional, and has no"):
            run(backbone="dinov3-convnext-tiny", backbone_settings={"weights": str(folder), "canvas": 96})

    def test_an_even_window(self, run: Callable[..., Path]) -> None:
        """On a grid of 90 cells it is no whole map."""
        with pytest.raises(InputError, match=r"validation\.window: must be odd, .* map \(90\), got 44"):
            run(backbone_settings__canvas=1260, validation__window=44)

    def test_a_missing_extra(self, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        from geoaware.runs.errors import MissingDependencyError

        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[train\]'"):
            run()


def test_the_same_network_on_another_canvas(networks: Weights) -> None:
    for name, canvas in (("dinov2-base", 112), ("dinov3-base", 128)):
        one, image = load(networks, name), noise(60, 60, 1)
        assert isinstance(one, PatchNetwork)
        other = one.on_canvas(canvas)
        fresh = load(networks, name, canvas=canvas)
        assert torch.equal(other(image).data, fresh(image).data)
        assert other.layout == fresh.layout
        assert all(a is b for a, b in zip(one.parameters(), other.parameters(), strict=True))
        assert torch.equal(one(image).data, load(networks, name)(image).data), "it stays as it is"
