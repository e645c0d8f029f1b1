"""What is left of long work: sums that were worked out by hand, and rates that a run notes."""

from __future__ import annotations

import json

import pytest

from geoaware.evaluation.tables import MISSING
from geoaware.runs.errors import InputError
from geoaware.store.stored_file import encoded_size
from geoaware.studies.costs import (
    SHIPPED,
    Rates,
    Work,
    duration,
    kind_of,
    load_rates,
    note_rate,
    plan_grid,
)
from geoaware.studies.planned import map_shapes
from geoaware.studies.steps import Step, carry_out
from geoaware.studies.variants import ALONE, POST_PROCESSOR, ZERO_SHOT

RATES = Rates(
    source="a machine",
    seconds={"extract": 2.0, "step": 0.5, "zero-shot, pose off": 0.1},
    memory={"extract": 4_000_000_000, "step": 1_000_000_000, "zero-shot": 500_000_000},
)


def steps(run=lambda: None):
    """Half-done extraction, a run, and predictions that cannot be counted yet."""
    return [
        Step("data", run, 1),
        Step("features", run, 10, 40, "files", Work({"extract": 30}, disk=30 * 13_000_000)),
        Step(
            "training",
            run,
            0,
            100,
            "steps",
            Work({"step": 100, "zero-shot, pose off": 200}, 80_000_000, 3_500_000_000),
        ),
        Step("predictions", run, 0, left=Work(None, 1_000_000)),
        Step("by hand", run, 0, missing="bring it"),
    ]


def test_sums_of_a_plan():
    grid = plan_grid([each.line for each in steps()], RATES, "note")
    # 30 files of 2 s; 100 steps of 0.5 s and 200 pairs of 0.1 s; the longest memory is 1 + 3.5 GB.
    assert grid.rows == (
        ("1 data", "done", MISSING, MISSING, MISSING),
        ("2 features", "10 of 40 files", "390.0 MB", "1.0 min", "4.0 GB"),
        ("3 training", "0 of 100 steps", "80.0 MB", "1.2 min", "4.5 GB"),
        ("4 predictions", "to do", "1.0 MB", MISSING, MISSING),
        ("5 by hand", "missing", MISSING, MISSING, MISSING),
        ("all that is left", "", "471.0 MB", "2.2 min", "4.5 GB"),
    )


def test_what_was_not_measured_is_not_guessed():
    assert Work({"build": 3}).seconds(RATES) is None
    assert Work({}).seconds(RATES) == 0
    assert Work({"zero-shot, pose off": 0}).peak(RATES) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, MISSING),
        (0.0, MISSING),
        (5.04, "5.0 s"),
        (90, "1.5 min"),
        (9000, "2.5 h"),
        (216_000, "2.5 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_kinds():
    assert kind_of(ZERO_SHOT, "off", True) == "zero-shot, pose off"
    assert kind_of(POST_PROCESSOR, "default") == "post-processor, pose chosen"
    assert kind_of(ALONE, "imd", True) == "post-processor, pose known"


def test_a_run_notes_what_its_steps_took(tmp_path):
    before = load_rates(tmp_path)
    note_rate(tmp_path, "extract", 2, 10.0)
    note_rate(tmp_path, "extract", 3, 5.0)
    found = load_rates(tmp_path)
    assert found.seconds == {**before.seconds, "extract": 3.0}  # 15 s for 5 units
    assert found.memory == before.memory
    assert found.source == f"{before.source}; of extract: this run"


def test_a_damaged_file_of_rates(tmp_path):
    (tmp_path / "rates.json").write_text('{"seconds": {"extract": "fast"}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"rates.json: is not a file of rates"):
        load_rates(tmp_path)


def test_shipped_rates_are_of_the_papers_features():
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    assert shipped["size"]["feature file"] == encoded_size(map_shapes({}), "fp16")
    kinds = {kind_of(subject, pose, again) for subject in (ZERO_SHOT, POST_PROCESSOR)
             for pose, again in (("off", False), ("imd", False), ("imd", True))}  # fmt: skip
    assert set(shipped["seconds"]) == {"extract", "step", "build", *kinds}
    assert all(value > 0 for value in shipped["seconds"].values())
    assert shipped["source"]


def test_the_first_step_that_is_not_done_is_done_then_all_is_looked_at_again():
    done, said = list[str](), list[str]()

    def plan():
        # The second step is only known when the first one is done.
        names = ["a", "b"] if "a" in done else ["a"]
        return [Step(name, lambda name=name: done.append(name), int(name in done)) for name in names]

    carry_out(plan, RATES, said.append)
    assert done == ["a", "b"]
    assert said[0] == f"step 1 of 1: a (expected: {MISSING})"


def test_a_step_that_never_ends():
    with pytest.raises(InputError, match="a: ended, and is not done"):
        carry_out(lambda: [Step("a", lambda: None, 0)], RATES, lambda _: None)


def test_what_is_missing_stops_the_work_before_it():
    with pytest.raises(InputError, match="bring it"):
        carry_out(lambda: steps()[4:], RATES, lambda _: None)
