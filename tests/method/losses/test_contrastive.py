from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoaware.method.losses import contrastive_loss
from tests.reference import losses as slow


def ends(seed: int, k: int, c: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(k, c, generator=generator, dtype=dtype),
        torch.randn(k, c, generator=generator, dtype=dtype),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.floats(-2, 4))
def test_fast_equals_slow(seed: int, k: int, logit_scale: float) -> None:
    source, target = ends(seed, k, dtype=torch.float64)
    expected = slow.contrastive_loss(source, target, logit_scale)
    scale = torch.tensor(logit_scale, dtype=torch.float64)
    assert contrastive_loss(source, target, scale).item() == pytest.approx(expected, abs=1e-9)
    single = contrastive_loss(source.float(), target.float(), logit_scale)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, abs=1e-4)


def test_by_hand() -> None:
    """Two orthogonal keypoints, factor 3: each choice has logits 3 and 0."""
    points, scale = torch.eye(2), math.log(3)
    right = -math.log(math.exp(3) / (math.exp(3) + 1))
    wrong = -math.log(1 / (math.exp(3) + 1))
    assert contrastive_loss(points, points, scale).item() == pytest.approx(right, rel=1e-5)
    assert contrastive_loss(points, points.flip(0), scale).item() == pytest.approx(wrong, rel=1e-5)


def test_the_two_directions_count_alike() -> None:
    """Logits 1, 1 / 0, 0: a source sees two equal targets, a target sees one near and one far source."""
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[2.0, 0.0], [5.0, 0.0]])
    forth = math.log(2)
    back = (math.log(math.e + 1) - 1 + math.log(math.e + 1)) / 2
    assert contrastive_loss(source, target, 0.0).item() == pytest.approx((forth + back) / 2, rel=1e-6)


@pytest.mark.parametrize("k", [2, 5, 30])
def test_equal_descriptors_are_a_guess(k: int) -> None:
    same = torch.ones(k, 4)
    assert contrastive_loss(same, same, 2.0).item() == pytest.approx(math.log(k), rel=1e-5)


def test_lengths_do_not_matter() -> None:
    source, target = ends(1, 6)
    lengths = torch.linspace(0.1, 90, 6)[:, None]
    torch.testing.assert_close(
        contrastive_loss(source * lengths, target / lengths, 2.0), contrastive_loss(source, target, 2.0)
    )


@pytest.mark.parametrize("k", [0, 1])
def test_nothing_to_tell_apart(k: int) -> None:
    source, target = (each.requires_grad_() for each in ends(2, k))
    loss = contrastive_loss(source, target, torch.tensor(2.0, requires_grad=True))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(source.grad, torch.zeros(k, 5))
    assert torch.equal(target.grad, torch.zeros(k, 5))


def test_gradients() -> None:
    source, target = (each.requires_grad_() for each in ends(3, 4, dtype=torch.float64))
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_loss, (source, target, scale))


def test_gradient_at_a_zero_descriptor_is_finite() -> None:
    source, target = ends(4, 3)
    source[1] = 0
    source.requires_grad_()
    contrastive_loss(source, target, 2.0).backward()
    assert source.grad.isfinite().all()


@pytest.mark.usefixtures("unchecked_types")
def test_sides_must_agree() -> None:
    with pytest.raises(ValueError, match=r"source \(3, 4\) and target \(2, 4\) differ in shape"):
        contrastive_loss(torch.ones(3, 4), torch.ones(2, 4), 0.0)
