"""Maps brought to another resolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from geoaware.method.maps import resized


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("shape", "side"), [((4, 4), 7), ((4, 6), 3), ((6, 6), 1), ((3, 6), 6)])
def test_it_is_the_librarys_to_the_bit(shape: tuple[int, int], side: int, antialias: bool) -> None:
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps, size=(side, side), mode="bilinear", antialias=antialias)
    assert torch.equal(resized(maps, side, antialias), expected)


def test_a_map_that_fits_is_not_copied() -> None:
    maps = torch.randn(1, 2, 5, 5)
    assert resized(maps, 5) is maps


def test_the_corners_of_the_maps_coincide_not_the_centres_of_their_cells() -> None:
    row = torch.tensor([0.0, 8.0]).expand(1, 1, 2, 2)
    assert resized(row, 4)[0, 0, 0].tolist() == [0.0, 2.0, 6.0, 8.0]
