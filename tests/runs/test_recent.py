from __future__ import annotations

from geoaware.runs.recent import Recent


def kept_of(recent: Recent[str, str], keys: str) -> str:
    return "".join(each for each in keys if each in recent)


def test_what_was_asked_for_the_longest_goes_first() -> None:
    recent: Recent[str, str] = Recent(6, len)
    for key in "abc":
        recent[key] = "xx"
    assert recent["a"] == "xx"
    recent["d"] = "xx"
    assert (kept_of(recent, "abcd"), recent.bytes, len(recent)) == ("acd", 6, 3)


def test_a_value_put_anew_counts_once() -> None:
    recent: Recent[str, str] = Recent(6, len)
    recent["a"] = "xxxx"
    recent["b"] = "x"
    recent["a"] = "xxx"
    assert (kept_of(recent, "ab"), recent.bytes) == ("ab", 4)
    recent["c"] = "xxx"
    assert (kept_of(recent, "abc"), recent.bytes) == ("ac", 6)


def test_so_many_stay_whatever_they_take() -> None:
    for least, expected in ((0, ""), (1, "c"), (2, "bc")):
        recent: Recent[str, str] = Recent(1, len, least)
        for key in "abc":
            recent[key] = "xx"
        assert (kept_of(recent, "abc"), recent.bytes) == (expected, 2 * least)


def test_what_goes_is_told() -> None:
    gone = list[str]()
    recent: Recent[str, str] = Recent(5, len, least=0, dropped=gone.append)
    for key, value in (("a", "xx"), ("b", "xxx"), ("c", "x"), ("b", "xx"), ("d", "xxxxxx")):
        recent[key] = value
    assert (gone, len(recent)) == (["a", "c", "b", "d"], 0)


def test_nothing() -> None:
    recent: Recent[str, str] = Recent(0, len)
    assert (len(recent), recent.bytes, "a" in recent) == (0, 0, False)
