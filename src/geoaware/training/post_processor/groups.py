"""Which images a training step sees: pairs of a list, or groups of images and all pairs between them.

Group number i of a stage is a function of the seed and i alone. So a resumed run goes on exactly, and any
number of processes can share the groups of a step without talking to one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, permutations

from geoaware.data import DataSet
from geoaware.data.dataset import grouped, with_common
from geoaware.data.sampling import permutation, pick
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.training.post_processor.config import Stage
from geoaware.training.settings import shares_of

MIN_COMMON = 2
"""Keypoints that a pair must have in common: with one there is nothing to tell apart."""

_DRAWS = 100


@dataclass(frozen=True)
class Group:
    """Images that are refined together, and the pairs between them that count.

    Attributes:
        name: for messages: the pair's id, or the images'.
        number: of the group in its stage.
        images: all of one set of keypoints.
        pairs: (source, target) as places in ``images``.
        schema: of the keypoints.
    """

    name: str
    number: int
    images: tuple[AnnotatedImage, ...]
    pairs: tuple[tuple[int, int], ...]
    schema: Schema


class PairGroups:
    """The pairs of one or several lists, each epoch in another order, or by shares with replacement.

    Its ``images`` are all that can come up.
    """

    def __init__(self, sets: Sequence[DataSet], shares: Sequence[float | None], key: str) -> None:
        self._key = key
        self._lists = []
        for each in sets:
            kept = with_common(each.pairs, MIN_COMMON)
            if not kept:
                raise InputError(
                    f"{each.name}, split {each.split}: no pair has {MIN_COMMON} visible keypoints in common; "
                    "there is nothing to train on"
                )
            self._lists.append([(pair, each.schemas[pair.category]) for pair in kept])
        self._pairs = list(chain(*self._lists))
        self._shares = shares_of(shares, [len(pairs) for pairs in self._lists])
        self._by_share = any(share is not None for share in shares)
        self._order = lru_cache(2)(lambda epoch: list(permutation(len(self), f"{key}/epoch {epoch}")))
        self.images = _each_once(image for pair, _ in self._pairs for image in (pair.source, pair.target))

    def __len__(self) -> int:
        """Groups of an epoch."""
        return len(self._pairs)

    def group(self, number: int) -> Group:
        """Group ``number`` of the run, from 0."""
        if self._by_share:
            key = f"{self._key}/{number}"
            pairs = self._lists[pick(self._shares, f"{key}/set")]
            pair, schema = pairs[next(permutation(len(pairs), key))]
        else:
            epoch, row = divmod(number, len(self))
            pair, schema = self._pairs[self._order(epoch)[row]]
        if pair.source.id == pair.target.id:
            return Group(pair.id, number, (pair.source,), ((0, 0),), schema)
        return Group(pair.id, number, (pair.source, pair.target), ((0, 1),), schema)


class ImageGroups:
    """``count`` images of one category, or of one set of keypoint names, drawn at random.

    Its ``images`` are all that can come up.
    """

    def __init__(
        self, sets: Sequence[DataSet], shares: Sequence[float | None], key: str, count: int, by_schema: bool
    ) -> None:
        self._key = key
        self._count = count
        self._pools: list[tuple[Schema, list[AnnotatedImage]]] = []
        self._chances: list[float] = []
        found = [_large(each, count, by_schema) for each in sets]
        sizes = [sum(len(images) for images in pools) for pools in found]
        for data, pools, size, share in zip(sets, found, sizes, shares_of(shares, sizes), strict=True):
            self._pools += [(data.schemas[images[0].category], images) for images in pools]
            self._chances += [share * len(images) / size for images in pools]
        self.images = _each_once(image for _, pool in self._pools for image in pool)

    def __len__(self) -> int:
        """Groups that show as many images as there are."""
        return max(1, len(self.images) // self._count)

    def group(self, number: int) -> Group:
        """Group ``number`` of the run, from 0.

        Raises:
            InputError: no two images drawn have enough keypoints in common.
        """
        for attempt in range(_DRAWS):
            key = f"{self._key}/{number}/{attempt}"
            schema, pool = self._pools[pick(self._chances, f"{key}/pool")]
            images = [pool[place] for place in islice(permutation(len(pool), key), self._count)]
            seen = [schema.visibility(image.keypoints) for image in images]
            pairs = tuple(
                (a, b)
                for a, b in permutations(range(self._count), 2)
                if int((seen[a] & seen[b]).sum()) >= MIN_COMMON
            )
            if pairs:
                name = " ".join(image.id for image in images)
                return Group(name, number, tuple(images), pairs, schema)
        raise InputError(
            f"of {_DRAWS} draws none had two images with {MIN_COMMON} visible keypoints in common; "
            "train on listed pairs (leave out images)"
        )


def make_groups(stage: Stage, sets: Sequence[DataSet], key: str) -> PairGroups | ImageGroups:
    """The groups of a stage; ``sets`` are its data sets, and ``key`` is of everything drawn.

    Raises:
        InputError: a data set has nothing to train on.
    """
    shares = [choice.share for choice in stage.data]
    if stage.images is None:
        return PairGroups(sets, shares, key)
    return ImageGroups(sets, shares, key, stage.images, stage.mix == "schema")


def _large(data: DataSet, count: int, by_schema: bool) -> list[list[AnnotatedImage]]:
    """Images that can be drawn together, of which there are enough."""
    large = [images for images in grouped(data, by_schema, MIN_COMMON) if len(images) >= count]
    if not large:
        raise InputError(
            f"{data.name}, split {data.split}: nowhere {count} images with {MIN_COMMON} visible keypoints "
            "that go together; use smaller groups (images), or mix: schema"
        )
    return large


def _each_once(images: Iterable[AnnotatedImage]) -> tuple[AnnotatedImage, ...]:
    """By file and id: an id is unique in its data set only."""
    return tuple({(image.path, image.id): image for image in images}.values())
