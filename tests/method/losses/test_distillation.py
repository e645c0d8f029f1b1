from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from geoaware.method.losses import distillation_loss
from tests.reference import losses as reference


def maps(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and target, refined (5 channels) and plain (7 channels), on a map of 4 x 3 cells."""
    torch.manual_seed(seed)
    shapes = [(3, 5), (5, 3, 4), (3, 7), (7, 3, 4)]
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in shapes)  # type: ignore[return-value]


def test_two_cells_by_hand() -> None:
    # Plain: cosines 1 and 0 at temperature 1, shares e/(e+1) and 1/(e+1). Refined: both 1, shares a half.
    queries, target = torch.ones(1, 1), torch.ones(1, 1, 2)
    plain_queries = torch.tensor([[1.0, 0.0]])
    plain_target = torch.eye(2)[:, None]
    p = math.e / (math.e + 1)
    wanted = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    found = distillation_loss(queries, target, plain_queries, plain_target, temperature=1.0)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.03, 0.2])
def test_it_equals_plain_loops(temperature: float) -> None:
    found = distillation_loss(*maps(), temperature)
    assert found.item() == pytest.approx(reference.distillation_loss(*maps(), temperature), rel=1e-6)


def test_the_same_similarities_cost_nothing_whatever_the_channels() -> None:
    _, _, queries, target = maps()
    turned = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))[0]
    rotated = torch.einsum("ij,jhw->ihw", turned, target) * 3
    assert distillation_loss(queries @ turned.T, rotated, queries, target).item() == pytest.approx(
        0, abs=1e-9
    )


def test_gradients() -> None:
    queries, target, plain_queries, plain_target = maps(1)
    inputs = (queries.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, t: distillation_loss(q, t, plain_queries, plain_target, 0.2), inputs
    )
    plain_queries.requires_grad_()
    (gradient,) = torch.autograd.grad(
        distillation_loss(*inputs, plain_queries, plain_target), plain_queries, allow_unused=True
    )
    assert gradient is None


def test_no_point_no_loss() -> None:
    queries, target, plain_queries, plain_target = maps()
    empty = queries[:0].requires_grad_()
    found = distillation_loss(empty, target, plain_queries[:0], plain_target)
    assert found.item() == 0
    found.backward()
