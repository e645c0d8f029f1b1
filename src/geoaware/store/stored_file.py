"""One file of stored features: raw maps, the key of what they are, and a checksum over every byte.

The file is an ordinary safetensors file. Its metadata holds one entry, ``geoaware``, a JSON object with the
checksum, the key and the size of the image. The maps are named ``level00``, ``level01`` …; stored in int8
each has a ``level00.scale`` beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import safetensors.torch
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from geoaware.method.geometry import Pose
from geoaware.runs.errors import InputError

Stored = Literal["fp16", "fp32", "int8"]
"""How maps are kept on disk. Largest error of a value: fp16 2^-11 of itself (or 3e-8), fp32 none, int8 1/254
of the largest value of its channel."""

STORED: tuple[Stored, ...] = get_args(Stored)

VERSION = 2

_TYPES = {"F16": torch.float16, "F32": torch.float32, "I8": torch.int8}
_MARK = b'\\"checksum\\":\\"'
_BLANK = b"0" * 32
_OLD = re.compile(rb'\\"version\\":1\b')


class DamagedError(InputError):
    """A file is not what was written: cut off, or a byte differs."""


class OtherFeaturesError(InputError):
    """A file is whole and holds something else than what was asked for."""


@dataclass(frozen=True)
class SetKey:
    """What the features of one folder are; two sets that differ in anything are never mixed.

    Attributes:
        name: of the extractor, as in the table.
        extractor: its identity: name and every setting.
        weights: SHA-256 of its weights.
        computed: dtype of the computation (fp32, bf16, fp16).
        stored: how the maps are kept.
    """

    name: str
    extractor: str
    weights: str
    computed: str
    stored: Stored

    @property
    def folder(self) -> str:
        """Name of the folder of the set: readable, and different for different keys."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        # Of a hub or of one's own, a name may hold what no folder's may.
        return f"{re.sub('[^0-9A-Za-z_.+-]', '-', self.name)}-{self.stored}-{digest[:16]}"

    def differences(self, other: SetKey) -> str:
        """Names and values of what differs, for messages."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{key} {_short(theirs[key])} instead of {_short(mine[key])}"
            for key in mine
            if mine[key] != theirs[key]
        )


@dataclass(frozen=True)
class FileKey:
    """What one file holds.

    Attributes:
        features: of which set.
        image: SHA-256 of the upright image's pixels, before it was turned.
        pose: how the image was turned.
    """

    features: SetKey
    image: str
    pose: Pose


@dataclass(frozen=True)
class StoredLevels:
    """What was read.

    Attributes:
        levels: raw maps (c_i, h_i, w_i), as `Extractor.levels_of` gives them: float16 or float32 as stored,
            float32 where they were stored in int8.
        size: width and height of the image as turned.
        key: what they are.
    """

    levels: tuple[Float[Tensor, "_ _ _"], ...]
    size: tuple[int, int]
    key: FileKey


def encode(levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int], key: FileKey) -> bytearray:
    """The bytes of a file.

    Raises:
        InputError: a value is not finite, or too large for fp16.
    """
    tensors: dict[str, Tensor] = {}
    for number, level in enumerate(levels):
        tensors.update(_packed(f"level{number:02}", level.detach().float().cpu(), key.features.stored))
    about = {
        "checksum": _BLANK.decode(),
        "version": VERSION,
        "features": asdict(key.features),
        "picture": key.image,
        "pose": key.pose,
        "size": list(size),
        "levels": [list(level.shape) for level in levels],
    }
    # A single entry: the order of several is not fixed, and equal features shall be equal bytes.
    raw = bytearray(safetensors.torch.save(tensors, {"geoaware": json.dumps(about, separators=(",", ":"))}))
    place = raw.index(_MARK) + len(_MARK)
    raw[place : place + len(_BLANK)] = _checksum(np.frombuffer(raw, np.uint8), place)
    return raw


def decode(raw: np.ndarray, where: str, key: FileKey | None = None) -> StoredLevels:
    """Check every byte and the key, and give the maps; those stored as floats share memory with ``raw``.

    Args:
        raw: the whole file, uint8.
        where: name of the file, for messages.
        key: what it must hold; not compared when ``None``.

    Raises:
        DamagedError: a byte differs from what was written, bytes are missing, or the format is an older one.
        OtherFeaturesError: the file holds another image, pose or set.
    """
    length = int.from_bytes(raw[:8].tobytes(), "little")
    head = raw[8 : 8 + length].tobytes()
    place = head.find(_MARK) + len(_MARK)
    is_whole = len(raw) >= 8 and length <= len(raw) - 8 and place >= len(_MARK)
    if not is_whole or _checksum(raw, 8 + place) != head[place : place + len(_BLANK)]:
        what = "written by an older geoaware" if _OLD.search(head) else "damaged or cut off"
        raise DamagedError(f"{where}: {what}; check the store to list all such files, and extract them again")
    entries = json.loads(head)
    about = json.loads(entries.pop("__metadata__")["geoaware"])
    if about["version"] != VERSION:
        raise OtherFeaturesError(
            f"{where}: written in version {about['version']} of the format, this geoaware reads {VERSION}; "
            "extract again into another folder"
        )
    found = FileKey(SetKey(**about["features"]), about["picture"], about["pose"])
    if key is not None:
        _compare(found, key, where)
    content = torch.from_numpy(raw)[8 + length :]
    tensors = {
        name: content[slice(*entry["data_offsets"])].view(_TYPES[entry["dtype"]]).view(entry["shape"])
        for name, entry in entries.items()
    }
    names = [f"level{number:02}" for number in range(len(about["levels"]))]
    levels = [
        tensors[name].float() * tensors[f"{name}.scale"][:, None, None]
        if tensors[name].dtype == torch.int8
        else tensors[name]
        for name in names
    ]
    return StoredLevels(tuple(levels), (about["size"][0], about["size"][1]), found)


def _compare(found: FileKey, key: FileKey, where: str) -> None:
    """Refuse a file that holds something else than it should, saying what."""
    if found.features != key.features:
        raise OtherFeaturesError(
            f"{where}: holds other features ({key.features.differences(found.features)}); it does not "
            "belong in this folder: remove it"
        )
    if found != key:
        raise OtherFeaturesError(
            f"{where}: holds image {_short(found.image)} ({found.pose}) instead of {_short(key.image)} "
            f"({key.pose}); it was renamed or copied: remove it"
        )


def encoded_size(shapes: Sequence[Sequence[int]], stored: Stored) -> int:
    """Bytes on disk of the maps of one image in one pose, whole blocks of 4 KiB with a header of 2 KiB."""
    values = sum(int(np.prod(shape)) for shape in shapes)
    scales = sum(4 * shape[0] for shape in shapes) if stored == "int8" else 0
    size = values * {"fp16": 2, "fp32": 4, "int8": 1}[stored] + scales + 2048
    return -(-size // 4096) * 4096


def _packed(name: str, level: Tensor, stored: Stored) -> dict[str, Tensor]:
    if not level.isfinite().all():
        raise InputError("the features are not finite and were not stored; compute them in fp32")
    if stored == "fp32":
        return {name: level.contiguous()}
    if stored == "fp16":
        largest = level.abs().max().item() if level.numel() else 0.0
        half = level.half().contiguous()
        if not half.isfinite().all():
            raise InputError(
                f"features up to {largest:.3g} do not fit fp16 (up to 65504); store them as fp32"
            )
        return {name: half}
    scale = level.abs().amax(dim=(1, 2)) / 127
    # A scale below the smallest normal float would make values of it infinite.
    divisor = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)
    steps = (level / divisor[:, None, None]).round().clamp(-127, 127)
    return {name: steps.to(torch.int8).contiguous(), f"{name}.scale": scale}


def _checksum(raw: np.ndarray, place: int) -> bytes:
    """XXH3 in 128 bits, in hexadecimal, of the file with zeros in the place of the checksum.

    It runs at the speed of memory, so that every read can be checked.
    """
    content = raw.data
    digest = xxhash.xxh3_128(content[:place])
    digest.update(_BLANK)
    digest.update(content[place + len(_BLANK) :])
    return digest.hexdigest().encode()


def _short(value: str) -> str:
    """The first digits of a hash, other values whole."""
    is_hash = len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:12]}…" if is_hash else repr(value)
