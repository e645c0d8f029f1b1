"""FreeU's factors by channel count, against Fourier transforms of the whole map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoaware.features.freeu import FreeU, Strength, scale_low_frequencies
from geoaware.runs.errors import InputError
from tests.reference.freeu import fourier_filter
from tests.reference.freeu import freeu as slow_freeu


@given(st.integers(2, 33), st.integers(2, 33), st.floats(0, 2), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_low_frequencies_equal_those_of_the_fourier_transform(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    x = torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(scale_low_frequencies(x, scale), fourier_filter(x, scale), atol=1e-5, rtol=0)


def test_a_constant_map_is_scaled_and_a_checkerboard_is_not() -> None:
    constant = torch.full((1, 1, 8, 8), 3.0)
    torch.testing.assert_close(scale_low_frequencies(constant, 0.2), torch.full((1, 1, 8, 8), 0.6))
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    torch.testing.assert_close(scale_low_frequencies(board[None, None], 0.2), board[None, None])


def test_bf16_is_filtered_in_float32_and_stays_bf16() -> None:
    x = torch.randn(1, 2, 15, 15).bfloat16()
    found = scale_low_frequencies(x, 0.9)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, scale_low_frequencies(x.float(), 0.9).bfloat16())


def test_the_factors_of_stable_diffusion() -> None:
    freeu = FreeU.of_widths((320, 640, 1280, 1280))
    assert freeu.strengths == {1280: Strength(1.2, 0.9), 640: Strength(1.4, 0.2)}
    ones = torch.ones(1, 1280, 4, 4)
    scaled = freeu.amplify(ones)
    assert torch.equal(scaled[:, :640], torch.full((1, 640, 4, 4), 1.2))
    assert torch.equal(scaled[:, 640:], ones[:, 640:])
    assert torch.equal(ones, torch.ones_like(ones))
    second = freeu.amplify(torch.ones(1, 640, 4, 4))
    assert torch.equal(second[0, :, 0, 0], torch.tensor([1.4] * 320 + [1.0] * 320))


@pytest.mark.parametrize("width", [128, 64, 32])
def test_both_parts_equal_the_slow_form(width: int) -> None:
    freeu = FreeU.of_widths((32, 64, 128, 128))
    hidden, skip = torch.randn(2, width, 15, 15), torch.randn(2, 20, 15, 15)
    found = freeu.amplify(hidden), freeu.damp(skip, width)
    expected = slow_freeu(hidden.clone(), skip, (128, 64))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(found[1], skip) == (width == 32)


def test_no_widths_change_nothing() -> None:
    x = torch.randn(1, 1280, 4, 4)
    assert torch.equal(FreeU({}).amplify(x), x)
    assert torch.equal(FreeU({}).damp(x, 1280), x)


def test_a_network_of_one_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"two widths, got \(64, 64\)"):
        FreeU.of_widths((64, 64))
