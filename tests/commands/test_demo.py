"""``geoaware demo`` as a process: where it listens, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.apps.demo.load import under_load
from tests.apps.demo.serving import PATIENCE, started
from tests.command_line import assert_refused, geoaware
from tests.toys import save_face


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_it_ends_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    image = save_face(tmp_path / "a.png").read_bytes()
    with started(tmp_path) as demo:
        address = urlsplit(demo.url()).netloc
        head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        connection = http.client.HTTPConnection(address, timeout=PATIENCE)
        form = {"Content-Type": "multipart/form-data; boundary=edge"}
        connection.request("POST", "/gradio_api/upload", head + image + b"\r\n--edge--\r\n", form)
        uploaded = Path(json.loads(connection.getresponse().read())[0])
        assert uploaded.read_bytes() == image
        assert uploaded.is_relative_to(demo.temporary)
        connection.request(
            "GET", "/gradio_api/heartbeat/tab"
        )  # never ends by itself, as that of an open page
        connection.getresponse().readline()
        errors = demo.end(getattr(signal, name))
        assert "ended; its temporary files are deleted" in errors
        assert "Traceback" not in errors
        assert "warning" not in errors
        connection.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_it_stands_load_and_the_next_one_sweeps(tmp_path: Path) -> None:
    """A small version of benchmarks/demo_load.py."""
    found = under_load(tmp_path, sessions=6, huge=3, forged=40, megapixels=2)
    refused = {
        "foreign origin": 403, "cross-site": 403, "chunked": 411, "too long": 413, "foreign name": 421,
        "a file": 404, "no JSON": 400, "no function": 404, "foreign path": 500, "no place": 200,
        "long key": 200, "broken off": 0,
    }  # fmt: skip
    assert set(found["forged"]) == {f"{kind} {status}" for kind, status in refused.items()}
    assert sum(found["forged"].values()) == 40
    assert max(value for name, value in found.items() if name.endswith("_mb")) < 2500
    assert found["uploads_left"] == 0
    assert found["said"] == ["ended; its temporary files are deleted"]
    assert found["swept_after_kill"]


@pytest.mark.slow
def test_asked_to_end_before_it_serves(tmp_path: Path) -> None:
    with started(tmp_path) as demo:
        until = time.monotonic() + PATIENCE
        while not any(demo.temporary.glob(".demo.geoaware-*")):
            assert time.monotonic() < until
            time.sleep(0.02)
        demo.end(signal.SIGTERM)


@pytest.mark.slow
def test_others_are_let_in_only_with_a_warning(tmp_path: Path) -> None:
    with started(tmp_path, "--host", "0.0.0.0") as demo:
        address = urlsplit(demo.url()).netloc
        assert address.startswith("127.0.0.1:"), "what a browser on this machine opens"
        assert "warning: everyone who can reach this machine at 0.0.0.0" in demo.end(signal.SIGTERM)


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = geoaware("demo", "--port", port)
    assert_refused(done, f"cannot listen at 127.0.0.1, port {port}", "0 takes one that is free (--port)")


def test_an_address_of_another_machine() -> None:
    done = geoaware("demo", "--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 2
    assert "error: cannot listen at 192.0.2.1" in done.stderr


def test_unknown_features() -> None:
    assert_refused(geoaware("demo", "--extractor", "nonesuch", "--port", 0), "unknown extractor 'nonesuch'")


def test_without_gradio() -> None:
    code = "import sys; sys.modules['gradio'] = None; from geoaware import cli; cli.main()"
    words = [sys.executable, "-c", code, "demo", "--port", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert_refused(done, "the package 'gradio' is not installed: pip install 'geoaware[demo]'")


@pytest.mark.parametrize("option", ["--max-upload-mb=0", "--max-megapixels=500", "--port=70000"])
def test_limits_that_cannot_be(option: str) -> None:
    done = geoaware("demo", option)
    assert done.returncode == 2
    assert option.split("=")[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example() -> None:
    done = geoaware("demo", "--help")
    assert done.returncode == 0
    assert "geoaware demo --extractor dinov2-base --device cuda --port 8000" in done.stdout
