"""Fusion: the formula of the paper, any two extractors, settings of the parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.features import check_name, load_extractor
from geoaware.features.extractor import Extractor, Layout
from geoaware.features.fused import Fused
from geoaware.method.geometry import Canvas
from geoaware.runs.errors import InputError
from geoaware.studies.tiny_networks import tiny_dinov2, tiny_stable_diffusion
from tests.toys import Patches, noise


class Colours(Extractor):
    """Two raw maps: mean colours of a 6 x 6 and a 3 x 3 grid; not normalised."""

    def __init__(self, name: str = "colours", size: int = 60) -> None:
        super().__init__(name, f"{name}({size})", Layout(size, 6, 6))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.adaptive_avg_pool2d(pixels * self.scale, side) for side in (6, 3))

    def combine(self, levels: list[Tensor], grid: int | None = None) -> Tensor:
        assert grid in (None, 6)
        return torch.cat([levels[0], F.interpolate(levels[1], size=(6, 6))], dim=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "sd15.weights": str(tiny_stable_diffusion(folder / "sd15")),
        "dinov2-base.weights": str(tiny_dinov2(folder / "dino", registers=False)),
    }


def test_the_fusion_of_the_paper(parts: dict[str, str]) -> None:
    fused = load_extractor("sd15+dinov2-base", device="cpu", **parts)  # type: ignore[arg-type]
    assert (fused.layout.size, fused.layout.grid, fused.layout.channels) == (840, 60, 320 + 24)
    image = noise(120, 90, 1)
    found = fused(image)
    assert found.canvas == Canvas(120, 90, 840)
    shapes = [tuple(level.shape) for level in found.levels]
    assert shapes == [(64, 60, 60), (128, 30, 30), (128, 15, 15), (24, 60, 60)]
    s3, s4, s5, dino = (level.numpy().astype(np.float64) for level in found.levels)
    upsampled = [
        F.interpolate(torch.from_numpy(each)[None], size=(60, 60), mode="bilinear", align_corners=False)[
            0
        ].numpy()
        for each in (s4, s5)
    ]
    diffusion = np.concatenate([s3, *upsampled])
    unit = [each / np.linalg.norm(each, axis=0) for each in (diffusion, dino)]
    expected = np.concatenate(unit) / np.sqrt(2)
    np.testing.assert_allclose(found.data.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(found.data.norm(dim=0), torch.ones(60, 60))
    for part, levels in (("sd15", found.levels[:3]), ("dinov2-base", found.levels[3:])):
        alone = load_extractor(part, device="cpu", weights=parts[f"{part}.weights"])(image)
        assert alone.extractor in fused.identity
        for mine, theirs in zip(levels, alone.levels, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_maps_read_from_disk_give_the_same_descriptors(parts: dict[str, str]) -> None:
    name = "efficientnet-lite0+dinov2-base"
    own = {"dinov2-base.weights": parts["dinov2-base.weights"], "dinov2-base.canvas": 84}
    extractor = load_extractor(name, device="cpu", **own)  # type: ignore[arg-type]
    found = extractor(noise(70, 50, 2))
    again = load_extractor(name, device="cpu", **own).feature_map(found.levels, (70, 50))  # type: ignore[arg-type]
    assert torch.equal(again.data, found.data)
    assert again.canvas == found.canvas == Canvas(70, 50, 448)
    assert (extractor.layout.grid, found.data.shape[0]) == (48, 1008 + 24)


def test_grids_of_different_sizes_and_canvases() -> None:
    fused = Fused([Colours(), Patches()])
    found = fused(noise(90, 40, 3))
    assert fused.layout.size == 117
    assert fused.layout.grid == 13
    colours, patches = Colours()(noise(90, 40, 3)), Patches()(noise(90, 40, 3))
    enlarged = F.interpolate(colours.data[None], size=(13, 13), mode="bilinear", align_corners=False)[0]
    expected = torch.cat([F.normalize(enlarged, dim=0), F.normalize(patches.data, dim=0)])
    torch.testing.assert_close(found.data, F.normalize(expected, dim=0))
    assert [tuple(level.shape) for level in found.levels] == [(3, 6, 6), (3, 3, 3), (18, 13, 13)]


def test_of_equal_grids_the_smaller_canvas_counts_whatever_the_order() -> None:
    for order in (("large", "small"), ("small", "large")):
        sizes = {"large": 120, "small": 60}
        assert Fused([Colours(name, sizes[name]) for name in order]).layout.size == 60


def test_a_canvas_given_as_a_tensor_goes_to_all_parts() -> None:
    fused = Fused([Colours("a"), Colours("b", 120)])
    plain = torch.rand(1, 3, 60, 60)
    normalised = (plain - fused.mean) / fused.std
    levels = fused.levels(normalised)
    torch.testing.assert_close(levels[0], Colours().levels(normalised)[0])
    torch.testing.assert_close(levels[3], levels[1], atol=0.2, rtol=0)
    assert fused(normalised_image(plain)).data.shape == fused.forward(normalised)[0].shape


def normalised_image(plain: Tensor) -> np.ndarray:
    return plain[0].permute(1, 2, 0).numpy()


@pytest.mark.usefixtures("unchecked_types")
def test_raw_maps_of_another_extractor_are_refused() -> None:
    fused = Fused([Colours(), Patches()])
    with pytest.raises(InputError, match=r"channels are not those of colours\+patches, whose parts have"):
        fused.combine([torch.ones(1, 3, 6, 6), torch.ones(1, 18, 13, 13)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sd15+dinov3", r"unknown extractor 'dinov3' in 'sd15\+dinov3'; known: efficientnet-lite0"),
        ("sd15+", "unknown extractor ''"),
        ("dinov2-base+dinov2-base", "two or more different extractors"),
    ],
)
def test_names_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_name(name)
    with pytest.raises(InputError, match=message):
        load_extractor(name, device="cpu")


@pytest.mark.parametrize("key", ["canvas", "sd15.canvas", "dinov2-base"])
def test_settings_must_name_a_part(key: str) -> None:
    with pytest.raises(InputError, match=f"no setting {key}; .* efficientnet-lite0.SETTING or dinov2-base.S"):
        load_extractor("efficientnet-lite0+dinov2-base", device="cpu", **{key: 84})  # type: ignore[arg-type]


def test_a_wrong_setting_of_a_part_lists_the_right_ones() -> None:
    with pytest.raises(InputError, match=r"dinov2-base has no setting colour; it has: .*canvas"):
        load_extractor("efficientnet-lite0+dinov2-base", device="cpu", **{"dinov2-base.colour": 1})  # type: ignore[arg-type]


def test_moving_a_fusion_moves_its_parts(parts: dict[str, str]) -> None:
    own = {"dinov2-base.weights": parts["dinov2-base.weights"], "dinov2-base.canvas": 84}
    extractor = load_extractor("efficientnet-lite0+dinov2-base", device="cpu", dtype="bf16", **own)  # type: ignore[arg-type]
    assert {each.dtype for each in extractor.parameters()} == {torch.bfloat16}
    assert extractor(noise(50, 50, 4)).data.dtype == torch.float32
    assert not Path(extractor.name).suffix
