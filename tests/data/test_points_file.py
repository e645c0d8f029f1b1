from __future__ import annotations

from pathlib import Path

import pytest

from geoaware.data.points_file import QueryPoints, check_pixels, parse_point, read_points
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
        ("y,x\n1,2\n", query([(2, 1)])),
        ("index,axis-0,axis-1\n0,1,2\n1,3,4\n", query([(2, 1), (4, 3)])),
        ("x,y,likelihood\n1,2,0.9\n3,4,0.8\n", query([(1, 2), (3, 4)])),
        ("X (px);Y (px);bodypart\n1,5;2;ear\n", query([(1.5, 2)], ["ear"])),
        ("Teil\tPos X\tPos Y\nOhr, links\t1\t2\n", query([(1, 2)], ["Ohr, links"])),
        (",x,y\n0,1,2\n", query([(1, 2)])),
        ("id,x,y\n7,1,2\n", query([(1, 2)], ["7"])),
        ('"a;b",1,2\n', query([(1, 2)], ["a;b"])),
        ('{"source": [1, 2], "target": [3, 4]}', query([(1, 2), (3, 4)], ["source", "target"])),
        ("[[1, 2]]", query([(1, 2)])),
        ('{"nose": [1, 2], "tail": [3, 4]}', query([(1, 2), (3, 4)], ["nose", "tail"])),
        (
            '{"points": [[1, 2], [3, 4]], "names": ["a", "b"], "flip_pairs": [[0, 1]]}',
            query([(1, 2), (3, 4)], ["a", "b"], [(0, 1)]),
        ),
        ("name,x,y\n" + "n" * 140_000 + ",1,2\n", query([(1, 2)], ["n" * 140_000])),
        ('[["1", 2.0]]', query([(1, 2)])),
        (
            '{"points": [[1, 2], [3, 4]], "names": ["left", "right"], "flip_pairs": [["left", "right"]]}',
            query([(1, 2), (3, 4)], ["left", "right"], [(0, 1)]),
        ),
        (
            '{"points": [[1, 2], [3, 4], [5, 6]], "names": ["left eye", "right eye", "nose"], '
            '"flip_pairs": [[1, 2]]}',
            query([(1, 2), (3, 4), (5, 6)], ["left eye", "right eye", "nose"], [(0, 1)]),
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
        ("a,1,2\n3,4\n", "line 2: 2 columns, but 3 before"),
        ("a,b,1,2\n", "4 columns and no header"),
        ("12o,85\n", "line 1: '12o,85' is not a point"),
        ("1,2,0.9\n", r"line 1: three numbers can be .* begin the file with a header, such as name,x,y"),
        ("ear,1,2\n7,3,4\n", "line 2: three numbers"),
        ("left,top\n1,2\n", "the first row, 'left,top', names no column x; write name,x,y or x,y there"),
        ("x1,x,y,x\n1,2,3,4\n", "names 2 columns x"),
        ("axis-0,axis-1,axis-2\n1,2,3\n", "names no column x"),
        ('"1,234",5\n', "line 1: a comma within a number"),
        ("x,y\n1,nan\n", "line 2: '1,nan' is not a point"),
        ("x,y\n1," + "9" * 200_000 + "x\n", "line 2: '1,999.*…9.*' is not a point"),
        ('{"x": [1, 2], "y": [3, 4]}', "x and y are columns here"),
        ('{"images": [], "annotations": []}', "is no file of points, but it is a COCO annotation file"),
        ('{"version": "5", "shapes": [], "imagePath": "a.jpg"}', "but it is a labelme file"),
        ('{"format": "geoaware poses"}', "but it is what `geoaware pose` writes"),
        ('[{"image_id": 1, "keypoints": [], "score": 1}]', "but it is a COCO results file"),
        ("[" * 100_000, "not valid JSON"),
        ("[[NaN, 1]]", r"point 0: \[NaN, 1\] is not"),
        ("[[1" + "0" * 400 + ", 1]]", "point 0: .*….* is not"),
        ("[[1, 2], [3]]", r"point 1: \[3\] is not"),
        ("[[1, 2], [true, 1]]", "point 1"),
        ("[1, 2", "not valid JSON"),
        ('{"points": 3}', "not a list"),
        ('{"points": [[1, 2]], "names": []}', "list of 1 names"),
        ('{"points": [[1, 2]], "flip_pairs": [[0, 1]]}', "outside 0…0"),
        ('{"points": [[1, 2]], "flip_pairs": [0]}', r"list of \[i, j\]"),
        ('{"points": [[1, 2]], "flip_pairs": [[true, 0]]}', r"list of \[i, j\]"),
        ("name,x y\nnose,1\n", "names no column x"),
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
    path.write_bytes(b"\x89PNG\x00\x01")
    with pytest.raises(InputError, match=r"binary.csv: is no text in UTF-8, UTF-16 or Latin-1"):
        read_points(path)


@pytest.mark.parametrize(
    ("encoding", "notes"),
    [("utf-16", 0), ("utf-8-sig", 0), ("latin-1", 1)],
)
def test_encodings(tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, notes: int) -> None:
    path = tmp_path / "points.csv"
    path.write_text("näme;y;x\nÖhr;1;2\n", encoding=encoding)
    assert read_points(path) == query([(2, 1)], ["Öhr"])
    assert [each for each in caplog.messages if "read as Latin-1" in each] == caplog.messages[:notes]


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "points.csv"
    path.write_text("frame,name,y,x,likelihood\n3,ear,1,2,0.9\n", encoding="utf-8")
    assert read_points(path) == query([(2, 1)], ["ear"])
    assert caplog.messages == [f"{path}: read x, y and the name; not read: frame, likelihood"]


def test_shares_of_the_image_are_no_pixels() -> None:
    with pytest.raises(InputError, match=r"all points lie within 0…1, on an image of 640x480 pixels"):
        check_pixels([(0.5, 0.25), (1, 0)], (640, 480))
    check_pixels([(0, 1), (1, 1)], (640, 480))
    check_pixels([(0.5, 0.25)], (32, 32))
    check_pixels([(0.5, 0.25), (1, 2)], (640, 480))


def test_points_on_the_command_line() -> None:
    assert parse_point("12,3.5") == (12.0, 3.5)
    for text in ("12", "a,b", "1,2,3", ""):
        with pytest.raises(InputError, match="is not a point of the form x,y") as caught:
            parse_point(text)
        assert caught.value.parameter == "point"
