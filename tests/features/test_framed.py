"""Images that are turned upright and cut to their object before they are encoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from geoaware.features import Extractor, load_extractor
from geoaware.features.framed import FramedExtractor, box_of_cells, cut_out, frame
from geoaware.features.refined import RefinedExtractor
from geoaware.features.tuned import Tuned, TunedNetwork, TunedSettings, TunedShape
from geoaware.matcher import Matcher
from geoaware.method.geometry import POSES, Canvas, Pose, opposite, pose_image, pose_points
from geoaware.method.matching import MatchSettings
from geoaware.presets import defaults_of
from geoaware.runs.errors import InputError
from geoaware.store.feature_store import CachedExtractor, FeatureStore
from tests.features.test_refined import random_network
from tests.toys import Patches, Seeing, beacon, noise, placed

BEST = MatchSettings("window", window=3, temperature=0.001, inside_picture=True)
TURNS: tuple[Pose, ...] = ("identity", "rot90", "rot180", "rot-90")
POINTS = [(20.0, 30.0), (60.0, 12.0), (39.0, 39.0), (70.0, 70.0)]


def matcher(zoom: str = "auto", upright: str = "auto", **more: object) -> Matcher:
    return Matcher(Seeing(), BEST, "off", zoom=zoom, upright=upright, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("turn", TURNS)
def test_the_box_of_cells_by_hand(turn: Pose) -> None:
    # A view of 40 x 20 pixels on a canvas of 80: a cell is 5 pixels of it, and 4 of 8 rows are padding.
    size = (40, 20) if turn in ("identity", "rot180") else (20, 40)
    present = torch.zeros(8, 8, dtype=torch.bool)
    present[2:4, 5] = present[3, 6] = True
    box = pose_points([(25, 0), (34, 9)], (40, 20), opposite(turn))
    expected = (*box.amin(dim=0).tolist(), *(box.amax(dim=0) + 1).tolist())
    assert box_of_cells(present, Canvas(*size, 80, turn)) == expected
    moved = tuple(each + 7 for each in expected)
    inside = Canvas(90, 70, 80, turn, (7, 7, size[0] + 7, size[1] + 7))
    assert box_of_cells(present, inside) == moved
    present = torch.zeros(8, 8, dtype=torch.bool)
    present[1, 3] = True  # of the padding
    assert box_of_cells(present, inside) is None


def test_a_box_gets_a_margin_and_whole_pixels() -> None:
    # A quarter of 27 is 6.75.
    assert cut_out((45, 36, 72, 63), (117, 117)) == (38, 29, 79, 70)
    assert cut_out((1, 2.5, 11, 6.5), (100, 8)) == (0, 0, 14, 8)
    assert cut_out((0, 0, 100, 8), (100, 8)) == (0, 0, 100, 8)
    for box in ((5, 5, 5, 9), (9, 5, 5, 9), (100, 0, 110, 5), (-9, 0, 0, 5), (float("nan"), 0, 4, 5)):
        with pytest.raises(InputError, match="a box is x1, y1, x2, y2") as error:
            cut_out(box, (100, 8))
        assert error.value.parameter == "box"


@pytest.mark.parametrize("turn", TURNS)
def test_the_frame_is_the_one_that_is_seen(turn: Pose) -> None:
    # Three cells of nine pixels, on a canvas of 117 that does not scale.
    image = placed(pose_image(beacon(27), turn), (45, 36), (117, 117))
    needed = TURNS[-TURNS.index(turn) % 4]
    box = (38, 29, 79, 70)
    for zoom, upright, canvas in (
        ("off", "auto", Canvas(117, 117, 117, needed)),
        ("auto", "off", Canvas(117, 117, 117, "identity", box)),
        ("auto", "auto", Canvas(117, 117, 117, needed, box)),
    ):
        framed, plain = FramedExtractor(Seeing(), zoom, upright), Seeing()
        found = framed(image)
        assert found.canvas == canvas
        assert found.extractor == framed.identity
        assert torch.equal(found.data, plain(canvas.view(image)).data)


def test_what_stands_upright_and_fills_its_image_is_encoded_once() -> None:
    seeing = Seeing()
    found = FramedExtractor(seeing, "auto", "auto")([beacon(117), Image.new("RGB", (117, 60))])
    assert seeing.count == 2
    assert [each.canvas.turn for each in found] == ["identity", "identity"]
    # The whole image is the box, so that no pose of it is cut either.
    assert [each.canvas.box for each in found] == [(0, 0, 117, 117), (0, 0, 117, 60)]
    assert torch.equal(found[0].data, Seeing()(beacon(117)).data)


def test_a_batch_stays_a_batch_and_gives_what_each_image_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [
        beacon(117),
        placed(beacon(27), (45, 36), (117, 117)),
        pose_image(placed(beacon(30), (9, 90), (234, 160)), "rot180"),
        pose_image(beacon(100), "rot90"),
    ]
    framed = FramedExtractor(Seeing(), "auto", "auto")
    alone = [framed(each) for each in images]
    sizes, levels_of = [], framed.extractor.levels_of
    monkeypatch.setattr(
        framed.extractor, "levels_of", lambda views: sizes.append(len(views)) or levels_of(views)
    )
    together = framed(images)
    assert sizes == [4, 6, 2]  # as they are, the two that lie in all other turns, the two that are cut
    for one, other in zip(alone, together, strict=True):
        assert one.canvas == other.canvas
        torch.testing.assert_close(one.data, other.data)
    assert framed([]) == []


@pytest.mark.parametrize("turn", TURNS)
def test_turned_and_small_objects_are_matched_in_pixels_of_the_images_as_they_are(turn: Pose) -> None:
    # Both objects cover two cells of 45 pixels, so that the same is cut out of both.
    image, here, there = beacon(90), (270, 45), (90, 180)
    source, target = placed(image, here, (585, 405)), pose_image(placed(image, there, (585, 405)), turn)
    points = torch.tensor(POINTS, dtype=torch.float64) + torch.tensor(here)
    truth = pose_points(points - torch.tensor(here) + torch.tensor(there), (585, 405), turn)
    matching = matcher()
    for found, expected in (
        (matching.match(source, target, points), truth),
        (matching.match(target, source, truth), points),
    ):
        assert (found.points - expected).norm(dim=1).max() < 11  # a cell of what was cut out
        assert found.cycle_error.max() < 11 / 585
        assert found.confidence.min() > 0.9
    if turn != "identity":
        plain = Matcher(Seeing(), BEST, "off").match(source, target, points)
        assert (plain.points - truth).norm(dim=1).max() > 22


class Told(Seeing):
    """`Seeing`, but it is told the turn of an image, and takes the views in that order."""

    turn: Pose = "identity"
    looks = 0

    def standing(self, levels: object) -> torch.Tensor:
        number = 0 if self.turn == "identity" else self.looks
        self.looks = number + 1
        return 99 * F.one_hot(torch.tensor(TURNS.index(self.turn) - number) % 4, 4).float()


@pytest.mark.parametrize(("turn", "needed"), [("rot90", "rot-90"), ("rot180", "rot180"), ("rot-90", "rot90")])
def test_a_turned_photograph_gives_the_same_points(turn: Pose, needed: Pose) -> None:
    data = pytest.importorskip("skimage.data", reason="needs an example photograph of scikit-image")
    image = Image.fromarray(data.astronaut()).crop((0, 0, 512, 400))
    mirror = pose_image(image, "flip").resize((400, 300))
    points, told = [(200.0, 120.0), (256.5, 80.0), (450.0, 300.0)], Told()
    matching = Matcher(told, BEST, "off", upright="auto")
    source, upright = matching.encode(image), matching.encode(mirror)
    told.turn, told.looks = needed, 0
    turned = matching.encode(pose_image(mirror, turn))
    straight, found = (matching.match(source, each, points) for each in (upright, turned))
    torch.testing.assert_close(found.points, pose_points(straight.points, mirror.size, turn))
    assert torch.equal(found.confidence, straight.confidence)
    # And as the source.
    places = pose_points(straight.points, mirror.size, turn)
    one, other = matching.match(upright, source, straight.points), matching.match(turned, source, places)
    torch.testing.assert_close(other.points, one.points)


def test_a_mirrored_source_shows_the_same_part() -> None:
    image = placed(pose_image(beacon(90), "rot90"), (270, 45), (585, 405))
    aligned = matcher()
    source = aligned.encode(image)
    maps = aligned.posed(source, POSES)
    canvas = source.maps["identity"].canvas
    for pose, each in maps.items():
        assert each.canvas == canvas.posed(pose)
        view = pose_image(canvas.view(image), pose)
        assert torch.equal(each.data, Seeing()(view).data)
    # The features are blind to left and right, so the mirrored part is the part, mirrored.
    torch.testing.assert_close(maps["flip"].data, maps["identity"].data.flip(-1))
    mirrored = aligned.match(source, pose_image(image, "flip"), [(300.0, 60.0)], pose="flip")
    assert (mirrored.points - torch.tensor([[284.0, 60.0]])).norm() < 11


def test_a_box_is_taken_instead_of_looking() -> None:
    image = placed(beacon(27), (45, 36), (117, 117))
    here, plain = matcher("auto", "off"), Matcher(Seeing(), BEST, "off")
    for each in (here, plain):
        canvas = each.encode(image, box=(0, 90, 20, 110)).maps["identity"].canvas
        assert canvas == Canvas(117, 117, 117, box=(0, 85, 25, 115))
    assert plain.encode(image).maps["identity"].canvas == Canvas(117, 117, 117)
    with pytest.raises(InputError, match="in the image of 117x117 pixels; got 120, 0, 130, 5"):
        plain.encode(image, box=(120, 0, 130, 5))
    # A box says where the object is, not how it stands.
    lying = pose_image(image, "rot90")
    canvas = matcher().encode(lying, box=(30, 40, 70, 80)).maps["identity"].canvas
    assert canvas == Canvas(117, 117, 117, "rot-90", (20, 30, 80, 90))


def test_points_outside_the_part_that_was_cut_out_are_matched_in_the_whole_image() -> None:
    image = placed(beacon(27), (45, 36), (117, 117))
    image.paste((0, 20, 0), (0, 100, 117, 117))  # too dark to be present
    points = [(58.0, 50.0), (100.0, 110.0)]
    here = matcher()
    result = here.match(image, image, points)
    assert result.source.maps["identity"].canvas.box == (0, 0, 117, 117)
    assert result.target.maps["identity"].canvas.box == (38, 29, 79, 70)
    # What is whole already is not encoded again.
    assert here.holding(result.source, torch.tensor([(200.0, -5.0)])) is result.source
    inside = here.match(image, image, points[:1])
    assert inside.source.maps["identity"].canvas.box == (38, 29, 79, 70)
    assert (inside.points - torch.tensor(points[:1])).norm() < 4


def test_masks_lie_on_the_canvas_of_their_map() -> None:
    image = placed(pose_image(beacon(90), "rot90"), (270, 45), (585, 405))
    mask = np.zeros((405, 585), bool)
    mask[45:135, 270:360] = True
    here = matcher()
    source, target = here.encode(image, mask), here.encode(pose_image(image, "flip"), mask[:, ::-1].copy())
    found = here.align(source, target, "flip")
    assert found.distances["flip"] == pytest.approx(0, abs=0.05)
    # Where the part shows nothing of the mask, the pose is chosen without masks.
    other = here.encode(image, np.roll(mask, -260, axis=1))
    unmasked = here.align(here.encode(image), target, "flip")
    assert here.align(other, target, "flip").distances == unmasked.distances
    result = here.match(source, target, [(300.0, 60.0)], pose="flip")
    heated = result.heatmap(0)
    assert heated.size == (585, 405)
    # The colours vary on the part alone: elsewhere the map is as low as can be.
    colours = np.asarray(heated)
    assert len(np.unique(colours[300:350, 20:100].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(colours[50:130, 230:310].reshape(-1, 3), axis=0)) > 50


def test_views_are_stored_as_images_of_their_own(tmp_path) -> None:
    image = placed(pose_image(beacon(90), "rot90"), (270, 45), (585, 405))
    plain, counted = FramedExtractor(Seeing(), "auto", "auto"), Seeing()
    store = FeatureStore.of(tmp_path, counted, "fp32")
    cached = FramedExtractor(CachedExtractor(counted, store), "auto", "auto")
    for expected in (5, 5):  # the whole in all turns, cut; then all from the disk
        found = cached(image)
        assert counted.count == expected
        assert found.canvas == plain(image).canvas
        assert torch.equal(found.data, plain(image).data)
    assert store.has(store.image(image))
    assert store.has(store.image(found.canvas.view(image)))
    assert cached.provenance().settings["stored"] == "fp32"


@pytest.mark.parametrize("blend", [1.0, 0.5])
def test_a_post_processor_goes_inside(blend: float) -> None:
    image = placed(pose_image(beacon(90), "rot90"), (270, 45), (585, 405))
    network = random_network(channels=(18,), grid=13)
    here = matcher(post_processor=network, blend=blend)
    refined = RefinedExtractor(Seeing(), network, blend)
    found = here.features([image])[0]
    assert found.extractor == here.identity == f"{refined.identity} (upright auto) (zoom auto)"
    assert torch.equal(found.data, refined(found.canvas.view(image)).data)
    assert (here.blend, here.post_processor) == (blend, network)
    assert here.extractor.provenance() == refined.provenance()
    assert here.describe()["post_processor"] == refined.weights
    with pytest.raises(InputError, match="goes around seeing last"):
        Matcher(FramedExtractor(Seeing(), "auto"), post_processor=network)


@pytest.fixture(scope="module")
def lite() -> Extractor:
    return load_extractor("efficientnet-lite0-tuned", device="cpu")


@pytest.mark.parametrize("place", range(4))
def test_lite_sees_the_likeliest_turn(lite: Extractor, place: int) -> None:
    logits = torch.zeros(4, 1, 1)
    logits[place] = 0.1
    levels = [torch.zeros(1, 1, 1), torch.full((1, 44, 44), -1.0), logits]
    assert lite.standing(levels).argmax() == place


class Asked(Seeing):
    """`Seeing`, but each look at a view gives the next of some probabilities."""

    def __init__(self, *says: tuple[float, ...]) -> None:
        super().__init__()
        self.says = [torch.tensor(each).log() for each in says]

    def standing(self, levels: object) -> torch.Tensor:
        return self.says.pop(0)


_UNSURE = (0.25, 0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("says", "turn"),
    [
        # Upright as it is, with more than one half.
        ([(0.51, 0.49, 1e-6, 1e-6)], "identity"),
        # All views say the same of the image: what is turned by a quarter stands upright.
        ([(0.1, 0.7, 0.1, 0.1), (0.7, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.7), (0.1, 0.1, 0.7, 0.1)], "rot90"),
        # Three of four views are for a half turn: 3 / 4 of ln 7 is 1.46, below 1.5, and of ln 8 it is 1.56.
        ([(0.1, 0.1, 0.7, 0.1), (0.1, 0.7, 0.1, 0.1), (0.7, 0.1, 0.1, 0.1), _UNSURE], "identity"),
        ([(0.1, 0.1, 0.8, 0.1), (0.1, 0.8, 0.1, 0.1), (0.8, 0.1, 0.1, 0.1), _UNSURE], "rot180"),
        # The image alone says another turn than the views.
        ([(0.1, 0.1, 0.1, 0.7), (0.1, 0.1, 0.1, 0.7), (0.1, 0.1, 0.7, 0.1), _UNSURE], "identity"),
    ],
)
def test_views_in_all_turns_have_their_say(says: list[tuple[float, ...]], turn: Pose) -> None:
    asked, image = Asked(*says), beacon(117)
    found = FramedExtractor(asked, upright="auto")(image)
    assert asked.count == len(says)
    assert asked.says == []
    assert found.canvas == Canvas(117, 117, 117, turn)
    assert torch.equal(found.data, Seeing()(pose_image(image, turn)).data)


class Mistaken(Seeing):
    """`Seeing`, but what it cuts out shows no object."""

    def shows_object(self, levels: object) -> bool:
        return False


def test_what_was_cut_out_is_taken_only_if_it_shows_an_object() -> None:
    mistaken, image = Mistaken(), placed(beacon(27), (45, 36), (117, 117))
    assert FramedExtractor(Seeing(), "auto")(image).canvas.box == (38, 29, 79, 70)
    found = FramedExtractor(mistaken, "auto")(image)
    assert mistaken.count == 2
    assert found.canvas.box == (0, 0, 117, 117)
    assert torch.equal(found.data, Seeing()(image).data)


@pytest.mark.parametrize(("above", "shown"), [(0.1, True), (-0.1, False)])
def test_lite_looks_again_at_what_it_cut_out(lite: Extractor, above: float, shown: bool) -> None:
    assert isinstance(lite, Tuned)
    slope, offset = lite.network.familiar.tolist()
    # One cell in fifty, the 39th of 1,936, decides.
    presence = torch.full((1, 44, 44), -20.0)
    presence.view(-1)[:39] = (above - offset) / slope
    assert lite.shows_object([torch.zeros(1, 1, 1), presence, torch.zeros(4, 1, 1)]) is shown


def test_lite_cuts_small_objects_out(lite: Extractor) -> None:
    canvas, presence = Canvas(704, 352, 352), torch.full((1, 44, 44), -1.0)
    levels = [torch.zeros(1, 1, 1), presence, torch.zeros(4, 1, 1)]
    assert lite.small_object(levels, canvas) is None
    presence[0, 20:24, 10:14] = 0.1
    presence[0, 0, 0] = 5.0  # on the padding
    # Cells of 16 pixels, the first row of the image is the row 11 of cells; a margin of 16 pixels.
    assert lite.small_object(levels, canvas) == (144, 128, 240, 224)
    # 18 cells are 288 pixels, 432 with the margins: above 0.6 of 704.
    presence[0, 20, 10:28] = 0.1
    assert lite.small_object(levels, canvas) is None
    # 17 cells are 272, 408 with the margins.
    presence[0, 20, 27] = -0.1
    assert lite.small_object(levels, canvas) == (92, 76, 500, 276)


def test_lite_looks_at_its_own_maps(lite: Extractor) -> None:
    image = placed(noise(90, 90, 0), (400, 100), (704, 352))
    found = FramedExtractor(lite, "auto")(image)
    assert found.extractor == f"{lite.identity} (zoom auto)"
    assert found.data.shape == lite(image).data.shape


def test_weights_that_never_learned_turns_refuse_to_see_them(lite: Extractor) -> None:
    assert isinstance(lite, Tuned)
    assert lite.sees == (("zoom", "upright") if lite.network.upright.weight.any() else ("zoom",))
    network = TunedNetwork.from_imagenet(TunedShape(8, 16, (1,), 1))
    assert Tuned("tiny", TunedSettings(canvas=96), network).sees == ("zoom", "upright")
    torch.nn.init.zeros_(network.upright.weight)
    blind = Tuned("tiny", TunedSettings(canvas=96), network)
    with pytest.raises(InputError, match="tiny does not see how an image stands with these weights"):
        FramedExtractor(blind, upright="auto")


def test_lite_zooms_by_default_and_others_do_not(lite: Extractor) -> None:
    for extractor, zoom, identity in (
        (lite, None, f"{lite.identity} (zoom auto)"),
        (lite, "off", lite.identity),
        (Seeing(), None, "seeing()"),
        (FramedExtractor(lite, upright="auto"), None, f"{lite.identity} (upright auto)"),
    ):
        assert Matcher(extractor, zoom=zoom).identity == identity
    assert defaults_of(lite.name, random_network()).zoom == "auto"


def test_settings_are_told_apart() -> None:
    maps = [matcher(*each).features([noise(90, 90, 0)])[0] for each in (("auto", "off"), ("off", "auto"))]
    assert [each.extractor for each in maps] == ["seeing() (zoom auto)", "seeing() (upright auto)"]
    seeing: Extractor = Seeing()
    assert frame(seeing) is seeing


@pytest.mark.parametrize("setting", ["zoom", "upright"])
def test_an_extractor_that_cannot_look_is_refused(setting: str) -> None:
    with pytest.raises(
        InputError, match=f"patches does not see .* with these weights; leave {setting} off"
    ) as error:
        Matcher(Patches(), **{setting: "auto"})  # type: ignore[arg-type]
    assert error.value.parameter == setting
    with pytest.raises(InputError, match=f"{setting} must be off or auto, got 'on'"):
        Matcher(Seeing(), **{setting: "on"})  # type: ignore[arg-type]
