"""Plots of results: matplotlib figures without any global state; nothing is shown, only `save` writes.

The two sets of points differ in colour, and the geometry-aware one is hatched or dashed besides, so that the
plots survive black-and-white print.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoaware.drawing.palette import BLUE, MAJOR_GRID, MINOR_GRID, ORANGE, QUIET, SERIES
from geoaware.evaluation.averages import LABELS, within_category
from geoaware.evaluation.result import CURVE, SETS, BothSets, PCKResult
from geoaware.evaluation.statistics import Estimate
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing
from geoaware.runs.places import place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX"
_LOOKS = dict(zip(SETS, (("standard", BLUE, "", "-"), ("geometry-aware", ORANGE, "//", "--")), strict=True))
"""Name, colour, hatch and line of each set."""


def figures(result: PCKResult) -> dict[str, Figure]:
    """All plots of one result, by file name without suffix; azimuth only where the data set gives it."""
    found = {"pck_by_category": category_bars(result), "pck_against_alpha": pck_against_alpha(result)}
    if any(_drawable(values) for sets in result.sensitivity.values() for values in sets.values()):
        found["azimuth_sensitivity"] = azimuth_sensitivity(result)
    return found


def category_bars(result: PCKResult) -> Figure:
    """PCK of the standard and the geometry-aware set, a pair of bars per category (paper, figure 4)."""
    column, averaging = result.column(result.headline_alpha), within_category(result.averaging)

    def of(both: BothSets, name: str) -> dict[str, float]:
        return {kind: scores.values[name][column] for kind, scores in both.sets.items()}  # type: ignore[index]

    groups = [(name, of(each, averaging)) for name, each in result.by_category.items()]
    if len(groups) > 1:
        groups.append(("mean", of(result.overall, f"category_{averaging}")))
    return _bars(groups, f"PCK@{result.headline_alpha:g} in % ({LABELS[averaging]})")


def azimuth_sensitivity(result: PCKResult) -> Figure:
    """Relative loss from the best to the worst azimuth subset, per category (paper, figure 5).

    Raises:
        InputError: no category has two azimuth subsets.
    """
    column = result.column(result.headline_alpha)
    found = [(name, {kind: sets[kind][column] for kind in SETS}) for name, sets in result.sensitivity.items()]
    groups = [(name, values) for name, values in found if _drawable(values.values())]
    if not groups:
        raise InputError(
            "no category has pairs of two azimuth differences, so there is no sensitivity to plot"
        )
    return _bars(groups, f"azimuth sensitivity at PCK@{result.headline_alpha:g} in %")


def pck_against_alpha(result: PCKResult) -> Figure:
    """PCK from alpha 0.005 to 0.2, standard and geometry-aware."""
    figure, axes = new_figure(6.0)
    for kind, (label, colour, _, style) in _LOOKS.items():
        values = result.curve.sets[kind].values[result.averaging]
        if _drawable(values):
            axes.plot(CURVE, [100 * value for value in values], style, color=colour, label=label, linewidth=2)
    axes.set(xlabel="alpha (share of the threshold base)", ylabel=f"PCK in % ({LABELS[result.averaging]})")
    axes.set(xlim=(0, CURVE[-1]), xticks=[0, 0.05, 0.1, 0.15, 0.2], ylim=(0, 100))
    legend_above(axes)
    return figure


def pck_against_window(results: Sequence[PCKResult]) -> Figure:
    """PCK against the side of the soft-argmax window, a line per alpha (paper, figure 18).

    Window 1 is argmax, and the map's side is soft-argmax.

    Raises:
        InputError: the results are not two or more of the same pairs, each with a window of its own.
    """
    from matplotlib.ticker import MaxNLocator

    found = sorted(((*_window(each), each) for each in results), key=itemgetter(0))
    windows, ordered = [each[0] for each in found], [each[-1] for each in found]
    if len(windows) < 2 or len(set(windows)) < len(windows):
        raise InputError(f"PCK against window size needs results of different windows, got windows {windows}")
    first = ordered[0]
    if any(each[1] != found[0][1] for each in found):
        raise InputError(
            "these results differ in more than the window (protocol, alphas, data set, split or extractor); "
            "predict the same pairs again and change nothing but the window"
        )
    figure, axes = new_figure(6.0)
    for number, alpha in enumerate(first.alphas):
        for kind, (label, _, _, style) in _LOOKS.items():
            values = [100 * each.overall.sets[kind].values[first.averaging][number] for each in ordered]
            if _drawable(values):
                axes.plot(windows, values, style, **series(number), markersize=5, label=f"{alpha:g}, {label}")
    # Ticks far enough apart for their numbers to stand side by side.
    ticks: list[int] = []
    for window in windows:
        if not ticks or window - ticks[-1] > 0.05 * (windows[-1] - windows[0]):
            ticks.append(window)
    axes.set(xlabel="side of the soft-argmax window in cells", ylabel=f"PCK in % ({LABELS[first.averaging]})")
    axes.set_xticks(ticks)
    # A round per cent above all lines, so that low figures are not pressed together.
    axes.set_ylim(0, min(100.0, 10 * math.ceil(axes.dataLim.ymax / 10 + 0.1)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False, title="alpha, set", loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def dumbbells(
    groups: Sequence[tuple[str, Mapping[str, tuple[float, float]]]],
    label: str,
    ends: tuple[str, str] = ("all keypoints", "geometry-aware"),
) -> Figure:
    """Two shares of several subjects in several groups: a filled and an open mark, joined by a line.

    Groups come from top to bottom, each with both shares (0 to 1) of every subject; NaN is not drawn.
    The axis is in per cent, and ``ends`` say what the filled and the open marks stand for.
    """
    from matplotlib.lines import Line2D

    subjects = list(dict.fromkeys(subject for _, of in groups for subject in of))
    figure, axes = new_figure(7.0, 1.3 + len(groups) * (0.16 + 0.19 * len(subjects)), grid="x")
    for number, subject in enumerate(subjects):
        look = series(number)
        for row, (_, of) in enumerate(groups):
            first, second = (100 * each for each in of.get(subject, (math.nan, math.nan)))
            place = row + 0.72 * ((number + 0.5) / len(subjects) - 0.5)
            axes.plot([first, second], [place, place], color=look["color"], linewidth=1.2)
            axes.plot(second, place, **look, markerfacecolor="white", markersize=6)
            axes.plot(first, place, **look, markersize=6)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(groups) - 0.4, -0.6), xlim=(-2, 102), xlabel=label)
    for row in range(1, len(groups)):
        axes.axhline(row - 0.5, color=MINOR_GRID, linewidth=0.8)
    # A single subject needs no name; then the ends have its colour.
    several = len(subjects) > 1
    colour = QUIET if several else SERIES[0]
    handles = [Line2D([], [], **series(n), label=each) for n, each in enumerate(subjects) if several]
    for name, face in zip(ends, (colour, "white"), strict=True):
        handles.append(Line2D([], [], color=colour, ls="", marker="o", markerfacecolor=face, label=name))
    legend_above(axes, handles=handles, borderaxespad=0.2)
    return figure


def intervals(groups: Sequence[tuple[str, Mapping[str, Estimate]]], label: str) -> Figure:
    """Differences of several subjects in several groups, in points with their intervals, and a line at 0.

    Groups come from top to bottom, each with every subject.
    """
    subjects = list(groups[0][1])
    step = len(subjects) + 1
    figure, axes = new_figure(7.0, 1.2 + 0.28 * step * len(groups), grid="x")
    rows = step * np.arange(len(groups))
    for number, subject in enumerate(subjects):
        values, margins = np.array([(of[subject].value, of[subject].margin) for _, of in groups]).T * 100
        look = {"linestyle": "", "capsize": 3, "label": subject, **series(number)}
        axes.errorbar(values, rows + number, xerr=margins, **look)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows + (len(subjects) - 1) / 2, [name for name, _ in groups])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    legend_above(axes)
    return figure


def accuracy_bars(bars: Mapping[str, Estimate], chance: Sequence[float], label: str) -> Figure:
    """Accuracies as bars with their intervals, and a line across each bar at what guessing gets right.

    Bars are shares from 0 to 1 by what stands below them, drawn in per cent.
    """
    figure, axes = new_figure(5.0)
    places, levels = np.arange(len(bars)), 100 * np.asarray(chance)
    values, low, high = np.array([(each.value, each.low, each.high) for each in bars.values()]).T * 100
    axes.bar(places, values, 0.6, color=BLUE, label="accuracy, 95 % CI")
    axes.errorbar(places, values, [values - low, high - values], fmt="none", ecolor="black", capsize=4)
    axes.hlines(levels, places - 0.4, places + 0.4, ORANGE, "--", linewidth=2, label="chance")
    axes.set_xticks(places, list(bars))
    axes.set(ylabel=label, ylim=(0, 100))
    legend_above(axes)
    return figure


def save(plots: Mapping[str, Figure], folder: str | os.PathLike[str]) -> list[Path]:
    """Write figures as PNG files named by their keys; the same figure gives the same bytes."""
    paths = {place(folder) / f"{name}.png": figure for name, figure in plots.items()}
    for path, figure in paths.items():
        with replacing(path) as draft:
            figure.savefig(draft, dpi=150, bbox_inches="tight", metadata={"Software": None})
    return list(paths)


def new_figure(width: float, height: float = 4.0, grid: Literal["x", "y"] = "y") -> tuple[Figure, Axes]:
    """An empty figure in the style of all plots, with quiet lines across one axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=MAJOR_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def legend_above(axes: Axes, **options: Any) -> None:
    """A legend where no bar and no line can be."""
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), **options)


def series(number: int) -> dict[str, Any]:
    """Colour and marker of the ``number``-th of several lines, from 0."""
    return {"color": SERIES[number % len(SERIES)], "marker": _MARKERS[number % len(_MARKERS)]}


def _drawable(values: Iterable[float]) -> bool:
    return not all(map(math.isnan, values))


def _window(result: PCKResult) -> tuple[int, tuple[object, ...]]:
    """The window, and all else that the results of one plot must have in common."""
    settings = dict(result.about.get("settings", {}))
    matching = settings.pop("matching", None)
    if not isinstance(matching, Mapping) or not isinstance(window := matching.get("window"), int):
        raise InputError(
            "a result does not say with which window it was predicted (settings of the file's header)"
        )
    matching = {key: each for key, each in matching.items() if key != "window"}
    same = [result.about.get(key) for key in ("dataset", "split", "extractor", "hashes")]
    return window, (result.protocol, result.alphas, settings, matching, *same)


def _bars(groups: Sequence[tuple[str, Mapping[str, float]]], label: str) -> Figure:
    """A group of bars each, one for every set of which there is a figure."""
    figure, axes = new_figure(max(5.0, 1.6 + 0.55 * len(groups)))
    shown = [kind for kind in SETS if _drawable(values[kind] for _, values in groups)]
    offsets = (-0.19, 0.19) if len(shown) == 2 else (0.0,)
    for offset, kind in zip(offsets, shown, strict=False):
        name, colour, hatch, _ = _LOOKS[kind]
        heights = 100 * np.nan_to_num([values[kind] for _, values in groups])
        places = np.arange(len(groups)) + offset
        axes.bar(places, heights, 0.38, label=name, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    names = [name for name, _ in groups]
    tilted = len(groups) > 4 or max(map(len, names)) > 10
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
    axes.set_xticks(range(len(groups)), names, **turned)
    axes.set(ylabel=label, ylim=(0, 100), xlim=(-0.6, len(groups) - 0.4))
    legend_above(axes)
    return figure
