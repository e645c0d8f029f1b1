"""Images that strangers send: within limits, and decoded only after their pixels are counted."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from geoaware.data.exif import orientation_of
from geoaware.data.images import decode
from geoaware.runs.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is decoded, told by the file's content. Pillow knows more, some by running other programs (EPS)."""


@dataclass(frozen=True)
class Limits:
    """Of one image: of its file, and once it is decoded; and of all files that wait to be read.

    Mega is a million. Decoding 40 megapixels takes up to 300 MB; see `_share`.
    """

    megabytes: float = 20
    megapixels: float = 40
    waiting_megabytes: float = 500

    @property
    def bytes(self) -> int:
        """Of the file."""
        return round(self.megabytes * 1_000_000)


def read_image(sent: Path | bytes, limits: Limits, name: str | None = None) -> Image.Image:
    """An image that a stranger sent, upright RGB. Its pixels are counted before any is decoded.

    ``sent`` is a file or its content. ``name`` is what the stranger calls it, for messages; the file's own
    name when not given.

    Raises:
        InputError: too many bytes or pixels, or not an image of one of `FORMATS`.
    """
    called = name or ("the image" if isinstance(sent, bytes) else sent.name)
    try:
        if (len(sent) if isinstance(sent, bytes) else sent.stat().st_size) > limits.bytes:
            raise InputError(too_many_bytes(called, limits))
        with Image.open(BytesIO(sent) if isinstance(sent, bytes) else sent, formats=FORMATS) as image:
            width, height = image.size
            allowed = limits.megapixels
            if width * height <= allowed * 1_000_000:
                allowed *= _share(image)
            if width * height > allowed * 1_000_000:
                raise InputError(_too_many_pixels(called, f"{width} x {height} pixels", allowed))
            return decode(image, called)[0]
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{called} is no longer here; choose the image again.") from None
    except Image.DecompressionBombError:
        raise InputError(_too_many_pixels(called, "far more pixels", limits.megapixels)) from None
    except Exception:  # decoders raise whatever a broken byte leads to
        raise InputError(
            f"{called} is not an image that can be read; give a JPEG, PNG, WebP, BMP, TIFF or GIF file."
        ) from None


def too_many_bytes(name: str, limits: Limits) -> str:
    """Why a file is refused."""
    return f"{name} is larger than {limits.megabytes:g} MB, the most that is taken here; scale it down first."


def _share(image: Image.Image) -> float:
    """Of the pixels allowed, so that decoding takes at most 7.5 bytes for each of them, whatever the file."""
    if image.format == "WEBP":
        return 0.46  # 16 bytes a pixel
    if image.info.get("progressive"):
        return 0.74  # 10: coefficients are held beside the colours
    plain = image.format != "TIFF" and image.mode in ("1", "L", "P", "RGB")
    return 1 if plain and not image.has_transparency_data and orientation_of(image) == 1 else 0.9


def _too_many_pixels(name: str, has: str, megapixels: float) -> str:
    taken = f"{megapixels:g} megapixels taken here"
    return f"{name} has {has}, more than the {taken}; scale it down first."
