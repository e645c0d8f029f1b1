from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.runs.files import check_apart, check_goals, check_own, discard, replacing, sweep
from geoaware.runs.places import absolute, common_folder, is_remote, place, real


@pytest.fixture
def folder() -> Path:
    return place(f"memory://{uuid.uuid4().hex}/in")


def test_a_url_keeps_its_slashes_and_a_path_stays_what_it_is(tmp_path: Path) -> None:
    assert str(place("s3://b/x//y/z.json")) == "s3://b/x/y/z.json"
    assert str(place("S3://Bucket/Key")) == "s3://Bucket/Key"
    for local in ("x/y", "/a", "C:/x", "c://x", str(tmp_path), "x/s3://b", "~"):
        assert place(local) == Path(local)
        assert type(place(local)) is type(Path())
    assert place("file:///a/b") == Path("/a/b")
    assert place(tmp_path) is tmp_path


def test_a_url_is_a_path(folder: Path) -> None:
    path = folder / "a" / "b.tar.json"
    assert isinstance(path, Path)
    assert is_remote(path)
    assert not is_remote(Path("s3:/b"))
    assert (path.name, path.stem, path.suffix) == ("b.tar.json", "b.tar", ".json")
    assert str(path.with_name("c")) == f"{folder}/a/c"
    assert str(path.parent.parent) == str(folder)
    assert os.fspath(path) == str(path) == path.as_posix()
    assert path.relative_to(folder) == Path("a/b.tar.json")
    assert not is_remote(path.relative_to(folder))
    assert pickle.loads(pickle.dumps(path)) == path == place(str(path))
    assert is_remote(pickle.loads(pickle.dumps(path)))
    assert {path: 1}[place(str(path))] == 1
    assert absolute(path) is path.absolute() is path.resolve() is path
    assert real(path) == str(path)


def test_joining_takes_the_last_one_that_stands_alone(folder: Path) -> None:
    assert Path("here") / folder == folder
    assert folder / place("s3://b/x") == place("s3://b/x")
    assert folder / "/etc/x" == Path("/etc/x")
    assert not is_remote(folder / "/etc/x")
    assert str(folder / Path("x/y")) == f"{folder}/x/y"


def test_what_is_written_is_there(folder: Path) -> None:
    path = folder / "a" / "b.txt"
    assert not path.exists()
    assert not folder.is_dir()
    path.write_bytes(b"one\r\ntwo\n")
    (folder / "c.png").write_bytes(b"123")
    (folder / "a" / "d" / "e.png").write_bytes(b"4")
    assert path.exists()
    assert path.is_file()
    assert not path.is_dir()
    assert folder.is_dir()
    assert not folder.is_file()
    assert path.read_bytes() == b"one\r\ntwo\n"
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_size == 9
    with path.open("rb") as file:
        assert list(file) == [b"one\r\n", b"two\n"]
    with path.open(encoding="utf-8") as text:
        assert text.readline() == "one\n"
    assert list(folder.iterdir()) == [folder / "a", folder / "c.png"]
    assert list(folder.rglob("*.png")) == [folder / "a/d/e.png", folder / "c.png"]
    assert list(folder.glob("*/*.txt")) == [path]
    path.unlink()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError) as caught:
        path.unlink()
    assert caught.value.filename == str(path)


def test_what_is_not_there_is_named(folder: Path) -> None:
    for read in (Path.read_bytes, Path.open, Path.stat, lambda path: list(path.iterdir())):
        with pytest.raises(FileNotFoundError) as caught:
            read(folder / "nothing")
        assert caught.value.filename == f"{folder}/nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sftp://me:secret@host/x", r"^sftp://…: a URL may hold no password; give it to the protocol's"),
        ("zip://a.png::s3://b/x.zip", "is a URL in a URL; unpack the file"),
        ("nonsense://b/x", "^nonsense://b/x: Protocol not known: nonsense; is this URL right"),
    ],
)
def test_urls_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        place(text).exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match=r"^gs://b/x: Please install gcsfs to access"):
        place("gs://b/x").read_bytes()


def test_the_common_folder(folder: Path) -> None:
    assert common_folder([folder / "a" / "b", folder / "a" / "c", folder / "a"]) == folder / "a"
    assert common_folder([folder]) == folder
    assert common_folder([Path("/a/b"), Path("/a/c/d")]) == Path("/a")
    for other in (Path("/a"), place("s3://b/in")):
        with pytest.raises(InputError, match="are in no common folder"):
            common_folder([folder, other])


def test_a_result_is_put_whole_or_not_at_all(folder: Path) -> None:
    path = folder / "out.csv"
    with replacing(path) as draft:
        assert not is_remote(draft)
        assert draft.suffix == ".csv"
        draft.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert list(folder.iterdir()) == [path]
    assert not draft.exists()


def test_goals_are_checked_and_nothing_stays(folder: Path) -> None:
    (folder / "x").write_bytes(b"1")
    check_goals(folder / "out.json")
    assert list(folder.iterdir()) == [folder / "x"]
    with pytest.raises(InputError, match=f"^{folder}: is a folder"):
        check_goals(folder)
    with pytest.raises(InputError, match="is what is read from"):
        check_apart([folder / "x"], [place(f"{folder}//x")])
    with pytest.raises(InputError, match="exists and was not written by geoaware"):
        check_own(folder / "x", "{")
    assert sweep(folder) == 0
    discard(folder / "x")
    discard(folder / "x")
    assert not folder.exists()


def test_without_a_url_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom geoaware.runs.files import replacing\n"
        f"with replacing({str(tmp_path / 'a')!r}) as draft: draft.touch()\nprint('fsspec' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
