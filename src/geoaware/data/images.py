"""Reading images: any file or array a user may have, to an upright 8-bit RGB image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from geoaware._moved import renamed
from geoaware.data.files import reading
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
"""A path, a PIL image, or an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


def load_image(image: ImageLike) -> Image.Image:
    """Read an image as an upright RGB image; all points of the library are pixels of what this returns.

    EXIF orientation is applied. Greyscale becomes three equal channels, palettes are resolved, transparency
    is laid on white, 16-bit and floating greyscale are scaled to 8 bits (see `to_rgb`).

    Raises:
        InputError: the file is missing, is not an image, or is damaged; the message names it.
    """
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    with _opened(image) as opened:
        opened.load()
        return to_rgb(ImageOps.exif_transpose(opened))


def load_annotated(annotated: AnnotatedImage) -> Image.Image:
    """The image of an annotation, as `load_image` reads it; its size must be the one annotated."""
    image = load_image(annotated.path)
    check_size(annotated, image.size)
    return image


def check_size(annotated: AnnotatedImage, size: tuple[int, int] | None = None) -> None:
    """Make sure that an image has the width and height that its annotation is for.

    ``size`` is the image's, read from the file's header when not given.
    """
    size = size or image_size(annotated.path)
    if size != tuple(annotated.size):
        raise InputError(
            f"{annotated.path}: has {size[0]}x{size[1]} pixels, its annotation is for "
            f"{annotated.size[0]}x{annotated.size[1]}; give the image as it was annotated"
        )


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the upright image, from its header alone."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def load_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an object mask as a boolean array (h, w): every pixel that is not black; one must be."""
    with _opened(path) as image:
        values = np.asarray(ImageOps.exif_transpose(image))
    mask = np.asarray(values[..., :3].any(axis=-1) if values.ndim == 3 else values, dtype=bool)
    if not mask.any():
        raise InputError(f"{path}: the mask is all black; the object's pixels must be white (not zero)")
    return mask


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """Images of a folder by suffix, at least one, in the order of their relative names on every system."""
    root = Path(folder)
    with reading(root):
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give the folder of the images")
        inside = list(root.rglob("*") if recursive else root.iterdir())
    paths = [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        where = "" if recursive else "; the folders inside it were not looked into"
        raise InputError(f"{root}: no images in this folder{where}")
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to RGB: alpha on white, more than 8 bits scaled down, instead of PIL's silent clipping.

    16-bit integers are divided by 257 (65535 becomes 255); 32-bit integers and floats hold no agreed range
    and are stretched from their own minimum to maximum (a constant image becomes black).
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        # Pillow reads some 16-bit files as 32-bit integers.
        wide = image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535
        return _grey(values / 257 if wide or image.mode.startswith("I;16") else _stretched(values))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    return np.nan_to_num((values - low) / max(high - low, 1e-12) * 255, posinf=255, neginf=0)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    """An array as a PIL image: uint8 as it is, uint16 by 257, bool and floats in 0…1 by 255."""
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if squeezed.ndim not in (2, 3) or (squeezed.ndim == 3 and squeezed.shape[2] not in (3, 4)):
        raise InputError(
            f"an image array must have shape (h, w), (h, w, 3) or (h, w, 4), got {tuple(array.shape)}"
        )
    if squeezed.dtype == np.uint16:
        squeezed = np.rint(squeezed / 257).astype(np.uint8)
    elif squeezed.dtype == bool or np.issubdtype(squeezed.dtype, np.floating):
        values = squeezed.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise InputError("a floating image array must hold values from 0 to 1; scale it first")
        squeezed = np.rint(values * 255).astype(np.uint8)
    elif squeezed.dtype != np.uint8:
        raise InputError(f"an image array must be uint8, uint16, bool or floating, got {squeezed.dtype}")
    return Image.fromarray(squeezed)


@contextmanager
def _opened(given: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file; what Pillow raises for a damaged one becomes one line that names it."""
    path = Path(given)
    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if path.is_fifo():
                raise InputError(f"{path}: is a pipe; give a file, which can be read twice")
            with Image.open(path) as image:
                yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read; convert it to JPEG or PNG") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: more pixels than is safe to decode; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged or unreadable image ({error}); save it anew") from None


def __getattr__(name: str) -> Any:
    return renamed(__name__, {"PictureLike": "ImageLike"}, name)
