"""The page: a `Session` for every browser tab, drawn with gradio. Imported only where the demo is served."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from geoaware.apps.demo import fragments
from geoaware.apps.demo.security import FETCH, uploaded
from geoaware.apps.demo.session import (
    MOST_SESSIONS,
    NAMES,
    Features,
    Kind,
    Matchers,
    Opening,
    Row,
    Served,
    Session,
    Sessions,
    Side,
)
from geoaware.apps.web.guard import tell_once
from geoaware.apps.web.images import Limits, read_image, too_many_bytes
from geoaware.runs.errors import InputError

_HINTS: dict[Side, str] = {"source": "click points here", "target": "matches appear here"}
_THUMBNAIL = (96, 96)

UPLOADS_KEPT = 600
"""Seconds, at most, that an upload which no page asks for lies on the disk; others are deleted once read."""

Update = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """What the page is served with: the folder into which gradio writes what is uploaded, examples, and what
    visitors find on it.

    An example is a photograph with a few words about it. The lock ``taking`` is held while an image is taken:
    the largest take hundreds of megabytes while they are decoded and encoded.
    """

    uploads: Path
    limits: Limits
    examples: Sequence[tuple[Path, str]]
    opening: Opening | None = None
    taking: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def open(self, session: Session) -> None:
        """Show a visitor who comes what everyone finds on the page."""
        if self.opening is not None:
            session.open(self.opening)


def build(visitors: Sessions, matchers: Matchers, chosen: Features, place: Place) -> gr.Blocks:
    """The page with its events; `look` says what it looks like."""
    start = Session(matchers, chosen)
    menus = (
        (matchers.extractors, chosen.extractor, "Features", "extractor"),
        (matchers.post_processors, chosen.post_processor, "Post-processor", "post-processor"),
    )
    with _Page(
        title="geoaware", analytics_enabled=False, delete_cache=(UPLOADS_KEPT // 2, UPLOADS_KEPT // 2)
    ) as page:
        gr.HTML(
            "<h1>Point on one image, see it on the other</h1>"
            "<p>geoaware finds the same part of another object, and tells left from right.</p>",
            elem_id="head",
        )
        note = gr.HTML(fragments.note(fragments.WELCOME), elem_id="note")
        with gr.Row():
            source, target = _pane("source", place), _pane("target", place)
        with gr.Row():
            labels = ("Undo last point", "Clear points", "Download JSON", "Download PNG")
            undo, clear, as_json, as_png = (gr.Button(each, size="sm", min_width=130) for each in labels)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                none = fragments.table([], None)
                table = gr.HTML(
                    none, js_on_load=_text("table.js"), apply_default_css=False, elem_id="matches"
                )
            with gr.Column(scale=2, min_width=300):
                about = "Heat map on image B, of the chosen point or of that under the pointer"
                heat = gr.Checkbox(False, label=about, elem_id="heat")
                both = "Pose alignment: try image A mirrored too"
                align = gr.Checkbox(start.aligned, label=both, elem_id="align")
                pose = gr.HTML(fragments.pose(start), apply_default_css=False, elem_id="pose")
                extractor, refined = (
                    gr.Dropdown(list(names), value=value, label=label, elem_id=name, filterable=False)
                    for names, value, label, name in menus
                )
        saver = gr.HTML(
            "", html_template="<span></span>", js_on_load=_text("saver.js"), url="", name="", serial=0
        )
        view = _View(visitors, place, note, source, target, table, pose, align, extractor, refined, heat)
        _connect_image(view, source, "source", place)
        _connect_image(view, target, "target", place)
        _connect_points(view, undo, clear)
        _connect_settings(view)
        _connect_downloads(view, saver, {"json": as_json, "png": as_png})

        def arrive(request: gr.Request) -> list[Update]:
            return view.after(request, place.open, new=True)

        def leave(request: gr.Request) -> None:
            visitors.drop(_key(request))

        page.load(arrive, outputs=view.all(), **_QUIET)
        page.unload(leave)
    # What gradio itself remembers of a tab: where its points are drawn, but no image.
    page.state_session_capacity = 4 * MOST_SESSIONS
    return page


class _Page(gr.Blocks):
    """Prints nothing of requests that cannot be answered: forged ones would fill the terminal."""

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        try:
            return dict(await super().process_api(*given, **named))
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            tell_once(type(error).__name__)
            text = "This could not be answered; load the page again."
            raise gr.Error(text, print_exception=False) from error


def look() -> dict[str, Any]:
    """Theme and style for `gr.mount_gradio_app`; nothing is fetched from elsewhere."""
    system = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    blue = gr.themes.Color(
        c50="#eaf4fb", c100="#d0e7f5", c200="#a3cfec", c300="#6fb3df", c400="#3894ce", c500="#0072b2",
        c600="#0067a1", c700="#005687", c800="#00466e", c900="#003757", c950="#002a43",
    )  # fmt: skip
    theme = gr.themes.Default(
        primary_hue=blue, secondary_hue=blue, font=system, font_mono=("ui-monospace", "monospace")
    )
    # Not as gradio's css, which it takes apart and puts together again without some of the rules.
    return {"theme": theme, "head": f"<style>{_text('page.css')}</style>"}


_QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
}
"""Of every event: answered at once, no veil over the page, not part of a public interface, none left out."""

Data = Mapping[str, Any]
"""What the browser sends with an event. Anything can be in it."""


@dataclass(frozen=True)
class _View:
    """The components that show a session, and how events change it."""

    visitors: Sessions
    place: Place
    note: gr.HTML
    source: gr.HTML
    target: gr.HTML
    table: gr.HTML
    pose: gr.HTML
    align: gr.Checkbox
    extractor: gr.Dropdown
    refined: gr.Dropdown
    heat: gr.Checkbox

    def all(self) -> list[gr.blocks.Block]:
        return [each for each in vars(self).values() if isinstance(each, gr.blocks.Block)]

    def of(self, session: Session, error: str | None = None) -> list[Update]:
        """Everything as it now is, in the order of `all`."""
        rows = session.rows()
        return [
            gr.update(value=fragments.note(error or fragments.hint(session, rows), bad=error is not None)),
            _image(session, "source", rows),
            _image(session, "target", rows),
            gr.update(value=fragments.table(rows, session.chosen)),
            gr.update(value=fragments.pose(session)),
            gr.update(value=session.aligned),
            gr.update(value=session.features.extractor),
            gr.update(value=session.features.post_processor),
            gr.update(value=session.heated),
        ]

    def after(
        self,
        request: gr.Request,
        change: Callable[[Session], object],
        new: bool = False,
        brings: bool = False,
    ) -> list[Update]:
        """Make a change to the visitor's session, and show what came of it or why it could not be made.

        Where the session that the page shows is gone, that is said instead, and it is as when it was loaded;
        unless an image is brought (``brings``). ``new``: the page was just loaded.
        """
        with self.visitors.using(_key(request), new) as session:
            lost, session.lost = session.lost, False
            if lost and not brings:
                self.place.open(session)
                return self.of(session, fragments.LOST)
            try:
                change(session)
            except InputError as error:
                return self.of(session, str(error))
            return self.of(session)

    def on(
        self,
        event: Callable[..., object],
        change: Callable[[Session, Data], object],
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        """Let an event of a component make a change; with a ``turn`` it brings an image.

        Who waits for a turn holds no session meanwhile.
        """

        def handle(request: gr.Request, event: gr.EventData) -> list[Update]:
            data = event._data if isinstance(event._data, dict) else {}
            with turn or nullcontext():
                return self.after(request, lambda session: change(session, data), brings=turn is not None)

        event(handle, outputs=self.all(), **_QUIET)


def _connect_image(view: _View, pane: gr.HTML, side: Side, place: Place) -> None:
    """Uploads and examples of one side."""

    def bring(session: Session, data: Data) -> None:
        path = uploaded(data.get("path"), place.uploads)
        try:
            session.bring(side, read_image(path, place.limits, str(data.get("name") or path.name)))
        finally:
            path.unlink(missing_ok=True)

    def example(session: Session, data: Data) -> None:
        path, _ = place.examples[_index(data, len(place.examples))]
        session.bring(side, read_image(path, place.limits))

    def trouble(session: Session, data: Data) -> None:
        name = str(data.get("name", "the file"))
        lost = f"{name} could not be sent; try again, or scale it down first."
        raise InputError(too_many_bytes(name, place.limits) if data.get("large") else lost)

    view.on(pane.bring, bring, place.taking)
    view.on(pane.example, example, place.taking)
    view.on(pane.trouble, trouble)


def _connect_points(view: _View, undo: gr.Button, clear: gr.Button) -> None:
    """Clicks on image A, the choice of a point, moving points and taking them away."""
    view.on(view.source.place, lambda session, data: session.click(_number(data, "x"), _number(data, "y")))
    for part in (view.source, view.target, view.table):
        view.on(part.choose, lambda session, data: session.choose(_index(data, len(session.points))))
        view.on(part.removed, lambda session, data: session.remove(_index(data, len(session.points))))
    view.on(
        view.source.moved,
        lambda session, data: session.move(
            _index(data, len(session.points)), _number(data, "x"), _number(data, "y")
        ),
    )
    view.on(undo.click, lambda session, data: session.undo())
    view.on(clear.click, lambda session, data: session.clear())


def _connect_settings(view: _View) -> None:
    """Heat map, pose alignment and features."""

    def switch(box: gr.Checkbox, change: Callable[[Session, bool], None]) -> None:
        def handle(wanted: bool, request: gr.Request) -> list[Update]:
            return view.after(request, lambda session: change(session, bool(wanted)))

        box.input(handle, box, view.all(), **_QUIET)

    def use(extractor: str, post_processor: str, request: gr.Request) -> list[Update]:
        return view.after(request, lambda session: session.use(Features(str(extractor), str(post_processor))))

    switch(view.heat, lambda session, wanted: setattr(session, "heated", wanted))
    switch(view.align, Session.align)
    for menu in (view.extractor, view.refined):
        menu.input(use, [view.extractor, view.refined], view.all(), **_QUIET)


def _connect_downloads(view: _View, saver: gr.HTML, buttons: Mapping[Kind, gr.Button]) -> None:
    """The matches as a file, which the browser saves."""

    def connect(kind: Kind, button: gr.Button) -> None:
        def save(request: gr.Request) -> list[Update]:
            name = f"matches.{kind}"
            try:
                url = _url(view.visitors.of(_key(request)).download(kind))
            except InputError as error:
                return [gr.update(value=fragments.note(str(error), bad=True)), gr.skip()]
            return [
                gr.update(value=fragments.note(f"Saved as {name}.")),
                gr.update(url=url, name=name, serial=next(_serials)),
            ]

        button.click(save, outputs=[view.note, saver], **_QUIET)

    for kind, button in buttons.items():
        connect(kind, button)


def _pane(side: Side, place: Place) -> gr.HTML:
    template = _text("image.html").replace("SIDE", side).replace("HINT", _HINTS[side])
    template = template.replace("TITLE", NAMES[side].replace("image", "Image"))
    with gr.Column(min_width=320):
        return gr.HTML(
            "",
            html_template=template,
            js_on_load=_text("image.js"),
            apply_default_css=False,
            elem_id=f"{side}-image",
            src="",
            heat="",
            peek="",
            heated=False,
            width=1,
            height=1,
            points=[],
            chosen=-1,
            serial=0,
            most=place.limits.bytes,
            examples=[{"src": _thumbnail(path), "about": about} for path, about in place.examples],
        )


def _image(session: Session, side: Side, rows: Sequence[Row]) -> Update:
    """One image with its points."""
    shown = session.shown(side)
    width, height = (1, 1) if shown is None else shown.image.size
    points = []
    for row in rows:
        x, y = row.query if side == "source" else row.match
        sure = f", confidence {row.confidence:.2f}" if side == "target" else ""
        title = f"point {row.number}{sure}"
        points.append({"x": x, "y": y, "number": row.number, "colour": row.colour, "title": title})
    return gr.update(
        src=_url(None if shown is None else shown.served),
        heat=_url(session.heat()) if side == "target" else "",
        peek=f"{FETCH}/{session.token}/at" if session.result is not None else "",
        heated=session.heated,
        width=width,
        height=height,
        points=points,
        chosen=-1 if session.chosen is None else session.chosen,
        serial=next(_serials),
    )


_serials = itertools.count(1)


def _url(served: Served | None) -> str:
    return "" if served is None else f"{FETCH}/{served.token}"


def _thumbnail(path: Path) -> str:
    """A small square image as a data address."""
    small = Served.of(ImageOps.fit(read_image(path, Limits()), _THUMBNAIL, Image.Resampling.LANCZOS))
    return f"data:{small.kind};base64,{base64.b64encode(small.data).decode('ascii')}"


def _key(request: gr.Request) -> str:
    """What tells one browser tab from another: gradio's random session hash."""
    key = request.session_hash
    if not isinstance(key, str) or not key:
        raise gr.Error("open the page in a browser", print_exception=False)
    return key


def _number(data: Data, name: str) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("That click has no position; click on image A again.")
    return float(value)


def _index(data: Data, count: int) -> int:
    value = data.get("index")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise InputError("There is nothing of that number; choose again.")
    return value


def _text(name: str) -> str:
    return (files("geoaware.apps.demo") / name).read_text(encoding="utf-8")
