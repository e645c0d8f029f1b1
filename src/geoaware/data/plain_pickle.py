"""Pickle files that hold dicts, lists, texts and numbers, read without unpickling.

`pickle` would run what a file asks for. Here a file's operations are only listed (`pickletools`), those that
build plain values are done, and any other one is refused, so nothing that a file names can run.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoaware.data.files import reading
from geoaware.runs.errors import InputError, reason

_MOST = 16 << 20
"""Bytes of a file."""

_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
"""Operations that put their argument on the stack."""

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PASSED = frozenset({"PROTO", "FRAME"})


class _Refused(ValueError):
    """An operation that is not done."""


def read_plain_pickle(path: Path, expected: str) -> Any:
    """The dict, list, text or number in a pickle file.

    Raises:
        InputError: the file is missing, damaged or too large, or holds objects of any other kind.
    """
    with reading(path, expected):
        raw = path.read_bytes()
    try:
        if len(raw) > _MOST:
            raise _Refused(f"{len(raw):,} bytes are too many")
        return _Machine().run(raw)
    except _Refused as error:
        raise InputError(f"{path}: is no pickle of plain values ({error}); expected {expected}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged, no valid pickle ({reason(error)}); fetch it again") from None


class _Machine:
    """The stack of the format, its marks, and the values that it keeps for later use."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.kept: dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        """What is on the stack at the end."""
        argument: Any
        for operation, argument, _ in pickletools.genops(raw):
            name = operation.name
            if name == "STOP":
                return self.stack.pop()
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _SIZES:
                count = _SIZES[name]
                self.stack[-count:] = [tuple(self.stack[-count:])]
            elif name == "MARK":
                self.marks.append(len(self.stack))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                self.kept[len(self.kept) if name == "MEMOIZE" else argument] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.kept[argument])
            elif name not in _PASSED:
                self._fill(name)
        raise ValueError("it has no end")

    def _fill(self, name: str) -> None:
        """Operations that put values into a list or a dict."""
        if name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            values = [self.stack.pop() for _ in range(count)][::-1]
        elif name in ("APPENDS", "SETITEMS", "LIST", "DICT", "TUPLE"):
            begin = self.marks.pop()
            values = self.stack[begin:]
            del self.stack[begin:]
        else:
            raise _Refused(f"the operation {name}")
        if name in ("LIST", "DICT", "TUPLE"):
            self.stack.append([] if name == "LIST" else {} if name == "DICT" else tuple(values))
        if name in ("APPEND", "APPENDS", "LIST"):
            self.stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            if not all(isinstance(key, str | int) for key in values[::2]):
                raise _Refused("a key that is no text or number")
            self.stack[-1].update(zip(values[::2], values[1::2], strict=True))
