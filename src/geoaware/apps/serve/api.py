"""The addresses of the interface, what they take and what they answer. Imported only where it is served."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from html import escape
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, File, Header, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from geoaware._version import __version__
from geoaware.apps.serve.images import FullError, Images, UnknownImageError
from geoaware.apps.serve.settings import ServeSettings
from geoaware.apps.web.guard import Rules
from geoaware.apps.web.images import read_image
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.work import is_out_of_memory

T = TypeVar("T")

RETRY = {"retry-after": "2"}
"""Header of an answer that the server is busy: seconds after which to ask again."""

IMAGES, MATCH, HEATMAP = "/v1/images", "/v1/match", "/v1/heatmap"


def rules(settings: ServeSettings) -> Rules:
    """What is answered at all."""
    return Rules(
        exact=frozenset({"/", "/openapi.json", "/health", "/version", IMAGES, MATCH, HEATMAP}),
        below=(f"{IMAGES}/",),
        uploads=frozenset({IMAGES}),
        largest=65536 + 64 * settings.points,
        methods=("GET", "HEAD", "POST", "DELETE"),
        free=frozenset({"/health"}),
        policy="default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        as_json=True,
    )


class BusyError(RuntimeError):
    """As much waits for the device as may."""


class Worker:
    """The one thread that computes: work waits for its turn, and only so much may wait."""

    def __init__(self, most: int) -> None:
        self._most, self.waiting = most, 0
        self._thread = ThreadPoolExecutor(1, "geoaware-worker")

    async def do(self, work: Callable[..., T], *given: object) -> T:
        """Have something done.

        Raises:
            BusyError: too much waits.
        """
        if self.waiting >= self._most:
            raise BusyError
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)
        finally:
            self.waiting -= 1

    def end(self) -> None:
        """End the thread when it has done what it does; what waits is not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


Pose = Literal["auto", "off", "flip", "rotate"]
Point = tuple[float, float]


class MatchRequest(_Body):
    """Points of one image to be found in another."""

    source: str = Field(description="Id of the image that the points are on.")
    target: str = Field(description="Id of the image to find them in.")
    points: list[Point] = Field(description="Pixels (x, y) of the source, upright as EXIF turns it.")
    pose: Pose = Field("auto", description="Which poses of the source are tried: auto, as measured.")


class HeatmapRequest(_Body):
    """A point of one image, whose similarity with another is drawn."""

    source: str = Field(description="Id of the image that the point is on.")
    target: str = Field(description="Id of the image that is drawn.")
    point: Point = Field(description="Pixels (x, y) of the source.")
    pose: Pose = Field("auto", description="Which poses of the source are tried: auto, as measured.")


class Sent(BaseModel):
    """An image that is kept."""

    id: str = Field(description="By which this client, and no other, names the image from now on.")
    width: int = Field(description="Pixels of the upright image.")
    height: int
    seconds: float = Field(description="That it is kept after it was last used.")


class Match(BaseModel):
    """Where one point was found."""

    query: Point = Field(description="Pixels (x, y) of the source.")
    match: Point = Field(description="Pixels (x, y) of the target.")
    confidence: float = Field(description="0 to 1; low where the target has several such places, or none.")
    cycle_error: float = Field(description="How far from the query its match leads back to.")


class Found(BaseModel):
    """What `geoaware match --json` writes."""

    model_config = ConfigDict(extra="allow")
    source_size: tuple[int, int]
    target_size: tuple[int, int]
    pose_setting: str
    pose: str = Field(description="How the source was turned.")
    distances: dict[str, float] = Field(description="Of each pose that was tried, to the target.")
    matches: list[Match] = Field(description="In the order of the points.")


class Problem(BaseModel):
    """Why a request was not answered, in a sentence."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Something given cannot be used."},
    404: {"model": Problem, "description": "No image of this client has the id."},
    503: {"model": Problem, "description": "The server is busy; see the header Retry-After."},
}


def client_of(
    request: Request,
    x_client: Annotated[
        str, Header(max_length=200, description="Tells programs at one address apart; any text.")
    ] = "",
) -> str:
    """What tells one client from another: its address, and what it calls itself."""
    address = request.client.host if request.client else ""
    return f"{address} {x_client}"


Client = Annotated[str, Depends(client_of)]

_FORMATS = "The file: JPEG, PNG, WebP, BMP, TIFF, GIF or PPM."


def build(settings: ServeSettings, matcher: Matcher, images: Images, worker: Worker) -> FastAPI:
    """The interface with its description."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(_forget(images, settings.bounds.seconds))
        yield
        forgetting.cancel()
        worker.end()

    app = FastAPI(
        title="geoaware",
        version=__version__,
        description="Finds points of one image on another, and tells left from right.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={401: {"model": Problem, "description": "The token is missing or wrong."}},
    )
    _add_problems(app)
    _add_about(app, settings, matcher)
    _add_images(app, settings, images, matcher, worker)
    _add_matching(app, settings, images, matcher, worker)
    return app


def _add_images(
    app: FastAPI, settings: ServeSettings, images: Images, matcher: Matcher, worker: Worker
) -> None:
    """Sending and forgetting."""

    @app.post(IMAGES, status_code=201, responses=_PROBLEMS)
    async def send_image(client: Client, image: Annotated[UploadFile, File(description=_FORMATS)]) -> Sent:
        """Send an image. It is read and encoded once; its id stands for it from then on."""

        def take() -> Sent:
            # What waits for its turn lies on the disk, where it is large.
            content = image.file.read()
            encoded = matcher.encode(read_image(content, settings.limits, image.filename or None))
            id, (width, height) = images.add(client, content, encoded).id, encoded.size
            return Sent(id=id, width=width, height=height, seconds=settings.bounds.seconds)

        return await worker.do(take)

    @app.delete(IMAGES + "/{id}", status_code=204, responses={404: _PROBLEMS[404]})
    async def forget_image(client: Client, id: str) -> None:
        """Forget an image at once."""
        images.remove(client, id)


def _add_matching(
    app: FastAPI, settings: ServeSettings, images: Images, matcher: Matcher, worker: Worker
) -> None:
    """Matches and heat maps."""

    @app.post(MATCH, responses={200: {"model": Found}, **_PROBLEMS})
    async def match_points(client: Client, asked: MatchRequest) -> Response:
        """Find points of one image in another: positions, confidences, and how the source was turned."""
        if len(asked.points) > settings.points:
            raise InputError(f"{len(asked.points)} points are more than the {settings.points} taken at once")
        pair = images.get(client, asked.source), images.get(client, asked.target)

        def find() -> str:
            return images.match(pair, asked.points, asked.pose, matcher).to_json(indent=None)

        return Response(await worker.do(find), media_type="application/json")

    @app.post(
        HEATMAP,
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The image."}, **_PROBLEMS},
    )
    async def draw_heatmap(client: Client, asked: HeatmapRequest) -> Response:
        """Draw the target under its similarity with one point of the source, as a PNG."""
        pair = images.get(client, asked.source), images.get(client, asked.target)

        def draw() -> bytes:
            file = io.BytesIO()
            found = images.match(pair, [asked.point], asked.pose, matcher)
            found.heatmap(0).save(file, "PNG", compress_level=1)
            return file.getvalue()

        return Response(await worker.do(draw), media_type="image/png")


def _add_about(app: FastAPI, settings: ServeSettings, matcher: Matcher) -> None:
    """What the server is, and whether it is there."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers; needs no token."""
        return {"status": "ok"}

    @app.get("/version")
    async def version() -> dict[str, Any]:
        """Versions, features and settings, and the limits of what may be sent."""
        limits = {
            "megabytes": settings.limits.megabytes,
            "megapixels": settings.limits.megapixels,
            "points": settings.points,
        }
        kept = asdict(settings.bounds)
        return {"geoaware": __version__, "limits": limits, "kept": kept, **matcher.describe()}

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(described(app.openapi()))


def _add_problems(app: FastAPI) -> None:
    """Every problem is one sentence of JSON."""

    def answer(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": text}, status, headers)

    def handle(kind: type[Exception], make: Callable[[Any], JSONResponse]) -> None:
        async def handler(_: Request, error: Exception) -> JSONResponse:
            return make(error)

        app.add_exception_handler(kind, handler)

    full = "the server holds as many images as it can; forget some, or try again later"
    busy = "the server has too much to do; try again later"
    handle(InputError, lambda error: answer(400, str(error)))
    handle(UnknownImageError, lambda error: answer(404, str(error)))
    handle(FullError, lambda _: answer(503, full, RETRY))
    handle(BusyError, lambda _: answer(503, busy, RETRY))
    handle(NotFiniteError, lambda error: answer(500, str(error)))
    handle(HTTPException, lambda error: answer(error.status_code, str(error.detail).lower(), error.headers))
    handle(RequestValidationError, lambda error: answer(422, _sentence(error)))

    def other(error: Exception) -> JSONResponse:
        if is_out_of_memory(error):
            return answer(503, "not enough memory for this; try a smaller image, or later", RETRY)
        return answer(500, "this could not be answered; the server's terminal says what failed")

    handle(Exception, other)


def _sentence(error: RequestValidationError) -> str:
    """The first thing that is wrong with a request, and where."""
    first = error.errors()[0]
    where = ".".join(str(each) for each in first["loc"] if each != "body")
    if first["type"] in ("json_invalid", "model_attributes_type") or not where:
        return "the body must be a JSON object, sent with Content-Type: application/json"
    return f"{where}: {first['msg'].lower()}"


async def _forget(images: Images, seconds: float) -> None:
    """Forget old images also while nobody asks for anything."""
    while True:
        await asyncio.sleep(min(30.0, max(1.0, seconds / 4)))
        images.expire()


def described(schema: dict[str, Any]) -> str:
    """The description of the interface as a page without scripts."""
    lines, about = [], schema["info"]
    for path, methods in schema["paths"].items():
        for method, each in methods.items():
            fields = "".join(
                f"<li><code>{escape(name)}</code> {escape(field.get('description', ''))}</li>"
                for name, field in _fields(schema, each).items()
            )
            answers = escape(", ".join(sorted(each["responses"])))
            lines.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(each['description'])}</p>"
                f"<ul>{fields}</ul><p>Answers: {answers}</p>"
            )
    style = "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>geoaware</title><style>{style}</style>'
        f"<h1>geoaware {escape(about['version'])}</h1><p>{escape(about['description'])} Programs find this "
        f'in <a href="/openapi.json">openapi.json</a>.</p>{"".join(lines)}</html>'
    )


def _fields(schema: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """What a request takes, by name: of its body."""
    content = operation.get("requestBody", {}).get("content", {})
    names = [each["schema"]["$ref"].rpartition("/")[2] for each in content.values()]
    found: dict[str, Any] = schema["components"]["schemas"][names[0]]["properties"] if names else {}
    return found
