from __future__ import annotations

import math

import pytest

from geoaware.studies import subsets
from geoaware.studies.variants import POST_PROCESSOR, Variant
from tests.studies.made import case, cells, pair, pairs_of, run

GOOD, BAD = 0.0, 50.0


def two_categories() -> list[dict]:
    # Cat, at 0.1: all keypoints (1 + 1/2) / 2 = 75 %, geometry-aware (1 + 0) / 2 = 50 %. Dog: 100 %, none.
    return [
        pair(0, [(GOOD, True), (GOOD, False)]),
        pair(1, [(BAD, True), (GOOD, False)]),
        pair(2, [(GOOD, False)], "dog"),
    ]


def test_fig4_by_hand(tmp_path):
    better = [pair(0, [(GOOD, True), (GOOD, False)]), *two_categories()[:0]]
    better += [pair(1, [(GOOD, True), (BAD, False)]), pair(2, [(GOOD, False)], "dog")]
    runs = {
        Variant(): run(tmp_path, "zero-shot", two_categories()),
        Variant(POST_PROCESSOR): run(tmp_path, "post-processor", better),
    }
    outcome = subsets.fig4(case(runs))
    (grid,) = outcome.grids
    assert grid.columns == ("category", "zero-shot", "geo.", "gap", "post-processor", "geo.", "gap")
    assert cells(grid, "cat") == ["75.0", "50.0", "33.3", "75.0", "100.0", "-33.3"]
    assert cells(grid, "dog") == ["100.0", "–", "–", "100.0", "–", "–"]
    assert cells(grid, "category mean") == ["87.5", "50.0", "42.9", "87.5", "100.0", "-14.3"]
    # Over all pairs: (1 + 1/2 + 1) / 3 against 1/2, so a gap of 0.4; then 5/6 against 1.
    assert outcome.finding == "Zero-shot: relative gap 40.0 %; post-processor: relative gap -20.0 %."
    assert outcome.figures["categories"]["cat"]["zero-shot"] == [0.75, 0.5]
    assert outcome.figures["categories"]["dog"]["zero-shot"] == [1.0, None]
    assert [each.name for each in outcome.predictions] == ["zero-shot.jsonl", "post-processor.jsonl"]


def test_fig4_counts_categories(tmp_path):
    records = [*two_categories()[:2], pair(3, [(GOOD, True), (BAD, False)], "dog")]
    outcome = subsets.fig4(case({Variant(): run(tmp_path, "zero-shot", records)}))
    assert outcome.finding.endswith("geometry-aware below all keypoints in 1 of 2 categories.")


def test_fig5_by_hand(tmp_path):
    # Same viewpoint: both found; a step apart: only the other one. All: (1 - 1/2) / 1; aware: (1 - 0) / 1.
    records = [
        pair(0, [(GOOD, True), (GOOD, False)], azimuth=0),
        pair(1, [(BAD, True), (GOOD, False)], azimuth=1),
        pair(2, [(GOOD, True)], "tv", azimuth=0),
    ]
    outcome = subsets.fig5(case({Variant(): run(tmp_path, "zero-shot", records)}))
    sensitivity, by_azimuth = outcome.grids
    assert sensitivity.rows == (("cat", "50.0", "100.0"),)  # tv has one azimuth difference only
    assert by_azimuth.columns == ("subject", "0°", "45°")
    assert by_azimuth.rows == (
        ("pairs", "2", "1"),
        ("zero-shot", "100.0", "50.0"),
        ("zero-shot, geo.", "100.0", "0.0"),
    )
    assert outcome.finding == (
        "Zero-shot: mean sensitivity 50.0 % on all keypoints and 100.0 % on the geometry-aware, on which "
        "it is higher in 1 of 1 category."
    )
    assert list(outcome.plots) == ["fig5"]


def test_fig5_of_one_difference_has_no_plot(tmp_path):
    records = [pair(0, [(GOOD, True)], azimuth=2), pair(1, [(BAD, True)], azimuth=2)]
    outcome = subsets.fig5(case({Variant(): run(tmp_path, "zero-shot", records)}))
    assert outcome.plots == {}
    assert outcome.grids[0].rows == ()
    assert "mean sensitivity – %" in outcome.finding


def test_fig15_by_hand(tmp_path):
    outcome = subsets.fig15(case({Variant(): run(tmp_path, "zero-shot", two_categories())}))
    (grid,) = outcome.grids
    assert cells(grid, "cat") == ["2", "4", "100.0", "50.0"]
    assert cells(grid, "dog") == ["1", "1", "0.0", "0.0"]
    assert cells(grid, "all") == ["3", "5", "66.7", "40.0"]
    assert cells(grid, "paper, SPair-71k test: all") == ["–", "–", "82.4", "59.6"]
    assert outcome.finding.startswith("66.7 % of the pairs and 40.0 % of the keypoints are geometry-aware")


def test_dumbbells_draw_what_the_table_says(tmp_path):
    outcome = subsets.fig4(case({Variant(): run(tmp_path, "zero-shot", two_categories())}))
    axes = outcome.plots["fig4"].axes[0]
    lines = [list(line.get_xdata()) for line in axes.lines]
    assert [75.0, 50.0] in lines
    assert [each.get_text() for each in axes.get_yticklabels()] == ["cat", "dog", "category mean"]
    assert any(math.isnan(value) for line in lines for value in line)


def test_nothing_found_at_all(tmp_path):
    outcome = subsets.fig4(case({Variant(): run(tmp_path, "zero-shot", pairs_of(BAD, BAD))}))
    assert cells(outcome.grids[0], "cat") == ["0.0", "0.0", "–"]
    assert outcome.finding == "Zero-shot: relative gap – %."


@pytest.mark.parametrize("function", [subsets.fig4, subsets.fig5, subsets.fig15])
def test_figures_are_plain(tmp_path, function):
    import json

    records = [pair(0, [(GOOD, True)], azimuth=0), pair(1, [(BAD, True)], azimuth=3)]
    outcome = function(case({Variant(): run(tmp_path, "zero-shot", records)}))
    assert json.loads(json.dumps(outcome.figures, allow_nan=False)) == outcome.figures
