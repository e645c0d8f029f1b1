"""The losses by plain loops over numbers, from the paper's formulas (section 4.2, equations 2 and 3)."""

from __future__ import annotations

import math

from torch import Tensor

from tests.reference.matching import cosine, positions, similarity


def cross_entropy(logits: list[float], right: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(each - top) for each in logits)) - logits[right]


def contrastive_loss(source: Tensor, target: Tensor, logit_scale: float) -> float:
    """Half the mean loss of choosing the target for each source, half that of choosing the source."""
    rows, columns = source.tolist(), target.tolist()
    count = len(rows)
    if count == 0:
        return 0.0
    factor = math.exp(logit_scale)
    logits = [[factor * cosine(row, column) for column in columns] for row in rows]
    forth = sum(cross_entropy(logits[i], i) for i in range(count)) / count
    back = sum(cross_entropy([row[j] for row in logits], j) for j in range(count)) / count
    return (forth + back) / 2


def nearest_cell(position: float, side: int) -> int:
    """The cell whose centre is nearest, the higher one half-way, none outside the map."""
    return min(max(math.floor(position + 0.5), 0), side - 1)


def dense_errors(
    source: Tensor,
    target: Tensor,
    source_xy: Tensor,
    target_xy: Tensor,
    temperature: float,
    window: int | None = None,
) -> list[float]:
    height, width = source.shape[1:]
    errors = []
    for (x, y), (true_x, true_y) in zip(source_xy.tolist(), target_xy.tolist(), strict=True):
        query = source[:, nearest_cell(y, height), nearest_cell(x, width)]
        sim = similarity(query[None], target)
        mode = "soft" if window is None else "window"
        ((found_x, found_y),) = positions(sim, mode, window or 1, temperature, 1.0).tolist()
        errors.append(math.sqrt((found_x - true_x) ** 2 + (found_y - true_y) ** 2))
    return errors


def dense_loss(
    source: Tensor,
    target: Tensor,
    source_xy: Tensor,
    target_xy: Tensor,
    temperature: float,
    window: int | None = None,
    noise: Tensor | None = None,
) -> float:
    truth = target_xy if noise is None else target_xy + noise
    errors = dense_errors(source, target, source_xy, truth, temperature, window)
    return sum(errors) / len(errors) if errors else 0.0


def distillation_loss(
    queries: Tensor, target: Tensor, plain_queries: Tensor, plain_target: Tensor, temperature: float
) -> float:
    """Mean over the queries of sum p log(p / q), p from the plain similarities and q from the refined."""
    total = 0.0
    for query, plain in zip(queries, plain_queries, strict=True):
        shares = []
        for row, cells in ((plain, plain_target), (query, target)):
            values = [each / temperature for each in similarity(row[None], cells).flatten().tolist()]
            total_of = sum(math.exp(each - max(values)) for each in values)
            shares.append([math.exp(each - max(values)) / total_of for each in values])
        total += sum(p * math.log(p / q) for p, q in zip(*shares, strict=True) if p > 0)
    return total / len(queries)
