"""Values at known pixels: colours, positions, peaks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from geoaware.drawing import (
    Mark,
    draw_heatmap,
    draw_lines,
    draw_matches,
    draw_points,
    draw_text,
    palette,
    side_by_side,
)
from geoaware.drawing.draw import Shape, shorten, text_size
from geoaware.drawing.layout import READABLE, place_labels
from geoaware.drawing.palette import heat_colours, position_colours
from geoaware.method.geometry import Canvas
from geoaware.runs.errors import InputError

RED = (200, 30, 40)
DARK, LIGHT, RIGHT, WRONG = (
    ImageColor.getrgb(each) for each in (palette.DARK, palette.LIGHT, palette.RIGHT, palette.WRONG)
)


def blank(width: int, height: int, colour: object = "white") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int64)


def lightness(rgb: object) -> float:
    return float(np.array(rgb, dtype=float) @ [0.2126, 0.7152, 0.0722])


# --- points ---


@pytest.mark.parametrize("background", ["white", "black", (128, 128, 128)])
def test_point_is_colour_then_light_then_dark_rim(background: object) -> None:
    image = draw_points(blank(41, 31, background), [(20, 10)], [Mark(RED)], radius=6.0)
    assert image.getpixel((20, 10)) == RED
    assert image.getpixel((25, 10)) == RED  # 5 px off the centre: inside the radius of 6
    assert lightness(image.getpixel((27, 10))) > 180  # 6 to 7.2 px: light
    assert lightness(image.getpixel((28, 10))) < 80  # 7.2 to 8.4 px: dark
    assert image.getpixel((31, 10)) == blank(1, 1, background).getpixel((0, 0))


def test_point_lies_at_its_fractional_position() -> None:
    image = pixels(draw_points(blank(40, 40), [(17.25, 21.5)], [Mark((0, 0, 0))], radius=5.0))
    ink = (255 - image.sum(axis=2) / 3) / 255
    rows, columns = np.mgrid[:40, :40]
    assert (columns * ink).sum() / ink.sum() == pytest.approx(17.25, abs=0.02)
    assert (rows * ink).sum() / ink.sum() == pytest.approx(21.5, abs=0.02)


def test_antialiased_disc_has_the_area_of_a_disc() -> None:
    before = blank(60, 60, LIGHT)
    disc = pixels(draw_points(before, [(30, 30)], [Mark(LIGHT)], radius=12.0))
    covered = (255 - disc[..., 0]) / (255 - DARK[0])
    assert covered.sum() == pytest.approx(np.pi * ((12 + 2.4) ** 2 - (12 + 1.2) ** 2), rel=0.01)


def test_hollow_point_shows_the_image_through_its_middle() -> None:
    image = draw_points(blank(41, 41, (9, 200, 9)), [(20, 20)], [Mark(RED, hollow=True)], radius=10.0)
    assert image.getpixel((20, 20)) == (9, 200, 9)
    assert image.getpixel((29, 20)) == RED


def test_diamond_is_not_a_disc() -> None:
    disc, diamond = (
        pixels(draw_points(blank(41, 41, "black"), [(20, 20)], [Mark(RED, shape)], radius=8.0))
        for shape in ("circle", "diamond")
    )
    assert tuple(diamond[20, 30]) == RED  # its tips reach 1.4 times the radius
    assert tuple(disc[20, 30]) != RED
    assert tuple(disc[25, 25]) == RED
    assert tuple(diamond[26, 26]) != RED


def test_points_off_the_image_are_cut_off_and_the_input_stays_as_it_was() -> None:
    image = blank(20, 20)
    drawn = draw_points(image, [(-100, 5), (500, 500), (0, 19)], [Mark(RED)] * 3)
    assert drawn.size == (20, 20)
    assert drawn.getpixel((0, 19)) == RED
    assert (pixels(image) == 255).all()


def test_unknown_shape_is_refused(unchecked_types: None) -> None:
    with pytest.raises(InputError, match="unknown shape 'star'; the shapes are circle, diamond"):
        Mark(RED, "star")


def test_wrong_counts_are_refused() -> None:
    with pytest.raises(InputError, match="1 marks for 2 points"):
        draw_points(blank(9, 9), [(1, 1), (2, 2)], [Mark(RED)])
    with pytest.raises(InputError, match="1 line ends for 2 points"):
        draw_lines(blank(9, 9), [(1, 1), (2, 2)], [(1, 1)], [Mark(RED)] * 2)
    with pytest.raises(InputError, match="0 texts for 1 points"):
        draw_text(blank(9, 9), [(1, 1)], [])


# --- lines ---


def line_reference(size: tuple[int, int], start: tuple, end: tuple, width: float) -> np.ndarray:
    """Coverage of every pixel, one after the other, from its distance to the segment."""
    out = np.zeros((size[1], size[0]))
    a, b = np.array(start, dtype=float), np.array(end, dtype=float)
    for y in range(size[1]):
        for x in range(size[0]):
            p = np.array([x, y], dtype=float)
            length = (b - a) @ (b - a)
            share = 0.0 if length == 0 else min(1.0, max(0.0, ((p - a) @ (b - a)) / length))
            out[y, x] = min(1.0, max(0.0, 0.5 + width / 2 - np.linalg.norm(p - a - share * (b - a))))
    return out


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ((3, 4), (110, 30)),
        ((110, 30.5), (3, 4)),
        ((20, 38), (31.3, 2)),
        ((5, 5), (5, 5)),
        ((-40, -9), (300, 70)),
    ],
)
def test_line_agrees_with_the_distance_to_the_segment(start: tuple, end: tuple) -> None:
    image = draw_lines(blank(120, 40, "black"), [start], [end], [Mark((0, 255, 0))], width=3.0)
    rim = line_reference((120, 40), start, end, 5.0) * 0.6
    cover = line_reference((120, 40), start, end, 3.0)
    green = rim * DARK[1] * (1 - cover) + 255 * cover
    assert np.abs(pixels(image)[..., 1] - green).max() <= 1


def test_dashed_line_has_gaps_and_a_solid_one_none() -> None:
    solid, dashed = (
        pixels(draw_lines(blank(100, 11), [(0, 5)], [(99, 5)], [Mark(RED, hollow=hollow)], width=2.0))[5]
        for hollow in (False, True)
    )
    assert (solid == RED).all()
    share = (dashed == RED).all(axis=1).mean()
    assert 0.3 < share < 0.6
    assert (dashed == 255).all(axis=1).any()


# --- text ---


@pytest.mark.parametrize("text", ["0", "17", "left paw", "Öhrchen", "ухо"])
def test_text_fills_the_box_it_announces(text: str) -> None:
    width, height = text_size(text, 18)
    drawn = pixels(draw_text(blank(200, 60), [(20, 10)], [text], size=18))
    rows, columns = np.nonzero((drawn != 255).any(axis=2))
    assert 20 <= columns.min() <= 22
    assert 10 <= rows.min() <= 11
    assert columns.max() <= 20 + width - 1
    assert rows.max() <= 10 + height - 1
    assert columns.max() >= 20 + width - 3


def test_shorten_keeps_what_fits() -> None:
    assert shorten("left front paw", 16, 1000) == "left front paw"
    cut = shorten("left front paw", 16, 60)
    assert cut.endswith("…")
    assert "left front paw".startswith(cut[:-1])
    assert text_size(cut, 16)[0] <= 60
    assert shorten("left", 16, 2) == ""


# --- colours ---


def test_position_colours_at_the_corners_and_in_degenerate_boxes() -> None:
    top_left, top_right, bottom_left, bottom_right, centre = position_colours(
        [(0, 0), (10, 0), (0, 4), (10, 4), (5, 2)]
    )
    assert (top_left, top_right) == ((108, 230, 243), (248, 228, 69))
    assert (bottom_left, bottom_right) == ((59, 57, 189), (179, 36, 31))
    assert position_colours([(3, 3)]) == [centre]
    assert position_colours([(7, 1), (7, 1)]) == [centre] * 2
    assert position_colours([]) == []


def test_position_colours_are_smooth_and_darken_downwards() -> None:
    steps = np.linspace(0, 1, 51)
    plane = np.array(position_colours([(x, y) for y in steps for x in steps])).reshape(51, 51, 3)
    assert np.abs(np.diff(plane, axis=0)).max() <= 20
    assert np.abs(np.diff(plane, axis=1)).max() <= 20
    brightness = plane @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness, axis=0) < 0).all()
    # Blue minus yellow falls to the right, which red-green blindness leaves visible.
    assert (
        plane[:, 0, 2] - plane[:, 0, :2].min(axis=1) > plane[:, -1, 2] - plane[:, -1, :2].min(axis=1)
    ).all()


def test_heat_colours_rise_in_equal_steps_of_lightness() -> None:
    table = heat_colours(np.linspace(0, 1, 52)) / 255
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    cones = (
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    oklab_lightness = np.cbrt(cones) @ [0.2104542553, 0.7936177850, -0.0040720468]
    steps = np.diff(oklab_lightness)
    assert steps.min() > 0
    assert steps == pytest.approx(np.full(51, 0.73 / 51), abs=1e-6)
    assert (heat_colours(np.array([-3.0, 7.0])) == heat_colours(np.array([0.0, 1.0]))).all()


def test_pages_get_the_colours_of_marks_as_css() -> None:
    light, dark = (
        dict(each.strip().split(": ") for each in palette.css_variables(dark).split(";")[:-1])
        for dark in (False, True)
    )
    assert light.keys() == dark.keys()
    assert (
        (light["--right"], light["--wrong"]) == (dark["--right"], dark["--wrong"]) == ("#0072B2", "#E69F00")
    )
    # Text stands out on both grounds.
    assert lightness(ImageColor.getrgb(light["--back"])) - lightness(ImageColor.getrgb(light["--text"])) > 150
    assert lightness(ImageColor.getrgb(dark["--text"])) - lightness(ImageColor.getrgb(dark["--back"])) > 150


# --- labels ---


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(0, 199), st.floats(0, 99)), min_size=1, max_size=40),
    width=st.integers(5, 60),
)
def test_labels_never_leave_their_place(points: list, width: int) -> None:
    corners = place_labels(points, [(width, 14)] * len(points), (0, 0, 200, 100), 6.0)
    assert (corners >= 0).all()
    assert (corners[:, 0] + width <= 200).all()
    assert (corners[:, 1] + 14 <= 100).all()


def test_label_stands_right_above_its_point_and_changes_side_at_the_edge() -> None:
    inside, edge = place_labels([(100, 50), (195, 90)], [(30, 12)] * 2, (0, 0, 200, 100), 5.0).tolist()
    assert inside[0] > 100
    assert inside[1] + 12 < 50
    assert edge[0] + 30 <= 195 - 5 or edge[1] + 12 <= 90 - 5


def test_labels_of_a_loose_crowd_do_not_overlap() -> None:
    points = [(40 + 25 * (n % 5), 40 + 25 * (n // 5)) for n in range(25)]
    corners = place_labels(points, [(16, 11)] * 25, (0, 0, 220, 220), 5.0).numpy()
    for number, (x, y) in enumerate(corners):
        for other_x, other_y in corners[number + 1 :]:
            assert abs(x - other_x) >= 16 or abs(y - other_y) >= 11
        for px, py in points:
            assert not (x < px + 5 and px - 5 < x + 16 and y < py + 5 and py - 5 < y + 11)


# --- side by side and matches ---


def test_side_by_side_scales_to_one_height_and_bounds_the_width() -> None:
    shapes = [(300, 500), (640, 427), (1, 1), (9000, 90), (4, 4000)]
    board, panels = side_by_side([blank(*shape, "black") for shape in shapes], height=240, gap=10)
    assert [panel.canvas.inner for panel in panels] == [
        (144, 240),
        (360, 240),
        (240, 240),
        (600, 6),
        (1, 240),
    ]
    assert board.size == (144 + 360 + 240 + 600 + 48 + 6 * 10, 240 + 2 * 10)
    assert (pixels(board)[:10] == 255).all()
    for panel in panels:
        assert board.getpixel(panel.corner) == (0, 0, 0)
        left, top, right, bottom = panel.place
        assert left <= panel.corner[0]
        assert panel.corner[0] + panel.canvas.inner[0] <= right
        assert top <= panel.corner[1]
        assert panel.corner[1] + panel.canvas.inner[1] <= bottom


def test_side_by_side_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(InputError, match="no images"):
        side_by_side([])
    with pytest.raises(InputError, match="height of 8 pixels"):
        side_by_side([blank(5, 5)], height=8)


def test_matches_have_one_colour_on_both_sides_at_the_right_place() -> None:
    # Height 240: the source (120x120) is doubled, the target (480x480) halved; the frame is 8 pixels.
    source, target = blank(120, 120, (90, 90, 90)), blank(480, 480, (120, 90, 60))
    queries = [(20, 30), (100, 30), (60, 80), (20, 100)]
    points = [(400, 400), (100, 60), (240, 240), (60, 420)]
    drawn = draw_matches(source, target, queries, points, height=240, lines=False, labels=[""] * 4)
    assert drawn.size == (8 + 240 + 8 + 240 + 8, 8 + 240 + 8)
    colours = position_colours(queries)
    for (qx, qy), (px, py), colour in zip(queries, points, colours, strict=True):
        assert drawn.getpixel((8 + 2 * qx, 8 + 2 * qy)) == colour
        assert drawn.getpixel((8 + 240 + 8 + px // 2, 8 + py // 2)) == colour
    assert len(set(colours)) == 4
    assert drawn.getpixel((8 + 120, 8 + 20)) == (90, 90, 90)
    assert drawn.getpixel((8 + 240 + 8 + 120, 8 + 20)) == (120, 90, 60)


def test_lines_join_the_points() -> None:
    grey = blank(100, 100, (90, 90, 90))
    with_line, without = (
        draw_matches(grey, grey, [(50, 50)], [(50, 50)], height=200, lines=lines) for lines in (True, False)
    )
    middle = (with_line.width // 2, 8 + 100)
    assert without.getpixel(middle) == (255, 255, 255)
    expected = 0.9 * np.array(position_colours([(0, 0)])[0]) + 0.1 * (0.54 * np.array(DARK) + 0.46 * 255)
    assert np.abs(np.array(with_line.getpixel(middle)) - expected).max() <= 12


def test_right_and_wrong_matches_differ_in_colour_and_shape() -> None:
    grey = blank(100, 100, (90, 90, 90))
    drawn = draw_matches(
        grey, grey, [(25, 50), (75, 50)], [(25, 50), (75, 50)], correct=[True, False], lines=False, height=200
    )
    for left in (8, 8 + 200 + 8):
        assert drawn.getpixel((left + 50, 108)) == RIGHT
        assert drawn.getpixel((left + 150, 108)) == WRONG
    assert lightness(WRONG) - lightness(RIGHT) > 40  # told apart in greyscale too
    assert RIGHT[2] > RIGHT[0] + 100
    assert WRONG[0] > WRONG[2] + 100


def test_matches_of_low_confidence_are_hollow() -> None:
    grey = blank(100, 100, (90, 90, 90))
    style = {"confidence": [0.2, 0.5, float("nan")], "min_confidence": 0.5, "height": 960, "lines": False}
    spots = [(20, 50), (50, 50), (80, 50)]
    drawn = draw_matches(grey, grey, spots, spots, labels=[""] * 3, **style)
    frame = 960 // 40
    shown = [drawn.getpixel((frame + 192 + step * 288, frame + 480)) for step in range(3)]
    assert shown[0] == (90, 90, 90)
    assert shown[1] == position_colours(spots)[1]
    assert shown[2] == (90, 90, 90)


def test_points_off_the_target_are_drawn_at_its_edge() -> None:
    grey = blank(100, 100, (90, 90, 90))
    drawn = draw_matches(grey, grey, [(50, 50)], [(-300, 50)], lines=False, labels=[""], height=200)
    assert drawn.getpixel((8 + 200 + 8, 108)) == position_colours([(0, 0)])[0]


def test_no_matches_give_the_two_images() -> None:
    source, target = blank(100, 100, (1, 2, 3)), blank(50, 100, (4, 5, 6))
    drawn = draw_matches(source, target, [], [], height=100, confidence=[], correct=[], labels=[])
    assert drawn.size == (8 + 100 + 8 + 50 + 8, 116)
    assert (pixels(drawn)[8:108, 8:108] == (1, 2, 3)).all()
    assert (pixels(drawn)[8:108, 116:166] == (4, 5, 6)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3000, 2000)])
def test_images_of_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    corner = [(size[0] - 1, size[1] - 1)]
    drawn = draw_matches(
        blank(*size), blank(64, 48), corner, [(63, 47)], labels=["a rather long label"], height=120
    )
    assert drawn.width <= 2 * 2.5 * 120 + 3 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": [(1, 1)]}, "2 queries but 1 points"),
        ({"points": [(1, 1), (float("nan"), 2)]}, "points: number 1 is"),
        ({"queries": [(1, 1, 1)]}, "queries cannot be used"),
        ({"queries": (1.0, 1.0)}, "queries must have shape"),
        ({"labels": ["a"]}, "1 labels for 2 matches"),
        ({"confidence": [0.1]}, "confidence has 1 values for 2 matches"),
        ({"correct": [True]}, "correct has 1 values for 2 matches"),
        ({"min_confidence": 0.3}, "needs the confidence"),
    ],
)
def test_what_does_not_agree_is_refused(arguments: dict, message: str) -> None:
    given_ = {"queries": [(1, 1), (2, 2)], "points": [(1, 1), (2, 2)], **arguments}
    with pytest.raises(InputError, match=message):
        draw_matches(blank(9, 9), blank(9, 9), **given_)


def test_drawing_is_the_same_every_time() -> None:
    source = Image.effect_mandelbrot((120, 90), (-2, -1, 1, 1), 50).convert("RGB")
    queries = [(10, 10), (60, 70), (110, 30)]
    first, second = (draw_matches(source, source, queries, queries, height=120) for _ in range(2))
    assert first.tobytes() == second.tobytes()


# --- heat map ---


def brightest(image: Image.Image) -> np.ndarray:
    """Mean position (x, y) of the lightest pixels."""
    light = pixels(image) @ np.array([0.2126, 0.7152, 0.0722])
    rows, columns = np.nonzero(light >= light.max() - 2)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(
    ("size", "cell"),
    [((400, 200), (5, 30)), ((200, 400), (20, 41)), ((333, 500), (30, 12)), ((400, 400), (2, 50))],
)
def test_heat_peaks_where_the_cell_lies_on_the_image(size: tuple[int, int], cell: tuple[int, int]) -> None:
    canvas = Canvas(*size, 840)
    similarity = torch.zeros(60, 60)
    similarity[cell[1], cell[0]] = 1.0
    heat = draw_heatmap(blank(*size, "black"), similarity, canvas, alpha=1.0)
    assert heat.size == size
    # By hand: the cell stands for canvas point 14 g + 7; less the letterbox's offset, over the scale.
    long = max(size)
    expected = [
        (14 * cell[axis] + 7 - (840 - round(840 * size[axis] / long)) // 2) * long / 840 for axis in (0, 1)
    ]
    drawn = pixels(heat)
    x, y = round(expected[0]), round(expected[1])
    window = Image.fromarray(drawn[y - 2 : y + 3, x - 2 : x + 3].astype(np.uint8))
    centre = brightest(window) + np.array([x - 2, y - 2])
    assert np.abs(centre - expected).max() <= 1
    assert lightness(drawn[y, x]) > lightness(heat_colours(np.array(0.85)))
    # The white sides of the hollow diamond; nothing else is whiter than the colours of the heat.
    assert drawn[y, x + 4 : x + 15].min(axis=1).max() > 200
    far = drawn[(y + size[1] // 3) % size[1] if y < size[1] // 2 else y - size[1] // 3, x]
    assert far == pytest.approx(heat_colours(np.array(0.0)), abs=1)


def test_heat_is_interpolated_linearly_between_cells() -> None:
    canvas = Canvas(840, 840, 840)
    ramp = torch.arange(60.0).repeat(60, 1)
    heat = pixels(draw_heatmap(blank(840, 840, "black"), ramp, canvas, alpha=1.0))
    for x in (7, 14, 21, 413, 600, 833, 839):
        share = min((x - 7) / 14, 59) / 59
        assert heat[300, x] == pytest.approx(heat_colours(np.array(share)), abs=3)


def test_heat_blends_with_the_dimmed_grey_image() -> None:
    canvas = Canvas(400, 400, 840)
    similarity = torch.zeros(60, 60)
    similarity[0, 0] = 1.0
    drawn = pixels(draw_heatmap(blank(400, 400, (200, 200, 200)), similarity, canvas, alpha=0.6))
    assert drawn[200, 200] == pytest.approx(0.6 * heat_colours(np.array(0.0)) + 0.4 * 0.7 * 200, abs=1)


def test_heat_map_marks_the_point_and_the_peak() -> None:
    canvas = Canvas(400, 200, 840)
    similarity = torch.zeros(60, 60)
    similarity[30, 10] = 1.0
    drawn = draw_heatmap(blank(400, 200, "black"), similarity, canvas, point=(300.0, 60.0))
    assert drawn.getpixel((300, 60)) == (0, 170, 255)
    plain = draw_heatmap(blank(400, 200, "black"), similarity, canvas, point=(50, 150))
    assert plain.getpixel((300, 60)) != (0, 170, 255)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((10, 5), (320, 160)),
        ((400, 300), (400, 300)),
        ((8000, 1000), (1600, 200)),
        ((1, 1), (320, 320)),
        ((1, 700), (1, 700)),
    ],
)
def test_heat_map_is_of_readable_size(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert draw_heatmap(blank(*size), torch.rand(12, 12), Canvas(*size, 384)).size == shown


def test_heat_of_padding_does_not_stretch_the_colours() -> None:
    canvas = Canvas(400, 100, 840)
    similarity = torch.zeros(60, 60)
    similarity[30, 30] = 1.0
    expected = draw_heatmap(blank(400, 100), similarity, canvas)
    padded = similarity.clone()
    padded[:10], padded[-10:] = 50.0, -50.0
    assert draw_heatmap(blank(400, 100), padded, canvas).tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_flat_and_broken_maps_are_drawn(value: float) -> None:
    canvas = Canvas(400, 300, 840)
    drawn = pixels(draw_heatmap(blank(400, 300, "black"), torch.full((60, 60), value), canvas, alpha=1.0))
    assert drawn[200, 200] == pytest.approx(heat_colours(np.array(0.0)), abs=1)


def test_map_of_one_cell_is_drawn() -> None:
    assert draw_heatmap(blank(400, 300), torch.ones(1, 1), Canvas(400, 300, 840)).size == (400, 300)


def test_heat_map_refuses_what_does_not_fit(unchecked_types: None) -> None:
    canvas = Canvas(40, 30, 840)
    with pytest.raises(InputError, match="point: number 0 is"):
        draw_heatmap(blank(40, 30), torch.zeros(4, 4), canvas, point=(float("nan"), 1.0))
    with pytest.raises(InputError, match=r"must be square, got shape \(4, 5\)"):
        draw_heatmap(blank(40, 30), torch.zeros(4, 5), canvas)
    with pytest.raises(InputError, match="image of 40x30 pixels, the image has 41x30"):
        draw_heatmap(blank(41, 30), torch.zeros(4, 4), canvas)
    with pytest.raises(InputError, match="alpha must lie between 0 and 1"):
        draw_heatmap(blank(40, 30), torch.zeros(4, 4), canvas, alpha=1.5)


# --- cold start ---


def test_matplotlib_is_not_imported() -> None:
    code = "import sys, geoaware.drawing; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", ["circle", "diamond"])
def test_markers_drawn_together_are_those_drawn_one_by_one(shape: Shape) -> None:
    points = np.random.default_rng(0).uniform(-5, 65, (300, 2))
    marks = [Mark((k % 256, 90, 30), shape, hollow=k % 3 == 0) for k in range(300)]
    single = blank(60, 60)
    for point, mark in zip(points, marks, strict=True):
        single = draw_points(single, [point], [mark])
    # An image of whole numbers between two markers rounds.
    difference = np.abs(pixels(draw_points(blank(60, 60), points, marks)) - pixels(single))
    assert difference.max() <= 6


def test_many_matches_are_points_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Labels and lines, whose cost grows faster than their number, are for what can be read."""
    caplog.set_level("INFO", logger="geoaware")
    photo = blank(100, 80, "black")
    for count in (READABLE, READABLE + 1):
        points = np.random.default_rng(0).uniform(10, 70, (count, 2))
        drawn = pixels(draw_matches(photo, photo, points, points))
        between = drawn[:, drawn.shape[1] // 2 - 2 : drawn.shape[1] // 2 + 2]
        assert (between != 255).any() == (count == READABLE), "lines cross the gap"
    assert caplog.messages == ["251 matches are drawn as points alone, without labels and lines"]
