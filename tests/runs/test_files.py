"""What killed writers leave behind is found and removed; everything else stays."""

from __future__ import annotations

from pathlib import Path

from geoaware.runs.files import replacing, sweep


def test_drafts_that_were_never_renamed_go(tmp_path: Path) -> None:
    goal = tmp_path / "last" / "config.json"
    with replacing(goal) as draft:
        draft.write_text("whole")
        abandoned = draft.with_name(draft.name.replace("config", "other"))
        abandoned.write_text("half")
    (tmp_path / "part.json").write_text("kept")
    sweep(tmp_path)
    assert sorted(each.name for each in tmp_path.rglob("*") if each.is_file()) == ["config.json", "part.json"]
    assert goal.read_text() == "whole"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    sweep(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
