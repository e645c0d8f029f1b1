"""What is kept of clients' images: whose, how long, how much."""

from __future__ import annotations

import pytest

from geoaware.apps.serve.images import Bounds, FullError, Images, UnknownImageError
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError
from tests.toys import Patches, noise


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_everyone_has_their_own() -> None:
    images = Images(Bounds())
    held = images.add("me", noise(30, 20, 1))
    id = held.id
    assert images.get("me", id) is held
    assert len(id) == 32
    for change in (images.get, images.remove):
        with pytest.raises(UnknownImageError, match="there is no such image"):
            change("you", id)
    assert images.get("me", id) is held
    images.remove("me", id)
    with pytest.raises(UnknownImageError):
        images.get("me", id)


def test_what_is_not_used_expires() -> None:
    clock = Clock()
    images = Images(Bounds(seconds=10), clock)
    first = images.add("me", noise(30, 20, 1)).id
    second = images.add("me", noise(30, 20, 2)).id
    clock.now = 9
    images.get("me", first)
    clock.now = 11
    images.get("me", first)
    with pytest.raises(UnknownImageError):
        images.get("me", second)
    assert len(images) == 1
    clock.now = 22
    assert (len(images), images.bytes) == (0, 0)


def test_a_client_makes_room_for_itself() -> None:
    images = Images(Bounds(each=2))
    ids = [images.add("me", noise(30, 20, number)).id for number in range(3)]
    yours = images.add("you", noise(30, 20, 9)).id
    with pytest.raises(UnknownImageError):
        images.get("me", ids[0])
    images.get("me", ids[1])
    images.add("me", noise(30, 20, 4))
    with pytest.raises(UnknownImageError):
        images.get("me", ids[2])
    for client, id in (("me", ids[1]), ("you", yours)):
        images.get(client, id)


def test_one_client_has_half_and_all_have_no_more_than_the_whole() -> None:
    size = 4 * 100 * 50
    images = Images(Bounds(megabytes=4.5 * size / 1e6))
    mine = [images.add("me", noise(100, 50, number)).id for number in range(3)]
    assert images.bytes == 2 * size, "the third took the place of the first"
    for number in range(2):
        images.add("you", noise(100, 50, number))
    with pytest.raises(FullError):
        images.add("third", noise(100, 50, 5))
    images.get("me", mine[1])
    images.remove("me", mine[1])
    images.add("third", noise(100, 50, 5))
    assert images.bytes == 4 * size


def test_features_make_room_and_are_computed_anew() -> None:
    matcher = Matcher(Patches(), pose="flip")
    images = Images(Bounds(features_megabytes=2.5 * matcher.map_bytes / 1e6))
    held = [images.add("me", noise(60, 50, number)) for number in range(3)]
    for each in held:
        images.encode(each, matcher)
    assert [each.encoded is None for each in held] == [True, False, False]
    found = images.match((held[0], held[1]), [(5.0, 6.0)], "rotate", matcher)
    assert (
        found.to_dict()
        == matcher.match(noise(60, 50, 0), noise(60, 50, 1), [(5, 6)], pose="rotate").to_dict()
    )
    assert held[0].encoded is not None
    assert held[0].encoded.maps.keys() == {"identity", "flip"}, "rotated maps go"
    assert held[2].encoded is None
    again = images.match((held[0], held[1]), [(7.0, 8.0)], "rotate", matcher)
    wanted = matcher.match(noise(60, 50, 0), noise(60, 50, 1), [(7, 8)], pose="rotate")
    assert again.to_dict() == wanted.to_dict()
    assert images.bytes == 3 * 4 * 60 * 50 + 3 * matcher.map_bytes, "those in use stay"


def test_the_poses_of_a_pair_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, calls = Matcher(Patches(), pose="flip"), []
    images = Images(Bounds())
    one, other = (images.add("me", noise(60, 50, number)) for number in range(2))
    original = Matcher.align
    monkeypatch.setattr(Matcher, "align", lambda *given: calls.append(1) or original(*given))
    for _ in range(3):
        images.match((one, other), [(5.0, 6.0)], "auto", matcher)
    assert len(calls) == 1
    images.match((other, one), [(5.0, 6.0)], "auto", matcher)
    images.match((one, other), [(5.0, 6.0)], "rotate", matcher)
    assert len(calls) == 3
    with pytest.raises(InputError, match="lies outside"):
        images.match((one, other), [(60.0, 6.0)], "auto", matcher)
