"""Pairs that are made of images: of all ordered pairs of a pool, a random choice that any machine repeats."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoaware.data.dataset import azimuth_difference, in_common
from geoaware.data.fields import shown
from geoaware.data.files import read_lines
from geoaware.data.sampling import draw
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

LISTED, FIRST = "random_pairs.txt", 10_000
"""The list of pairs that Aygün and Mac Aodha (2022) publish for a data set, and how many of it they use."""


@dataclass(frozen=True)
class Pool:
    """Ordered candidate pairs of one category, numbered 0 … total-1, without writing them down.

    They are of different ``images`` or, with ``partners``, of one of each. Without a category, pairs count
    under that of their source.
    """

    category: str
    images: Sequence[AnnotatedImage]
    partners: Sequence[AnnotatedImage] | None = None

    @property
    def total(self) -> int:
        """How many there are."""
        if self.partners is None:
            return len(self.images) * (len(self.images) - 1)
        return 2 * len(self.images) * len(self.partners)

    def __getitem__(self, number: int) -> tuple[AnnotatedImage, AnnotatedImage]:
        if self.partners is None:
            # Every image comes with all others: its own place is skipped.
            first, second = divmod(number, len(self.images) - 1)
            return self.images[first], self.images[second + (second >= first)]
        # Even numbers are pairs from the first category to the second, odd ones lead back.
        forward, backward = divmod(number, 2)
        first, second = divmod(forward, len(self.partners))
        pair = self.images[first], self.partners[second]
        return pair[::-1] if backward else pair

    def pairs(self, wanted: int, min_common: int, key: str) -> Iterator[Pair]:
        """So many pairs with enough keypoints in common, by a random choice that depends on ``key``."""

        def usable(number: int) -> bool:
            return in_common(*self[number]) >= min_common

        for number in draw(self.total, wanted, key, usable):
            source, target = self[number]
            yield joined(source, target, self.category)


def joined(source: AnnotatedImage, target: AnnotatedImage, category: str = "") -> Pair:
    """The pair of two images, by default of its source's category."""
    apart = azimuth_difference(source, target)
    return Pair(f"{source.id}--{target.id}", category or source.category, source, target, apart)


def by_category(images: Iterable[AnnotatedImage]) -> dict[str, list[AnnotatedImage]]:
    """The images of each category, categories in the order of their names."""
    grouped: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        grouped[image.category].append(image)
    return dict(sorted(grouped.items()))


def listed_or_drawn(
    root: Path,
    known: Mapping[str, AnnotatedImage],
    pairs: str | int,
    across: bool,
    name: str,
    seed: int,
    *,
    whole: bool = True,
) -> tuple[list[Pair], str]:
    """The pairs of a list, or random ones of the images, and which they are.

    Args:
        root: folder that a list is relative to.
        known: the images by the names that lists have for them.
        pairs: a list of two names a line; how many random ones, for each category if not ``across``; or
            ``"auto"``: the first `FIRST` of `LISTED` where that lies in the root, else as many random ones,
            50 for each category if not ``across``.
        across: whether random pairs are of any two images, not of two of a category.
        name: of the data set.
        seed: of the random pairs.
        whole: whether these are all images that `LISTED` was made of; if not, it does not count.

    Raises:
        InputError: a list names an image that is not known, or no pair is wanted.
    """
    if isinstance(pairs, int) or pairs.isdecimal() or pairs in ("all", "auto"):
        listed, most = root / LISTED, FIRST
        if pairs != "auto" or not (across and whole and listed.is_file()):
            grouped = {"": list(known.values())} if across else by_category(known.values())
            pools = [Pool(category, each) for category, each in grouped.items() if len(each) > 1]
            wanted = pairs if pairs != "auto" else FIRST if across else 50
            return drawn(pools, wanted, 1, name, seed)
    else:
        listed, most = root / place(pairs), sys.maxsize
    made = []
    for where, line in read_lines(listed, "two images a line")[:most]:
        names = line.split()
        if len(names) != 2 or not {*names} <= known.keys():
            some = ", ".join(list(known)[:2])
            raise InputError(f"{where}: {shown(line)} is not two images of this split, such as {some}")
        made.append(joined(known[names[0]], known[names[1]]))
    return list({pair.id: pair for pair in made}.values()), f"pairs of {listed.name}"


def drawn(
    pools: Sequence[Pool], pairs: str | int, min_common: int, name: str, seed: int
) -> tuple[list[Pair], str]:
    """So many random pairs of each pool with enough keypoints in common, or ``"all"`` of them, and how many.

    Raises:
        InputError: less than one pair is wanted.
    """
    total = sum(pool.total for pool in pools)
    wanted = total if pairs == "all" else int(pairs)
    if wanted < 1 and pairs != "all":
        raise InputError(f"pairs={pairs}: at least one pair a category is needed, or 'all'")
    made = [
        pair for pool in pools for pair in pool.pairs(wanted, min_common, f"{name}/{seed}/{pool.category}")
    ]
    if pairs == "all":
        return made, f"all ordered pairs: {len(made)} of {total} have enough keypoints in common"
    of = " a category" if len(pools) > 1 or (pools and pools[0].category) else ""
    how = f"up to {wanted} random ones{of} (seed {seed}) of {total} ordered pairs"
    return made, f"{len(made)} pairs: {how}"
