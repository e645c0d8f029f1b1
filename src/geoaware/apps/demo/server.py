"""Serving the page: its address, its temporary folder, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaware.apps.demo.security import FETCH, RULES
from geoaware.apps.demo.session import Features, Matchers, Opening, Session, Sessions
from geoaware.apps.web.guard import Guard
from geoaware.apps.web.images import Limits
from geoaware.apps.web.serving import Ending, listening, temporary_folder, url_of
from geoaware.matcher import Matcher
from geoaware.presets import PRESETS
from geoaware.runs.memory import return_freed_memory
from geoaware.runs.optional import require

if TYPE_CHECKING:
    from fastapi import FastAPI

    from geoaware.apps.demo.page import Place

ALWAYS = (*PRESETS, "efficientnet-lite0")
"""Presets and extractors on offer whatever was asked for: their weights come with the extra `lite`."""


@dataclass(frozen=True)
class DemoSettings:
    """What is served, and where.

    Attributes:
        host: name or address to listen at; 127.0.0.1: this machine alone.
        port: 0 takes one that is free.
        features: chosen at the start, and on offer beside those of `ALWAYS`; device and dtype are theirs.
        zoom, upright: of the extractor chosen at the start alone (see `Matcher`); others may not have them.
        limits: of an image.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    features: Features = field(default_factory=Features)
    device: str = "auto"
    dtype: str = "fp32"
    zoom: str | None = None
    upright: str = "off"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Demo:
    """A server of uvicorn, ready to run by ``server.run(sockets=[listener])``.

    ``url`` is to be opened in a browser; ``folder`` holds the temporary files and is gone when it ends.
    """

    server: Any
    listener: socket.socket
    url: str
    folder: Path
    visitors: Sessions


def serve(
    settings: DemoSettings,
    examples: Sequence[tuple[Path, str]],
    opening: Opening | None,
    ready: Callable[[str], None],
) -> None:
    """Serve the demo until the process is asked to end (Ctrl-C, SIGTERM, SIGHUP).

    ``examples`` are photographs on offer, with a few words about each, and ``opening`` is what visitors find.
    It is matched when the first of them comes, and only with features of `ALWAYS`: others may take minutes.
    ``ready`` is called with the address just before requests are answered.

    Raises:
        InputError: the address cannot be had, or the features cannot be loaded.
        MissingDependencyError: gradio is not installed.
    """
    return_freed_memory()
    with Ending() as ending, prepared(settings, examples, opening) as demo:
        ready(demo.url)
        ending.server = demo.server
        demo.server.run(sockets=[demo.listener])


@contextmanager
def prepared(
    settings: DemoSettings, examples: Sequence[tuple[Path, str]] = (), opening: Opening | None = None
) -> Iterator[Demo]:
    """A server with its page, its listening socket and its temporary folder, which all end with the block."""
    with (
        listening(settings.host, settings.port) as listener,
        temporary_folder("demo") as folder,
        _environment(
            # Files go to the folder, and nothing goes to gradio's makers.
            GRADIO_TEMP_DIR=str(folder),
            GRADIO_EXAMPLES_CACHE=str(folder / "examples"),
            GRADIO_ANALYTICS_ENABLED="False",
            GRADIO_ROOT_PATH="",
            HF_HUB_DISABLE_TELEMETRY="1",
        ),
    ):
        require("gradio", extra="demo")
        from geoaware.apps.demo.page import Place

        matchers = load_matchers(settings)
        visitors = Sessions(lambda: Session(matchers, settings.features))
        fast = settings.features.extractor in ALWAYS
        place = Place(folder, settings.limits, examples, opening if fast else None)
        app = _app(settings, matchers, visitors, place)
        url = url_of(settings.host, listener.getsockname()[1])
        yield Demo(_server(app, settings, folder), listener, url, folder, visitors)


def load_matchers(settings: DemoSettings) -> Matchers:
    """Those on offer, with the features of the settings loaded."""

    def load(name: str, place: str) -> Matcher:
        first = name == settings.features.extractor
        return Matcher.from_pretrained(
            name,
            post_processor=place,
            zoom=settings.zoom if first else None,
            upright=settings.upright if first else "off",
            device=settings.device,
            dtype=settings.dtype,
        )

    matchers = Matchers(
        [settings.features.extractor, *ALWAYS],
        [settings.features.post_processor, "auto", "none"],
        load,
    )
    matchers.get(settings.features)
    return matchers


def _app(settings: DemoSettings, matchers: Matchers, visitors: Sessions, place: Place) -> FastAPI:
    """The page, and the visitors' images beside it."""
    import gradio as gr
    from fastapi import FastAPI, Response
    from fastapi.responses import JSONResponse

    from geoaware.apps.demo.page import build, look

    app = FastAPI(openapi_url=None)

    @app.get(f"/{FETCH}/{{token}}")
    def mine(token: str) -> Response:
        found = visitors.served(token)
        if found is None:
            return Response("no such address", 404, media_type="text/plain")
        return Response(found.data, media_type=found.kind, headers={"cache-control": "private, no-store"})

    @app.get(f"/{FETCH}/{{token}}/at")
    def at(token: str, x: float, y: float, heated: bool = False) -> Response:
        key = visitors.at(token)
        if key is None:
            return Response("no such address", 404, media_type="text/plain")
        with visitors.using(key) as session:
            found = session.peek(x, y, heated)
        return JSONResponse(found, headers={"cache-control": "private, no-store"})

    gr.mount_gradio_app(
        app,
        build(visitors, matchers, settings.features, place),
        "/",
        footer_links=[],
        run_history=False,
        max_file_size=settings.limits.bytes,
        show_error=False,
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        **look(),
    )
    return app


def _server(app: FastAPI, settings: DemoSettings, folder: Path) -> Any:
    """What serves the page, behind its guard."""
    import uvicorn
    from gradio.route_utils import FnIndexInferError
    from starlette.routing import Mount

    inside: Any = next(route.app for route in app.routes if isinstance(route, Mount))
    for unknown in (KeyError, FnIndexInferError):
        inside.add_exception_handler(unknown, _outdated)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            inside.stop_event.set()  # the connections of open pages, which do not end by themselves
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            Guard(app, RULES, settings.limits, settings.host, folder),
            log_level="warning",
            proxy_headers=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )


async def _outdated(request: Any, error: Exception) -> Any:
    """What a page hears that asks for a part which this page does not have: it was made by another demo."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": "This page is of an earlier demo; load it again."}, 404)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables while the block runs, then as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
