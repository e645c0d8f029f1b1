"""A demo that answers, in a thread of this process or as a program, and what browsers ask it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from geoaware.apps.demo.server import Demo, DemoSettings, prepared
from geoaware.apps.demo.session import Opening

COMMAND = [sys.executable, "-m", "geoaware.cli", "demo"]
PATIENCE = 120
ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def running(
    examples: Sequence[tuple[Path, str]] = (), opening: Opening | None = None, **settings: Any
) -> Iterator[Demo]:
    """Serve while the block runs; skips the test where gradio is missing."""
    pytest.importorskip("gradio", reason="needs gradio (pip install 'geoaware[demo]')")
    with prepared(DemoSettings(port=0, device="cpu", **settings), examples, opening) as demo:
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


@dataclass
class Program:
    """A running demo, with folders of its own for temporary files and to run in."""

    process: subprocess.Popen[str]
    temporary: Path
    here: Path
    errors: Path

    def url(self) -> str:
        """Where it answers; waits until it does."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        address = next((word for word in line.split() if word.startswith("http://")), None)
        assert address is not None, line + self.errors.read_text()
        return address

    def end(self, number: int) -> str:
        """Send a signal; exit code 0, and nothing on the disk. What it said on standard error."""
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)
        errors = self.errors.read_text()
        assert self.process.returncode == 0, errors
        assert list(self.temporary.iterdir()) == []
        assert list(self.here.iterdir()) == []
        return errors


@contextmanager
def started(folder: Path, *options: str, command: str = "demo") -> Iterator[Program]:
    """``geoaware demo`` or ``serve`` as a program of its own, killed at the end if it still runs.

    It finds the tests' extractors.
    """
    pytest.importorskip("gradio", reason="needs gradio (pip install 'geoaware[demo]')")
    temporary, here = folder / "tmp", folder / "here"
    for each in (temporary, here):
        each.mkdir(exist_ok=True)
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [*COMMAND[:-1], command, "--port", "0", "--device", "cpu", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=here,
            env={
                **os.environ,
                "TMPDIR": str(temporary),
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            },
        )
    try:
        yield Program(process, temporary, here, Path(errors.name))
    finally:
        process.kill()
        process.communicate()


def fetch(url: str, path: str, body: bytes | None = None, **more: Any) -> tuple[int, bytes]:
    """Status and content, as `request` gives them."""
    return request(url, path, body, **more)[:2]


def request(
    url: str, path: str, body: bytes | None = None, *, method: str = "", patience: float = 30, **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, content and headers; the path goes out as it is, not tidied up by the client."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=patience)
    try:
        connection.putrequest(
            method or ("GET" if body is None else "POST"), path, skip_host="Host" in headers
        )
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()


def upload(url: str, name: str, content: bytes, **more: Any) -> tuple[int, bytes]:
    """Send a file as the page does; the answer names where it lies."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--edge--\r\n"
    form = {"Content_Type": "multipart/form-data; boundary=edge"}
    return fetch(url, "/gradio_api/upload", body, **{**form, **more})


@lru_cache(maxsize=4)
def _config(url: str) -> dict[str, Any]:
    return dict(json.loads(fetch(url, "/config")[1]))


def trigger(
    url: str, element: str, event: str, data: Any, key: str | None = "tab", **more: Any
) -> tuple[int, str]:
    """Do what a component's event in the browser does; status and the answer's text."""
    config = _config(url)
    component = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == element)
    number = next(each["id"] for each in config["dependencies"] if [component, event] in each["targets"])
    body = {"fn_index": number, "data": [], "event_data": data, "trigger_id": component, "session_hash": key}
    kind = {"Content_Type": "application/json"}
    status, answer = fetch(url, "/gradio_api/run/predict", json.dumps(body).encode(), **{**kind, **more})
    return status, answer.decode()


def arrive(url: str, key: str) -> str:
    """Do what the page does when it is loaded; the answer's text."""
    config = _config(url)
    number = next(each["id"] for each in config["dependencies"] if each["targets"][0][1] == "load")
    body = json.dumps({"fn_index": number, "data": [], "session_hash": key}).encode()
    return fetch(url, "/gradio_api/run/predict", body, Content_Type="application/json")[1].decode()


def said(answer: str) -> str:
    """The message that an answer puts on the page."""
    return str(json.loads(answer)["data"][0]["value"])
