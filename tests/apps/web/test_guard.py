"""What strangers may send and fetch, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from geoaware.apps.demo.security import RULES, uploaded
from geoaware.apps.web.guard import LARGEST_REQUEST, Guard, is_loopback
from geoaware.apps.web.images import Limits, read_image
from geoaware.data.images import load_image
from geoaware.runs.errors import InputError
from tests.apps.web.bombs import png_bomb, png_header
from tests.toys import noise

SVG = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm"])
def test_images_are_read_as_everywhere(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise(40, 30, 1).save(path)
    np.testing.assert_array_equal(np.asarray(read_image(path, Limits())), np.asarray(load_image(path)))


def test_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(40, 30, 1).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", Limits()).size == (30, 40)


@pytest.mark.parametrize(
    "content",
    [
        b"just text",
        SVG.encode(),
        b"<html><script>alert(1)</script></html>",
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
    ],
    ids=["text", "svg", "html", "nothing", "torn png", "torn gif"],
)
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^cat\.png is not an image that can be read; give a JPEG, PNG"):
        read_image(path, Limits())


def test_formats_that_run_other_programs_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(40, 30, 1).save(tmp_path / "a.eps")
    path = (tmp_path / "a.eps").rename(tmp_path / "a.png")
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("another program was started"))
    with pytest.raises(InputError, match="not an image that can be read"):
        read_image(path, Limits())


def test_a_torn_image_is_refused(tmp_path: Path) -> None:
    noise(400, 300, 1).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not an image that can be read"):
        read_image(tmp_path / "a.jpg", Limits())


@pytest.mark.parametrize("side", [9000, 50_000])
def test_bombs_are_refused_before_a_pixel_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    path = png_bomb(tmp_path / "b.png", side) if side == 9000 else png_header(tmp_path / "b.png", side)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"^b\.png has .* pixels, more than the 40 megapixels taken here"):
        read_image(path, Limits())


def test_limits_are_those_given(tmp_path: Path) -> None:
    noise(100, 100, 1).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    assert read_image(tmp_path / "a.png", Limits(size / 1e6, 0.01)).size == (100, 100)
    with pytest.raises(InputError, match=r"has 100 x 100 pixels, more than the 0\.009 megapixels"):
        read_image(tmp_path / "a.png", Limits(1, 0.009))
    with pytest.raises(InputError, match=r"is larger than 0\.0\d+ MB, the most that is taken here"):
        read_image(tmp_path / "a.png", Limits((size - 1) / 1e6, 40))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png is no longer here; choose the image again"):
        read_image(tmp_path / "a.png", Limits())


def test_only_uploads_are_read(tmp_path: Path) -> None:
    folder, other = tmp_path / "uploads", tmp_path / "uploads-else"
    for each in (folder / "x", other):
        each.mkdir(parents=True)
        (each / "a.png").write_bytes(b"a")
    (folder / "link").symlink_to(other / "a.png")
    assert uploaded(str(folder / "x" / "a.png"), folder) == (folder / "x" / "a.png").resolve()
    outside = [
        str(other / "a.png"), f"{folder}/../uploads-else/a.png", "/etc/passwd", str(folder / "link"),
        str(folder), str(folder / "x" / "none.png"), "a\0b", "", None, 7, ["a"],
    ]  # fmt: skip
    for path in outside:
        with pytest.raises(InputError, match="not an image that was uploaded here"):
            uploaded(path, folder)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False),
     ("192.168.1.5", False), ("example.org", False), ("::", False)],
)  # fmt: skip
def test_loopback(host: str, wanted: bool) -> None:
    assert is_loopback(host) is wanted


def test_messages_name_an_upload_as_its_sender_does(tmp_path: Path) -> None:
    (tmp_path / "k3-cat.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^cat\.png is not an image"):
        read_image(tmp_path / "k3-cat.png", Limits(), "cat.png")


def ask(
    path: str, method: str = "GET", host: str = "127.0.0.1:7860", bound: str = "127.0.0.1", **headers: str
) -> int:
    """Status that the guard, in front of a program that always answers 200, gives to a request."""
    sent: list[MutableMapping[str, Any]] = []

    async def program(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given = {"host": host, **{key.replace("_", "-"): value for key, value in headers.items()}}
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": [(key.encode(), value.encode()) for key, value in given.items()],
    }
    asyncio.run(Guard(program, RULES, Limits(1, 1), bound)(scope, receive, send))
    names = {name for name, _ in sent[0]["headers"]}
    assert {b"content-security-policy", b"x-content-type-options"} <= names
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css",
        "/assets/a.js",
        "/static/fonts/a.woff2",
        "/mine/abc",
        "/gradio_api/heartbeat/x",
    ],
)
def test_what_the_page_needs_is_let_through(path: str) -> None:
    assert ask(path) == 200


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/file=/etc/passwd", "/etc/passwd",
     "/gradio_api/proxy=http://a.org", "/gradio_api/file=http://a.org", "/assets/../../secret", "/static/..",
     "/mine/../x", "/assets/..\\..\\secret", "/monitoring", "/gradio_api/queue/join", "/gradio_api/vibe-edit",
     "/gradio_api/component_server", "/gradio_api/runs", "/gradio_api/deep_link", "/docs", "/openapi.json",
     "//", ""],
)  # fmt: skip
def test_everything_else_is_not_there(path: str) -> None:
    assert ask(path) == 404


def test_bodies_state_their_length_and_keep_to_the_limits() -> None:
    run, upload = "/gradio_api/run/predict", "/gradio_api/upload"
    assert ask(run, "POST", content_length="100") == 200
    assert ask(run, "POST") == 411
    assert ask(run, "POST", content_length="-1") == 411
    assert ask(run, "POST", content_length=str(LARGEST_REQUEST + 1)) == 413
    assert ask(upload, "POST", content_length=str(1_000_000)) == 200
    assert ask(upload, "POST", content_length=str(1_000_001 + LARGEST_REQUEST)) == 413
    assert ask(run, "DELETE") == 405


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost:80", "localhost", "[::1]:80", "[::1]", "LOCALHOST:1"]
)
def test_this_machines_names_are_answered(host: str) -> None:
    assert ask("/", host=host) == 200


def test_a_strangers_name_for_this_machine_is_not_answered() -> None:
    for host in ("evil.example:7860", "evil.example", "127.0.0.1.evil.example", ""):
        assert ask("/", host=host) == 421
    assert ask("/", host="my-workstation:7860", bound="0.0.0.0") == 200


RUN, UPLOADS = "/gradio_api/run/predict", "/gradio_api/upload"


def test_bodies_in_chunks_are_refused_whatever_length_they_state() -> None:
    assert ask(RUN, "POST", content_length="10", transfer_encoding="chunked") == 411
    assert ask(UPLOADS, "POST", transfer_encoding="chunked") == 411
    assert ask("/", "GET", transfer_encoding="chunked") == 411


@pytest.mark.parametrize("length", ["9" * 30, "\u0663", "1_0", "+1", " 1"])
def test_lengths_that_are_none(length: str) -> None:
    assert ask(RUN, "POST", content_length=length.encode("utf-8").decode("latin-1")) in (411, 413)
    assert ask("/config", content_length=str(LARGEST_REQUEST + 1)) == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://127.0.0.1:7860", "sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", [RUN, UPLOADS])
def test_other_websites_may_not_send(path: str, headers: dict[str, str], status: int) -> None:
    assert ask(path, "POST", content_length="10", **headers) == status
    assert ask("/", **headers) == 200, "but they may link to the page"


def guarded(program: Any, received: list[MutableMapping[str, Any]], **headers: str) -> list[Any]:
    """What is sent for a request whose body arrives in the messages given."""
    sent: list[Any] = []
    messages = iter(received)

    async def receive() -> MutableMapping[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:7860", **{key.replace("_", "-"): value for key, value in headers.items()}}
    pairs = [(key.encode(), value.encode()) for key, value in given.items()]
    scope = {"type": "http", "path": RUN, "method": "POST", "headers": pairs}
    asyncio.run(Guard(program, RULES, Limits(1, 1), "127.0.0.1")(scope, receive, send))
    return sent


def test_no_header_of_a_proxy_arrives_and_none_that_lets_others_read_leaves() -> None:
    seen: list[Any] = []

    async def program(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        allowed = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-credentials", b"true")]
        await send({"type": "http.response.start", "status": 200, "headers": [*allowed, (b"x-own", b"1")]})

    sent = guarded(program, [], content_length="0", x_forwarded_host="evil.example", forwarded="host=evil")
    assert [name for name, _ in seen] == [b"host", b"content-length"]
    names = [name.lower() for name, _ in sent[0]["headers"]]
    assert b"x-own" in names
    assert not [name for name in names if name.startswith(b"access-control")]


class Broken(Exception):
    """What a program raises when a visitor goes away."""


@pytest.mark.parametrize(
    "received",
    [
        [{"type": "http.disconnect"}],
        [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.request", "body": b"abcd" * 3, "more_body": True}],
    ],
    ids=["at once", "in the middle", "with more than was stated"],
)
def test_a_visitor_who_goes_away_is_no_error(received: list[MutableMapping[str, Any]]) -> None:
    async def program(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise Broken

    assert guarded(program, received, content_length="10") == []


def test_an_error_of_the_program_is_one() -> None:
    async def program(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise Broken

    with pytest.raises(Broken):
        guarded(program, [{"type": "http.request", "body": b"0123456789"}], content_length="10")


def test_uploads_are_capped_in_sum(tmp_path: Path) -> None:
    """Those that wait and those that are arriving."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "waiting.png").write_bytes(bytes(600_000))
    inside: list[int] = []

    async def program(scope: Any, receive: Any, send: Any) -> None:
        inside.append(await status(300_000))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Guard(program, RULES, Limits(1, 1, waiting_megabytes=1), "127.0.0.1", tmp_path)

    async def status(length: int) -> int:
        sent: list[Any] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b""}

        headers = [(b"host", b"127.0.0.1"), (b"content-length", str(length).encode())]
        scope = {"type": "http", "path": UPLOADS, "method": "POST", "headers": headers}
        await guard(scope, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(status(400_001)) == 503, "0.6 MB wait already"
    assert asyncio.run(status(200_000)) == 200
    assert inside == [503], "and 0.2 MB were arriving"
    (tmp_path / "a" / "waiting.png").unlink()
    inside.clear()
    assert asyncio.run(status(700_001)) == 200
    assert inside == [503], "0.7 and 0.3 MB are too much together"
