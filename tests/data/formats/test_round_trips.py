"""What is written is read again, from every format to every other."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from geoaware.data import formats
from tests.data.formats.made import HOLDS, as_result, both, images, result, told, write

PAIRS = list(product(formats.FORMATS, formats.FORMATS))


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{one}-{other}" for one, other in PAIRS])
def test_formats_hold_the_same(tmp_path: Path, one: str, other: str) -> None:
    folder = images(tmp_path / "images")
    first = formats.read(write(one, tmp_path / "first", result(folder)))
    second = formats.read(write(other, tmp_path / "second", as_result(first, folder)))
    again = formats.read(write(one, tmp_path / "third", as_result(second, folder)))
    held = both(HOLDS[one], HOLDS[other])
    wanted = told(formats.read(write("coco", tmp_path / "plain", result(folder))), held)
    assert (first.format, second.format) == (one, other)
    assert told(first, held) == told(second, held) == told(again, held) == wanted
