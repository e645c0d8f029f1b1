"""A folder of images into a store, from where an earlier run stopped: the files are what is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from geoaware.data.images import load_image
from geoaware.features.extractor import Extractor
from geoaware.method.geometry import Pose, pose_image
from geoaware.runs.errors import InputError
from geoaware.runs.places import is_remote
from geoaware.runs.work import Batch, Engine, Local, batched, one_thread
from geoaware.store.feature_store import FeatureStore, UnwritableError
from geoaware.store.image_index import hash_pixels
from geoaware.store.memory import measured, plan_batch
from geoaware.store.stored_file import encoded_size

Progress = Callable[[int], object]
"""Told how many images (or files) are done, as they are done."""


def _silent(_: object) -> None:
    """Tell nobody."""


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
    """What a run will take: files to be made, bytes of them all and free bytes on disk, images at a time.

    How much is free at a URL is not known (``None``).
    """

    files: int
    bytes: int
    free: int | None
    batch: int

    def __str__(self) -> str:
        free = "" if self.free is None else f" ({self.free / 1e9:,.1f} GB free)"
        size = f"{self.bytes / 1e6:,.1f} MB on disk{free}"
        return f"{self.files} files to extract, {size}, {self.batch} at a time"

    def check(self, cache: Path) -> None:
        """Make sure that a cache folder has room for the files; `InputError` if not."""
        if self.free is not None and self.bytes > self.free:
            raise InputError(
                f"{cache}: {self.bytes / 1e6:,.1f} MB are needed on this disk, {self.free / 1e6:,.1f} MB are "
                "free; make room, choose another folder, or store the features as int8 (half of fp16)"
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
    store.index.flush()
    return found


def check(
    paths: Sequence[Path],
    poses: Sequence[Pose],
    store: FeatureStore,
    progress: Progress = _silent,
) -> tuple[list[str], list[str]]:
    """Read the files whole; lines on missing files, and on what cannot be read.

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
    for image, pose, _ in store.entries():
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
    sharers: int = 1,
    engine: Engine | None = None,
    announce: Callable[[Estimate], object] = _silent,
    progress: Progress = _silent,
) -> int:
    """Extract what a survey found missing, and write it file by file; how many files were written.

    One image is computed beforehand: its maps say how much disk all will take, its peak of memory how many
    fit together. Images that fail are added to ``work.failed``; the rest goes on.

    Args:
        work, extractor, store: what is missing, what computes it, and where it goes.
        batch: images at a time; by free memory if not given.
        memory: bytes that the computation may take, beside the weights.
        sharers: processes that share the device and do the same.
        engine: what does the work; this process if not given.
        announce: told what the run will take, before anything is written.
        progress: told of files as they are done.

    Raises:
        InputError: the disk has less room than the files take, or not one image fits the memory.
        DiskFullError: the disk became full; what is finished stays.
    """
    units = [(task, pose) for task in work.tasks for pose in task.poses]
    job = _Job(units, extractor, store, store.damaged())
    written, failed = 0, dict[int, str]()
    with one_thread():
        each_alone = chain.from_iterable(map(job.load, batched(len(units), 1)))
        first = next((each for each in each_alone if isinstance(each, Image.Image)), None)
        if first is not None:
            levels, each = measured(lambda: extractor.levels_of([first]), extractor.device)
            batch = batch or plan_batch(each, extractor.device, memory, sharers)
            size = work.files * encoded_size([level.shape[1:] for level in levels], store.key.stored)
            estimate = Estimate(work.files, size, free_disk(store.folder), batch)
            announce(estimate)
            estimate.check(store.folder.parent)
        for numbers, results in (engine or Local()).results(job, batched(len(units), batch or 1)):
            written += results.count(WRITTEN)
            failed |= {number: each for number, each in zip(numbers, results, strict=True) if each}
            progress(len(results))
    # An image is named once, however many of its poses failed.
    work.failed += dict.fromkeys(failed[number] for number in sorted(failed))
    return written


WRITTEN = ""
"""The result of an image that was written; ``None``: another process did so; else why it failed."""


def free_disk(folder: Path) -> int | None:
    """Bytes that are free where a folder is or would be; ``None`` at a URL, where nobody knows."""
    if is_remote(folder):
        return None
    return shutil.disk_usage(
        next(each for each in (folder, *folder.absolute().parents) if each.exists())
    ).free


@dataclass(frozen=True)
class _Job:
    """The files to be made, by their images and poses; those that are damaged are made anew."""

    units: Sequence[tuple[Task, Pose]]
    extractor: Extractor
    store: FeatureStore
    damaged: set[tuple[str, Pose]]

    @property
    def device(self) -> str:
        return self.extractor.device.type

    def load(self, batch: Batch) -> list[Image.Image | str | None]:
        """Turned images; ``None`` for what another process made meanwhile, or why there is no image."""
        images = dict[Path, Image.Image]()
        return [self._load(*self.units[number], images) for number in batch]

    def _load(self, task: Task, pose: Pose, images: dict[Path, Image.Image]) -> Image.Image | str | None:
        if (task.image, pose) not in self.damaged and self.store.has(task.image, pose):
            return None
        try:
            if task.path not in images:
                images[task.path] = _unchanged(task)
            return pose_image(images[task.path], pose)
        except InputError as error:
            return str(error)

    def work(self, batch: Batch, loaded: list[Image.Image | str | None]) -> list[str | None]:
        """`WRITTEN`, ``None``, or why there are no features."""
        images = [each for each in loaded if isinstance(each, Image.Image)]
        levels = self.extractor.levels_of(images) if images else ()
        maps = ([level[row] for level in levels] for row in range(len(images)))
        return [
            self._write(number, each, next(maps)) if isinstance(each, Image.Image) else each
            for number, each in zip(batch, loaded, strict=True)
        ]

    def _write(self, number: int, image: Image.Image, maps: Sequence[Tensor]) -> str:
        task, pose = self.units[number]
        try:
            self.store.write(task.image, pose, maps, image.size)
        except UnwritableError:
            raise
        except InputError as error:  # a value that cannot be stored fails its image alone
            return f"{task.path}: {error}"
        return WRITTEN


def _unchanged(task: Task) -> Image.Image:
    image = load_image(task.path)
    if hash_pixels(image) != task.image:
        raise InputError(f"{task.path}: changed while geoaware was running; run it again")
    return image
