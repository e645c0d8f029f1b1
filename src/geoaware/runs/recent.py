"""What was asked for last, kept within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key; those that nobody asked for the longest make room for new ones.

    Args:
        room: bytes that the values may take.
        size: bytes of a value.
        least: how many values stay, whatever they take.
        dropped: told the key of a value that makes room.

    Attributes:
        bytes: what the values take now.

    Example:
        >>> kept = Recent(5, len)
        >>> kept["a"], kept["b"] = "xx", "yyy"
        >>> kept["a"], kept.bytes
        ('xx', 5)
        >>> kept["c"] = "zz"  # "b" was asked for the longest ago
        >>> "a" in kept, "b" in kept, kept.bytes
        (True, False, 4)
    """

    def __init__(
        self,
        room: int,
        size: Callable[[V], int],
        least: int = 1,
        dropped: Callable[[K], object] = lambda _: None,
    ) -> None:
        self._room, self._size, self._least, self._dropped = room, size, least, dropped
        self._values: OrderedDict[K, V] = OrderedDict()
        self.bytes = 0

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: K) -> V:
        self._values.move_to_end(key)
        return self._values[key]

    def __setitem__(self, key: K, value: V) -> None:
        if key in self._values:
            self.bytes -= self._size(self._values.pop(key))
        self._values[key] = value
        self.bytes += self._size(value)
        while self.bytes > self._room and len(self._values) > self._least:
            old, value = self._values.popitem(last=False)
            self.bytes -= self._size(value)
            self._dropped(old)
