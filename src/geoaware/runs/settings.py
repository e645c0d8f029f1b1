"""Settings from YAML files: checked by a class, changed by dotted key, also under the names of before.

A settings class is a frozen pydantic model whose defaults are the usual values; a file states only what
differs. Values given by dotted key (``loss.window``, ``stages.0.steps``) go before the file's. Values for a
plain dataclass of settings are checked in the same way (`checked`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from geoaware.runs.errors import InputError, quoted, reason

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Model = TypeVar("Model", bound=BaseModel)

_log = logging.getLogger(__name__)


class Part(BaseModel):
    """Settings: frozen, and an unknown key is an error.

    Attributes:
        renamed: today's last part of dotted keys by their former name; ``*`` stands for a place in a list.
            Files may still have the former names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}

    @field_validator("*", mode="wrap")
    @classmethod
    def _keep_flags_apart(cls, came: Any, make: Callable[[Any], Any]) -> Any:
        """``true`` is no 1: pydantic would take it for a number."""
        made = make(came)
        if _has_flag_for_number(came, made):
            raise ValueError(f"input should be a number (got {quoted(came)})")
        return made


def read_yaml(text: str) -> Any:
    """The value of a YAML text, of plain kinds; a date is a text.

    Raises:
        ValueError: it is no YAML, or nested too deeply; the message is one line.
    """
    try:
        content = yaml.load(text, _Loader)
        if _count(content, {}) > _MOST:
            raise ValueError(f"more than {_MOST:,} values")
        return content
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(reason(error)) from None


def _count(content: Any, known: dict[int, int]) -> int:
    """How many values there are; what stands in several places, by YAML's ``*name``, counts in each."""
    if not isinstance(content, (list, dict)):
        return 1
    if id(content) not in known:
        inside = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count(each, known) for each in inside)
    return known[id(content)]


_MOST = 100_000
"""Values of a configuration: a few lines of YAML can stand for more than fits the memory."""

_DATE, *_STRANGE = (f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "set", "binary", "omap", "pairs"))


class _Loader(yaml.SafeLoader):
    """Without dates and other kinds that no setting is, and that JSON cannot say."""

    yaml_implicit_resolvers = {  # noqa: RUF012, as its base class has it
        first: [each for each in kinds if each[0] != _DATE]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: each for tag, each in yaml.SafeLoader.yaml_constructors.items() if tag not in (_DATE, *_STRANGE)
    }


def checked(kind: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values for fields of a settings dataclass, each of the type that its field has.

    Raises:
        InputError: there is no such field (the message lists them), or a value is of another type.
    """
    types = get_type_hints(kind)
    types = {each.name: types[each.name] for each in dataclasses.fields(kind)}
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise InputError(f"{where} has no setting {', '.join(unknown)}; it has: {', '.join(types)}")
    return of_types(types, given, where)


def of_types(types: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values, each of the type under its name.

    Raises:
        InputError: a value is of another type.
    """
    wanted: dict[str, Any] = {key: (types[key], ...) for key in given}
    plain = {key: os.fspath(each) if isinstance(each, os.PathLike) else each for key, each in given.items()}
    return dict(parse(create_model("Given", __base__=Part, **wanted), plain, where))


def load(
    model: type[Model], place: str | os.PathLike[str], folder: Path, changes: Mapping[str, Any] | None = None
) -> Model:
    """Settings from a YAML file, or from one that comes with the package, by its name.

    Args:
        model: the class of the settings.
        place: a file, or the name of one in ``folder``.
        folder: of the files that come with the package.
        changes: values by dotted key, which go before the file's.

    Raises:
        InputError: no such file, no YAML, an unknown key (the message lists the valid ones), or a value that
            cannot be.
    """
    path = find(place, folder)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: no valid YAML ({reason(error)})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: is no configuration; expected keys such as {', '.join(model.model_fields)}"
        )
    return parse(model, content, str(path), changes)


def parse(
    model: type[Model], content: Mapping[Any, Any], where: str, changes: Mapping[str, Any] | None = None
) -> Model:
    """Settings from plain values; messages say ``where`` these come from. The rest is as for `load`.

    Raises:
        InputError: an unknown key, or a value that cannot be.
    """
    names = getattr(model, "renamed", {})
    current = _current(content, names, where)
    for key, value in (changes or {}).items():
        *way, last = key.split(".")
        for name, each in _current({last: value}, names, "the settings given", way).items():
            _put(current, [*way, name], each, key)
    try:
        return model.model_validate(current)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error, model)}") from None


def find(place: str | os.PathLike[str], folder: Path) -> Path:
    """A file, or by its name one that comes with the package.

    Raises:
        InputError: neither exists; the message lists the names.
    """
    path, shipped = Path(place), folder / f"{place}.yaml"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
    raise InputError(f"{path}: no such file; give a YAML file or one that is shipped: {names}")


def _current(content: Any, renamed: Mapping[str, str], where: str, way: Sequence[str] = ()) -> Any:
    """A copy of plain values under today's names; a former name is reported.

    Raises:
        InputError: a value is there under both names.
    """
    if isinstance(content, list):
        return [_current(each, renamed, where, (*way, str(row))) for row, each in enumerate(content)]
    if not isinstance(content, Mapping):
        return content
    fresh: dict[Any, Any] = {}
    for key, value in content.items():
        pattern = ".".join("*" if each.isdecimal() else each for each in (*way, str(key)))
        name = renamed.get(pattern, key)
        if name != key:
            old, new = (".".join((*way, each)) for each in (key, name))
            if name in content:
                raise InputError(f"{where}: {old} is now called {new}, and both are there; leave {old} out")
            _log.warning("%s: %s is now called %s", where, old, new)
        fresh[name] = _current(value, renamed, where, (*way, str(name)))
    return fresh


def _put(content: Any, way: Sequence[str], value: Any, key: str) -> None:
    """Set what a dotted key leads to; mappings on the way are made, numbers are places in a list."""
    *before, last = way
    for step in before:
        place = _place(content, step, f"{key}: there is no {step!r} to set something in")
        content = content.setdefault(place, {}) if isinstance(content, dict) else content[place]
    content[_place(content, last, f"{key}: there is no {last!r} to set")] = value


def _place(content: Any, step: str, otherwise: str) -> str | int:
    """The key or the place in a list that a step means."""
    if isinstance(content, dict):
        return step
    if isinstance(content, list) and step.isdecimal() and int(step) < len(content):
        return int(step)
    raise InputError(otherwise, "set")


def _has_flag_for_number(came: Any, made: Any) -> bool:
    """Whether a flag became a number, at any depth."""
    if isinstance(came, bool):
        return isinstance(made, (int, float)) and not isinstance(made, bool)
    if isinstance(came, Mapping) and not isinstance(made, Mapping):
        return any(_has_flag_for_number(each, getattr(made, str(key), None)) for key, each in came.items())
    both = isinstance(came, (list, tuple)) and isinstance(made, (list, tuple))
    return both and any(map(_has_flag_for_number, came, made))


def _explain(error: ValidationError, model: type) -> str:
    """The first problem in one line; an unknown key, with the valid ones, goes before others it may cause."""
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    first = min(error.errors(), key=lambda each: each["type"] not in unknown)
    key = ".".join(str(each) for each in first["loc"])
    if first["type"] in unknown:
        return f"unknown key {key!r}; there are {', '.join(_fields_at(model, first['loc'][:-1]))}"
    begin = f"{key}: " if key else ""
    if first["type"] == "value_error":  # a check of our own, which says what it got
        return f"{begin}{first['ctx']['error']}"
    came = "" if first["type"] == "missing" else f" (got {quoted(first.get('input'))})"
    said = first["msg"].replace("a valid tuple", "a list, as in [1, 2]")
    said = said.replace(" for <class 'pathlib.Path'>", "").replace(
        "a valid string", "a text; put it in quotes"
    )
    return f"{begin}{said[0].lower()}{said[1:]}{came}"


def _fields_at(model: Any, way: Sequence[int | str]) -> list[str]:
    """Names of the settings at a key's way from ``model`` on."""
    for step in way:
        if not isinstance(step, int):
            model = model.model_fields[step].annotation
            while not _fields(model):
                model = next(each for each in model.__args__ if each is not type(None))
    return _fields(model)


def _fields(kind: Any) -> list[str]:
    """Names of the settings of a pydantic model or a dataclass; none of anything else."""
    if dataclasses.is_dataclass(kind):
        return [each.name for each in dataclasses.fields(kind)]
    return list(getattr(kind, "model_fields", ()))
