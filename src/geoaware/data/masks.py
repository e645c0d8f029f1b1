"""Object masks of images: read or decoded when asked for (files, COCO run lengths, polygons), and encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from geoaware.data import fields
from geoaware.data.exif import INVERSE, turned_pixels, turned_size
from geoaware.data.images import image_frame, load_mask, note_whole
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, reason

_FARTHEST = 1 << 20
"""Pixels that a polygon's corner may lie from the image's: Pillow does not draw to any number."""


def has_mask(image: AnnotatedImage) -> bool:
    """Whether the data set has a mask of the image's object; it is not read."""
    return image.mask_path is not None or bool(image.attributes.get("segmentation"))


def object_mask(image: AnnotatedImage) -> np.ndarray | None:
    """The image's object as a boolean array (h, w), or ``None`` where the data set has no mask of it.

    Raises:
        InputError: the mask cannot be read, is empty, or is of another size than the image.
    """
    if not has_mask(image):
        return None
    stored = turned_size(image.size, INVERSE[image.orientation])
    if image.mask_path is not None:
        mask = load_mask(image.mask_path, image.mask_label)
    else:
        mask = decode_segmentation(image.attributes["segmentation"], stored, image.id)
        if not mask.any():
            raise InputError(f"{image.id}: its segmentation covers no pixel of the image; mend or remove it")
        note_whole(mask, image.id)
    if mask.shape == stored[::-1]:
        mask = turned_pixels(mask, image.orientation)
    width, height = image.size
    if mask.shape != (height, width):
        raise other_size(image.mask_path or image.id, mask, image.size)
    return mask


def read_mask(path: Path, image: Path, orientation: int = 1) -> np.ndarray:
    """A mask (h, w) from a file, turned by this orientation, of an image.

    Raises:
        InputError: one of them cannot be read, or the mask is empty or has not the upright image's size.
    """
    mask, size = turned_pixels(load_mask(path), orientation), image_frame(image).size
    if mask.shape != size[::-1]:
        raise other_size(path, mask, size)
    return mask


def other_size(path: Path | str, mask: np.ndarray, size: tuple[int, int]) -> InputError:
    """The error that a mask has not the size of its image."""
    turned = mask.shape == size
    remedy = "one of them is turned by EXIF, the other is not" if turned else "give one of the image's size"
    (height, width), needed = mask.shape, f"{size[0]}x{size[1]}"
    return InputError(f"{path}: mask of {width}x{height} pixels, image of {needed}; {remedy}")


def decode_segmentation(segmentation: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """A COCO ``segmentation`` as a boolean array (h, w).

    It is polygons (lists of x y x y …) on an image of ``size``, width and height, or run lengths
    ``{"size": [h, w], "counts": …}`` with counts as a list or as COCO's compressed text.
    """
    try:
        if isinstance(segmentation, Mapping):
            height, width = (fields.whole(each, "size") for each in segmentation["size"])
            if height * width > fields.LARGEST:
                raise ValueError(f"no image is as large as {fields.shown(width)} x {fields.shown(height)}")
            counts = segmentation["counts"]
            runs = uncompress(counts) if isinstance(counts, str) else [int(each) for each in counts]
            if min(runs, default=0) < 0 or sum(runs) != height * width:
                raise ValueError(f"runs add up to {sum(runs)}, not to {height} x {width}")
            # Runs of outside and inside alternate down the columns, left to right.
            return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        board = Image.new("1", size)
        for polygon in segmentation:
            corners = fields.numbers(polygon, "polygon", len(polygon))
            if max(map(abs, corners), default=0) > _FARTHEST:
                raise ValueError("a corner lies far outside the image")
            if len(corners) >= 4:
                ImageDraw.Draw(board).polygon(corners, fill=1, outline=1)
        return np.array(board)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{where}: segmentation cannot be read ({reason(error)}); expected COCO's RLE or polygons"
        ) from None


def encode_segmentation(mask: np.ndarray) -> dict[str, Any]:
    """A boolean array (h, w) as a COCO ``segmentation``: run lengths as COCO's compressed text."""
    flat = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return {"size": list(mask.shape), "counts": compress(runs)}


def compress(runs: Sequence[int]) -> str:
    """COCO's text of run lengths; see `uncompress`."""
    digits: list[str] = []
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        more = True
        while more:
            digit, value = value & 31, value >> 5
            # What is left must be all sign, as the digit's highest bit says it.
            more = value != (-1 if digit & 16 else 0)
            digits.append(chr(48 + digit + 32 * more))
    return "".join(digits)


def uncompress(text: str) -> list[int]:
    """Run lengths from COCO's text: numbers in base 32, lowest digit first, as differences.

    A character less 48 holds five bits of the number; its sixth bit says that more follow. The highest bit of
    the last digit is the sign. From the fourth number on, the run two places before is added.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} in compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more digits follow
            continue
        if code & 16:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end inside a number")
    return runs
