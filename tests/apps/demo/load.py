"""Many visitors, huge images and forged requests at once, against a demo that runs as a program (Linux)."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from tests.apps.demo.serving import fetch, said, started, trigger, upload
from tests.apps.web.bombs import png_bomb
from tests.toys import face

PATIENCE = 1800.0
AT_ONCE = 8
"""Requests of sessions and forgers on their way at a time; all huge images are sent at once."""


class Memory:
    """The resident memory of a process and its children, looked at twenty times a second."""

    def __init__(self, process: int) -> None:
        self._process, self._peak, self._ended = process, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._peak = max(self._peak, self.now())

    def now(self) -> int:
        """Megabytes."""
        return sum(map(_resident, _family(self._process))) // 1000

    def peak(self) -> int:
        """Megabytes at most since this was asked for the last time."""
        found, self._peak = max(self._peak, self.now()), 0
        return found


def _family(process: int) -> Iterator[int]:
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                yield from _family(int(child))


def _resident(process: int) -> int:
    """Thousands of bytes; nothing once the process has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1000


def processor_seconds(process: int) -> float:
    """What a process has used, for the user and in the system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def under_load(folder: Path, sessions: int, huge: int, forged: int, megapixels: float = 40) -> dict[str, Any]:
    """Start a demo, load it, end it by SIGTERM; then kill one and start the next. Figures of all of it.

    Args:
        folder: an empty one.
        sessions: visitors who bring two images of 3 megapixels and click.
        huge: uploads at once of images that take the most memory of those that are allowed.
        forged: requests that the page does not make.
        megapixels: allowed.
    """
    limit = f"--max-megapixels={megapixels:g}"
    side = 2000 if megapixels >= 3 else 600
    pair = [_photograph(folder / f"{colour}.jpg", side, colour) for colour in ("orange", "khaki")]
    worst = _worst(folder, megapixels)
    with started(folder, limit) as demo, Memory(demo.process.pid) as memory:
        url, number = demo.url(), demo.process.pid
        found: dict[str, Any] = {"started_mb": memory.peak()}
        found["before"] = _timed(number, lambda: visit(url, "before", pair))
        _together(lambda each: visit(url, f"visitor{each}", pair), sessions, AT_ONCE)
        found["sessions_mb"] = memory.peak()
        _together(lambda each: bring_huge(url, each, worst), huge, huge)
        found["huge_mb"] = memory.peak()
        kinds = _together(lambda each: forge(url, each), forged, AT_ONCE)
        found["forged"] = {
            f"{kind} {status}": count for (kind, status), count in sorted(Counter(kinds).items())
        }
        found["forged_mb"] = memory.peak()
        found["after"] = _timed(number, lambda: visit(url, "after", pair))
        found["uploads_left"] = len([each for each in demo.temporary.rglob("*") if each.is_file()])
        found["said"] = demo.end(signal.SIGTERM).splitlines()
    found["swept_after_kill"] = killed(folder, pair[0])
    return found


def killed(folder: Path, image: bytes) -> bool:
    """Kill a demo that holds an upload; whether the next one removes it, and leaves nothing itself."""
    with started(folder) as demo:
        left = Path(json.loads(upload(demo.url(), "left.jpg", image)[1])[0])
        demo.process.kill()
        demo.process.wait()
    assert left.read_bytes() == image
    with started(folder) as demo:
        demo.url()
        gone = not left.exists() and len(list(demo.temporary.iterdir())) == 1
        demo.end(signal.SIGTERM)
    return gone


def visit(url: str, key: str, pair: list[bytes]) -> None:
    """Bring two images and click."""
    for side, content in zip(("source", "target"), pair, strict=True):
        _bring(url, side, content, f"{key}-{side}.jpg", key)
    status, answer = trigger(url, "source-image", "place", {"x": 300, "y": 200}, key, patience=PATIENCE)
    assert status == 200
    assert "confidence" in answer, said(answer)


def bring_huge(url: str, number: int, worst: list[Path]) -> None:
    """One of the huge images, two to a session."""
    path = worst[number % len(worst)]
    side = ("source", "target")[number % 2]
    _bring(url, side, path.read_bytes(), f"{number}{path.suffix}", f"huge{number // 2}")


def _bring(url: str, side: str, content: bytes, name: str, key: str) -> None:
    status, answer = upload(url, name, content, patience=PATIENCE)
    assert status == 200, answer
    path = json.loads(answer)[0]
    status, text = trigger(url, f"{side}-image", "bring", {"path": path}, key, patience=PATIENCE)
    assert status == 200
    assert 'role="alert"' not in said(text), said(text)


def forge(url: str, number: int) -> tuple[str, int]:
    """A request that the page does not make, one kind after the other; the kind and the answer's status."""
    key, where, kind = f"forger{number}", "/gradio_api/run/predict", {"Content_Type": "application/json"}
    wrong = json.dumps({"fn_index": 9999, "data": [], "session_hash": key}).encode()
    passwords = {"path": "/etc/passwd"}

    def event(name: str, data: object, key: str = key) -> int:
        return trigger(url, "source-image", name, data, key, patience=PATIENCE)[0]

    kinds: dict[str, Callable[[], int]] = {
        "foreign origin": lambda: _status(url, where, b"{}", Origin="http://evil.example", **kind),
        "cross-site": lambda: _status(url, "/gradio_api/upload", b"x", Sec_Fetch_Site="cross-site"),
        "chunked": lambda: _status(url, where, b"0\r\n\r\n", Content_Length="5", Transfer_Encoding="chunked"),
        "too long": lambda: _status(url, where, b"", Content_Length="9" * 12),
        "foreign name": lambda: _status(url, "/", Host="evil.example"),
        "a file": lambda: _status(url, "/gradio_api/file=/etc/passwd"),
        "no JSON": lambda: _status(url, where, b"[" * 60_000, **kind),
        "no function": lambda: _status(url, where, wrong, **kind),
        "foreign path": lambda: event("bring", passwords),
        "no place": lambda: event("place", {"x": "1", "y": None}),
        "long key": lambda: event("place", {"x": 1e308, "y": -1}, key * 5000),
        "broken off": lambda: _broken_off(url),
    }
    name = list(kinds)[number % len(kinds)]
    return name, kinds[name]()


def _status(url: str, path: str, body: bytes | None = None, **headers: str) -> int:
    try:
        return fetch(url, path, body, patience=PATIENCE, **headers)[0]
    except ConnectionError:  # the server refuses by the headers, and hangs up while the body is being sent
        return 0


def _broken_off(url: str) -> int:
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE) as connection:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 5000\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=edge\r\n\r\n--ed".encode())
    return 0


def _together(work: Callable[[int], Any], count: int, at_once: int) -> list[Any]:
    with ThreadPoolExecutor(max(1, at_once)) as threads:
        return list(threads.map(work, range(count)))


def _timed(process: int, work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock, and of the server's processor."""
    start, before = time.perf_counter(), processor_seconds(process)
    work()
    spent = processor_seconds(process) - before
    return {"seconds": round(time.perf_counter() - start, 2), "processor": round(spent, 2)}


def _photograph(path: Path, width: int, colour: str) -> bytes:
    face(width, width * 3 // 4, colour).save(path)
    return path.read_bytes()


def _worst(folder: Path, megapixels: float) -> list[Path]:
    """Small files that take the most while they are decoded (floats), and the most once they are (bits)."""
    floats, bits = folder / "floats.tiff", folder / "bits.png"
    side = int((0.9 * megapixels * 1e6) ** 0.5)
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None].repeat(side, axis=1)
    Image.fromarray(ramp).save(floats, compression="tiff_deflate")
    png_bomb(bits, int((megapixels * 1e6) ** 0.5) // 100 * 100)
    return [floats, bits]
