"""The page of a review as people use it, in a headless Chromium: mouse, keys, fingers, many objects."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geoaware.apps.review.review import Review
from geoaware.apps.review.server import Served
from tests.apps.review.made import NAMES, SIZE, THREE, places, reviewing, saved, write_result
from tests.browser import browser

pytestmark = pytest.mark.slow

PATIENCE = 60_000
"""Milliseconds: a machine at work on something else is slow."""

DESKTOP, PHONE = (1400, 900), (390, 800)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as each:
        yield each


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Review, Served]]:
    with reviewing(write_result(tmp_path, THREE)) as each:
        yield each


def opened(served: Served, chromium: Any, size: tuple[int, int] = DESKTOP, touch: bool = False) -> Any:
    page = chromium.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=touch).new_page()
    page.set_default_timeout(PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.goto(served.url)
    page.wait_for_selector("body[data-ready]")
    until(lambda: page.evaluate("document.querySelector('#photo').naturalWidth > 0"))
    return page


def until(fine: Callable[[], bool]) -> None:
    """Wait until something holds; the page's policy lets nothing be evaluated in it time and again."""
    end = time.monotonic() + PATIENCE / 1000
    while not fine():
        assert time.monotonic() < end
        time.sleep(0.03)


@pytest.fixture
def page(serving: tuple[Review, Served], chromium: Any) -> Iterator[Any]:
    each = opened(serving[1], chromium)
    yield each
    assert each.errors == []
    each.context.close()


def mark(page: Any, keypoint: int) -> tuple[float, float]:
    """Where on the screen the middle of a keypoint is."""
    box = page.locator(f"#marks .mark[data-keypoint='{keypoint}'] .ink").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def pixel(page: Any) -> float:
    """How large a pixel of the image is on the screen."""
    return float(page.locator("#photo").bounding_box()["width"]) / SIZE[0]


def drag(page: Any, keypoint: int, dx: float, dy: float) -> None:
    """Drag a keypoint by so many pixels of the image."""
    (x, y), size = mark(page, keypoint), pixel(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx * size / 2, y + dy * size / 2)
    page.mouse.move(x + dx * size, y + dy * size)
    page.mouse.up()


def wait_saved(page: Any) -> None:
    page.wait_for_selector("#saved:text-is('saved')")


def wait_for(page: Any, name: str) -> None:
    page.wait_for_selector(f"#name:text-is('{name}')")
    page.wait_for_selector(f"#photo[alt='{name}']", state="attached")


def close(found: Any, *wanted: float) -> None:
    assert found[: len(wanted)] == pytest.approx(wanted, abs=1)


def test_drag_swap_accept_and_reload(page: Any, serving: tuple[Review, Served]) -> None:
    review, _ = serving
    assert page.inner_text("#name") == "002.png"
    assert page.inner_text("#place") == "1 of 3 · confidence 0.66 · 0 accepted"
    drag(page, 2, 10, -20)
    wait_saved(page)
    x, y = places(2)[2]
    close(saved(review)["002.png"]["keypoints"][6:9], x + 10, y - 20, 2)
    before = saved(review)["002.png"]["keypoints"]
    page.click("#swap")
    page.wait_for_selector("#points li:nth-child(1).absent")
    wait_saved(page)
    swapped = saved(review)["002.png"]["keypoints"]
    assert swapped[0:3] == [0, 0, 0]
    assert swapped[3:6] == before[0:3]
    assert swapped[6:12] == before[9:12] + before[6:9]
    assert swapped[12:] == before[12:]
    page.click("#accept")
    wait_for(page, "003.png")
    wait_saved(page)
    assert saved(review)["002.png"]["accepted"] is True
    assert "1 accepted" in page.inner_text("#place")

    page.reload()
    page.wait_for_selector("body[data-ready]")
    wait_for(page, "003.png")
    page.click("#previous")
    wait_for(page, "002.png")
    assert page.get_attribute("#accept", "aria-pressed") == "true"
    assert page.locator("#rows li.done").count() == 1
    (x, y), photo, size = mark(page, 3), page.locator("#photo").bounding_box(), pixel(page)
    close([(x - photo["x"]) / size - 0.5, (y - photo["y"]) / size - 0.5], *swapped[9:11])


def test_a_second_program_opens_where_the_first_stopped(tmp_path: Path, chromium: Any) -> None:
    path = write_result(tmp_path, THREE)
    for wanted in ("002.png", "003.png", "001.png"):
        with reviewing(path) as (_, served):
            page = opened(served, chromium)
            assert page.inner_text("#name") == wanted
            page.keyboard.press("Enter")
            wait_saved(page)
            page.context.close()


def test_with_the_keyboard_alone(page: Any, serving: tuple[Review, Served]) -> None:
    review, _ = serving
    keys = page.keyboard
    x, y = places(2)[2]
    for _ in range(3):
        keys.press("Tab")
    assert page.inner_text("#points li.chosen .what") == "left eye"
    keys.press("Shift+Tab")
    assert page.inner_text("#points li.chosen .what") == "right ear"
    keys.press("3")
    for key in ("ArrowRight", "Shift+ArrowDown", "ArrowLeft", "ArrowLeft"):
        keys.press(key)
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][6:9] == [x - 1, y + 10, 2]
    keys.press("h")
    page.wait_for_selector("#marks .mark.hidden[data-keypoint='2']")
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][8] == 1
    keys.press("Delete")
    wait_saved(page)
    page.wait_for_selector("#points li:nth-child(3).absent")
    for _ in range(3):
        keys.press("Control+z")
    page.wait_for_selector("#points li:nth-child(3).visible")
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][6:9] == [x, y, 2], "steps that follow each other are one"
    keys.press("Control+y")
    page.wait_for_timeout(100)
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][6:9] == [x - 1, y + 10, 2]
    keys.press("s")
    keys.press("Enter")
    wait_for(page, "003.png")
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][9:12] == [x - 1, y + 10, 2]
    keys.press("p")
    wait_for(page, "002.png")
    keys.press("a")
    wait_saved(page)
    assert saved(review)["002.png"]["accepted"] is False
    keys.press("?")
    page.wait_for_selector("#keys[open]")
    keys.press("Escape")
    page.wait_for_selector("#keys", state="hidden")


def test_undo_goes_back_to_the_object_that_it_concerns(page: Any, serving: tuple[Review, Served]) -> None:
    review, _ = serving
    drag(page, 0, 5, 5)
    page.keyboard.press("n")
    wait_for(page, "003.png")
    page.keyboard.press("Control+z")
    wait_for(page, "002.png")
    wait_saved(page)
    assert saved(review)["002.png"]["keypoints"][:2] == list(places(2)[0])
    assert saved(review)["002.png"]["keypoint_scores"] == THREE[1]


def test_an_absent_keypoint_is_put_by_a_click(page: Any, serving: tuple[Review, Served]) -> None:
    review, _ = serving
    page.click("#points li:nth-child(2) button")
    assert page.inner_text("#hide") == "◌ Show"
    photo, size = page.locator("#photo").bounding_box(), pixel(page)
    page.mouse.click(photo["x"] + 30.5 * size, photo["y"] + 170.5 * size)
    page.wait_for_selector("#points li:nth-child(2).visible")
    wait_saved(page)
    close(saved(review)["002.png"]["keypoints"][3:6], 30, 170, 2)
    page.mouse.click(photo["x"] + 60 * size, photo["y"] + 170 * size)
    page.wait_for_timeout(200)
    close(saved(review)["002.png"]["keypoints"][3:6], 30, 170, 2)  # one that is there is not moved by a click
    page.click("#drop")
    page.click("#hide")
    page.wait_for_selector("#points li:nth-child(2).visible")
    wait_saved(page)
    close(saved(review)["002.png"]["keypoints"][3:6], 30, 170, 2)


def test_zoom_and_moving_the_image(page: Any, serving: tuple[Review, Served]) -> None:
    review, _ = serving
    x, y = mark(page, 0)
    before = pixel(page)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -600)
    until(lambda: pixel(page) > 1.5 * before)
    close(mark(page, 0), x, y)
    drag(page, 0, 3, 0)
    wait_saved(page)
    close(saved(review)["002.png"]["keypoints"], places(2)[0][0] + 3)
    box = page.locator("#stage").bounding_box()
    at = mark(page, 0)
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 70, box["y"] + 50)
    page.mouse.up()
    page.wait_for_timeout(100)
    close(mark(page, 0), at[0] + 40, at[1] + 20)
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert pixel(page) == pytest.approx(before, rel=0.01)


def test_what_is_listed(page: Any) -> None:
    page.click("#accept")
    wait_for(page, "003.png")
    for which, wanted in (
        ("done", ["002.png"]),
        ("open", ["003.png", "001.png"]),
        ("next", ["002.png", "003.png", "001.png"]),
    ):
        page.select_option("#which", which)
        assert page.locator("#rows strong").all_inner_texts() == wanted
    page.select_option("#which", "all")
    page.fill("#find", "001")
    assert page.locator("#rows strong").all_inner_texts() == ["001.png"]
    page.click("#rows button")
    wait_for(page, "001.png")
    assert page.inner_text("#place").startswith("1 of 1")


def test_an_image_that_cannot_be_shown_stops_nothing(serving: tuple[Review, Served], chromium: Any) -> None:
    review, served = serving
    (review.folder / "003.png").unlink()
    page = opened(served, chromium)
    page.keyboard.press("n")
    page.wait_for_selector("#trouble:has-text('no such file')")
    assert page.locator("#marks .mark").count() == 0
    assert page.is_disabled("#accept")
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    wait_for(page, "001.png")
    assert not review.out.exists()
    page.context.close()


def test_a_change_waits_for_a_server_that_is_gone(tmp_path: Path, chromium: Any) -> None:
    with reviewing(write_result(tmp_path, THREE)) as (review, served):
        page = opened(served, chromium)
        page.route(
            "**/target/*",
            lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
        )
        drag(page, 0, 5, 5)
        page.wait_for_selector("#saved.bad:has-text('not saved: the program has ended')")
        assert not review.out.exists()
        page.unroute("**/target/*")
        wait_saved(page)
        close(saved(review)["002.png"]["keypoints"], places(2)[0][0] + 5, places(2)[0][1] + 5)
        page.context.close()


def test_two_tabs(serving: tuple[Review, Served], chromium: Any) -> None:
    review, served = serving
    mine, yours = opened(served, chromium), opened(served, chromium)
    drag(mine, 0, 5, 5)
    wait_saved(mine)
    drag(yours, 0, -30, 0)
    yours.wait_for_selector("#saved:has-text('changed in another tab')")
    yours.wait_for_timeout(200)
    close(saved(review)["002.png"]["keypoints"], places(2)[0][0] + 5)
    drag(yours, 0, 10, 0)
    wait_saved(yours)
    close(saved(review)["002.png"]["keypoints"], places(2)[0][0] + 15)
    for page in (mine, yours):
        page.context.close()


def fingers(page: Any, kind: str, *points: tuple[float, float]) -> None:
    touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    page.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_at_phone_width_with_fingers(serving: tuple[Review, Served], chromium: Any) -> None:
    review, served = serving
    page = opened(served, chromium, PHONE, touch=True)
    page.session = page.context.new_cdp_session(page)
    width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    assert width <= PHONE[0]
    for box in [each.bounding_box() for each in page.locator("#tools button, header button").all()]:
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE[0]
        assert 0 <= box["y"] <= box["y"] + box["height"] <= PHONE[1]
        assert min(box["width"], box["height"]) >= 43, "large enough for a finger"
    (x, y), size = mark(page, 2), pixel(page)
    fingers(page, "touchStart", (x + 8, y - 9))
    fingers(page, "touchMove", (x + 8 + 5 * size, y - 9 + 2 * size))
    fingers(page, "touchMove", (x + 8 + 10 * size, y - 9 + 20 * size))
    fingers(page, "touchEnd")
    wait_saved(page)
    close(saved(review)["002.png"]["keypoints"][6:8], places(2)[2][0] + 10, places(2)[2][1] + 20)
    middle = (PHONE[0] / 2, 300)
    fingers(page, "touchStart", (middle[0] - 20, 300), (middle[0] + 20, 300))
    fingers(page, "touchMove", (middle[0] - 60, 300), (middle[0] + 60, 300))
    fingers(page, "touchEnd")
    page.wait_for_timeout(200)
    assert pixel(page) > 2 * size
    page.tap("#swap")
    page.tap("#accept")
    wait_for(page, "003.png")
    wait_saved(page)
    assert saved(review)["002.png"]["accepted"] is True
    page.tap("#menu")
    page.wait_for_selector("#rows li.done")
    page.tap("#rows li:nth-child(3) button")
    wait_for(page, "001.png")
    assert page.locator("#rows li:visible").count() == 0
    assert page.errors == []
    page.context.close()


def test_five_thousand_objects(tmp_path: Path, chromium: Any) -> None:
    """Rows are made as they are seen, and thumbnails only for what stays in sight."""
    chance = random.Random(1)
    scores = [[round(chance.uniform(0.2, 1), 3) for _ in NAMES] for _ in range(5000)]
    with reviewing(write_result(tmp_path, scores)) as (review, served):
        page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
        page.set_default_timeout(PATIENCE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.rsplit("/", 2)[-2]))
        page.goto(served.url)
        page.wait_for_selector("body[data-ready]")
        until(lambda: page.evaluate("document.querySelector('#rows img').naturalWidth > 0"))
        assert page.locator("#rows li").count() < 30
        assert asked.count("thumbnail") < 30
        assert page.evaluate("document.querySelector('#rows').offsetHeight") == 5000 * 68
        # A hundred quick steps through the list ask for few of the thumbnails that pass by.
        page.evaluate("""async () => {
            const list = document.querySelector('#list');
            for (let step = 1; step <= 100; step += 1) {
                list.scrollTop = step * 3000;
                await new Promise(requestAnimationFrame);
            }
        }""")
        assert page.locator("#rows li").count() < 30
        page.wait_for_timeout(500)
        assert asked.count("thumbnail") < 500
        page.evaluate("document.querySelector('#list').scrollTop = 1e9")
        page.wait_for_selector("#rows li[aria-posinset='5000']")
        page.click("#rows li[aria-posinset='5000'] button")
        wait_for(page, review.targets[-1].name)
        page.keyboard.press("Enter")
        wait_saved(page)
        assert saved(review)[review.targets[-1].name]["accepted"] is True
        page.context.close()


def test_everything_has_a_name_and_comes_from_the_server(
    serving: tuple[Review, Served], chromium: Any
) -> None:
    _, served = serving
    page = chromium.new_context().new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.url)
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(300)
    assert [each for each in asked if not each.startswith((served.url, "data:"))] == []
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, img')]
        .filter((each) => !(each.getAttribute('aria-label') || each.alt || each.textContent.trim()))
        .filter((each) => !each.closest('#rows button')).map((each) => each.outerHTML)""")
    assert nameless == []
    page.context.close()
