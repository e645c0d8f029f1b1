from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.report.gallery import Entry, Match, entries, find_images, judge, write_gallery
from geoaware.runs.errors import InputError
from tests.report.gallery.small import EVIL, write_data, write_predictions
from tests.toys import noise


def content(page: str) -> dict[str, Any]:
    """What the page's code reads."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def images(page: str) -> dict[int, Image.Image]:
    found = re.findall(r'<script type="text/plain" id="image-(\d+)">([^<]*)</script>', page)
    return {int(number): Image.open(io.BytesIO(base64.b64decode(text))) for number, text in found}


def entry(folder: Path, name: str = "a--b", **more: Any) -> Entry:
    for each, size in (("a.png", (640, 320)), ("b.png", (50, 100))):
        if not (folder / each).exists():
            noise(*size, len(each)).save(folder / each)
    given = {"category": "cat", "source": folder / "a.png", "target": folder / "b.png", "matches": (), **more}
    return Entry(name, **given)


def test_the_embedded_values(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    runs = [judge(write_predictions(tmp_path / "p.jsonl"))]
    out = write_gallery(
        entries(runs, find_images("coco", root, "val")), tmp_path / "g.html", title="T", about={}, alpha=0.1
    )
    data = content(out.read_text(encoding="utf-8"))
    assert [each["id"] for each in data["pairs"]] == ["mixed", "exact", EVIL, "near"]
    assert data["images"] == [
        {"width": 100, "height": 80},
        {"width": 100, "height": 80},
        {"width": 60, "height": 100},
    ]
    mixed = data["pairs"][0]
    assert (mixed["source"], mixed["target"], mixed["azimuth"]) == (0, 1, 1)
    assert (data["pairs"][1]["source"], data["pairs"][1]["target"]) == (1, 0)
    (run,) = mixed["runs"]
    assert run["pose"] == "identity"
    assert run["all"] == {
        "points": 3, "correct": 1, "pck": 1 / 3, "mean": 0.193333, "worst": 0.38, "lowest": None,
    }  # fmt: skip
    assert run["aware"] == {
        "points": 2, "correct": 1, "pck": 0.5, "mean": 0.215, "worst": 0.38, "lowest": None,
    }  # fmt: skip
    assert run["matches"][1] == {
        "name": "right_ear",
        "kind": "swap_lr",
        "source": [60.0, 20.0],
        "found": [22.0, 20.0],
        "truth": [60.0, 20.0],
        "error": 0.38,
        "aware": True,
        "types": ["swap", "swap_lr"],
    }


def test_each_image_is_embedded_once_and_reduced(tmp_path: Path) -> None:
    made = [entry(tmp_path, "1"), entry(tmp_path, "2"), entry(tmp_path, "3", source=None)]
    page = write_gallery(made, tmp_path / "g.html", title="T", about={}, size=160).read_text(encoding="utf-8")
    assert {number: each.size for number, each in images(page).items()} == {0: (160, 80), 1: (50, 100)}
    assert all(each.format == "JPEG" for each in images(page).values())
    data = content(page)
    assert data["images"] == [{"width": 640, "height": 320}, {"width": 50, "height": 100}]
    assert [each["source"] for each in data["pairs"]] == [0, 0, None]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    out = write_gallery([entry(tmp_path)], tmp_path / "g.html", title=EVIL, about={EVIL: EVIL})
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"https?:|(?:src|href)=|url\(|@import|<link", page.replace("src=x", ""))
    assert "default-src 'none'" in page
    assert "unsafe" not in page
    assert EVIL not in page
    assert str(tmp_path) not in page


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = (
        write_gallery([entry(tmp_path)], tmp_path / name, title="T", about={"a": "b"}).read_bytes()
        for name in ("1.html", "2.html")
    )
    assert first == second


def test_a_image_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    made = [entry(tmp_path, source=broken)]
    page = write_gallery(made, tmp_path / "g.html", title="T", about={}).read_text(encoding="utf-8")
    assert content(page)["images"][0] == {"why": "not an image that can be read; convert it to JPEG or PNG"}
    assert str(tmp_path) not in page
    assert "1 images cannot be read" in caplog.text
    with pytest.raises(InputError, match=r"broken\.jpg: not an image"):
        write_gallery(made, tmp_path / "strict.html", title="T", about={}, strict=True)
    assert not (tmp_path / "strict.html").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Entry]:
        yield entry(tmp_path)
        raise KeyboardInterrupt

    out = tmp_path / "g.html"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        write_gallery(failing(), out, title="T", about={})
    assert out.read_text(encoding="utf-8") == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.png", "b.png", "g.html"]


def test_entries_of_a_review(tmp_path: Path) -> None:
    matches = (
        Match("nose", 2, (1.0, 2.0), (3.004, 4.0), confidence=0.25),
        Match("tail", 5, (9.0, 9.0), None, confidence=0.75, visible=False),
    )
    done = []
    out = write_gallery(
        [entry(tmp_path, matches=matches, note="look twice")],
        tmp_path / "g.html", title="T", about={}, progress=done.append,
    )  # fmt: skip
    (pair,) = content(out.read_text(encoding="utf-8"))["pairs"]
    assert done == [1]
    assert pair["note"] == "look twice"
    assert pair["runs"][0]["all"] == {
        "points": 0, "correct": 0, "pck": None, "mean": None, "worst": None, "lowest": 0.25,
    }  # fmt: skip
    assert pair["runs"][0]["matches"] == [
        {"name": "nose", "kind": "unjudged", "source": [1.0, 2.0], "found": [3.0, 4.0], "confidence": 0.25},
        {"name": "tail", "kind": "unjudged", "source": [9.0, 9.0], "confidence": 0.75, "hidden": True},
    ]


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    out = tmp_path / "g.html"
    for made, size, message in (
        ([], 320, "there are no pairs to show"),
        ([entry(tmp_path), entry(tmp_path)], 320, "two pairs have the id 'a--b'"),
        ([entry(tmp_path)], 0, "images of 0 pixels cannot be shown"),
    ):
        with pytest.raises(InputError, match=message):
            write_gallery(made, out, title="T", about={}, size=size)
    assert not out.exists()
    with pytest.raises(InputError, match="no kind 'good'; known: correct, jitter"):
        Match("nose", 0, None, None, kind="good")
    with pytest.raises(InputError, match="keypoint nose: a number is not finite"):
        Match("nose", 0, (float("nan"), 0.0), None)
