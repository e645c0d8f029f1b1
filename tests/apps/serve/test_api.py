"""The interface as programs use it: answers are the library's, and problems are one sentence each."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware._version import __version__
from geoaware.apps.serve.images import Bounds
from geoaware.apps.serve.server import Service, prepared
from geoaware.apps.serve.settings import ServeSettings
from geoaware.apps.web.images import Limits
from geoaware.matcher import Matcher
from geoaware.result import MatchResult
from geoaware.runs.errors import InputError, MissingDependencyError
from tests.apps.demo.serving import request
from tests.apps.serve.serving import Client, serving
from tests.apps.web.bombs import png_bomb
from tests.toys import Patches, noise

POINTS = [[10.0, 12.5], [60.0, 30.25], [44.0, 50.0]]
TOKEN = "a-token-nobody-guesses"


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(Patches(), pose="flip")


@pytest.fixture(scope="module")
def service(matcher: Matcher) -> Iterator[Service]:
    with serving(matcher, limits=Limits(1, 1), points=10) as each:
        yield each


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service.url, "me")


def images() -> tuple[Image.Image, Image.Image]:
    return noise(80, 60, 1), noise(90, 70, 2)


@pytest.mark.parametrize("pose", ["auto", "off", "rotate"])
def test_matches_are_the_librarys(client: Client, matcher: Matcher, pose: str) -> None:
    ids = [client.id(each) for each in images()]
    status, found = client.match(*ids, POINTS, pose=pose)
    assert status == 200
    wanted = matcher.match(*images(), POINTS, pose=pose).to_dict()
    assert found == json.loads(json.dumps(wanted))
    assert client.match(*ids, [])[1]["matches"] == []
    assert client.match(ids[1], ids[0], POINTS)[1] == json.loads(
        json.dumps(matcher.match(*reversed(images()), POINTS).to_dict())
    )


def test_the_heat_map_is_the_librarys(client: Client, matcher: Matcher) -> None:
    ids = [client.id(each) for each in images()]
    body = json.dumps({"source": ids[0], "target": ids[1], "point": POINTS[1]}).encode()
    status, content = client.ask("POST", "/v1/heatmap", body, "application/json")
    assert status == 200
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(drawn, np.asarray(matcher.match(*images(), [POINTS[1]]).heatmap(0)))


def test_an_image_is_turned_upright_and_encoded_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []
    original = Matcher.encode
    monkeypatch.setattr(
        Matcher, "encode", lambda self, image, *more: encoded.append(image) or original(self, image, *more)
    )
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    noise(40, 30, 1).save(file, "JPEG", exif=exif)
    status, sent = client.send(file.getvalue())
    assert (status, sent["width"], sent["height"], sent["seconds"]) == (201, 30, 40, 900)
    assert len(encoded) == 1
    for _ in range(3):
        assert client.match(sent["id"], sent["id"], [[29, 39]])[0] == 200
    assert not [each for each in encoded if isinstance(each, Image.Image)][1:]


def test_two_clients_cannot_use_each_others_ids(service: Service) -> None:
    mine, yours = Client(service.url, "me"), Client(service.url, "you")
    id = mine.id(images()[0])
    for status, answer in (
        yours.match(id, id, POINTS),
        yours.post("/v1/heatmap", source=id, target=id, point=POINTS[0]),
        yours.match("A" * 32, "A" * 32, POINTS),
    ):
        assert (status, list(answer)) == (404, ["error"])
        assert answer["error"].startswith("there is no such image")
    assert yours.ask("DELETE", f"/v1/images/{id}")[0] == 404
    assert mine.match(id, id, POINTS)[0] == 200
    assert mine.ask("DELETE", f"/v1/images/{id}") == (204, b"")
    assert mine.match(id, id, POINTS)[0] == 404


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({"points": [[80, 5]]}, 400, r"point 0 \(80, 5\) lies outside the image of 80x60 pixels"),
        ({"points": [[float("nan"), 5]]}, 400, r"coordinates must be finite numbers"),
        ({"points": [[1, 1]] * 11}, 400, r"^11 points are more than the 10 taken at once$"),
        ({"points": [[1]]}, 422, r"^points\.0\.1: field required$"),
        ({"points": "1,2"}, 422, r"^points: input should be a valid list$"),
        ({"pose": "upside"}, 422, r"^pose: input should be 'auto', 'off', 'flip' or 'rotate'$"),
        ({"colour": 1}, 422, r"^colour: extra inputs are not permitted$"),
        ({"target": 7}, 422, r"^target: input should be a valid string$"),
    ],
)
def test_what_cannot_be_matched(client: Client, asked: dict[str, Any], status: int, error: str) -> None:
    id = client.id(images()[0])
    got, answer = client.post("/v1/match", **{"source": id, "target": id, "points": POINTS, **asked})
    assert (got, list(answer)) == (status, ["error"])
    assert re.search(error, answer["error"])


def test_bodies_that_are_none(client: Client) -> None:
    want = {"error": "the body must be a JSON object, sent with Content-Type: application/json"}
    for body, kind in ((b"{", "application/json"), (b"", "application/json"), (b"[1]", "text/plain")):
        status, answer = client.ask("POST", "/v1/match", body, kind)
        assert (status, json.loads(answer)) == (422, want)
    status, answer = client.ask("POST", "/v1/images", b"x", "application/json")
    assert (status, json.loads(answer)) == (422, {"error": "image: field required"})
    status, answer = client.ask("POST", "/v1/match", bytes(65536 + 641), "application/json")
    assert (status, json.loads(answer)) == (413, {"error": "larger than the 66176 bytes taken here"})


def test_images_that_cannot_be_taken(client: Client, tmp_path: Path) -> None:
    whole = io.BytesIO()
    noise(200, 100, 1).save(whole, "JPEG")
    bomb = png_bomb(tmp_path / "b.png", 2000).read_bytes()
    for content, error in (
        (b"no image", "a.png is not an image that can be read; give a JPEG"),
        (whole.getvalue()[: len(whole.getvalue()) // 2], "a.png is not an image that can be read"),
        (b"", "a.png is not an image that can be read"),
        (bomb, "a.png has 2000 x 2000 pixels, more than the 1 megapixels taken here"),
        (bytes(1_000_001), "a.png is larger than 1 MB"),
    ):
        status, answer = client.send(content)
        assert (status, list(answer)) == (400, ["error"])
        assert answer["error"].startswith(error)
    with suppress(ConnectionError):  # refused by its length, while the rest was being sent
        assert client.send(bytes(1_100_000))[0] == 413


def test_health_version_and_description(client: Client, matcher: Matcher) -> None:
    assert client.ask("GET", "/health") == (200, b'{"status":"ok"}')
    about = json.loads(client.ask("GET", "/version")[1])
    assert about["geoaware"] == __version__
    assert about["limits"] == {"megabytes": 1, "megapixels": 1, "points": 10}
    assert about["extractor"] == matcher.identity
    described = json.loads(client.ask("GET", "/openapi.json")[1])
    assert set(described["paths"]) == {
        "/health", "/version", "/v1/images", "/v1/images/{id}", "/v1/match", "/v1/heatmap"
    }  # fmt: skip
    page = client.ask("GET", "/")[1].decode()
    assert all(f"{path}</code>" in page for path in described["paths"])
    assert not re.search(r"<script|https?:|src=", page), "nothing comes from elsewhere"


def test_answers_do_not_wait_for_one_another(service: Service) -> None:
    """Connections take the option from the listener; without it each answer takes 40 ms more."""
    assert service.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_is_not_there(client: Client) -> None:
    for method, path, status in (
        ("GET", "/docs", 404),
        ("GET", "/v1/images", 405),
        ("GET", "/v1/images/" + "A" * 32, 405),
        ("PUT", "/v1/match", 405),
        ("GET", "/v1/images/../../etc/passwd", 404),
        ("GET", "/gradio_api/upload", 404),
    ):
        got, answer = client.ask(method, path)
        assert (got, list(json.loads(answer))) == (status, ["error"]), path


def test_other_names_and_websites_are_refused(client: Client) -> None:
    status, answer, _ = request(client.url, "/version", Host="evil.example")
    assert (status, json.loads(answer)) == (
        421,
        {"error": "this server answers to 127.0.0.1 and localhost"},
    )
    for header in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert request(client.url, "/v1/match", b"{}", **header)[0] == 403
        assert request(client.url, "/v1/images/x", method="DELETE", **header)[0] == 403
    answer = request(client.url, "/version", Origin="http://evil.example")
    assert answer[0] == 200
    assert not [name for name in answer[2] if name.startswith("access-control")]
    assert answer[2]["cross-origin-resource-policy"] == "same-origin"


def test_a_header_does_not_make_another_client(service: Service) -> None:
    id = Client(service.url).id(images()[0])
    body = json.dumps({"source": id, "target": id, "points": POINTS}).encode()
    forwarded = {"X_Forwarded_For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
    assert request(service.url, "/v1/match", body, Content_Type="application/json", **forwarded)[0] == 200


def test_the_token_is_needed_for_everything_but_health(matcher: Matcher) -> None:
    with serving(matcher, host="0.0.0.0", token=TOKEN) as service:
        for wrong in ("", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 22):
            stranger = Client(service.url, token=wrong)
            assert stranger.ask("GET", "/health")[0] == 200
            for method, path in (("GET", "/"), ("GET", "/version"), ("GET", "/openapi.json"),
                                 ("POST", "/v1/match"), ("DELETE", "/v1/images/x")):  # fmt: skip
                status, answer, headers = request(
                    service.url,
                    path,
                    method=method,
                    Authorization=f"Bearer {wrong}".encode().decode("latin-1"),
                )
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert "give the token" in json.loads(answer)["error"]
        for header in (TOKEN, f"Basic {TOKEN}"):
            assert request(service.url, "/version", Authorization=header)[0] == 401
        friend = Client(service.url, token=TOKEN)
        id = friend.id(images()[0])
        assert friend.match(id, id, POINTS)[0] == 200
        assert request(service.url, "/version", Authorization=f"bearer {TOKEN}", Host="my-server")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_others_are_not_let_in_without_a_token(host: str) -> None:
    with pytest.raises(InputError, match="so a token is needed") as refused:
        ServeSettings(host=host)
    assert refused.value.parameter == "token"


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, and long", "ümlaut" * 5, "a\n" * 10])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(InputError, match="the token must be 16 characters or more"):
        ServeSettings(token=token)


def test_an_image_expires(matcher: Matcher) -> None:
    with serving(matcher, bounds=Bounds(seconds=0.3)) as service:
        client = Client(service.url)
        id = client.id(images()[0])
        time.sleep(0.5)
        assert client.match(id, id, POINTS)[0] == 404
        client.id(images()[0])
        until = time.monotonic() + 30
        while service.images._held:
            assert time.monotonic() < until, "also forgotten when nobody asks"
            time.sleep(0.1)


def test_a_full_queue_says_when_to_come_back(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    go, inside, most = threading.Event(), threading.Event(), 3

    def slow(*given: object, **named: object) -> MatchResult:
        inside.set()
        assert go.wait(60)
        raise InputError("done")

    with serving(matcher, waiting=most) as service:
        client = Client(service.url)
        id = client.id(images()[0])
        monkeypatch.setattr(Matcher, "match_aligned", slow)
        found: list[int] = []

        def ask() -> None:
            found.append(client.match(id, id, POINTS)[0])

        threads = [threading.Thread(target=ask) for _ in range(most)]
        for thread in threads:
            thread.start()
        assert inside.wait(60)
        body = json.dumps({"source": id, "target": id, "points": POINTS}).encode()
        until = time.monotonic() + 30
        while service.worker.waiting < most:
            assert time.monotonic() < until
            time.sleep(0.02)
        status, answer, headers = request(service.url, "/v1/match", body, Content_Type="application/json")
        assert (status, headers["retry-after"]) == (503, "2")
        assert json.loads(answer) == {"error": "the server has too much to do; try again later"}
        assert client.ask("GET", "/health")[0] == 200
        go.set()
        for thread in threads:
            thread.join()
        assert found == [400] * most


def test_memory_that_is_full_says_so(matcher: Matcher) -> None:
    file = io.BytesIO()
    images()[0].save(file, "PNG")
    with serving(matcher, bounds=Bounds(megabytes=4.5 * len(file.getvalue()) / 1e6)) as service:
        for name in ("me", "you"):
            for _ in range(3):
                Client(service.url, name).id(images()[0])
        status, answer = Client(service.url, "third").send(images()[0])
        assert (status, answer["error"].split(";")[0]) == (503, "the server holds as many images as it can")


def test_a_failure_inside_is_told_once_and_in_plain_words(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id = client.id(images()[0])
    monkeypatch.setattr(Matcher, "match_aligned", lambda *given, **named: {}["secret"])
    for _ in range(2):
        status, answer = client.match(id, id, POINTS)
        assert (status, list(answer)) == (500, ["error"])
        assert "secret" not in answer["error"]
    assert len([each for each in caplog.messages if "KeyError" in each]) == 1


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart"])
def test_without_the_extra(package: str, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[serve\]'"),
        prepared(ServeSettings(port=0), matcher),
    ):
        pass
