"""Images and names at URLs, in fsspec's memory."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.data.files import read_json, read_lines, read_text
from geoaware.data.images import find_images, image_size, list_images, load_image, load_mask
from geoaware.data.names import FileNames, alike, missing_files
from geoaware.runs.errors import InputError
from geoaware.runs.places import Remote, place
from tests.toys import noise


@pytest.fixture
def folder() -> Path:
    return place(f"memory://{uuid.uuid4().hex}/photos")


def put(path: Path, **options: Any) -> Path:
    file = io.BytesIO()
    noise(40, 30, 1).save(file, format="png", **options)
    path.write_bytes(file.getvalue())
    return path


def test_an_image_is_what_it_is_on_this_machine(folder: Path, tmp_path: Path) -> None:
    noise(40, 30, 1).save(tmp_path / "a.png")
    path = put(folder / "a.png")
    assert np.array_equal(load_image(path), load_image(tmp_path / "a.png"))
    assert np.array_equal(load_image(str(path)), load_image(tmp_path / "a.png"))  # a URL as text
    assert image_size(path) == (40, 30)
    file = io.BytesIO()
    Image.fromarray(np.eye(30, dtype=np.uint8) * 255).save(file, format="png")
    (folder / "mask.png").write_bytes(file.getvalue())
    assert load_mask(folder / "mask.png").sum() == 30


def test_what_is_no_image_is_named(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=f"^{folder}/a.png: not an image that can be read"):
        load_image(folder / "a.png")
    (folder / "a.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"^{folder}/a.png: is a web page"):
        load_image(folder / "a.png")
    (folder / "a.png").write_bytes(put(folder / "b.png").read_bytes()[:200])
    with pytest.raises(InputError, match=f"^{folder}/a.png: damaged or unreadable image"):
        load_image(folder / "a.png")
    with pytest.raises(InputError, match=f"^{folder}/c.png: no such file$"):
        load_image(folder / "c.png")


def test_a_folder_is_listed(folder: Path) -> None:
    for name in ("b.png", "a.png", "in/c.png", "._d.png", "e.svg", "f.txt", "g.png/h.txt"):
        put(folder / name)
    assert list_images(folder) == [folder / "a.png", folder / "b.png"]
    assert list_images(str(folder), recursive=True) == [
        folder / each for each in ("a.png", "b.png", "in/c.png")
    ]
    assert find_images(folder)[1].startswith("1 .svg files")
    with pytest.raises(InputError, match=f"^{folder}/none: no such folder"):
        list_images(folder / "none")


def test_texts_are_read(folder: Path) -> None:
    (folder / "a.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n1}')
    assert read_text(folder / "a.json", "x") == '{"a":\n1}'
    assert read_lines(folder / "a.json", "x")[1] == (f"{folder}/a.json, line 2", "1}")
    (folder / "a.json").write_bytes(b'{"a": 1')
    with pytest.raises(InputError, match=f"^{folder}/a.json: damaged, no valid JSON"):
        read_json(folder / "a.json", "x")
    with pytest.raises(InputError, match=f"^{folder}/b.json: no such file; expected x$"):
        read_json(folder / "b.json", "x")
    assert (
        alike(place("memory://nowhere/a.json")) == "; there is no memory://nowhere, or it may not be listed"
    )


def test_many_names_are_looked_up_in_a_listing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{each:03}.png" for each in range(80)]
    for each in names:
        (folder / each).write_bytes(b"")
    (folder / "in" / "Other.png").write_bytes(b"")
    asked, ask = list[str](), Remote.is_file

    def counted(path: Remote) -> bool:
        asked.append(path.name)
        return ask(path)

    monkeypatch.setattr(Remote, "is_file", counted)
    known = FileNames(folder)
    assert [known.path(each) for each in names] == [folder / each for each in names]
    assert len(asked) == 50
    assert known.find("080.png") is None
    assert known.path("in\\other.PNG") == folder / "in" / "Other.png"
    assert missing_files([folder / each for each in (*names, "x.png")]) == [folder / "x.png"]
    assert len(asked) < 110
