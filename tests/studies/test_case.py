from __future__ import annotations

from pathlib import Path

from geoaware.evaluation import score_file
from geoaware.evaluation.predictions import record_line
from geoaware.studies.case import Run
from tests.evaluation.records import make_records
from tests.evaluation.test_score import HEADER


def test_ids_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    lines = [dict(each, source=f"a\u2028{number}") for number, each in enumerate(make_records(3))]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(map(record_line, [HEADER, *lines])), encoding="utf-8", newline="\n")
    run = Run("p", path, score_file(path, draws=0))
    assert run.ends[0] == ["a\u20280", "a\u20281", "a\u20282"]
