"""Fifty users at once of `geoaware demo` and of `geoaware serve`, each a program of its own at loopback.

Everyone brings other images. Each answer must be what the library finds in that user's images, and nobody
may come by another's.
"""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.matcher import Matcher
from geoaware.result import MatchResult
from tests.apps.demo.load import Memory
from tests.apps.demo.serving import fetch, said, started, trigger, upload
from tests.apps.serve.serving import Client
from tests.toys import Seeing, noise

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc"),
]

USERS = 50
PATIENCE = 300.0
EXTRACTOR = ("--extractor", "tests.toys:Seeing")
POINTS = [(20.0, 30.0), (100.0, 80.0), (150.0, 50.0)]
MEGABYTES = 300
"""That the server may take beyond what it takes before the first user comes."""


def images(user: int) -> list[Image.Image]:
    return [noise(200, 160, 2 * user), noise(180, 200, 2 * user + 1)]


def content(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def wanted(matcher: Matcher, user: int) -> MatchResult:
    return matcher.match(*images(user), POINTS)


def at_once(work: Callable[[int, threading.Barrier], Any]) -> list[Any]:
    """What all users get, who begin at the same moment."""
    barrier = threading.Barrier(USERS)
    with ThreadPoolExecutor(USERS) as threads:
        return list(threads.map(lambda user: work(user, barrier), range(USERS)))


def test_fifty_users_of_serve(tmp_path: Path) -> None:
    pytest.importorskip("python_multipart")
    matcher = Matcher(Seeing(EXTRACTOR[1]))
    with started(tmp_path, *EXTRACTOR, command="serve") as program, Memory(program.process.pid) as memory:
        url, ids = program.url(), dict[int, list[str]]()
        before = memory.peak()

        def use(user: int, barrier: threading.Barrier) -> tuple[dict[str, Any], list[int]]:
            client = Client(url, f"user {user}", patience=PATIENCE)
            barrier.wait()
            ids[user] = [client.id(each) for each in images(user)]
            found = [client.match(*ids[user], POINTS) for _ in range(3)]
            assert [status for status, _ in found] == [200] * 3
            assert found[0] == found[1] == found[2]
            barrier.wait()
            other = ids[(user + 1) % USERS]
            return found[0][1], [
                client.match(*other, POINTS)[0],
                client.match(ids[user][0], other[1], POINTS)[0],
                client.ask("DELETE", f"/v1/images/{other[0]}")[0],
            ]

        for user, (found, stolen) in enumerate(at_once(use)):
            assert found == json.loads(wanted(matcher, user).to_json()), user
            assert stolen == [404, 404, 404]
        assert len({each for mine in ids.values() for each in mine}) == 2 * USERS
        assert memory.peak() - before < MEGABYTES
        assert program.end(signal.SIGTERM) == "ended\n"


def test_fifty_users_of_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    matcher = Matcher(Seeing(EXTRACTOR[1]))
    with started(tmp_path, *EXTRACTOR) as program, Memory(program.process.pid) as memory:
        url = program.url()
        fetch(url, "/config")
        before = memory.peak()

        def use(user: int, barrier: threading.Barrier) -> tuple[list[dict[str, Any]], list[bytes]]:
            key = f"user{user}"
            barrier.wait()
            for side, image in zip(("source", "target"), images(user), strict=True):
                status, sent = upload(url, f"{key}-{side}.png", content(image), patience=PATIENCE)
                assert status == 200, sent
                data = {"path": json.loads(sent)[0]}
                answer = trigger(url, f"{side}-image", "bring", data, key, patience=PATIENCE)
                assert answer[0] == 200
                assert 'role="alert"' not in said(answer[1]), said(answer[1])
            for x, y in POINTS:
                answer = trigger(url, "source-image", "place", {"x": x, "y": y}, key, patience=PATIENCE)
            assert f"{len(POINTS)} points matched" in said(answer[1])
            shown = [each["props"] for each in json.loads(answer[1])["data"][1:3]]
            return shown, [fetch(url, "/" + each["src"], patience=PATIENCE)[1] for each in shown]

        answers = at_once(use)
        for user, (shown, photographs) in enumerate(answers):
            found = [(each["x"], each["y"]) for each in shown[1]["points"]]
            np.testing.assert_allclose(found, wanted(matcher, user).points.numpy(), atol=0.01)
            for photograph, image in zip(photographs, images(user), strict=True):
                mine = np.asarray(Image.open(io.BytesIO(photograph)), dtype=float)
                assert np.abs(mine - np.asarray(image)).mean() < 5, user
        tokens = [each[part] for shown, _ in answers for each in shown for part in ("src", "peek")]
        assert len(set(tokens)) == 3 * USERS, "two images and one pointer each"
        assert all(re.fullmatch(r"mine/[\w-]{32}(/at)?", each) for each in tokens)
        assert memory.peak() - before < MEGABYTES
        assert program.end(signal.SIGTERM) == "ended; its temporary files are deleted\n"
