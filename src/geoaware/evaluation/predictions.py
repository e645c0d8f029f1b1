"""The predictions file: one JSON object a line, a header first (docs/evaluation.md has every key).

`make_record` writes what `read` needs and nothing more: scoring never looks at a data set again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoaware._version import __version__
from geoaware.evaluation.counts import PointTable
from geoaware.evaluation.prediction_table import read_predictions
from geoaware.method.metrics.geometry_aware import pair_mask
from geoaware.runs.errors import InputError, quoted
from geoaware.runs.files import PART, record_line
from geoaware.runs.tables import is_table, read_about

if TYPE_CHECKING:
    from geoaware.evaluation.protocols import Protocol
    from geoaware.method.keypoints import Schema
    from geoaware.method.types import Pair

FORMAT = "geoaware predictions"
FORMAT_VERSION = 1
BEGIN = f'{{"format":"{FORMAT}"'
"""How every such file begins, white space aside."""

_COLUMNS = {
    **dict.fromkeys(("azimuth", "pair", "keypoint", "first", "wanted", "partner"), "q"),
    **dict.fromkeys(("size", "predicted", "truth", "target"), "d"),
    "geometry_aware": "b",
}
"""Columns of a `PointTable` that are gathered, with their types as `array` calls them."""
_DTYPES: dict[str, type[Any]] = {"q": np.int64, "d": np.float64, "b": np.bool_}


def versions() -> dict[str, str]:
    """Of the packages that compute, as headers have them."""
    from PIL import __version__ as pillow
    from torch import __version__ as torch

    return {"geoaware": __version__, "torch": str(torch), "pillow": pillow}


@dataclass(frozen=True)
class Header:
    """First line of the file: what was predicted, with what; no time and no place, so that runs compare.

    Attributes:
        protocol: its name; ``settings`` have the rules of one that is not geoaware's own.
        pairs: number of records that a whole file has.
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
        return record_line({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @property
    def rules(self) -> Protocol:
        """The protocol that the file was predicted under.

        Raises:
            InputError: its name is not known, and the settings have no rules of it.
        """
        from geoaware.evaluation.protocols import Protocol, get_protocol
        from geoaware.runs.settings import checked

        given = self.settings.get("protocol")
        if not isinstance(given, Mapping):
            return get_protocol(self.protocol)
        return get_protocol(Protocol(**checked(Protocol, {**given, "name": self.protocol}, "the protocol")))

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

    Without a schema no keypoint counts as geometry-aware. The target's other keypoints, which error types
    need, are left out where several answers are right, or where the points are no parts with names.

    Raises:
        InputError: not one prediction per common keypoint, or the protocol cannot be applied to the target.
    """
    ids = pair.common_ids
    if len(predicted) != len(ids):
        raise InputError(
            f"pair {pair.id}: {len(predicted)} predictions for {len(ids)} common keypoints; match the points "
            "pair.source.keypoints.at(pair.common_ids)"
        )
    record = {
        "pair": pair.id,
        "category": pair.category,
        "source": pair.source.id,
        "target": pair.target.id,
        "keypoint_ids": list(ids),
        "predicted": [list(map(float, point)) for point in predicted],
        "truth": pair.truth(predicted).tolist(),
        "size": protocol.size(pair.target),
        "geometry_aware": [False] * len(ids) if schema is None else pair_mask(pair, schema).tolist(),
        "pose": pose,
        "azimuth_difference": pair.azimuth_difference,
    }
    if pair.answers is None and (schema is None or schema.names):
        there = pair.target.keypoints.visible_ids
        places = pair.target.keypoints.at(there).tolist()
        record["target_keypoints"] = dict(zip(map(str, there), places, strict=True))
    return record


def hash_pairs(pairs: Iterable[Pair]) -> str:
    """SHA-256 of everything in the pairs that predictions and figures depend on; not of image files."""
    digest, known = hashlib.sha256(), dict[int, str]()
    for pair in pairs:
        for each in (pair.source, pair.target):
            if id(each) not in known:
                ids = each.keypoints.visible_ids
                places = each.keypoints.at(ids).tolist()
                known[id(each)] = record_line([each.id, each.size, each.box, ids, places])
        digest.update(record_line([pair.id, pair.category, pair.azimuth_difference]).encode())
        digest.update((known[id(pair.source)] + known[id(pair.target)]).encode())
        if pair.answers is not None:
            digest.update(record_line(sorted(pair.answers.items())).encode())
    return digest.hexdigest()


def read(path: Path) -> tuple[Header, PointTable]:
    """Read a whole predictions file.

    Raises:
        InputError: it is missing, not whole, of another format or inconsistent; the message says where.
    """
    lines = _lines(path)
    where, first = next(lines, ("", None))
    if first is None:
        raise InputError(f"{path}: is empty; write predictions with `geoaware predict`")
    header = parse_header(first, where)
    table = _table(lines, header.schemas, str(path))
    found = len(table.category)
    if header.pairs is not None and found != header.pairs:
        raise InputError(
            f"{path}: holds {found} of the {header.pairs} pairs that its header announces; {_remedy(path)}"
        )
    if not found:
        raise InputError(f"{path}: holds no predictions, only a header")
    return header, table


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that `read` has checked, one after the other."""
    if is_table(path):
        yield from read_predictions(path)
        return
    with path.open("rb") as file:
        next(file)
        yield from map(json.loads, file)


def parse_header(value: Any, where: str) -> Header:
    """The header from the first line's JSON; `InputError` where it is none, or of another version."""
    if not isinstance(value, dict) or not isinstance(value.get("protocol"), str):
        from geoaware.data.files import known_as  # brings torch, which scoring does without

        what = f"not the header of a predictions file (no protocol){known_as(value)}"
        raise InputError(f"{where}: {what}; is this another file?")
    if value.get("format", FORMAT) != FORMAT or value.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise InputError(
            f"{where}: format {quoted(value.get('format'))} version "
            f"{quoted(value.get('format_version'))}, but "
            f"{FORMAT!r} version {FORMAT_VERSION} is needed; predict again"
        )
    known = {key: value[key] for key in value.keys() & Header.__dataclass_fields__.keys()}
    for key in ("settings", "versions", "hashes", "schemas"):
        if not isinstance(known.get(key, {}), dict):
            raise InputError(f"{where}: {key} of the header must be an object")
    header = Header(**known)
    try:
        asdict(header)
    except RecursionError:
        raise InputError(f"{where}: the header is nested too deeply; is this another file?") from None
    return header


def from_records(found: Iterable[Mapping[str, Any]], schemas: Mapping[str, Mapping[str, Any]]) -> PointTable:
    """Records in memory as a table; ``schemas`` as in the header."""
    named = ((f"record {number}", record) for number, record in enumerate(found, start=1))
    return _table(named, schemas, "records")


def _table(
    lines: Iterable[tuple[str, Any]], schemas: Mapping[str, Mapping[str, Any]], path: str
) -> PointTable:
    """Records with where they stand, as a table."""
    builder = _Builder(schemas)
    for where, record in lines:
        try:
            builder.add(record, where)
        except KeyError as error:
            raise InputError(f"{where}: the key {error} is missing in this record; predict again") from None
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise InputError(f"{where}: a value of this record is of the wrong kind; predict again") from None
    table = builder.table()
    if not (np.isfinite(table.size).all() and (table.size > 0).all()):
        raise InputError(f"{path}: a threshold base (size) is not a positive number; predict again")
    if not all(np.isfinite(each).all() for each in (table.predicted, table.truth, table.target)):
        raise InputError(f"{path}: a point is not finite; predict again")
    if builder.has_targets and not np.array_equal(table.target[table.wanted], table.truth):
        raise InputError(f"{path}: truth and target_keypoints disagree; predict again")
    return table


class _Builder:
    """Gathers records into flat arrays, one record at a time: their Python objects are never all alive."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self.has_targets = True
        self._seen: dict[str, str] = {}
        self._categories: list[str] = []
        self._partners = {name: _partners(schema, name) for name, schema in schemas.items()}
        self._columns: dict[str, array[Any]] = {name: array(kind) for name, kind in _COLUMNS.items()}
        self._columns["first"].append(0)

    def add(self, record: Any, where: str) -> None:
        """Take one record in."""
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object")
        name, ids = record["pair"], record["keypoint_ids"]
        if self._seen.setdefault(name, where) is not where:
            raise InputError(
                f"{where}: pair {name!r} came before ({self._seen[name]}); was a file joined twice?"
            )
        lengths = {key: len(record[key]) for key in ("predicted", "truth", "geometry_aware")}
        if any(length != len(ids) for length in lengths.values()) or len(set(ids)) != len(ids):
            raise InputError(f"{where}: {len(ids)} keypoint_ids, possibly repeated, but {lengths}")
        flags, category, size = (record[key] for key in ("geometry_aware", "category", "size"))
        if any(flag not in (True, False) for flag in flags):
            raise InputError(
                f"{where}: geometry_aware holds {quoted(flags)}; expected true or false for each point"
            )
        if not isinstance(category, (str, int)) or isinstance(size, bool):
            raise InputError(
                f"{where}: category {quoted(category)} is no name, or size {quoted(size)} no number"
            )
        azimuth = record["azimuth_difference"]
        if azimuth is not None and azimuth not in (0, 1, 2, 3, 4):
            raise InputError(f"{where}: azimuth_difference is {quoted(azimuth)}; expected 0 … 4 or null")
        self._columns["azimuth"].append(-1 if azimuth is None else azimuth)
        self._columns["size"].append(size)
        self._columns["pair"].extend([len(self._categories)] * len(ids))
        self._columns["keypoint"].extend(ids)
        self._columns["geometry_aware"].extend(map(bool, flags))
        self._categories.append(str(category))
        for key in ("predicted", "truth"):
            self._add_points(key, record[key], where)
        self._add_targets(record.get("target_keypoints"), ids, where)

    def _add_targets(self, there: Any, ids: Sequence[int], where: str) -> None:
        """Files of other programs may have no target keypoints; then no error types can be told."""
        self.has_targets &= there is not None
        if not self.has_targets:
            return
        start = self._columns["first"][-1]
        rows = {int(each): start + number for number, each in enumerate(there)}
        missing = [each for each in ids if each not in rows]
        if missing:
            raise InputError(f"{where}: keypoint {missing[0]} is evaluated but not among target_keypoints")
        partners = self._partners.get(self._categories[-1], {})
        self._columns["wanted"].extend(rows[each] for each in ids)
        self._columns["partner"].extend(rows.get(partners.get(each, -1), -1) for each in ids)
        self._columns["first"].append(start + len(there))
        self._add_points("target", there.values(), where)

    def _add_points(self, key: str, points: Collection[Sequence[float]], where: str) -> None:
        flat = self._columns[key]
        before = len(flat)
        flat.extend(chain.from_iterable(points))
        if len(flat) - before != 2 * len(points):
            raise InputError(f"{where}: points must be [x, y]")

    def table(self) -> PointTable:
        """The columns as arrays."""
        columns = {name: np.array(each, _DTYPES[each.typecode]) for name, each in self._columns.items()}
        if not self.has_targets:
            columns["wanted"] = columns["partner"] = np.full(len(columns["pair"]), -1, dtype=np.int64)
            columns["first"] = np.zeros(len(self._categories) + 1, dtype=np.int64)
            columns["target"] = np.zeros(0)
        for name in ("predicted", "truth", "target"):
            columns[name] = columns[name].reshape(-1, 2)
        names = sorted(set(self._categories))
        return PointTable(
            names=tuple(names),
            category=np.array([names.index(each) for each in self._categories], dtype=np.int64),
            **columns,
        )


def _partners(schema: Any, name: str) -> dict[int, int]:
    """Flip partner by annotation id."""
    try:
        pairs = [(int(a), int(b)) for a, b in schema.get("flip_pairs", ())]
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"schema of {name!r} in the header: flip_pairs must be pairs of ids") from None
    return {**dict(pairs), **{b: a for a, b in pairs}}


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of every line; a last line without its end is a file that was cut off."""
    if not path.is_file():
        from geoaware.data.names import alike  # brings torch, which scoring does without

        raise InputError(f"{path}: no such file{alike(path)}; write it with `geoaware predict`")
    if is_table(path):
        yield f"{path}: metadata", read_about(path) or {}
        yield from ((f"{path}: pair {number}", each) for number, each in enumerate(read_predictions(path), 1))
        return
    for number, line in enumerate(_raw_lines(path), start=1):
        try:
            value = json.loads(line if line.endswith(b"\n") else b"")
        except (ValueError, RecursionError):
            if number == 1:
                _refuse_other_kind(path)
            cut = not line.endswith(b"\n")
            what = f"is cut off; {_remedy(path)}" if cut else "is not JSON; is this a predictions file?"
            raise InputError(f"{path}, line {number}: {what}") from None
        yield f"{path}, line {number}", value


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        try:
            yield from file
        except OSError as error:  # which names no file
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse_other_kind(path: Path) -> None:
    from geoaware.data.files import file_known_as  # brings torch

    known = file_known_as(path)
    if known and not known.endswith("a predictions file"):
        raise InputError(f"{path}: is no predictions file{known}; give one of `geoaware predict`")


def _remedy(path: Path) -> str:
    """What to do with a file that is not whole."""
    if path.suffix == PART:
        return "run `geoaware predict` again with the same options to finish it"
    return "fetch it again, or predict again from the start"
