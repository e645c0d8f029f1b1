"""Random choices that are the same on every machine, Python and numpy.

`random.Random` promises to repeat its floats but not its `sample` or `shuffle`, and numpy's generators are
free to change between versions. Published lists of pairs must not, so every draw is taken from SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice


def permutation(total: int, key: str) -> Iterator[int]:
    """0 … total-1 in a random order that depends on ``key`` alone.

    Lazy: n items cost n draws and memory for n, however large the total (Fisher-Yates on a sparse array).
    """
    moved: dict[int, int] = {}
    for place in range(total):
        other = place + _below(total - place, f"{key}/{place}")
        drawn = moved.get(other, other)
        moved[other] = moved.pop(place, place)
        yield drawn


def draw(total: int, wanted: int, key: str, accept: Callable[[int], bool] = lambda _: True) -> list[int]:
    """The first ``wanted`` numbers that are accepted out of a random order of 0 … total-1, rising.

    Fewer when fewer are accepted; all of them, when ``wanted`` is the total or more.
    """
    return sorted(islice(filter(accept, permutation(total, key)), wanted))


def _below(limit: int, key: str) -> int:
    # 128 bits: the remainder's bias is below 2**-90 for any number of pairs.
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big") % limit
