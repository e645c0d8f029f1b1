from __future__ import annotations

import pytest
import torch

from geoaware.method.dense import enlarge, lattice, mesh, read
from tests.reference import dense as slow


@pytest.mark.parametrize(
    ("size", "step", "expected"),
    [
        (1, 4, [0]),
        (2, 4, [0, 1]),
        (5, 4, [0, 4]),
        (6, 4, [0, 2.5, 5]),
        (4, 1, [0, 1, 2, 3]),
        (10, 4, [0, 3, 6, 9]),
    ],
)
def test_a_lattice_covers_both_ends(size: int, step: int, expected: list[float]) -> None:
    assert lattice(size, step).tolist() == expected


def test_a_mesh_is_x_and_y_in_rows() -> None:
    assert mesh(torch.tensor([5, 7, 9]), torch.tensor([1, 2])).tolist() == [
        [[5, 1], [7, 1], [9, 1]],
        [[5, 2], [7, 2], [9, 2]],
    ]


VALUES = torch.tensor([[[0.0, 0.0, 1.0], [10.0, 0.0, 3.0]], [[0.0, 10.0, 5.0], [10.0, 10.0, 7.0]]])


def test_between_near_places_it_is_bilinear() -> None:
    found = read(VALUES, torch.tensor([[0.5, 0.5], [0.25, 0.0], [1.0, 1.0], [-3.0, 0.5]]).double(), jump=10.0)
    expected = [[5, 5, 4], [2.5, 0, 1.5], [10, 10, 7], [0, 5, 3]]
    assert torch.allclose(found, torch.tensor(expected))


def test_across_a_jump_the_nearest_place_is_read() -> None:
    found = read(VALUES, torch.tensor([[0.4, 0.1], [0.6, 0.9]]).double(), jump=9.9)
    assert found.tolist() == [[0, 0, 1], [10, 10, 7]]
    unknown = VALUES.clone()
    unknown[0, 0] = float("nan")
    found = read(unknown, torch.tensor([[0.4, 0.9], [0.1, 0.1]]).double(), jump=99.0)
    assert found[0].tolist() == [0, 10, 5]
    assert found[1].isnan().all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("jump", [0.0, 0.6, 5.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (5, 7)])
def test_fast_equals_slow(seed: int, jump: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(*shape, 4, generator=generator)
    values[torch.rand(shape, generator=generator) < 0.1] = float("nan")
    places = 9 * torch.rand(50, 2, generator=generator, dtype=torch.float64) - 1
    expected = [slow.read(values, x, y, jump) for x, y in places.tolist()]
    found = read(values, places, jump)
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5, equal_nan=True)


def test_enlarged_from_edge_to_edge() -> None:
    found = enlarge(VALUES, 5, 3, jump=10.0)
    assert found[0, :, 0].tolist() == [0, 2.5, 5, 7.5, 10]
    assert found[:, 0, 1].tolist() == [0, 5, 10]
    assert found.shape == (3, 5, 3)


def test_no_place_at_all() -> None:
    assert read(VALUES, torch.empty(0, 2, dtype=torch.float64), 1.0).shape == (0, 3)
