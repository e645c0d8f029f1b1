"""Fields of files and options, each kind understood in one way by every reader.

A number may be written as text, an id as ``1.0`` or ``"0001"``. Truth values, NaN and infinity are no
numbers. What cannot be understood is an `InputError` that says where it stands and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from reprlib import Repr
from typing import TYPE_CHECKING, Annotated, Any

from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LARGE = 64
"""Pixels of the longer side from which on points within 0…1 are hardly pixels."""

LARGEST = 2**28
"""Pixels of an image; decoders refuse one of fewer."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: Any) -> str:
    """A value for a message: what is long or deep is cut."""
    return _SHORT.repr(value)


def number(value: Any, where: str) -> float:
    """A finite number."""
    return float(_read("number", value, where, "a number"))


def numbers(values: Any, where: str, count: int, expected: str = "") -> list[float]:
    """So many finite numbers; the very list that was given where they all are numbers."""
    if are_numbers(values) and len(values) == count:
        return list(values) if isinstance(values, tuple) else values
    if not isinstance(values, list | tuple) or len(values) != count:
        raise InputError(f"{where} is {shown(values)}; expected {expected or f'{count} numbers'}")
    return [number(each, f"{where}, number {place}") for place, each in enumerate(values, start=1)]


def has_nan(value: Any) -> bool:
    """Whether NaN or an infinity stands anywhere in a value that was read from JSON."""
    left = [value]
    while left:
        each = left.pop()
        try:
            if isinstance(each, Mapping):
                left += each.values()
            elif isinstance(each, list) and not math.isfinite(math.fsum(each)):
                return True  # as a sum is if one of its numbers is
            elif isinstance(each, float) and not math.isfinite(each):
                return True
        except ValueError:  # of infinities of both signs
            return True
        except (TypeError, OverflowError):  # more than numbers, or very large ones
            left += each
    return False


def are_numbers(values: Any) -> bool:
    """Whether this is a list of finite numbers as they stand, without text."""
    try:
        _adapters()["plain"].validate_python(values)
    except ValueError:
        return False
    return True


def whole(value: Any, where: str) -> int:
    """A whole number."""
    return int(_read("whole", value, where, "a whole number"))


def flag(value: Any, where: str) -> bool:
    """Yes or no, also as a number or as text; nothing is no."""
    return False if value is None else bool(_read("flag", value, where, "0 or 1"))


def size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    """Width and height of an image; ``None`` where one of them is missing or 0."""
    sides = [
        0 if missing(each) else whole(each, f"{where}: {what}")
        for what, each in (("width", width), ("height", height))
    ]
    if min(sides) < 0:
        raise InputError(f"{where}: size {sides[0]}x{sides[1]}; width and height must be above 0")
    if sides[0] * sides[1] > LARGEST:
        raise InputError(f"{where}: size {shown(sides[0])}x{shown(sides[1])}; no image is as large")
    return (sides[0], sides[1]) if all(sides) else None


def missing(value: Any) -> bool:
    """Whether a field is empty: null, empty text, an empty list, NaN, or a list of nothing but these."""
    if isinstance(value, list | tuple):
        return all(each is None or each == "" or each != each for each in value)
    return (
        value is None or value != value or (isinstance(value, str) and value.strip().lower() in ("", "nan"))
    )


def text(value: Any, otherwise: str) -> str:
    """A name, which may be a number, also 0; ``otherwise`` where it is missing."""
    return otherwise if value is None or value == "" else str(value)


def shares(values: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether coordinates on an image look like shares of its width and height, not like pixels."""
    small = max(size) >= _LARGE and all(0 <= each <= 1 for each in values)
    return small and any(each % 1 for each in values)


def padding(point: Any) -> bool:
    """Whether a point of a list only keeps the place: -1 -1, 0 0, or a list of nothing."""
    return point is not None and (missing(point) or point in ([-1, -1], [0, 0]))


def _read(kind: str, value: Any, where: str, expected: str) -> Any:
    try:
        if isinstance(value, bool) and kind != "flag":
            raise ValueError
        return _adapters()[kind].validate_python(value)
    except ValueError:
        raise InputError(f"{where} is {shown(value)}; expected {expected}") from None


@cache
def _adapters() -> Mapping[str, TypeAdapter[Any]]:
    from pydantic import Field, TypeAdapter

    finite = Field(allow_inf_nan=False)
    return {
        "number": TypeAdapter(Annotated[float, finite]),
        "plain": TypeAdapter(list[Annotated[float, finite, Field(strict=True)]]),
        "whole": TypeAdapter(Annotated[int, Field(gt=-(2**63), lt=2**63)]),
        "flag": TypeAdapter(bool),
    }
