"""The first loop: where every pair's keypoints are found (`runs.records` keeps what is done).

The same bytes come out whether or not a run was interrupted, and however many processes work on it, because
nothing depends on what was done before: images are extracted in fixed batches, and the cache only decides how
often.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
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
    versions,
)
from geoaware.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from geoaware.matcher import Matcher
from geoaware.method.alignment import CANDIDATES, MirroredPoints, match_posed, mirror_points
from geoaware.method.geometry import pose_image
from geoaware.method.matching import MatchSettings
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.presets import defaults_of
from geoaware.result import Encoded
from geoaware.runs import work
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.files import record_line, replacing
from geoaware.runs.places import place
from geoaware.runs.progress import Tell, silent
from geoaware.runs.recent import Recent
from geoaware.runs.records import Records, Run, complete
from geoaware.runs.settings import checked
from geoaware.runs.tables import is_table, read_about
from geoaware.runs.work import Batch, Engine, batched

if TYPE_CHECKING:
    from geoaware.method.keypoints import Schema
    from geoaware.method.post_processor import PostProcessor

_log = logging.getLogger(__name__)

_Group = dict[Path, Encoded]
"""Images that are extracted together."""

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
    protocol, goal = get_protocol(chosen.protocol), place(path)
    job = _Job(scorable(dataset, protocol), _suited(matcher, protocol), chosen)
    job.check()
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


class _Predictions(Run):
    """The predictions file: a header, and a line for each pair."""

    what = "predicting"
    begins = part_begins = BEGIN

    def __init__(self, job: _Job) -> None:
        super().__init__(json.loads(job.header().to_line()), len(job.pairs), (each.id for each in job.pairs))
        self._job = job

    @property
    def job(self) -> _Job:
        return self._job

    def batches(self) -> Sequence[Batch]:
        """Each pair is one; those that follow each other share images."""
        return [(row,) for row in self._job.plan()]

    def is_current(self, goal: Path) -> bool:
        with goal.open("rb") as file:
            try:
                content = read_about(goal) if is_table(goal) else json.loads(file.readline())
            except (ValueError, RecursionError):
                raise InputError(
                    f"{goal}: exists and is no predictions file; choose another file", "out"
                ) from None
            self.check_head(content, goal)
            if not is_table(goal) and sum(line.endswith(b"\n") for line in file) != len(self):
                raise InputError(f"{goal}: is cut off; restart to predict again", "restart")
        return True

    def check_head(self, content: Any, part: Path) -> None:
        parse_header(content, f"{part}, line 1")
        super().check_head(content, part)

    def place(self, content: Any) -> int:
        """The row of a record's pair; it must have as many points as the pair."""
        row = self.places[content["pair"]]
        lengths = {len(content[key]) for key in ("keypoint_ids", "predicted", "truth", "geometry_aware")}
        if lengths != {len(self._job.pairs[row].common_ids)}:
            raise ValueError(lengths)
        return row

    def write(self, draft: Path, records: Records) -> None:
        if is_table(draft):
            write_predictions(draft, self.about, map(json.loads, records.lines()))
            return
        with draft.open("wb") as out:
            out.write(self.head().encode(errors="backslashreplace"))
            out.writelines(records.lines())


class _Job:
    """Matches pairs. Encoded images are kept within a number of bytes, and extracted in fixed batches.

    Images are grouped by first appearance; a group is extracted together whenever one of it is needed.
    Several processes leave what they extract in a folder for each other, and remove what has been there the
    longest when there is no room.
    """

    def __init__(self, dataset: DataSet, matcher: Matcher, settings: PredictSettings) -> None:
        self.dataset, self.matcher, self.settings = dataset, matcher, settings
        self.pairs, self.protocol = dataset.pairs, get_protocol(settings.protocol)
        self.device, self.poses = matcher.extractor.device.type, CANDIDATES[matcher.pose]
        self.batch = matcher.together(settings.batch)
        self._images = dict[Path, AnnotatedImage]()
        for pair in self.pairs:
            for side in (pair.target, pair.source):
                self._images.setdefault(side.path, side)
        paths = list(self._images)
        self._groups = [paths[each.start : each.stop] for each in batched(len(paths), self.batch)]
        self._number = {path: number for number, group in enumerate(self._groups) for path in group}
        self._sources = {pair.source.path for pair in self.pairs}
        self._uses = Counter(path for pair in self.pairs for path in {pair.source.path, pair.target.path})

    @cached_property
    def _room(self) -> int:
        return self.settings.cache_bytes // work.among.processes

    @cached_property
    def _kept(self) -> Recent[int, _Group]:
        # The group just made and the one of the other image of a pair stay, whatever the limit.
        return Recent(self._room, _size, least=2)

    @cached_property
    def _left(self) -> Recent[Path, int]:
        """Files for other processes, with their sizes."""
        return Recent(self._room, int, least=0, dropped=_remove)

    def header(self) -> Header:
        """What is predicted with what."""
        matcher, provenance = self.matcher, self.matcher.extractor.provenance()
        return Header(
            protocol=self.protocol.name,
            pairs=len(self.pairs),
            dataset=self.dataset.name,
            split=self.dataset.split,
            extractor=matcher.identity,
            settings={
                **matcher.how(),
                "labels": self.settings.labels,
                "masks": self.settings.masks,
                "batch": self.batch,
                **({} if self.protocol.name in PROTOCOLS else {"protocol": asdict(self.protocol)}),
                **provenance.settings,
            },
            versions=versions(),
            hashes={"pairs": hash_pairs(self.pairs), **provenance.hashes},
            schemas={name: describe_schema(self.dataset.schemas[name]) for name in self.dataset.categories},
        )

    def check(self) -> None:
        """Find out before the work begins what would stop it later.

        Raises:
            InputError: no pair, a repeated pair id, a target that the protocol cannot be applied to, or an
                image without the mask that is asked for.
        """
        where = f"{self.dataset.name}, split {self.dataset.split}"
        if not self.pairs:
            raise InputError(f"{where}: there are no pairs to predict")
        if len({pair.id for pair in self.pairs}) < len(self.pairs):
            raise InputError(f"{where}: pair ids repeat; each pair needs its own")
        for target in {pair.target.id: pair.target for pair in self.pairs}.values():
            self.protocol.size(target)
        for pair in self.pairs if self.settings.masks else ():
            for side in (pair.source, pair.target)[: 1 + self.protocol.released_pose]:
                if not has_mask(side):
                    raise InputError(
                        f"{side.id}: the data set has no mask of this object; predict without masks", "masks"
                    )

    def plan(self) -> list[int]:
        """Rows of the pairs in the order of work.

        Pairs are worked off in square blocks of images that fit the cache, back and forth, so that an image
        is rarely extracted twice however the data set orders its pairs.
        """
        block = max(self.settings.cache_bytes // (self.matcher.map_bytes * len(self.poses) * 2), 1)
        blocks = {path: number // block for number, path in enumerate(self._images)}

        def key(row: int) -> tuple[int, int, int]:
            down, across = (blocks[side.path] for side in (self.pairs[row].source, self.pairs[row].target))
            return down, -across if down % 2 else across, row

        return sorted(range(len(self.pairs)), key=key)

    def load(self, batch: Batch) -> dict[Path, Image.Image]:
        """The images of all groups that these pairs need, without those that are kept or left."""
        pairs = [self.pairs[row] for row in batch]
        groups = {self._number[side.path] for pair in pairs for side in (pair.source, pair.target)}
        files = {each: self._file(each) for each in groups if each not in self._kept}
        wanted = [each for each, file in files.items() if file is None or not file.exists()]
        return {path: load_annotated(self._images[path]) for each in wanted for path in self._groups[each]}

    def work(self, batch: Batch, loaded: dict[Path, Image.Image]) -> list[str]:
        lines = []
        for pair in (self.pairs[row] for row in batch):
            source, target = (self._get(side.path, loaded) for side in (pair.source, pair.target))
            lines.append(record_line(self._record(pair, source, target)))
        return lines

    def _record(self, pair: Pair, source: Encoded, target: Encoded) -> dict[str, Any]:
        schema, visible = self.dataset.schemas[pair.category], pair.source.keypoints.visible_ids
        if self.settings.masks:
            source = replace(source, mask=object_mask(pair.source))
            if self.protocol.released_pose:
                target = replace(target, mask=object_mask(pair.target))
        points, mirrored = self._queries(pair, schema)
        source = self.matcher.holding(source, points[: len(visible)])
        # The pose that brings the source nearest to the target, and where each keypoint is read in it.
        try:
            found = self.matcher.align(source, target, self.matcher.pose)
            there, settings = target.maps["identity"], self.matcher.settings
            matches = match_posed(found.maps, there, points, found.pose, settings, mirrored)
        except NotFiniteError as error:
            raise NotFiniteError(f"pair {pair.id}: {error}") from None
        # Of all that was matched, the keypoints that both images show are kept.
        rows = {each: row for row, each in enumerate(visible)}
        predicted = matches.points[[rows[each] for each in pair.common_ids]].tolist()
        return make_record(pair, schema, self.protocol, predicted, found.pose)

    def _queries(self, pair: Pair, schema: Schema) -> tuple[Tensor, MirroredPoints | None]:
        """All visible keypoints of the source, and where they are read in its mirror image.

        Keypoints that only the source shows are there too: they are partners of those that are evaluated.
        """
        visible = pair.source.keypoints.visible_ids
        seen = set(visible)
        # A partner that is not visible gets a row, marked so: its keypoint then keeps its straight match.
        ids = list(dict.fromkeys([*visible, *map(schema.partner, visible)]))
        places = [each if each in seen else schema.partner(each) for each in ids]
        points = pair.source.keypoints.at(places).double()
        if not self.settings.labels:
            return points, None
        width, height = pair.source.size
        # Mirroring at the image's edge, w - x, is mirroring an image one pixel wider at its last pixel.
        size = (width + (self.protocol.flip == "edge"), height)
        shown = set(pair.common_ids) if self.protocol.released_pose else seen
        rows = {each: row for row, each in enumerate(ids)}
        partners, known = [rows[schema.partner(each)] for each in ids], [each in shown for each in ids]
        return points, mirror_points(points, size, partners, known)

    def _get(self, path: Path, loaded: dict[Path, Image.Image]) -> Encoded:
        """The image with its features, in every pose if it is the source of any pair."""
        group = self._number[path]
        if group not in self._kept:
            self._kept[group] = self._made(group, loaded)
        return self._kept[group][path]

    def _file(self, group: int) -> Path | None:
        """Where another process finds what is extracted here; none where no other will look for it."""
        folder, again = work.among.folder, any(self._uses[path] > 1 for path in self._groups[group])
        return folder / f"{group}.pt" if folder is not None and again else None

    def _made(self, group: int, loaded: dict[Path, Image.Image]) -> _Group:
        """A group: as another process has left it, or extracted here."""
        from filelock import FileLock

        file = self._file(group)
        if file is None:
            return self._extract(group, loaded)
        # Who comes second waits for what the first one extracts.
        with FileLock(f"{file}.lock", poll_interval=0.002):
            with suppress(OSError, RuntimeError):  # nobody has left it, or it has just made room
                found: _Group = torch.load(file, mmap=True, weights_only=False)
                return found
            made = self._extract(group, loaded)
            self._leave(made, file)
            return made

    def _leave(self, made: _Group, file: Path) -> None:
        """Write a group for the other processes."""
        size = _size(made)
        if size <= self._room:
            self._left[file] = size
            with suppress(OSError, RuntimeError), replacing(file) as draft:  # the disk may be full
                torch.save(made, draft)

    def _extract(self, group: int, loaded: dict[Path, Image.Image]) -> _Group:
        """Extract a group in every pose that its images are needed in."""
        paths = self._groups[group]
        fresh = {path: Encoded(loaded.get(path) or load_annotated(self._images[path])) for path in paths}
        for pose in self.poses:
            turned = [path for path in paths if pose == "identity" or path in self._sources]
            canvases = None
            if pose != "identity":
                canvases = [fresh[path].maps["identity"].canvas.posed(pose) for path in turned]
            images = [pose_image(fresh[path].image, pose) for path in turned]
            for path, features in zip(turned, self.matcher.features(images, canvases), strict=True):
                fresh[path].maps[pose] = features
        return fresh


def _remove(file: Path) -> None:
    with suppress(OSError):  # on Windows: open elsewhere
        file.unlink()


def _size(group: _Group) -> int:
    maps = sum(each.data.nbytes for encoded in group.values() for each in encoded.maps.values())
    return maps + sum(3 * each.image.width * each.image.height for each in group.values())
