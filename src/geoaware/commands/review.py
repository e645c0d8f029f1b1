"""``geoaware review``: a page in the browser to correct and accept what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import ExifPixels, expand, say


@expand
def review(
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="What `geoaware transfer` wrote, or annotations of any format."),
    ],
    images: Annotated[
        Path | None, Option(metavar="DIR", help="Folder of the images; where exporters put it, if not given.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="File that every change is saved to; NAME.reviewed.json beside FILE.")
    ] = None,
    host: Annotated[str, Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 7861,
    suggest: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Only print N images to annotate next: unsure, unlike the sources."),
    ] = None,
    exif: ExifPixels = "upright",
) -> None:
    """Correct a result in the browser, from the least confident object on.

    Keypoints are dragged and hidden, left and right are swapped by one key, and what is right is accepted.
    Open the address that it prints; Ctrl-C ends it. Every change is saved at once, and FILE stays as it is.
    The same command goes on where you stopped.

    Examples:

    geoaware review found.json --images photos

    geoaware review found.json --images photos --suggest 10

    geoaware transfer found.reviewed.json photos --accepted --source-images photos --out better.json
    """
    from geoaware.apps.review.review import opened
    from geoaware.apps.review.server import serve
    from geoaware.apps.web.guard import is_loopback

    with opened(file, images, out, exif, alone=suggest is None) as it:
        if suggest is not None:
            # An image may show several of the objects.
            names = dict.fromkeys(it.targets[each].image_name for each in it.suggested(4 * suggest))
            typer.echo("\n".join([*names][:suggest]))
            return

        def ready(url: str) -> None:
            for note in it.notes:
                say(f"note: {note}")
            if not is_loopback(host):
                say(f"warning: who learns the address can see the images and change {it.out}")
            say(f"{len(it.targets):,} objects, {sum(it.accepted()):,} accepted; changes go to {it.out}")
            typer.echo(f"open {url} in a browser; Ctrl-C ends the review")

        serve(it, host, port, ready)
        say(f"ended; {sum(it.accepted()):,} of {len(it.targets):,} accepted")
