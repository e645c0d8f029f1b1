from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoaware.method.geometry import (
    POSES,
    Canvas,
    Placement,
    Pose,
    as_points,
    clamp_points,
    opposite,
    pose_image,
    pose_points,
    pose_size,
)

sides = st.integers(1, 9000)


def test_canvas_of_a_landscape_image_by_hand() -> None:
    canvas = Canvas(width=500, height=375, size=840)
    assert canvas.inner == (840, 630)
    assert canvas.offset == (0, 105)
    assert canvas.scale == 1.68
    torch.testing.assert_close(
        canvas.to_canvas([(100, 50)]), torch.tensor([[168.0, 189.0]], dtype=torch.float64)
    )
    assert canvas.patch([(168.0, 189.0)], 60).tolist() == [[12, 13]]
    assert canvas.from_grid([(12, 13)], 60).tolist() == [[14 * 12 + 7, 14 * 13 + 7]]


def test_offset_is_floored_on_the_short_axis_of_a_portrait_image() -> None:
    canvas = Canvas(width=333, height=500, size=840)
    assert canvas.inner == (round(840 * 333 / 500), 840)
    assert canvas.offset == ((840 - 559) // 2, 0)


def test_short_side_rounds_half_to_even() -> None:
    assert Canvas(4, 1, 2).inner == (2, 1)  # 0.5 would be 0: at least one pixel
    assert Canvas(8, 5, 4).inner == (4, 2)  # 2.5 to 2
    assert Canvas(8, 7, 4).inner == (4, 4)  # 3.5 to 4


def test_cell_of_odd_side_uses_the_floor_of_its_half() -> None:
    canvas = Canvas(100, 100, 100)
    assert canvas.from_grid([(0, 1)], 20).tolist() == [[2, 7]]


@given(
    sides,
    sides,
    st.sampled_from([(840, 60), (320, 32), (518, 37), (960, 60), (448, 32), (105, 7)]),
    st.data(),
)
def test_points_come_back_to_a_ten_thousandth_of_a_pixel(
    width: int, height: int, layout: tuple[int, int], data: st.DataObject
) -> None:
    size, grid = layout
    canvas = Canvas(width, height, size)
    x = data.draw(st.floats(0, width - 1))
    y = data.draw(st.floats(0, height - 1))
    there = canvas.to_grid(canvas.to_canvas([(x, y)]), grid)
    back = canvas.to_pixels(canvas.from_grid(there, grid))
    assert (back - torch.tensor([[x, y]], dtype=torch.float64)).abs().max() < 1e-4


def test_a_turned_part_of_an_image_by_hand() -> None:
    # The part is 20 x 10. Turned anticlockwise it is 10 x 20, and its top right corner becomes the top left.
    canvas = Canvas(100, 50, 40, turn="rot90", box=(30, 10, 50, 20))
    assert canvas.shown == (10, 20)
    assert (canvas.scale, canvas.inner, canvas.offset) == (2.0, (20, 40), (10, 0))
    points = [(49, 10), (30, 10), (49, 19), (35.5, 12.0), (0, 0)]
    laid = [[10.0, 0.0], [10.0, 38.0], [28.0, 0.0], [14.0, 27.0], [-10.0, 98.0]]
    assert canvas.to_canvas(points).tolist() == laid
    assert canvas.to_pixels(laid).tolist() == [list(map(float, point)) for point in points]
    assert canvas.holds(points).tolist() == [True, True, True, True, False]
    assert canvas.holds([(50, 15), (49.9, 15), (40, 20), (40, 9.9)]).tolist() == [False, True, False, False]
    assert canvas.cells(4) == (slice(0, 4), slice(1, 3))
    for whole in (None, (0, 0, 100, 50)):
        assert Canvas(100, 50, 40, box=whole).holds([(-3, 99)]).tolist() == [True]


@pytest.mark.parametrize("turn", ["identity", "rot90", "rot180", "rot-90"])
@pytest.mark.parametrize("box", [None, (3, 5, 40, 17), (0, 0, 1, 1)])
def test_a_canvas_renders_what_is_cut_out_and_turned(turn: Pose, box: tuple[int, int, int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    image, canvas = Image.fromarray(values), Canvas(47, 31, 64, turn, box)
    view = pose_image(image.crop(box or (0, 0, 47, 31)), turn)
    expected = Canvas(*view.size, 64).render(view)
    assert canvas.render(image).tobytes() == expected.tobytes()
    assert canvas.shown == view.size
    left, top, right, bottom = canvas.part
    points = torch.tensor([(left, top), (right - 1, bottom - 1)], dtype=torch.float64)
    torch.testing.assert_close(canvas.to_pixels(canvas.to_canvas(points)), points)
    # The pixel lies where the view's own canvas has it.
    here = pose_points(points - points[0], (right - left, bottom - top), turn)
    torch.testing.assert_close(canvas.to_canvas(points), Canvas(*view.size, 64).to_canvas(here))


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("turn", ["identity", "rot90", "rot180", "rot-90"])
def test_the_canvas_of_a_pose_shows_the_same_part_in_that_pose(pose: Pose, turn: Pose) -> None:
    values = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    image, canvas = Image.fromarray(values), Canvas(47, 31, 16, turn, (3, 5, 40, 17))
    posed = canvas.posed(pose)
    seen = posed.view(pose_image(image, pose))
    assert seen.tobytes() == pose_image(canvas.view(image), pose).tobytes()
    assert Canvas(47, 31, 16).posed(pose) == Canvas(*pose_size((47, 31), pose), 16)


@pytest.mark.parametrize("pose", POSES)
def test_the_opposite_of_a_pose_undoes_it(pose: Pose) -> None:
    points = torch.tensor([(0.0, 0.0), (8.5, 3.25)])
    turned = pose_points(points, (10, 5), pose)
    assert pose_points(turned, pose_size((10, 5), pose), opposite(pose)).tolist() == points.tolist()


@pytest.mark.parametrize("box", [(0, 0, 11, 5), (-1, 0, 5, 5), (4, 0, 4, 5), (0, 3, 5, 2)])
def test_a_box_that_is_no_part_of_the_image_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="is no part of an image of 10x5"):
        Canvas(10, 5, 8, box=box)
    with pytest.raises(ValueError, match="does not mirror it"):
        Canvas(10, 5, 8, turn="flip")


@given(sides, sides, st.data())
def test_patch_is_the_floor_clamped_to_the_map(width: int, height: int, data: st.DataObject) -> None:
    canvas = Canvas(width, height, 840)
    xy = (data.draw(st.floats(-100, 1000)), data.draw(st.floats(-100, 1000)))
    expected = [min(max(int(np.floor(v / 14)), 0), 59) for v in xy]
    # A point within rounding of a cell's edge may fall to either side.
    if all(abs(v / 14 - round(v / 14)) > 1e-9 for v in xy):
        assert canvas.patch([xy], 60).tolist() == [expected]


def test_cells_of_the_image_leave_the_padding_out() -> None:
    rows, columns = Canvas(500, 250, 320).cells(32)
    assert (rows.start, rows.stop) == (8, 24)
    assert (columns.start, columns.stop) == (0, 32)


def test_points_keep_a_floating_dtype_and_lists_become_double() -> None:
    canvas = Canvas(10, 10, 20)
    assert canvas.to_canvas(torch.ones(3, 2)).dtype == torch.float32
    assert canvas.to_canvas([(1, 1)]).dtype == torch.float64
    assert canvas.to_canvas(np.array([[1, 1]])).dtype == torch.float64
    assert canvas.to_canvas([]).shape == (0, 2)


def test_points_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 2\)"):
        as_points([(1, 2, 3)])


def test_canvas_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Canvas(0, 5, 10)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 9), (640, 480), (480, 640), (3000, 1), (7, 5)])
def test_render_puts_the_image_where_the_arithmetic_says(size: tuple[int, int]) -> None:
    canvas = Canvas(*size, 64)
    board = np.array(canvas.render(Image.new("RGB", size, "white")))
    (left, top), (wide, high) = canvas.offset, canvas.inner
    assert board.shape == (64, 64, 3)
    assert (board[top : top + high, left : left + wide] == 255).all()
    assert board.sum() == wide * high * 3 * 255


def test_render_refuses_a_image_of_another_size() -> None:
    with pytest.raises(ValueError, match="5x5"):
        Canvas(5, 5, 10).render(Image.new("RGB", (6, 5)))


@pytest.mark.parametrize("pose", POSES)
def test_posed_points_follow_the_posed_pixels(pose) -> None:
    size = (5, 3)
    values = np.arange(15, dtype=np.uint8).reshape(3, 5)
    turned = np.array(pose_image(Image.fromarray(values), pose))
    assert turned.shape[::-1] == pose_size(size, pose)
    everywhere = [(x, y) for y in range(3) for x in range(5)]
    for (x, y), (tx, ty) in zip(everywhere, pose_points(everywhere, size, pose).long().tolist(), strict=True):
        assert turned[ty, tx] == values[y, x]


@pytest.mark.parametrize(
    ("pose", "back"), [(each, {"rot90": "rot-90", "rot-90": "rot90"}.get(each, each)) for each in POSES]
)
def test_turning_back_undoes_a_pose(pose, back) -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 2.0], [1.5, 0.25]], dtype=torch.float64)
    turned = pose_points(pose_points(points, (5, 3), pose), pose_size((5, 3), pose), back)
    torch.testing.assert_close(turned, points)


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_pose_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="identity, flip"):
        pose_size((2, 3), "rot45")  # type: ignore[arg-type]


def test_clamp_moves_outside_points_to_the_edge_pixel() -> None:
    assert clamp_points([(-3, 2), (9.7, 99)], (10, 5)).tolist() == [[0, 2], [9, 4]]


def shown(pixels: torch.Tensor, placement: Placement) -> torch.Tensor:
    """One channel (s, s), as torch resamples it."""
    size = pixels.shape[-1]
    grid = F.affine_grid(placement.sampling(size)[None], [1, 1, size, size], align_corners=False)
    return F.grid_sample(pixels[None, None], grid, align_corners=False)[0, 0]


class TestPlacement:
    def test_by_hand(self) -> None:
        """Offset (3, 1) of the pivot: mirrored (-3, 1), turned clockwise (-1, -3), twice as far (-2, -6)."""
        placement = Placement((10.0, 20.0), (30.0, 5.0), scale=2.0, degrees=90.0, mirrored=True)
        expected = torch.tensor([[28.0, -1.0], [30.0, 5.0]], dtype=torch.float64)
        torch.testing.assert_close(placement.place([(13, 21), (10, 20)]), expected)
        moved = Placement((1.0, 1.0), (4.0, 3.0)).place([(0.5, 7.0)])
        assert moved.tolist() == [[3.5, 9.0]]

    @pytest.mark.parametrize(
        ("degrees", "mirrored", "pose"),
        [
            (0.0, False, "identity"),
            (0.0, True, "flip"),
            (90.0, False, "rot-90"),
            (180.0, False, "rot180"),
            (-90.0, False, "rot90"),
        ],
    )
    def test_about_the_middle_it_is_the_pose(self, degrees: float, mirrored: bool, pose) -> None:
        middle = (4.0, 4.0)
        placement = Placement(middle, middle, degrees=degrees, mirrored=mirrored)
        points = torch.tensor([[0.0, 0.0], [8.0, 3.0], [1.5, 6.25]], dtype=torch.float64)
        torch.testing.assert_close(placement.place(points), pose_points(points, (9, 9), pose))

    def test_it_is_mirrored_before_it_is_turned(self) -> None:
        """What lies right of the pivot comes to lie left, and from there, clockwise, above."""
        placement = Placement((0.0, 0.0), (0.0, 0.0), degrees=90.0, mirrored=True)
        torch.testing.assert_close(
            placement.place([(1, 0)]), torch.tensor([[0.0, -1.0]], dtype=torch.float64)
        )

    @given(st.floats(0.2, 5), st.floats(-180, 180), st.booleans(), st.data())
    def test_the_way_back(self, scale: float, degrees: float, mirrored: bool, data: st.DataObject) -> None:
        """Turned by the other angle; a mirrored one by the same, as it is mirrored first both ways."""
        place = st.tuples(st.floats(-500, 500), st.floats(-500, 500))
        pivot, centre, point = (data.draw(place) for _ in range(3))
        there = Placement(pivot, centre, scale, degrees, mirrored)
        back = Placement(centre, pivot, 1 / scale, degrees if mirrored else -degrees, mirrored)
        found = back.place(there.place([point]))
        torch.testing.assert_close(found, torch.tensor([point], dtype=torch.float64), atol=1e-8, rtol=0)
        length = math.dist(there.place([point])[0].tolist(), centre)
        assert length == pytest.approx(scale * math.dist(point, pivot), abs=1e-8)

    def test_points_keep_their_dtype_and_shape(self) -> None:
        placement = Placement((1.0, 2.0), (3.0, 4.0), 1.5, 30.0)
        assert placement.place(torch.ones(2, 5, 2)).shape == (2, 5, 2)
        assert placement.place(torch.ones(3, 2)).dtype == torch.float32
        assert placement.place([(1, 1)]).dtype == torch.float64
        assert placement.place([]).shape == (0, 2)

    @pytest.mark.parametrize("size", [16, 17])
    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0, 270.0])
    def test_a_bright_pixel_moves_as_a_whole(self, size: int, mirrored: bool, degrees: float) -> None:
        """Whole moves and quarter turns put pixels on pixels, on canvases of even and odd sides."""
        placement = Placement((6.0, 7.0), (8.0, 9.0), degrees=degrees, mirrored=mirrored)
        pixels = torch.zeros(size, size)
        pixels[4, 3] = 1
        ((x, y),) = placement.place([(3, 4)]).round().long().tolist()
        expected = torch.zeros(size, size)
        expected[y, x] = 1
        torch.testing.assert_close(shown(pixels, placement), expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        "placement",
        [
            Placement((30.0, 24.0), (40.0, 28.0), 1.6, 25.0),
            Placement((30.0, 24.0), (35.5, 29.25), 0.7, -130.0, mirrored=True),
            Placement((12.0, 50.0), (40.0, 52.0), 1.2, 0.0, mirrored=True),
        ],
    )
    def test_a_spot_moves_where_the_points_go(self, placement: Placement) -> None:
        along = torch.arange(64.0)
        spot = torch.exp(-((along[None] - 26) ** 2 + (along[:, None] - 31) ** 2) / (2 * 2.0**2))
        found = shown(spot, placement)
        centre = (
            torch.stack([(found.sum(dim=0) * along).sum(), (found.sum(dim=1) * along).sum()]) / found.sum()
        )
        torch.testing.assert_close(centre, placement.place(torch.tensor([26.0, 31.0])), atol=0.02, rtol=0)
