"""A headless Chromium for the tests of pages, through Python's playwright and the system's browser.

>>> with browser() as chromium:                                                       # doctest: +SKIP
...     page = chromium.new_page(viewport={"width": 1280, "height": 800})
...     page.goto(path.as_uri())
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Path of the system's Chromium, or ``None``."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


@contextmanager
def browser() -> Iterator[Any]:
    """A running playwright ``Browser``, closed at the end; skips the test where there is none.

    Make one for a module (a fixture of that scope): it takes a second to start.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Chromium on the path (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=executable, args=list(FLAGS), headless=True)
        try:
            yield chromium
        finally:
            chromium.close()
