"""Tables 2 to 5, 9, 12 and 13 on made-up predictions."""

from __future__ import annotations

import pytest

from geoaware.studies import error_types, overview, strategies
from geoaware.studies.ablation_table import ROWS
from geoaware.studies.case import Case, Run
from geoaware.studies.paper import TABLE_9, TABLE_12
from geoaware.studies.variants import ALONE, POST_PROCESSOR, WHOLE, Variant
from tests.studies.made import case, cells, pair, pairs_of, run

GOOD, NEAR, BAD = 0.0, 8.0, 50.0


def subjects(tmp_path, **records):
    """Zero-shot, the post-processor and it alone, each as matched by default."""
    names = {"zero": Variant(), "post": Variant(POST_PROCESSOR), "alone": Variant(ALONE)}
    return {names[key]: run(tmp_path, key, value) for key, value in records.items()}


def test_table2_by_hand(tmp_path):
    zero = [
        pair(0, [(GOOD, True), (BAD, True)]),
        pair(1, [(BAD, True)], "dog"),
        pair(2, [(GOOD, True)], "dog"),
    ]
    post = [pair(0, [(GOOD, True), (GOOD, True)]), *zero[1:]]
    outcome = overview.table2(case(subjects(tmp_path, zero=zero, post=post)))
    (grid,) = outcome.grids
    assert grid.columns == ("method", "cat", "dog", "all")
    assert cells(grid, "zero-shot, per point") == ["50.0", "50.0", "50.0"]
    assert cells(grid, "zero-shot, per image") == ["50.0", "50.0", "50.0"]
    assert cells(grid, "post-processor, per image") == ["100.0", "50.0", "66.7"]
    assert cells(grid, "paper, SPair-71k: supervised, per image") == ["–", "–", "82.9"]
    assert outcome.finding == "Post-processor is above zero-shot in 1 of 2 categories."


def test_table3_and_table4_by_hand(tmp_path):
    # Twenty pairs of images of their own, all lost, then all found: a clear difference.
    zero, post = (pairs_of(*[each] * 20) for each in (BAD, NEAR))
    runs = subjects(tmp_path, zero=zero, post=post, alone=zero)
    other = Case("second", "Second", subjects(tmp_path / "second", zero=pairs_of(GOOD, BAD)))
    for function in (overview.table3, overview.table4):
        outcome = function(case(runs), other)
        (grid,) = outcome.grids
        assert grid.columns[2:] == ("0.01", "0.05", "0.1", "95 % CI at 0.1", "gap at 0.1")
        assert cells(grid, "Made up: zero-shot") == ["per image", "0.0", "0.0", "0.0", "0.0 to 0.0", "–"]
        post_row = cells(grid, "Made up: post-processor")
        assert post_row == ["per image", "0.0", "0.0", "100.0", "100.0 to 100.0", "0.0"]
        assert cells(grid, "Second: zero-shot")[1:4] == ["50.0", "50.0", "50.0"]
        assert outcome.finding == (
            "Made up: At 0.1, against zero-shot: post-processor higher (+100.0 points, 95 % +100.0 to "
            "+100.0); post-processor alone the same."
        )
        assert len(outcome.predictions) == 4
    assert cells(grid, "paper, SPair-71k: supervised") == ["per image", "–", "–", "–", "–", "3.9"]
    assert cells(grid, "paper, SPair-71k: zero-shot, window 11, pose")[1:4] == ["6.9", "39.5", "56.8"]


def test_table3_has_a_column_for_every_alpha(tmp_path):
    made = run(tmp_path, "zero", pairs_of(GOOD))
    path = made.path
    path.write_text(path.read_text(encoding="utf-8").replace('"paper"', '"pf-willow"'), encoding="utf-8")
    from geoaware.evaluation import score_file

    willow = Case("willow", "Willow", {Variant(): Run("zero", path, score_file(path))})
    grid = overview.table3(case({Variant(): run(tmp_path / "b", "zero", pairs_of(GOOD))}), willow).grids[0]
    assert grid.columns[2:6] == ("0.01", "0.05", "0.1", "0.15")
    assert cells(grid, "Willow: zero-shot")[1:5] == ["–", "100.0", "100.0", "100.0"]
    assert cells(grid, "Made up: zero-shot")[1:5] == ["100.0", "100.0", "100.0", "–"]


def test_table5_names_its_rows_and_compares_the_steps(tmp_path):
    made = {
        Variant(window=1, pose="off"): [BAD] * 20,
        Variant(pose="off"): [GOOD] * 20,
        Variant(): [GOOD] * 19 + [BAD],
    }
    runs = {each: run(tmp_path, str(n), pairs_of(*off)) for n, (each, off) in enumerate(made.items())}
    outcome = overview.table5(case(runs))
    (grid,) = outcome.grids
    assert [row[0] for row in grid.rows[:3]] == [
        "plain features, argmax",
        "plain features, window",
        "plain features, window, pose",
    ]
    assert cells(grid, "plain features, window, pose")[:3] == ["95.0"] * 3
    axes = outcome.plots[""].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [row[0] for row in grid.rows[:3]]
    # Of a row a line, then an open and a filled mark; the last row's filled mark is its PCK of all keypoints.
    assert axes.lines[8].get_xdata()[0] == pytest.approx(95.0)
    first, second = outcome.finding.split("; ")
    assert first.startswith("At 0.1, plain features, window against plain features, argmax: higher (+100.0")
    assert second.startswith(
        "plain features, window, pose against plain features, window: no clear difference"
    )


def test_table9_by_hand(tmp_path):
    # The first is found, the second hits its partner; the third is between 10 and 20 off; the last lost.
    zero = [pair(n, [(GOOD, True), ("swap", True), (15.0, False), (BAD, False)]) for n in range(20)]
    post = [pair(n, [(GOOD, True), (GOOD, True), (15.0, False), (BAD, False)]) for n in range(20)]
    # With four keypoints the neighbour of 1 is 2: no mirror partner. Of two, it is.
    two = [pair(n, [(GOOD, True), ("swap", True)]) for n in range(20)]
    outcome = error_types.table9(case(subjects(tmp_path, zero=zero, post=post, alone=two)))
    standard, aware = outcome.grids
    assert standard.columns[:6] == ("method", "jitter", "miss", "swap", "swap LR", "PCK†")
    assert cells(standard, "zero-shot")[:5] == ["25.0", "50.0", "25.0", "0.0", "25.0"]
    assert cells(standard, "post-processor")[:5] == ["25.0", "50.0", "0.0", "0.0", "50.0"]
    assert cells(standard, "post-processor alone")[:5] == ["0.0", "0.0", "50.0", "50.0", "50.0"]
    assert cells(aware, "zero-shot")[:5] == ["0.0", "0.0", "50.0", "0.0", "50.0"]
    assert cells(standard, "paper, SPair-71k: supervised") == [
        *("6.9", "9.3", "12.0", "7.0", "78.7"),
        *("21.6", "72.6", "82.9"),
    ]
    assert outcome.finding.startswith(
        "Post-processor against zero-shot: PCK† higher (+25.0 points, 95 % +25.0 to +25.0), swap lower "
        "(-25.0 points, 95 % -25.0 to -25.0), no clear difference in miss, swap LR and jitter; "
        "post-processor alone"
    )
    assert outcome.figures["rows"][0]["errors"]["standard"]["miss"] == 0.5


def test_table9_of_one_subject_names_its_largest(tmp_path):
    outcome = error_types.table9(case(subjects(tmp_path, zero=pairs_of(BAD, BAD, GOOD, GOOD))))
    assert outcome.finding == "Most wrong matches are a miss (50.0 % of all keypoints)."


def strategies_case(tmp_path) -> Case:
    made = {(1, "off"): BAD, (WHOLE, "off"): BAD, (3, "off"): BAD, (5, "off"): BAD, (None, "off"): NEAR}
    made |= {(1, "default"): BAD, (WHOLE, "default"): BAD, (3, "default"): GOOD, (5, "default"): GOOD}
    made[None, "default"] = GOOD
    return case(
        {
            Variant(window=window, pose=pose): run(
                tmp_path,
                f"{window}{pose}",
                pairs_of(*[off] * 20),
                pose="flip" if pose == "default" else "off",
            )
            for (window, pose), off in made.items()
        }
    )


def test_table12_by_hand(tmp_path):
    outcome = strategies.table12(strategies_case(tmp_path))
    (grid,) = outcome.grids
    assert [row[0] for row in grid.rows[:10]] == [
        *("argmax", "soft-argmax", "window 3", "window 5", "window 9 (default)"),
        *(
            "argmax, pose",
            "soft-argmax, pose",
            "window 3, pose",
            "window 5, pose",
            "window 9 (default), pose",
        ),
    ]
    assert cells(grid, "window 9 (default)")[:4] == ["0.0", "0.0", "100.0", "100.0 to 100.0"]
    assert cells(grid, "window 9 (default), pose")[:3] == ["100.0"] * 3
    assert cells(grid, "paper, SPair-71k: window 5, pose")[:3] == ["11.1", "50.1", "64.8"]
    assert outcome.finding == (
        "At 0.1, the default window with pose alignment against without: the same; on the geometry-aware "
        "subset: the same; against argmax, both with it: higher (+100.0 points, 95 % +100.0 to +100.0); "
        "against soft-argmax: higher (+100.0 points, 95 % +100.0 to +100.0)."
    )


def test_table13_by_hand(tmp_path):
    turned = [pair(n, [(GOOD, True)], pose="flip" if n < 5 else "identity") for n in range(20)]
    runs = {
        Variant(pose="off"): run(tmp_path, "off", pairs_of(*[BAD] * 20)),
        Variant(): run(tmp_path, "default", turned, pose="flip"),
        Variant(pose="mutual-nn"): run(tmp_path, "mutual", pairs_of(*[BAD] * 20), pose="flip"),
    }
    outcome = strategies.table13(case(runs))
    (grid,) = outcome.grids
    assert cells(grid, "no alignment")[:4] == ["0 %", "0.0", "0.0", "0.0"]
    assert cells(grid, "default")[:4] == ["25 %", "100.0", "100.0", "100.0"]
    assert outcome.finding == (
        "At 0.1, against no alignment: default higher (+100.0 points, 95 % +100.0 to +100.0); mutual nearest "
        "neighbours the same."
    )
    assert outcome.figures["rows"][1]["turned"] == 0.25


def test_other_pairs_are_not_compared(tmp_path):
    a, b = run(tmp_path, "a", pairs_of(GOOD, GOOD)), run(tmp_path, "b", pairs_of(GOOD))
    with pytest.raises(ValueError, match="hold different pairs"):
        a.minus(b)


def test_the_paper_is_quoted_as_the_ablation_quotes_it():
    ours = {row.name: row for row in TABLE_9}
    for row in ROWS:
        name = {"full": "supervised", "sparse only": "supervised baseline"}.get(row.name, row.name)
        mine = ours[name]
        figures = {**mine.errors, "pck@0.05": mine.standard[0.05], "pck@0.1": mine.standard[0.1]}
        assert figures == dict(row.paper)


def test_the_paper_gains_what_it_says():
    rows = {row.name: row for row in (*TABLE_9, *TABLE_12)}
    # Abstract: 5.5 and 11.0 points above the state of the art; the breakdown adds up to 100.
    assert rows["window 11, pose"].standard[0.1] - rows["argmax"].standard[0.1] == pytest.approx(5.5)
    gain = rows["supervised, AP-10K first"].standard[0.1] - rows["supervised baseline"].standard[0.1]
    assert gain == pytest.approx(11.0)
    for row in TABLE_9:
        assert sum(row.errors[each] for each in ("miss", "swap", "pck_dagger")) == pytest.approx(
            100, abs=0.15
        )


def test_a_default_without_alignment_is_one_row(tmp_path):
    plain, post = (run(tmp_path, name, pairs_of(*[off] * 20)) for name, off in (("a", BAD), ("b", GOOD)))
    argmax = run(tmp_path, "c", pairs_of(*[BAD] * 20))
    runs = {Variant(window=1, pose="off"): argmax, Variant(pose="off"): plain, Variant(): plain}
    runs |= {Variant(POST_PROCESSOR, 1, pose="off"): post, Variant(POST_PROCESSOR, WHOLE, pose="off"): argmax}
    runs |= {Variant(POST_PROCESSOR, pose="off"): post, Variant(POST_PROCESSOR): post}
    ours = [each[0] for each in overview.table3(case(runs)).grids[0].rows if "paper" not in each[0]]
    assert len(ours) == 3
    outcome = overview.table5(case(runs))
    names = [each[0] for each in outcome.grids[0].rows if "paper" not in each[0]]
    assert names == ["plain features, argmax", "plain features, window", "post-processor, argmax"]
    assert "pose" not in outcome.finding
