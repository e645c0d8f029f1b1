from __future__ import annotations

import csv
import io
import json
import math
import random

import numpy as np
import pytest

from geoaware.evaluation.averages import AVERAGINGS
from geoaware.evaluation.formats import to_csv, to_json, to_markdown, to_text
from geoaware.evaluation.tables import Grid, as_markdown, as_text
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.runs.errors import InputError
from tests.evaluation.records import CATEGORIES, PARTNERS, make_records, make_result
from tests.reference import metrics as reference

ALPHAS = (0.01, 0.05, 0.1)
SETS = (("standard", False), ("geometry_aware", True))


def same(a: float, b: float) -> bool:
    return a == pytest.approx(b, abs=1e-12, nan_ok=True)


def record(pair, category, ids, predicted, truth, aware, azimuth=None, size=100.0):
    return {
        "pair": pair,
        "category": category,
        "source": "a",
        "target": "b",
        "keypoint_ids": ids,
        "predicted": predicted,
        "truth": truth,
        "size": size,
        "geometry_aware": aware,
        "pose": "identity",
        "azimuth_difference": azimuth,
        "target_keypoints": {str(each): place for each, place in zip(ids, truth, strict=True)},
    }


BY_HAND = [
    # Distances 0 and 8: one of two at alpha 0.05, both at 0.1. The second is geometry-aware.
    record("1", "cat", [0, 1], [[0, 0], [50, 8]], [[0, 0], [50, 0]], [False, True], 0),
    # Distances 2, 20, 20, 20, on a base of 100: one of four. The first two are geometry-aware.
    record(
        "2",
        "cat",
        [0, 1, 2, 3],
        [[2, 0], [50, 20], [70, 20], [90, 20]],
        [[0, 0], [50, 0], [70, 0], [90, 0]],
        [True, True, False, False],
        2,
    ),
    # Half the base: distance 4 is within 0.1 x 50 only.
    record("3", "dog", [5], [[4, 0]], [[0, 0]], [False], 1, size=50.0),
]


def test_averages_by_hand():
    result = make_result(BY_HAND)
    standard, aware = result.overall.standard, result.overall.geometry_aware
    # Per pair at 0.1: 1, 1/4, 1; cat 5/8, dog 1.
    assert (standard.pairs, standard.keypoints) == (3, 7)
    assert same(standard.values["per_image"][2], 0.75)
    assert same(standard.values["per_point"][2], 4 / 7)
    assert same(standard.values["category_per_image"][2], (5 / 8 + 1) / 2)
    assert same(standard.values["category_per_point"][2], (3 / 6 + 1) / 2)
    # At 0.05: 1/2, 1/4, 0.
    assert same(standard.values["per_image"][1], 0.25)
    # Geometry-aware at 0.1: 1/1 and 1/2; the dog has none and counts nowhere.
    assert (aware.pairs, aware.keypoints) == (2, 3)
    assert same(aware.values["per_image"][2], 0.75)
    assert same(aware.values["per_point"][2], 2 / 3)
    assert same(aware.values["category_per_image"][2], 0.75)
    assert same(result.overall.pair_share, 2 / 3)
    assert same(result.overall.keypoint_share, 3 / 7)
    assert same(result.overall.gap("per_point")[2], (4 / 7 - 2 / 3) / (4 / 7))
    assert result.value() == standard.values["per_image"][2]
    assert result.value(0.05, "per_point", geometry_aware=True) == aware.values["per_point"][1]


def test_breakdowns_by_hand():
    result = make_result(BY_HAND)
    assert same(result.by_category["cat"].standard.values["per_point"][2], 0.5)
    assert sorted(result.by_azimuth) == [0, 1, 2]
    assert same(result.by_azimuth[2].standard.values["per_image"][2], 0.25)
    assert same(result.sensitivity["cat"]["standard"][2], 0.75)
    assert math.isnan(result.sensitivity["dog"]["standard"][2])
    points = {(each.category, each.id): each for each in result.by_keypoint}
    assert points["cat", 0].values["standard"] == (0.5, 1.0, 1.0)
    assert points["cat", 1].keypoints == {"standard": 2, "geometry_aware": 2}
    assert points["cat", 1].name == "part 1"
    # Only keypoints 1 … 3 of the second pair are 20 away from everything: 3 misses of 7, none a jitter (20 is
    # not closer than 20).
    assert same(result.errors.standard.values["per_point"][ERROR_TYPES.index("miss")], 3 / 7)
    assert same(result.errors.standard.values["per_point"][ERROR_TYPES.index("jitter")], 0)
    assert same(result.errors.standard.values["per_image"][ERROR_TYPES.index("miss")], (0 + 3 / 4 + 0) / 3)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_loops(seed, strict):
    records = make_records(60, seed)
    result = make_result(records, strict)
    for kind, aware in SETS:
        for number, alpha in enumerate(ALPHAS):

            def hit(each, alpha=alpha):
                return reference.flags(each, alpha, strict)

            expected = reference.averages(records, hit, aware)
            for averaging in AVERAGINGS:
                assert same(result.overall.sets[kind].values[averaging][number], expected[averaging])
            for name in CATEGORIES:
                mine = [each for each in records if each["category"] == name]
                found = result.by_category[name].sets[kind].values
                assert same(found["per_image"][number], reference.per_image(mine, hit, aware))
                assert same(found["per_point"][number], reference.per_point(mine, hit, aware))
                expected_d = reference.sensitivity(mine, hit, aware)
                assert same(result.sensitivity[name][kind][number], expected_d)
            for point in result.by_keypoint:
                expected_point = reference.by_keypoint(records, point.category, point.id, hit, aware)
                assert same(point.values[kind][number], expected_point)
        for number, error in enumerate(ERROR_TYPES):

            def failed(each, error=error):
                return reference.error_flags(each, error, 0.1, strict, PARTNERS)

            expected = reference.averages(records, failed, aware)
            for averaging in AVERAGINGS:
                assert same(result.errors.sets[kind].values[averaging][number], expected[averaging])
    assert (result.overall.pair_share, result.overall.keypoint_share) == reference.shares(records)


def shuffled(records, seed):
    """Other lines' order, other keypoints' order within a line, other names of pairs and images."""
    rng = random.Random(seed)
    found = []
    for each in rng.sample(records, len(records)):
        order = rng.sample(range(len(each["keypoint_ids"])), len(each["keypoint_ids"]))
        changed = dict(each, pair=f"{rng.random()}", source=f"x{rng.random()}", target=f"y{rng.random()}")
        for key in ("keypoint_ids", "predicted", "truth", "geometry_aware"):
            changed[key] = [each[key][place] for place in order]
        there = list(each["target_keypoints"].items())
        changed["target_keypoints"] = dict(rng.sample(there, len(there)))
        found.append(changed)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_order_and_names_change_nothing(seed):
    records = make_records(80, seed)
    first = make_result(records, draws=50)
    assert to_json(make_result(shuffled(records, seed), draws=50)) == to_json(first)


def test_intervals_are_those_of_a_plain_bootstrap():
    records = make_records(200, 3)
    result = make_result(records, draws=2000)
    shares = [
        (sum(flags), len(flags)) for flags in (reference.flags(each, 0.1, True) for each in records) if flags
    ]
    hits, points = np.array(shares).T
    generator = np.random.default_rng(12345)
    rows = generator.integers(0, len(shares), (2000, len(shares)))
    for averaging, drawn in (
        ("per_image", (hits / points)[rows].mean(axis=1)),
        ("per_point", hits[rows].sum(axis=1) / points[rows].sum(axis=1)),
    ):
        low, high = np.percentile(drawn, [2.5, 97.5])
        interval = result.overall.standard.intervals[averaging][2]
        assert interval.low == pytest.approx(low, abs=0.006)
        assert interval.high == pytest.approx(high, abs=0.006)
        assert interval.low < result.overall.standard.values[averaging][2] < interval.high


def test_intervals_repeat_and_depend_on_the_seed():
    records = make_records(40)
    assert to_json(make_result(records, draws=100)) == to_json(make_result(records, draws=100))
    interval = make_result(records, draws=100).by_category["cat"].standard.intervals["per_image"][2]
    assert 0 <= interval.low < interval.high <= 1


def test_no_azimuth_and_no_target_keypoints():
    records = make_records(10, azimuth=False)
    for each in records:
        del each["target_keypoints"]
    result = make_result(records)
    assert result.errors is None
    assert result.by_azimuth == {}
    assert "swap" not in str(result)
    with pytest.raises(InputError, match=r"no azimuth difference .* break the figures down by category"):
        to_text(result, "azimuth")


def test_pairs_without_a_point_only():
    empty = record("1", "cat", [], [], [], [])
    result = make_result([empty], draws=10)
    assert math.isnan(result.value())
    assert result.overall.standard.pairs == 0
    assert json.loads(to_json(result))["overall"]["standard"]["per_image"] == [None] * 3
    assert "–" in str(result)


def test_unknown_alpha():
    with pytest.raises(ValueError, match=r"no PCK at alpha 0.2 here; computed at 0.01, 0.05, 0.1"):
        make_result(BY_HAND).value(0.2)


def test_text_shows_every_average_side_by_side():
    text = str(make_result(BY_HAND, draws=20, dataset="spair71k", split="test"))
    for word in ("per image *", "per point", "category mean, per image", "geometry-aware", "relative gap"):
        assert word in text
    assert "spair71k · test" in text
    line = next(each for each in text.splitlines() if each.strip().startswith("per image *"))
    assert line.split()[:4] == ["per", "image", "*", "0.01"]
    row = next(each for each in text.splitlines() if each.split()[:1] == ["0.1"]).split()
    assert (row[1], row[5], row[9]) == ("75.0", "75.0", "0.0")  # standard, geometry-aware, gap
    assert "66.7 % of the pairs, 42.9 % of the keypoints" in " ".join(text.split())
    assert "bus" not in text
    assert "cat: part 0" in to_text(make_result(BY_HAND), "keypoint")


def test_json_csv_and_markdown_hold_the_same_figures():
    result = make_result(make_records(50), draws=20)
    content = json.loads(to_json(result))
    assert content["overall"]["standard"]["per_image"] == list(result.overall.standard.values["per_image"])
    assert content["errors"]["standard"]["per_point"] == list(result.errors.standard.values["per_point"])
    rows = list(csv.DictReader(io.StringIO(to_csv(result))))
    wanted = {
        "scope": "all",
        "set": "geometry_aware",
        "metric": "pck",
        "averaging": "per_point",
        "alpha": "0.05",
    }
    (row,) = [each for each in rows if all(each[key] == value for key, value in wanted.items())]
    assert float(row["value"]) == result.overall.geometry_aware.values["per_point"][1]
    assert float(row["low"]) == result.overall.geometry_aware.intervals["per_point"][1].low
    assert int(row["keypoints"]) == result.overall.geometry_aware.keypoints
    assert {each["scope"] for each in rows} == {"all", "category", "azimuth", "keypoint"}
    markdown = to_markdown(result)
    assert f"{100 * result.overall.standard.values['per_image'][2]:.1f}" in markdown
    tables = [block for block in markdown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_former_methods_warn_and_say_what_they_are_now():
    result = make_result(BY_HAND)
    with pytest.warns(DeprecationWarning, match="to_json is now geoaware.evaluation.formats.to_json"):
        assert result.to_json() == to_json(result)
    with pytest.warns(DeprecationWarning, match=r"PCKResult.figures is now geoaware.report.plots.figures"):
        assert list(result.figures()) == ["pck_by_category", "pck_against_alpha", "azimuth_sensitivity"]
    with pytest.raises(AttributeError, match="has no attribute 'to_yaml'"):
        result.to_yaml()


def test_a_grid_as_markdown_and_text():
    grid = Grid("Cats", ("name", "PCK"), (("a | b", "1.0"),), "A note.")
    assert as_markdown(grid).splitlines() == [
        *("**Cats**", "", "| name | PCK |", "| :--- | ---: |", "| a \\| b | 1.0 |", "", "A note."),
    ]
    text = as_text([grid, Grid("Dogs", ("name",), ())])
    assert text.index("Cats") < text.index("a | b") < text.index("A note.") < text.index("Dogs")
