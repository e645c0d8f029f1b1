from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geoaware import data
from geoaware.features.efficientnet_lite import imagenet_network
from geoaware.features.one import READ, OneNetwork
from geoaware.features.tuned import TunedShape
from geoaware.training.backbone.crops import write_crops
from geoaware.training.backbone.mixed_run import (
    CHECKPOINT,
    Drawing,
    MixedConfig,
    fit_reading,
    normalised,
    read_vocabulary,
    towards_imagenet,
    train,
    write_vocabulary,
)
from geoaware.training.backbone.vocabulary import Vocabulary
from tests.training.tiny import draw_data

pytest.importorskip("efficientnet_lite_pytorch")
PLAIN = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of drawn faces, three whole images with descriptors, and a small untrained network."""
    place = tmp_path_factory.mktemp("mixed")
    faces = data.load("coco", draw_data(place / "faces"), "train", pairs="all")
    vocabulary = Vocabulary.of(faces.schemas[each] for each in sorted(faces.schemas))
    write_crops(faces, vocabulary, place / "crops" / "faces")
    write_vocabulary(vocabulary, place / "crops" / "vocabulary.json")
    assert read_vocabulary(place / "crops" / "vocabulary.json") == vocabulary
    whole = place / "plain"
    whole.mkdir()
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    np.save(whole / "pixels.npy", blocks.repeat(16, axis=1).repeat(16, axis=2))
    # Descriptors that follow from the pixels, so that they can be read.
    maps = blocks.transpose(0, 3, 1, 2).astype(np.float16) / 255 - 0.5
    np.save(whole / "maps.npy", np.concatenate([maps, maps[:, ::-1] ** 2], axis=1))
    inside = np.array([[0, 28, 0, 28]] * 3, np.int16)
    np.savez(whole / "about.npz", insides=inside, unlabelled=2)
    names = ["unlabelled/n03791053_motor.jpg", "unlabelled/n03791054_b.jpg", "c.jpg"]
    (whole / "paths.json").write_text(json.dumps(names), encoding="utf-8")
    torch.manual_seed(0)
    shape = TunedShape(descriptor=8, width=16, context=(1,), detail=1, plain=PLAIN)
    OneNetwork(shape, imagenet_network(weights=False)).save_pretrained(place / "start")
    return place


@pytest.fixture
def config(folder: Path) -> MixedConfig:
    return MixedConfig(
        crops=str(folder / "crops"),
        plain=str(folder / "plain"),
        shares={"faces": (3, 1)},
        windows=2,
        unlabelled=1,
        size=64,
        points=5,
        warmup=2,
    )


def states(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / CHECKPOINT, weights_only=True)["learner"]  # type: ignore[no-any-return]


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    config: MixedConfig, folder: Path, tmp_path: Path
) -> None:
    start = str(folder / "start")
    train(config, tmp_path / "whole", start=start, channels=PLAIN, steps=4, say=lambda _: None)
    said: list[str] = []
    for _ in range(2):
        train(config, tmp_path / "parts", start=start, channels=PLAIN, steps=2, say=said.append)
    assert said == ["going on at step 2"]
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert OneNetwork.from_pretrained(tmp_path / "parts" / "weights").info["steps"] == 4


def test_fixed_blocks_and_statistics_stay_and_the_rest_moves(
    config: MixedConfig, folder: Path, tmp_path: Path
) -> None:
    train(config, tmp_path, start=str(folder / "start"), channels=PLAIN, steps=3, say=lambda _: None)
    before = OneNetwork.from_pretrained(folder / "start").state_dict()
    after = {
        name.removeprefix("network."): value
        for name, value in states(tmp_path).items()
        if name.startswith("network.")
    }
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not any("running" in name or name.startswith(("stem", "blocks.0.", "blocks.2.")) for name in moved)
    assert {"gate", "out.weight"} <= moved
    # The plain way out stays as it was fitted, unless it is asked for.
    assert not moved & {"correction.weight", "reading.15.weight"}
    asked = MixedConfig(**{**vars(config), "reading": True})
    place = tmp_path / "asked"
    train(asked, place, start=str(folder / "start"), channels=PLAIN, steps=2, say=lambda _: None)
    for name in ("correction.weight", "reading.15.weight"):
        assert not torch.equal(states(place)[f"network.{name}"], before[name])
    assert any(name.startswith("blocks.3.") for name in moved)


def test_cooling_gives_weights_and_leaves_the_checkpoint(
    config: MixedConfig, folder: Path, tmp_path: Path
) -> None:
    start = str(folder / "start")
    train(config, tmp_path, start=start, channels=PLAIN, steps=1, say=lambda _: None)
    before = states(tmp_path)
    train(config, tmp_path, start=start, channels=PLAIN, cooling=2, say=lambda _: None)
    after = states(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert OneNetwork.from_pretrained(tmp_path / "cooled").info == {"steps": 3, "views": 18, "cooled": 2}


def test_a_category_that_is_left_out_is_never_shown(config: MixedConfig) -> None:
    drawing = Drawing(MixedConfig(**{**vars(config), "without": ("fox",)}))
    crops = drawing._left(drawing.sets["faces"])
    assert crops.categories == ("cat",)
    assert set(crops.category.tolist()) == {-1, 0}
    assert (crops.category == 0).sum() == (drawing.sets["faces"].category == 0).sum()
    drawing.step(0)


@torch.inference_mode()
def test_reading_is_the_ridge_regression_onto_the_wanted_descriptors(
    config: MixedConfig, folder: Path
) -> None:
    network = OneNetwork.from_pretrained(folder / "start")
    plain = Drawing(config).plain
    explained = fit_reading(network, plain, cells=200)
    assert 0.2 < explained <= 1
    pixels = torch.from_numpy(plain.pixels[0].copy()).permute(2, 0, 1)[None].float() / 255
    levels = network._levels(normalised(pixels), lambda maps: maps)[1]
    assert set(levels) == {str(each) for each in READ}
    found = network.parts(normalised(pixels))[1][0]
    wanted = torch.nn.functional.normalize(torch.from_numpy(plain.maps[0].astype("float32")), dim=0)
    found = torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(found, 2), dim=0)
    other = torch.nn.functional.normalize(torch.from_numpy(plain.maps[1].astype("float32")), dim=0)
    assert float((found * wanted).sum(dim=0).mean()) > float((found * other).sum(dim=0).mean()) + 0.1


def test_the_backbone_moves_part_of_the_way_to_imagenet_and_nothing_else(folder: Path) -> None:
    network = OneNetwork.from_pretrained(folder / "start")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    there = imagenet_network().state_dict()
    towards_imagenet(network, 0.75)
    after = network.state_dict()
    found, wanted = after["blocks.3._project_conv.weight"], there["_blocks.3._project_conv.weight"]
    torch.testing.assert_close(found, 0.75 * before["blocks.3._project_conv.weight"] + 0.25 * wanted)
    assert all(
        torch.equal(after[name], value)
        for name, value in before.items()
        if not name.startswith(("stem", "blocks"))
    )
