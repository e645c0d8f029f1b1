"""What the server of a review answers, and to whom."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from geoaware.apps.review.pictures import SMALL, Pictures, small
from geoaware.apps.review.review import Review
from geoaware.apps.review.server import Served
from geoaware.drawing.palette import SIDES
from tests.apps.demo.serving import fetch
from tests.apps.review.made import SIZE, THREE, places, reviewing, saved, write_result
from tests.toys import noise


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Review, Served]]:
    with reviewing(write_result(tmp_path, THREE)) as each:
        yield each


def get(served: Served, path: str, **more: Any) -> tuple[int, Any]:
    """Status and content of an address below the page's own."""
    status, content = fetch(served.url, urlsplit(served.url).path + path, **more)
    return status, json.loads(content) if content.startswith(b"{") else content


def post(served: Served, number: int, content: Any, **more: Any) -> tuple[int, Any]:
    return get(served, f"target/{number}", body=json.dumps(content).encode(), **more)


def test_the_page_is_told_everything_once(serving: tuple[Review, Served]) -> None:
    review, served = serving
    status, found = get(served, "targets")
    assert status == 200
    assert found["rows"] == [
        ["002.png", 0.66, False, 0], ["003.png", 0.78, False, 0], ["001.png", 0.9, False, 0]
    ]  # fmt: skip
    assert found["next"] == [0, 1, 2]
    (schema,) = found["schemas"]
    assert schema["sides"] == ["left", "right", "left", "right", "middle"]
    assert schema["partners"] == [1, 0, 3, 2, 4]
    assert schema["limbs"] == [[0, 2], [1, 3], [2, 4], [3, 4]]
    status, target = get(served, "target/0")
    assert (target["size"], target["revision"], target["accepted"]) == (list(SIZE), 0, False)
    assert target["points"][1] == [0, 0, 0]
    assert target["points"][0] == [*places(2)[0], 2]
    assert target["scores"] == THREE[1]
    page = get(served, "")[1].decode()
    assert all(f"--side-{side}: {colour};" in page for side, colour in SIDES.items())
    assert target["several"] is False
    assert str(review.folder) not in page + json.dumps([found, target])


def test_images_and_thumbnails_are_jpeg(serving: tuple[Review, Served]) -> None:
    _, served = serving
    for path, most in (("image/0", max(SIZE)), ("thumbnail/0", SMALL)):
        status, content = get(served, path)
        assert status == 200
        image = Image.open(io.BytesIO(content))
        assert (image.format, max(image.size)) == ("JPEG", most)


def test_a_change_is_saved(serving: tuple[Review, Served]) -> None:
    review, served = serving
    points = get(served, "target/0")[1]["points"]
    points[1] = [30, 40.5, 1]
    answer = post(served, 0, {"revision": 0, "points": points, "accepted": True})
    assert answer == (200, {"revision": 1, "scores": [0.6, 1.0, 0.7, 0.8, 0.9]})
    assert saved(review)["002.png"]["keypoints"][3:6] == [30, 40.5, 1]
    assert saved(review)["002.png"]["accepted"] is True
    assert get(served, "targets")[1]["rows"][0] == ["002.png", 0.66, True, 0]
    status, told = post(served, 0, {"revision": 0, "points": None, "accepted": False})
    assert (status, told["error"]) == (
        409,
        "this object was changed in another tab; it is shown as it is now",
    )


@pytest.mark.parametrize(
    "content",
    [[], {}, {"revision": 0, "points": [[1, 1, 2]]}, {"revision": 0, "points": "x"}, {"revision": "0"},
     {"revision": 0, "points": [["1", 1, 2]] * 5}],
)  # fmt: skip
def test_what_is_no_change_is_refused(serving: tuple[Review, Served], content: Any) -> None:
    review, served = serving
    assert post(served, 0, content)[0] == 400
    assert get(served, "target/0", body=b"{no")[0] == 400
    assert get(served, "target/0", body=b"[" * 60_000)[0] == 400
    assert not review.out.exists()


def test_what_is_not_there(serving: tuple[Review, Served]) -> None:
    _, served = serving
    assert get(served, "target/3")[0] == get(served, "image/99")[0] == 404
    assert post(served, 3, {"revision": 0})[0] == 400
    for path in (
        "image/-1",
        "image/../x",
        "photos/001.png",
        "..%2f..%2fetc/passwd",
        "server.py",
        "found.json",
    ):
        assert get(served, path)[0] == 404
    assert fetch(served.url, "/")[0] == fetch(served.url, "/targets")[0] == 404
    assert fetch(served.url, f"/{'x' * 32}/targets")[0] == 404, "an address cannot be guessed"


def test_other_pages_can_neither_send_nor_read(serving: tuple[Review, Served]) -> None:
    review, served = serving
    change = {"revision": 0, "points": None, "accepted": True}
    assert post(served, 0, change, Origin="http://evil.example")[0] == 403
    assert post(served, 0, change, Origin="null")[0] == 403
    assert post(served, 0, change, Sec_Fetch_Site="cross-site")[0] == 403
    assert get(served, "targets", Host="evil.example")[0] == 421, "no name of their own leads here"
    assert get(served, "target/0", body=b" " * 70_000)[0] == 413
    assert get(served, "target/0", body=b"{}", Content_Length="2", Transfer_Encoding="chunked")[0] == 411
    assert not review.out.exists()
    assert post(served, 0, change, Origin=served.url.rsplit("/", 2)[0])[0] == 200


def test_a_full_disk_is_told(serving: tuple[Review, Served], monkeypatch: pytest.MonkeyPatch) -> None:
    _, served = serving

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoaware.apps.review.review.replacing", full)
    said = "found.reviewed.json cannot be written (No space left on device)"
    assert post(served, 0, {"revision": 0, "accepted": True}) == (507, {"error": said})
    monkeypatch.undo()
    assert post(served, 0, {"revision": 0, "accepted": True})[0] == 200


def test_an_image_that_cannot_be_read_is_told_without_its_place(serving: tuple[Review, Served]) -> None:
    review, served = serving
    (review.folder / "002.png").unlink()
    (review.folder / "002.png").write_bytes(b"no image")
    status, found = get(served, "target/0")
    assert status == 200
    assert "image" in found["error"]
    assert str(review.folder) not in found["error"]
    assert get(served, "thumbnail/0")[0] == get(served, "image/0")[0] == 404
    noise(30, 20, 1).save(review.folder / "002.png")
    assert get(served, "target/0")[1]["error"].startswith(
        "002.png: has 30x20 pixels, its annotation is for 240x200"
    )
    assert post(served, 0, {"revision": 0, "points": [[1, 1, 2]] * 5})[0] == 400


def test_pictures_are_held_while_there_is_room() -> None:
    made: list[int] = []

    def make(number: int) -> Image.Image:
        made.append(number)
        return noise(64, 64, number)

    pictures = Pictures(most_bytes=10_000)
    first = pictures.get(0, lambda: make(0))
    assert pictures.get(0, lambda: make(0)) is first
    for number in range(1, 40):
        pictures.get(number, lambda number=number: make(number))
        assert pictures.bytes <= 10_000
    assert made == list(range(40))
    pictures.get(39, lambda: make(39))
    assert made == list(range(40)), "the last one is held"
    pictures.get(0, lambda: make(0))
    assert made[-1] == 0, "the first one is not"


def test_two_images_at_most_are_decoded_at_once() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def make() -> Image.Image:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return noise(8, 8, 1)

    pictures = Pictures()
    threads = [threading.Thread(target=pictures.get, args=(each, make)) for each in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 2


def test_a_thumbnail_is_of_the_object(tmp_path: Path) -> None:
    image = Image.new("RGB", (1600, 1200), "white")
    image.paste("red", (800, 600, 1000, 700))
    for name in ("a.png", "a.jpg"):
        image.save(tmp_path / name)
        cut = small(tmp_path / name, [800, 600, 200, 100])
        assert cut.size == pytest.approx((SMALL, SMALL * 160 / 260), abs=2)
        assert cut.getpixel((SMALL // 2, cut.height // 2)) == pytest.approx((255, 0, 0), abs=6)
        assert cut.getpixel((3, 3)) == pytest.approx((255, 255, 255), abs=6)
        assert small(tmp_path / name, None).size == (160, 120)
