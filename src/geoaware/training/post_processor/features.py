"""The features that a run needs: extracted where they are missing, then read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from geoaware.features import Extractor, load_extractor
from geoaware.method.geometry import Pose
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell, advancing
from geoaware.store.extraction import extract, survey
from geoaware.store.feature_store import CachedExtractor, FeatureStore
from geoaware.training.post_processor.augment import Example
from geoaware.training.post_processor.config import TrainConfig
from geoaware.training.processes import Shard


class StoredFeatures:
    """Raw maps of images by path and pose, from one store."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._hashes: dict[Path, str] = {}
        # Training reads ahead in a thread of its own, while validation reads too.
        self._lock = Lock()

    def levels(self, path: Path, pose: Pose = "identity") -> tuple[Tensor, ...]:
        """Raw maps (c_i, h_i, w_i), float32.

        Raises:
            InputError: they are missing or damaged.
        """
        with self._lock:
            if path not in self._hashes:
                self._hashes[path] = self.store.image(path)
            stored = self.store.read(self._hashes[path], pose)
        return tuple(level.float() for level in stored.levels)

    def batch(self, examples: Sequence[Example]) -> tuple[Tensor, ...]:
        """Raw maps (v, c_i, h_i, w_i) of all views of the examples, one after the other."""
        views = [
            self.levels(example.group.images[place].path, pose)
            for example in examples
            for place, pose in example.views
        ]
        return tuple(torch.stack(level) for level in zip(*views, strict=True))


def cached_extractor(config: TrainConfig, device: str) -> CachedExtractor:
    """A run's extractor, reading the run's cache and keeping there what it had to compute."""
    plain = load_extractor(config.extractor, device=device, **config.extractor_settings)
    return CachedExtractor(plain, FeatureStore.of(config.cache, plain, config.stored))


def complete(
    store: FeatureStore, extractor: Extractor, paths: Iterable[Path], poses: Sequence[Pose], tell: Tell
) -> int:
    """Extract what the store lacks of the images; under several processes this one's share.

    Returns:
        how many files were made.

    Raises:
        InputError: an image cannot be read, or the disk is too small; what is finished stays.
    """
    shard = Shard.from_environment()
    share = shard.of(sorted(set(paths)))
    store.prepare()
    work = survey(share, poses, store, advancing(tell, "looking for features", len(share)))
    if not work.failed and work.tasks:
        advance = advancing(tell, "extracting features", work.files)
        extract(work, extractor, store, sharers=shard.sharers(extractor.device), progress=advance)
    store.update_manifest()  # also where an earlier run was killed before it could
    if work.failed:
        raise InputError(f"{work.failed[0]} ({len(work.failed)} images failed; mend them and run again)")
    return work.files
