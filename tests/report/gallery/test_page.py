"""The page in a browser: what it shows is read from the page itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoaware.report.gallery import Entry, Match, entries, find_images, judge, write_gallery
from tests.browser import browser
from tests.report.gallery.small import EVIL, EXACT, LOST, MIXED, NEAR, write_data, write_predictions


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Galleries of one method, of two, and of matches without truth."""
    folder = tmp_path_factory.mktemp("gallery")
    known = find_images("coco", write_data(folder / "data"), "val")
    one = judge(write_predictions(folder / "one.jsonl"))
    write_gallery(
        entries([one], known), folder / "one.html", title=f"T {EVIL}", about={EVIL: EVIL}, alpha=0.1
    )
    better = {**MIXED, "predicted": [[22.0, 20.0], [60.0, 20.0], [40.0, 65.0]]}
    other = judge(write_predictions(folder / "other.jsonl", [better, EXACT, LOST, NEAR]))
    write_gallery(
        entries([one, other], known), folder / "two.html", title="T", about={}, alpha=0.1, labels=["x", "y"]
    )
    matches = (Match("nose", 2, (1.0, 2.0), (3.0, 4.0), confidence=0.25),)
    review = [
        Entry("seen", "cat", None, folder / "data" / "images" / "a.png", matches),
        Entry("gone", "cat", folder / "gone.png", folder / "data" / "images" / "a.png", matches),
    ]
    write_gallery(review, folder / "review.html", title="T", about={})
    return folder


class View:
    """A page that is open, with what happened on it."""

    def __init__(self, chromium: Any, path: Path, address: str = "", **options: Any) -> None:
        self.page = chromium.new_page(**{"viewport": {"width": 1200, "height": 800}, **options})
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(path.as_uri() + address)
        # Not wait_for_function: it evaluates text, which the page's policy forbids.
        self.page.wait_for_selector("html[data-ready]", state="attached")

    @property
    def order(self) -> list[str]:
        return self.page.eval_on_selector_all(
            "#pairs .card", "cards => cards.map(card => card.querySelector('strong').textContent)"
        )

    @property
    def summary(self) -> str:
        return self.page.text_content("#summary")

    @property
    def legend(self) -> dict[str, int]:
        return self.page.eval_on_selector_all(
            "#legend li[data-kind]",
            "all => Object.fromEntries(all.map(each => [each.dataset.kind, Number(each.dataset.count)]))",
        )

    def choose(self, **controls: str) -> None:
        for name, value in controls.items():
            self.page.select_option(f"#{name}", value)


@pytest.fixture
def view(chromium: Any, made: Path) -> Iterator[View]:
    opened = View(chromium, made / "one.html")
    yield opened
    assert opened.complaints == []
    opened.page.close()


def test_sorting(view: View) -> None:
    assert view.order == [EVIL, "mixed", "near", "exact"]  # mean errors 0.45, 0.193, 0.045, 0
    view.choose(order="up")
    assert view.order == ["exact", "near", "mixed", EVIL]
    view.choose(sort="pck")  # 1, 1, 1/3, 0; equals stay as in the file
    assert view.order == [EVIL, "mixed", "exact", "near"]
    view.choose(sort="worst")  # 0.5, 0.38, 0.09, 0
    assert view.order == [EVIL, "mixed", "near", "exact"]
    view.choose(sort="azimuth")  # those without one come last, either way
    assert view.order == ["mixed", "exact", EVIL, "near"]
    view.choose(order="down")
    assert view.order == ["exact", "mixed", EVIL, "near"]
    view.choose(sort="name")
    assert view.order == sorted(view.order)
    view.choose(sort="file")
    assert view.order == ["mixed", "exact", EVIL, "near"]


def test_filters_counts_and_summary(view: View) -> None:
    # 1/3, 3/3, 0/2, 2/2 of the points.
    assert view.summary == "4 of 4 pairs · PCK@0.1 58.3 % per image, 60.0 % per point (10 keypoints)"
    assert view.legend == {"correct": 6, "jitter": 1, "miss": 3, "swap": 1, "swap_lr": 1}
    view.choose(kind="swap_lr")
    assert view.order == ["mixed"]
    assert view.summary == "1 of 4 pairs · PCK@0.1 33.3 % per image, 33.3 % per point (3 keypoints)"
    view.choose(kind="miss")
    assert view.order == [EVIL, "mixed"]
    view.choose(kind="", category=f"dog {EVIL}")
    assert view.order == [EVIL]
    view.choose(category="cat", azimuth="3")
    assert view.order == ["exact"]
    view.choose(azimuth="", pose="flip")
    assert view.order == ["exact"]
    view.choose(pose="", category="")
    view.page.check("#aware")
    # mixed: 1 of 2 ears; exact: 2 of 2; near: the left ear (c.png's right ear does not matter in b.png).
    assert view.order == ["mixed", "exact", "near"]
    assert view.summary == (
        "3 of 4 pairs · PCK@0.1 83.3 % per image, 80.0 % per point (5 geometry-aware keypoints)"
    )
    view.page.fill("#find", "NEAR")
    assert view.order == ["near"]
    view.page.fill("#find", "no such thing")
    assert view.order == []
    assert view.page.is_visible("#none")
    view.page.click("#reset")
    assert len(view.order) == 4
    view.page.fill("#find", "c.png")
    assert view.order == [EVIL, "near"]


def test_a_match_is_drawn_where_it_lies(view: View) -> None:
    card = view.page.locator(".card", has_text="mixed")
    images = card.locator("image")
    marks = card.locator("g.match.correct .mark")
    for which, (x, y) in enumerate([(20.0, 20.0), (20.0, 25.0)]):  # source, prediction
        image, mark = images.nth(which).bounding_box(), marks.nth(which).bounding_box()
        # Pixel numbers stand for the middles of pixels; both images are 100 x 80.
        assert mark["x"] + mark["width"] / 2 == pytest.approx(
            image["x"] + image["width"] * (x + 0.5) / 100, abs=0.6
        )
        assert mark["y"] + mark["height"] / 2 == pytest.approx(
            image["y"] + image["height"] * (y + 0.5) / 80, abs=0.6
        )
    assert card.locator("g.match").count() == 3
    # The true place is shown of the two wrong ones: a line and a ring each.
    assert card.locator("g.match.correct .truth").count() == 0
    assert card.locator(".truth").count() == 4
    assert (
        card.locator("g.line.swap_lr .ink").evaluate("line => getComputedStyle(line).strokeDasharray")
        != "none"
    )
    assert (
        card.locator("g.line.correct .ink").evaluate("line => getComputedStyle(line).strokeDasharray")
        == "none"
    )


def test_enlarging_and_keys(view: View) -> None:
    page = view.page
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.text_content("#large-title") == "mixed"
    rows = page.locator("#large-runs tbody tr")
    assert rows.nth(1).locator("td").all_text_contents() == [
        "right_ear", "swap, swap left-right, geometry-aware", "0.380",
    ]  # fmt: skip
    rows.nth(1).focus()
    assert page.text_content("#tip").splitlines()[:3] == [
        "right_ear", "swap, swap left-right", "error 0.380 of the threshold base",
    ]  # fmt: skip
    assert page.locator("#large-runs .match.hot").get_attribute("data-match") == "1"
    page.keyboard.press("ArrowRight")
    assert page.text_content("#large-title") == "near"
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.text_content("#large-title") == EVIL
    assert page.is_disabled("#previous")
    page.keyboard.press("Escape")
    assert not page.is_visible("#large")
    # A dialog tells that it is closed a moment after it is; until then the card that opened it has the focus.
    page.wait_for_function("start => document.activeElement.textContent.startsWith(start)", arg=EVIL)


def test_hovering_names_the_match(view: View) -> None:
    page = view.page
    page.locator(".card", has_text="mixed").locator("g.match.jitter .hit").nth(1).hover()
    lines = page.text_content("#tip").splitlines()
    assert lines[0].startswith("nose ")
    assert lines[1:] == ["jitter, miss", "error 0.150 of the threshold base"]
    page.locator("#summary").hover()
    assert not page.is_visible("#tip")


def test_the_address_holds_the_view(chromium: Any, made: Path, view: View) -> None:
    view.choose(sort="name", order="down", kind="miss")
    view.page.uncheck("#lines")
    view.page.locator(".card").first.click()
    address = view.page.evaluate("location.hash")
    again = View(chromium, made / "one.html", address)
    assert again.order == view.order == ["mixed", EVIL]
    assert again.page.text_content("#large-title") == "mixed"
    assert not again.page.is_checked("#lines")
    again.page.keyboard.press("Escape")
    again.page.evaluate(
        "new Promise(done => { addEventListener('hashchange', () => setTimeout(done));"
        " location.hash = '#sort=nonsense&kind=swap&azimuth=77' })"
    )
    assert again.order == ["mixed"]
    again.page.close()


def test_texts_are_only_texts(view: View) -> None:
    page = view.page
    assert page.text_content("h1") == f"T {EVIL}"
    page.locator(".card", has_text=EVIL).first.click()
    page.keyboard.press("j")  # mixed has a keypoint of that name too
    page.locator("#large-runs tbody tr").nth(2).hover()
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    # Not even a script that gets in would run.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 2'}))"
    )
    assert page.evaluate("window.hit") is None
    assert [each for each in view.complaints if "Content Security Policy" in each]
    view.complaints.clear()


def test_nothing_is_fetched(view: View) -> None:
    view.page.locator(".card").first.click()
    assert view.fetched[0].startswith("file:")
    assert all(each.startswith("blob:") for each in view.fetched[1:])


def test_many_pairs_are_laid_out_as_one_scrolls(chromium: Any, made: Path) -> None:
    image = made / "data" / "images" / "a.png"
    match = Match("nose", 2, (1.0, 2.0), (3.0, 4.0))
    many = (Entry(f"{number:04d}", "cat", image, image, (match,)) for number in range(1000))
    view = View(chromium, write_gallery(many, made / "many.html", title="T", about={}), "#sort=file")
    page, cards, drawn = view.page, view.page.locator(".card"), view.page.locator(".card svg")
    assert view.summary == "1,000 of 1,000 pairs"
    assert cards.count() == 300
    assert 3 <= drawn.count() < 60
    while cards.count() < 1000:
        before = cards.count()
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_selector(f"#pairs li:nth-child({before + 1})", state="attached")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector("#pairs li:last-child svg")
    assert drawn.count() < 60
    page.locator(".card").last.click()
    assert page.text_content("#large-title") == "0999"
    page.keyboard.press("Escape")
    page.fill("#find", "099")
    assert cards.count() == 11  # 0099 and ten from 0990
    assert view.complaints == []
    page.close()


def test_two_methods(chromium: Any, made: Path) -> None:
    view = View(chromium, made / "two.html")
    # B has two of the three points of "mixed".
    assert view.summary == (
        "4 of 4 pairs · A PCK@0.1 58.3 % per image, 60.0 % per point (10 keypoints)"
        " · B PCK@0.1 66.7 % per image, 70.0 % per point (10 keypoints)"
    )
    view.choose(compare="first")
    assert view.order == []
    view.choose(compare="second")
    assert view.order == ["mixed"]
    assert view.page.locator(".card .figure").count() == 2
    view.choose(compare="", sort="change", order="up")  # 0.193 to 0.057, the others do not change
    assert view.order == ["mixed", "exact", EVIL, "near"]
    view.page.locator(".card").first.click()
    assert view.page.locator("#large-runs table").count() == 2
    assert view.complaints == []
    view.page.close()


def test_matches_without_truth(chromium: Any, made: Path) -> None:
    view = View(chromium, made / "review.html", viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = view.page
    assert view.summary == "2 of 2 pairs"
    assert page.eval_on_selector_all("#sort option", "all => all.map(each => each.value)") == [
        "confidence", "category", "name", "file",
    ]  # fmt: skip
    assert view.legend == {"unjudged": 2}
    assert "no such file" in page.locator(".why").all_text_contents()[0]
    assert page.locator("g.match .mark").count() == 2  # none on the grey box
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".card").first.click()
    assert page.evaluate("document.getElementById('large').scrollWidth <= innerWidth")
    assert view.complaints == []
    page.close()
