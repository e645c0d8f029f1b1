"""Images without labels, kept decoded on the disk: backgrounds, and what shows nothing that is trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoaware.data.images import list_images, load_image
from geoaware.method.geometry import Canvas
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell
from geoaware.training.backbone.config import WHOLE
from geoaware.training.backbone.records import file_state, made_by_threads, records

CANVAS = WHOLE
"""Side of a whole image on its canvas."""


@dataclass(frozen=True)
class Unlabelled:
    """Whole images.

    Attributes:
        pixels: (n, CANVAS, CANVAS, 3), on the disk.
        negatives: rows of images that surely show nothing that is trained on.
    """

    pixels: np.ndarray
    negatives: np.ndarray

    @classmethod
    def none(cls) -> Unlabelled:
        """No images at all."""
        return cls(np.zeros((0, CANVAS, CANVAS, 3), np.uint8), np.zeros(0, int))


def used_images(folder: Path, every: int, negatives: int) -> list[Path]:
    """One image of every so many in a folder, in the order of their names, from the first on.

    Raises:
        InputError: there is no image, or none that could be one of so many negatives a step.
    """
    paths = list_images(folder)[::every]
    if negatives and not any(is_negative(path.name) for path in paths):
        raise InputError(
            f"{folder}: no image in use is a negative, none being named by the ImageNet class of an object; "
            "add such images (n03792782_mountain_bike.jpg), or set unlabelled.negatives=0"
        )
    return paths


def make_unlabelled(paths: Sequence[Path], folder: Path, workers: int, tell: Tell) -> Unlabelled:
    """Decoded images, from the disk if they are there.

    Args:
        paths: of the images, at least one.
        folder: of the file of decoded images.
        workers: threads that decode.
        tell: is told how far this is.

    Raises:
        InputError: an image cannot be read.
    """
    dtype = np.dtype([("pixels", "u1", (CANVAS, CANVAS, 3))])

    def fill(made: np.ndarray) -> None:
        for row, pixels in enumerate(
            made_by_threads(_on_canvas, paths, workers, tell, "images without labels")
        ):
            made["pixels"][row] = pixels

    kept = records(folder, "unlabelled", [file_state(each) for each in paths], dtype, len(paths), fill)
    negatives = [row for row, path in enumerate(paths) if is_negative(path.name)]
    return Unlabelled(kept["pixels"], np.array(negatives, dtype=int))


def _on_canvas(path: Path) -> np.ndarray:
    image = load_image(path)
    return np.array(Canvas(*image.size, CANVAS).render(image))


def is_negative(name: str) -> bool:
    """Whether an image without labels surely shows no mammal with legs, by the ImageNet class in its name.

    Those that show people are no negatives either, nor are those whose names say no class.

    Example:
        >>> is_negative("n03792782_mountain_bike.jpg")
        True
        >>> is_negative("n02088364_beagle.jpg")
        False
    """
    found = re.match(r"n(\d{8})", name)
    if found is None:
        return False
    synset = int(found[1])
    # WordNet 3.0 offsets of ImageNet's classes: echidna to wombat, seals and dogs to meerkats, rabbits to
    # pandas; whales and the dugong lie between these. From 9800000 on there are people.
    mammal = 1870000 <= synset <= 1885000 or 2077000 <= synset <= 2140000 or 2321000 <= synset <= 2515000
    return not mammal and synset < 9800000
