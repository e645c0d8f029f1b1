"""Figures from predictions: of a file that `geoaware predict` wrote, or of matches in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoaware.evaluation.averages import Averaging, Bounds, average, bootstrap, within_category
from geoaware.evaluation.counts import Counts, PointTable, correct_points, count, sums_by
from geoaware.evaluation.predictions import describe_schema, from_records, keypoint_names, make_record, read
from geoaware.evaluation.protocols import Protocol, check_alphas, get_protocol
from geoaware.evaluation.result import CURVE, SETS, BothSets, KeypointScore, PCKResult
from geoaware.method.metrics.azimuth import SUBSETS, sensitivity
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

if TYPE_CHECKING:
    from geoaware.method.keypoints import Schema
    from geoaware.method.types import Matches, Pair


def score_file(
    path: str | os.PathLike[str],
    protocol: str | Protocol | None = None,
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
    header, table = read(place(path))
    rules = header.rules
    if protocol is not None and (wanted := get_protocol(protocol)) != rules:
        other = f"{wanted.name} with these rules" if wanted.name == rules.name else wanted.name
        raise InputError(
            f"{path}: was predicted under protocol {rules.name}, not {other}, and holds its "
            f"thresholds; score it under its own, or predict again under {wanted.name}",
            parameter="protocol",
        )
    names = keypoint_names(header.schemas)
    return build(table, rules, names, header.about, alphas, error_alpha, draws, seed)


def score(
    matches: Matches | Sequence[Matches],
    pair: Pair | Sequence[Pair],
    protocol: str | Protocol = "paper",
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
        protocol: name of the protocol, or one of your own.
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
    if schema is not None and not isinstance(schema, Mapping):
        schema = {each.category: schema for each in pairs}
    meaning = schema or {}
    records = [
        make_record(each, meaning.get(each.category), rules, one.points.tolist(), one.pose)
        for each, one in zip(pairs, found, strict=True)
    ]
    schemas = {name: describe_schema(each) for name, each in meaning.items()}
    table = from_records(records, schemas)
    return build(table, rules, keypoint_names(schemas), {}, alphas, error_alpha, draws, seed)


def build(
    table: PointTable,
    protocol: Protocol,
    names: Mapping[str, Mapping[int, str]],
    about: Mapping[str, Any],
    alphas: Sequence[float] | None,
    error_alpha: float,
    draws: int,
    seed: int = 0,
) -> PCKResult:
    """Every figure of a table of points, for `score_file` and `score`; ``names`` are those of keypoints."""
    chosen = tuple(sorted(set(protocol.alphas if alphas is None else map(float, alphas))))
    if not chosen:
        raise InputError("no alpha is given; give a share of the threshold base such as 0.1", "alpha")
    check_alphas((*chosen, error_alpha))
    if draws < 0 or seed < 0:
        raise InputError(f"bootstrap resamples and their seed must be 0 or more, got {draws} and {seed}")
    correct = correct_points(table, chosen + CURVE, protocol.strict)
    counts = count(table, correct, error_alpha, protocol.strict)
    asked = replace(counts, correct=counts.correct[..., : len(chosen)])
    overall, by_category = bootstrap(asked, draws, seed) if draws else (None, {})
    steps = [each for each in SUBSETS if each in asked.azimuth]
    return PCKResult(
        protocol=protocol.name,
        averaging=protocol.averaging,
        alphas=chosen,
        error_alpha=error_alpha,
        about=dict(about),
        overall=_both_sets(asked, overall),
        by_category={
            name: _both_sets(asked.where(asked.category == index), by_category.get(name))
            for index, name in enumerate(asked.names)
        },
        by_azimuth={each: _both_sets(asked.where(asked.azimuth == each)) for each in steps},
        sensitivity=_sensitivities(asked, within_category(protocol.averaging)) if steps else {},
        by_keypoint=_by_keypoint(table, correct[:, : len(chosen)], names),
        errors=_both_sets(replace(counts, correct=counts.errors)) if table.has_targets else None,
        curve=_both_sets(replace(counts, correct=counts.correct[..., len(chosen) :])),
        draws=draws,
    )


def _both_sets(counts: Counts, bounds: Bounds | None = None) -> BothSets:
    """Averages of the correct points of both sets."""
    return BothSets(*(average(counts, number, bounds) for number in range(len(SETS))))


def _sensitivities(counts: Counts, averaging: Averaging) -> dict[str, dict[str, tuple[float, ...]]]:
    """Sensitivity of each category, by set and alpha."""
    found = {}
    for index, name in enumerate(counts.names):
        here = counts.where(counts.category == index)
        subsets = [_both_sets(here.where(here.azimuth == each)).sets for each in SUBSETS]
        columns = {
            kind: zip(*(each[kind].values[averaging] for each in subsets), strict=True) for kind in SETS
        }
        found[name] = {kind: tuple(map(sensitivity, values)) for kind, values in columns.items()}
    return found


def _by_keypoint(
    table: PointTable, correct: np.ndarray, names: Mapping[str, Mapping[int, str]]
) -> tuple[KeypointScore, ...]:
    keys = np.stack([table.category[table.pair], table.keypoint], axis=1)
    found, group = np.unique(keys, axis=0, return_inverse=True)
    # A row a keypoint, on a set axis: how often it was evaluated, then how often it is correct at each alpha.
    sums = sums_by(group.ravel(), len(found), correct, table.geometry_aware)
    with np.errstate(invalid="ignore"):
        columns = found, sums[..., 0], sums[..., 1:] / sums[..., :1]
    return tuple(
        KeypointScore(
            category=table.names[category],
            id=each,
            name=names.get(table.names[category], {}).get(each) or f"keypoint {each}",
            keypoints=dict(zip(SETS, totals, strict=True)),
            values=dict(zip(SETS, map(tuple, values), strict=True)),
        )
        for (category, each), totals, values in zip(*map(np.ndarray.tolist, columns), strict=True)
        if names.get(table.names[category]) != {}  # points that are no parts
    )
