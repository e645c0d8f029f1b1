"""Table 1 on images whose right answers are known, and the azimuths of real data sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageOps

from geoaware.data import DataSet, load
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage, Keypoints, Pair
from geoaware.report.plots import save
from geoaware.runs.errors import InputError
from geoaware.studies.case import Outcome
from geoaware.studies.pose_prediction import facing, is_clear, table1
from tests.evaluation.tiny import SCHEMA, Sided
from tests.shared_data import shared
from tests.toys import Patches, noise

AZIMUTH = {"front": 0, "left": 90, "back": 180, "right": 270}


def view(folder: Path, category: str, pose: str, number: int, **attributes: Any) -> AnnotatedImage:
    """The same object from one side, every time: left and right are mirror images."""
    seed = {"front": 1, "back": 2}.get(pose, 3) + 10 * len(category)
    image = noise(117, 117, seed)
    path = folder / f"{category}-{pose}-{number}.png"
    (ImageOps.mirror(image) if pose == "right" else image).save(path)
    points = Keypoints((0,), torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.bool))
    known = attributes or {"azimuth": AZIMUTH[pose]}
    return AnnotatedImage(path.name, path, (117, 117), category, points, attributes=known)


def data_set(images: list[AnnotatedImage]) -> DataSet:
    """Every image in a pair with the next."""
    pairs = [
        Pair(f"{a.id}>{b.id}", a.category, a, b)
        for a, b in zip(images, [*images[1:], images[0]], strict=True)
    ]
    return DataSet("toys", "test", {each.category: SCHEMA for each in images}, tuple(pairs), "image")


def four_poses(folder: Path, category: str = "cat", each: int = 4) -> list[AnnotatedImage]:
    return [view(folder, category, pose, number) for pose in AZIMUTH for number in range(each)]


def shares(outcome: Outcome, which: str = "all") -> list[tuple[int, int]]:
    names = ("left_right", "front_back", "either", "all_four")
    return [(outcome.figures[which][name]["correct"], outcome.figures[which][name]["of"]) for name in names]


def test_features_that_tell_sides_apart_get_everything_right(tmp_path: Path) -> None:
    outcome = table1(data_set(four_poses(tmp_path)), Matcher(Sided()), tmp_path / "out", sets=10)
    # Of four images a pose two are templates at most, so two sets, and eight of sixteen are predicted.
    assert outcome.figures["sets"] == {"cat": 2}
    assert shares(outcome) == [(4, 4), (4, 4), (8, 8), (8, 8)]
    assert outcome.left_out == ("2 template sets a category instead of 10: there are too few images.",)
    assert outcome.finding == (
        "Of 8 images, 100.0 % get the right one of four poses (above chance, 25 %). Left and right are "
        "told apart on 100.0 % (above chance, 50 %), front and back on 100.0 % (above chance, 50 %); the "
        "difference is within the intervals."
    )
    assert outcome.data == "toys, split test"


def test_features_blind_to_sides_fail_on_one_of_them(tmp_path: Path) -> None:
    outcome = table1(data_set(four_poses(tmp_path)), Matcher(Patches()), tmp_path / "out")
    (sides, of), (ends, _), *_ = shares(outcome)
    # Exactly mirrored maps are equally far from both templates, so both sides get one and the same answer.
    assert (sides, of) == (2, 4)
    assert ends == 4
    assert "Left and right are told apart on 50.0 % (not clearly above chance, 50 %)" in outcome.finding


def test_wrong_azimuths_show_as_confusion(tmp_path: Path) -> None:
    images = four_poses(tmp_path)
    images += [view(tmp_path, "cat", "right", 9, azimuth=95), view(tmp_path, "cat", "right", 8, azimuth=50)]
    for seed in range(50):
        outcome = table1(data_set(images), Matcher(Sided()), tmp_path / "out", sets=1, seed=seed)
        drawn = json.loads(outcome.predictions[0].read_text(encoding="utf-8"))["templates"]["cat"]["1"]
        if drawn["left"].startswith("cat-left"):
            break
    assert outcome.figures["all"]["confusion"]["left"] == {"left": 3, "right": 2, "front": 0, "back": 0}
    assert shares(outcome) == [(6, 8), (6, 6), (12, 14), (12, 14)]
    assert shares(outcome, "clear") == [(6, 7), (6, 6), (12, 13), (12, 13)]
    main, confusion = outcome.grids
    assert [row[0] for row in main.rows] == [
        "paper: DINOv2", "paper: SD", "paper: SD+DINOv2", "ours: sided", "ours: views within 22.5°", "chance",
    ]  # fmt: skip
    assert main.rows[3][1:] == (
        "75.0 (40.9 to 92.9)", "100.0 (61.0 to 100.0)", "85.7 (60.1 to 96.0)", "85.7 (60.1 to 96.0)", "14",
    )  # fmt: skip
    assert confusion.rows[0] == ("left", "3", "2", "0", "0")


def test_templates_are_never_predicted_and_stay_in_their_category(tmp_path: Path) -> None:
    images = four_poses(tmp_path, "cat", 6) + four_poses(tmp_path, "horse", 7)
    outcome = table1(data_set(images), Matcher(Sided()), tmp_path / "out", sets=2, seed=3)
    content = json.loads(outcome.predictions[0].read_text(encoding="utf-8"))
    templates = [
        (category, pose, name)
        for category, sets in content["templates"].items()
        for poses in sets.values()
        for pose, name in poses.items()
    ]
    assert len({name for *_, name in templates}) == len(templates) == 16
    assert all(name.startswith(f"{category}-{pose}") for category, pose, name in templates)
    predicted = [each["picture"] for each in content["poses"]]
    assert sorted([*predicted, *(name for *_, name in templates)]) == sorted(each.id for each in images)
    assert {name: row["all_four"]["of"] for name, row in outcome.figures["by_category"].items()} == {
        "cat": 16,
        "horse": 20,
    }
    assert [row[0] for row in outcome.grids[2].rows] == ["cat", "horse"]
    assert [row[-1] for row in outcome.grids[2].rows] == ["2", "2"]


def test_the_draw_follows_the_seed_and_not_the_order_of_images(tmp_path: Path) -> None:
    images = four_poses(tmp_path, each=6)

    def drawn(seed: int, order: list[AnnotatedImage]) -> Any:
        outcome = table1(data_set(order), Matcher(Sided()), tmp_path / "out", sets=1, seed=seed)
        return json.loads(outcome.predictions[0].read_text(encoding="utf-8"))["templates"]

    assert drawn(0, images) == drawn(0, images[::-1])
    assert drawn(0, images) != drawn(1, images)


def test_another_object_on_a_template_image_is_not_predicted(tmp_path: Path) -> None:
    images = four_poses(tmp_path, each=2)
    second = [replace(each, id=f"{each.id}#2") for each in images]
    outcome = table1(data_set([*images, *second]), Matcher(Sided()), tmp_path / "out", sets=1)
    content = json.loads(outcome.predictions[0].read_text(encoding="utf-8"))
    names = {name.partition("#")[0] for name in content["templates"]["cat"]["1"].values()}
    assert not names & {each["picture"].partition("#")[0] for each in content["poses"]}


def test_the_same_work_is_not_done_twice(tmp_path: Path) -> None:
    data, extractor, steps = data_set(four_poses(tmp_path)), Sided(), list[tuple[int, int]]()
    first = table1(data, Matcher(extractor), tmp_path / "out", tell=lambda _, *step: steps.append(step))
    assert steps == [(done, 8) for done in range(9)]
    before = extractor.count
    again = table1(data, Matcher(extractor), tmp_path / "out")
    assert extractor.count == before
    assert again.figures == first.figures
    table1(data, Matcher(extractor), tmp_path / "out", metric="mutual-nn")
    assert extractor.count > before
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_masks_are_used_where_all_have_them(tmp_path: Path) -> None:
    polygon = [[0, 0, 60, 0, 60, 116, 0, 116]]
    images = [
        replace(each, attributes={**each.attributes, "segmentation": polygon})
        for each in four_poses(tmp_path)
    ]
    outcome = table1(data_set(images), Matcher(Sided()), tmp_path / "out")
    assert outcome.figures["masks"] is True
    assert "IMD over the image's object" in outcome.grids[0].note
    without = table1(data_set(images), Matcher(Sided()), tmp_path / "out", masks=False)
    assert "IMD over the whole image" in without.grids[0].note
    nearest = table1(data_set(images), Matcher(Sided()), tmp_path / "out", metric="mutual-nn")
    assert nearest.figures["masks"] is False
    images[0] = replace(images[0], attributes={"azimuth": 0})
    assert not table1(data_set(images), Matcher(Sided()), tmp_path / "out").figures["masks"]


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    outcome = table1(data_set(four_poses(tmp_path)), Matcher(Sided()), tmp_path / "out")
    (path,) = save(outcome.plots, tmp_path)
    assert path.name == "table1.png"
    assert [text.get_text() for text in outcome.plots["table1"].axes[0].get_xticklabels()] == [
        "L/R\n(4)", "F/B\n(4)", "L/R or F/B\n(8)", "L/R/F/B\n(8)",
    ]  # fmt: skip


class TestRefusals:
    def test_no_azimuth(self, tmp_path: Path) -> None:
        images = [replace(each, attributes={}) for each in four_poses(tmp_path)]
        with pytest.raises(InputError, match=r"toys, split test: no image says its azimuth, .* SPair-71k"):
            table1(data_set(images), Matcher(Sided()), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_pose_is_missing(self, tmp_path: Path) -> None:
        images = [each for each in four_poses(tmp_path) if "back" not in each.id]
        with pytest.raises(
            InputError, match="category 'cat' has no image of the pose back to make templates"
        ):
            table1(data_set(images), Matcher(Sided()), tmp_path / "out")

    def test_categories_without_a_pose_are_left_out_and_named(self, tmp_path: Path) -> None:
        plants = [view(tmp_path, "plant", "front", number) for number in range(3)]
        images = four_poses(tmp_path, each=2) + plants + [view(tmp_path, "cat", "left", 7, azimuth_id=3)]
        outcome = table1(data_set(images), Matcher(Sided()), tmp_path / "out", sets=1)
        assert outcome.left_out == (
            "Left out, between two directions or without azimuth: 1 images of 12.",
            "Left out, without all four poses: plant (left, right, back).",
        )
        assert shares(outcome)[-1] == (4, 4)

    def test_only_odd_ids(self, tmp_path: Path) -> None:
        images = [replace(each, attributes={"azimuth_id": 1}) for each in four_poses(tmp_path)]
        with pytest.raises(InputError, match="no image of the pose left, right, front, back"):
            table1(data_set(images), Matcher(Sided()), tmp_path / "out")

    def test_nothing_left_to_predict(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="none is left to predict"):
            table1(data_set(four_poses(tmp_path, each=1)), Matcher(Sided()), tmp_path / "out")

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"azimuth": "north"}, "azimuth is 'north'; expected degrees"),
            ({"azimuth": float("nan")}, "expected degrees"),
            ({"azimuth_id": 8}, "azimuth_id is 8; expected 0 … 7"),
            ({"azimuth_id": "2"}, "azimuth_id is '2'"),
        ],
    )
    def test_an_azimuth_that_is_none(self, tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
        images = four_poses(tmp_path, each=2)
        images[1] = replace(images[1], attributes=attributes)
        with pytest.raises(InputError, match=message):
            table1(data_set(images), Matcher(Sided()), tmp_path / "out")

    def test_no_sets(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="at least 1, got 0"):
            table1(data_set(four_poses(tmp_path)), Matcher(Sided()), tmp_path / "out", sets=0)


class TestFacing:
    @pytest.mark.parametrize(
        ("degrees", "pose", "clear"),
        [
            (0, "front", True), (22.5, "front", True), (44.9, "front", False), (45, "left", False),
            (90, "left", True), (134.9, "left", False), (135, "back", False), (180, "back", True),
            (250, "right", True), (314.9, "right", False), (315, "front", False), (359, "front", True),
            (-90, "right", True), (450, "left", True),
        ],
    )  # fmt: skip
    def test_degrees(self, tmp_path: Path, degrees: float, pose: str, clear: bool) -> None:
        image = view(tmp_path, "cat", "left", 0, azimuth=degrees, azimuth_id=5)
        assert (facing(image), is_clear(image)) == (pose, clear)

    def test_ids(self, tmp_path: Path) -> None:
        found = [facing(view(tmp_path, "cat", "left", 0, azimuth_id=number)) for number in range(8)]
        assert found == ["front", None, "left", None, "back", None, "right", None]

    def test_the_rendered_quadrupeds(self) -> None:
        """Degrees and ids agree, and who faces left has the nose left of the tail in the image."""
        data = load("coco", shared("quaternius"), "val", pairs="all")
        clear = [each for each in data.images if is_clear(each)]
        assert len(clear) > 100
        for each in clear:
            assert facing(each) == facing(
                replace(each, attributes={"azimuth_id": each.attributes["azimuth_id"]})
            )
        sides = [
            (facing(each), float(each.keypoints.at([2])[0, 0] - each.keypoints.at([4])[0, 0]))
            for each in clear
            if facing(each) in ("left", "right") and {2, 4} <= set(each.keypoints.visible_ids)
        ]
        assert len(sides) > 25
        assert all((pose == "left") == (nose_from_tail < 0) for pose, nose_from_tail in sides)

    def test_spair71k(self) -> None:
        """Where PASCAL's own word for the pose says left or right, the azimuth says the same."""
        data = load("spair71k", shared("SPair-mini"), "test")
        sides = [(facing(each), each.attributes["pose"]) for each in data.images]
        known = [(pose, word) for pose, word in sides if pose in ("left", "right")]
        assert known == [("right", "Right")] * 2
        assert {word for pose, word in sides if pose == "front"} <= {"Frontal", "Unspecified"}
