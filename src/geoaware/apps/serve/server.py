"""Serving the interface: its matcher, its address, its end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoaware.apps.serve.images import Images
from geoaware.apps.serve.settings import ServeSettings
from geoaware.apps.web.guard import Guard
from geoaware.apps.web.images import read_image
from geoaware.apps.web.serving import Ending, listening, url_of
from geoaware.matcher import Matcher
from geoaware.runs.memory import return_freed_memory
from geoaware.runs.optional import require

if TYPE_CHECKING:
    from geoaware.apps.serve.api import Worker


@dataclass(frozen=True)
class Service:
    """A server of uvicorn, ready to run by ``server.run(sockets=[listener])``, and what it keeps."""

    server: Any
    listener: socket.socket
    url: str
    images: Images
    worker: Worker


def serve(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Serve until the process is asked to end (Ctrl-C, SIGTERM, SIGHUP).

    ``ready`` is called with the address just before requests are answered.

    Raises:
        InputError: the address cannot be had, or the features cannot be loaded.
        MissingDependencyError: a package of the extra is not installed.
    """
    return_freed_memory()
    with Ending() as ending, prepared(settings) as service:
        ready(service.url)
        ending.server = service.server
        service.server.run(sockets=[service.listener])


@contextmanager
def prepared(settings: ServeSettings, matcher: Matcher | None = None) -> Iterator[Service]:
    """A server with its listening socket, which ends with the block; ``matcher`` instead of the settings'."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        require(package, extra="serve")
    import uvicorn

    from geoaware.apps.serve.api import Worker, build, rules

    with listening(settings.host, settings.port) as listener:
        matcher = matcher or Matcher.from_pretrained(
            settings.extractor,
            post_processor=settings.post_processor,
            zoom=settings.zoom,
            upright=settings.upright,
            device=settings.device,
            dtype=settings.dtype,
        )
        images = Images(settings.bounds, lambda content: read_image(content, settings.limits))
        worker = Worker(settings.waiting)
        app = build(settings, matcher, images, worker)
        guarded = Guard(app, rules(settings), settings.limits, settings.host, token=settings.token)
        server = uvicorn.Server(
            uvicorn.Config(
                guarded,
                log_level="warning",
                access_log=False,
                # The client is who connects, not who a header names.
                proxy_headers=False,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        yield Service(server, listener, url_of(settings.host, listener.getsockname()[1]), images, worker)
