from __future__ import annotations

import pytest

from geoaware.runs.errors import InputError
from geoaware.training.settings import shares_of


@pytest.mark.parametrize(
    ("given", "sizes", "shares"),
    [
        ([None, None, None], [6, 3, 1], [0.6, 0.3, 0.1]),
        ([1.0, 4.0], [6, 3], [0.2, 0.8]),
        ([0.25, 0.75], [6, 3], [0.25, 0.75]),
        ([0.25, None], [9, 1], [0.25, 0.75]),
        ([None, 0.5, None], [1, 9, 3], [0.125, 0.5, 0.375]),
        ([3.0], [2], [1.0]),
        ([None], [2], [1.0]),
    ],
)
def test_shares(given: list[float | None], sizes: list[int], shares: list[float]) -> None:
    """Data sets without a share divide what the others leave, by their sizes."""
    assert shares_of(given, sizes) == pytest.approx(shares)


@pytest.mark.parametrize("given", [[1.0, None], [0.7, None, 0.5]])
def test_nothing_is_left(given: list[float | None]) -> None:
    with pytest.raises(InputError, match=r"add up to 1(\.2)? and leave nothing to the data sets without one"):
        shares_of(given, [5] * len(given))
