"""The demo without a page: what one visitor does, and that it is what the library says."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from geoaware.apps.demo.fragments import OPENED, hint
from geoaware.apps.demo.session import (
    LONGEST,
    MOST_POINTS,
    Features,
    Matchers,
    Opening,
    Row,
    Served,
    Session,
    Sessions,
    Shown,
)
from geoaware.drawing.heatmap import heat_layer
from geoaware.drawing.palette import SERIES
from geoaware.matcher import Matcher
from geoaware.method.geometry import pose_image
from geoaware.runs.errors import InputError
from tests.toys import Patches, face, noise

POINTS = [(40.0, 52.5), (100.0, 30.0), (80.25, 99.0)]


class Counting(Patches):
    """Counts the images that go through the network."""

    seen = 0

    def levels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen += len(pixels)
        return super().levels(pixels)


def toy_matchers() -> Matchers:
    """Two extractors under the names of real ones; a post-processor that does not go with them."""

    def load(name: str, place: str) -> Matcher:
        if place == "other":
            raise InputError("the post-processor was trained on other features")
        return Matcher(
            Counting(grid=13 if name == "lite" else 9, cell=9), pose="flip" if name == "lite" else "off"
        )

    return Matchers(["lite", "plain"], ["auto", "other"], load)


def session_with(source: Image.Image, target: Image.Image, matchers: Matchers | None = None) -> Session:
    session = Session(matchers or toy_matchers(), Features("lite"))
    session.bring("source", source)
    session.bring("target", target)
    return session


@pytest.fixture
def session() -> Session:
    return session_with(noise(130, 120, 1), noise(130, 120, 2))


def matcher_of(session: Session) -> Matcher:
    return session._matchers.get(session.features)


def seen(session: Session) -> int:
    extractor = matcher_of(session).extractor
    assert isinstance(extractor, Counting)
    return extractor.seen


def test_clicks_give_what_the_library_gives(session: Session) -> None:
    for point in POINTS:
        session.click(*point)
    wanted = matcher_of(session).match(noise(130, 120, 1), noise(130, 120, 2), POINTS)
    assert session.result is not None
    torch.testing.assert_close(session.result.points, wanted.points, rtol=0, atol=1e-4)
    torch.testing.assert_close(session.result.confidence, wanted.confidence, rtol=0, atol=1e-6)
    assert json.loads(session.download("json").data) == wanted.to_dict()
    assert session.distances == wanted.distances
    assert set(session.distances) == {"identity", "flip"}
    rows = session.rows()
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.query for row in rows] == POINTS
    assert rows[2].match == pytest.approx(tuple(wanted.points[2].tolist()), abs=1e-4)
    assert rows[1].confidence == pytest.approx(float(wanted.confidence[1]), abs=1e-6)
    assert [row.colour for row in rows] == list(SERIES[:3])


class Sided(Patches):
    """Tells left from right: a cell's colour, and how it differs from those beside it."""

    def levels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means = F.avg_pool2d(pixels, self.cell)
        padded = F.pad(means, (1, 1, 1, 1), mode="replicate")
        across, down = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - means
        return (torch.cat([means, across, down, means, across, down], dim=1),)


def test_a_mirrored_image_is_recognised() -> None:
    image = noise(117, 117, 3)
    matchers = Matchers(["lite"], ["auto"], lambda name, place: Matcher(Sided(), pose="flip"))
    session = session_with(image, pose_image(image, "flip"), matchers)
    session.click(30, 60)
    assert session.pose == "flip"
    assert session.distances["flip"] < 0.01 < session.distances["identity"]
    session.align(False)
    assert (session.pose, session.distances, session.aligned) == ("identity", {}, False)


def test_each_image_is_encoded_once_for_each_pose_and_features(session: Session) -> None:
    assert seen(session) == 3, "source, target and the source mirrored"
    for point in POINTS:
        session.click(*point)
    session.align(False)
    session.align(True)
    session.undo()
    assert seen(session) == 3
    session.align(False)
    session.use(Features("plain"))
    assert seen(session) == 2, "not mirrored"
    session.align(True)
    assert seen(session) == 3
    session.use(Features("lite"))
    session.click(*POINTS[0])
    assert seen(session) == 3
    session.bring("target", noise(90, 90, 5))
    assert seen(session) == 4


def test_the_poses_are_compared_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = Matcher.align
    monkeypatch.setattr(Matcher, "align", lambda *given: calls.append(1) or original(*given))
    for point in POINTS:
        session.click(*point)
    assert calls == []
    session.align(False)
    session.align(True)
    assert len(calls) == 2


def test_alignment_is_as_measured_until_it_is_set(session: Session) -> None:
    assert session.aligned
    session.use(Features("plain"))
    assert not session.aligned
    session.align(True)
    session.use(Features("lite"))
    session.use(Features("plain"))
    assert session.aligned
    assert set(session.distances) == {"identity", "flip"}


def test_points_stay_with_their_source(session: Session) -> None:
    for point in POINTS:
        session.click(*point)
    session.bring("target", noise(60, 50, 9))
    assert session.points == tuple(POINTS)
    assert len(session.rows()) == 3
    assert session.result is not None
    assert session.result.target.size == (60, 50)
    session.bring("source", noise(100, 90, 8))
    assert (session.points, session.chosen, session.rows()) == ((), None, [])


def test_undo_clear_and_choose(session: Session) -> None:
    for point in POINTS:
        session.click(*point)
    session.heated = True
    assert session.heat() is not None
    assert session.chosen == 2
    session.choose(0)
    assert session.chosen == 0
    session.undo()
    assert (session.points, session.chosen) == (tuple(POINTS[:2]), 1)
    with pytest.raises(InputError, match=r"no point 3; there are 2"):
        session.choose(2)
    session.clear()
    assert (session.points, session.chosen, session.heat()) == ((), None, None)
    session.undo()
    assert session.points == ()


def test_a_point_is_moved_or_taken_away(session: Session) -> None:
    for point in POINTS:
        session.click(*point)
    session.move(0, 20.5, 30.5)
    assert (session.points, session.chosen) == (((20.5, 30.5), *POINTS[1:]), 0)
    wanted = matcher_of(session).match(noise(130, 120, 1), noise(130, 120, 2), [(20.5, 30.5)])
    assert session.rows()[0].match == pytest.approx(tuple(wanted.points[0].tolist()), abs=1e-4)
    session.remove(1)
    assert (session.points, session.chosen) == (((20.5, 30.5), POINTS[2]), 1)
    for change in (
        lambda: session.move(0, 130, 5),
        lambda: session.move(2, 5, 5),
        lambda: session.remove(-1),
    ):
        with pytest.raises(InputError, match=r"lies outside image A|There is no point"):
            change()
    session.remove(1)
    session.remove(0)
    assert (session.points, session.chosen, session.rows()) == ((), None, [])


def test_the_pointer_sees_what_a_click_would_give(session: Session) -> None:
    session.click(*POINTS[0])
    before = session.result
    found = session.peek(*POINTS[1], heated=True)
    assert (session.result, session.points) == (before, (POINTS[0],))
    session.click(*POINTS[1])
    row = session.rows()[1]
    assert (found["x"], found["y"]) == pytest.approx(row.match, abs=1e-4)
    assert found["confidence"] == pytest.approx(row.confidence, abs=1e-6)
    assert found["low"] is row.low
    assert session.result is not None
    colours = Image.open(io.BytesIO(base64.b64decode(str(found["heat"]).partition(",")[2])))
    layer = heat_layer(session.result.similarity_map(1), session.result.target.maps["identity"].canvas)
    np.testing.assert_allclose(np.asarray(colours), np.asarray(layer), atol=1)
    assert session.peek(*POINTS[1])["heat"] == ""
    for x, y in ((130, 5), (-1, 5), (float("nan"), 1)):
        assert session.peek(x, y) == {}
    assert Session(toy_matchers(), Features("lite")).peek(1, 1) == {}


def test_only_points_of_low_confidence_are_called_so() -> None:
    session = session_with(face(), face(colour="khaki"))
    sure = Row(1, "", (0, 0), (0, 0), 0.9, 0.01)
    vague, elsewhere = replace(sure, number=2, confidence=0.29), replace(sure, number=3, cycle_error=0.11)
    assert hint(session, [sure]) == "1 point matched."
    several = "image B has several such places, or none."
    assert hint(session, [sure, vague]) == f"2 points matched. Low confidence in point 2: {several}"
    wanted = f"3 points matched. Low confidence in 2 of them (2, 3): {several}"
    assert hint(session, [sure, vague, elsewhere]) == wanted


def test_visitors_share_what_they_find_and_bring_their_own() -> None:
    matchers = toy_matchers()
    opening = Opening(
        Shown.of(noise(130, 120, 1), own=False), Shown.of(noise(130, 120, 2), own=False), tuple(POINTS)
    )
    first, second = (Session(matchers, Features("lite")) for _ in range(2))
    for each in (first, second):
        each.open(opening)
        assert (each.points, each.chosen, each.untouched, each.empty) == (tuple(POINTS), 0, True, True)
        assert hint(each, each.rows()) == OPENED
        assert each.bytes == 0
    assert seen(first) == 3, "encoded once for all, the source mirrored too"
    wanted = matcher_of(first).match(noise(130, 120, 1), noise(130, 120, 2), POINTS)
    assert second.result is not None
    torch.testing.assert_close(second.result.points, wanted.points, rtol=0, atol=1e-4)
    first.bring("source", noise(50, 50, 3))
    assert (first.points, first.untouched, first.empty) == ((), False, False)
    first.open(opening)
    assert first.points == (), "a page that is loaded again keeps what is on it"
    assert second.untouched


def test_what_rests_is_matched_again(session: Session) -> None:
    for point in POINTS:
        session.click(*point)
    before, size = session.rows(), session.bytes
    session.rest()
    assert session.bytes == 2 * 4 * 130 * 120 < size
    assert session.heat() is None
    session.wake()
    assert (session.rows(), session.bytes) == (before, size)
    count = seen(session)
    session.wake()
    assert seen(session) == count


def test_clicks_that_cannot_be(session: Session) -> None:
    session.click(*POINTS[0])
    for x, y in ((130, 5), (-0.1, 5), (5, 120), (float("nan"), 5), (5, float("inf"))):
        with pytest.raises(InputError, match=r"lies outside image A, 130 x 120 pixels; click inside it"):
            session.click(x, y)
    assert session.points == (POINTS[0],)
    for number in range(MOST_POINTS - 1):
        session.click(number, 1)
    with pytest.raises(InputError, match="as many as there can be"):
        session.click(1, 1)
    assert len(session.rows()) == MOST_POINTS


def test_before_both_images_are_there() -> None:
    session = Session(toy_matchers(), Features("lite"))
    with pytest.raises(InputError, match="Bring image A and image B first"):
        session.click(1, 1)
    session.bring("source", noise(50, 50, 1))
    with pytest.raises(InputError, match="Bring image B first"):
        session.click(1, 1)
    assert (session.points, session.rows(), session.result, session.heat()) == ((), [], None, None)
    with pytest.raises(InputError, match="no matches yet"):
        session.download("json")
    session.bring("target", noise(50, 50, 2))
    with pytest.raises(InputError, match="no matches yet"):
        session.download("png")


def test_what_fails_changes_nothing(session: Session) -> None:
    session.click(*POINTS[0])
    before = session.download("json").data
    with pytest.raises(InputError, match="trained on other features"):
        session.use(Features("lite", "other"))
    with pytest.raises(InputError, match=r"'/etc/passwd' is not on offer here; there are auto, other"):
        session.use(Features("lite", "/etc/passwd"))
    assert session.features == Features("lite")
    assert session.download("json").data == before
    session.click(*POINTS[1])
    assert len(session.rows()) == 2


def test_the_heat_map_is_the_librarys_and_drawn_once(session: Session) -> None:
    session.click(*POINTS[0])
    session.click(*POINTS[1])
    assert session.heat() is None
    session.heated = True
    shown = session.heat()
    assert shown is not None
    assert session.result is not None
    assert session.heat() is shown
    assert shown.data == Served.of(session.result.heatmap(1)).data
    session.choose(0)
    again = session.heat()
    assert again is not None
    assert again.token != shown.token


def test_downloads_and_what_can_be_fetched(session: Session) -> None:
    session.click(*POINTS[0])
    first = session.download("json")
    assert session.result is not None
    assert json.loads(first.data) == json.loads(session.result.to_json())
    assert session.served(first.token) is first
    second = session.download("png")
    assert second.data.startswith(b"\x89PNG")
    assert session.served(second.token) is second
    assert session.served(first.token) is None
    shown = session.shown("source")
    assert shown is not None
    source = shown.served
    assert session.served(source.token) is source
    session.bring("source", noise(50, 50, 4))
    assert session.served(source.token) is None
    assert session.served("") is None


def test_the_drawing_is_numbered_as_the_page() -> None:
    session = session_with(face(), face(colour="khaki"))
    session.click(60, 80)
    assert session.result is not None
    drawn = np.asarray(Image.open(io.BytesIO(session.download("png").data)))
    np.testing.assert_array_equal(drawn, np.asarray(session.result.draw(labels=["1"])))
    assert (drawn != np.asarray(session.result.draw())).any()


def test_large_images_are_shown_smaller_and_matched_as_they_are() -> None:
    session = session_with(noise(2 * LONGEST, LONGEST, 1), noise(50, 70, 2))
    shown = session.shown("source")
    assert shown is not None
    assert Image.open(io.BytesIO(shown.served.data)).size == (LONGEST, LONGEST // 2)
    session.click(2 * LONGEST - 1, LONGEST - 1)
    assert json.loads(session.download("json").data)["source_size"] == [2 * LONGEST, LONGEST]
    assert Image.open(io.BytesIO(Served.of(noise(50, 70, 2)).data)).size == (50, 70)


def test_a_matcher_is_loaded_once_whoever_asks() -> None:
    loaded = []

    def load(name: str, place: str) -> Matcher:
        time.sleep(0.05)
        loaded.append((name, place))
        return Matcher(Patches())

    matchers = Matchers(["lite", "lite"], ["auto"], load)
    assert matchers.extractors == ("lite",)
    found: list[Matcher] = []
    threads = [
        threading.Thread(target=lambda: found.append(matchers.get(Features("lite")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [("lite", "auto")]
    assert len({id(each) for each in found}) == 1


def test_clicks_from_several_threads_are_all_counted(session: Session) -> None:
    threads = [threading.Thread(target=session.click, args=(number, number)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(session.points) == [(float(number), float(number)) for number in range(20)]
    assert len(session.rows()) == 20


def test_visitors_have_their_own_sessions() -> None:
    matchers = toy_matchers()
    visitors = Sessions(lambda: Session(matchers, Features("lite")), most=2)
    mine, yours = visitors.of("me"), visitors.of("you")
    mine.bring("source", noise(50, 50, 1))
    assert visitors.of("me") is mine
    assert yours.shown("source") is None
    shown = mine.shown("source")
    assert shown is not None
    served = shown.served
    assert len(served.token) == 32
    assert visitors.served(served.token) is served
    assert visitors.served("nothing") is None
    visitors.drop("me")
    assert visitors.served(served.token) is None
    assert visitors.of("me") is not mine
    visitors.drop("nobody")


def test_the_session_longest_unused_makes_room() -> None:
    matchers = toy_matchers()
    visitors = Sessions(lambda: Session(matchers, Features("lite")), most=2)
    first, second = visitors.of("1"), visitors.of("2")
    assert visitors.of("1") is first
    visitors.of("3")
    assert len(visitors) == 2
    assert visitors.of("1") is first
    assert visitors.of("2") is not second


def test_empty_sessions_make_room_before_those_with_an_image() -> None:
    matchers = toy_matchers()
    visitors = Sessions(lambda: Session(matchers, Features("lite")), most=3)
    working = visitors.of("me")
    working.bring("source", noise(50, 50, 1))
    for number in range(20):
        visitors.of(f"stranger {number}")
    assert len(visitors) == 3
    assert visitors.of("me") is working
    for number in range(3):
        visitors.of(f"worker {number}").bring("source", noise(50, 50, number))
    assert visitors.of("me") is not working, "of those with work, the longest unused goes"


def test_sessions_that_take_too_much_make_room() -> None:
    matchers = toy_matchers()
    visitors = Sessions(lambda: Session(matchers, Features("lite")), most_bytes=50_000)
    for number in range(3):
        with visitors.using(f"{number}") as session:
            session.bring("source", noise(70, 50, number))
            assert session.bytes >= 4 * 70 * 50
    # Images of 14,000 bytes with maps of 12,168: features of the longest unused go first, then its image.
    held = {key: each.bytes for key, each in visitors._held.items()}
    assert held == {"1": 4 * 70 * 50, "2": 4 * 70 * 50 + 4 * 18 * 13 * 13}
    with visitors.using("huge") as huge:
        huge.bring("source", noise(300, 200, 9))
    assert (len(visitors), visitors.of("huge")) == (1, huge), "the one used last stays, whatever it takes"


def test_a_session_at_work_stays() -> None:
    matchers = toy_matchers()
    visitors = Sessions(lambda: Session(matchers, Features("lite")), most=2)
    with visitors.using("me") as working:
        for number in range(5):
            visitors.of(f"{number}").bring("source", noise(50, 50, number))
        working.bring("source", noise(50, 50, 9))
    visitors.of("last")
    assert len(visitors) == 2
    assert visitors.of("me") is working, "it was used when the work ended, not when it began"
