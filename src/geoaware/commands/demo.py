"""``geoaware demo``: a page in the browser to click points and see their matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from geoaware.apps.demo.session import Opening


@expand
def demo(
    host: Annotated[str, Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 7860,
    extractor: ExtractorName = "lite",
    post_processor: PostProcessorPlace = "auto",
    device: Device = "auto",
    dtype: Dtype = "fp32",
    *,
    uploads: UploadOptions,
    views: ViewOptions,
) -> None:
    """Serve a page on which points clicked on one image appear on another.

    It opens with two photographs, matched already. `lite`, `lite-frozen` and `efficientnet-lite0` can be
    chosen on the page in any case.

    Open the address that it prints in a browser; Ctrl-C ends it. Images stay on this machine.

    Examples:

    geoaware demo

    geoaware demo --extractor dinov2-base --device cuda --port 8000
    """
    from geoaware.apps.demo.server import DemoSettings, serve
    from geoaware.apps.demo.session import Features
    from geoaware.apps.web.guard import is_loopback
    from geoaware.commands.examples import EXAMPLES

    settings = DemoSettings(
        host,
        port,
        Features(extractor, post_processor),
        device,
        dtype,
        views.zoom,
        views.upright,
        uploads.limits(),
    )
    if not is_loopback(host):
        say(f"warning: everyone who can reach this machine at {host} can use the demo; it has no password")
    photographs = [(path, example.about) for example in EXAMPLES if (path := example.path) is not None]
    serve(
        settings,
        photographs,
        _opening(),
        lambda url: typer.echo(f"open {url} in a browser; Ctrl-C ends the demo"),
    )
    say("ended; its temporary files are deleted")


def _opening() -> Opening | None:
    """The faces that the page opens with, if their package still carries them."""
    from geoaware.apps.demo.session import Opening, Shown
    from geoaware.commands.examples import EYES_AND_EARS, FACES
    from geoaware.data.images import load_image

    paths = [path for each in FACES if (path := each.path) is not None]
    if len(paths) < len(FACES):
        return None
    source, target = (Shown.of(load_image(path), own=False) for path in paths)
    return Opening(source, target, EYES_AND_EARS)
