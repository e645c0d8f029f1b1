"""The interface in a thread of this process, and a client of it."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from geoaware.apps.serve.server import Service, prepared
from geoaware.apps.serve.settings import ServeSettings
from geoaware.matcher import Matcher
from tests.apps.demo.serving import request


@contextmanager
def serving(matcher: Matcher, **settings: Any) -> Iterator[Service]:
    """Serve while the block runs; skips the test where the packages are missing."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason="needs pip install 'geoaware[serve]'")
    with prepared(ServeSettings(port=0, device="cpu", **settings), matcher) as service:
        given = {"sockets": [service.listener]}
        thread = threading.Thread(target=service.server.run, kwargs=given, daemon=True)
        thread.start()
        until = time.monotonic() + 60
        while not service.server.started:
            assert thread.is_alive()
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.02)
        try:
            yield service
        finally:
            service.server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


@dataclass(frozen=True)
class Client:
    """One who asks, under a name, with a token."""

    url: str
    name: str = ""
    token: str = ""
    patience: float = 60

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """Status and content."""
        headers = {
            "X_Client": self.name,
            "Content_Type": kind,
            "Authorization": f"Bearer {self.token}" if self.token else "",
        }
        given = {key: value for key, value in headers.items() if value}
        return request(self.url, path, body, method=method, patience=self.patience, **given)[:2]

    def send(self, content: bytes | Image.Image, name: str = "a.png") -> tuple[int, dict[str, Any]]:
        """Send an image."""
        if isinstance(content, Image.Image):
            file = io.BytesIO()
            content.save(file, "PNG")
            content = file.getvalue()
        head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--edge--\r\n"
        status, answer = self.ask("POST", "/v1/images", body, "multipart/form-data; boundary=edge")
        return status, json.loads(answer)

    def id(self, content: bytes | Image.Image) -> str:
        """Of an image that was taken."""
        status, answer = self.send(content)
        assert status == 201, answer
        return str(answer["id"])

    def post(self, path: str, **asked: object) -> tuple[int, dict[str, Any]]:
        """Status and content of an answer in JSON."""
        status, answer = self.ask("POST", path, json.dumps(asked).encode(), "application/json")
        return status, json.loads(answer)

    def match(
        self, source: str, target: str, points: Sequence[Sequence[float]], **more: object
    ) -> tuple[int, dict[str, Any]]:
        """Match points."""
        return self.post("/v1/match", source=source, target=target, points=points, **more)
