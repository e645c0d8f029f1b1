from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geoaware.apps.transfer import Targets, read_sources
from geoaware.apps.transfer.coco_out import category_entry
from geoaware.apps.transfer.crop import crop_window
from geoaware.apps.transfer.sources import encode_sources, source_windows
from geoaware.apps.transfer.vote import VoteSettings, vote
from geoaware.method.alignment import match_posed, mirror_points
from geoaware.method.geometry import pose_image
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import POINTS, SIDE, annotation, category, matcher, view, write_sources


def changed(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_sources_are_read(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path, [(0, 0), (9, 9)], hide={1: [2]}))
    assert sources.name == "cat"
    assert [each.id for each in sources.images] == ["s1.png", "s2.png"]
    assert sources.images[1].keypoints.visible.tolist() == [True, True, False, True, True]
    assert sources.schema.flip_pairs == ((0, 1), (3, 4))
    assert "flip pairs inferred from the names" in sources.notes[0]
    assert sources.category["skeleton"] == [[1, 3], [2, 3]]


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write_sources(tmp_path / "a")
    moved = tmp_path / "elsewhere"
    (tmp_path / "a" / "images").rename(moved)
    with pytest.raises(InputError, match=r"s1.png: no such image, .*give their folder"):
        read_sources(path)
    assert read_sources(path, moved).images[0].path == moved / "s1.png"


def test_the_hash_is_of_what_matters(tmp_path: Path) -> None:
    path = write_sources(tmp_path)
    before = read_sources(path).hash()
    assert read_sources(changed(path, info={"year": 2024})).hash() == before
    assert read_sources(changed(path, flip_pairs=[[0, 1]])).hash() != before


def two_categories(path: Path) -> Path:
    content = json.loads(path.read_text())
    content["categories"].append(category(id=8, name="dog"))
    content["annotations"][1]["category_id"] = 8
    path.write_text(json.dumps(content))
    return path


def test_one_of_several_categories(tmp_path: Path) -> None:
    path = two_categories(write_sources(tmp_path, [(0, 0), (9, 9)]))
    with pytest.raises(InputError, match=r"several categories \(cat, dog\); choose one"):
        read_sources(path)
    assert [each.id for each in read_sources(path, category="dog").images] == ["s2.png"]
    with pytest.raises(InputError, match="no category 'cow' with keypoints; it has cat, dog"):
        read_sources(path, category="cow")


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([0, 0, 0] * 5, "no annotation has a visible keypoint"),
        ([40, 400, 2] + [0, 0, 0] * 4, r"inside its image .*keypoint 0 at \(40, 400\), image 117x117"),
    ],
)
def test_keypoints_that_cannot_be_used(tmp_path: Path, keypoints: list[int], message: str) -> None:
    path = changed(write_sources(tmp_path), annotations=[annotation(1, 1, keypoints)])
    with pytest.raises(InputError, match=message):
        read_sources(path)


def test_a_keypoint_just_outside_is_moved_to_the_edge_one_farther_away_left_out(tmp_path: Path) -> None:
    keypoints = [-0.6, 40, 2, 118, 117.5, 2, 40, 40, 2, 118.1, 50, 2, 0, 0, 0]
    path = changed(write_sources(tmp_path), annotations=[annotation(1, 1, keypoints)])
    sources = read_sources(path)
    found = sources.images[0].keypoints
    assert found.visible_ids == (0, 1, 2)
    assert found.at((0, 1, 2)).tolist() == [[0, 40], [117, 117], [40, 40]]
    notes = "\n".join(sources.notes)
    assert "2 keypoints just outside their image, moved to its edge (" in notes
    assert "left out: 1 keypoints outside their image (" in notes
    assert "keypoint 3 at (118.1, 50), image 117x117" in notes
    assert "no source shows left paw, right paw" in notes


def test_hidden_keypoints_count_when_asked(tmp_path: Path) -> None:
    path = changed(write_sources(tmp_path), annotations=[annotation(1, 1, [40, 40, 1] * 5)])
    assert read_sources(path, hidden=True).images[0].keypoints.visible.all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give a COCO-keypoints JSON"),
        ("{", "no valid JSON"),
        ("[]", "is no COCO keypoints file"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "lists its 'keypoints'",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "source.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_sources(path)


def test_a_image_of_another_size_is_refused(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path))
    view(0, 0).resize((50, 50)).save(sources.images[0].path)
    with pytest.raises(InputError, match="has 50x50 pixels, its annotation is for 117x117"):
        encode_sources(sources, matcher(), source_windows(sources, 0.3, 0.5))


@pytest.mark.parametrize(
    ("pose", "turned"),
    [("off", "identity"), ("flip", "identity"), ("rotate", "identity"), ("off", "flip"), ("flip", "flip")],
)
def test_one_source_matches_as_a_matcher_does(tmp_path: Path, pose: str, turned: str) -> None:
    """Without rivals, the vote of one source is `match_posed` in the pose that it chose, partners and all."""
    sources = read_sources(write_sources(tmp_path, hide={0: [1, 2]}))
    matching = matcher(pose)
    queries, _ = encode_sources(sources, matching, source_windows(sources, 0.3, 0.5))
    target = matching.encode(pose_image(view(9, 4), turned))
    found = vote(queries, target.maps["identity"], matching.settings, VoteSettings(rivals=0.0))
    assert found.pose == ("flip" if turned == "flip" and pose != "off" else "identity")
    source = matching.encode(view(0, 0))
    source.maps["flip"] = matching.features([pose_image(view(0, 0), "flip")])[0]
    visible = sources.images[0].keypoints.visible
    expected = match_posed(
        source.maps,
        target.maps["identity"],
        POINTS,
        found.pose,
        matching.settings,
        mirror_points(POINTS, (SIDE, SIDE), sources.schema.partners, visible),
    )
    # In the mirrored image keypoint 1 is read at its partner, although it is not annotated itself.
    known = [True, found.pose == "flip", False, True, True]
    assert found.known.tolist() == known
    torch.testing.assert_close(found.points[known], expected.points[known], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.evidence.mass[known], expected.confidence[known], atol=1e-4, rtol=0)


def test_small_objects_are_cut_out() -> None:
    # Longer side 30 of 100: 9 pixels on each side, within the image.
    assert crop_window((20, 40, 50, 60), (100, 80), 0.3, 0.5) == (11, 31, 60, 70)
    assert crop_window((0, 0, 30, 20), (100, 80), 0.3, 0.5) == (0, 0, 40, 30)
    assert crop_window((20, 40, 70, 60), (100, 80), 0.3, 0.5) == (0, 0, 100, 80)
    assert crop_window((20, 40, 50, 60), (100, 80), 0.3, 0.0) == (0, 0, 100, 80)
    assert crop_window(None, (100, 80)) == (0, 0, 100, 80)
    with pytest.raises(InputError, match=r"the box \(200, 0, 210, 10\) lies outside the image of 100x80"):
        crop_window((200, 0, 210, 10), (100, 80))


def test_a_source_is_cut_no_closer_than_its_keypoints(tmp_path: Path) -> None:
    path = write_sources(tmp_path)
    entry = annotation(1, 1, [value for x, y in POINTS for value in (x, y, 2)]) | {"bbox": [50, 50, 20, 20]}
    sources = read_sources(changed(path, annotations=[entry]))
    assert crop_window((50, 50, 70, 70), (SIDE, SIDE), 0.3, 0.5) == (44, 44, 77, 77)
    assert source_windows(sources, 0.3, 0.5) == [(40, 40, 86, 91)]


def test_one_image_under_two_ids_votes_once(tmp_path: Path) -> None:
    path = write_sources(tmp_path, [(0, 0), (9, 9)])
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 8})
    content["annotations"].append({**content["annotations"][0], "id": 8, "image_id": 8})
    path.write_text(json.dumps(content))
    sources = read_sources(path)
    assert [each.id for each in sources.images] == ["s1.png", "s2.png"]
    assert any("1 annotations that stand there twice" in note for note in sources.notes)


def test_flags_0_and_1_and_text_are_read(tmp_path: Path) -> None:
    path = write_sources(tmp_path)
    (entry,) = json.loads(path.read_text())["annotations"]
    entry["keypoints"][2::3] = [1, "1", 0, 1.0, 1]
    sources = read_sources(changed(path, annotations=[entry]))
    assert sources.images[0].keypoints.visible_ids == (0, 1, 3, 4)
    assert "no keypoint has flag 2, so flag 1 counts as visible" in sources.notes


@pytest.mark.parametrize("skeleton", [[[0, 2], [1, 2]], [["left ear", "nose"], ["right ear", "nose"]]])
def test_the_result_has_a_skeleton_from_1(tmp_path: Path, skeleton: object) -> None:
    path = changed(write_sources(tmp_path), categories=[category(skeleton=skeleton)])
    sources = read_sources(path)
    written = category_entry(sources, Targets([("a.png", None, None)], tmp_path))
    assert written["skeleton"] == [[1, 3], [2, 3]]
