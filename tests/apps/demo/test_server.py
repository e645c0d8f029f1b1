"""The running server, asked by programs: what it hands out, what it keeps, what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from geoaware.apps.demo.fragments import LOST
from geoaware.apps.demo.server import Demo, DemoSettings, prepared
from geoaware.apps.demo.session import Features
from geoaware.apps.web.images import Limits
from geoaware.presets import PRESETS
from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.runs.files import draft_name
from tests.apps.demo.serving import arrive, fetch, running, said, trigger, upload
from tests.apps.web.bombs import png_bomb
from tests.toys import save_face

SECRET = b"not for strangers"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "shown"
    folder.mkdir()
    (folder.parent / "secret.txt").write_bytes(SECRET)
    return save_face(folder / "face.png")


@pytest.fixture(scope="module")
def demo(examples: Path) -> Iterator[Demo]:
    with running([(examples, "a face")], limits=Limits(megabytes=1, megapixels=1)) as each:
        yield each


def left_over(demo: Demo) -> list[Path]:
    return [path for path in demo.folder.rglob("*") if path.is_file()]


def test_it_listens_at_this_machine_alone(demo: Demo) -> None:
    assert demo.listener.getsockname()[0] == "127.0.0.1"
    assert demo.url == f"http://127.0.0.1:{demo.listener.getsockname()[1]}/"
    with urllib.request.urlopen(demo.url, timeout=30) as answer:
        assert answer.status == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert b"--faint" in answer.read(), "the page's style"


def test_both_images_have_a_heading(demo: Demo) -> None:
    page = fetch(demo.url, "/config")[1].decode()
    for title in ("Image A", "Image B"):
        assert f">{title} <small>" in page


def test_no_file_of_this_machine_is_handed_out(demo: Demo, examples: Path) -> None:
    secret = examples.parents[1] / "secret.txt"
    status, answer = upload(demo.url, "notes.txt", SECRET)
    sent = json.loads(answer)[0]
    assert status == 200
    assert Path(sent).read_bytes() == SECRET
    targets = [
        "/etc/passwd", str(secret), str(examples), f"{examples.parent}/../secret.txt", sent,
        f"{demo.folder}/../../etc/passwd", str(demo.folder), str(Path(json.__file__)),
    ]  # fmt: skip
    places = [
        "/gradio_api/file=", "/gradio_api/file/", "/file=", "/", "/assets/../../../../../../../..",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..", "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e",
        "/mine/..%2f..", "/gradio_api%2ffile=", "//gradio_api/file=", "/./gradio_api/file=",
        "/gradio_api/../gradio_api/file=", "/gradio_api/file%3D", "/%67radio_api/file=",
    ]  # fmt: skip
    for target in targets:
        for place in places:
            for written in (target, target.replace("/", "%2F"), target.replace("/", "%252F")):
                status, content = fetch(demo.url, place + written)
                assert status in (400, 403, 404), (place, written)
                assert SECRET not in content
                assert b"root:" not in content
    Path(sent).unlink()


def test_there_is_no_list_of_images(demo: Demo) -> None:
    for path in ("/mine", "/mine/", "/mine/*", "/mine/0", "/mine/%00", "/mine/" + "A" * 32):
        assert fetch(demo.url, path)[0] == 404


def test_an_upload_is_read_and_deleted(demo: Demo, tmp_path: Path) -> None:
    content = save_face(tmp_path / "a.png").read_bytes()
    sent = json.loads(upload(demo.url, "a.png", content)[1])[0]
    assert Path(sent).is_relative_to(demo.folder)
    status, answer = trigger(demo.url, "source-image", "bring", {"path": sent})
    assert (status, "Now bring image B." in said(answer)) == (200, True)
    assert left_over(demo) == []
    shown = demo.visitors.of("tab").shown("source")
    assert shown is not None
    assert fetch(demo.url, f"/mine/{shown.served.token}")[1].startswith(b"\xff\xd8")
    demo.visitors.drop("tab")
    assert fetch(demo.url, f"/mine/{shown.served.token}")[0] == 404


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "secret", "", None, 5, ["x"], {"path": 1}]
)
def test_a_path_that_was_not_uploaded_is_not_read(demo: Demo, path: object, examples: Path) -> None:
    given = str(examples.parents[1] / "secret.txt") if path == "secret" else path
    status, answer = trigger(demo.url, "source-image", "bring", {"path": given}, key="stranger")
    if status == 200:
        assert "not an image that was uploaded here" in said(answer)
    else:  # gradio looks at paths too
        assert "is not in the cache folder and cannot be accessed" in answer
    assert demo.visitors.of("stranger").shown("source") is None
    assert (examples.parents[1] / "secret.txt").read_bytes() == SECRET


def test_what_is_no_image_gets_a_message_and_is_deleted(demo: Demo, tmp_path: Path) -> None:
    bomb = png_bomb(tmp_path / "bomb.png", 9000).read_bytes()
    for name, content, message in (
        ("cat.png", b"<svg onload=alert(1)>", "cat.png is not an image that can be read"),
        ("bomb.png", bomb, "has 9000 x 9000 pixels, more than the 1 megapixels taken here"),
    ):
        sent = json.loads(upload(demo.url, name, content)[1])[0]
        status, answer = trigger(demo.url, "target-image", "bring", {"path": sent})
        assert status == 200
        assert message in said(answer)
        assert 'role="alert"' in said(answer)
        assert left_over(demo) == []


def test_forged_events_get_a_message(demo: Demo) -> None:
    arrive(demo.url, "forger")
    for element, event, data, message in (
        ("source-image", "place", {"x": "1", "y": None}, "no position"),
        ("source-image", "place", None, "no position"),
        ("source-image", "place", {"x": 1, "y": 1}, "Bring image A and image B first"),
        ("source-image", "example", {"index": 7}, "nothing of that number"),
        ("source-image", "example", {"index": -1}, "nothing of that number"),
        ("matches", "choose", {"index": True}, "nothing of that number"),
        (
            "target-image",
            "trouble",
            {"name": "<i>x</i>", "large": True},
            "&lt;i&gt;x&lt;/i&gt; is larger than",
        ),
    ):
        status, answer = trigger(demo.url, element, event, data, key="forger")
        assert status == 200
        assert message in said(answer)
    assert trigger(demo.url, "source-image", "place", {"x": 1, "y": 1}, key=None)[0] == 500
    assert trigger(demo.url, "source-image", "place", {"x": 1, "y": 1}, key="")[0] == 500


def test_large_files_are_refused(demo: Demo) -> None:
    status, answer = upload(demo.url, "large.png", bytes(1_010_000))
    assert status == 413, "by gradio, which counts the bytes of the file"
    assert b"maximum allowed size" in answer
    with pytest.raises((ConnectionError, AssertionError)):
        # By the guard, unread; the server may hang up while the rest is still being sent.
        assert upload(demo.url, "larger.png", bytes(3_000_000))[0] != 413
    assert left_over(demo) == []


def test_other_pages_cannot_reach_it_by_a_name_of_theirs(demo: Demo) -> None:
    request = urllib.request.Request(demo.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 421


def test_a_page_of_another_demo_is_told_to_load_again(demo: Demo, caplog: pytest.LogCaptureFixture) -> None:
    for number in (9999, None):
        body = json.dumps({"fn_index": number, "data": [], "session_hash": "old"}).encode()
        status, answer = fetch(demo.url, "/gradio_api/run/predict", body, Content_Type="application/json")
        assert (status, json.loads(answer)) == (
            404,
            {"error": "This page is of an earlier demo; load it again."},
        )
    assert caplog.messages == []


def test_a_session_that_is_gone_is_told_once(demo: Demo, tmp_path: Path) -> None:
    content = save_face(tmp_path / "a.png").read_bytes()
    assert "Bring two images" in said(arrive(demo.url, "guest"))
    assert LOST not in said(arrive(demo.url, "guest"))
    sent = json.loads(upload(demo.url, "guest.png", content)[1])[0]
    assert "Now bring image B." in said(
        trigger(demo.url, "source-image", "bring", {"path": sent}, "guest")[1]
    )
    demo.visitors.drop("guest")
    click = ("source-image", "place", {"x": 1, "y": 1}, "guest")
    assert LOST in said(trigger(demo.url, *click)[1])
    answer = said(trigger(demo.url, *click)[1])
    assert LOST not in answer
    assert "Bring image A and image B first" in answer
    demo.visitors.drop("guest")


def test_all_presets_are_on_offer(demo: Demo) -> None:
    config = json.loads(fetch(demo.url, "/config")[1])
    menu = next(each["props"] for each in config["components"] if each["props"].get("elem_id") == "extractor")
    assert [name for _, name in menu["choices"]] == [*PRESETS, "efficientnet-lite0"]


def test_the_pointer_asks_under_the_sessions_own_token(demo: Demo, tmp_path: Path) -> None:
    content = save_face(tmp_path / "a.png").read_bytes()
    for side in ("source", "target"):
        sent = json.loads(upload(demo.url, f"{side}.png", content)[1])[0]
        trigger(demo.url, f"{side}-image", "bring", {"path": sent}, "pointer")
    session = demo.visitors.of("pointer")
    path = f"/mine/{session.token}/at"
    status, answer = fetch(demo.url, f"{path}?x=60&y=80")
    assert status == 200
    assert json.loads(answer) == session.peek(60, 80)
    assert fetch(demo.url, f"{path}?x=60")[0] == 422
    assert json.loads(fetch(demo.url, f"{path}?x=nan&y=inf")[1]) == {}
    shown = session.shown("source")
    assert shown is not None
    assert fetch(demo.url, f"/mine/{shown.served.token}/at?x=60&y=80")[0] == 404
    demo.visitors.drop("pointer")
    assert fetch(demo.url, f"{path}?x=60&y=80")[0] == 404


def test_two_tabs_with_one_image_do_not_take_it_from_each_other(demo: Demo, tmp_path: Path) -> None:
    """The page gives each upload a name of its own, as is done here."""
    content = save_face(tmp_path / "a.png").read_bytes()
    sent = [json.loads(upload(demo.url, f"{each}-a.png", content)[1])[0] for each in ("x1", "y2")]
    assert len(set(sent)) == 2
    for path, key in zip(sent, ("first", "second"), strict=True):
        assert "Now bring image B." in said(
            trigger(demo.url, "source-image", "bring", {"path": path, "name": "a.png"}, key)[1]
        )
    assert left_over(demo) == []


def test_images_are_taken_one_at_a_time(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, lengths, held = list[int](), list[int](), list[int]()

    def slow(*given: object) -> Image.Image:
        inside.append(1)
        lengths.append(len(inside))
        held.append(len(demo.visitors))
        time.sleep(0.1)
        inside.pop()
        return Image.new("RGB", (30, 30))

    monkeypatch.setattr("geoaware.apps.demo.page.read_image", slow)
    content, before = save_face(tmp_path / "a.png").read_bytes(), len(demo.visitors)
    sent = [json.loads(upload(demo.url, f"{each}.png", content)[1])[0] for each in range(4)]

    def bring(number: int) -> None:
        trigger(demo.url, "source-image", "bring", {"path": sent[number]}, key=f"turn {number}")

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [1] * 4
    assert held == [before + number for number in (1, 2, 3, 4)], "who waits has no session yet"
    for number in range(4):
        demo.visitors.drop(f"turn {number}")


def test_a_request_that_breaks_off_says_nothing(demo: Demo, capfd: pytest.CaptureFixture[str]) -> None:
    where = urlsplit(demo.url)
    for path, kind in (("/gradio_api/upload", "multipart/form-data; boundary=edge"),
                       ("/gradio_api/run/predict", "application/json")):  # fmt: skip
        with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: {kind}\r\n"
            connection.sendall(f"{head}Content-Length: 5000\r\n\r\n--edge\r\nContent-Dis".encode())
            time.sleep(0.2)
    time.sleep(0.5)
    assert fetch(demo.url, "/config")[0] == 200
    said_there = "".join(capfd.readouterr())
    assert "Traceback" not in said_there
    assert len(said_there.splitlines()) <= 2


def test_what_a_killed_server_left_behind_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = draft_name("demo")
    dead = tmp_path / mine.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    living, other = tmp_path / mine, tmp_path / "demo"
    for each in (dead, living, other):
        (each / "abc").mkdir(parents=True)
        (each / "abc" / "cat.png").write_bytes(b"x")
    with running() as demo:
        assert demo.folder.parent == tmp_path
        assert not dead.exists()
        assert (living / "abc" / "cat.png").exists()
        assert (other / "abc" / "cat.png").exists()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    with running() as demo:
        assert demo.folder.is_dir()
        content = save_face(tmp_path / "a.png").read_bytes()
        assert json.loads(upload(demo.url, "a.png", content)[1])
        assert left_over(demo)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not demo.folder.exists()
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_upload_that_nobody_asks_for_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    monkeypatch.setattr("geoaware.apps.demo.page.UPLOADS_KEPT", 2)
    with running() as demo:
        assert upload(demo.url, "a.png", save_face(tmp_path / "a.png").read_bytes())[0] == 200
        assert left_over(demo)
        until = time.monotonic() + 30
        while left_over(demo):
            assert time.monotonic() < until
            time.sleep(0.1)


def test_it_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        called.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    with running() as demo:
        assert fetch(demo.url, "/")[0] == 200
        assert trigger(demo.url, "source-image", "place", {"x": 1, "y": 1})[0] == 200
    assert called
    assert {address[0] for address in called} == {"127.0.0.1"}


def test_a_port_in_use_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                InputError,
                match=rf"^cannot listen at 127\.0\.0\.1, port {port} .*; 0 takes one that is free",
            ),
            prepared(DemoSettings(port=port)),
        ):
            pass


def test_features_that_cannot_be_loaded_stop_it_before_it_serves() -> None:
    with (
        pytest.raises(InputError, match="unknown extractor 'nonesuch'"),
        prepared(DemoSettings(port=0, features=Features("nonesuch"))),
    ):
        pass


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[demo\]'"),
        prepared(DemoSettings(port=0, device="cpu")),
    ):
        pass
