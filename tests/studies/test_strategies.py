from __future__ import annotations

import pytest

from geoaware.studies import strategies
from geoaware.studies.variants import WHOLE, Bench, Variant
from tests.evaluation.tiny import Sided
from tests.studies.made import case, cells, pairs_of, run

# How far off all twenty keypoints are found, by window: the third is best at every alpha.
BY_WINDOW = {1: 8.0, 3: 4.0, 5: 0.0, WHOLE: 50.0}
BY_SIGMA = {1.0: 50.0, 5.0: 8.0}


@pytest.fixture
def made(tmp_path):
    runs = {
        Variant(window=side, pose="off"): run(tmp_path, f"w{side}", pairs_of(*[off] * 20), window=side or 48)
        for side, off in BY_WINDOW.items()
    }
    runs[Variant(pose="off")] = runs[Variant(window=3, pose="off")]
    for sigma, off in BY_SIGMA.items():
        runs[Variant(sigma=sigma, pose="off")] = run(tmp_path, f"s{sigma:g}", pairs_of(*[off] * 20))
    return case(runs)


def test_fig18_by_hand(made):
    outcome = strategies.fig18(made)
    (grid,) = outcome.grids
    assert [row[0] for row in grid.rows] == ["argmax", "window 3 (default)", "window 5", "whole map"]
    assert cells(grid, "argmax")[:3] == ["0.0", "0.0", "100.0 *"]
    assert cells(grid, "window 3 (default)")[:3] == ["0.0", "100.0 *", "100.0 *"]
    assert cells(grid, "window 5")[:3] == ["100.0 *", "100.0 *", "100.0 *"]
    assert outcome.finding == (
        "Zero-shot: best is window 5 at 0.01, window 3 or window 5 at 0.05 and argmax or window 3 or "
        "window 5 at 0.1; at 0.1 the default (window 3) against argmax: the same, against whole map: "
        "higher (+100.0 points, 95 % +100.0 to +100.0)."
    )
    line = outcome.plots["fig18-zero-shot"].axes[0].lines[0]
    assert list(line.get_xdata()) == [1, 3, 5, 48]
    assert list(line.get_ydata()) == [0.0, 0.0, 100.0, 0.0]
    assert len(outcome.predictions) == 6


def test_table7_by_hand(made):
    outcome = strategies.table7(made)
    (grid,) = outcome.grids
    assert cells(grid, "window 3, default")[:3] == ["0.0", "100.0", "100.0"]
    best = cells(grid, "window, best at each alpha")
    assert best[:3] == ["100.0 (window 5)", "100.0 (window 3)", "100.0 (argmax)"]
    assert cells(grid, "kernel, sigma 5, SFNet's default")[:3] == ["0.0", "0.0", "100.0"]
    assert cells(grid, "kernel, best at each alpha")[2] == "100.0 (sigma 5)"
    assert outcome.finding == "Zero-shot, window against kernel at 0.1: default the same; best the same."


def test_windows_that_fit():
    # Thirteen cells a side, and the paper's zero-shot window where nothing was measured.
    bench = Bench(Sided())
    found = [each.window for each in strategies.windows(bench)]
    assert found == [1, 3, 5, 7, 9, 11, WHOLE, None]
    both = strategies.windows_and_kernels(bench)
    assert {each.pose for each in both} == {"off"}
    assert [each.sigma for each in both][len(found) :] == list(strategies.SIGMAS)
