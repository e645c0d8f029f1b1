"""The predictions file: one JSON object a line, a header first (docs/evaluation.md has every key).

`make_record` writes what `read` needs and nothing more: scoring never looks at a data set again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoaware.evaluation.counts import PointTable
from geoaware.method.metrics.geometry_aware import pair_mask
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.evaluation.protocols import Protocol
    from geoaware.method.keypoints import Schema
    from geoaware.method.types import Pair

FORMAT = "geoaware predictions"
FORMAT_VERSION = 1
PART = ".part"
"""Ends the name of a file that is still being written."""


@dataclass(frozen=True)
class Header:
    """First line of the file: what was predicted, with what; no time and no place, so that runs compare.

    Attributes:
        protocol: name of the protocol; decides threshold base and comparison when the file is scored.
        pairs: number of records that a whole file has.
        dataset: name of the data set.
        split: of the data set.
        extractor: name and settings of the features that are matched, post-processor and blend included.
        settings: everything else that decides the predictions (matching, pose, device, dtype …).
        versions: of the packages that compute.
        hashes: SHA-256 of the pairs with their annotations, of the extractor's weights and of the
            post-processor's, if there is one.
        schemas: by category: names (by annotation id), flip_pairs and subgroups of its keypoints.
    """

    protocol: str
    pairs: int | None = None
    dataset: str = ""
    split: str = ""
    extractor: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_line(self) -> str:
        """As it stands in the file, with the line's end."""
        return _line({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @property
    def about(self) -> dict[str, Any]:
        """What reports quote; the schemas are left out for their length."""
        return {key: value for key, value in asdict(self).items() if key != "schemas" and value}


def describe_schema(schema: Schema) -> dict[str, Any]:
    """A schema as it stands in the header."""
    return {
        "names": list(schema.names),
        "flip_pairs": [list(pair) for pair in schema.flip_pairs],
        "subgroups": {name: list(ids) for name, ids in schema.subgroups.items()},
    }


def keypoint_names(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[int, str]]:
    """Names by category and annotation id, from schemas as they stand in the header."""
    return {name: dict(enumerate(schema.get("names", ()))) for name, schema in schemas.items()}


def make_record(
    pair: Pair, schema: Schema | None, protocol: Protocol, predicted: Sequence[Sequence[float]], pose: str
) -> dict[str, Any]:
    """One pair's line: what was found for ``pair.common_ids``, in that order, in the target's pixels.

    Without a schema no keypoint counts as geometry-aware.

    Raises:
        InputError: not one prediction per common keypoint, or the protocol cannot be applied to the target.
    """
    ids, keypoints = pair.common_ids, pair.target.keypoints
    if len(predicted) != len(ids):
        raise InputError(
            f"pair {pair.id}: {len(predicted)} predictions for {len(ids)} common keypoints; match the points "
            "pair.source.keypoints.at(pair.common_ids)"
        )
    there = keypoints.visible_ids
    return {
        "pair": pair.id,
        "category": pair.category,
        "source": pair.source.id,
        "target": pair.target.id,
        "keypoint_ids": list(ids),
        "predicted": [list(map(float, point)) for point in predicted],
        "truth": keypoints.at(ids).tolist(),
        "size": protocol.size(pair.target),
        "geometry_aware": [False] * len(ids) if schema is None else pair_mask(pair, schema).tolist(),
        "pose": pose,
        "azimuth_difference": pair.azimuth_difference,
        "target_keypoints": {
            str(each): point for each, point in zip(there, keypoints.at(there).tolist(), strict=True)
        },
    }


def record_line(record: Mapping[str, Any]) -> str:
    """A record as it stands in the file, with the line's end."""
    return _line(record)


def hash_pairs(pairs: Iterable[Pair]) -> str:
    """SHA-256 of everything in the pairs that predictions and figures depend on; not of image files."""
    digest, known = hashlib.sha256(), dict[int, str]()
    for pair in pairs:
        for each in (pair.source, pair.target):
            if id(each) not in known:
                ids = each.keypoints.visible_ids
                places = each.keypoints.at(ids).tolist()
                known[id(each)] = _line([each.id, each.size, each.box, ids, places])
        digest.update(_line([pair.id, pair.category, pair.azimuth_difference]).encode())
        digest.update((known[id(pair.source)] + known[id(pair.target)]).encode())
    return digest.hexdigest()


def read(path: Path) -> tuple[Header, PointTable]:
    """Read a whole predictions file.

    Raises:
        InputError: no such file, empty, not JSON lines, cut off, of another format, or inconsistent; the
            message names the file, the line and the remedy.
    """
    lines = _lines(path)
    number, first = next(lines, (0, None))
    if first is None:
        raise InputError(f"{path}: is empty; write predictions with `geoaware predict`")
    header = parse_header(first, f"{path}, line {number}")
    builder = _Builder(header.schemas)
    for number, record in lines:
        builder.add(record, f"{path}, line {number}")
    found = len(builder.names)
    if header.pairs is not None and found != header.pairs:
        raise InputError(
            f"{path}: holds {found} of the {header.pairs} pairs that its header announces; {_remedy(path)}"
        )
    if not found:
        raise InputError(f"{path}: holds no predictions, only a header")
    return header, builder.table(path)


def parse_header(value: Any, where: str) -> Header:
    """The header from the first line's JSON.

    Raises:
        InputError: it is none, or of another version.
    """
    if not isinstance(value, dict) or not isinstance(value.get("protocol"), str):
        raise InputError(
            f"{where}: not the header of a predictions file (no protocol); is this another file?"
        )
    if value.get("format", FORMAT) != FORMAT or value.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise InputError(
            f"{where}: format {value.get('format')!r} version {value.get('format_version')!r}, but "
            f"{FORMAT!r} version {FORMAT_VERSION} is needed; predict again"
        )
    known = {key: value[key] for key in Header.__dataclass_fields__ if key in value}
    for key in ("settings", "versions", "hashes", "schemas"):
        if not isinstance(known.get(key, {}), dict):
            raise InputError(f"{where}: {key} of the header must be an object")
    return Header(**known)


def from_records(
    records: Iterable[Mapping[str, Any]], schemas: Mapping[str, Mapping[str, Any]]
) -> PointTable:
    """Records in memory as a table; ``schemas`` as in the header."""
    builder = _Builder(schemas)
    for number, record in enumerate(records, start=1):
        builder.add(record, f"record {number}")
    return builder.table("records")


class _Builder:
    """Gathers records into flat arrays, one record at a time: their Python objects are never all alive."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self.names: dict[str, str] = {}
        self.categories: list[str] = []
        self.azimuth, self.first = array("q"), array("q", [0])
        self.pair, self.keypoint = array("q"), array("q")
        self.wanted, self.partner = array("q"), array("q")
        self.size, self.predicted, self.truth, self.target = (array("d") for _ in range(4))
        self.aware = bytearray()
        self.has_targets = True
        self._partners = {name: _partners(schema, name) for name, schema in schemas.items()}

    def add(self, record: Any, where: str) -> None:
        """Take one record in.

        Raises:
            InputError: it lacks a key, is inconsistent, or came before.
        """
        try:
            self._add(record, where)
        except KeyError as error:
            raise InputError(f"{where}: the key {error} is missing in this record; predict again") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: a value of this record is of the wrong kind ({error})") from None

    def _add(self, record: Any, where: str) -> None:
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object")
        name, category, ids = record["pair"], str(record["category"]), record["keypoint_ids"]
        if self.names.setdefault(name, where) is not where:
            raise InputError(
                f"{where}: pair {name!r} came before ({self.names[name]}); was a file joined twice?"
            )
        lengths = {key: len(record[key]) for key in ("predicted", "truth", "geometry_aware")}
        if any(length != len(ids) for length in lengths.values()) or len(set(ids)) != len(ids):
            raise InputError(f"{where}: {len(ids)} keypoint_ids, possibly repeated, but {lengths}")
        azimuth = record["azimuth_difference"]
        if azimuth is not None and azimuth not in (0, 1, 2, 3, 4):
            raise InputError(f"{where}: azimuth_difference is {azimuth!r}; expected 0 … 4 or null")
        row = len(self.categories)
        self.categories.append(category)
        self.azimuth.append(-1 if azimuth is None else azimuth)
        self.size.append(record["size"])
        self.pair.extend([row] * len(ids))
        self.keypoint.extend(ids)
        _extend(self.predicted, record["predicted"], where)
        _extend(self.truth, record["truth"], where)
        self.aware.extend(bool(each) for each in record["geometry_aware"])
        self._add_targets(record.get("target_keypoints"), ids, category, where)

    def _add_targets(self, there: Any, ids: Sequence[int], category: str, where: str) -> None:
        """Files of other programs may have no target keypoints; then no error types can be told."""
        if there is None:
            self.has_targets = False
        if not self.has_targets:
            return
        start = self.first[-1]
        rows = {int(each): start + number for number, each in enumerate(there)}
        missing = [each for each in ids if each not in rows]
        if missing:
            raise InputError(f"{where}: keypoint {missing[0]} is evaluated but not among target_keypoints")
        partners = self._partners.get(category, {})
        self.wanted.extend(rows[each] for each in ids)
        self.partner.extend(rows.get(partners.get(each, -1), -1) for each in ids)
        _extend(self.target, list(there.values()), where)
        self.first.append(start + len(there))

    def table(self, path: Path | str) -> PointTable:
        """The arrays.

        Raises:
            InputError: a number is not finite, a size not positive, or a true point not its target keypoint.
        """
        names = tuple(sorted(set(self.categories)))
        position = {name: index for index, name in enumerate(names)}
        pairs, points = len(self.categories), len(self.pair)
        size, truth, target = _array(self.size), _xy(self.truth), _xy(self.target)
        if not (np.isfinite(size).all() and (size > 0).all()):
            raise InputError(f"{path}: a threshold base (size) is not a positive number; predict again")
        predicted = _xy(self.predicted)
        if not (np.isfinite(predicted).all() and np.isfinite(truth).all() and np.isfinite(target).all()):
            raise InputError(f"{path}: a point is not finite; predict again")
        whole = self.has_targets
        wanted = _array(self.wanted) if whole else np.full(points, -1)
        if whole and not np.array_equal(target[wanted], truth):
            raise InputError(f"{path}: truth and target_keypoints disagree; predict again")
        return PointTable(
            names=names,
            category=np.array([position[each] for each in self.categories], dtype=np.int64),
            azimuth=_array(self.azimuth),
            size=size,
            pair=_array(self.pair),
            keypoint=_array(self.keypoint),
            predicted=predicted,
            truth=truth,
            geometry_aware=np.array(self.aware, dtype=bool),
            target=target if whole else np.zeros((0, 2)),
            first=_array(self.first) if whole else np.zeros(pairs + 1, dtype=np.int64),
            wanted=wanted,
            partner=_array(self.partner) if whole else np.full(points, -1),
        )


def _partners(schema: Any, name: str) -> dict[int, int]:
    """Flip partner by annotation id."""
    try:
        pairs = [(int(a), int(b)) for a, b in schema.get("flip_pairs", ())]
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"schema of {name!r} in the header: flip_pairs must be pairs of ids") from None
    return {**dict(pairs), **{b: a for a, b in pairs}}


def _extend(flat: array[float], points: Sequence[Sequence[float]], where: str) -> None:
    before = len(flat)
    flat.extend(chain.from_iterable(points))
    if len(flat) - before != 2 * len(points):
        raise InputError(f"{where}: points must be [x, y]")


def _array(values: array[Any]) -> np.ndarray:
    return np.array(values, dtype=np.float64 if values.typecode == "d" else np.int64)


def _xy(values: array[float]) -> np.ndarray:
    return _array(values).reshape(-1, 2)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of every line.

    Raises:
        InputError: the file is missing, not text, or a line is no JSON; a last line without its end is a file
            that was cut off.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with `geoaware predict`")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except ValueError:
                raise InputError(_broken(path, number, line)) from None
            if not line.endswith(b"\n"):
                raise InputError(_broken(path, number, line))
            yield number, value


def _broken(path: Path, number: int, line: bytes) -> str:
    if not line.endswith(b"\n"):
        return f"{path}, line {number}: is cut off; {_remedy(path)}"
    return f"{path}, line {number}: is not JSON; is this a predictions file?"


def _remedy(path: Path) -> str:
    """What to do with a file that is not whole."""
    if path.suffix == PART:
        return "run `geoaware predict` again with the same options to finish it"
    return "fetch it again, or predict again with --restart"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
