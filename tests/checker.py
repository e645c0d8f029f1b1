"""The type checks of the tests: shapes by jaxtyping, all else by beartype.

jaxtyping's own decorator compiles two functions for each one as it is loaded, and binds and checks the
arguments of every call twice, which took a third of the suite's time. `jaxtyped` checks the same by one
function, which is made when it is first called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import CodeType, FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
"""An int is accepted where a float is asked for, as mypy does; what is wrong is a `TypeError`."""

_slow = jaxtyping.jaxtyped
_known: dict[int, tuple[CodeType, dict[str, Any]]] = {}
"""What the hints of functions stand for, by the identity of their code: a function inside another one is made
again and again, and dataclasses whose fields have the same names are made by code that is equal."""


def install() -> None:
    """Check every function of the package that is loaded from now on."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook("geoaware", "tests.checker.check")


def jaxtyped(made: Any = None, *, typechecker: Any) -> Any:
    """Takes the place of `jaxtyping.jaxtyped`, which the import hook writes above functions and classes."""
    if made is None:
        return partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(made):
        # What a dataclass is made with; any other function of a class has the decorator of its own.
        begin = vars(made).get("__init__")
        if hasattr(made, "__dataclass_fields__") and begin is not None and not hasattr(begin, "__wrapped__"):
            made.__init__ = jaxtyped(begin, typechecker=typechecker)
        return made
    if inspect.isgeneratorfunction(made):
        return _slow(made, typechecker=typechecker)
    return _checked(made)


def _checked(function: FunctionType) -> Callable[..., Any]:
    code = function.__code__
    if id(code) not in _known:
        _known[id(code)] = code, dict(_resolved(function))
    hints = _known[id(code)][1]
    if not hints:
        return function
    shaped = any(map(_has_shapes, hints.values()))
    checking: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checking
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if checking is None:
            checking = function  # beartype itself may come here, by what the package does at an import
            checking = check(_with_hints(function, hints))
        if not shaped:
            return checking(*args, **kwargs)
        with _slow("context"):  # in which a letter stands for one length
            return checking(*args, **kwargs)

    return call


def _resolved(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The hints as types; of names that are for type checkers only nothing can be known."""
    for name, hint in function.__annotations__.items():
        holder = type("Holder", (), {"__annotations__": {"value": hint}})
        try:
            yield name, get_type_hints(holder, function.__globals__, include_extras=True)["value"]
        except Exception:
            yield name, Any


def _has_shapes(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shapes, hint if isinstance(hint, list) else get_args(hint)))


def _with_hints(function: FunctionType, hints: dict[str, Any]) -> FunctionType:
    code, name, closure = function.__code__, function.__name__, function.__closure__
    same = FunctionType(code, function.__globals__, name, function.__defaults__, closure)
    same.__kwdefaults__, same.__annotations__ = function.__kwdefaults__, hints
    same.__qualname__, same.__module__ = function.__qualname__, function.__module__
    return same
