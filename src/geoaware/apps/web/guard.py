"""Stands before a server here: lets through only what its page or its interface needs, within limits."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from geoaware.apps.web.images import Limits

_log = logging.getLogger(__name__)

LARGEST_REQUEST = 65536
"""Bytes of any request that is not an upload: a click is a few hundred."""

_FORWARDED = (b"forwarded", b"x-forwarded-", b"x-original-")
"""How headers begin that a proxy may set. They are left out, so that nothing of them is reflected."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_REMEDIES = {401: ((b"www-authenticate", b"Bearer"),), 503: ((b"retry-after", b"10"),)}
"""Headers of refusals, by their status."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Rules:
    """What a server answers at all.

    Attributes:
        exact: addresses.
        below: how other addresses begin.
        uploads: those of ``exact`` whose requests may be as large as a file.
        largest: bytes of any other request.
        methods: of requests.
        free: those of ``exact`` that are answered without the token, where there is one.
        policy: the content security policy of what it answers.
        as_json: refusals are ``{"error": …}``, else plain text.
    """

    exact: frozenset[str]
    below: tuple[str, ...] = ()
    uploads: frozenset[str] = frozenset()
    largest: int = LARGEST_REQUEST
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "OPTIONS")
    free: frozenset[str] = frozenset()
    policy: str = (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "frame-ancestors 'none'"
    )
    as_json: bool = False

    def open(self, path: str) -> bool:
        """Whether something is answered at an address."""
        if path in self.exact:
            return True
        plain = "\\" not in path and "\0" not in path and ".." not in path.split("/")
        return bool(self.below) and plain and path.startswith(self.below)


@lru_cache(maxsize=100)
def tell_once(kind: str) -> None:
    """Say, for each kind of error once, that a request failed: forged ones would fill the terminal."""
    _log.warning("a request failed inside (%s); the server goes on", kind)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets through only the requests that its rules allow; stands before everything else (ASGI).

    Bodies must state their length and keep to the limits, and all uploads together to theirs. Other websites
    may not send anything (`Origin`, `Sec-Fetch-Site`), nor read an answer. Served to this machine alone, the
    name by which the server is called must be this machine's: other pages cannot reach it by a name of their
    own that points here (DNS rebinding). A visitor who goes away in the middle is no error.

    Args:
        app: what answers the requests that are let through.
        rules: what is answered at all.
        limits: of uploads.
        host: where the server listens.
        uploads: the folder in which uploads wait to be read, if they do.
        token: what every request must bring (``Authorization: Bearer TOKEN``), if anything.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        rules: Rules,
        limits: Limits,
        host: str,
        uploads: Path | None = None,
        token: str | None = None,
    ) -> None:
        self._app, self._rules = app, rules
        self._token = None if token is None else token.encode()
        self._headers = ((b"content-security-policy", rules.policy.encode()), *_HEADERS)
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
                message["headers"] = [*own, *self._headers]
            await send(message)

        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._answer(scope, receive, send_guarded, int(headers.get(b"content-length", "0")))
            return
        status, text = refusal
        kind = b"application/json" if self._rules.as_json else b"text/plain; charset=utf-8"
        body = (json.dumps({"error": text}) if self._rules.as_json else text).encode()
        about = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *_REMEDIES.get(status, ())]
        await send_guarded({"type": "http.response.start", "status": status, "headers": about})
        await send_guarded({"type": "http.response.body", "body": body})

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
        if not self._rules.open(path := scope["path"]):
            return 404, "no such address"
        if not self._lets_in(path, headers):
            return 401, "give the token that the server was started with: Authorization: Bearer TOKEN"
        if scope["method"] not in self._rules.methods:
            return 405, "no such method"
        sent = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if sent and not _same_site(headers, name):
            return 403, "other websites may not send anything here"
        posted = scope["method"] == "POST"
        upload = posted and path in self._rules.uploads
        length = headers.get(b"content-length", "" if posted else "0")
        if b"transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
            return 411, "a request with a body must state its length, and not come in chunks"
        most = self._most_upload if upload else self._rules.largest
        if len(length) > 18 or int(length) > most:
            return 413, f"larger than the {most} bytes taken here"
        if upload and self._waiting() + int(length) > self._most_waiting:
            return 503, "too many uploads wait to be read; try again in some minutes"
        return None

    def _lets_in(self, path: str, headers: Mapping[bytes, str]) -> bool:
        """Whether a request brings the token; how long that takes does not tell how much of it is right."""
        if self._token is None or path in self._rules.free:
            return True
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        return same and scheme.lower() == "bearer"


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
