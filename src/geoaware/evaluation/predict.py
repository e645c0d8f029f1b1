"""The first loop: where every pair's keypoints are found (`runs.records` keeps what is done).

The same bytes come out whether or not a run was interrupted, and however many processes work on it, because
nothing depends on what was done before: images are extracted in fixed batches, and the cache only decides how
often.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from geoaware.data import DataSet, object_mask
from geoaware.data.images import load_annotated
from geoaware.data.masks import has_mask
from geoaware.evaluation.prediction_table import write_predictions
from geoaware.evaluation.predictions import (
    BEGIN,
    Header,
    describe_schema,
    hash_pairs,
    make_record,
    parse_header,
    record_line,
    versions,
)
from geoaware.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from geoaware.matcher import Matcher
from geoaware.method.alignment import CANDIDATES, MirroredPoints, match_posed, mirror_points
from geoaware.method.geometry import Pose, pose_image
from geoaware.method.matching import MatchSettings
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.presets import defaults_of
from geoaware.result import Encoded
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.files import check_same_run, draft_name, replacing, scratch
from geoaware.runs.places import is_remote, place
from geoaware.runs.progress import Tell, silent
from geoaware.runs.recent import Recent
from geoaware.runs.records import Records, Run, complete
from geoaware.runs.settings import checked
from geoaware.runs.tables import is_table, read_about
from geoaware.runs.work import Batch, Engine, Local, cores

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from geoaware.method.keypoints import Schema
    from geoaware.method.post_processor import PostProcessor

_log = logging.getLogger(__name__)

MATCHING = ("auto", "paper", "extractor")
"""Choices of `matching_settings`."""


@dataclass(frozen=True)
class PredictSettings:
    """How a data set is predicted, beside what the matcher already holds.

    Attributes:
        protocol: name of the protocol, or one of your own.
        labels: whether a mirrored source is read at the keypoint's partner as annotated (the † of the paper's
            tables), else at the partner that the features find.
        masks: whether the pose is chosen on the annotated object mask of the source (IMD; by the released
            protocol on those of both images), else by the matcher's pose rule.
        batch: images extracted together; 0: one on a CPU, eight elsewhere. Part of the header, because the
            last bits of features can depend on it.
        cache_bytes: how much the features kept in memory may take.
    """

    protocol: str | Protocol = "paper"
    labels: bool = True
    masks: bool = False
    batch: int = 0
    cache_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        get_protocol(self.protocol)
        if self.batch < 0:
            raise InputError(f"a batch must hold at least one image, got {self.batch}")


def matching_settings(
    extractor: str,
    protocol: str | Protocol,
    choice: str = "auto",
    changes: Mapping[str, Any] | None = None,
    post_processor: PostProcessor | None = None,
) -> MatchSettings:
    """How similarity becomes position in an evaluation.

    Args:
        extractor: name of the extractor.
        protocol: it, or its name.
        choice: ``"auto"``: the window and temperature measured for the features (`matcher.defaults_of`),
            looking where the protocol looks (paper and released: padding too, unclamped; released: cells
            outside the window count as 0).
            ``"paper"``: the paper's constants, zero-shot or, with a post-processor, supervised.
            ``"extractor"``: what `Matcher` does for users, whatever the protocol.
        changes: single settings to change, by their names in `MatchSettings`.
        post_processor: what refines the features, if anything does.

    Raises:
        InputError: unknown choice, name or value.
    """
    if choice not in MATCHING:
        raise InputError(f"unknown matching {choice!r}; choose {', '.join(MATCHING)}")
    base = defaults_of(extractor, post_processor).match
    if choice == "paper":
        base = MatchSettings(window=11 if post_processor is None else 15)
    if choice == "auto":
        rules = get_protocol(protocol)
        base = replace(base, inside_picture=rules.inside_picture)
        base = replace(base, outside="zero") if rules.released_pose else base
    given = checked(MatchSettings, changes or {}, "matching")
    try:
        return replace(base, **given)
    except ValueError as error:
        raise InputError(f"matching: {error}") from None


def choose_pairs(dataset: DataSet, count: int | None, seed: int = 0) -> DataSet:
    """The data set with ``count`` of its pairs, chosen by a seed, in its own order; all when ``None``.

    The choice depends on the pairs' ids only, so it is the same on every machine; a smaller choice is part of
    a larger one.

    Raises:
        InputError: the count is not positive.
    """
    if count is None or count >= len(dataset.pairs):
        return dataset
    if count < 1:
        raise InputError(f"the number of pairs must be at least 1, got {count}")
    rank = {pair.id: hashlib.sha256(f"{seed}:{pair.id}".encode()).digest() for pair in dataset.pairs}
    chosen = set(sorted(rank, key=lambda each: rank[each])[:count])
    return replace(dataset, pairs=tuple(pair for pair in dataset.pairs if pair.id in chosen))


def scorable(dataset: DataSet, protocol: Protocol) -> DataSet:
    """The data set without the pairs whose target lacks the box that the protocol takes its threshold from.

    A data set without any box is handed back as it is.
    """
    if protocol.base != "box":
        return dataset
    kept = tuple(pair for pair in dataset.pairs if pair.target.box is not None)
    if len(kept) in (0, len(dataset.pairs)):
        return dataset
    left = len(dataset.pairs) - len(kept)
    _log.info("%d of %d pairs are left out, their targets have no box", left, len(dataset.pairs))
    return replace(dataset, pairs=kept)


def predict(
    dataset: DataSet,
    matcher: Matcher,
    path: str | os.PathLike[str],
    settings: PredictSettings | None = None,
    *,
    engine: Engine | None = None,
    restart: bool = False,
    progress: Tell = silent,
) -> Path:
    """Match every pair of a data set and write the predictions file.

    Args:
        dataset: what to predict.
        matcher: extractor, post-processor, matching settings and pose setting. One that was made without
            matching settings looks where the protocol looks, as the command line does.
        path: the file to write; beside it ``.part`` holds what is done so far.
        settings: see there.
        engine: what does the work; this process if not given.
        restart: discard what an earlier run left instead of going on.
        progress: is told the number of pairs done and to do, after each pair.

    Returns:
        The path. A whole file of the same run is left as it is.

    Raises:
        InputError: files of another run are in the way, an image is missing or damaged, or the protocol does
            not fit the data set.
    """
    chosen = settings or PredictSettings()
    protocol = get_protocol(chosen.protocol)
    work = _Work(scorable(dataset, protocol), _suited(matcher, protocol), chosen)
    _check(work)
    goal = place(path)
    with _sharing(work, goal, engine) as job:
        complete(_Predictions(job), goal, engine, restart=restart, tell=progress)
    return goal


def _suited(matcher: Matcher, protocol: Protocol) -> Matcher:
    """The matcher with what the protocol decides; settings that somebody chose for it stay."""
    suited = copy(matcher)
    if matcher.settings is matcher.defaults.match:
        suited.settings = matching_settings(
            matcher.extractor.name, protocol, post_processor=matcher.post_processor
        )
    if protocol.released_pose:
        suited.pose_rule = matcher.pose_rule.as_released()
    return suited


@dataclass(frozen=True)
class _Work:
    """Everything that decides the predictions; and where several processes share features, and how many."""

    dataset: DataSet
    matcher: Matcher
    settings: PredictSettings
    shared: Path | None = None
    processes: int = 1

    @property
    def protocol(self) -> Protocol:
        return get_protocol(self.settings.protocol)

    @property
    def batch(self) -> int:
        return self.matcher.together(self.settings.batch)

    @property
    def poses(self) -> tuple[Pose, ...]:
        return CANDIDATES[self.matcher.pose]

    def header(self) -> Header:
        """As it comes back from a file."""
        provenance = self.matcher.extractor.provenance()
        header = Header(
            protocol=self.protocol.name,
            pairs=len(self.dataset.pairs),
            dataset=self.dataset.name,
            split=self.dataset.split,
            extractor=self.matcher.identity,
            settings={
                "matching": asdict(self.matcher.settings),
                "pose": self.matcher.pose,
                "pose_rule": asdict(self.matcher.pose_rule),
                "labels": self.settings.labels,
                "masks": self.settings.masks,
                "batch": self.batch,
                **({} if self.protocol.name in PROTOCOLS else {"protocol": asdict(self.protocol)}),
                **provenance.settings,
            },
            versions=versions(),
            hashes={"pairs": hash_pairs(self.dataset.pairs), **provenance.hashes},
            schemas={name: describe_schema(self.dataset.schemas[name]) for name in self.dataset.categories},
        )
        return parse_header(json.loads(header.to_line()), "header")


def _check(work: _Work) -> None:
    """Find out before the work begins what would stop it later.

    Raises:
        InputError: no pair, a repeated pair id, a target that the protocol cannot be applied to, or an image
            without the mask that is asked for.
    """
    dataset, protocol = work.dataset, work.protocol
    if not dataset.pairs:
        raise InputError(f"{dataset.name}, split {dataset.split}: there are no pairs to predict")
    if len({pair.id for pair in dataset.pairs}) < len(dataset.pairs):
        raise InputError(f"{dataset.name}, split {dataset.split}: pair ids repeat; each pair needs its own")
    for target in {pair.target.id: pair.target for pair in dataset.pairs}.values():
        protocol.size(target)
    if work.settings.masks:
        for pair in dataset.pairs:
            for side in (pair.source, pair.target)[: 1 + protocol.released_pose]:
                if not has_mask(side):
                    raise InputError(
                        f"{side.id}: the data set has no mask of this object; predict without masks", "masks"
                    )


@contextmanager
def _sharing(work: _Work, goal: Path, engine: Engine | None) -> Iterator[_Work]:
    """The work with a folder beside the result in which processes find each other's features, meanwhile."""
    if not isinstance(engine, Local) or engine.workers == 1:
        yield work
        return
    with ExitStack() as held:
        if is_remote(goal):
            folder = held.enter_context(scratch())
        else:
            folder = goal.with_name(draft_name(goal.stem, ".features"))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
        yield replace(work, shared=folder, processes=engine.workers or cores())


class _Predictions(Run):
    """The predictions file: a header, and a line for each pair."""

    what = "predicting"
    begins = part_begins = BEGIN

    def __init__(self, work: _Work) -> None:
        self._work, self._header = work, work.header()
        self._rows = {pair.id: row for row, pair in enumerate(work.dataset.pairs)}

    @property
    def job(self) -> _Job:
        return _Job(self._work)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self) -> Sequence[Batch]:
        """Each pair is one; those that follow each other share images."""
        return [(row,) for row in _plan(self._work)]

    def is_current(self, goal: Path) -> bool:
        if is_table(goal):
            self.check_head(read_about(goal), goal)
            return True
        with goal.open("rb") as file:
            try:
                content = json.loads(file.readline())
            except (ValueError, RecursionError):
                raise InputError(
                    f"{goal}: exists and is no predictions file; choose another file", "out"
                ) from None
            self.check_head(content, goal)
            if sum(line.endswith(b"\n") for line in file) != len(self):
                raise InputError(f"{goal}: is cut off; restart to predict again", "restart")
        return True

    def head(self) -> str:
        return self._header.to_line()

    def check_head(self, content: Any, part: Path) -> None:
        check_same_run(asdict(parse_header(content, f"{part}, line 1")), asdict(self._header), part)

    def place(self, content: Any) -> int:
        """The row of a record's pair; it must have as many points as the pair."""
        row = self._rows[content["pair"]]
        lengths = {len(content[key]) for key in ("keypoint_ids", "predicted", "truth", "geometry_aware")}
        if lengths != {len(self._work.dataset.pairs[row].common_ids)}:
            raise ValueError(lengths)
        return row

    def write(self, draft: Path, records: Records) -> None:
        if is_table(draft):
            write_predictions(draft, json.loads(self.head()), map(json.loads, records.lines()))
            return
        with draft.open("wb") as out:
            out.write(self.head().encode(errors="backslashreplace"))
            out.writelines(records.lines())


def _record(pair: Pair, work: _Work, source: Encoded, target: Encoded) -> dict[str, Any]:
    schema = work.dataset.schemas[pair.category]
    if work.settings.masks:
        source = replace(source, mask=object_mask(pair.source))
        if work.protocol.released_pose:
            target = replace(target, mask=object_mask(pair.target))
    points, mirrored = _queries(pair, schema, work)
    source = work.matcher.holding(source, points[: len(pair.source.keypoints.visible_ids)])
    # The pose that brings the source nearest to the target, and where each keypoint is read in it.
    settings = work.matcher.settings
    try:
        aligned = work.matcher.align(source, target, work.matcher.pose)
        matches = match_posed(aligned.maps, target.maps["identity"], points, aligned.pose, settings, mirrored)
    except NotFiniteError as error:
        raise NotFiniteError(f"pair {pair.id}: {error}") from None
    # Of all that was matched, the keypoints that both images show are kept.
    row = {each: number for number, each in enumerate(pair.source.keypoints.visible_ids)}
    predicted = matches.points[[row[each] for each in pair.common_ids]].tolist()
    return make_record(pair, schema, work.protocol, predicted, aligned.pose)


def _queries(pair: Pair, schema: Schema, work: _Work) -> tuple[Tensor, MirroredPoints | None]:
    """All visible keypoints of the source, and where they are read in its mirror image.

    Keypoints that only the source shows are there too: they are partners of those that are evaluated.
    """
    visible, common = pair.source.keypoints.visible_ids, set(pair.common_ids)
    seen = set(visible)
    # A partner that is not visible gets a row, marked so: its keypoint then keeps its straight match.
    absent = [partner for each in visible if (partner := schema.partner(each)) not in seen]
    rows = {each: number for number, each in enumerate([*visible, *absent])}
    places = [*visible, *(schema.partner(each) for each in absent)]
    points = pair.source.keypoints.at(places).double()
    if not work.settings.labels:
        return points, None
    width, height = pair.source.size
    if work.protocol.flip == "edge":
        # Mirroring at the image's edge, w - x, is mirroring an image one pixel wider at its last pixel.
        width += 1
    partners = [rows[schema.partner(each)] for each in rows]
    known = [each in (common if work.protocol.released_pose else seen) for each in rows]
    return points, mirror_points(points, (width, height), partners, known)


def _images(pairs: Sequence[Pair]) -> dict[Path, AnnotatedImage]:
    """The images by their files, in the order of their first appearance."""
    found = dict[Path, AnnotatedImage]()
    for pair in pairs:
        found.setdefault(pair.target.path, pair.target)
        found.setdefault(pair.source.path, pair.source)
    return found


def _plan(work: _Work) -> list[int]:
    """Rows of the pairs in the order of work.

    Pairs are worked off in square blocks of images that fit the cache, back and forth, so that an image is
    rarely extracted twice however the data set orders its pairs.
    """
    pairs = work.dataset.pairs
    block = max(work.settings.cache_bytes // (work.matcher.map_bytes * len(work.poses) * 2), 1)
    blocks = {path: number // block for number, path in enumerate(_images(pairs))}

    def key(row: int) -> tuple[int, int, int]:
        down, across = blocks[pairs[row].source.path], blocks[pairs[row].target.path]
        return down, -across if down % 2 else across, row

    return sorted(range(len(pairs)), key=key)


class _Job:
    """Matches pairs. Encoded images are kept within a number of bytes, and extracted in fixed batches.

    Images are numbered by first appearance; ``batch`` of them in a row are extracted together whenever one
    is needed. Several processes leave what they extract in a folder for each other, and remove what has been
    there the longest when there is no room.
    """

    def __init__(self, work: _Work) -> None:
        self._work, self._images = work, _images(work.dataset.pairs)
        self.device = work.matcher.extractor.device.type
        self._sources = {pair.source.path for pair in work.dataset.pairs}
        self._uses = Counter(path for pair in work.dataset.pairs for path in _paths(pair))
        self._paths = list(self._images)
        self._number = {path: number for number, path in enumerate(self._paths)}
        self._room = work.settings.cache_bytes // work.processes
        # The batch just made and the one of the other image of a pair stay, whatever the limit.
        self._kept: Recent[Path, Encoded] = Recent(self._room, _size, least=2 * work.batch)
        self._left = deque[tuple[Path, int]]()

    def load(self, batch: Batch) -> dict[Path, Image.Image]:
        """The images of all extraction batches that these pairs need, without those that are kept."""
        pairs = [self._work.dataset.pairs[row] for row in batch]
        paths = [side.path for pair in pairs for side in (pair.source, pair.target)]
        groups = {self._group(each) for each in paths if each not in self._kept}
        there = {n for n in groups if (file := self._file(n)) is not None and file.exists()}
        return {path: load_annotated(self._images[path]) for n in groups - there for path in self._members(n)}

    def work(self, batch: Batch, loaded: dict[Path, Image.Image]) -> list[str]:
        lines = []
        for pair in (self._work.dataset.pairs[row] for row in batch):
            source, target = self._get(pair.source, loaded), self._get(pair.target, loaded)
            lines.append(record_line(_record(pair, self._work, source, target)))
        return lines

    def _get(self, image: AnnotatedImage, loaded: dict[Path, Image.Image]) -> Encoded:
        """The image with its features, in every pose if it is the source of any pair."""
        if image.path not in self._kept:
            for path, encoded in self._made(self._group(image.path), loaded).items():
                self._kept[path] = encoded
        return self._kept[image.path]

    def _group(self, path: Path) -> int:
        return self._number[path] // self._work.batch

    def _members(self, group: int) -> list[Path]:
        batch = self._work.batch
        return self._paths[group * batch : (group + 1) * batch]

    def _file(self, group: int) -> Path | None:
        """Where processes find what another one has extracted; none where one process does all."""
        shared = self._work.shared if multiprocessing.parent_process() is not None else None
        return None if shared is None else shared / f"{group}.pt"

    def _made(self, group: int, loaded: dict[Path, Image.Image]) -> dict[Path, Encoded]:
        """A batch: as another process has left it, or extracted here."""
        file = self._file(group)
        if file is None or all(self._uses[path] == 1 for path in self._members(group)):
            return self._extract(group, loaded)  # no other process will look for it
        file.parent.mkdir(parents=True, exist_ok=True)
        # Who comes second waits for what the first one extracts.
        with _locked(file):
            if file.exists():
                found: dict[Path, Encoded] = torch.load(file, mmap=True, weights_only=False)
                return found
            made = self._extract(group, loaded)
            self._leave(made, file)
            return made

    def _leave(self, made: dict[Path, Encoded], file: Path) -> None:
        """Write a batch for the other processes."""
        size = sum(map(_size, made.values()))
        while self._left and self._room < size:
            oldest, taken = self._left.popleft()
            with _locked(oldest), suppress(OSError):  # on Windows: open elsewhere
                oldest.unlink()
            self._room += taken
        if self._room >= size:
            with replacing(file) as draft:
                torch.save(made, draft)
            self._left.append((file, size))
            self._room -= size

    def _extract(self, group: int, loaded: dict[Path, Image.Image]) -> dict[Path, Encoded]:
        """Extract a batch in every pose that its images are needed in."""
        paths = self._members(group)
        fresh = {path: Encoded(loaded.get(path) or load_annotated(self._images[path])) for path in paths}
        for pose in self._work.poses:
            turned = [path for path in paths if pose == "identity" or path in self._sources]
            if not turned:
                continue
            canvases = None
            if pose != "identity":
                canvases = [fresh[path].maps["identity"].canvas.posed(pose) for path in turned]
            images = [pose_image(fresh[path].image, pose) for path in turned]
            for path, features in zip(turned, self._work.matcher.features(images, canvases), strict=True):
                fresh[path].maps[pose] = features
        return fresh


def _paths(pair: Pair) -> set[Path]:
    return {pair.source.path, pair.target.path}


def _locked(file: Path) -> BaseFileLock:
    """Held while one process makes a file that all share, or removes it."""
    from filelock import FileLock

    return FileLock(f"{file}.lock", poll_interval=0.002)


def _size(encoded: Encoded) -> int:
    maps = sum(each.data.nbytes for each in encoded.maps.values())
    return maps + 3 * encoded.image.width * encoded.image.height
