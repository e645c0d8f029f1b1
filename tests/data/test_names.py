from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from geoaware.data.names import FileNames, Names, alike, printable
from geoaware.runs.errors import InputError


@pytest.mark.parametrize(
    ("name", "found", "rule"),
    [
        ("a.jpg", "a.jpg", None),
        ("./a.jpg", "a.jpg", None),
        ("A.JPG", "a.jpg", "capitals"),
        ("in\\b c.png", "in/b c.png", "backslashes"),
        ("in/b%20c.png", "in/b c.png", "%20"),
        ("/home/ann/photos/in/b c.png", "in/b c.png", "folders of another place"),
        ("C:\\photos\\IN\\b c.png", "in/b c.png", "folders of another place and capitals"),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png"), "accents"),
        ("gone.jpg", "gone.jpg", None),
        ("x" * 300 + ".jpg", "x" * 300 + ".jpg", None),
        ("\ud800.jpg", "\ud800.jpg", None),
    ],
)
def test_a_file_is_found_by_its_name_as_others_spell_it(
    tmp_path: Path, name: str, found: str, rule: str | None
) -> None:
    (tmp_path / "in").mkdir()
    for each in ("a.jpg", "in/b c.png", unicodedata.normalize("NFC", "é.png")):
        (tmp_path / each).touch()
    names = FileNames(tmp_path)
    assert names.path(name) == tmp_path / found
    notes = names.notes()
    assert not notes if rule is None else f"({rule}): 1, such as {name!r} is {found!r}" in notes[0]


def test_a_name_that_could_be_two_files_is_not_found(tmp_path: Path) -> None:
    for each in ("A.jpg", "a.JPG"):
        (tmp_path / each).touch()
    assert FileNames(tmp_path).find("a.jpg") is None


def test_two_names_of_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    names = FileNames(tmp_path)
    assert names.find("left/a.jpg") == "a.jpg"
    with pytest.raises(InputError, match=r"both lead to a\.jpg"):
        names.find("right/a.jpg")


def test_known_names_are_found_likewise() -> None:
    names = Names(["cats/a.jpg", "b.jpg"])
    assert [names.find(each) for each in ("cats\\a.jpg", "B.jpg", "c.jpg")] == ["cats/a.jpg", "b.jpg", None]


def test_bytes_that_are_no_text_can_be_shown() -> None:
    assert printable("caf\udce9.jpg") == "caf\\udce9.jpg"


@pytest.mark.parametrize("name", ["A.PNG", "a.png", "IN/a.png", "in%2Fa.png", "in\\a.png", "x/in/a.png"])
def test_what_a_missing_path_may_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "A.png").touch()
    monkeypatch.chdir(tmp_path)
    meant = Path("in/a.png" if "in" in name.lower() else "A.png")
    assert alike(Path(name)) == f"; {meant} is there"
    if not name.startswith("x"):
        assert alike(tmp_path / name) == f"; {tmp_path / meant} is there"
    assert alike(tmp_path / "b.png") == alike(Path("b.png")) == ""


def test_names_that_mean_the_same_are_refused_with_their_file() -> None:
    names = Names(["a.jpg"], "list.csv")
    names.find("a.jpg")
    with pytest.raises(InputError, match=r"^list\.csv: the names 'a\.jpg' and 'A\.jpg' both lead to a\.jpg"):
        names.find("A.jpg")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file in it can be called 'a\\x00\.png'; mend the name"):
        FileNames(tmp_path).path("a\0.png")
