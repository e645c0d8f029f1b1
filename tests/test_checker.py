"""The type checks of the tests find what they are there for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from geoaware.data.sampling import draw
from geoaware.method.matching import MatchSettings
from tests.checker import check, jaxtyped

if TYPE_CHECKING:
    from tests.nowhere import Unknown

checked = jaxtyped(typechecker=check)


@checked
def product(a: Float[Tensor, "n k"], b: Float[Tensor, "k m"], scale: float = 1.0) -> Float[Tensor, "n m"]:
    return (a @ b).T if scale == 0 else a @ b * scale


@checked
def plain(count: int, *names: str, last: list[int] | None = None) -> str:
    return count if last else "".join(names)  # type: ignore[return-value]


@checked
def unknown(value: Unknown, count: int) -> int:
    return count


@checked
@dataclass(frozen=True)
class Held:
    points: Float[Tensor, "n 2"]
    weights: Float[Tensor, " n"]
    name: str = ""


@checked
@dataclass(frozen=True)
class Other:
    points: str
    weights: int
    name: str = ""


@checked
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (product, (torch.ones(2, 3), torch.ones(4, 5))),  # one letter, two lengths
        (product, (torch.ones(2, 3), torch.ones(3, 4), 0)),  # the result has another shape
        (product, (torch.ones(2, 3), torch.ones(3))),
        (product, (torch.ones(2, 3).int(), torch.ones(3, 4))),
        (product, (torch.ones(2, 3), torch.ones(3, 4), "1")),
        (plain, (1.5,)),
        (plain, (1, "a", 2)),
        (unknown, (object(), "1")),
        (Held, (torch.ones(2, 2), torch.ones(3))),
        (Held, (torch.ones(2, 2), torch.ones(2), 3)),
        (Other, ("points", "weights")),
        (numbers, ("1",)),
        (draw, (3, "1", "key")),  # of the package, by the hook
        (MatchSettings, ("3",)),
    ],
)
def test_what_is_wrong_is_found(call: Any, given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeCheckError):
        call(*given)


def test_also_among_what_is_given_by_name_and_comes_back() -> None:
    with pytest.raises(TypeCheckError):
        plain(1, last=["a"])  # type: ignore[list-item]
    with pytest.raises(TypeCheckError):
        plain(1, last=[1])


def test_also_in_a_function_that_is_made_again_and_again() -> None:
    for number in range(3):

        @checked
        def inner(value: int, added: int = number) -> int:
            return value + added

        assert inner(1) == 1 + number, "each has what it was made with"
        with pytest.raises(TypeCheckError):
            inner("1")


def test_what_is_right_passes() -> None:
    assert product(torch.ones(2, 3), torch.ones(3, 4), 2).shape == (2, 4)  # an int for a float
    assert product(torch.ones(1, 5), torch.ones(5, 1)).shape == (1, 1), "the letters are free again"
    assert plain(1, "a", "b") == "ab"
    assert unknown(object(), 3) == 3
    assert Held(torch.ones(2, 2), torch.ones(2)).name == ""
    assert Other("points", 1).weights == 1, "its fields are named as those of another class"
    assert list(numbers(2)) == [0, 1]


@pytest.mark.usefixtures("unchecked_types")
def test_nothing_is_checked_where_a_test_wants_the_librarys_own_words() -> None:
    assert plain(1.5, "a") == "a"  # type: ignore[arg-type]
    assert Held("no points", torch.ones(3)).points == "no points"  # type: ignore[arg-type]
