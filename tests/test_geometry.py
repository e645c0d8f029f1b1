from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoaware.geometry import (
    POSES,
    Canvas,
    as_points,
    clamp_points,
    pose_image,
    pose_points,
    pose_size,
    unpose_points,
)

sides = st.integers(1, 9000)


def test_canvas_of_a_landscape_picture_by_hand() -> None:
    canvas = Canvas(width=500, height=375, size=840)
    assert canvas.inner == (840, 630)
    assert canvas.offset == (0, 105)
    assert canvas.scale == 1.68
    torch.testing.assert_close(
        canvas.to_canvas([(100, 50)]), torch.tensor([[168.0, 189.0]], dtype=torch.float64)
    )
    assert canvas.patch([(168.0, 189.0)], 60).tolist() == [[12, 13]]
    assert canvas.from_grid([(12, 13)], 60).tolist() == [[14 * 12 + 7, 14 * 13 + 7]]


def test_offset_is_floored_on_the_short_axis_of_a_portrait_picture() -> None:
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


@given(sides, sides, st.data())
def test_patch_is_the_floor_clamped_to_the_map(width: int, height: int, data: st.DataObject) -> None:
    canvas = Canvas(width, height, 840)
    xy = (data.draw(st.floats(-100, 1000)), data.draw(st.floats(-100, 1000)))
    expected = [min(max(int(np.floor(v / 14)), 0), 59) for v in xy]
    # A point within rounding of a cell's edge may fall to either side.
    if all(abs(v / 14 - round(v / 14)) > 1e-9 for v in xy):
        assert canvas.patch([xy], 60).tolist() == [expected]


def test_cells_of_the_picture_leave_the_padding_out() -> None:
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
def test_render_puts_the_picture_where_the_arithmetic_says(size: tuple[int, int]) -> None:
    canvas = Canvas(*size, 64)
    board = np.array(canvas.render(Image.new("RGB", size, "white")))
    (left, top), (wide, high) = canvas.offset, canvas.inner
    assert board.shape == (64, 64, 3)
    assert (board[top : top + high, left : left + wide] == 255).all()
    assert board.sum() == wide * high * 3 * 255


def test_render_refuses_a_picture_of_another_size() -> None:
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


@pytest.mark.parametrize("pose", POSES)
def test_unpose_undoes_pose(pose) -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 2.0], [1.5, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(unpose_points(pose_points(points, (5, 3), pose), (5, 3), pose), points)


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_pose_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="identity, flip"):
        pose_size((2, 3), "rot45")  # type: ignore[arg-type]


def test_clamp_moves_outside_points_to_the_edge_pixel() -> None:
    assert clamp_points([(-3, 2), (9.7, 99)], (10, 5)).tolist() == [[0, 2], [9, 4]]
