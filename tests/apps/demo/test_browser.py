"""The page as people use it, in a headless Chromium: uploads, clicks, keys, downloads, widths, visitors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.apps.demo.fragments import OPENED
from geoaware.apps.demo.server import Demo
from geoaware.apps.demo.session import Opening, Shown
from geoaware.apps.web.images import Limits
from geoaware.data.images import load_image
from geoaware.matcher import Matcher
from geoaware.result import MatchResult
from tests.apps.demo.serving import running
from tests.apps.web.bombs import png_bomb
from tests.browser import browser
from tests.toys import save_face

pytestmark = pytest.mark.slow

CLICKS = ((0.35, 0.5), (0.65, 0.5), (0.5, 0.68))
"""Eyes and nose of a face, as shares of its width and height."""

PATIENCE = 60_000
"""Milliseconds: a machine at work on something else is slow."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("photos")
    second = save_face(folder / "b.jpg", width=360, height=300, colour="khaki", ears="gray")
    return save_face(folder / "a.png", width=240, height=320), second


@pytest.fixture(scope="module")
def demo(photos: tuple[Path, Path]) -> Iterator[Demo]:
    with running([(each, f"face {each.stem}") for each in photos], limits=Limits(megabytes=2)) as each:
        yield each


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as each:
        yield each


@pytest.fixture
def page(demo: Demo, chromium: Any) -> Iterator[Any]:
    each = opened(demo, chromium)
    yield each
    each.context.close()


def opened(demo: Demo, chromium: Any, width: int = 1280, height: int = 900) -> Any:
    """The page in a browser of its own, as another person has it."""
    page = chromium.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(demo.url)
    page.wait_for_selector("#source-image .pick")
    return page


def upload(page: Any, side: str, path: Path) -> None:
    page.set_input_files(f"#{side}-image input[type=file]", str(path))


def bring(page: Any, photos: tuple[Path, Path]) -> None:
    for side, path in zip(("source", "target"), photos, strict=True):
        upload(page, side, path)
        page.wait_for_selector(f"#{side}-image .frame:not([hidden])")


def click(page: Any, share: tuple[float, float], number: int) -> None:
    """Click a place of image A, given as shares of width and height, and wait for its match."""
    box = page.locator("#source-image .frame").bounding_box()
    position = {"x": share[0] * box["width"], "y": share[1] * box["height"]}
    page.click("#source-image .frame", position=position)
    page.wait_for_selector(f"#target-image .mark >> nth={number - 1}")


def marks(page: Any, side: str, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Pixels of the image where the middles of the marks are drawn."""
    photo = page.locator(f"#{side}-image .frame > img").bounding_box()
    found = []
    for mark in page.locator(f"#{side}-image .mark").all():
        box = mark.bounding_box()
        x, y = box["x"] + box["width"] / 2 - photo["x"], box["y"] + box["height"] / 2 - photo["y"]
        found.append((x / photo["width"] * size[0], y / photo["height"] * size[1]))
    return found


def choose(page: Any, menu: str, name: str) -> None:
    page.click(f"#{menu} input")
    page.click(f"[role=option]:has-text('{name}')")


def note(page: Any) -> str:
    return str(page.inner_text("#note"))


def wait_for_note(page: Any, text: str) -> None:
    page.wait_for_selector(f"#note:has-text('{text}')")


def saved(page: Any, button: str) -> Path:
    with page.expect_download() as waiting:
        page.click(f"button:has-text('{button}')")
    return Path(waiting.value.path())


def library(
    photos: tuple[Path, Path], queries: list[list[float]], name: str = "lite", **how: Any
) -> MatchResult:
    matcher = Matcher.from_pretrained(name, device="cpu")
    return matcher.match(*photos, queries, **how)


def assert_drawn(page: Any, wanted: MatchResult) -> None:
    """Marks stand where the library says, on both images, to a pixel of these."""
    for side, points, size in (
        ("source", wanted.queries, wanted.source.size),
        ("target", wanted.points, wanted.target.size),
    ):
        drawn = marks(page, side, size)
        assert len(drawn) == len(points)
        for one, other in zip(drawn, points.tolist(), strict=True):
            assert one == pytest.approx(other, abs=1)


def test_three_clicks_then_other_features_then_pose(
    page: Any, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "Bring two images" in note(page)
    bring(page, photos)
    assert "Click a point" in note(page)
    for number, share in enumerate(CLICKS, start=1):
        click(page, share, number)
    content = json.loads(saved(page, "Download JSON").read_text(encoding="utf-8"))
    queries = [each["query"] for each in content["matches"]]
    size = Image.open(photos[0]).size
    for query, share in zip(queries, CLICKS, strict=True):
        assert query == pytest.approx([share[0] * size[0], share[1] * size[1]], abs=1)

    wanted = library(photos, queries)
    assert_drawn(page, wanted)
    expected = wanted.to_dict()
    close_matches(content.pop("matches"), expected.pop("matches"))
    assert content == expected
    assert page.locator("#matches tbody tr").count() == 3
    assert [each.inner_text() for each in page.locator("#target-image .mark").all()] == ["1", "2", "3"]
    confidence = page.inner_text("#matches tbody tr:nth-child(2) td:nth-child(4)")
    assert float(confidence) == pytest.approx(float(wanted.confidence[1]), abs=0.011)

    assert saved(page, "Download PNG").read_bytes().startswith(b"\x89PNG")

    choose(page, "extractor", "efficientnet-lite0")
    page.wait_for_function("document.querySelector('#extractor input').value === 'efficientnet-lite0'")
    page.wait_for_timeout(200)
    plain = library(photos, queries, "efficientnet-lite0")
    page.wait_for_selector(f"#pose td:has-text('{plain.distances['flip']:.4f}')")
    assert_drawn(page, plain)
    shown = [each.inner_text() for each in page.locator("#pose td[data-pose]").all()]
    assert shown == [f"{plain.distances[pose]:.4f}" for pose in ("identity", "flip")]
    assert "chosen" in page.inner_text(f"#pose tr:has(td[data-pose={plain.pose}])")

    page.uncheck("#align input")
    page.wait_for_selector("#pose:has-text('Off')")
    assert_drawn(page, library(photos, queries, "efficientnet-lite0", pose="off"))


def close_matches(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Equal but for the last digit: the page matches points as clicked, the file has them rounded."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert value == pytest.approx(other[key], abs=0.05)


def test_undo_clear_heat_map_and_choice(page: Any, photos: tuple[Path, Path]) -> None:
    bring(page, photos)
    for number, share in enumerate(CLICKS, start=1):
        click(page, share, number)
    before = page.get_attribute("#target-image .frame > img", "src")
    page.check("#heat input")
    page.wait_for_function(
        f"document.querySelector('#target-image .frame > img').getAttribute('src') !== '{before}'"
    )
    heat = page.get_attribute("#target-image .frame > img", "src")
    page.wait_for_function("document.querySelector('#target-image .frame > img').naturalWidth === 360")
    page.click("#matches [data-index='0']")
    page.wait_for_selector("#target-image .mark.chosen:has-text('1')")
    assert page.get_attribute("#target-image .frame > img", "src") not in (before, heat)
    assert page.get_attribute("#matches [data-index='0']", "aria-pressed") == "true"
    page.uncheck("#heat input")
    page.wait_for_function(
        f"document.querySelector('#target-image .frame > img').getAttribute('src') === '{before}'"
    )
    page.click("button:has-text('Undo last point')")
    page.wait_for_selector("#note:has-text('2 points matched')")
    assert page.locator("#source-image .mark").count() == 2
    page.click("button:has-text('Clear points')")
    wait_for_note(page, "Click a point")
    assert page.locator(".mark").count() == 0


def test_what_cannot_be_used_gets_a_message_and_the_rest_goes_on(
    page: Any, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    page.click("#source-image .stage", position={"x": 30, "y": 30})
    page.click("button:has-text('Download JSON')")
    wait_for_note(page, "There are no matches yet")
    upload(page, "source", photos[0])
    page.wait_for_selector("#source-image .frame:not([hidden])")
    page.click("#source-image .frame")
    wait_for_note(page, "Bring image B first")
    (tmp_path / "text.png").write_text("not an image", encoding="utf-8")
    upload(page, "target", tmp_path / "text.png")
    wait_for_note(page, "text.png is not an image that can be read")
    upload(page, "target", png_bomb(tmp_path / "bomb.png", 9000))
    wait_for_note(page, "bomb.png has 9000 x 9000 pixels, more than the 40 megapixels taken here")
    (tmp_path / "large.png").write_bytes(bytes(2_000_001))
    upload(page, "target", tmp_path / "large.png")
    wait_for_note(page, "large.png is larger than 2 MB")
    assert page.locator("#note [role=alert]").count() == 1
    assert page.locator(".wait:visible").count() == 0
    page.click("#target-image .examples button >> nth=1")
    page.wait_for_selector("#target-image .frame:not([hidden])")
    page.click("#source-image .stage", position={"x": 4, "y": 100})
    wait_for_note(page, "lies outside image A, 240 x 320 pixels")
    click(page, CLICKS[0], 1)
    wait_for_note(page, "1 point matched")


def test_with_the_keyboard(page: Any) -> None:
    for side, index in (("source", 0), ("target", 1)):
        page.focus(f"#{side}-image .examples button >> nth={index}")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#{side}-image .frame:not([hidden])")
    page.focus("#source-image .frame")
    for key in ("ArrowUp", "Shift+ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#target-image .mark")
    # From the middle of 240 x 320: half a percent of 320 is 1.6, with Shift 16.
    assert page.inner_text("#matches tbody td:nth-child(2)") == "102, 158"
    page.focus("#matches [data-index='0']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#matches [aria-pressed=true]")


def test_a_image_can_be_dropped_and_pasted(page: Any) -> None:
    hand = """async ([selector, Kind, kind, field]) => {
        const canvas = document.createElement('canvas');
        const content = await new Promise((done) => canvas.toBlob(done, 'image/png'));
        const data = new DataTransfer();
        data.items.add(new File([content], 'drawn.png', { type: 'image/png' }));
        const node = selector ? document.querySelector(selector) : document;
        node.dispatchEvent(new window[Kind](kind, { [field]: data, bubbles: true }));
    }"""
    page.evaluate(hand, ["#source-image .stage", "DragEvent", "drop", "dataTransfer"])
    page.wait_for_selector("#source-image .frame:not([hidden])")
    page.evaluate(hand, ["", "ClipboardEvent", "paste", "clipboardData"])
    page.wait_for_selector("#target-image .frame:not([hidden])")


def test_at_phone_width(demo: Demo, chromium: Any, photos: tuple[Path, Path]) -> None:
    page = opened(demo, chromium, width=390, height=844)
    bring(page, photos)
    for number, share in enumerate(CLICKS, start=1):
        click(page, share, number)
    width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    assert width <= 390
    source, target = (page.locator(f"#{side}-image .stage").bounding_box() for side in ("source", "target"))
    assert source["y"] + source["height"] <= target["y"], "one above the other"
    for box in [each.bounding_box() for each in page.locator("button:visible, input:visible").all()]:
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    page.context.close()


def test_both_images_are_in_sight_on_a_phone(demo: Demo, chromium: Any, photos: tuple[Path, Path]) -> None:
    page = opened(demo, chromium, width=390, height=800)
    bring(page, photos)
    click(page, CLICKS[0], 1)
    for side in ("source", "target"):
        box = page.locator(f"#{side}-image .stage").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 800
        assert box["height"] >= 250
    page.context.close()


def test_it_opens_with_a_pair_that_is_matched(chromium: Any, photos: tuple[Path, Path]) -> None:
    source, target = (Shown.of(load_image(each), own=False) for each in photos)
    points = tuple((x * 240, y * 320) for x, y in CLICKS)
    with running(opening=Opening(source, target, points)) as demo:
        page = opened(demo, chromium)
        page.wait_for_selector("#target-image .mark >> nth=2")
        assert note(page) == OPENED
        assert_drawn(page, library(photos, [list(each) for each in points]))
        click(page, (0.5, 0.4), 4)
        wait_for_note(page, "4 points matched")
        other = opened(demo, chromium)
        other.wait_for_selector("#target-image .mark >> nth=2")
        assert other.locator("#source-image .mark").count() == 3
        demo.visitors.drop(next(iter(demo.visitors._held)))
        page.click("button:has-text('Undo last point')")
        wait_for_note(page, "What was on this page is no longer here")
        page.wait_for_selector("#target-image .mark >> nth=2")
        assert page.locator("#source-image .mark").count() == 3, "it is as it was when it was loaded"
        page.context.close()
        other.context.close()


def middle(page: Any, side: str, share: tuple[float, float]) -> tuple[float, float]:
    box = page.locator(f"#{side}-image .frame").bounding_box()
    return box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"]


def test_the_match_and_the_heat_map_follow_the_pointer(page: Any, photos: tuple[Path, Path]) -> None:
    bring(page, photos)
    click(page, CLICKS[0], 1)
    page.mouse.move(5, 5)
    page.wait_for_selector("#target-image .ghost", state="hidden")
    for share in CLICKS[1:]:
        page.mouse.move(*middle(page, "source", share))
        page.wait_for_selector("#target-image .ghost:visible")
        page.wait_for_timeout(1000)
        wanted = library(photos, [[share[0] * 240, share[1] * 320]])
        ghost, photo = (page.locator(f"#target-image {each}").bounding_box() for each in (".ghost", ".frame"))
        x = (ghost["x"] + ghost["width"] / 2 - photo["x"]) / photo["width"] * 360
        y = (ghost["y"] + ghost["height"] / 2 - photo["y"]) / photo["height"] * 300
        assert (x, y) == pytest.approx(tuple(wanted.points[0].tolist()), abs=3)
        confidence = float(page.inner_text("#target-image .ghost").split()[0])
        assert confidence == pytest.approx(float(wanted.confidence[0]), abs=0.05)
        assert page.locator("#target-image .layer:visible").count() == 0
    page.mouse.move(5, 5)
    page.wait_for_selector("#target-image .ghost", state="hidden")
    page.check("#heat input")
    page.wait_for_function("document.querySelector('#target-image .frame > img').naturalWidth === 360")
    page.mouse.move(*middle(page, "source", CLICKS[2]))
    page.wait_for_selector("#target-image .layer:visible")
    page.wait_for_function("document.querySelectorAll('#target-image .layer img')[1].naturalWidth === 120")
    page.mouse.move(5, 5)
    page.wait_for_selector("#target-image .layer", state="hidden")
    assert page.locator("#target-image .mark").count() == 1, "nothing was set"


def test_a_point_is_dragged_and_deleted(page: Any, photos: tuple[Path, Path]) -> None:
    bring(page, photos)
    for number, share in enumerate(CLICKS, start=1):
        click(page, share, number)
    page.mouse.move(*middle(page, "source", CLICKS[0]))
    page.mouse.down()
    page.mouse.move(*middle(page, "source", (0.4, 0.45)), steps=4)
    page.wait_for_selector("#target-image .ghost:visible")
    page.mouse.move(*middle(page, "source", (0.5, 0.3)), steps=4)
    page.mouse.up()
    page.wait_for_selector("#matches td:has-text('120, 96')")
    places = [(0.5, 0.3), *CLICKS[1:]]
    drawn = marks(page, "source", (240, 320))
    for one, share in zip(drawn, places, strict=True):
        assert one == pytest.approx((share[0] * 240, share[1] * 320), abs=1)
    assert_drawn(page, library(photos, [list(each) for each in drawn]))
    assert page.get_attribute("#matches [data-index='0']", "aria-pressed") == "true"
    page.mouse.move(5, 5)
    page.click("#matches [aria-label='Delete point 2']")
    wait_for_note(page, "2 points matched")
    page.click("#source-image .mark >> nth=0")
    page.wait_for_selector("#source-image .mark.chosen:has-text('1')")
    page.focus("#source-image .frame")
    page.keyboard.press("Delete")
    wait_for_note(page, "1 point matched")
    assert marks(page, "source", (240, 320))[0] == pytest.approx((0.5 * 240, 0.68 * 320), abs=1)


def test_everything_has_a_name(page: Any, photos: tuple[Path, Path]) -> None:
    bring(page, photos)
    click(page, CLICKS[0], 1)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, img')].filter((each) => {
        const label = each.labels?.[0] ?? each.closest('label');
        return !(each.getAttribute('aria-label') || each.alt || each.textContent.trim() || each.title ||
                 label?.textContent.trim() || each.querySelector('img')?.alt);
    }).map(each => each.outerHTML)""")
    assert nameless == []


def test_everything_is_fetched_from_the_server_itself(
    demo: Demo, chromium: Any, photos: tuple[Path, Path]
) -> None:
    page = chromium.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(demo.url)
    page.wait_for_selector("#source-image .pick")
    bring(page, photos)
    click(page, CLICKS[0], 1)
    page.check("#heat input")
    page.wait_for_timeout(500)
    assert len(asked) > 10
    assert [each for each in asked if not each.startswith((demo.url, "data:", "blob:"))] == []
    assert errors == []
    page.context.close()


def test_two_visitors_do_not_see_each_others_images(
    demo: Demo, chromium: Any, photos: tuple[Path, Path]
) -> None:
    mine, yours = opened(demo, chromium), opened(demo, chromium)
    bring(mine, photos)
    click(mine, CLICKS[0], 1)
    assert yours.locator(".frame:visible").count() == 0
    upload(yours, "source", photos[1])
    yours.wait_for_selector("#source-image .frame:not([hidden])")
    yours.click("#source-image .frame")
    wait_for_note(yours, "Bring image B first")
    assert mine.locator("#target-image .mark").count() == 1
    images = {each.get_attribute("src") for each in mine.locator(".frame > img").all()}
    assert all(each and each.startswith("mine/") and len(each) == 5 + 32 for each in images)
    assert yours.locator(".frame > img >> nth=0").get_attribute("src") not in images
    fetched = mine.request.get(demo.url + images.copy().pop())
    assert (fetched.status, fetched.headers["cache-control"]) == (200, "private, no-store")
    held = len(demo.visitors)
    mine.context.close()
    for _ in range(100):
        if len(demo.visitors) < held:
            break
        yours.wait_for_timeout(200)
    assert len(demo.visitors) == held - 1, "a closed tab is forgotten"
    assert yours.request.get(demo.url + images.pop()).status == 404
    yours.context.close()
