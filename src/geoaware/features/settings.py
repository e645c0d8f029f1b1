"""Settings of extractors: unknown keys are errors that list the valid ones."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, TypeVar

from geoaware.runs.errors import InputError

T = TypeVar("T")


def make_settings(kind: type[T], name: str, given: dict[str, Any]) -> T:
    """Build a settings dataclass from keyword arguments.

    Raises:
        InputError: a key that the class does not have; the message lists those it has.
    """
    valid = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(valid))
    if unknown:
        raise InputError(f"{name} has no setting {', '.join(unknown)}; it has: {', '.join(valid)}")
    return kind(**given)


def describe(name: str, settings: Any) -> str:
    """Name and settings as one string, the identity of the features: ``name(canvas=320, ...)``."""
    inside = ", ".join(f"{key}={value}" for key, value in asdict(settings).items() if value is not None)
    return f"{name}({inside})"
