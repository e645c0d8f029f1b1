"""What strangers may send and fetch: images within limits, and the few addresses that the page needs."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from geoaware.data.exif import orientation_of
from geoaware.data.images import decode
from geoaware.runs.errors import InputError

_log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is decoded, told by the file's content. Pillow knows more, some by running other programs (EPS)."""

LARGEST_REQUEST = 65536
"""Bytes of any request that is not an upload: a click is a few hundred."""

FETCH = "mine"
"""Folder of the addresses under which a visitor's own images are fetched, by tokens nobody can guess."""

PAGE = "/"
UPLOAD = "/gradio_api/upload"

_EXACT = frozenset(
    {
        PAGE,
        UPLOAD,
        "/config",
        "/theme.css",
        "/manifest.json",
        "/favicon.ico",
        "/robots.txt",
        "/gradio_api/info",
        "/gradio_api/startup-events",
        "/gradio_api/upload_progress",
        "/gradio_api/run/predict",
    }
)
_BELOW = (f"/{FETCH}/", "/assets/", "/static/", "/gradio_api/heartbeat/")
"""Visitors' images, gradio's own program and style, the connection that tells that a tab is still open."""

_FORWARDED = (b"forwarded", b"x-forwarded-", b"x-original-")
"""How headers begin that a proxy may set. They are left out, so that nothing of them is reflected."""

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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


def read_image(path: Path, limits: Limits, name: str | None = None) -> Image.Image:
    """An image that a stranger sent, upright RGB. Its pixels are counted before any is decoded.

    ``name`` is what the stranger calls it, for messages; the file's own name when not given.

    Raises:
        InputError: too many bytes or pixels, or not an image of one of `FORMATS`.
    """
    called = name or path.name
    try:
        if path.stat().st_size > limits.bytes:
            raise InputError(too_many_bytes(called, limits))
        with Image.open(path, formats=FORMATS) as image:
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


def uploaded(path: object, folder: Path) -> Path:
    """A path that a browser says it has uploaded to, which must lie in the folder of uploads."""
    if isinstance(path, str) and "\0" not in path:
        resolved = Path(path).resolve()
        if resolved.is_relative_to(folder.resolve()) and resolved.is_file():
            return resolved
    raise InputError("That is not an image that was uploaded here; choose it again.")


@lru_cache(maxsize=100)
def tell_once(kind: str) -> None:
    """Say, for each kind of error once, that a request failed: forged ones would fill the terminal."""
    _log.warning("a request could not be answered: %s", kind)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets through only the requests that the page makes; stands before everything else (ASGI).

    No address of a file is let through: what visitors may fetch is held in memory.
    Bodies must state their length and keep to the limits, and all uploads together to theirs. Other websites
    may not send anything (`Origin`, `Sec-Fetch-Site`), nor read an answer. Served to this machine alone, the
    name by which the server is called must be this machine's: other pages cannot reach it by a name of their
    own that points here (DNS rebinding). A visitor who goes away in the middle is no error.

    Args:
        app: what answers the requests that are let through.
        limits: of uploads.
        host: where the server listens.
        uploads: the folder in which uploads wait to be read.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        limits: Limits,
        host: str,
        uploads: Path | None = None,
    ) -> None:
        self._app = app
        self._most_upload = limits.bytes + LARGEST_REQUEST  # the form around the file
        self._most_waiting = round(limits.waiting_megabytes * 1_000_000)
        self._uploads = uploads
        self._arriving = 0
        self._names = {host, f"[{host}]", "localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [each for each in message.get("headers", []) if not _begins(each, b"access-control-")]
                message["headers"] = [*own, *_HEADERS]
            await send(message)

        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._answer(scope, receive, send_guarded, int(headers.get(b"content-length", "0")))
            return
        status, text = refusal[0], refusal[1].encode()
        plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        await send_guarded({"type": "http.response.start", "status": status, "headers": plain})
        await send_guarded({"type": "http.response.body", "body": text})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, stated: int) -> None:
        """Have a request answered, whose bytes are counted as they arrive: no more than were stated."""
        scope = {**scope, "headers": [each for each in scope["headers"] if not _begins(each, *_FORWARDED)]}
        left, gone, begun = stated, False, False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def counted() -> MutableMapping[str, Any]:
            nonlocal left, gone
            message = await receive()
            left -= len(message.get("body", b""))
            gone = message["type"] == "http.disconnect" or left < 0
            return {"type": "http.disconnect"} if gone else message

        self._arriving += stated
        try:
            await self._app(scope, counted, noted)
        except Exception as error:
            if not gone and not begun:
                raise
            if not gone:  # answered by status 500
                tell_once(type(error).__name__)
        finally:
            self._arriving -= stated

    def _waiting(self) -> int:
        """Bytes of the uploads that wait to be read or are arriving."""
        there = 0 if self._uploads is None else sum(map(_size, self._uploads.rglob("*")))
        return there + self._arriving

    def _refusal(self, scope: Scope, headers: Mapping[bytes, str]) -> tuple[int, str] | None:
        if scope["type"] != "http":
            return 404, "no such address"
        name = headers.get(b"host", "")
        bare = name.rpartition(":")[0] if ":" in name.rpartition("]")[2] else name
        if self._names is not None and bare.lower() not in self._names:
            return 421, "this server answers to 127.0.0.1 and localhost"
        if not _is_open(scope["path"]):
            return 404, "no such address"
        if scope["method"] not in ("GET", "HEAD", "POST", "OPTIONS"):
            return 405, "no such method"
        posted, upload = scope["method"] == "POST", scope["path"] == UPLOAD
        if posted and not _same_site(headers, name):
            return 403, "other websites may not send anything here"
        length = headers.get(b"content-length", "" if posted else "0")
        if b"transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
            return 411, "a request with a body must state its length, and not come in chunks"
        most = self._most_upload if posted and upload else LARGEST_REQUEST
        if len(length) > 18 or int(length) > most:
            return 413, f"larger than the {most} bytes taken here"
        if posted and upload and self._waiting() + int(length) > self._most_waiting:
            return 503, "too many uploads wait to be read; try again in some minutes"
        return None


def _begins(header: tuple[bytes, bytes], *beginnings: bytes) -> bool:
    return header[0].lower().startswith(beginnings)


def _same_site(headers: Mapping[bytes, str], host: str) -> bool:
    """Whether a browser says that a request comes from the page itself; programs say nothing."""
    origin = headers.get(b"origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return False
    return headers.get(b"sec-fetch-site", "same-origin") in ("same-origin", "none")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # read and deleted meanwhile
        return 0


def _is_open(path: str) -> bool:
    if path in _EXACT:
        return True
    plain = "\\" not in path and "\0" not in path and ".." not in path.split("/")
    return plain and path.startswith(_BELOW)
