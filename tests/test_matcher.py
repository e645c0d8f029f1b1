from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.features import load_extractor
from geoaware.features.refined import RefinedExtractor
from geoaware.matcher import Matcher
from geoaware.method.alignment import PoseRule
from geoaware.method.geometry import pose_image, pose_points
from geoaware.method.matching import MatchSettings, descriptors, similarity
from geoaware.method.post_processor import PostProcessor
from geoaware.presets import Defaults, choose_post_processor, defaults_of
from geoaware.result import check_points
from geoaware.runs.errors import InputError
from tests.features.test_refined import LITE_CHANNELS, random_network
from tests.toys import Patches, face, noise

PATCH = MatchSettings("window", window=5, inside_picture=True)


@pytest.fixture
def matcher() -> Matcher:
    return Matcher(Patches().eval(), PATCH, pose="off")


@pytest.fixture(scope="module")
def lite() -> Matcher:
    return Matcher.from_pretrained("lite", device="cpu")


def test_a_image_matches_itself(matcher: Matcher) -> None:
    image = noise(130, 117, 0)
    points = [(10.0, 20.0), (64.0, 58.0), (129.0, 116.0)]
    result = matcher.match(image, image, points)
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


def test_pose_alignment_finds_the_turned_image(matcher: Matcher) -> None:
    a = noise(117, 117, 3)
    for pose in ("rot90", "rot180", "rot-90"):
        result = matcher.match(a, pose_image(a, pose), [(50, 40)], pose="rotate")
        assert result.pose == pose
        assert min(result.distances, key=result.distances.__getitem__) == pose
        assert (result.points - pose_points([(50, 40)], a.size, pose)).abs().max() < 6


def test_pose_off_computes_no_distance_and_unknown_is_refused(matcher: Matcher) -> None:
    with pytest.raises(InputError, match="choose auto, off, flip, rotate"):
        matcher.match(face(), face(), [(5, 5)], pose="spin")


def test_a_image_is_encoded_once_per_pose(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ([(160, 3)], r"point 0 \(160, 3\) lies outside the image of 160x160 pixels"),
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


def test_images_of_a_result(matcher: Matcher) -> None:
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
def test_tiny_and_thin_images(lite: Matcher, size: tuple[int, int]) -> None:
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


@pytest.fixture
def shipped_lite(tmp_path, monkeypatch) -> PostProcessor:
    """A post-processor in the place of the one that is shipped for lite-frozen."""
    identity = load_extractor("efficientnet-lite0", device="cpu").identity
    network = random_network(12, LITE_CHANNELS, extractor=identity, matching={"window": 7, "blend": 0.25})
    network.save_pretrained(tmp_path / "lite-frozen")
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path)
    return network


def test_similarity_is_that_of_refined_and_plain_features_by_their_shares() -> None:
    extractor, network = Patches().eval(), random_network()
    a, b = noise(117, 117, 1), noise(117, 65, 2)
    points = torch.tensor([[3.0, 4.0], [60.0, 60.0], [110.0, 90.0]])

    def similarities(**options: object) -> torch.Tensor:
        one, other = Matcher(extractor, PATCH, "off", **options).features([a, b])  # type: ignore[arg-type]
        return similarity(descriptors(one, points), other.data)

    plain, alone = similarities(), similarities(post_processor=network)
    assert (plain - alone).abs().max() > 0.05
    for blend in (0.3, 0.75):
        found = similarities(post_processor=network, blend=blend)
        torch.testing.assert_close(found, blend * alone + (1 - blend) * plain, atol=1e-5, rtol=0)


def test_a_blend_of_zero_is_no_post_processor() -> None:
    extractor = Patches().eval()
    plain, zero = Matcher(extractor), Matcher(extractor, post_processor=random_network(), blend=0)
    assert zero.describe() == plain.describe()
    assert (zero.pose, zero.settings, zero.post_processor, zero.blend) == (
        plain.pose,
        plain.settings,
        None,
        0,
    )
    a, b = (each.features([face()])[0] for each in (plain, zero))
    assert a.data.equal(b.data)
    assert a.extractor == b.extractor == "patches(13, 9)"
    assert Matcher(extractor, blend=0).identity == extractor.identity
    for blend in (0.5, 1.0, -1.0):
        with pytest.raises(InputError, match=f"a blend of {blend} needs a post-processor"):
            Matcher(extractor, blend=blend)


@pytest.mark.parametrize("pose", ["off", "flip", "rotate"])
def test_matching_with_a_post_processor(pose: str) -> None:
    network = random_network(grid=20)
    matcher = Matcher(Patches().eval(), PATCH, pose, post_processor=network, blend=0.5)
    image = noise(130, 117, 0)
    points = [(10.0, 20.0), (64.0, 58.0), (129.0, 116.0)]
    result = matcher.match(image, image, points)
    assert result.pose == "identity"
    assert (result.points - torch.tensor(points)).abs().max() <= 130 / 13
    assert result.similarity_map(0).shape == (20, 20)
    content = json.loads(result.to_json())
    assert content["post_processor"] == network.weights_hash()
    assert content["blend"] == 0.5
    assert content["extractor"] == matcher.identity == matcher.features([image])[0].extractor
    assert matcher.map_bytes == matcher.features([image])[0].data.nbytes


def test_features_of_other_blends_are_not_matched() -> None:
    extractor, network = Patches().eval(), random_network()
    half, whole = (Matcher(extractor, PATCH, "off", post_processor=network, blend=b) for b in (0.5, 1))
    with pytest.raises(ValueError, match="cannot match features of"):
        whole.match(half.encode(face()), face(), [(5, 5)])


def test_how_features_are_matched_by_default() -> None:
    lite = MatchSettings(window=9, temperature=0.03, inside_picture=True, interpolate=True)
    assert defaults_of("efficientnet-lite0") == Defaults(lite, "flip", PoseRule("imd", 0.01), 1.0)
    paper = MatchSettings(window=15, temperature=0.02, inside_picture=True, interpolate=True)
    assert defaults_of("efficientnet-lite0", random_network()) == Defaults(
        paper, "off", PoseRule("imd", 0.01), 1.0
    )
    assert defaults_of("sd15+dinov2-base", random_network()).match == MatchSettings(
        window=15, inside_picture=True
    )
    measured = random_network(
        matching={
            "window": 5,
            "temperature": 0.04,
            "blend": 0.6,
            "pose": "rotate",
            "pose_rule": "mutual-nn:0.02",
            "inside_picture": False,
        }
    )
    match = MatchSettings(window=5, temperature=0.04, inside_picture=False, interpolate=True)
    expected = Defaults(match, "rotate", PoseRule("mutual-nn", 0.02), 0.6)
    assert defaults_of("efficientnet-lite0", measured) == expected
    by_itself = Matcher(Patches().eval(), post_processor=measured)
    assert (by_itself.pose, by_itself.blend, by_itself.settings.window) == ("rotate", 0.6, 5)
    rule = PoseRule("imd")
    told = Matcher(Patches().eval(), PATCH, "off", rule, measured, blend=0.9)
    assert (told.pose, told.blend, told.settings, told.pose_rule) == ("off", 0.9, PATCH, rule)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"windw": 3}, "unknown key 'windw'; there are mode, window, temperature"),
        ({"pose": "spin"}, "unknown pose 'spin'; there are off, flip, rotate"),
        ({"pose_rule": "imd:x"}, "unknown pose rule 'imd:x'"),
        ({"temperature": -1}, "temperature and sigma must be positive"),
        ({"window": "wide"}, "info.matching in the post-processor's config"),
        ({"blend": "half"}, "info.matching in the post-processor's config"),
        (["window"], "info.matching in the post-processor's config"),
        ({"blend": 1.5}, r"the blend must be 0 .* got 1.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_weights_say_of_themselves_is_checked(measured, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Matcher(Patches().eval(), post_processor=random_network(matching=measured))


def test_lite_frozen_brings_the_shipped_post_processor(shipped_lite: PostProcessor, tmp_path) -> None:
    matcher = Matcher.from_pretrained("lite-frozen", device="cpu")
    assert isinstance(matcher.extractor, RefinedExtractor)
    assert matcher.extractor.weights == shipped_lite.weights_hash()
    assert (matcher.blend, matcher.settings.window, matcher.pose) == (0.25, 7, "off")
    assert matcher.features([face()])[0].data.shape == (128 + 1008, 48, 48)
    bare = Matcher.from_pretrained("efficientnet-lite0", device="cpu")
    none = Matcher.from_pretrained("lite-frozen", post_processor="none", device="cpu")
    assert bare.describe() == none.describe()
    assert bare.post_processor is none.post_processor is None
    assert bare.settings == defaults_of("efficientnet-lite0").match
    chosen = Matcher.from_pretrained(
        "efficientnet-lite0", post_processor=tmp_path / "lite-frozen", blend=1, device="cpu"
    )
    assert chosen.features([face()])[0].data.shape == (128, 12, 12)
    with pytest.raises(InputError, match=r"was trained on features of efficientnet-lite0\(canvas=448"):
        Matcher.from_pretrained("lite-frozen", device="cpu", canvas=320)


def test_choice_of_the_post_processor(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path)
    network = random_network()
    for name in ("lite-frozen", "efficientnet-lite0"):
        assert choose_post_processor(name) is None  # nothing is shipped
        assert choose_post_processor(name, "none") is choose_post_processor(name, None) is None
        assert choose_post_processor(name, network) is network
    network.save_pretrained(tmp_path / "lite-frozen")
    network.save_pretrained(tmp_path / "dinov2-base")
    assert choose_post_processor("dinov2-base") is None
    found = choose_post_processor("lite-frozen")
    assert found is not None
    assert found.weights_hash() == network.weights_hash()
    with pytest.raises(InputError, match=r"a.pth: no such file"):
        choose_post_processor("lite-frozen", tmp_path / "a.pth")


def test_names() -> None:
    with pytest.raises(InputError, match="unknown extractor 'heavy'; known: efficientnet-lite0"):
        Matcher.from_pretrained("heavy")
    assert defaults_of("dinov2-base").match.window == 11
    assert defaults_of("dinov2-base").pose == "flip"


def test_features_that_are_not_finite_are_an_error() -> None:
    extractor = Patches().eval()
    extractor.scale.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="features of the source or of the target are not finite"):
        Matcher(extractor, PATCH, "off").match(face(), face(), [(5, 5)])


def test_pairs_are_matched_as_one_by_one_and_their_images_encoded_once(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.png", "b.png", "c.png"]
    for seed, name in enumerate(names):
        noise(117, 117, seed).save(tmp_path / name)
    a, b, c = (tmp_path / each for each in names)
    pairs = [(a, b, [(30, 40)]), (a, str(c), [(50, 60), (7, 9)]), (b, c, [])]
    alone = [matcher.match(*pair) for pair in pairs]
    read, encode = [], matcher.encode
    monkeypatch.setattr(matcher, "encode", lambda image, *more: read.append(image) or encode(image, *more))
    found = list(matcher.match_pairs(iter(pairs), pose="off"))
    assert [each for each in read if isinstance(each, str | Path)] == [a, b, str(c)]
    for one, other in zip(alone, found, strict=True):
        assert torch.equal(one.points, other.points)
    with pytest.raises(InputError, match="point 0"):
        next(matcher.match_pairs([(a, b, [(117, 0)])]))
    assert list(matcher.match_pairs([])) == []


def test_a_result_is_short_in_text_and_an_image_in_a_notebook(matcher: Matcher) -> None:
    result = matcher.match(face(), face(), [(80, 80), (10, 20)])
    low, high = sorted(result.confidence.tolist())
    assert repr(result) == f"<MatchResult 2 points, pose identity, confidence {low:.2f} to {high:.2f}>"
    assert repr(matcher.match(face(), face(), [])) == "<MatchResult 0 points, pose identity>"
    assert repr(result.source) == "<Encoded 160x160, features of identity>"
    shown = Image.open(BytesIO(result._repr_png_()))
    assert np.array_equal(np.array(shown), np.array(result.draw()))


def test_tensors_are_images(matcher: Matcher) -> None:
    image = face()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    expected = matcher.encode(image).maps["identity"].data
    for given in (pixels, pixels / 255, (pixels / 255).double()):
        assert torch.equal(matcher.encode(given).maps["identity"].data, expected)
    grey = matcher.encode(pixels[:1])
    assert torch.equal(grey.maps["identity"].data, matcher.encode(pixels[0]).maps["identity"].data)
    with pytest.raises(InputError, match="a tensor has its channels first"):
        matcher.encode(pixels.permute(1, 2, 0))
    with pytest.raises(InputError, match="values from 0 to 1"):
        matcher.encode(pixels.float())
