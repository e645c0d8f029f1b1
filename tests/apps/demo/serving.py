"""A demo that answers, for tests: on a free port, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geoaware.apps.demo.server import Demo, DemoSettings, prepared


@contextmanager
def running(examples: Sequence[tuple[Path, str]] = (), **settings: Any) -> Iterator[Demo]:
    """Serve while the block runs; skips the test where gradio is missing."""
    pytest.importorskip("gradio", reason="needs gradio (pip install 'geoaware[demo]')")
    with prepared(DemoSettings(port=0, device="cpu", **settings), examples) as demo:
        thread = threading.Thread(target=demo.server.run, kwargs={"sockets": [demo.listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 60
        while not demo.server.started:
            assert thread.is_alive()
            assert time.monotonic() < until, "the demo does not start"
            time.sleep(0.05)
        try:
            yield demo
        finally:
            demo.server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()
