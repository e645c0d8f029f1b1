"""Plots of results: matplotlib figures without any global state; nothing is shown, only `save` writes.

Colours are blue and orange of the Okabe-Ito palette, which colour-blind readers tell apart; the
geometry-aware set is hatched or dashed besides, so that the plots survive black-and-white print.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoaware.drawing.palette import BLUE, MAJOR_GRID, MINOR_GRID, ORANGE, QUIET, SERIES
from geoaware.evaluation.averages import LABELS, Averaging, within_category
from geoaware.evaluation.result import CURVE, PCKResult
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX"
_SETS = (("standard", "standard", BLUE, ""), ("geometry_aware", "geometry-aware", ORANGE, "//"))
_DPI = 150


def figures(result: PCKResult) -> dict[str, Figure]:
    """All plots of one result, by file name without suffix; azimuth only where the data set gives it."""
    found = {"pck_by_category": category_bars(result), "pck_against_alpha": pck_against_alpha(result)}
    if any(
        not math.isnan(v) for sets in result.sensitivity.values() for values in sets.values() for v in values
    ):
        found["azimuth_sensitivity"] = azimuth_sensitivity(result)
    return found


def category_bars(result: PCKResult, alpha: float | None = None) -> Figure:
    """PCK of the standard and the geometry-aware set, a pair of bars per category (paper, figure 4)."""
    chosen = result.headline_alpha if alpha is None else alpha
    column, averaging = result.column(chosen), within_category(result.averaging)
    groups = [
        (name, {kind: each.sets[kind].values[averaging][column] for kind, *_ in _SETS})
        for name, each in result.by_category.items()
    ]
    mean: Averaging = "category_per_point" if averaging == "per_point" else "category_per_image"
    if len(groups) > 1:
        groups.append(("mean", {kind: result.overall.sets[kind].values[mean][column] for kind, *_ in _SETS}))
    return _bars(groups, f"PCK@{chosen:g} in % ({LABELS[averaging]})")


def azimuth_sensitivity(result: PCKResult, alpha: float | None = None) -> Figure:
    """Relative loss from the best to the worst azimuth subset, per category (paper, figure 5).

    Raises:
        InputError: no category has two azimuth subsets.
    """
    chosen = result.headline_alpha if alpha is None else alpha
    column = result.column(chosen)
    groups = [
        (name, {kind: sets[kind][column] for kind, *_ in _SETS}) for name, sets in result.sensitivity.items()
    ]
    groups = [(name, values) for name, values in groups if not all(math.isnan(v) for v in values.values())]
    if not groups:
        raise InputError(
            "no category has pairs of two azimuth differences, so there is no sensitivity to plot"
        )
    return _bars(groups, f"azimuth sensitivity at PCK@{chosen:g} in %")


def pck_against_alpha(result: PCKResult) -> Figure:
    """PCK from alpha 0.005 to 0.2, standard and geometry-aware."""
    figure, axes = _figure(6.0)
    for (kind, label, colour, _), style in zip(_SETS, ("-", "--"), strict=True):
        values = result.curve.sets[kind].values[result.averaging]
        if not any(math.isnan(value) for value in values):
            axes.plot(CURVE, [100 * value for value in values], style, color=colour, label=label, linewidth=2)
    axes.set_xlabel("alpha (share of the threshold base)")
    axes.set_ylabel(f"PCK in % ({LABELS[result.averaging]})")
    axes.set_xlim(0, CURVE[-1])
    axes.set_xticks([0, 0.05, 0.1, 0.15, 0.2])
    axes.set_ylim(0, 100)
    _legend_above(axes)
    return figure


def pck_against_window(results: Sequence[PCKResult]) -> Figure:
    """PCK against the side of the soft-argmax window, a line per alpha (paper, figure 18).

    Args:
        results: of the same pairs, predicted with different windows; 1 is argmax, the map's side soft-argmax.

    Raises:
        InputError: fewer than two results, a result that does not say its window, two of the same window, or
            results that cannot be compared.
    """
    from matplotlib.ticker import MaxNLocator

    ordered = sorted(((_window(each), each) for each in results), key=lambda each: each[0])
    windows = [window for window, _ in ordered]
    if len(windows) < 2 or len(set(windows)) < len(windows):
        raise InputError(f"PCK against window size needs results of different windows, got windows {windows}")
    first = ordered[0][1]
    if any(_comparable(each) != _comparable(first) for _, each in ordered):
        raise InputError(
            "these results differ in more than the window (protocol, alphas, data set, split or extractor); "
            "predict the same pairs again and change nothing but --set window"
        )
    figure, axes = _figure(6.0)
    for number, alpha in enumerate(first.alphas):
        colour, marker = SERIES[number % len(SERIES)], _MARKERS[number % len(_MARKERS)]
        for (kind, label, *_), style in zip(_SETS, ("-", "--"), strict=True):
            values = [100 * each.overall.sets[kind].values[first.averaging][number] for _, each in ordered]
            if not any(math.isnan(value) for value in values):
                name = f"{alpha:g}, {label}"
                axes.plot(windows, values, style, color=colour, marker=marker, markersize=5, label=name)
    axes.set_xlabel("side of the soft-argmax window in cells")
    axes.set_ylabel(f"PCK in % ({LABELS[first.averaging]})")
    axes.set_xticks(_readable(windows))
    axes.set_ylim(0, _top(axes))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False, title="alpha, set", loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def dumbbells(
    groups: Sequence[tuple[str, Mapping[str, tuple[float, float]]]],
    label: str,
    ends: tuple[str, str] = ("all keypoints", "geometry-aware"),
) -> Figure:
    """Two shares of several subjects in several groups: a filled and an open mark, joined by a line.

    Args:
        groups: from top to bottom, each with both shares (0 to 1) of every subject; NaN is not drawn.
        label: of the axis of shares, which is in per cent.
        ends: what the filled and the open marks stand for.
    """
    from matplotlib.lines import Line2D

    subjects = list(dict.fromkeys(subject for _, of in groups for subject in of))
    figure, axes = _figure(7.0, 1.3 + len(groups) * (0.16 + 0.19 * len(subjects)))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=MAJOR_GRID, linewidth=0.8)
    for number, subject in enumerate(subjects):
        colour, marker = SERIES[number % len(SERIES)], _MARKERS[number % len(_MARKERS)]
        offset = 0.72 * ((number + 0.5) / len(subjects) - 0.5)
        for row, (_, of) in enumerate(groups):
            first, second = (100 * each for each in of.get(subject, (math.nan, math.nan)))
            place = row + offset
            axes.plot([first, second], [place, place], color=colour, linewidth=1.2)
            axes.plot(second, place, marker, color=colour, markerfacecolor="white", markersize=6)
            axes.plot(first, place, marker, color=colour, markersize=6)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel(label)
    for row in range(1, len(groups)):
        axes.axhline(row - 0.5, color=MINOR_GRID, linewidth=0.8)
    handles = [
        Line2D([], [], color=SERIES[n % len(SERIES)], marker=_MARKERS[n % len(_MARKERS)], label=subject)
        for n, subject in enumerate(subjects)
        if len(subjects) > 1
    ]
    colour = QUIET if handles else SERIES[0]
    handles += [
        Line2D([], [], color=colour, linestyle="", marker="o", markerfacecolor=face, label=name)
        for name, face in zip(ends, (colour, "white"), strict=True)
    ]
    axes.legend(
        handles=handles, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2
    )
    return figure


def save(plots: Mapping[str, Figure], folder: str | os.PathLike[str]) -> list[Path]:
    """Write figures as PNG files named by their keys; the same figure gives the same bytes."""
    paths = []
    for name, figure in plots.items():
        path = Path(folder) / f"{name}.png"
        with replacing(path) as draft:
            figure.savefig(draft, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
        paths.append(path)
    return paths


def _window(result: PCKResult) -> int:
    matching = result.about.get("settings", {}).get("matching", {})
    if "window" not in matching:
        raise InputError(
            "a result does not say with which window it was predicted (settings of the file's header)"
        )
    return int(matching["window"])


def _comparable(result: PCKResult) -> tuple[object, ...]:
    about = result.about
    settings = dict(about.get("settings", {}))
    settings["matching"] = {
        key: value for key, value in settings.get("matching", {}).items() if key != "window"
    }
    same = [about.get(key) for key in ("dataset", "split", "extractor", "hashes")]
    return (result.protocol, result.alphas, settings, *same)


def _top(axes: Axes) -> float:
    """A round per cent above all lines, so that low figures are not pressed together."""
    highest = axes.dataLim.ymax
    return min(100.0, 10 * math.ceil(highest / 10 + 0.1))


def _readable(ticks: Sequence[int]) -> list[int]:
    """Ticks far enough apart for their numbers to stand side by side."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick - kept[-1] > 0.05 * (ticks[-1] - ticks[0]):
            kept.append(tick)
    return kept


def _bars(groups: Sequence[tuple[str, Mapping[str, float]]], label: str) -> Figure:
    figure, axes = _figure(max(5.0, 1.6 + 0.55 * len(groups)))
    shown = [each for each in _SETS if not all(math.isnan(values[each[0]]) for _, values in groups)]
    width = 0.38
    offsets = (-width / 2, width / 2) if len(shown) == 2 else (0.0,)
    for offset, (kind, name, colour, hatch) in zip(offsets, shown, strict=False):
        heights = [0.0 if math.isnan(values[kind]) else 100 * values[kind] for _, values in groups]
        places = [number + offset for number in range(len(groups))]
        axes.bar(
            places, heights, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name
        )
    tilted = len(groups) > 4 or any(len(name) > 10 for name, _ in groups)
    axes.set_xticks(range(len(groups)), [name for name, _ in groups])
    if tilted:
        axes.tick_params(axis="x", labelrotation=45)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")
    axes.set_ylabel(label)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    _legend_above(axes)
    return figure


def _legend_above(axes: Axes) -> None:
    """Where no bar and no line can be."""
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))


def _figure(width: float, height: float = 4.0) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=MAJOR_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes
