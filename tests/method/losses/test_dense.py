from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoaware.method.geometry import Canvas
from geoaware.method.losses import dense_errors, dense_loss
from geoaware.method.matching import read_descriptors
from tests.reference import losses as slow


def pair(
    seed: int, k: int = 4, c: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maps of different sizes, and keypoints, some of them a little outside."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(c, 6, 8, generator=generator, dtype=dtype)
    target = torch.randn(c, 7, 5, generator=generator, dtype=dtype)
    source_xy = torch.rand(k, 2, generator=generator, dtype=dtype) * torch.tensor([9.0, 7.0]) - 1
    target_xy = torch.rand(k, 2, generator=generator, dtype=dtype) * torch.tensor([5.0, 7.0])
    return source, target, source_xy.to(dtype), target_xy.to(dtype)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 4),
    st.sampled_from([None, 1, 3, 5]),
    st.sampled_from([0.02, 0.3]),
)
def test_fast_equals_slow(seed: int, k: int, window: int | None, temperature: float) -> None:
    case = pair(seed, k)
    expected = slow.dense_loss(*case, temperature, window)
    found = dense_loss(*case, temperature, window=window)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, abs=1e-9)
    errors = dense_errors(read_descriptors(case[0], case[2]), case[1], case[3], temperature, window)
    assert errors.tolist() == pytest.approx(slow.dense_errors(*case, temperature, window), abs=1e-9)


def test_in_single_precision() -> None:
    case = pair(5, k=6)
    found = dense_loss(*(each.float() for each in case))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(slow.dense_loss(*case, 0.02), abs=1e-4)
    # Positions often come in float64 beside maps in float32.
    mixed = dense_loss(case[0].float(), case[1].float(), case[2], case[3])
    torch.testing.assert_close(mixed, found)


def one_hot_map(side: int = 3) -> Tensor:
    """A map whose cells are orthogonal: each is like itself (1) and unlike all others (0)."""
    return torch.eye(side * side).reshape(side * side, side, side)


def test_by_hand() -> None:
    """Cell (0, 0) has weight e^2 against eight ones; the columns x = 1, 2 hold three of these each."""
    cells = one_hot_map()
    away = (3 * 1 + 3 * 2) / (math.exp(2) + 8)
    corner = torch.zeros(1, 2)
    found = dense_loss(cells, cells, corner, corner, temperature=0.5)
    assert found.item() == pytest.approx(math.hypot(away, away), rel=1e-5)
    # From there to (3, 4), a truth that may lie anywhere.
    truth = torch.tensor([[away + 3, away + 4]])
    assert dense_loss(cells, cells, corner, truth, temperature=0.5).item() == pytest.approx(5, rel=1e-5)


def test_window_by_hand() -> None:
    """The 3 x 3 window around the corner holds four cells: weight e^2 and three ones."""
    cells, corner = one_hot_map(side=5), torch.zeros(1, 2)
    away = 2 / (math.exp(2) + 3)
    found = dense_loss(cells, cells, corner, corner, temperature=0.5, window=3)
    assert found.item() == pytest.approx(math.hypot(away, away), rel=1e-5)
    exact = dense_loss(cells, cells, corner, torch.tensor([[3.0, 4.0]]), window=1)
    assert exact.item() == pytest.approx(5)


def test_window_as_wide_as_the_map_is_the_whole_map() -> None:
    case = pair(5)
    torch.testing.assert_close(dense_loss(*case, window=7), dense_loss(*case))


@pytest.mark.parametrize("window", [None, 3])
def test_no_keypoints(window: int | None) -> None:
    source, target, source_xy, target_xy = pair(1, k=0)
    source.requires_grad_()
    loss = dense_loss(source, target, source_xy, target_xy, noise_std=1.0, window=window)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(source.grad, torch.zeros_like(source))


def test_one_keypoint() -> None:
    case = pair(2, k=1)
    assert dense_loss(*case).item() == pytest.approx(slow.dense_errors(*case, 0.02)[0], abs=1e-9)


def test_noise_moves_the_truth() -> None:
    case = pair(3)
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    found = dense_loss(*case, noise_std=0.7, generator=torch.Generator().manual_seed(11))
    assert found.item() == pytest.approx(slow.dense_loss(*case, 0.02, noise=0.7 * noise), abs=1e-9)
    assert found.item() != pytest.approx(dense_loss(*case).item(), abs=1e-3)


def test_without_noise_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(11)
    before = generator.get_state()
    dense_loss(*pair(3), generator=generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("layout", ["rows", "channels last", "strided"])
@pytest.mark.parametrize("k", [4, 70])  # matching takes another product for many queries
def test_gradients(window: int | None, layout: str, k: int) -> None:
    source, target, source_xy, target_xy = pair(4, k, c=3)

    def laid_out(x: Tensor) -> Tensor:
        if layout == "channels last":
            return x[None].contiguous(memory_format=torch.channels_last)[0]
        return torch.stack([x, x], dim=-1)[..., 0] if layout == "strided" else x

    def loss(source: Tensor, target: Tensor) -> Tensor:
        maps = laid_out(source), laid_out(target)
        return dense_loss(*maps, source_xy, target_xy, temperature=0.5, window=window)

    maps = source.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(loss, maps, fast_mode=True)
    expected = slow.dense_loss(source.detach(), target.detach(), source_xy, target_xy, 0.5, window)
    assert loss(*maps).item() == pytest.approx(expected, abs=1e-9)


def test_gradient_in_full() -> None:
    """Each entry of the Jacobian, not only random projections of it."""
    source, target, source_xy, target_xy = pair(6, k=2, c=2)

    def loss(source: Tensor, target: Tensor) -> Tensor:
        return dense_loss(source, target, source_xy, target_xy, temperature=0.5)

    assert torch.autograd.gradcheck(loss, (source.requires_grad_(), target.requires_grad_()))


def test_a_perfect_match_pulls_nowhere() -> None:
    cells = one_hot_map().requires_grad_()
    xy = torch.tensor([[1.0, 2.0]])
    loss = dense_loss(cells, cells, xy, xy, window=1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(cells.grad, torch.zeros_like(cells))


def test_gradient_beside_zero_descriptors_is_finite() -> None:
    """ReLU can make a cell all zeros: the square root of its length has no slope there."""
    source, target, source_xy, target_xy = pair(8)
    target[:, 2, 3] = 0
    source[:, 0, 0] = 0
    source_xy[0] = 0
    source.requires_grad_()
    target.requires_grad_()
    dense_loss(source, target, source_xy, target_xy).backward()
    assert source.grad.isfinite().all()
    assert target.grad.isfinite().all()
    assert target.grad.abs().sum() > 0


def test_a_step_down_the_gradient_brings_them_nearer() -> None:
    source, target, source_xy, target_xy = pair(9)
    source.requires_grad_()
    target.requires_grad_()
    before = dense_loss(source, target, source_xy, target_xy, temperature=0.3)
    before.backward()
    with torch.no_grad():
        after = dense_loss(
            source - 0.1 * source.grad, target - 0.1 * target.grad, source_xy, target_xy, temperature=0.3
        )
    assert after < before


def test_descriptors_are_read_at_the_nearest_cell() -> None:
    """A map of 2 rows and 4 columns whose one channel numbers its cells."""
    cells = torch.arange(8.0).reshape(1, 2, 4)
    xy = torch.tensor(
        [[0.0, 0.0], [0.49, 0.0], [0.5, 0.0], [2.6, 0.51], [-0.5, 0.0], [-7.0, -7.0], [9.0, 9.0]]
    )
    assert read_descriptors(cells, xy).tolist() == [[0], [0], [1], [7], [0], [0], [7]]
    assert read_descriptors(cells, torch.zeros(0, 2)).shape == (0, 1)


def test_reading_adds_gradients_of_the_same_cell() -> None:
    cells = torch.zeros(2, 2, 2, requires_grad=True)
    read_descriptors(cells, torch.tensor([[0.2, 0.9], [0.0, 1.0], [1.0, 0.0]])).sum().backward()
    expected = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).expand(2, 2, 2)
    assert torch.equal(cells.grad, expected)


def test_reads_the_cells_that_matching_reads() -> None:
    """On the paper's canvas and grid, training and matching take the same cell for every point."""
    canvas, grid = Canvas(840, 840, 840), 60
    along = torch.arange(0, 840, 0.25, dtype=torch.float64)
    points = torch.stack([along, along.flip(0)], dim=-1)
    cells = torch.arange(grid * grid, dtype=torch.float64).reshape(1, grid, grid)
    column, row = canvas.patch(points, grid).unbind(-1)
    assert torch.equal(read_descriptors(cells, canvas.to_grid(points, grid))[:, 0], cells[0, row, column])
