"""Distances between feature maps by loops over pixels, from the paper (equation 1, appendix E.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def instance_matching_distance(
    source: Tensor, target: Tensor, source_mask: Tensor, target_mask: Tensor | None, resolution: int
) -> float:
    source = F.interpolate(source[None], size=(resolution, resolution), mode="bilinear")[0]
    target = F.interpolate(target[None], size=(resolution, resolution), mode="bilinear")[0]
    total, count = 0.0, 0
    for y in range(resolution):
        for x in range(resolution):
            if not _nearest(source_mask, x, y, resolution):
                continue
            total += _distance_to_nearest(_unit(source[:, y, x]), target, target_mask)
            count += 1
    return total / count


def released_instance_matching_distance(
    source: Tensor, target: Tensor, source_mask: Tensor, target_mask: Tensor, resolution: int
) -> float:
    """Unit descriptors, resized, cleared off the mask; what is zero then is -100,000; plain L2 distances."""
    maps = []
    for features, mask in ((source, source_mask), (target, target_mask)):
        unit = torch.stack([_unit(each) for each in features.flatten(1).T]).T.reshape(features.shape)
        small = F.interpolate(unit[None], size=(resolution, resolution), mode="bilinear")[0].double()
        for y in range(resolution):
            for x in range(resolution):
                small[:, y, x] *= _nearest(mask, x, y, resolution)
        small[small == 0] = -1e5
        maps.append(small)
    here, there = maps
    total, count = 0.0, 0
    for y in range(resolution):
        for x in range(resolution):
            if _nearest(source_mask, x, y, resolution):
                total += min((here[:, y, x] - each).norm().item() for each in there.flatten(1).T)
                count += 1
    return total / count


def _distance_to_nearest(query: Tensor, target: Tensor, mask: Tensor | None) -> float:
    side = target.shape[-1]
    nearest = float("inf")
    for y in range(side):
        for x in range(side):
            if mask is None or _nearest(mask, x, y, side):
                nearest = min(nearest, (query - _unit(target[:, y, x])).norm().item())
    return nearest


def _nearest(mask: Tensor, x: int, y: int, resolution: int) -> bool:
    height, width = mask.shape
    return bool(mask[y * height // resolution, x * width // resolution])


def mutual_nn_distance(source: Tensor, target: Tensor) -> float:
    rows = [_unit(each) for each in source.flatten(1).T]
    columns = [_unit(each) for each in target.flatten(1).T]
    table = torch.stack([torch.stack([(a - b).norm() for b in columns]) for a in rows])
    distances = []
    for i in range(len(rows)):
        j = int(table[i].argmin())
        if int(table[:, j].argmin()) == i:
            distances.append(table[i, j].item())
    return sum(distances) / len(distances)
