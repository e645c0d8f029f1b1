"""Writing a gallery: images reduced and embedded once, matches as JSON, one page to show them.

The page's code never makes HTML out of text, and its content security policy lets nothing run but that code:
ids and names may hold anything.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import IO, Any

import numpy as np
from PIL import Image

from geoaware.data.images import load_image
from geoaware.drawing.layout import fit, resized
from geoaware.drawing.palette import css_variables
from geoaware.report.gallery.entries import KINDS, Entry
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing

_log = logging.getLogger(__name__)

_QUALITY = 80
_DATA = "<!-- data -->"
"""Where in the page images and pairs go."""


def write_gallery(
    entries: Iterable[Entry],
    out: Path,
    *,
    title: str,
    about: Mapping[str, str],
    size: int = 320,
    alpha: float | None = None,
    labels: Sequence[str] = (),
    strict: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Write pairs and their matches to one HTML file, ``out``, that needs nothing else.

    Every image is in it once, as a JPEG. The file is there as a whole or not at all.

    Args:
        entries: in the order that the page calls "as in the file"; their ids differ.
        out: the file.
        title: heading of the page.
        about: what is shown, by what it is called; in the order given.
        size: longer side of the embedded images, in pixels; smaller ones stay as they are.
        alpha: threshold behind ``kind``, for the page's captions.
        labels: names of the two methods, where entries have an ``other``.
        strict: stop at an image that cannot be read, instead of showing a grey box with the reason.
        progress: called with the number of entries done.

    Raises:
        InputError: there are no entries, two have the same id, or ``size`` is not usable.
    """
    if not 16 <= size <= 8192:
        raise InputError(f"images of {size} pixels cannot be shown; give a size from 16 to 8192")
    head, tail = _page(title, about)
    with replacing(out) as draft, draft.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(head)
        album = _Album(file, size, strict)
        pairs: dict[str, dict[str, Any]] = {}
        for entry in entries:
            if entry.id in pairs:
                raise InputError(f"two pairs have the id {entry.id!r}; ids must differ")
            source = None if entry.source is None else album.number(entry.source)
            pairs[entry.id] = entry.to_dict(source, album.number(entry.target, entry.mask))
            progress(len(pairs))
        if not pairs:
            raise InputError("there are no pairs to show")
        content = {"alpha": alpha, "labels": list(labels), "kinds": dict(KINDS), "images": album.images}
        text = json.dumps({**content, "pairs": list(pairs.values())}, separators=(",", ":"), allow_nan=False)
        # Whatever the texts hold, the JSON can stand in a script element.
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        file.write(f'<script type="application/json" id="data">{text}</script>\n')
        file.write(tail)
    if album.unread:
        text = "%d images cannot be read and are grey; the first: %s"
        _log.warning(text, len(album.unread), album.unread[0])
    return out


class _Album:
    """Embeds each image once, as a block of text that nothing runs."""

    def __init__(self, file: IO[str], size: int, strict: bool) -> None:
        self.images: list[dict[str, Any]] = []
        self.unread: list[str] = []
        self._numbers: dict[Path, int] = {}
        self._file, self._size, self._strict = file, size, strict

    def number(self, path: Path, mask: np.ndarray | None = None) -> int:
        """Position of an image in ``images``; it is written to the file when it is new, or has a mask."""
        if mask is not None:
            self.images.append(self._embed(path, mask))
            return len(self.images) - 1
        if path not in self._numbers:
            self._numbers[path] = len(self.images)
            self.images.append(self._embed(path))
        return self._numbers[path]

    def _embed(self, path: Path, mask: np.ndarray | None = None) -> dict[str, Any]:
        try:
            image = load_image(path)
        except InputError as error:
            if self._strict:
                raise
            self.unread.append(str(error))
            # The page names no place of this machine.
            return {"why": str(error).removeprefix(f"{path}: ").replace(str(path), path.name)}
        if mask is not None:
            paler = Image.blend(image, Image.new(image.mode, image.size, "white"), 0.6)
            image = Image.composite(image, paler, Image.fromarray(mask))
        data, side = io.BytesIO(), self._size
        small = resized(image, fit(image.size, side, side)) if max(image.size) > side else image
        small.save(data, "JPEG", quality=_QUALITY, optimize=True)
        text = base64.b64encode(data.getvalue()).decode("ascii")
        self._file.write(f'<script type="text/plain" id="image-{len(self.images)}">{text}</script>\n')
        return {"width": image.width, "height": image.height}


def _page(title: str, about: Mapping[str, str]) -> tuple[str, str]:
    """What comes before the data and after it."""
    folder = files("geoaware.report.gallery")
    names = ("page.html", "page.css", "page.js")
    html, rules, script = ((folder / name).read_text(encoding="utf-8") for name in names)
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(dark=True)} }} }}"
    style = f":root {{ {css_variables()} }}\n{dark}\n{rules}"
    head, tail = html.split(_DATA)
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in about.items())
    filled = Template(head).substitute(policy=policy, title=escape(title), style=style, about=rows)
    return filled, Template(tail).substitute(script=script)


def _source(text: str) -> str:
    """The only script, or style, that a content security policy lets in: one of this hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
