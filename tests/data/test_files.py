"""What a file is, in the messages of every reader that refuses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geoaware.apps.pose.inputs import read_labels
from geoaware.data.coco import read_coco
from geoaware.data.files import file_known_as, read_csv, read_json, read_json_lines, read_mat, read_text
from geoaware.data.images import load_image
from geoaware.data.pairs import read_pair_list
from geoaware.data.points_file import read_points
from geoaware.runs.errors import InputError
from geoaware.studies.ablation_table import trained_rows

PREDICTIONS = '{"format": "geoaware predictions", "protocol": "paper"}\n{"pair": "a"}\n'
LABELME = '{"version": "5",\n "shapes": [],\n "imagePath": "a.jpg"}'
VIA = '{"_via_img_metadata": {}}'
COCO = '{"images": [],\n "annotations": []}'


def _lines(path: Path) -> None:
    list(read_json_lines(path, "pairs"))


@pytest.mark.parametrize(
    ("read", "text", "kind"),
    [
        (read_coco, PREDICTIONS, "is no COCO keypoints file, but it is a predictions file"),
        (read_coco, VIA, "is no COCO keypoints file, but it is a VIA project"),
        (_lines, COCO, "but it is a COCO annotation file"),
        (_lines, LABELME, "but it is a labelme file"),
        (lambda path: read_pair_list(path, {}), COCO, "but it is a COCO annotation file"),
        (trained_rows, COCO, "is not the JSON of an ablation .*, but it is a COCO annotation file"),
        (lambda path: read_json(path, "a list"), PREDICTIONS, "is no list, but it is a predictions file"),
    ],
)
def test_a_file_of_another_kind_is_recognised(
    tmp_path: Path, read: Callable[[Path], object], text: str, kind: str
) -> None:
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=kind):
        read(path)


@pytest.mark.parametrize("text", ["", "hello", "[1]", '{"a": 1}', "[" * 100_000])
def test_what_is_not_known_is_not_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    assert file_known_as(path) == ""
    assert file_known_as(tmp_path / "absent.json") == ""


@pytest.mark.parametrize(
    "read",
    [
        read_coco,
        _lines,
        load_image,
        read_points,
        lambda path: read_csv(path, 2, "two columns"),
        lambda path: read_mat(path, "kps", 2),
    ],
)
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "is a pointer of Git LFS"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
    ],
)
def test_what_only_stands_for_a_file_is_named(
    tmp_path: Path, read: Callable[[Path], object], text: str, what: str
) -> None:
    path = tmp_path / "file.png"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"file\.png: {what}, not the file"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_lists_are_read_in_any_encoding_and_with_any_separator(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "list.csv"
    for mark in (",", ";", "\t"):
        path.write_text(f"image{mark}pose\nKätzchen.jpg{mark}left\n", encoding=encoding)
        assert [row for _, row in read_csv(path, 2, "two columns")] == [["Kätzchen.jpg", "left"]]
        assert read_labels(path, ["Kätzchen.jpg"]) == {"Kätzchen.jpg": "left"}


def test_a_long_field_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,note\na.jpg," + "x" * 200_000 + "\n", encoding="utf-8")
    ((_, row),) = read_csv(path, 2, "two columns")
    assert len(row[1]) == 200_000
    name = "n" * 140_000
    path.write_text(f"image,pose\n{name},left\n", encoding="utf-8")
    assert read_labels(path, [name]) == {name: "left"}


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError, match="no file can have a name of such characters"):
        read_text(Path(name), "a text")
