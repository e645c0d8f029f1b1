"""What is kept of clients' images: whose, how long, how much."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from geoaware.apps.serve.images import Bounds, FullError, Held, Images, UnknownImageError
from geoaware.matcher import Matcher
from geoaware.result import Encoded
from geoaware.runs.errors import InputError
from tests.toys import Patches, noise


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def images_within(clock: Clock | None = None, **bounds: float) -> Images:
    return Images(Bounds(**bounds), opened, clock or Clock())  # type: ignore[arg-type]


def add(images: Images, client: str, size: int = 100) -> Held:
    """A file of so many bytes, of which nothing was made yet."""
    return images.add(client, bytes(size), Encoded(Image.new("RGB", (1, 1))))


def sent(images: Images, matcher: Matcher, seed: int) -> Held:
    """A real image, encoded."""
    file = io.BytesIO()
    noise(60, 50, seed).save(file, "PNG")
    return images.add("me", file.getvalue(), matcher.encode(noise(60, 50, seed)))


def test_everyone_has_their_own() -> None:
    images = images_within()
    held = add(images, "me")
    assert images.get("me", held.id) is held
    assert len(held.id) == 32
    for change in (images.get, images.remove):
        with pytest.raises(UnknownImageError, match="there is no such image"):
            change("you", held.id)
    assert images.get("me", held.id) is held
    images.remove("me", held.id)
    with pytest.raises(UnknownImageError):
        images.get("me", held.id)


def test_what_is_not_used_expires() -> None:
    clock = Clock()
    images = images_within(clock, seconds=10)
    first, second = (add(images, "me").id for _ in range(2))
    clock.now = 9
    images.get("me", first)
    clock.now = 11
    images.get("me", first)
    with pytest.raises(UnknownImageError):
        images.get("me", second)
    assert len(images) == 1
    clock.now = 22
    assert (len(images), images.taken) == (0, 0)


def test_a_client_makes_room_for_itself() -> None:
    images = images_within(each=2)
    ids = [add(images, "me").id for _ in range(3)]
    yours = add(images, "you").id
    with pytest.raises(UnknownImageError):
        images.get("me", ids[0])
    images.get("me", ids[1])
    add(images, "me")
    with pytest.raises(UnknownImageError):
        images.get("me", ids[2])
    for client, id in (("me", ids[1]), ("you", yours)):
        images.get(client, id)


def test_one_client_has_half_and_all_have_no_more_than_the_whole() -> None:
    images = images_within(megabytes=4.5 * 1000 / 1e6)
    mine = [add(images, "me", 1000).id for _ in range(3)]
    assert images.taken == 2 * (1000 + 4), "the third took the place of the first"
    for _ in range(2):
        add(images, "you", 1000)
    with pytest.raises(FullError):
        add(images, "third", 1000)
    images.get("me", mine[1])
    images.remove("me", mine[1])
    add(images, "third", 1000)
    assert len(images) == 4


def test_features_make_room_and_are_computed_anew() -> None:
    matcher = Matcher(Patches(), pose="flip")
    one = matcher.map_bytes + 4 * 60 * 50
    images = images_within(decoded_megabytes=2.5 * one / 1e6)
    held = [sent(images, matcher, number) for number in range(3)]
    assert [each.encoded is None for each in held] == [True, False, False]
    found = images.match((held[0], held[1]), [(5.0, 6.0)], "rotate", matcher)
    wanted = matcher.match(noise(60, 50, 0), noise(60, 50, 1), [(5, 6)], pose="rotate")
    assert found.to_dict() == wanted.to_dict()
    assert held[0].encoded is not None
    assert held[0].encoded.maps.keys() == {"identity", "flip"}, "rotated maps go"
    assert held[2].encoded is None
    files = sum(len(each.content) for each in held)
    assert images.taken == files + 2 * one + matcher.map_bytes, "those in use stay"
    again = images.match((held[0], held[1]), [(7.0, 8.0)], "rotate", matcher)
    wanted = matcher.match(noise(60, 50, 0), noise(60, 50, 1), [(7, 8)], pose="rotate")
    assert again.to_dict() == wanted.to_dict()


def test_the_poses_of_a_pair_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, calls = Matcher(Patches(), pose="flip"), []
    images = images_within()
    one, other = (sent(images, matcher, number) for number in range(2))
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
