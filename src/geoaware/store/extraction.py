"""A folder of images into a store: this process's share of them, from where an earlier run stopped.

Under ``torchrun`` or ``accelerate launch`` every process takes each WORLD_SIZE-th image. The processes
share nothing but the cache folder and never wait for one another.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from geoaware.data.images import load_image
from geoaware.features.extractor import Extractor
from geoaware.method.geometry import Pose, pose_image
from geoaware.runs.errors import InputError
from geoaware.store.feature_store import FeatureStore, UnwritableError
from geoaware.store.image_index import hash_pixels
from geoaware.store.memory import is_out_of_memory, measured, plan_batch
from geoaware.store.stored_file import encoded_size

T = TypeVar("T")

Progress = Callable[[int], object]
"""Told how many images (or files) are done, as they are done."""

_log = logging.getLogger(__name__)


def _silent(_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Shard:
    """Which part of the work is this process's: its number of how many, in all and on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """As ``torchrun`` and ``accelerate launch`` say it; values that make no sense are an `InputError`."""
        values = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        for name in values.keys() & environment.keys():
            try:
                values[name] = int(environment[name])
            except ValueError:
                raise InputError(
                    f"{name} in the environment is {environment[name]!r}, a whole number was expected"
                ) from None
        rank, world, local_rank, local_world = values.values()
        if not 0 <= rank < world:
            raise InputError(
                f"RANK {rank} and WORLD_SIZE {world} in the environment do not go together; RANK is 0 … "
                "WORLD_SIZE - 1 (unset both for a single process)"
            )
        return cls(rank, world, local_rank, max(1, local_world))

    def of(self, whole: Sequence[T]) -> list[T]:
        """This process's share, of images say."""
        return list(whole[self.rank :: self.world])

    def device(self, wanted: str) -> str:
        """The device asked for; with ``auto`` or ``cuda`` on several GPUs, the one of this process."""
        gpus = torch.cuda.device_count()
        if wanted in ("auto", "cuda") and gpus and self.world > 1:
            return f"cuda:{self.local_rank % gpus}"
        return wanted

    def sharers(self, device: torch.device) -> int:
        """How many processes of this machine use the same device."""
        gpus = torch.cuda.device_count() if device.type == "cuda" else 1
        return -(-self.local_world // max(1, gpus))


_ALONE = Shard()


class Task(NamedTuple):
    """An image (file and hash) and the poses in which its features are missing."""

    path: Path
    image: str
    poses: tuple[Pose, ...]


@dataclass
class Survey:
    """What there is to do, how many files are there already, and which images cannot be read, and why."""

    tasks: list[Task] = field(default_factory=list)
    there: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Files to be made."""
        return sum(len(task.poses) for task in self.tasks)


@dataclass(frozen=True)
class Estimate:
    """What a run will take: files to be made, bytes of them all and free bytes on disk, images at a time."""

    files: int
    bytes: int
    free: int
    batch: int

    def __str__(self) -> str:
        return (
            f"{self.files} files to extract, {self.bytes / 1e6:,.1f} MB on disk "
            f"({self.free / 1e9:,.1f} GB free), {self.batch} at a time"
        )


def survey(
    paths: Sequence[Path], poses: Sequence[Pose], store: FeatureStore, progress: Progress = _silent
) -> Survey:
    """Find what is missing of the images; files that the last check found damaged are read again.

    Images whose pixels are the same are one.
    """
    found = Survey()
    seen: set[str] = set()
    damaged = store.damaged()

    def is_sound(image: str, pose: Pose) -> bool:
        unknown = (image, pose) in damaged  # another run may have mended it
        return store.has(image, pose) and not (unknown and store.check(image, pose))

    for path in paths:
        try:
            image = store.image(path)
        except InputError as error:
            found.failed.append(str(error))
        else:
            if image not in seen:
                seen.add(image)
                missing = tuple(pose for pose in poses if not is_sound(image, pose))
                found.there += len(poses) - len(missing)
                found.tasks += [Task(path, image, missing)] if missing else []
        progress(1)
    return found


def check(
    paths: Sequence[Path],
    poses: Sequence[Pose],
    store: FeatureStore,
    shard: Shard = _ALONE,
    progress: Progress = _silent,
) -> tuple[list[str], list[str]]:
    """Read this process's share of the files whole; lines on missing files, and on what cannot be read.

    What is damaged is written to the manifest, so that the next extraction mends it.
    """
    missing, wrong = [], []
    for path in paths:
        try:
            image = store.image(path)
            missing += [f"{path}: no features ({pose})" for pose in poses if not store.has(image, pose)]
        except InputError as error:
            wrong.append(str(error))
    damaged: list[tuple[str, Pose]] = []
    for image, pose, _ in shard.of(store.entries()):
        problem = store.check(image, pose)
        if problem is not None:
            damaged.append((image, pose))
            wrong.append(problem.partition(";")[0])
        progress(1)
    if store.folder.is_dir():
        store.update_manifest(damaged)
    return missing, wrong


def extract(
    work: Survey,
    extractor: Extractor,
    store: FeatureStore,
    *,
    batch: int | None = None,
    memory: int | None = None,
    shard: Shard = _ALONE,
    announce: Callable[[Estimate], object] = _silent,
    progress: Progress = _silent,
) -> int:
    """Extract what a survey found missing, and write it file by file; how many files were written.

    The first image is computed alone: its maps say how much disk the rest will take, its peak of memory how
    many fit together. Images that fail are added to ``work.failed``; the rest goes on.

    Args:
        work, extractor, store: what is missing, what computes it, and where it goes.
        batch: images at a time; by free memory if not given.
        memory: bytes that the computation may take, beside the weights.
        shard: this process's place among others, for the share of memory and disk.
        announce: told what the run will take, before anything is written.
        progress: told of files as they are done.

    Raises:
        InputError: the disk has less room than the files take, or not one image fits the memory.
        DiskFullError: the disk became full; what is finished stays.
    """
    run = _Run(work, extractor, store, progress)
    inputs = run.inputs()
    first = next(inputs, None)
    if first is None:
        return 0
    levels, each = measured(lambda: run.levels([first]), extractor.device)
    if batch is None:
        batch = plan_batch(each, extractor.device, memory, shard.sharers(extractor.device))
    size = work.files * encoded_size([level.shape[1:] for level in levels], store.key.stored)
    disk = next(each for each in (store.folder, *store.folder.parents) if each.exists())
    estimate = Estimate(work.files, size, shutil.disk_usage(disk).free, batch)
    announce(estimate)
    # The first process answers for all; the others see a disk that is being filled already.
    needed = estimate.bytes * (shard.world if shard.rank == 0 else 1)
    if needed > estimate.free:
        raise InputError(
            f"{store.folder.parent}: {needed / 1e6:,.1f} MB are needed on this disk, "
            f"{estimate.free / 1e6:,.1f} MB are free; make room, choose another folder, or store the "
            "features as int8 (half of fp16)"
        )
    run.write([first], levels)
    while waiting := list(islice(inputs, batch)):
        batch = run.compute(waiting)
    return run.written


class _Input(NamedTuple):
    task: Task
    pose: Pose
    image: Image.Image


@dataclass
class _Run:
    work: Survey
    extractor: Extractor
    store: FeatureStore
    progress: Progress
    written: int = 0

    def inputs(self) -> Iterator[_Input]:
        """Turned images to extract, in order; what another process made meanwhile is left out."""
        damaged = self.store.damaged()
        for task in self.work.tasks:
            try:
                image = load_image(task.path)
                if hash_pixels(image) != task.image:
                    raise InputError(f"{task.path}: changed while geoaware was running; run it again")
            except InputError as error:
                self.work.failed.append(str(error))
                self.progress(len(task.poses))
                continue
            for pose in task.poses:
                if (task.image, pose) not in damaged and self.store.has(task.image, pose):
                    self.progress(1)
                else:
                    yield _Input(task, pose, pose_image(image, pose))

    def levels(self, inputs: Sequence[_Input]) -> tuple[Tensor, ...]:
        """Raw maps of a batch; empty if it does not fit the memory, an error if it is a single image."""
        device = self.extractor.device
        try:
            return self.extractor.levels_of([each.image for each in inputs])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if len(inputs) == 1:
            remedy = "use a smaller canvas, half precision (bf16) or the CPU"
            raise InputError(f"one image does not fit the memory of {device}; {remedy}")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return ()

    def compute(self, inputs: Sequence[_Input]) -> int:
        """Extract and write, halving a batch that does not fit the memory; the size that fitted."""
        size, start = len(inputs), 0
        while part := inputs[start : start + size]:
            levels = self.levels(part)
            if levels:
                self.write(part, levels)
                start += len(part)
            else:
                size = len(part) // 2
                what = (len(part), self.extractor.device, size)
                _log.warning("a batch of %d did not fit the memory of %s: going on with %d", *what)
        return size

    def write(self, inputs: Sequence[_Input], levels: Sequence[Tensor]) -> None:
        """Store the maps of a batch; a value that cannot be stored fails its image alone."""
        for row, each in enumerate(inputs):
            maps = [level[row] for level in levels]
            try:
                self.store.write(each.task.image, each.pose, maps, each.image.size)
                self.written += 1
            except UnwritableError:
                raise
            except InputError as error:
                self.work.failed.append(f"{each.task.path}: {error}")
            self.progress(1)
