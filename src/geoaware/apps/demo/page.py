"""The page: a `Session` for every browser tab, drawn with gradio. Imported only where the demo is served."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from geoaware.apps.demo import fragments
from geoaware.apps.demo.security import FETCH, Limits, read_image, too_many_bytes, uploaded
from geoaware.apps.demo.session import (
    MOST_SESSIONS,
    NAMES,
    Features,
    Matchers,
    Row,
    Served,
    Session,
    Sessions,
    Side,
)
from geoaware.runs.errors import InputError

_HINTS: dict[Side, str] = {"source": "click points here", "target": "matches appear here"}
_THUMBNAIL = 96

UPLOADS_KEPT = 120
"""Seconds, at most, that an upload which no page asks for lies on the disk; others are deleted once read."""

Update = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A photograph to try the demo on."""

    path: Path
    about: str


@dataclass(frozen=True)
class Place:
    """Where the page is served from.

    Attributes:
        uploads: folder into which gradio writes what is uploaded.
        limits: of an image.
        examples: on offer.
    """

    uploads: Path
    limits: Limits
    examples: Sequence[Example] = ()


def build(visitors: Sessions, matchers: Matchers, chosen: Features, place: Place) -> gr.Blocks:
    """The page with its events; `look` says what it looks like."""
    with gr.Blocks(
        title="geoaware", analytics_enabled=False, delete_cache=(UPLOADS_KEPT // 2, UPLOADS_KEPT // 2)
    ) as page:
        gr.HTML(
            "<h1>Point on one image, see it on the other</h1>"
            "<p>geoaware finds the same part of another object, and tells left from right.</p>",
            elem_id="head",
        )
        note = gr.HTML(fragments.note(fragments.WELCOME), elem_id="note")
        with gr.Row():
            with gr.Column(min_width=320):
                source = _pane("source", place)
            with gr.Column(min_width=320):
                target = _pane("target", place)
        with gr.Row():
            undo = gr.Button("Undo last point", size="sm", min_width=130)
            clear = gr.Button("Clear points", size="sm", min_width=130)
            as_json = gr.Button("Download JSON", size="sm", min_width=130)
            as_png = gr.Button("Download PNG", size="sm", min_width=130)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                table = gr.HTML(
                    fragments.table([], None),
                    js_on_load=_TABLE_JS,
                    apply_default_css=False,
                    elem_id="matches",
                )
            with gr.Column(scale=2, min_width=300):
                heat, align, pose, extractor, refined = _settings(Session(matchers, chosen), matchers)
        saver = gr.HTML("", html_template="<span></span>", js_on_load=_SAVER_JS, url="", name="", serial=0)
        view = _View(note, source, target, table, pose, align, extractor, refined)
        _connect_images(view, visitors, place)
        _connect_points(view, visitors, undo, clear)
        _connect_settings(view, visitors, heat)
        _connect_downloads(visitors, note, saver, as_json, as_png)

        def leave(request: gr.Request) -> None:
            visitors.drop(_key(request))

        page.unload(leave)
    # What gradio itself remembers of a tab: where its points are drawn, but no image.
    page.state_session_capacity = 4 * MOST_SESSIONS
    return page


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


@dataclass(frozen=True)
class _View:
    """The components that show a session."""

    note: gr.HTML
    source: gr.HTML
    target: gr.HTML
    table: gr.HTML
    pose: gr.HTML
    align: gr.Checkbox
    extractor: gr.Dropdown
    refined: gr.Dropdown

    def all(self) -> list[gr.blocks.Block]:
        return list(vars(self).values())

    def of(self, session: Session, said: str | None = None) -> list[Update]:
        """Everything as it now is, in the order of `all`; ``said`` is an error's message."""
        rows = session.rows()
        return [
            gr.update(value=fragments.note(said or fragments.hint(session, rows), bad=said is not None)),
            _image(session, "source", rows),
            _image(session, "target", rows),
            gr.update(value=fragments.table(rows, session.chosen)),
            gr.update(value=fragments.pose(session)),
            gr.update(value=session.aligned),
            gr.update(value=session.features.extractor),
            gr.update(value=session.features.post_processor),
        ]

    def after(self, session: Session, change: Callable[[], object]) -> list[Update]:
        """Make a change and show what came of it, or why it could not be."""
        try:
            change()
        except InputError as error:
            return self.of(session, str(error))
        return self.of(session)


_QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
}
"""Of every event: answered at once, no veil over the page, not part of a public interface, none left out."""


def _connect_images(view: _View, visitors: Sessions, place: Place) -> None:
    """Uploads and examples, on both sides."""

    def connect(pane: gr.HTML, side: Side) -> None:
        def bring(request: gr.Request, event: gr.EventData) -> list[Update]:
            session = visitors.of(_key(request))

            def change() -> None:
                path = uploaded(_data(event).get("path"), place.uploads)
                try:
                    session.bring(side, read_image(path, place.limits))
                finally:
                    path.unlink(missing_ok=True)

            return view.after(session, change)

        def example(request: gr.Request, event: gr.EventData) -> list[Update]:
            session = visitors.of(_key(request))

            def change() -> None:
                number = _index(event, len(place.examples))
                session.bring(side, read_image(place.examples[number].path, place.limits))

            return view.after(session, change)

        def trouble(request: gr.Request, event: gr.EventData) -> list[Update]:
            data = _data(event)
            name = str(data.get("name", "the file"))
            lost = f"{name} could not be sent; try again, or scale it down first."
            return view.of(
                visitors.of(_key(request)), too_many_bytes(name, place.limits) if data.get("large") else lost
            )

        pane.bring(bring, outputs=view.all(), **_QUIET)
        pane.example(example, outputs=view.all(), **_QUIET)
        pane.trouble(trouble, outputs=view.all(), **_QUIET)

    connect(view.source, "source")
    connect(view.target, "target")


def _connect_points(view: _View, visitors: Sessions, undo: gr.Button, clear: gr.Button) -> None:
    """Clicks on image A, the choice of a point, and taking points away."""

    def click(request: gr.Request, event: gr.EventData) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, lambda: session.click(_number(event, "x"), _number(event, "y")))

    def choose(request: gr.Request, event: gr.EventData) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, lambda: session.choose(_index(event, len(session.points))))

    def take_last(request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, session.undo)

    def take_all(request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, session.clear)

    view.source.place(click, outputs=view.all(), **_QUIET)
    for part in (view.source, view.target, view.table):
        part.choose(choose, outputs=view.all(), **_QUIET)
    undo.click(take_last, outputs=view.all(), **_QUIET)
    clear.click(take_all, outputs=view.all(), **_QUIET)


def _connect_settings(view: _View, visitors: Sessions, heat: gr.Checkbox) -> None:
    """Heat map, pose alignment and features."""

    def show_heat(wanted: bool, request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        session.heated = bool(wanted)
        return view.of(session)

    def set_align(wanted: bool, request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, lambda: session.align(bool(wanted)))

    def use(extractor: str, post_processor: str, request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return view.after(session, lambda: session.use(Features(str(extractor), str(post_processor))))

    heat.input(show_heat, heat, view.all(), **_QUIET)
    view.align.input(set_align, view.align, view.all(), **_QUIET)
    for menu in (view.extractor, view.refined):
        menu.input(use, [view.extractor, view.refined], view.all(), **_QUIET)


def _connect_downloads(
    visitors: Sessions, note: gr.HTML, saver: gr.HTML, as_json: gr.Button, as_png: gr.Button
) -> None:
    def save_json(request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return _saved("matches.json", lambda: session.download("json"))

    def save_png(request: gr.Request) -> list[Update]:
        session = visitors.of(_key(request))
        return _saved("matches.png", lambda: session.download("png"))

    as_json.click(save_json, outputs=[note, saver], **_QUIET)
    as_png.click(save_png, outputs=[note, saver], **_QUIET)


def _saved(name: str, make: Callable[[], Served]) -> list[Update]:
    try:
        url = _url(make())
    except InputError as error:
        return [gr.update(value=fragments.note(str(error), bad=True)), gr.skip()]
    return [
        gr.update(value=fragments.note(f"Saved as {name}.")),
        gr.update(url=url, name=name, serial=next(_serials)),
    ]


def _settings(
    start: Session, matchers: Matchers
) -> tuple[gr.Checkbox, gr.Checkbox, gr.HTML, gr.Dropdown, gr.Dropdown]:
    """Heat map, pose alignment with its distances, extractor and post-processor, as they are at the start."""
    return (
        gr.Checkbox(False, label="Heat map of the chosen point on image B", elem_id="heat"),
        gr.Checkbox(start.aligned, label="Pose alignment: try image A mirrored too", elem_id="align"),
        gr.HTML(fragments.pose(start), apply_default_css=False, elem_id="pose"),
        gr.Dropdown(
            list(matchers.extractors),
            value=start.features.extractor,
            label="Features",
            elem_id="extractor",
            filterable=False,
        ),
        gr.Dropdown(
            list(matchers.post_processors),
            value=start.features.post_processor,
            label="Post-processor",
            elem_id="post-processor",
            filterable=False,
        ),
    )


def _pane(side: Side, place: Place) -> gr.HTML:
    template = _text("image.html").replace("SIDE", side).replace("HINT", _HINTS[side])
    template = template.replace("TITLE", NAMES[side].replace("p", "P", 1))
    return gr.HTML(
        "",
        html_template=template,
        js_on_load=_text("image.js"),
        apply_default_css=False,
        elem_id=f"{side}-image",
        src="",
        heat="",
        width=1,
        height=1,
        points=[],
        chosen=-1,
        serial=0,
        most=place.limits.bytes,
        examples=[{"src": _thumbnail(each.path), "about": each.about} for each in place.examples],
    )


def _image(session: Session, side: Side, rows: Sequence[Row]) -> Update:
    """One image with its points."""
    image = session.image(side)
    size = (1, 1) if image is None else image.size
    points = []
    for row in rows:
        x, y = row.query if side == "source" else row.match
        title = f"point {row.number}"
        if side == "target":
            title += f", confidence {row.confidence:.2f}"
        points.append({"x": x, "y": y, "number": row.number, "colour": row.colour, "title": title})
    return gr.update(
        src=_url(session.shown(side)),
        heat=_url(session.heat()) if side == "target" else "",
        width=size[0],
        height=size[1],
        points=points,
        chosen=-1 if session.chosen is None else session.chosen,
        serial=next(_serials),
    )


_serials = itertools.count(1)


def _url(served: Served | None) -> str:
    return "" if served is None else f"{FETCH}/{served.token}"


def _thumbnail(path: Path) -> str:
    """A small square image as a data address."""
    image = read_image(path, Limits())
    small = Served.of(ImageOps.fit(image, (_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS))
    return f"data:{small.kind};base64,{base64.b64encode(small.data).decode('ascii')}"


def _key(request: gr.Request) -> str:
    """What tells one browser tab from another: gradio's random session hash.

    Raises:
        gr.Error: the request does not come from a page.
    """
    key = request.session_hash
    if not isinstance(key, str) or not key:
        raise gr.Error("open the page in a browser", print_exception=False)
    return key


def _data(event: gr.EventData) -> Mapping[str, Any]:
    return event._data if isinstance(event._data, dict) else {}


def _number(event: gr.EventData, name: str) -> float:
    value = _data(event).get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("That click has no position; click on image A again.")
    return float(value)


def _index(event: gr.EventData, count: int) -> int:
    value = _data(event).get("index")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise InputError("There is nothing of that number; choose again.")
    return value


def _text(name: str) -> str:
    return (files("geoaware.apps.demo") / name).read_text(encoding="utf-8")


_TABLE_JS = """
element.addEventListener('click', (event) => {
  const node = event.target.closest('[data-index]');
  if (node) trigger('choose', { index: Number(node.dataset.index) });
});
"""

_SAVER_JS = """
watch('serial', () => {
  const link = document.createElement('a');
  link.href = props.url;
  link.download = props.name;
  document.body.append(link);
  link.click();
  link.remove();
});
"""
