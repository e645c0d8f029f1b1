"""Dense fields between views of one scene, whose counterparts are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.field import Field
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import CELL, SIDE, matcher, view
from tests.evaluation.tiny import Sided
from tests.toys import Seeing, beacon, placed

MOVED = (18, 9)
"""How far the target's view lies from the source's, in pixels: two cells and one."""


@pytest.fixture(scope="module")
def found() -> Field:
    return matcher("off").dense(view(0, 0), view(*MOVED), size=None)


def inside(field: Field) -> torch.Tensor:
    """Pixels whose counterpart lies well within the target."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    edge = 2 * CELL
    return (x > MOVED[0] + edge) & (x < SIDE - edge) & (y > MOVED[1] + edge) & (y < SIDE - edge)


def test_every_pixel_moves_with_the_view(found: Field) -> None:
    assert found.points.shape == (SIDE, SIDE, 2)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    expected = torch.stack([x - MOVED[0], y - MOVED[1]], dim=-1)
    error = (found.points - expected).norm(dim=-1)[inside(found)]
    assert error.median() < CELL / 2
    assert (error < CELL).float().mean() > 0.95
    assert repr(found) == "<Field 117x117, pose identity>"
    assert found._repr_png_()[:4] == b"\x89PNG"


def test_points_are_read_as_they_are_matched() -> None:
    source, target, exact = view(0, 0), view(*MOVED), matcher("off")
    field = exact.dense(source, target, size=None, step=1)
    queries = [(40, 30), (77, 91), (60, 60)]
    one_by_one = exact.match(source, target, queries)
    assert torch.allclose(field.at(queries).float(), one_by_one.points.float(), atol=1e-3)
    picked = [field.confidence[y, x] for x, y in queries]
    assert torch.allclose(torch.stack(picked), one_by_one.confidence, atol=1e-5)


def test_what_lies_beside_a_small_object_is_looked_for_in_the_whole_target() -> None:
    source, target = (placed(beacon(90), corner, (585, 405)) for corner in ((270, 45), (90, 180)))
    best = MatchSettings("window", window=3, temperature=0.001, inside_picture=True)
    zooming, whole = (Matcher(Seeing(), best, "off", zoom=zoom) for zoom in ("auto", "off"))
    field, plain = (each.dense(source, target, size=None, step=1) for each in (zooming, whole))
    cut = field.source.maps["identity"].canvas
    on, beside = [(300.0, 90.0), (340.0, 70.0)], [(20.0, 20.0), (560.0, 380.0)]
    assert cut.holds(on).all()
    assert not cut.holds(beside).any()
    assert torch.allclose(field.at(on).float(), zooming.match(source, target, on).points.float(), atol=1e-3)
    assert torch.equal(field.at(beside), plain.at(beside))


def test_what_is_carried_lies_where_it_belongs(found: Field) -> None:
    """The target's own pixels, laid on the source, give the source again; holes are transparent."""
    carried = np.asarray(found.carry(found.target.image, 0.0, float("inf")), dtype=float)
    assert carried.shape == (SIDE, SIDE, 4)
    assert (carried[..., 3] == 255).all()
    own, other = (np.asarray(each.image, dtype=float) for each in (found.source, found.target))
    away, before = (np.abs(each - own)[inside(found).numpy()].mean() for each in (carried[..., :3], other))
    assert away < before / 2
    sure = np.asarray(found.carry(found.target.image))[..., 3] > 0
    assert (sure == found.accepted().numpy()).all()
    assert 0 < sure.mean() < 1
    nothing = np.asarray(found.carry(found.target.image, 1.01))
    assert not nothing[..., 3].any()


def test_a_mask_is_carried_as_alpha(found: Field) -> None:
    mask = Image.new("L", found.target.size)
    mask.paste(255, (0, 0, 60, 117))
    image = found.target.image.convert("RGBA")
    image.putalpha(mask)
    alpha = np.asarray(found.carry(image, 0.0, float("inf")).getchannel("A"), dtype=float)
    there = inside(found).numpy()
    expected = np.zeros_like(alpha)
    expected[:, : 60 + MOVED[0]] = 255
    assert np.abs(alpha - expected)[there].mean() < 0.1 * 255
    with pytest.raises(InputError, match="to carry has 10x10 pixels, the one that was matched 117x117; give"):
        found.carry(Image.new("RGB", (10, 10)))


def test_only_the_masked_object_is_looked_for() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:50, 30:80] = True
    made = matcher("off")
    field = made.dense(made.encode(view(0, 0), mask), view(*MOVED), size=None)
    assert (field.points.isfinite().all(dim=-1).numpy() == mask).all()
    assert not field.accepted(0, 9).numpy()[~mask].any()


def test_a_thin_plate_follows_an_even_motion(found: Field) -> None:
    """Far from its knots too, where single matches go astray."""
    smooth = found.smoothed(1e-4)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    expected = torch.stack([x - MOVED[0], y - MOVED[1]], dim=-1).float().clamp(0, SIDE - 1)
    rough, bent = ((each.points - expected).norm(dim=-1) for each in (found, smooth))
    assert bent.mean() < rough.mean()
    assert bent[inside(found)].max() < CELL
    assert (smooth.confidence == found.confidence).all()
    with pytest.raises(InputError, match="fewer than four matches are sure enough to hold a thin plate"):
        found.smoothed(min_confidence=1.01)
    line = replace(found, confidence=torch.zeros_like(found.confidence))
    line.confidence[60] = 1.0
    with pytest.raises(InputError, match="the sure matches lie on a line, which holds no thin plate"):
        line.smoothed(max_cycle_error=float("inf"))


def test_a_mirrored_source_is_matched_through_its_mirror() -> None:
    both = Matcher(Sided(), MatchSettings(window=3, inside_picture=True), "flip")
    turned = view(0, 0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert both.dense(turned, view(*MOVED)).pose == "flip"


def test_files_hold_the_field(found: Field, tmp_path: Path) -> None:
    with np.load(found.save(tmp_path / "f.npz")) as content:
        assert (content["points"] == found.points.numpy()).all()
        assert (content["confidence"] == found.confidence.numpy()).all()
        assert (content["cycle_error"] == found.cycle_error.numpy()).all()
        assert content["source_size"].tolist() == content["target_size"].tolist() == [SIDE, SIDE]
        assert str(content["pose"]) == "identity"
    raw = found.save(tmp_path / "f.flo").read_bytes()
    assert raw[:4] == b"PIEH"  # the bytes of 202021.25, which Middlebury's readers look for
    assert np.frombuffer(raw[4:12], "<i4").tolist() == [SIDE, SIDE]
    flow = np.frombuffer(raw[12:], "<f4").reshape(SIDE, SIDE, 2)
    assert flow[60, 50] == pytest.approx(found.points[60, 50].numpy() - [50, 60], abs=1e-3)
    assert Image.open(found.save(tmp_path / "f.png")).width > 900
    with pytest.raises(InputError, match=r"f.txt: a field is written as .npz, .flo or .png"):
        found.save(tmp_path / "f.txt")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f.flo", "f.npz", "f.png"]


def test_pixels_without_a_counterpart_are_unknown_in_flo(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:50, 30:80] = True
    made = matcher("off")
    field = made.dense(made.encode(view(0, 0), mask), view(*MOVED), size=None)
    flow = np.fromfile(field.save(tmp_path / "f.flo"), "<f4", offset=12).reshape(SIDE, SIDE, 2)
    assert (np.abs(flow[~mask]) > 1e9).all()
    assert (np.abs(flow[mask]) < 1e3).all()


@pytest.mark.parametrize("given", [{"size": 0}, {"step": 0}])
def test_a_field_of_nothing_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(InputError, match="size and step of a field must be at least 1"):
        matcher("off").dense(view(0, 0), view(0, 0), **given)


def test_colours_tell_counterparts(found: Field) -> None:
    """The place of the target's corner has one colour in both halves of the picture, and holes are grey."""
    picture = np.asarray(found.draw(0.0, float("inf")), dtype=float)
    scale = 480 / SIDE
    here = picture[12 + round(70 * scale), 12 + round(80 * scale)]
    there = picture[12 + round((70 - MOVED[1]) * scale), 24 + 480 + round((80 - MOVED[0]) * scale)]
    assert np.abs(here - there).max() < 60
    grey = np.asarray(found.draw(1.01), dtype=float)[100:400, 100:400]
    assert np.ptp(grey, axis=-1).max() <= 2
