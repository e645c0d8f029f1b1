from __future__ import annotations

import pytest

from geoaware.report.plots import (
    azimuth_sensitivity,
    category_bars,
    dumbbells,
    figures,
    pck_against_alpha,
    pck_against_window,
    save,
)
from geoaware.runs.errors import InputError
from tests.evaluation.records import make_records, make_result


def heights(figure):
    return [[round(bar.get_height(), 6) for bar in group] for group in figure.axes[0].containers]


def test_bars_are_the_figures_of_the_categories():
    result = make_result(make_records(60))
    standard, aware = heights(category_bars(result))
    expected = [100 * each.standard.values["per_image"][2] for each in result.by_category.values()]
    assert standard[:-1] == pytest.approx(expected)
    assert standard[-1] == pytest.approx(100 * result.overall.standard.values["category_per_image"][2])
    assert len(aware) == len(standard) == 4


def test_bars_without_geometry_aware_points_show_one_set():
    records = make_records(30)
    for each in records:
        each["geometry_aware"] = [False] * len(each["keypoint_ids"])
    figure = category_bars(make_result(records))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["standard"]


def test_sensitivity_bars():
    result = make_result(make_records(60))
    standard, _ = heights(azimuth_sensitivity(result))
    assert standard == pytest.approx([100 * each["standard"][2] for each in result.sensitivity.values()])
    with pytest.raises(InputError, match="no category has pairs of two azimuth differences"):
        azimuth_sensitivity(make_result(make_records(10, azimuth=False)))


def test_curve_rises_and_passes_through_the_figures():
    result = make_result(make_records(60))
    line = pck_against_alpha(result).axes[0].lines[0]
    values = dict(zip([round(x, 3) for x in line.get_xdata()], line.get_ydata(), strict=True))
    assert values[0.1] == pytest.approx(100 * result.value(0.1))
    assert sorted(values.values()) == list(values.values())


def windowed(window, **changes):
    about = {"dataset": "coco", "settings": {"matching": {"window": window}, "pose": "off"}, **changes}
    return make_result(make_records(40, seed=window % 3), **about)


def test_window_curve_is_in_the_order_of_windows():
    results = [windowed(15), windowed(1), windowed(5)]
    lines = pck_against_window(results).axes[0].lines
    assert list(lines[0].get_xdata()) == [1, 5, 15]
    assert lines[0].get_ydata()[0] == pytest.approx(100 * results[1].value(0.01))


@pytest.mark.parametrize("settings", [{}, {"matching": "window"}, {"matching": {"window": "flip"}}])
def test_a_result_without_its_window_has_no_place_on_the_curve(settings):
    odd = make_result(make_records(9), settings=settings)
    with pytest.raises(InputError, match="does not say with which window it was predicted"):
        pck_against_window([windowed(1), odd])


def test_window_curve_leaves_room_above_the_highest():
    results = [windowed(15), windowed(1)]
    axes = pck_against_window(results).axes[0]
    highest = max(max(line.get_ydata()) for line in axes.lines)
    assert highest < axes.get_ylim()[1] <= highest + 20


def test_dumbbells_join_both_shares_of_every_subject():
    nan = float("nan")
    groups = [("cat", {"plain": (0.5, 0.25), "refined": (0.75, 1.0)}), ("dog", {"plain": (0.1, nan)})]
    axes = dumbbells(groups, "PCK in %", ("all", "aware")).axes[0]
    joined = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    drawn = {tuple(line.get_xdata()): line.get_ydata() for line in joined}
    assert (50.0, 25.0) in drawn
    assert (75.0, 100.0) in drawn
    # The first group stands above the second, and no two subjects of a group on one another.
    assert drawn[50.0, 25.0][0] < drawn[75.0, 100.0][0] < 0.5
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "refined", "all", "aware"]


def test_dumbbells_of_one_subject_need_no_name_for_it():
    axes = dumbbells([("cat", {"share": (1.0, 0.5)})], "share in %", ("of pairs", "of points")).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["of pairs", "of points"]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (lambda: [windowed(5)], "needs results of different windows"),
        (lambda: [windowed(5), windowed(5)], "needs results of different windows"),
        (lambda: [windowed(5), windowed(7, dataset="spair71k")], "differ in more than the window"),
        (lambda: [windowed(5), make_result(make_records(5))], "does not say with which window"),
    ],
)
def test_windows_that_cannot_be_compared(results, message):
    with pytest.raises(InputError, match=message):
        pck_against_window(results())


def test_files_are_written_and_repeat(tmp_path):
    result = make_result(make_records(30))
    paths = save(figures(result), tmp_path / "a")
    assert [path.name for path in paths] == [
        "pck_by_category.png",
        "pck_against_alpha.png",
        "azimuth_sensitivity.png",
    ]
    for path, again in zip(paths, save(figures(result), tmp_path / "b"), strict=True):
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.read_bytes() == again.read_bytes()
