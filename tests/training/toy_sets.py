"""Data sets in memory, of images that need not exist."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import torch

from geoaware.data import DataSet
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Keypoints, Pair

SCHEMA = Schema(("left ear", "right ear", "left eye", "right eye", "nose"), {"ear": (0, 1)}, ((0, 1), (2, 3)))


def image(
    name: str,
    visible: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    xy: Sequence[tuple[float, float]] | None = None,
    size: tuple[int, int] = (100, 80),
    category: str = "cat",
    box: tuple[float, float, float, float] | None = (10.0, 10.0, 60.0, 50.0),
    folder: str = "images",
) -> AnnotatedImage:
    """Five keypoints, at places that follow from the name where they are not given."""
    if xy is None:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        places = torch.rand(5, 2, generator=generator, dtype=torch.float64)
        places = places * torch.tensor([size[0] - 1, size[1] - 1])
    else:
        places = torch.tensor(xy, dtype=torch.float64)
    seen = torch.tensor([each in visible for each in range(len(places))])
    keypoints = Keypoints(tuple(range(len(places))), places, seen)
    return AnnotatedImage(name, Path(folder) / name, size, category, keypoints, box)


def pairs_of(images: Sequence[AnnotatedImage]) -> tuple[Pair, ...]:
    """All ordered pairs."""
    return tuple(Pair(f"{a.id}>{b.id}", a.category, a, b) for a, b in permutations(images, 2))


def data_set(pairs: Sequence[Pair], schema: Schema = SCHEMA, name: str = "toy") -> DataSet:
    """With one schema for every category."""
    categories = sorted({each.category for pair in pairs for each in (pair, pair.source, pair.target)})
    return DataSet(name, "trn", dict.fromkeys(categories, schema), tuple(pairs), "box")
