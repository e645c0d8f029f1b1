"""Figures from predictions: of a file that `geoaware predict` wrote, or of matches in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from geoaware.evaluation.predictions import (
    describe_schema,
    from_records,
    keypoint_names,
    make_record,
    read,
)
from geoaware.evaluation.protocols import Protocol, get_protocol
from geoaware.evaluation.result import PCKResult, Scoring, build
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.method.keypoints import Schema
    from geoaware.method.types import Matches, Pair


def score_file(
    path: str | os.PathLike[str],
    protocol: str | None = None,
    *,
    alphas: Sequence[float] | None = None,
    error_alpha: float = 0.1,
    draws: int = 1000,
    seed: int = 0,
) -> PCKResult:
    """Every figure of a predictions file; nothing else is read, no data set and no network.

    Args:
        path: what `geoaware predict` wrote.
        protocol: makes sure that the file was predicted under it; the file's own when not given.
        alphas: thresholds instead of the protocol's.
        error_alpha: threshold of the error types.
        draws: bootstrap resamples behind the confidence intervals; 0 for none.
        seed: of the bootstrap.

    Raises:
        InputError: the file cannot be used (see `predictions.read`), was predicted under another protocol, or
            an alpha is not positive.
    """
    header, table = read(Path(path))
    if protocol is not None and get_protocol(protocol).name != header.protocol:
        raise InputError(
            f"{path}: was predicted under protocol {header.protocol}, not {protocol}, and holds its "
            f"thresholds; leave out --protocol, or run `geoaware predict --protocol {protocol}`"
        )
    scoring = _scoring(get_protocol(header.protocol), alphas, error_alpha, draws, seed)
    return build(table, replace(scoring, about=header.about), keypoint_names(header.schemas))


def score(
    matches: Matches | Sequence[Matches],
    pair: Pair | Sequence[Pair],
    protocol: str = "paper",
    *,
    schema: Schema | Mapping[str, Schema] | None = None,
    alphas: Sequence[float] | None = None,
    error_alpha: float = 0.1,
    draws: int = 1000,
    seed: int = 0,
) -> PCKResult:
    """Every figure of matches in memory, of one pair or of many.

    Args:
        matches: of the points ``pair.source.keypoints.at(pair.common_ids)``, in that order.
        pair: what was matched; as many as there are matches.
        protocol: name of the protocol.
        schema: what the keypoints mean, or one for each category; without it no keypoint counts as
            geometry-aware and no swap as left-right.
        alphas: see `score_file`, as the rest.

    Raises:
        InputError: matches and pairs do not agree, or the protocol cannot be applied.

    Example:
        >>> points = pair.source.keypoints.at(pair.common_ids)  # doctest: +SKIP
        >>> print(score(match(source, target, points), pair))   # doctest: +SKIP
    """
    from geoaware.method.types import Matches, Pair

    found = [matches] if isinstance(matches, Matches) else list(matches)
    pairs = [pair] if isinstance(pair, Pair) else list(pair)
    if len(found) != len(pairs):
        raise InputError(f"{len(found)} matches for {len(pairs)} pairs; give one for each")
    rules = get_protocol(protocol)
    scoring = _scoring(rules, alphas, error_alpha, draws, seed)
    meaning: dict[str, Schema] = {}
    if schema is not None:
        of_category = schema if isinstance(schema, Mapping) else {each.category: schema for each in pairs}
        meaning = dict(of_category)
    records = [
        make_record(each, meaning.get(each.category), rules, one.points.tolist(), one.pose)
        for each, one in zip(pairs, found, strict=True)
    ]
    schemas = {name: describe_schema(each) for name, each in meaning.items()}
    return build(from_records(records, schemas), scoring, keypoint_names(schemas))


def _scoring(
    protocol: Protocol, alphas: Sequence[float] | None, error_alpha: float, draws: int, seed: int
) -> Scoring:
    chosen = tuple(sorted(set(protocol.alphas if alphas is None else map(float, alphas))))
    if not chosen or not all(0 < alpha < float("inf") for alpha in (*chosen, error_alpha)):
        raise InputError(f"alphas must be positive shares such as 0.1, got {[*chosen, error_alpha]}")
    if draws < 0:
        raise InputError(f"the number of bootstrap resamples must be 0 or more, got {draws}")
    return Scoring(protocol.name, protocol.strict, protocol.averaging, chosen, error_alpha, draws, seed)
