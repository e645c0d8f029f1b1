from __future__ import annotations

import json

import numpy as np
import pytest

from geoaware.runs.errors import InputError
from geoaware.studies.ablation_table import ROWS, Ablation, SetFigures, compare, to_json, trained_rows
from geoaware.studies.metrics import METRICS
from tests.studies.made import cells


def ablation() -> Ablation:
    """Two rows on ten pairs: everything right with the whole method, half of it without the dense loss."""
    ids = [f"p{each}" for each in range(10)]
    ones = np.ones((2, 10, len(METRICS)))
    figures = compare({"full": ones, "without dense": ones / 2}, ids, ids[::-1])
    return Ablation(ROWS[:2], (0, 1), (SetFigures("cats val", "paper", 10, 10, figures),))


def test_what_the_ablation_prints_can_be_read(tmp_path):
    path = tmp_path / "ablation.json"
    path.write_text(to_json(ablation()), encoding="utf-8")
    outcome = trained_rows(path)
    ours, paper = outcome.grids
    assert ours.title == "cats val: 10 pairs, protocol paper, in per cent"
    assert cells(ours, "full")[0] == "100.0"
    # PCK is worse without the dense loss; fewer mistakes of a kind count as better.
    assert cells(ours, "without dense")[0] == "50.0 ▼"
    assert cells(ours, "without dense")[5] == "50.0 ▲"
    assert cells(paper, "paper, SPair-71k: supervised")[:2] == ["72.6", "82.9"]
    assert "without dense, by PCK@0.10: worse than full on cats val" in outcome.finding


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"rows": [], "seeds": 3, "sets": []})])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"other.json: is not the JSON of an ablation"):
        trained_rows(path)
    with pytest.raises(InputError, match=r"absent.json: cannot be read \(No such file"):
        trained_rows(tmp_path / "absent.json")
