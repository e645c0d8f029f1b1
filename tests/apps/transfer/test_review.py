from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, transfer
from geoaware.apps.transfer.review import write_review
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import job, matcher, write_sources


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is handed to the gallery."""
    kept: dict[str, Any] = {}

    def fake(entries: Any, out: Path, **about: Any) -> Path:
        kept.update(entries=list(entries), out=out, **about)
        return out

    monkeypatch.setattr("geoaware.apps.transfer.review.write_gallery", fake)
    return kept


def test_every_target_beside_its_best_source(tmp_path: Path, shown: dict[str, Any]) -> None:
    sources, targets = job(tmp_path)
    settings = TransferSettings(threshold=1.0, keep_guesses=True)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", settings).out
    assert out is not None
    assert write_review(out, sources, targets, tmp_path / "r.html") == tmp_path / "r.html"
    entries = shown["entries"]
    assert [each.target.name for each in entries] == ["000.png", "001.png", "003.png", "004.png"]
    assert entries[0].source.name == "s1.png"
    assert entries[2].pose == "flip"
    first = entries[0].matches
    assert [each.name for each in first] == list(sources.schema.names)
    assert first[0].source == (40.0, 40.0)
    assert abs(first[0].predicted[0] - 40) < 9
    assert not any(each.visible for each in first)
    assert shown["about"]["Shown"] == "4 of 4 targets"
    assert str(tmp_path) not in str(shown["about"])


def test_without_guesses_only_the_visible_are_shown(tmp_path: Path, shown: dict[str, Any]) -> None:
    sources, targets = job(tmp_path)
    settings = TransferSettings(threshold=1.0)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", settings).out
    assert out is not None
    write_review(out, sources, targets, tmp_path / "r.html")
    assert [each.matches for each in shown["entries"]] == [()] * 4
    out = transfer(sources, targets, matcher(), tmp_path / "all.json", replace(settings, threshold=0.0)).out
    assert out is not None
    write_review(out, sources, targets, tmp_path / "r.html", most=2)
    assert [each.target.name for each in shown["entries"]] == ["000.png", "003.png"]
    assert all(each.visible for entry in shown["entries"] for each in entry.matches)
    assert shown["about"]["Shown"] == "2 of 4 targets, one in 2"


def test_a_page_is_written(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", TransferSettings(threshold=0.0)).out
    assert out is not None
    page = write_review(out, sources, targets, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "left paw" in page
    assert "004.png" in page


def test_nothing_to_show(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path / "s"))
    (tmp_path / "empty.png").write_bytes(b"")
    targets = list_targets([tmp_path / "empty.png"])
    out = transfer(sources, targets, matcher(), tmp_path / "out.json").out
    assert out is not None
    with pytest.raises(InputError, match="every target failed, so there is nothing to review"):
        write_review(out, sources, targets, tmp_path / "r.html")


def test_a_result_that_does_not_say_how_it_was_calibrated(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json").out
    out.write_text(out.read_text().replace('"calibration"', '"calibrated"'))
    with pytest.raises(InputError, match=r"out.json: is damaged; restart to begin anew"):
        write_review(out, sources, targets, tmp_path / "r.html")
