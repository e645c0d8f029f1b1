"""Features on disk: extract once, read many times, and never take one thing for another.

A cache folder holds one folder per *set*: the features of one extractor with its settings, weights and dtypes
(`SetKey`). Changed weights or settings are another set, in another folder. In it lies one file per image
and pose, named by the hash of the image's pixels, and a manifest that is derived from the files:

    CACHE/images.jsonl                                        which pixels an image file holds (a memory)
    CACHE/efficientnet-lite0-fp16-0123456789abcdef/manifest.json
    CACHE/efficientnet-lite0-fp16-0123456789abcdef/7f/7f….identity.safetensors

Any number of processes may write to a cache at once: files appear whole, under names that say what they are.

Example:
    >>> store = FeatureStore.open("cache/efficientnet-lite0-fp16-0123456789abcdef")    # doctest: +SKIP
    >>> store.read(store.image("cat.jpg"), "flip").levels                            # doctest: +SKIP
    >>> matcher = Matcher(CachedExtractor(extractor, store))                           # doctest: +SKIP
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geoaware.features.extractor import DTYPES, Extractor, Wrapped
from geoaware.method.geometry import POSES, Pose, opposite, pose_image
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_goals, replacing, sweep, writing
from geoaware.runs.places import Remote, is_remote, place
from geoaware.store.image_index import ImageIndex, hash_pixels
from geoaware.store.stored_file import (
    STORED,
    VERSION,
    DamagedError,
    FileKey,
    SetKey,
    Stored,
    StoredLevels,
    decode,
    encode,
)

MANIFEST = "manifest.json"
INDEX = "pictures.jsonl"

_NAME = re.compile(r"([0-9a-f]{64})\.(" + "|".join(map(re.escape, POSES)) + r")\.safetensors")
# Who still writes after so many looks will update the manifest at its own end.
_TRIES = 10
_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


class MissingFeaturesError(InputError):
    """The store has no features of this image in this pose."""


class UnwritableError(InputError):
    """The folder of the store cannot be written to."""


class DiskFullError(RuntimeError):
    """There is no room for another file; what is in the store stays."""


class Entry(NamedTuple):
    """A file of the store, known by its name and length only."""

    image: str
    pose: Pose
    bytes: int


def set_key(extractor: Extractor, stored: Stored = "fp16") -> SetKey:
    """What the features of a loaded extractor are; its weights are hashed."""
    if stored not in STORED:
        raise InputError(f"features cannot be stored as {stored!r}; choose {', '.join(STORED)}")
    computed = {dtype: name for name, dtype in DTYPES.items()}[extractor.dtype]
    return SetKey(extractor.name, extractor.identity, extractor.weights_hash(), computed, stored)


class FeatureStore:
    """The features of one set, on disk. Reading checks every byte and the key, every time.

    Args:
        folder: of the set.
        key: what the features are.
        keep: how many files stay mapped into memory between reads; takes addresses, not memory.
    """

    def __init__(self, folder: str | os.PathLike[str], key: SetKey, keep: int = 4096) -> None:
        self.folder = place(folder)
        self.key = key
        self.index = ImageIndex(self.folder.parent / INDEX)
        self._maps = _Maps(keep)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes open the store for themselves."""
        return FeatureStore, (self.folder, self.key)

    @classmethod
    def of(cls, cache: str | os.PathLike[str], extractor: Extractor, stored: Stored = "fp16") -> FeatureStore:
        """The store in a cache folder that belongs to a loaded extractor; nothing need be there yet."""
        key = set_key(extractor, stored)
        return cls(place(cache) / key.folder, key)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> FeatureStore:
        """The store of a set's folder, or of a cache folder with exactly one set; it needs no extractor.

        Raises:
            InputError: there is no store, or there are several.
        """
        root = place(folder)
        inside = sorted(root.iterdir()) if root.is_dir() else []
        sets = [root] if _is_set(root) else [each for each in inside if _is_set(each)]
        if not sets:
            raise InputError(
                f"{root}: no stored features here; make them: geoaware extract, or choose another folder"
            )
        if len(sets) > 1:
            names = ", ".join(each.name for each in sets)
            raise InputError(f"{root}: holds several sets of features ({names}); give the folder of one")
        manifest = _read_manifest(sets[0])
        if manifest is not None:
            return cls(sets[0], SetKey(**manifest["features"]))
        # Lost or damaged: any sound file says the same.
        sound = _first_sound(sets[0])
        if sound is None:
            raise InputError(
                f"{sets[0]}: neither a manifest nor any sound file; remove the folder and extract again"
            )
        return cls(sets[0], sound.key.features)

    def image(self, image: str | os.PathLike[str] | Image.Image) -> str:
        """Hash of the pixels of an upright RGB image, or of a file, which `ImageIndex` remembers."""
        return hash_pixels(image) if isinstance(image, Image.Image) else self.index.hash_of(image)

    def path(self, image: str, pose: Pose = "identity") -> Path:
        """Where the features of an image, given by its hash, are or would be."""
        return self.folder / image[:2] / f"{image}.{pose}.safetensors"

    def has(self, image: str, pose: Pose = "identity") -> bool:
        """Whether there is a file; only reading tells whether it is sound."""
        return self.path(image, pose).is_file()

    def read(self, image: str, pose: Pose = "identity") -> StoredLevels:
        """Raw maps of an image, given by its hash, in a pose.

        Maps stored as floats are the file's own bytes, mapped into memory (changing a tensor does not change
        the file).

        Raises:
            MissingFeaturesError: they are not in the store.
            DamagedError: the file is not what was written.
            OtherFeaturesError: the file holds something else.
        """
        path, key = self.path(image, pose), FileKey(self.key, image, pose)
        try:
            with suppress(DamagedError):
                return decode(self._maps.get(path), str(path), key)
            return decode(self._maps.get(path, anew=True), str(path), key)
        except FileNotFoundError:
            raise MissingFeaturesError(
                f"{path}: these features were not extracted; run geoaware extract with the same settings"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    def write(
        self, image: str, pose: Pose, levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int]
    ) -> StoredLevels:
        """Store the raw maps (c_i, h_i, w_i) of an image whole or not at all; give them as they will be read.

        ``image`` is the hash of its pixels before it was turned, ``size`` its width and height as turned.

        Raises:
            InputError: a value cannot be stored.
            UnwritableError: the folder cannot be written to.
            DiskFullError: no room is left.
        """
        path, key = self.path(image, pose), FileKey(self.key, image, pose)
        raw = encode(levels, size, key)
        self._write(path, raw)
        return decode(np.frombuffer(raw, np.uint8), str(path), key)

    def entries(self) -> list[Entry]:
        """Every file of the set, by name."""
        found = []
        for path, size in _files(self.folder):
            match = _NAME.fullmatch(path.name)
            if match is not None and path.parent.name == match[1][:2]:
                with suppress(FileNotFoundError):
                    length = path.stat().st_size if size is None else size
                    found.append(Entry(match[1], match[2], length))  # type: ignore[arg-type]
        return found

    def check(self, image: str, pose: Pose) -> str | None:
        """What is wrong with a file, read whole; ``None`` when it is sound."""
        path = self.path(image, pose)
        try:
            decode(_map(path), str(path), FileKey(self.key, image, pose))
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror})"
        return None

    def damaged(self) -> set[tuple[str, Pose]]:
        """Image and pose of the files that the manifest notes as damaged; of all, if its format is older."""
        known = _read_manifest(self.folder) or {}
        if known and known.get("version") != VERSION:
            return {(each.image, each.pose) for each in self.entries()}
        return set(map(tuple, known.get("damaged", [])))

    def update_manifest(self, damaged: Collection[tuple[str, Pose]] = ()) -> dict[str, Any]:
        """Write the manifest anew from the files; whichever process does so last leaves it right.

        A file that another process adds while this one counts is seen by one of the two: each looks again
        after it has written, until nothing changes. Files that a check found ``damaged`` are noted beside
        those noted before, as long as they are.
        """
        for _ in range(_TRIES):
            entries = self.entries()
            there = {(each.image, each.pose) for each in entries}
            suspects = there & {*self.damaged(), *damaged}
            sound = _first_sound(self.folder)
            content = {
                "format": "geoaware features",
                "version": VERSION,
                "features": asdict(self.key),
                "levels": None if sound is None else [list(level.shape) for level in sound.levels],
                "pictures": len({each.image for each in entries}),
                "files": len(entries),
                "poses": {pose: n for pose in POSES if (n := sum(each.pose == pose for each in entries))},
                "bytes": sum(each.bytes for each in entries),
                "damaged": sorted(list(each) for each in suspects if self.check(*each) is not None),
            }
            text = json.dumps({**content, "checksum": _digest(content)}, indent=1, sort_keys=True) + "\n"
            if _text(self.folder / MANIFEST) != text:
                self._write(self.folder / MANIFEST, text.encode())
            if self.entries() == entries:
                break
        return content

    def prepare(self) -> int:
        """Make the folder, and remove the drafts of killed processes (see `runs.files.sweep`), counted.

        Raises:
            UnwritableError: the folder cannot be made.
        """
        if is_remote(self.folder):
            try:
                check_goals(self.folder / MANIFEST)
            except InputError as error:
                raise UnwritableError(str(error)) from None
            return 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{self.folder}: cannot be made ({error.strerror}); choose another folder"
            raise UnwritableError(message) from None
        return sweep(self.folder, *self.folder.glob("??"))

    def _write(self, path: Path, raw: bytes | bytearray) -> None:
        """Write a file whole, on the disk and not only in memory, or leave things as they were."""
        try:
            if is_remote(path):
                with writing(path):
                    path.write_bytes(raw)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with replacing(path) as draft, draft.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFullError(
                    f"{self.folder.parent}: the disk is full; what is finished stays: make room and run the "
                    "same command again"
                ) from None
            message = f"{path}: cannot be written ({error.strerror}); choose another folder"
            raise UnwritableError(message) from None
        except InputError as error:
            raise UnwritableError(str(error)) from None


class _Maps:
    """Files that stay mapped between reads: mapping anew costs more than checking every byte.

    A mapping is given out again only when nobody holds tensors of it any more, so that no reader sees what
    another one wrote into its tensors; and only while the file is the same.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Of each file what it was when it was mapped, its bytes, and the last view that was given out.
        self._kept: dict[Path, tuple[tuple[int, ...], np.ndarray, ref[np.ndarray]]] = {}

    def get(self, path: Path, anew: bool = False) -> np.ndarray:
        """The bytes of a file: as they are mapped already, unless in use, changed or wanted anew."""
        if is_remote(path):
            return _map(path)
        state, kept = _state(path), self._kept.pop(path, None)
        raw = kept[1] if kept and kept[0] == state and kept[2]() is None and not anew else _map(path)
        view = raw.view()
        self._kept[path] = state, raw, ref(view)  # what was given out last stands last
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return view


class CachedExtractor(Wrapped):
    """An extractor that looks into a store first and puts there what it had to compute.

    It can stand wherever an extractor is taken (`Matcher`, evaluation). Images are known by their pixels; a
    turned image is also found as the turned form of an image that was extracted in several poses. What
    comes out is always what the store holds, rounded as it is stored, whether it was there before or not.

    Raises:
        InputError: the store belongs to another extractor, settings, weights or dtype; the message says what
            differs.
    """

    def __init__(self, extractor: Extractor, store: FeatureStore) -> None:
        super().__init__(extractor)
        wanted = set_key(extractor, store.key.stored)
        if wanted != store.key:
            raise InputError(
                f"{store.folder}: holds other features ({wanted.differences(store.key)}); "
                "extract into another folder, or use the settings and weights it was made with"
            )
        self.store = store
        self.stored = store.key.stored

    def weights_hash(self) -> str:
        """As the store has it: not computed again."""
        return self.store.key.weights

    @torch.inference_mode()
    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Raw maps (b, c_i, h_i, w_i), float32: read where they are stored, else computed in one batch."""
        rows = [self._find(image) for image in images]
        absent = [row for row, found in enumerate(rows) if found is None]
        if absent:
            fresh = self.extractor.levels_of([images[row] for row in absent])
            for number, row in enumerate(absent):
                image, levels = images[row], [level[number] for level in fresh]
                rows[row] = self.store.write(hash_pixels(image), "identity", levels, image.size)
        read = [found.levels for found in rows if found is not None]
        return tuple(
            torch.stack([each.float().to(self.device) for each in level]) for level in zip(*read, strict=True)
        )

    def _find(self, image: Image.Image) -> StoredLevels | None:
        """What is stored of an image, as itself or as the turned form of another; ``None`` if nothing is."""
        for pose in POSES:
            pixels = hash_pixels(pose_image(image, opposite(pose)))
            try:
                return self.store.read(pixels, pose)
            except MissingFeaturesError:
                continue
            except DamagedError as error:
                _log.warning("%s; computed anew", str(error).partition(";")[0])
        return None


def _files(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """The files of a set in their order; their lengths, where listing them says so."""
    if isinstance(folder, Remote):
        yield from folder.sizes().items()
    else:
        yield from ((path, None) for path in sorted(folder.glob("??/*.safetensors")))


def _is_set(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or bool(re.search(r"-(fp16|fp32|int8)-[0-9a-f]{16}$", folder.name))


def _first_sound(folder: Path) -> StoredLevels | None:
    """The first file of a set that is not damaged."""
    for path, _ in _files(folder):
        with suppress(InputError, OSError):
            return decode(_map(path), str(path))
    return None


def _text(path: Path) -> str | None:
    """A text, or ``None`` when it is absent or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or ``None`` when it is absent or not as it was written."""
    try:
        content = json.loads(_text(folder / MANIFEST) or "")
        checksum = content.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if checksum == _digest(content) else None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _map(path: Path) -> np.ndarray:
    """A file's bytes, mapped: read when touched; writing to them changes memory, not the file.

    From a URL they are fetched whole.
    """
    if is_remote(path):
        return np.frombuffer(bytearray(path.read_bytes()), np.uint8)
    size = path.stat().st_size
    if not size:
        return np.empty(0, np.uint8)
    try:
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:
        # torch has no OSError for this; a file that went away meanwhile is the usual cause.
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise OSError(errno.EIO, str(error).splitlines()[0], str(path)) from None
