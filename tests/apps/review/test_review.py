"""A file in review: its order, what is saved, going on, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoaware.apps.review.edits import Point, points_of
from geoaware.apps.review.review import Review, StaleError, opened
from geoaware.apps.transfer import read_sources
from geoaware.apps.transfer.coco_out import read_run
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing
from tests.apps.review.made import NAMES, SIZE, THREE, annotation, places, saved, write_result


def change(review: Review, number: int, row: int, point: Point, accepted: bool = False) -> None:
    points = points_of(review.annotation(number))
    points[row] = point
    review.change(number, points, accepted, review.revision(number))


def names(review: Review) -> list[str]:
    return [each.name for each in review.targets]


def test_the_least_confident_come_first_and_nothing_is_written_before_a_change(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos") as review:
        assert names(review) == ["002.png", "003.png", "001.png"]
        assert review.out == tmp_path / "found.reviewed.json"
        assert review.accepted() == [False] * 3
        assert not review.out.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["found.json", "photos"]


def test_a_change_is_saved_and_the_input_stays(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    before = path.read_bytes()
    with opened(path, tmp_path / "photos") as review:
        change(review, 0, 1, (33.333, 44.0, 2))
        found = saved(review)["002.png"]
        assert found["keypoints"][3:6] == [33.33, 44.0, 2]
        assert found["keypoint_scores"] == [0.6, 1.0, 0.7, 0.8, 0.9]
        assert found["accepted"] is False
        review.change(0, None, True, review.revision(0))
        assert saved(review)["002.png"] == {**found, "accepted": True}
        assert saved(review)["001.png"] == {**annotation(1, THREE[0]), "accepted": False}
        assert review.accepted() == [True, False, False]
    assert path.read_bytes() == before
    content = json.loads(review.out.read_text())
    given = json.loads(before)
    assert {key: content[key] for key in ("licenses", "flip_pairs", "categories", "images")} == {
        key: given[key] for key in ("licenses", "flip_pairs", "categories", "images")
    }
    assert content["info"]["run"] == given["info"]["run"]
    assert content["info"]["reviewed"]["file"] == "found.json"
    assert read_run(review.out) is None, (
        "transfer takes it for no result of its own, which it could throw away"
    )


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos") as review:
        change(review, 1, 0, (9.0, 9.0, 1), accepted=True)
    with opened(path, tmp_path / "photos") as review:
        assert names(review) == ["002.png", "003.png", "001.png"], "the order is that of the input"
        assert review.accepted() == [False, True, False]
        assert points_of(review.annotation(1))[0] == (9.0, 9.0, 1)
        change(review, 1, 0, (*places(3)[0], 2), accepted=True)
        assert saved(review)["003.png"]["keypoint_scores"] == THREE[2], (
            "what is as before has its probability again"
        )


def test_two_tabs_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with opened(write_result(tmp_path, THREE), tmp_path / "photos") as review:
        assert review.change(0, None, True, 0) == 1
        with pytest.raises(StaleError, match="changed in another tab"):
            review.change(0, None, False, 0)
        assert review.accepted()[0]


def test_a_change_that_cannot_be_saved_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(write_result(tmp_path, THREE), tmp_path / "photos") as review:
        review.change(0, None, True, 0)
        before = review.out.read_bytes()

        def full(path: Path) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("geoaware.apps.review.review.replacing", full)
        with pytest.raises(OSError, match="No space"):
            review.change(1, None, True, 0)
        assert review.accepted() == [True, False, False]
        assert review.out.read_bytes() == before
        monkeypatch.setattr("geoaware.apps.review.review.replacing", replacing)
        assert review.change(1, None, True, 0) == 1


def test_only_one_at_a_time(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos"):
        busy = "found.reviewed.json: another process is at work on it"
        with pytest.raises(InputError, match=busy), opened(path, tmp_path / "photos"):
            pass
        with opened(path, tmp_path / "photos", tmp_path / "other.json") as other:
            assert other.out.name == "other.json"
        with opened(path, tmp_path / "photos", alone=False) as looked:
            assert looked.suggested(1) == [0]
    with opened(path, tmp_path / "photos"):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"info": {}}, "exists and was not written by geoaware review; choose another file"),
        ([], "exists and was not written by geoaware review"),
        (
            {"info": {"reviewed": {"file": "found.json", "sha256": "0"}}},
            "is a review of found.json, which has changed",
        ),
        (
            {"info": {"reviewed": {"file": "b.json", "sha256": "0"}}},
            "is a review of b.json, which is another file",
        ),
    ],
)
def test_an_output_of_something_else_stays(tmp_path: Path, content: Any, message: str) -> None:
    path = write_result(tmp_path, THREE)
    out = tmp_path / "found.reviewed.json"
    out.write_text(json.dumps(content))
    before = out.read_bytes()
    with pytest.raises(InputError, match=message) as raised, opened(path, tmp_path / "photos"):
        pass
    assert raised.value.parameter == "out"
    assert out.read_bytes() == before


def test_a_damaged_output_is_told(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos") as review:
        review.change(0, None, True, 0)
    whole = review.out.read_text()
    review.out.write_text(whole[:-100])
    with (
        pytest.raises(InputError, match=r"found.reviewed.json: damaged, no valid JSON"),
        opened(path, tmp_path / "photos"),
    ):
        pass
    lost = json.loads(whole)
    lost["annotations"].pop()
    review.out.write_text(json.dumps(lost))
    with (
        pytest.raises(InputError, match="has other annotations than the file"),
        opened(path, tmp_path / "photos"),
    ):
        pass


def test_a_review_is_not_reviewed_by_mistake(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos") as review:
        review.change(0, None, True, 0)
    with (
        pytest.raises(
            InputError, match=r"found.reviewed.json: is a review of found.json; give that file to go on"
        ),
        opened(review.out, tmp_path / "photos"),
    ):
        pass
    with opened(review.out, tmp_path / "photos", tmp_path / "second.json") as second:
        assert second.accepted() == [True, False, False]


def test_images_that_moved_are_named(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError) as raised, opened(path):
        pass
    missing = "001.png: no such image, likewise 002.png, 003.png (3 of 3 are missing); give their folder"
    assert (str(raised.value), raised.value.parameter) == (f"{tmp_path}/{missing}", "images")
    with pytest.raises(InputError, match="photos: no such folder"), opened(path, tmp_path / "photos"):
        pass
    with opened(path, tmp_path / "moved") as review:
        assert len(review.targets) == 3


def test_images_outside_of_their_folder_are_refused(tmp_path: Path) -> None:
    write_result(tmp_path, THREE)
    images = [{"id": each, "file_name": f"../secret{each}.png"} for each in (1, 2, 3)]
    for each in (1, 2, 3):
        os.link(tmp_path / "photos" / "001.png", tmp_path / f"secret{each}.png")
    path = write_result(tmp_path, THREE, images=images)
    with (
        pytest.raises(InputError, match="lies outside of the folder of the images"),
        opened(path, tmp_path / "photos"),
    ):
        pass


def test_nothing_to_review(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE, annotations=[])
    with (
        pytest.raises(InputError, match="has no object with keypoints, so there is nothing to review"),
        opened(path),
    ):
        pass
    path = write_result(tmp_path, THREE, categories=[{"id": 3, "name": "cat"}])
    with pytest.raises(InputError, match="no category lists its 'keypoints'"), opened(path):
        pass
    with pytest.raises(InputError, match=r"absent.json: no such file"), opened(tmp_path / "absent.json"):
        pass
    path = write_result(tmp_path, THREE, odd=float("nan"))
    with pytest.raises(InputError, match="holds a number that is none"), opened(path, tmp_path / "photos"):
        pass


def test_what_is_not_reviewed_is_kept(tmp_path: Path) -> None:
    boxed = {"id": 9, "image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]}
    both = [annotation(1, THREE[0]), boxed, annotation(2, THREE[1]), annotation(3, THREE[2])]
    write_result(tmp_path, THREE)
    categories = [{"id": 3, "name": "cat", "keypoints": NAMES}, {"id": 4, "name": "tree"}]
    path = write_result(tmp_path, THREE, annotations=both, categories=categories)
    with opened(path, tmp_path / "photos") as review:
        assert len(review.targets) == 3
        review.change(0, None, True, 0)
    content = json.loads(review.out.read_text())
    assert boxed in content["annotations"]
    assert content["categories"] == categories
    with opened(path, tmp_path / "photos") as review:
        assert review.accepted() == [True, False, False]


def test_guesses_are_where_hidden_keypoints_appear(tmp_path: Path) -> None:
    guesses = [[*place, 0.5] for place in places()]
    entries = [annotation(1, THREE[0]), annotation(2, THREE[1], guesses=guesses), annotation(3, THREE[2])]
    with opened(write_result(tmp_path, THREE, annotations=entries), tmp_path / "photos") as review:
        assert review.guesses(0)[1] == (*places()[1], 1)
        assert review.guesses(0)[0] == (*places(2)[0], 2)
        assert review.guesses(1)[1] == (*places(3)[1], 2)


def test_points_of_stored_pixels_are_turned_and_turned_back(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    exif = Image.Exif()
    exif[0x0112] = 6
    for each in (1, 2, 3):
        photo = tmp_path / "photos" / f"{each:03}.png"
        image = Image.open(photo).copy()
        photo.unlink()
        image.save(photo, exif=exif)
    with (
        opened(path, tmp_path / "photos") as review,
        pytest.raises(InputError, match="has 200x240 pixels") as raised,
    ):
        review.frame(0)
    assert raised.value.parameter == "exif"
    with opened(path, tmp_path / "photos", exif="stored") as review:
        frame = review.frame(0)
        assert frame.size == SIZE[::-1]
        stored = points_of(review.annotation(0))
        shown = review.places(stored, frame)
        x, y = stored[0][:2]
        assert shown[0] == (SIZE[1] - 1 - y, x, 2), "a quarter turn to the right"
        assert review.places(shown, frame, back=True) == stored


def test_accepted_ones_become_sources(tmp_path: Path) -> None:
    path = write_result(tmp_path, THREE)
    with pytest.raises(InputError, match="no annotation in it is accepted; accept some with geoaware review"):
        read_sources(path, tmp_path / "photos", accepted=True)
    with opened(path, tmp_path / "photos") as review:
        change(review, 0, 1, (33.0, 44.0, 2), accepted=True)
        review.change(2, None, True, 0)
    chosen = read_sources(review.out, tmp_path / "photos", accepted=True)
    assert [each.id for each in chosen.images] == ["001.png", "002.png"]
    assert chosen.images[1].keypoints.at((1,)).tolist() == [[33.0, 44.0]]
    assert len(read_sources(review.out, tmp_path / "photos").images) == 3


def test_own_annotations_beside_accepted_ones_count(tmp_path: Path) -> None:
    """A folder with the first annotations and a review of what came of them."""
    path = write_result(tmp_path, THREE)
    with opened(path, tmp_path / "photos") as review:
        review.change(0, None, True, 0)
    own = json.loads(path.read_text())
    own["images"] = [{**own["images"][0], "file_name": "own.png"}]
    own["annotations"] = own["annotations"][:1]
    both = tmp_path / "both"
    both.mkdir()
    (both / "own.json").write_text(json.dumps(own))
    review.out.rename(both / "found.json")
    os.link(tmp_path / "photos" / "001.png", tmp_path / "photos" / "own.png")
    chosen = read_sources(both, tmp_path / "photos", accepted=True)
    assert [each.path.name for each in chosen.images] == ["002.png", "own.png"]


def test_suggestions_leave_accepted_ones_out(tmp_path: Path) -> None:
    with opened(write_result(tmp_path, THREE), tmp_path / "photos") as review:
        assert review.suggested(2) == [0, 1]
        review.change(0, None, True, 0)
        assert review.suggested(2) == [1, 2]


def test_several_objects_of_an_image_have_names_of_their_own(tmp_path: Path) -> None:
    entries = [annotation(1, THREE[0]), annotation(2, THREE[1], image_id=1), annotation(3, THREE[2])]
    with opened(write_result(tmp_path, THREE, annotations=entries), tmp_path / "photos") as review:
        assert names(review) == ["001.png#2", "003.png", "001.png#1"]
        assert [each.image_name for each in review.targets] == ["001.png", "003.png", "001.png"]
        change(review, 0, 0, (1.0, 1.0, 2), accepted=True)
        assert review.accepted() == [True, False, False]
        kept = json.loads(review.out.read_text())["annotations"][0]
        assert kept == {**annotation(1, THREE[0]), "accepted": False}
    chosen = read_sources(review.out, tmp_path / "photos", accepted=True)
    assert [each.id for each in chosen.images] == ["001.png#2"]
