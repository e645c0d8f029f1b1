"""Random predictions of known make-up, for tests."""

from __future__ import annotations

import random
from dataclasses import replace

from geoaware.evaluation.predictions import from_records
from geoaware.evaluation.protocols import get_protocol
from geoaware.evaluation.score import build

KEYPOINTS = 8
PARTNERS = {0: 1, 1: 0, 2: 3, 3: 2, 4: 5, 5: 4}
SCHEMA = {
    "names": [f"part {each}" for each in range(KEYPOINTS)],
    "flip_pairs": [[0, 1], [2, 3], [4, 5]],
    "subgroups": {},
}
CATEGORIES = ("bus", "cat", "dog")
SCHEMAS = dict.fromkeys(CATEGORIES, SCHEMA)


def make_records(count: int, seed: int = 0, azimuth: bool = True) -> list[dict]:
    """Records whose points are right, near, on another keypoint or lost; some pairs have no point at all."""
    rng = random.Random(seed)
    return [make_one(rng, number, azimuth) for number in range(count)]


def make_one(rng: random.Random, number: int, azimuth: bool) -> dict:
    there = {
        each: [rng.randrange(60) + 0.5, float(rng.randrange(60))]
        for each in range(KEYPOINTS)
        if rng.random() < 0.8
    }
    ids = sorted(each for each in there if rng.random() < 0.7)
    predicted = []
    for each in ids:
        x, y = (
            there[rng.choice([each, each, PARTNERS.get(each, each)])]
            if rng.random() < 0.9 and PARTNERS.get(each, each) in there
            else there[each]
        )
        spread = rng.choice([0, 1, 5, 30])
        predicted.append([x + rng.randint(-spread, spread), y + rng.randint(-spread, spread)])
    return {
        "pair": f"pair {number}",
        "category": rng.choice(CATEGORIES),
        "source": f"image {rng.randrange(20)}",
        "target": f"image {rng.randrange(20)}",
        "keypoint_ids": ids,
        "predicted": predicted,
        "truth": [there[each] for each in ids],
        "size": float(rng.choice([40, 50, 100])),
        "geometry_aware": [rng.random() < 0.5 for _ in ids],
        "pose": "identity",
        "azimuth_difference": rng.randrange(5) if azimuth else None,
        "target_keypoints": {str(each): place for each, place in there.items()},
    }


def make_result(records: list[dict], strict: bool = True, alphas=(0.01, 0.05, 0.1), draws: int = 0, **about):
    protocol = replace(get_protocol("paper"), strict=strict)
    names = {category: dict(enumerate(SCHEMA["names"])) for category in CATEGORIES}
    return build(from_records(records, SCHEMAS), protocol, names, about, alphas, 0.1, draws)
