"""Figures from predictions: of a file that `geoaware predict` wrote, or of matches in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoaware.evaluation.averages import Averaging, Bounds, average, bootstrap
from geoaware.evaluation.counts import GEOMETRY_AWARE, STANDARD, Counts, PointTable, correct_points, count
from geoaware.evaluation.predictions import (
    describe_schema,
    from_records,
    keypoint_names,
    make_record,
    read,
)
from geoaware.evaluation.protocols import Protocol, get_protocol
from geoaware.evaluation.result import CURVE, Comparison, KeypointScore, PCKResult
from geoaware.method.metrics.azimuth import SUBSETS, sensitivity
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


@dataclass(frozen=True)
class Scoring:
    """What to compute.

    Attributes:
        protocol: name of the protocol, for the headings.
        strict: correct is ``<``, else ``<=``.
        averaging: quoted first.
        alphas: thresholds, at least one.
        error_alpha: threshold of the error types.
        draws: bootstrap resamples; 0 for no intervals.
        seed: of the bootstrap.
    """

    protocol: str
    strict: bool
    averaging: Averaging
    alphas: tuple[float, ...]
    error_alpha: float = 0.1
    draws: int = 1000
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def build(
    table: PointTable, scoring: Scoring, keypoint_names: Mapping[str, Mapping[int, str]] | None = None
) -> PCKResult:
    """Compute every figure from predicted and true points.

    Args:
        table: the points.
        scoring: what to compute.
        keypoint_names: by category and annotation id; a number stands for those not given.
    """
    correct = correct_points(table, scoring.alphas + CURVE, scoring.strict)
    counts = count(table, correct, scoring.error_alpha, scoring.strict)
    columns = len(scoring.alphas)
    asked = _columns(counts, slice(0, columns))
    overall, by_category = bootstrap(asked, scoring.draws, scoring.seed) if scoring.draws else (None, {})
    by_azimuth = {
        each: _compare(asked.where(asked.azimuth == each))
        for each in SUBSETS
        if (asked.azimuth == each).any()
    }
    return PCKResult(
        protocol=scoring.protocol,
        averaging=scoring.averaging,
        alphas=scoring.alphas,
        error_alpha=scoring.error_alpha,
        about=dict(scoring.about),
        overall=_compare(asked, overall),
        by_category={
            name: _compare(asked.where(asked.category == index), by_category.get(name))
            for index, name in enumerate(asked.names)
        },
        by_azimuth=by_azimuth,
        sensitivity=_sensitivities(asked, scoring.averaging) if by_azimuth else {},
        by_keypoint=_by_keypoint(table, correct[:, :columns], keypoint_names or {}),
        errors=_compare_columns(counts, counts.errors) if table.has_targets else None,
        curve=_compare(_columns(counts, slice(columns, None))),
        draws=scoring.draws,
    )


def _columns(counts: Counts, columns: slice) -> Counts:
    return replace(counts, correct=counts.correct[..., columns])


def _compare(counts: Counts, bounds: Bounds | None = None) -> Comparison:
    return _compare_columns(counts, counts.correct, bounds)


def _compare_columns(counts: Counts, hits: np.ndarray, bounds: Bounds | None = None) -> Comparison:
    standard, geometry_aware = (
        average(
            counts.points[:, each],
            hits[:, each],
            counts.category,
            {name: both[:, each] for name, both in (bounds or {}).items()},
        )
        for each in (STANDARD, GEOMETRY_AWARE)
    )
    return Comparison(standard, geometry_aware)


def _sensitivities(counts: Counts, averaging: Averaging) -> dict[str, dict[str, tuple[float, ...]]]:
    """Sensitivity of each category, by set and alpha, in the protocol's average."""
    within: Averaging = "per_point" if averaging.endswith("per_point") else "per_image"
    found = {}
    for index, name in enumerate(counts.names):
        here = counts.where(counts.category == index)
        subsets = [_compare(here.where(here.azimuth == each)).sets for each in SUBSETS]
        found[name] = {
            kind: tuple(
                sensitivity(column) for column in zip(*(s[kind].values[within] for s in subsets), strict=True)
            )
            for kind in ("standard", "geometry_aware")
        }
    return found


def _by_keypoint(
    table: PointTable, correct: np.ndarray, names: Mapping[str, Mapping[int, str]]
) -> tuple[KeypointScore, ...]:
    keys = np.stack([table.category[table.pair], table.keypoint], axis=1)
    found, place = np.unique(keys, axis=0, return_inverse=True)
    everything = np.concatenate([np.ones((len(keys), 1), dtype=bool), correct], axis=1)
    # Columns: how many, then how many are correct at each alpha.
    sums = {
        kind: np.stack(
            [np.bincount(place.ravel()[column], minlength=len(found)) for column in flags.T], axis=1
        )
        for kind, flags in (
            ("standard", everything),
            ("geometry_aware", everything & table.geometry_aware[:, None]),
        )
    }
    return tuple(
        KeypointScore(
            category=table.names[c],
            id=k,
            name=names.get(table.names[c], {}).get(k) or f"keypoint {k}",
            keypoints={kind: int(each[row, 0]) for kind, each in sums.items()},
            values={
                kind: tuple(_share(hits, int(each[row, 0])) for hits in each[row, 1:].tolist())
                for kind, each in sums.items()
            },
        )
        for row, (c, k) in enumerate(found.tolist())
    )


def _share(hits: int, points: int) -> float:
    return hits / points if points else math.nan
