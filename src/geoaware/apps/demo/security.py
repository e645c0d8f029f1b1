"""What the demo's page asks for, and what a browser says it has uploaded."""

from __future__ import annotations

from pathlib import Path

from geoaware.apps.web.guard import Rules
from geoaware.runs.errors import InputError

FETCH = "mine"
"""Folder of the addresses under which a visitor's own images are fetched, by tokens nobody can guess."""

PAGE = "/"
UPLOAD = "/gradio_api/upload"

RULES = Rules(
    exact=frozenset(
        {
            PAGE,
            UPLOAD,
            "/config",
            "/theme.css",
            "/manifest.json",
            "/favicon.ico",
            "/robots.txt",
            "/gradio_api/info",
            "/gradio_api/startup-events",
            "/gradio_api/upload_progress",
            "/gradio_api/run/predict",
        }
    ),
    # Visitors' images, gradio's own program and style, the connection that tells that a tab is still open.
    below=(f"/{FETCH}/", "/assets/", "/static/", "/gradio_api/heartbeat/"),
    uploads=frozenset({UPLOAD}),
    policy=(
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "frame-ancestors 'none'"
    ),
)


def uploaded(path: object, folder: Path) -> Path:
    """A path that a browser says it has uploaded to, which must lie in the folder of uploads."""
    if isinstance(path, str) and "\0" not in path:
        resolved = Path(path).resolve()
        if resolved.is_relative_to(folder.resolve()) and resolved.is_file():
            return resolved
    raise InputError("That is not an image that was uploaded here; choose it again.")
