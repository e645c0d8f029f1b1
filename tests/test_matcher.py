from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.errors import InputError
from geoaware.geometry import pose_image, pose_points
from geoaware.matcher import Matcher, check_points, defaults_of
from geoaware.matching import MatchSettings
from tests.toys import Patches, face, noise

PATCH = MatchSettings("window", window=5, inside_picture=True)


@pytest.fixture
def matcher() -> Matcher:
    return Matcher(Patches().eval(), PATCH, pose="off")


@pytest.fixture(scope="module")
def lite() -> Matcher:
    return Matcher.from_pretrained("lite", device="cpu")


def test_a_picture_matches_itself(matcher: Matcher) -> None:
    picture = noise(130, 117, 0)
    points = [(10.0, 20.0), (64.0, 58.0), (129.0, 116.0)]
    result = matcher.match(picture, picture, points)
    cell = 130 / 13
    assert (result.points - torch.tensor(points)).abs().max() <= cell
    assert result.cycle_error.max() < 0.05
    assert result.pose == "identity"
    assert result.distances == {}


@pytest.mark.parametrize("size", [(117, 117), (117, 65), (65, 117)])
def test_mirrored_input_gives_mirrored_output(matcher: Matcher, size: tuple[int, int]) -> None:
    a, b = noise(*size, 1), noise(*size, 2)
    points = [(float(x), float(y)) for x in range(3, size[0], 23) for y in range(2, size[1], 17)]
    straight = matcher.match(a, b, points)
    mirrored = matcher.match(pose_image(a, "flip"), pose_image(b, "flip"), pose_points(points, size, "flip"))
    back = pose_points(mirrored.points, size, "flip")
    torch.testing.assert_close(back, straight.points, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored.confidence, straight.confidence, atol=1e-4, rtol=0)


def test_pose_alignment_finds_the_turned_picture(matcher: Matcher) -> None:
    a = noise(117, 117, 3)
    for pose in ("rot90", "rot180", "rot-90"):
        result = matcher.match(a, pose_image(a, pose), [(50, 40)], pose="rotate")
        assert result.pose == pose
        assert min(result.distances, key=result.distances.__getitem__) == pose
        assert (result.points - pose_points([(50, 40)], a.size, pose)).abs().max() < 6


def test_pose_off_computes_no_distance_and_unknown_is_refused(matcher: Matcher) -> None:
    with pytest.raises(InputError, match="choose auto, off, flip, rotate"):
        matcher.match(face(), face(), [(5, 5)], pose="spin")


def test_a_picture_is_encoded_once_per_pose(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    levels = matcher.extractor.levels
    monkeypatch.setattr(
        matcher.extractor, "levels", lambda pixels: seen.append(len(pixels)) or levels(pixels)
    )
    a, b = matcher.encode(face()), matcher.encode(face(colour="gray"))
    for _ in range(3):
        matcher.match(a, b, [(80, 80)], pose="flip")
    assert sum(seen) == 3  # a, b, and a mirrored


def test_masks_choose_the_pose_by_the_object(matcher: Matcher) -> None:
    a = noise(117, 117, 3)
    mask = np.zeros((117, 117), bool)
    mask[30:80, 20:60] = True
    result = matcher.match(matcher.encode(a, mask), pose_image(a, "rot180"), [(40, 50)], pose="rotate")
    assert result.pose == "rot180"
    assert result.distances["rot180"] == pytest.approx(0, abs=0.05)
    with pytest.raises(InputError, match="the mask has 5x4 pixels"):
        matcher.encode(a, np.ones((4, 5), bool))


def test_labels_swap_under_a_flip(matcher: Matcher) -> None:
    a = face()
    b = pose_image(a, "flip")
    points = [(0.35 * 160, 80.0), (0.65 * 160, 80.0)]
    result = matcher.match(a, b, points, pose="flip", flip_pairs=[(0, 1)])
    if result.pose == "flip":
        assert result.matches.read_at[0].tolist() == pytest.approx([159 - points[1][0], 80])
    assert len(result.points) == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(1, 2), (float("nan"), 3)], "point 1 is"),
        ([(160, 3)], r"point 0 \(160, 3\) lies outside the picture of 160x160 pixels"),
        ([(-1, 3)], "outside"),
        ([(1, 2, 3)], "points cannot be used"),
        ([1, 2], "list of"),
        ("ab", "points cannot be used"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_points_are_checked(points, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_points(points, (160, 160))


def test_result_as_json(matcher: Matcher) -> None:
    result = matcher.match(face(), face(), [(40, 50)], pose="flip")
    content = json.loads(result.to_json())
    assert content["matches"][0]["query"] == [40, 50]
    assert set(content["matches"][0]) == {"query", "match", "confidence", "cycle_error"}
    assert set(content["distances"]) == {"identity", "flip"}
    assert content["pose"] in ("identity", "flip")
    assert content["pose_setting"] == "flip"
    assert content["extractor"] == "patches(13, 9)"
    assert content["versions"]["torch"] == torch.__version__


def test_pictures_of_a_result(matcher: Matcher) -> None:
    result = matcher.match(face(), face(colour="gray"), [(56, 80), (104, 80)])
    assert result.draw().height >= 160
    assert result.heatmap(1).width >= 160
    with pytest.raises(InputError, match="no query 2"):
        result.heatmap(2)


def test_no_points(matcher: Matcher) -> None:
    result = matcher.match(face(), face(), [])
    assert result.points.shape == (0, 2)
    assert json.loads(result.to_json())["matches"] == []


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 40), (2000, 3)])
def test_tiny_and_thin_pictures(lite: Matcher, size: tuple[int, int]) -> None:
    result = lite.match(Image.new("RGB", size, "red"), face(), [(size[0] - 1, 0)], pose="rotate")
    assert result.points.isfinite().all()
    assert (result.points >= 0).all()
    assert (result.points <= 159).all()


def test_lite_finds_the_parts_of_a_face(lite: Matcher) -> None:
    """Real weights on drawn cats of another size, colour and background shape."""
    a, b = face(200, 200), face(300, 240, colour="lightgray", ears="dimgray")
    parts = torch.tensor([[0.35, 0.5], [0.65, 0.5], [0.5, 0.68], [0.19, 0.2], [0.81, 0.2]])
    result = lite.match(a, b, parts * torch.tensor([200.0, 200.0]))
    away = (result.points - parts * torch.tensor([300.0, 240.0])).norm(dim=1)
    assert (away < 0.1 * 300).sum() >= 4, away


def test_names() -> None:
    with pytest.raises(InputError, match="unknown extractor 'heavy'; known: efficientnet-lite0"):
        Matcher.from_pretrained("heavy")
    assert defaults_of("dinov2-base").match.window == 11
    assert defaults_of("dinov2-base").pose == "flip"
