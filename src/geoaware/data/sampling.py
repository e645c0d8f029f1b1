"""Random choices that are the same on every machine, Python and numpy.

`random.Random` promises to repeat its floats but not its `sample` or `shuffle`, and numpy's generators are
free to change between versions. Published lists of pairs must not, so every draw is taken from SHA-256.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice


def permutation(total: int, key: str) -> Iterator[int]:
    """0 … total-1 in a random order that depends on ``key`` alone.

    Lazy: n items cost n draws and memory for n, however large the total (Fisher-Yates on a sparse array).
    """
    moved: dict[int, int] = {}
    for place in range(total):
        # Swap this place with a random one that is not drawn yet; only moved numbers are written down.
        other = place + _below(total - place, f"{key}/{place}")
        drawn = moved.get(other, other)
        moved[other] = moved.pop(place, place)
        yield drawn


def draw(total: int, wanted: int, key: str, accept: Callable[[int], bool] = lambda _: True) -> list[int]:
    """The first ``wanted`` numbers that are accepted out of a random order of 0 … total-1, rising.

    Fewer when fewer are accepted; all of them, when ``wanted`` is the total or more.
    """
    if wanted >= total:
        return list(filter(accept, range(total)))
    return sorted(islice(filter(accept, permutation(total, key)), wanted))


def pick(weights: Sequence[float], key: str) -> int:
    """A place in ``weights``, each as likely as its share of their sum; never one of weight 0.

    Raises:
        ValueError: there is no positive weight, or a negative one.
    """
    bounds = list(accumulate(weights))
    if not bounds or bounds[-1] <= 0 or min(weights) < 0:
        raise ValueError(f"weights must be 0 or more, one at least above 0, got {list(weights)}")
    # 53 bits are what a float holds, so the share is below 1 and its product with the sum at most the sum.
    chosen = bisect_right(bounds, _below(2**53, key) / 2**53 * bounds[-1])
    return min(chosen, bisect_left(bounds, bounds[-1]))


def _below(limit: int, key: str) -> int:
    # 128 bits: the remainder's bias is below 2**-90 for any number of pairs.
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big") % limit
