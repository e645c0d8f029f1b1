from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from geoaware.runs.errors import InputError, reason


def deep() -> Any:
    return deep()


def missing() -> Any:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")


def own() -> Any:
    raise InputError("the window must be odd")


def long() -> Any:
    raise ValueError("x" * 1000)


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (lambda: b"ab\xff".decode(), "byte 3 is not UTF-8"),
        (lambda: {"a": 1}["kps"], "'kps' is missing"),
        (lambda: {}[(1,) * 100], f"({'1, ' * 19}1…{'1, ' * 6}1) is missing"),
        (
            lambda: json.loads("{"),
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (deep, "nested too deeply"),
        (missing, "No such file or directory"),
        (own, "the window must be odd"),
        (long, f"{'x' * 139}…{'x' * 20}"),
        (lambda: int("1e308"), "a value is of the wrong kind"),
        (lambda: float([]), "a value is of the wrong kind"),  # type: ignore[arg-type]
        (lambda: json.loads("7" * 5000), "a value is of the wrong kind"),
        (lambda: None.shape, "a value is of the wrong kind"),  # type: ignore[attr-defined]
        (lambda: [][3], "a value is of the wrong kind"),
        (lambda: 10**400 / 3, "a value is of the wrong kind"),
    ],
)
def test_a_reason_is_for_people_who_do_not_write_python(fail: Callable[[], Any], said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fail()
    assert reason(caught.value) == said
