"""Serving the page of a review, under an address that nobody can guess."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from geoaware.apps.review.edits import check_points, confidence, points_of, scores_of
from geoaware.apps.review.pictures import Pictures, large, small
from geoaware.apps.review.review import Review, StaleError
from geoaware.apps.web.guard import Guard, Rules
from geoaware.apps.web.images import Limits
from geoaware.apps.web.serving import Ending, listening, url_of
from geoaware.data import fields
from geoaware.data.exif import turned_box
from geoaware.data.formats.hub import ACCEPTED
from geoaware.drawing.draw import DARK_RIM, LIGHT_RIM, RADIUS
from geoaware.drawing.palette import SIDES, css_variables
from geoaware.method.keypoints import Schema
from geoaware.method.keypoints.names import sides
from geoaware.runs.errors import InputError
from geoaware.runs.memory import return_freed_memory
from geoaware.runs.optional import require

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_log = logging.getLogger(__name__)

KINDS = {"page.css": "text/css", "page.js": "text/javascript", "list.js": "text/javascript",
         "view.js": "text/javascript"}  # fmt: skip
"""Files of the page beside its HTML, and their media types."""

_KEPT = {"cache-control": "private, max-age=3600"}
_ANEW = {"cache-control": "no-store"}


@dataclass(frozen=True)
class Served:
    """A server of uvicorn, ready to run by ``server.run(sockets=[listener])``, and its address."""

    server: Any
    listener: socket.socket
    url: str


def serve(review: Review, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve a review until the process is asked to end (Ctrl-C, SIGTERM, SIGHUP).

    ``ready`` is called with the address just before requests are answered.

    Raises:
        InputError: the address cannot be had.
        MissingDependencyError: starlette or uvicorn is not installed.
    """
    return_freed_memory()
    with Ending() as ending, prepared(review, host, port) as served:
        ready(served.url)
        ending.server = served.server
        served.server.run(sockets=[served.listener])


@contextmanager
def prepared(review: Review, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """A server with its listening socket, which ends with the block."""
    require("starlette", extra="review")
    uvicorn = require("uvicorn", extra="review")
    # Whoever knows the key may see the images and change the file: other people on this machine do not.
    key = secrets.token_urlsafe(24)
    rules = Rules(frozenset({f"/{key}"}), below=(f"/{key}/",), methods=("GET", "HEAD", "POST"), as_json=True)
    with listening(host, port) as listener:
        app = Guard(_app(_Answers(review), key), rules, Limits(), host)
        config = uvicorn.Config(
            app, log_level="warning", ws="none", server_header=False, timeout_graceful_shutdown=2
        )
        url = f"{url_of(host, listener.getsockname()[1])}{key}/"
        yield Served(uvicorn.Server(config), listener, url)


@dataclass(frozen=True)
class _Answers:
    """What the page is told, and what it may change."""

    review: Review
    pictures: Pictures = field(default_factory=Pictures)

    def targets(self) -> dict[str, Any]:
        """All objects in short, and what keypoints there are."""
        review = self.review
        kinds = list(review.schemas)
        rows = [
            [each.name, _rounded(confidence(each.given)), done, kinds.index(each.category)]
            for each, done in zip(review.targets, review.accepted(), strict=True)
        ]
        return {
            "file": review.out.name,
            "rows": rows,
            "next": review.suggested(),
            "schemas": [_schema(each) for each in review.schemas.values()],
        }

    def target(self, number: int) -> dict[str, Any]:
        """All that is shown of an object, in pixels of the upright image."""
        review = self.review
        annotation = review.annotation(number)
        about: dict[str, Any] = {"revision": review.revision(number), "accepted": annotation[ACCEPTED]}
        try:
            frame = review.frame(number)
        except InputError as error:
            # The page names no place of this machine.
            path = review.targets[number].path
            return {**about, "error": str(error).removeprefix(f"{path}: ").replace(str(path), path.name)}
        return {
            **about,
            "size": list(frame.size),
            "points": review.places(points_of(annotation), frame),
            "guesses": review.places(review.guesses(number), frame),
            "scores": scores_of(annotation),
            "box": self._box(number, annotation.get("bbox")),
            "several": review.targets[number].several,
        }

    def change(self, number: int, content: Any) -> dict[str, Any]:
        """Save what the page has made of an object."""
        review = self.review
        if not isinstance(content, dict) or not isinstance(content.get("revision"), int):
            raise InputError("a change says of which revision it is")
        points = content.get("points")
        if points is not None:
            frame, schema = review.frame(number), review.schemas[review.targets[number].category]
            points = review.places(check_points(points, len(schema), frame.size), frame, back=True)
        revision = review.change(number, points, content.get(ACCEPTED) is True, content["revision"])
        return {"revision": revision, "scores": scores_of(review.annotation(number))}

    def image(self, number: int) -> bytes:
        """The image of an object."""
        path = self.review.targets[number].path
        return self.pictures.get(("large", path), lambda: large(path))

    def thumbnail(self, number: int) -> bytes:
        """The object as it was found, small."""
        target = self.review.targets[number]
        box = self._box(number, target.given.get("bbox"))
        return self.pictures.get(("small", number), lambda: small(target.path, box))

    def _box(self, number: int, box: Any) -> list[float] | None:
        """COCO's box on the upright image; ``None`` where there is none."""
        if not fields.are_numbers(box) or len(box) != 4 or min(box[2:]) <= 0:
            return None
        x, y, width, height = box
        frame = self.review.frame(number)
        if self.review.exif == "stored" and frame.orientation > 1:
            stored = frame.size if frame.orientation < 5 else frame.size[::-1]
            x1, y1, x2, y2 = turned_box((x, y, x + width, y + height), stored, frame.orientation)
            x, y, width, height = x1, y1, x2 - x1, y2 - y1
        return [x, y, width, height]


def _app(answers: _Answers, key: str) -> Starlette:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.routing import Mount, Route

    count = len(answers.review.targets)

    def told(content: Any) -> Response:
        return JSONResponse(content, headers=_ANEW)

    def numbered(answer: Callable[[int], Response]) -> Callable[[Request], Response]:
        def found(request: Request) -> Response:
            number = request.path_params["number"]
            if not 0 <= number < count:
                return JSONResponse({"error": "there is no such object"}, 404)
            try:
                return answer(number)
            except InputError as error:
                return JSONResponse({"error": str(error)}, 404, _ANEW)

        return found

    async def change(request: Request) -> Response:
        try:
            content = json.loads(await request.body())
            number = request.path_params["number"]
            if not 0 <= number < count:
                raise InputError("there is no such object")
            return JSONResponse(await run_in_threadpool(answers.change, number, content))
        except ClientDisconnect:
            return Response(status_code=400)
        except StaleError as error:
            return JSONResponse({"error": str(error)}, 409)
        except (InputError, ValueError, RecursionError) as error:
            return JSONResponse({"error": str(error) if isinstance(error, InputError) else "no JSON"}, 400)
        except OSError as error:
            said = f"{answers.review.out.name} cannot be written ({error.strerror})"
            _log.warning("%s", said)
            return JSONResponse({"error": said}, 507)

    def fixed(name: str) -> Route:
        text = _page() if name == "" else _text(name)
        kind = KINDS.get(name, "text/html")
        return Route(f"/{name}", lambda _: Response(text, media_type=kind, headers=_ANEW))

    def jpeg(make: Callable[[int], bytes]) -> Callable[[Request], Response]:
        return numbered(lambda number: Response(make(number), media_type="image/jpeg", headers=_KEPT))

    routes = [
        *map(fixed, ("", *KINDS)),
        Route("/targets", lambda _: told(answers.targets())),
        Route("/target/{number:int}", numbered(lambda each: told(answers.target(each)))),
        Route("/target/{number:int}", change, methods=["POST"]),
        Route("/image/{number:int}", jpeg(answers.image)),
        Route("/thumbnail/{number:int}", jpeg(answers.thumbnail)),
    ]
    whole = Route(f"/{key}", lambda _: RedirectResponse(f"/{key}/"))
    return Starlette(routes=[whole, Mount(f"/{key}", routes=routes)])


def _schema(schema: Schema) -> dict[str, Any]:
    return {
        "names": [str(each) for each in schema.names],
        "sides": sides([str(each) for each in schema.names], schema.flip_pairs),
        "partners": schema.partners,
        "limbs": schema.skeleton,
    }


def _page() -> str:
    """The page's HTML, with the colours of everything that the library draws."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(dark=True)} }} }}"
    drawn = " ".join(f"--side-{side}: {colour};" for side, colour in SIDES.items())
    drawn += f" --mark: {RADIUS:g}px; --dark-rim: {DARK_RIM:g}px; --light-rim: {LIGHT_RIM:g}px;"
    return Template(_text("page.html")).substitute(colours=f":root {{ {css_variables()} {drawn} }}\n{dark}")


def _text(name: str) -> str:
    return (files("geoaware.apps.review") / name).read_text(encoding="utf-8")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
