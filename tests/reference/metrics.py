"""Every metric as plain loops over records, from the paper's definitions (sections 3 and 5, appendix D.4).

Slow; no code is shared with geoaware.
"""

from __future__ import annotations

import math


def distance(a, b):
    return math.sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]))


def inside(d, limit, strict):
    return d < limit if strict else d <= limit


def flags(record, alpha, strict):
    """For each keypoint of a record, whether it is correct."""
    limit = alpha * record["size"]
    return [
        inside(distance(p, t), limit, strict)
        for p, t in zip(record["predicted"], record["truth"], strict=True)
    ]


def chosen(record, geometry_aware):
    """Positions of the keypoints that belong to the set."""
    return [i for i, aware in enumerate(record["geometry_aware"]) if aware or not geometry_aware]


def mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def per_image(records, hit, geometry_aware):
    """``hit(record)``: one truth value per keypoint."""
    shares = []
    for record in records:
        places, hits = chosen(record, geometry_aware), hit(record)
        if places:
            shares.append(sum(1 for i in places if hits[i]) / len(places))
    return mean(shares)


def per_point(records, hit, geometry_aware):
    right = total = 0
    for record in records:
        hits = hit(record)
        for i in chosen(record, geometry_aware):
            total += 1
            right += 1 if hits[i] else 0
    return right / total if total else math.nan


def category_mean(records, hit, geometry_aware, within):
    values = []
    for category in sorted({record["category"] for record in records}):
        value = within([r for r in records if r["category"] == category], hit, geometry_aware)
        if not math.isnan(value):
            values.append(value)
    return mean(values)


def averages(records, hit, geometry_aware):
    return {
        "per_image": per_image(records, hit, geometry_aware),
        "per_point": per_point(records, hit, geometry_aware),
        "category_per_image": category_mean(records, hit, geometry_aware, per_image),
        "category_per_point": category_mean(records, hit, geometry_aware, per_point),
    }


def shares(records):
    """Share of pairs with a geometry-aware keypoint, and of keypoints that are."""
    pairs = [r for r in records if r["keypoint_ids"]]
    points = [aware for r in pairs for aware in r["geometry_aware"]]
    with_any = [r for r in pairs if any(r["geometry_aware"])]
    return len(with_any) / len(pairs), sum(points) / len(points)


def error_flags(record, kind, alpha, strict, partners):
    """For each keypoint of a record, whether it fails in the given way."""
    limit, found = alpha * record["size"], []
    for wanted, p in zip(record["keypoint_ids"], record["predicted"], strict=True):
        apart = {int(k): distance(p, t) for k, t in record["target_keypoints"].items()}
        nearest, own = min(apart.values()), apart[wanted]
        hit = inside(nearest, limit, strict)
        swap = hit and own != nearest
        found.append(
            {
                "miss": not hit,
                "swap": swap,
                "swap_lr": swap and apart.get(partners.get(wanted)) == nearest,
                "pck_dagger": hit and not swap,
                "jitter": not inside(own, limit, strict) and inside(own, 2 * limit, strict),
            }[kind]
        )
    return found


def sensitivity(records, hit, geometry_aware):
    values = []
    for step in range(5):
        value = per_image([r for r in records if r["azimuth_difference"] == step], hit, geometry_aware)
        if not math.isnan(value):
            values.append(value)
    if len(values) < 2 or max(values) == 0:
        return math.nan
    return (max(values) - min(values)) / max(values)


def by_keypoint(records, category, keypoint, hit, geometry_aware):
    right = total = 0
    for record in records:
        if record["category"] != category:
            continue
        hits = hit(record)
        for i in chosen(record, geometry_aware):
            if record["keypoint_ids"][i] == keypoint:
                total += 1
                right += 1 if hits[i] else 0
    return right / total if total else math.nan


def keypoint_similarity(predicted, truth, area, sigmas, weights):
    """COCO's object keypoint similarity (https://cocodataset.org/#keypoints-eval), as a loop."""
    total = weight = 0.0
    for p, t, sigma, share in zip(predicted, truth, sigmas, weights, strict=True):
        total += share * math.exp(-(distance(p, t) ** 2) / (2 * area * (2 * sigma) ** 2))
        weight += share
    return total / weight if weight else math.nan
