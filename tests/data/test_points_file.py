from __future__ import annotations

from pathlib import Path

import pytest

from geoaware.data.points_file import QueryPoints, parse_point, read_points
from geoaware.runs.errors import InputError


def query(points: list, *rest: object) -> QueryPoints:
    return QueryPoints([(float(x), float(y)) for x, y in points], *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4.5\n", query([(1, 2), (3, 4.5)])),
        ("x,y\n1,2\n", query([(1, 2)])),
        ("name,x,y\nleft ear, 1, 2\nnose,3,4\n\n", query([(1, 2), (3, 4)], ["left ear", "nose"])),
        ("\ufeff1,2\r\n", query([(1, 2)])),
        ("[[1, 2]]", query([(1, 2)])),
        ('{"nose": [1, 2], "tail": [3, 4]}', query([(1, 2), (3, 4)], ["nose", "tail"])),
        (
            '{"points": [[1, 2], [3, 4]], "names": ["a", "b"], "flip_pairs": [[0, 1]]}',
            query([(1, 2), (3, 4)], ["a", "b"], [(0, 1)]),
        ),
    ],
)
def test_forms(tmp_path: Path, text: str, expected: QueryPoints) -> None:
    path = tmp_path / "points"
    path.write_text(text, encoding="utf-8")
    assert read_points(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no points in this file"),
        ("x,y\n", "no points in this file"),
        ("1,2\n3,four\n", r"line 2: '3,four' is not a point"),
        ("1,2\n3\n", "line 2"),
        ('"left\npaw",1,2\n\n"right\npaw",3,four\n', "line 5"),
        ("a,1,2\n3,4\n", "some lines have a name"),
        ("a,b,1,2\n", "4 columns"),
        ("[[1, 2], [3]]", r"point 1: \[3\] is not"),
        ("[[1, 2], [true, 1]]", "point 1"),
        ("[1, 2", "not valid JSON"),
        ('{"points": 3}', "not a list"),
        ('{"points": [[1, 2]], "names": []}', "list of 1 names"),
        ('{"points": [[1, 2]], "flip_pairs": [[0, 1]]}', "outside 0…0"),
        ('{"points": [[1, 2]], "flip_pairs": [0]}', r"list of \[i, j\]"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "points.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_points(path)
    assert "points.txt" in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "absent.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_points(path)


def test_points_on_the_command_line() -> None:
    assert parse_point("12,3.5") == (12.0, 3.5)
    for text in ("12", "a,b", "1,2,3", ""):
        with pytest.raises(InputError, match="is not a point of the form x,y") as caught:
            parse_point(text)
        assert caught.value.parameter == "point"
