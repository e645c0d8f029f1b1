"""Position of a match by plain loops over cells, from the paper's formulas (section 4.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return dot / norm if norm > 0 else 0.0


def similarity(queries: Tensor, target: Tensor) -> Tensor:
    _, height, width = target.shape
    rows = []
    for query in queries.tolist():
        rows.append([[cosine(query, target[:, y, x].tolist()) for x in range(width)] for y in range(height)])
    return torch.tensor(rows, dtype=torch.float64).reshape(len(queries), height, width)


def best_cell(values: list[list[float]]) -> tuple[int, int]:
    best, place = -math.inf, (0, 0)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value > best:
                best, place = value, (x, y)
    return place


def expectation(
    values: list[list[float]], temperature: float, cells: list[tuple[int, int]]
) -> tuple[float, float]:
    """Softmax-weighted mean position over the given cells."""
    top = max(values[y][x] for x, y in cells)
    weights = {(x, y): math.exp((values[y][x] - top) / temperature) for x, y in cells}
    total = sum(weights.values())
    return (
        sum(x * w for (x, _), w in weights.items()) / total,
        sum(y * w for (_, y), w in weights.items()) / total,
    )


def all_cells(values: list[list[float]]) -> list[tuple[int, int]]:
    return [(x, y) for y in range(len(values)) for x in range(len(values[0]))]


def window_cells(values: list[list[float]], window: int) -> list[tuple[int, int]]:
    best_x, best_y = best_cell(values)
    half = window // 2
    return [(x, y) for x, y in all_cells(values) if abs(x - best_x) <= half and abs(y - best_y) <= half]


def positions(sim: Tensor, mode: str, window: int, temperature: float, sigma: float) -> Tensor:
    found = []
    for values in sim.tolist():
        if mode == "argmax":
            found.append(best_cell(values))
        elif mode == "soft":
            found.append(expectation(values, temperature, all_cells(values)))
        elif mode == "window":
            found.append(expectation(values, temperature, window_cells(values, window)))
        elif mode == "zero":
            inside = set(window_cells(values, window))
            kept = [
                [v if (x, y) in inside else 0.0 for x, v in enumerate(row)] for y, row in enumerate(values)
            ]
            found.append(expectation(kept, temperature, all_cells(kept)))
        else:
            x0, y0 = best_cell(values)
            shaped = [
                [v * math.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2)) for x, v in enumerate(row)]
                for y, row in enumerate(values)
            ]
            found.append(expectation(shaped, temperature, all_cells(shaped)))
    return torch.tensor(found, dtype=torch.float64).reshape(len(sim), 2)


def window_mass(sim: Tensor, window: int, temperature: float) -> list[float]:
    masses = []
    for values in sim.tolist():
        top = max(max(row) for row in values)
        weight = {(x, y): math.exp((values[y][x] - top) / temperature) for x, y in all_cells(values)}
        inside = sum(weight[cell] for cell in window_cells(values, window))
        masses.append(inside / sum(weight.values()))
    return masses
