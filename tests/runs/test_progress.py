"""The bars: what is shown, when a bar goes, and when nothing is shown at all."""

from __future__ import annotations

import pytest

from geoaware.runs.progress import advancing, progress_bars, rate, silent


def _shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert not out
    return [line.strip() for line in err.splitlines() if line.strip()]


def test_a_bar_says_what_is_done_and_of_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as tell:
        tell("predicting", 0, 4)
        tell("predicting", 3, 4, "best 61.2")
    [line] = _shown(capsys)
    assert line.startswith("predicting")
    assert "3/4" in line
    assert line.endswith("best 61.2")


def test_the_bars_of_finished_work_go_when_other_work_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as tell:
        tell("looking", 2, 2)
        tell("all [bold]rows", 0, 9)
        tell("extracting", 5, 5)
    lines = _shown(capsys)
    # What is unfinished stays, and a name is no markup.
    assert [line.partition("  ")[0].partition(" ━")[0] for line in lines] == ["all [bold]rows", "extracting"]


def test_work_of_the_same_name_again_has_a_bar_again(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as tell:
        for what in ("looking", "extracting", "looking"):
            tell(what, 7, 7)
        tell("looking", 1, 3)
    [line] = _shown(capsys)
    assert line.startswith("looking")
    assert "1/3" in line


@pytest.mark.parametrize("how", [{"active": False}, {"terminal_only": True}])
def test_nothing_is_shown_by_other_processes_or_without_a_terminal(
    how: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bars(**how) as tell:
        tell("looking", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_work_that_never_begins_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="before"), progress_bars():
        raise ValueError("before it began")
    assert capsys.readouterr() == ("", "")


def test_advances_are_added_up() -> None:
    told: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int, note: str = "", /) -> None:
        told.append((what, done, total))

    advance = advancing(tell, "extracting", 5)
    advance(2)
    advance(3)
    assert told == [("extracting", 0, 5), ("extracting", 2, 5), ("extracting", 5, 5)]
    advancing(tell, "nothing to do", 0)
    assert len(told) == 3
    silent("nobody", 1, 2)


def test_rates_below_one_are_given_as_seconds_for_each() -> None:
    assert [rate(speed) for speed in (None, 0.0, 12.34, 0.25)] == ["", "", "12.3/s", "4.0 s each"]
