"""Reading images: any file or array a user may have, to an upright 8-bit RGB image."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from geoaware._moved import renamed
from geoaware.data.exif import SAME_SIZE, orientation_of, turned_size
from geoaware.data.files import VIDEOS, reading
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import refuse_pretender
from geoaware.runs.places import is_remote, place

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path, a PIL image, an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or a tensor of shape
(h, w), (1, h, w), (3, h, w) or (4, h, w). Floats are from 0 to 1."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
    | {".avif", ".heic", ".heif"}
)
"""How the names of image files end; see `unreadable`."""

_CONVERT = "convert them to JPEG or PNG"
_RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".jxl", ".svg"})

WHOLE = 0.98
"""An object that covers more of its image than this is worth a note."""

_FEW = 32
"""Masks of values below this hold labels, not brightness."""

_TILE = 1 << 18
"""So many pixels are converted at once."""

_log = logging.getLogger(__name__)
_said: set[str] = set()
_collected: list[dict[str, list[str]]] = []


def note_once(kind: str, text: str) -> None:
    """Tell something of the first image of a kind; the others of the kind are not told."""
    if _collected:
        _collected[-1].setdefault(kind, []).append(text)
    elif kind not in _said:
        _said.add(kind)
        _log.info("%s (others like it are not named)", text)


@contextmanager
def collecting() -> Iterator[dict[str, list[str]]]:
    """Have what `note_once` would tell by kind, of every image, and not told."""
    _collected.append({})
    try:
        yield _collected[-1]
    finally:
        _collected.pop()


def load_image(image: ImageLike) -> Image.Image:
    """Read an image as an upright RGB image; all points of the library are pixels of what this returns.

    EXIF orientation is applied. Greyscale becomes three equal channels, palettes are resolved, transparency
    is laid on white, 16-bit and floating greyscale are scaled to 8 bits (see `to_rgb`).

    Raises:
        InputError: the file is missing, is not an image, or is damaged; the message names it.
    """
    if isinstance(image, Tensor):
        values = image.detach().cpu()
        image = (values.float() if values.is_floating_point() else values).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        try:
            image = ImageOps.exif_transpose(image)
        except MemoryError:
            raise
        except Exception as error:  # as of a file, whatever a broken byte leads to
            raise InputError(f"an image cannot be decoded ({reason(error)}); save it anew") from None
        return to_rgb(image)
    return load_framed(image)[0]


def load_rgba(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as `load_image` reads it, but for its transparency, which stays.

    Raises:
        InputError: see `load_image`.
    """
    with _opened(path) as opened:
        image, _ = _upright(opened)
        clear = image.has_transparency_data and not _is_deep(image)
        return (image if clear else to_rgb(image, str(path))).convert("RGBA")


class Frame(NamedTuple):
    """Width and height of an upright image, and the EXIF orientation by which it was turned."""

    size: tuple[int, int]
    orientation: int


def load_framed(path: str | os.PathLike[str]) -> tuple[Image.Image, Frame]:
    """An image file as `load_image` reads it, and how it was turned."""
    with _opened(path) as opened:
        return decode(opened, str(path))


def load_reduced(path: str | os.PathLike[str], longest: int) -> tuple[Image.Image, Frame]:
    """An image file as `load_framed` reads it, but smaller where that is fast.

    A JPEG is decoded at down to an eighth of its size, its longer side not below ``longest``. The frame is
    that of the whole image.
    """
    with _opened(path) as opened:
        frame, share = _frame(opened), longest / max(opened.size)
        if share < 1:
            opened.draft(None, (round(opened.width * share), round(opened.height * share)))
        return decode(opened, str(path))[0], frame


def decode(opened: Image.Image, name: str) -> tuple[Image.Image, Frame]:
    """An opened file as `load_image` reads it, in at most eight bytes a pixel beside what its decoder takes.

    The file cannot be read again.
    """
    image, frame = _upright(opened)
    if not _is_deep(image):
        return to_rgb(image, name), frame
    grey = _grey(image, name)
    image.close()  # its values would take as much memory as the colours
    return grey.convert("RGB"), frame


def _upright(opened: Image.Image) -> tuple[Image.Image, Frame]:
    """An opened file as EXIF turns it."""
    frame = _frame(opened)
    if frame.orientation > 4 and opened.format == "TIFF":
        vars(opened)["filename"] = ""  # else it may be mapped into memory, and then Pillow mixes up its rows
    ImageOps.exif_transpose(opened, in_place=True)  # the other way copies images that are upright
    if opened.size != frame.size:
        raise ValueError("Pillow mixes up the rows of a TIFF file that is turned by EXIF and not compressed")
    opened.info.pop("exif", None)  # done with; Pillow may have passed over damage, and would tell of it now
    return opened, frame


def load_annotated(annotated: AnnotatedImage) -> Image.Image:
    """The image of an annotation, as `load_image` reads it; its size must be the one annotated."""
    image, frame = load_framed(annotated.path)
    check_size(annotated, frame)
    return image


def look_at(annotated: AnnotatedImage) -> None:
    """Check and tell what `load_annotated` does, with as little decoding as that takes."""
    with _opened(annotated.path) as opened:
        frame = _frame(opened)
        if opened.mode.startswith("I"):  # how many bits it uses is only seen in its pixels
            to_rgb(opened, str(annotated.path))
    check_size(annotated, frame)


def turned_note(path: str | os.PathLike[str], orientation: int) -> str:
    """What is said where nobody can tell which pixels an annotation means."""
    return (
        f"{path}: is turned by EXIF (orientation {orientation}), and its size does not tell of which pixels "
        "its points are: they are read as of the upright image (else exif=stored)"
    )


def check_size(annotated: AnnotatedImage, frame: Frame) -> None:
    """Make sure that an image has the width and height that its annotation is for.

    If the image is turned in a way that its size does not show, the annotation may be of the pixels before or
    after: that is told.
    """
    size, orientation = frame
    wanted = tuple(annotated.size)
    if size == wanted:
        if annotated.orientation == 1 < orientation and (orientation in SAME_SIZE or size[0] == size[1]):
            note_once("orientation", turned_note(annotated.path, orientation))
        return
    has, given = (f"{width}x{height}" for width, height in (size, wanted))
    if orientation > 4 and size[::-1] == wanted:
        stored = annotated.orientation == 1
        raise InputError(
            f"{annotated.path}: EXIF (orientation {orientation}) turns it to {has} pixels, its annotation is "
            f"for {given}, {'the stored' if stored else 'not the stored'} pixels; read the annotations with "
            f"exif={'stored' if stored else 'upright'}",
            parameter="exif",
        )
    raise InputError(
        f"{annotated.path}: has {has} pixels, its annotation is for {given}; give the image as it was "
        "annotated"
    )


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the upright image, from its header alone."""
    return image_frame(path).size


def image_frame(path: str | os.PathLike[str]) -> Frame:
    """Size of the upright image and its orientation, from its header alone."""
    with _opened(path) as image:
        return _frame(image)


def _frame(image: Image.Image) -> Frame:
    orientation = orientation_of(image)
    # Pillow may have exchanged the sides of a TIFF file already, depending on its version.
    tags = getattr(image, "tag_v2", None)
    stored = (tags[256], tags[257]) if image.format == "TIFF" and tags else image.size
    return Frame(turned_size(stored, orientation), orientation)


def load_mask(path: str | os.PathLike[str], label: int | None = None) -> np.ndarray:
    """Read an object mask as a boolean array (h, w); one of its pixels must be of the object.

    In an image of grey values, the object is what is at least half as bright as the brightest pixel: JPEG's
    noise is not of it. In one of labels (a palette, colours, small numbers) it is what is not zero; with a
    ``label``, and several numbers, it is what has that one.

    Raises:
        InputError: the file cannot be read, is all black, has labels and none of them is zero, or several and
            not the one that is given.
    """
    with _opened(path) as image:
        lossy = image.format in ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
        upright, _ = _upright(image)
        if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "F") and upright.mode[0] != "I":
            upright = upright.convert("RGB")
        values, names = np.asarray(upright), upright.getbands()
    coloured = False
    if values.ndim == 3:
        bands = values[..., : len(names) - (names[-1] == "A")]
        coloured, values = bool((bands != bands[..., :1]).any()), bands.max(axis=-1)
    top = values.max()
    if not top > (_FEW if lossy else 0):  # JPEG's noise is no object
        raise InputError(f"{path}: the mask is all black; the object's pixels must be white (not zero)")
    if label is not None and len(numbers := np.unique(values[values > 0])) > 1:
        if label not in numbers:
            found = ", ".join(map(str, numbers[:8]))
            raise InputError(
                f"{path}: no pixel of the mask has the label {label}, but {found}; fetch it again"
            )
        return np.asarray(values == label, dtype=bool)
    labels = not lossy and upright.mode != "F" and (upright.mode == "P" or coloured or top < _FEW)
    if labels and values.min() > 0 and top > values.min():
        raise InputError(
            f"{path}: no pixel of the mask is black (values {values.min()} to {top}); is it a trimap? Make "
            "the object white and the rest black"
        )
    mask = np.asarray(values > 0 if labels else values >= top / 2, dtype=bool)
    if not labels and not lossy and ((values > 0) & (values < top)).any():
        note_once(
            "grey mask", f"{path}: grey mask; what is at least half as bright as the brightest is inside"
        )
    note_whole(mask, str(path))
    return mask


def note_whole(mask: np.ndarray, name: str) -> None:
    """Tell that an object covers (almost) its whole image: its mask may be inverted."""
    if mask.mean() > WHOLE:
        text = f"{name}: the object covers {mask.mean():.0%} of the image; it must be white, the rest black"
        note_once("whole mask", text)


def list_images(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """Images of a folder by suffix, at least one, in the order of their relative names on every system.

    What is passed over is counted in a note.
    """
    root = place(folder)
    paths, over = find_images(root, None if recursive else 1)
    if not paths:
        where = "" if recursive else "; the folders inside it were not looked into"
        others = f"; passed over: {over}" if over else ""
        raise InputError(f"{root}: no images in this folder{where}{others}")
    if over:
        _log.info("%s: passed over: %s", root, over)
    return paths


def find_images(root: Path, depth: int | None = 1) -> tuple[list[Path], str]:
    """Images so many folders down, as `list_images` gives them, and how many of which kind are passed over.

    Passed over is what is named like an image, but is none that can be read: folders, dead links, pipes,
    macOS's ``._x.jpg``, formats that Pillow does not read here. Without a depth, all folders are looked into.
    """
    with reading(root):
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give the folder of the images")
        # At a URL these are files alone: asking what each is would take as long as reading it.
        if depth is None:
            inside = root.rglob("*")
        elif depth == 1 and not is_remote(root):
            inside = root.iterdir()
        else:
            inside = root.glob("/".join("*" * depth))
        known = SUFFIXES | _RAW | VIDEOS
        named = {path: _not_listed(path) for path in inside if path.suffix.lower() in known}
    passed = Counter(filter(None, named.values()))
    paths = [path for path, why in named.items() if not why]
    over = ", ".join(f"{count} {what}" for what, count in sorted(passed.items()))
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix()), over


def _not_listed(path: Path) -> str:
    """What a path is that is only named like an image; empty for an image."""
    if path.name.startswith("._"):
        return "files of macOS (._NAME)"
    if not is_remote(path) and path.is_dir():
        return "folders named like images"
    if not is_remote(path) and not path.is_file():
        return "links to files that are missing" if path.is_symlink() else "pipes or devices"
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return "videos (transfer takes them one by one)"
    why = unreadable(suffix)
    return f"{suffix} files ({why})" if why else ""


def unreadable(suffix: str) -> str:
    """What helps against files of a suffix that cannot be read here; empty if they can be."""
    if suffix in (".heic", ".heif"):
        return "" if _heif() else "install geoaware[heic]"
    if suffix in (".avif", ".webp"):
        return "" if features.check(suffix[1:]) else f"this Pillow cannot read them; {_CONVERT}"
    return _CONVERT if suffix in _RAW else ""


@cache
def _heif() -> bool:
    """Let Pillow read HEIC, if the package for it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def to_rgb(image: Image.Image, name: str = "an image") -> Image.Image:
    """Any PIL mode to RGB: alpha on white, more than 8 bits scaled down, instead of PIL's silent clipping.

    16-bit integers are scaled by the bits that they use (see `_white`); 32-bit integers and floats hold no
    agreed range and are stretched from their own minimum to maximum (a constant image becomes black). Notes
    call the image ``name``.
    """
    if _is_deep(image):
        return _grey(image, name).convert("RGB")
    if image.has_transparency_data:
        return _by_tiles(image, "RGB", _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _by_tiles(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted tile by tile: what a step of it takes in memory does not grow with the image."""
    whole = Image.new(mode, image.size)
    for box in _tiles(image.size):
        whole.paste(convert(image.crop(box)), box)
    return whole


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    width = min(size[0], _TILE)
    height = max(1, _TILE // max(1, width))
    for top in range(0, size[1], height):
        for left in range(0, size[0], max(1, width)):
            yield left, top, min(left + width, size[0]), min(top + height, size[1])


def _is_deep(image: Image.Image) -> bool:
    """Whether the image is of grey values that may be more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _grey(image: Image.Image, name: str) -> Image.Image:
    """A deep image in 8 bits."""
    low, high = np.inf, -np.inf
    for box in _tiles(image.size):
        values = np.asarray(image.crop(box))
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = finite.min(initial=low), finite.max(initial=high)
    # Pillow reads some 16-bit files as 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        white = _white(float(high), name)
        return _by_tiles(image, "L", lambda tile: _eight_bits(_float(tile) * 255.0 / white))
    low, range_ = (low, max(high - low, 1e-12)) if high >= low else (0.0, 1.0)
    return _by_tiles(image, "L", lambda tile: _eight_bits((_float(tile) - low) / range_ * 255))


def _float(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


def _white(highest: float, name: str) -> int:
    """The most that so many bits as the values use can hold.

    Cameras and microscopes store 10, 12 or 14 bits as they are: of 65535 they would be nearly black.
    """
    bits = next(each for each in (8, 10, 12, 14, 16) if highest < 2**each)
    if bits < 16:
        text = f"{name}: uses {bits} of its 16 bits; its brightness is scaled by 255/{2**bits - 1}"
        note_once(f"{bits} bits", text)
    return 2**bits - 1


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Values as grey from 0 to 255; what is no number is black."""
    whole = np.rint(np.nan_to_num(values, posinf=255, neginf=0))
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    """An array as a PIL image: uint8 as it is, uint16 by the bits it uses, bool and floats in 0…1 by 255."""
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if squeezed.ndim not in (2, 3) or (squeezed.ndim == 3 and squeezed.shape[2] not in (3, 4)):
        raise InputError(
            f"an image array must have shape (h, w), (h, w, 3) or (h, w, 4), got {tuple(array.shape)}; "
            "a tensor has its channels first"
        )
    if squeezed.dtype == np.uint16:
        scaled = squeezed * 255.0 / _white(float(squeezed.max(initial=0)), "an array")
        squeezed = np.rint(scaled).astype(np.uint8)
    elif squeezed.dtype == bool or np.issubdtype(squeezed.dtype, np.floating):
        values = squeezed.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise InputError("a floating image array must hold values from 0 to 1; scale it first")
        squeezed = np.rint(values * 255).astype(np.uint8)
    elif squeezed.dtype != np.uint8:
        raise InputError(f"an image array must be uint8, uint16, bool or floating, got {squeezed.dtype}")
    return Image.fromarray(np.ascontiguousarray(squeezed))


@contextmanager
def _opened(given: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file; what Pillow raises for a damaged one becomes one line that names it."""
    path = place(given)
    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if path.is_fifo():
                raise InputError(f"{path}: is a pipe; give a file, which can be read twice")
            with _open(path) as image:
                yield image
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: takes more memory to decode than there is; scale it down first") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_unidentified(path)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: more pixels than is safe to decode; scale it down first") from None
    # Decoders raise whatever a broken byte leads to: RuntimeError, TypeError, struct.error, KeyError, …
    except Exception as error:
        raise InputError(f"{path}: damaged or unreadable image ({reason(error)}); save it anew") from None


def _open(path: Path) -> Image.Image:
    # An image at a URL is fetched whole, in one request.
    source = BytesIO(path.read_bytes()) if is_remote(path) else path
    if not is_remote(path):
        with path.open("rb") as file:  # Pillow leaves one open that it cannot read at all
            file.read(1)
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        # Phones write HEIC, under any suffix.
        if not _heif():
            raise
        return Image.open(source)


def _unidentified(path: Path) -> str:
    """What a file is that Pillow does not know, and what to do."""
    refuse_pretender(path)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftypheif"):
        suffix = ".heic"
    if start[4:12] == b"ftypavif":
        suffix = ".avif"
    return f"not an image that can be read; {unreadable(suffix) or 'convert it to JPEG or PNG'}"


def __getattr__(name: str) -> Any:
    return renamed(__name__, {"PictureLike": "ImageLike"}, name)
