from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from geoaware.data import LOADERS, load
from geoaware.data import fields as read
from geoaware.runs.errors import InputError

DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (read.number, 2, 2.0),
        (read.number, " 2.5 ", 2.5),
        (read.number, True, "is True; expected a number"),
        (read.number, math.nan, "expected a number"),
        (read.number, "1e999", "expected a number"),
        (read.number, 10**400, "expected a number"),
        (read.number, DEEP, r"is \[\[\[.*expected a number"),
        (read.whole, "0001", 1),
        (read.whole, 7.0, 7),
        (read.whole, 1.5, "is 1.5; expected a whole number"),
        (read.whole, False, "expected a whole number"),
        (read.whole, 2**63, "expected a whole number"),
        (read.whole, "9" * 5000, r"expected a whole number"),
        (read.flag, "0", False),
        (read.flag, 1.0, True),
        (read.flag, None, False),
        (read.flag, "perhaps", "is 'perhaps'; expected 0 or 1"),
    ],
)
def test_one_value(reader: Callable[[Any, str], Any], value: Any, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected) as caught:
            reader(value, "a.json: x")
        assert str(caught.value).startswith("a.json: x is ")
        assert len(str(caught.value)) < 200
    else:
        found = reader(value, "a.json: x")
        assert found == expected
        assert type(found) is type(expected)


def test_lists_of_numbers() -> None:
    plain = [1, 2.5, 3, 4]
    assert read.numbers(plain, "x", 4) is plain
    assert read.numbers(["1", 2], "x", 2) == [1.0, 2]
    for wrong in ([1], "12", {1: 2}, [1, None], [1, True], [1, [2]], 7):
        with pytest.raises(InputError, match="x"):
            read.numbers(wrong, "x", 2)


def test_sizes() -> None:
    assert read.size("60", 40.0, "x") == (60, 40)
    assert read.size(60, None, "x") is read.size(0, 40, "x") is None
    for wrong in ((60.5, 40), ([60], 40), (-60, 40), ("wide", 40), (2**27, 3)):
        with pytest.raises(InputError, match="x"):
            read.size(*wrong, "x")


@pytest.mark.parametrize("point", [[-1, -1], [0, 0], [0.0, 0], [math.nan] * 2, [None, None], [], "", "nan"])
def test_padding(point: Any) -> None:
    assert read.padding(point)


@pytest.mark.parametrize("point", [None, [0, 1], [-1, 5], [3, 4]])
def test_no_padding(point: Any) -> None:
    assert not read.padding(point)


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("coco", "images", [1], r"images: input should be a text; .*\(got \[1\]\)"),
        ("coco", "masks", 3, "masks: input should be a text"),
        ("coco", "pairs", [[]], r"input should be a text; .*\(got \[\[\]\]\)"),
        ("coco", "pairs", True, r"pairs: input should be a number \(got True\)"),
        ("coco", "min_common", "x", r"min_common: input should be a valid integer.*\(got 'x'\)"),
        ("coco", "hidden", "maybe", "hidden: input should be a valid boolean"),
        ("coco", "name", "x", "data set coco has no option 'name'"),
        ("pairs", "pairs", 3, "pairs: input should be a text"),
        ("pf-willow", "pairs", [3], "pairs: input should be a text"),
        ("pf-pascal", "pairs", {}, "pairs: input should be a text"),
        ("ap10k", "benchmark", [], "benchmark: input should be a text"),
        ("spair71k", "categories", 1, r"categories: .*\(got 1\)"),
        ("spair71k", "layout", 3, "layout: input should be a text"),
    ],
)
def test_options_of_wrong_kinds(tmp_path: Any, name: str, option: str, value: Any, message: str) -> None:
    from geoaware.data import checked

    assert name in LOADERS
    with pytest.raises(InputError, match=message):
        checked(name, {option: value})
    if option != "name":
        with pytest.raises(InputError, match=message):
            load(name, tmp_path, "test", **{option: value})


def test_options_of_near_kinds() -> None:
    from geoaware.data import checked

    given = {"pairs": "all", "min_common": "3", "across": "yes", "seed": None}
    assert checked("coco", given) == {"pairs": "all", "min_common": 3, "across": True}
    assert checked("coco", {"pairs": 3})["pairs"] == 3
    assert checked("spair71k", {"categories": ["bus"]})["categories"] == ["bus"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", False),
        ("[1, 2.5, true]", False),
        ("[1e308, 1e308, -1e308]", False),
        (f"[{10**400}]", False),
        ('[[1, 2], {"counts": "abc", "size": [3, 4]}, null, "NaN"]', False),
        ("NaN", True),
        ("[[0, 1], [2, -Infinity]]", True),
        ("[Infinity, -Infinity]", True),
        ("[1e308, 1e308, NaN]", True),
        ('{"counts": [1, {"deep": [[NaN]]}]}', True),
    ],
)
def test_numbers_that_are_none_are_found_wherever_they_stand(text: str, expected: bool) -> None:
    assert read.has_nan(json.loads(text)) is expected
