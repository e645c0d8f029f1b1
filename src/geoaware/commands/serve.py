"""``geoaware serve``: the matcher behind an interface over HTTP, for other programs."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from geoaware.commands.options import (
    Device,
    Dtype,
    ExtractorName,
    PostProcessorPlace,
    UploadOptions,
    ViewOptions,
    expand,
    say,
)


@expand
def serve(
    host: Annotated[
        str, Option(help="Address to listen at; 0.0.0.0 lets other machines in, with --token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 7870,
    token: Annotated[
        str | None,
        Option(envvar="GEOAWARE_TOKEN", help="What every request must bring: Authorization: Bearer TOKEN."),
    ] = None,
    extractor: ExtractorName = "lite",
    post_processor: PostProcessorPlace = "auto",
    device: Device = "auto",
    dtype: Dtype = "fp32",
    max_points: Annotated[int, Option(min=1, max=100_000, help="Most points matched at once.")] = 1000,
    max_waiting: Annotated[
        int, Option(min=1, max=10_000, help="Most requests that wait; others are told to come back.")
    ] = 64,
    keep_minutes: Annotated[
        float, Option(min=0.01, max=100_000, help="How long an image is kept after it was last used.")
    ] = 15,
    *,
    uploads: UploadOptions,
    views: ViewOptions,
) -> None:
    """Serve the matcher over HTTP: send images once, match their points often.

    Every address is described at / and /openapi.json; docs/serve.md has examples. Ctrl-C ends it.

    Examples:

    geoaware serve

    GEOAWARE_TOKEN=$(openssl rand -hex 32) geoaware serve --host 0.0.0.0 --device cuda
    """
    from geoaware.apps.serve.images import Bounds
    from geoaware.apps.serve.server import serve as run
    from geoaware.apps.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host,
        port=port,
        extractor=extractor,
        post_processor=post_processor,
        device=device,
        dtype=dtype,
        zoom=views.zoom,
        upright=views.upright,
        limits=uploads.limits(),
        bounds=Bounds(seconds=60 * keep_minutes),
        points=max_points,
        waiting=max_waiting,
        token=token or None,
    )
    run(settings, lambda url: typer.echo(f"serving at {url}; Ctrl-C ends it"))
    say("ended")
