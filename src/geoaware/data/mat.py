"""MATLAB 5 files (level 5 of the MAT format, MathWorks 2019): one matrix of numbers by its name.

scipy.io reads much more, but a damaged file can end the process there by a segmentation fault.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC, _COMPLEX = range(6, 16), 0x800
_MOST = 1 << 26
"""Bytes that a compressed variable may become."""

Element = tuple[int, bytes]
"""Type of a data element, and what it holds."""


def read_matrix(raw: bytes, name: str) -> np.ndarray | None:
    """The values of a matrix as float64, in its own shape; ``None`` if no variable is called so.

    Raises:
        ValueError: the file is damaged or of another level, or the variable is no matrix of real numbers.
    """
    order = _ORDERS.get(raw[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("no MATLAB 5 file")
    try:
        for kind, content in _elements(raw[_HEADER:], order):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_inflated(content), order))
            found = _matrix(content, order, name) if kind == _MATRIX else None
            if found is not None:
                return found
    except (struct.error, zlib.error, StopIteration, LookupError) as error:
        raise ValueError(f"its elements do not fit together ({error})") from None
    return None


def _inflated(content: bytes) -> bytes:
    machine = zlib.decompressobj()
    inflated = machine.decompress(content, _MOST)
    if machine.unconsumed_tail:
        raise ValueError(f"a variable of more than {_MOST >> 20} MB")
    return inflated


def _elements(data: bytes, order: str) -> Iterator[Element]:
    """Data elements that follow each other, each after a tag of its type and size."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        begin, padded = place + 8, size + (0 if kind == _COMPRESSED else -size % 8)
        if kind >> 16:  # up to four bytes stand in the tag itself, and the size beside the type
            kind, size, begin, padded = kind & 0xFFFF, kind >> 16, place + 4, 4
        if size > padded or begin + size > len(data):
            raise ValueError("an element is cut off")
        yield kind, data[begin : begin + size]
        place = begin + padded


def _matrix(content: bytes, order: str, name: str) -> np.ndarray | None:
    """The values of a variable, if it is called so."""
    (_, flags), (_, shape), (_, called), *values = _elements(content, order)
    if called.decode("latin-1") != name:
        return None
    (flag,) = struct.unpack_from(f"{order}I", flags)
    if flag & 0xFF not in _NUMERIC or flag & _COMPLEX:
        raise ValueError(f"{name} is no matrix of real numbers")
    kind, numbers = values[0]
    found = np.frombuffer(numbers, order + _NUMBERS[kind]).astype(np.float64)
    return found.reshape(np.frombuffer(shape, f"{order}i4"), order="F")
