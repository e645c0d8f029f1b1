"""Damaged exports are read or refused; nothing else happens."""

from __future__ import annotations

import random
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from geoaware.apps.transfer import read_sources
from geoaware.runs.errors import InputError
from tests.data.formats.exports import EXPORTS

JUNK = [
    b"null",
    b"-1",
    b"1e999",
    b"{}",
    b"[]",
    b'""',
    b"NaN",
    b"true",
    b"9" * 20,
    b'"\\ud800"',
    b"..",
    b"\x00",
    b"<",
]
TOKEN = re.compile(rb'"[^"]*"|-?[\d.]+|\w+|[\[{][^\[\]{}]*[\]}]')
TEXTS = (".json", ".xml", ".csv", ".yaml", ".h5", ".slp", ".txt", ".zip")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content cut off, with other bytes, or with other values."""
    given, kind = bytearray(content), chance.random()
    tokens = [each.span() for each in TOKEN.finditer(content)]
    if kind < 0.1:
        return content[: chance.randrange(len(given) + 1)]
    if kind < 0.4 or not tokens:
        for _ in range(chance.randint(1, 4)):
            given[chance.randrange(len(given))] = chance.randrange(256)
        return bytes(given)
    for begin, end in sorted(chance.sample(tokens, min(2, len(tokens))), reverse=True):
        given[begin:end] = chance.choice(JUNK)
    return bytes(given)


@pytest.mark.parametrize("kind", EXPORTS)
def test_damage_is_an_input_error(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    given = EXPORTS[kind][0](whole)
    chance = random.Random(kind)
    refused = 0
    for number in range(12):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        path = folder / given.relative_to(whole)
        file = chance.choice([each for each in sorted(folder.rglob("*")) if each.suffix in TEXTS])
        file.write_bytes(mutated(file.read_bytes(), chance))
        with suppress(InputError):
            read_sources(path)
            continue
        refused += 1
    assert refused
