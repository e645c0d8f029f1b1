"""Template matching: votes and accuracies by hand, distances against loops, files that survive."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from geoaware.apps.pose.predict import PosePrediction, PosePredictor, PoseSettings, count_votes, vote
from geoaware.apps.pose.run import PoseWork, predict_poses
from geoaware.apps.pose.scores import Accuracy, accuracy_grid, confusion_grid, score_poses
from geoaware.apps.pose.templates import DIRECTIONS, ENDS, SIDES, bare_image, read_template_sets
from geoaware.matcher import Matcher
from geoaware.method.alignment import instance_matching_distance, mutual_nn_distance
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.work import Local
from tests.evaluation.tiny import Blind, Sided
from tests.reference import alignment as slow_alignment
from tests.reference import pose as slow
from tests.toys import Patches, noise

SIZE = 117


def sets(*rows: tuple[float, float, float, float]) -> dict[str, dict[str, float]]:
    """A row of distances to left, right, front and back for each set."""
    return {f"set{number}": dict(zip(DIRECTIONS, row, strict=True)) for number, row in enumerate(rows)}


def prediction(name: str, *rows: tuple[float, float, float, float]) -> PosePrediction:
    return PosePrediction(name, "cat", sets(*rows))


class TestVote:
    def test_the_majority_wins_however_far_the_others_are(self) -> None:
        found = sets((0.9, 0.8, 1, 1), (0.9, 0.8, 1, 1), (0.1, 0.8, 1, 1))
        assert count_votes(found) == {"left": 1, "right": 2, "front": 0, "back": 0}
        assert vote(found) == "right"

    def test_of_equal_votes_the_smaller_mean_distance_wins(self) -> None:
        found = sets((0.5, 0.6, 1, 1), (0.9, 0.6, 1, 1))
        assert count_votes(found) == {"left": 1, "right": 1, "front": 0, "back": 0}
        assert vote(found) == "right"  # 0.6 on the mean, left 0.7

    def test_only_poses_with_most_votes_are_compared(self) -> None:
        # Back is nearest on the mean but wins no set.
        found = sets((0.5, 0.9, 0.9, 0.6), (0.9, 0.5, 0.9, 0.6), (0.5, 0.9, 0.9, 0.6))
        assert vote(found) == "left"

    def test_of_equals_in_everything_the_first_wins(self) -> None:
        assert vote(sets((1, 1, 1, 1))) == "left"
        assert vote(sets((2, 1, 1, 1))) == "right"
        assert vote(sets((0, 0, 1, 1)), ENDS) == "front"

    def test_a_choice_between_two_ignores_the_others(self) -> None:
        found = sets((0.3, 0.4, 0.1, 0.2), (0.3, 0.4, 0.1, 0.2), (0.5, 0.4, 0.6, 0.2))
        assert (vote(found), vote(found, SIDES), vote(found, ENDS)) == ("front", "left", "front")

    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=6))
    def test_as_the_loop(self, rows: list[tuple[int, int, int, int]]) -> None:
        found = sets(*[tuple(map(float, row)) for row in rows])  # type: ignore[misc]
        for among in (DIRECTIONS, SIDES, ENDS):
            assert vote(found, among) == slow.vote(found, among)


class TestScores:
    FOUND = (
        prediction("a", (0.1, 0.2, 0.3, 0.4)),  # left
        prediction("b", (0.2, 0.1, 0.3, 0.4)),  # right
        prediction("c", (0.3, 0.2, 0.1, 0.4)),  # front; of the sides, right
        prediction("d", (0.4, 0.3, 0.2, 0.1)),  # back
        prediction("e", (0.4, 0.3, 0.2, 0.1)),  # back
    )
    TRUTH: ClassVar = {"a": "left", "b": "left", "c": "right", "d": "back", "e": "front"}

    def test_by_hand(self) -> None:
        scores = score_poses(self.FOUND, self.TRUTH)
        assert scores.left_right == Accuracy(2, 3)  # a and, among the sides, c
        assert scores.front_back == Accuracy(1, 2)  # d
        assert scores.either == Accuracy(3, 5)
        assert scores.all_four == Accuracy(2, 5)  # a and d
        assert scores.confusion == {
            "left": {"left": 1, "right": 1, "front": 0, "back": 0},
            "right": {"left": 0, "right": 0, "front": 1, "back": 0},
            "front": {"left": 0, "right": 0, "front": 0, "back": 1},
            "back": {"left": 0, "right": 0, "front": 0, "back": 1},
        }

    def test_images_without_a_label_do_not_count(self) -> None:
        scores = score_poses(self.FOUND, {"a": "left"})
        assert (scores.left_right, scores.front_back, scores.all_four) == (
            Accuracy(1, 1),
            Accuracy(0, 0),
            Accuracy(1, 1),
        )

    def test_tables(self) -> None:
        scores = score_poses(self.FOUND, self.TRUTH)
        (row,) = accuracy_grid(scores).rows
        assert row[1] == "66.7 (20.8 to 93.9)"
        assert row[-1] == "5"
        assert confusion_grid(scores).rows[0] == ("left", "1", "1", "0", "0")

    def test_nothing_labelled(self) -> None:
        (row,) = accuracy_grid(score_poses(self.FOUND, {})).rows
        assert row[1:] == ("–", "–", "–", "–", "0")

    @given(
        st.lists(
            st.tuples(
                st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=3),
                st.sampled_from(DIRECTIONS),
            ),
            max_size=8,
        )
    )
    def test_as_the_loop(self, cases: list[tuple[list[tuple[int, int, int, int]], str]]) -> None:
        found = [
            prediction(str(number), *[tuple(map(float, row)) for row in rows])  # type: ignore[misc]
            for number, (rows, _) in enumerate(cases)
        ]
        scores = score_poses(found, {str(number): pose for number, (_, pose) in enumerate(cases)})
        wanted = slow.accuracies([each.distances for each in found], [pose for _, pose in cases])  # type: ignore[misc]
        assert [(each.correct, each.of) for each in scores.accuracies.values()] == list(wanted)


class TestAccuracy:
    def test_known_values(self) -> None:
        # Newcombe 1998, table I, method 3.
        share = Accuracy(81, 263).share
        assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
        share = Accuracy(15, 148).share
        assert (round(share.low, 4), round(share.high, 4)) == (0.0624, 0.1605)

    @given(st.integers(1, 300).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
    def test_as_the_roots(self, counts: tuple[int, int]) -> None:
        share = Accuracy(*counts).share
        low, high = slow.wilson(*counts)
        assert share.low == pytest.approx(low, abs=1e-6)
        assert share.high == pytest.approx(high, abs=1e-6)
        assert 0 <= share.low <= share.value <= share.high <= 1

    def test_of_nothing(self) -> None:
        assert math.isnan(Accuracy(0, 0).share.value)
        assert math.isnan(Accuracy(0, 0).share.high)
        assert str(Accuracy(0, 0)) == "–"


# --- template sets on disk


def object_image(number: int) -> Image.Image:
    return noise(SIZE, SIZE, number)


def write_set(folder: Path, shift: int = 0, masks: bool = False) -> Path:
    """Left is an image, right its mirror image, front and back are others."""
    folder.mkdir(parents=True)
    side = object_image(10 + shift)
    views = (side, ImageOps.mirror(side), object_image(20 + shift), object_image(30 + shift))
    for pose, image in zip(DIRECTIONS, views, strict=True):
        image.save(folder / f"{pose}.png")
        if masks:
            Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(folder / f"{pose}_mask.png")
    return folder


class TestTemplateSets:
    def test_folders_to_images(self, tmp_path: Path) -> None:
        write_set(tmp_path / "b", 1)
        (write_set(tmp_path / "a") / "left.png").rename(tmp_path / "a" / "LEFT.PNG")
        (tmp_path / "a" / "notes.txt").write_text("mine")
        (tmp_path / ".thumbs").mkdir()
        found = read_template_sets(tmp_path)
        assert list(found) == ["a", "b"]
        assert {pose: each.id for pose, each in found["a"].items()} == {
            "left": "a/LEFT.PNG",
            "right": "a/right.png",
            "front": "a/front.png",
            "back": "a/back.png",
        }
        assert found["a"]["left"].mask_path is None

    def test_masks_only_when_asked_for(self, tmp_path: Path) -> None:
        write_set(tmp_path / "a", masks=True)
        assert read_template_sets(tmp_path)["a"]["back"].mask_path is None
        assert read_template_sets(tmp_path, True)["a"]["back"].mask_path == tmp_path / "a" / "back_mask.png"

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (
                lambda root: (root / "a" / "back.png").unlink(),
                r"a: has no template of the pose back; add back\.jpg",
            ),
            (lambda root: (root / "a" / "top.png").write_bytes(b""), "top.png: names no pose"),
            (lambda root: object_image(1).save(root / "a" / "left.jpg"), "left.png: left.jpg is there too"),
            (lambda root: (root / "empty").mkdir(), "empty: no images in this folder"),
            (lambda root: (root / "a" / "front.png").write_text("no"), "front.png: not an image"),
            (
                lambda root: (root / "a" / "right_mask.png").unlink(),
                "has no mask of the template right; add right_mask.png",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
        write_set(tmp_path / "a", masks=True)
        spoil(tmp_path)
        with pytest.raises(InputError, match=message):
            read_template_sets(tmp_path, masks=True)

    def test_no_sets(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no template sets; make a folder for each set with left, right"):
            read_template_sets(tmp_path)
        with pytest.raises(InputError, match="no such folder"):
            read_template_sets(tmp_path / "absent")


# --- distances


@pytest.fixture
def templates(tmp_path: Path) -> dict[str, dict[str, AnnotatedImage]]:
    write_set(tmp_path / "sets" / "a", masks=True)
    return read_template_sets(tmp_path / "sets", masks=True)


def drawn(path: Path, image: Image.Image, mask: np.ndarray | None = None) -> AnnotatedImage:
    image.save(path)
    if mask is None:
        return bare_image(path.name, path)
    mask_path = path.with_name(f"{path.stem}-object.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)
    return bare_image(path.name, path, mask_path)


def columns(first: int, last: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, first:last] = True
    return mask


class TestPredictor:
    def test_the_image_itself_is_at_distance_zero(self, templates: dict, tmp_path: Path) -> None:
        predictor = PosePredictor(Matcher(Sided()), templates)
        for pose in DIRECTIONS:
            found = predictor.distances(templates["a"][pose])
            assert found["a"][pose] == pytest.approx(0, abs=1e-3)
            assert vote(found) == pose

    def test_features_blind_to_left_and_right_cannot_tell_them(self, templates: dict) -> None:
        predictor = PosePredictor(Matcher(Patches()), templates)
        for pose in SIDES:
            found = predictor.distances(templates["a"][pose])["a"]
            assert found["left"] == pytest.approx(found["right"], abs=1e-3)
            assert min(found["front"], found["back"]) > found[pose] + 0.1

    def test_the_mask_says_which_object_is_meant(self, templates: dict, tmp_path: Path) -> None:
        both = Image.open(templates["a"]["front"].path)
        both.paste(Image.open(templates["a"]["back"].path).crop((63, 0, SIZE, SIZE)), (63, 0))
        predictor = PosePredictor(Matcher(Sided()), templates, PoseSettings(masks=True))
        assert vote(predictor.distances(drawn(tmp_path / "l.png", both, columns(0, 50)))) == "front"
        assert vote(predictor.distances(drawn(tmp_path / "r.png", both, columns(80, SIZE)))) == "back"

    def test_imd_over_the_object_as_the_loop_has_it(self, templates: dict, tmp_path: Path) -> None:
        matcher, mask = Matcher(Sided()), np.zeros((SIZE, SIZE), dtype=bool)
        mask[20:26, 30:36] = True
        query = drawn(tmp_path / "q.png", noise(SIZE, SIZE, 3), mask)
        found = PosePredictor(matcher, templates, PoseSettings(masks=True)).distances(query)["a"]
        maps = [matcher.encode(each.path).maps["identity"].data for each in (query, templates["a"]["left"])]
        wanted = slow_alignment.instance_matching_distance(*maps, torch.from_numpy(mask), None, 64)
        assert found["left"] == pytest.approx(wanted, abs=1e-5)

    @pytest.mark.parametrize("restricted", [False, True])
    def test_template_masks_restrict_the_neighbours(
        self, templates: dict, tmp_path: Path, restricted: bool
    ) -> None:
        there = columns(60, 100)
        for each in templates["a"].values():
            Image.fromarray(there.astype(np.uint8) * 255).save(each.mask_path)
        matcher, here = Matcher(Sided()), columns(10, 40)
        query = drawn(tmp_path / "q.png", noise(SIZE, SIZE, 3), here)
        settings = PoseSettings(masks=True, template_masks=restricted)
        found = PosePredictor(matcher, templates, settings).distances(query)["a"]
        maps = [matcher.encode(each.path).maps["identity"].data for each in (query, templates["a"]["back"])]
        wanted = instance_matching_distance(
            *maps, torch.from_numpy(here), torch.from_numpy(there) if restricted else None
        )
        assert found["back"] == pytest.approx(wanted, abs=1e-6)

    def test_mutual_nearest_neighbours(self, templates: dict, tmp_path: Path) -> None:
        matcher, query = Matcher(Sided()), drawn(tmp_path / "q.png", noise(SIZE, SIZE, 3))
        found = PosePredictor(matcher, templates, PoseSettings("mutual-nn")).distances(query)["a"]
        maps = [matcher.encode(each.path).maps["identity"].data for each in (query, templates["a"]["front"])]
        assert found["front"] == pytest.approx(mutual_nn_distance(*maps), abs=1e-6)

    def test_masks_that_cannot_be_used(self, templates: dict, tmp_path: Path) -> None:
        predictor = PosePredictor(Matcher(Sided()), templates, PoseSettings(masks=True))
        with pytest.raises(InputError, match=r"bare\.png: has no mask of its object"):
            predictor.distances(drawn(tmp_path / "bare.png", noise(SIZE, SIZE, 3)))
        with pytest.raises(InputError, match=r"small-object\.png: mask of 117x117 pixels, image of 60x60"):
            predictor.distances(drawn(tmp_path / "small.png", noise(60, 60, 3), columns(0, 9)))
        speck = np.zeros((900, 900), dtype=bool)
        speck[1, 1] = True
        with pytest.raises(
            InputError, match=r"speck\.png: cannot be compared .* source mask is empty at 64x64"
        ):
            predictor.distances(drawn(tmp_path / "speck.png", noise(900, 900, 3), speck))

    def test_features_that_are_no_numbers_are_not_voted_on(self, templates: dict, tmp_path: Path) -> None:
        black = drawn(tmp_path / "black.png", Image.new("RGB", (SIZE, SIZE)))
        work = PoseWork(Matcher(Blind()), {"cat": templates}, [black, templates["a"]["left"]])
        work = replace(work, images=[replace(each, category="cat") for each in work.images])
        failures = dict[str, Exception]()
        (found,) = predict_poses(work, failed=failures.__setitem__)
        assert found.image == "a/left.png"
        assert isinstance(failures[black.id], NotFiniteError)
        # A template that cannot be compared is no fault of the images.
        broken = {"a": {**templates["a"], "back": black}}
        with pytest.raises(NotFiniteError, match=r"black\.png: the features of this template are not finite"):
            PosePredictor(Matcher(Blind()), broken)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"metric": "cosine"}, "choose imd or mutual-nn"),
            ({"metric": "mutual-nn", "masks": True}, "mutual-nn takes no masks"),
            ({"template_masks": True}, "only with masks of the images"),
        ],
    )
    @pytest.mark.usefixtures("unchecked_types")
    def test_settings_that_do_not_go_together(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            PoseSettings(**settings)


# --- runs


@pytest.fixture
def work(tmp_path: Path, templates: dict) -> PoseWork:
    (tmp_path / "photos").mkdir()
    images = [drawn(tmp_path / "photos" / f"{number}.png", object_image(number)) for number in range(5)]
    return PoseWork(Matcher(Sided()), {"": templates}, images, about={"dataset": "mine"})


def seen(work: PoseWork) -> int:
    extractor = work.matcher.extractor
    assert isinstance(extractor, Sided)
    return extractor.count


class TestRun:
    def test_a_table_holds_what_is_returned(self, work: PoseWork, tmp_path: Path) -> None:
        path, before = tmp_path / "poses.parquet", seen(work)
        found = predict_poses(work, path)
        frame, after = pandas.read_parquet(path), seen(work)
        assert after > before
        assert frame.image.tolist() == [each.id for each in work.images]
        assert frame.pose.tolist() == [each.pose for each in found]
        assert frame.votes_left.tolist() == [each.votes["left"] for each in found]
        first = {each["set"]: each["back"] for each in frame.distances[0]}
        assert first == {name: each["back"] for name, each in found[0].distances.items()}
        assert predict_poses(work, path) == found  # read, not predicted
        assert seen(work) == after
        with pytest.raises(InputError, match="belongs to another run"):
            predict_poses(replace(work, about={}), path)

    def test_a_table_keeps_what_failed(self, work: PoseWork, tmp_path: Path) -> None:
        (tmp_path / "photos" / "1.png").write_bytes(b"")
        path, first, again = tmp_path / "poses.parquet", dict[str, str](), dict[str, str]()
        found = predict_poses(work, path, failed=lambda name, error: first.update({name: str(error)}))
        assert len(found) == 4
        assert predict_poses(work, path, failed=lambda name, error: again.update({name: str(error)})) == found
        assert again == first
        assert list(first) == [work.images[1].id]

    def test_the_file_holds_what_is_returned(self, work: PoseWork, tmp_path: Path) -> None:
        steps: list[tuple[int, int]] = []
        found = predict_poses(
            work, tmp_path / "out" / "poses.json", progress=lambda what, *step: steps.append(step)
        )
        assert [each.image for each in found] == [each.id for each in work.images]
        assert steps == [(done, 5) for done in range(6)]
        content = json.loads((tmp_path / "out" / "poses.json").read_text(encoding="utf-8"))
        assert content["poses"] == [each.to_dict() for each in found]
        assert content["dataset"] == "mine"
        assert content["templates"] == {"": {"a": {pose: f"a/{pose}.png" for pose in DIRECTIONS}}}
        assert str(tmp_path) not in json.dumps(content)
        assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["poses.json"]
        assert predict_poses(work) == found

    def test_names_that_are_no_text_are_kept(self, work: PoseWork, tmp_path: Path) -> None:
        named = [replace(each, id=os.fsdecode(b"odd-\xff.png")) for each in work.images[:1]]
        for _ in range(2):
            (found,) = predict_poses(replace(work, images=named), tmp_path / "poses.json")
            assert found.image == named[0].id

    def test_a_whole_file_is_read_not_made_again(self, work: PoseWork, tmp_path: Path) -> None:
        path = tmp_path / "poses.json"
        first = predict_poses(work, path)
        before, steps = seen(work), list[tuple[int, int]]()
        assert predict_poses(work, path, progress=lambda what, *step: steps.append(step)) == first
        assert seen(work) == before
        assert steps == [(5, 5)]

    @pytest.mark.parametrize("cut", [0, 7])
    def test_an_interrupted_run_goes_on_and_ends_the_same(
        self, work: PoseWork, tmp_path: Path, cut: int
    ) -> None:
        whole = tmp_path / "whole.json"
        predict_poses(work, whole)

        def stop(what: str, done: int, total: int, note: str = "") -> None:
            if done == 3:
                raise KeyboardInterrupt

        path, part = tmp_path / "poses.json", tmp_path / "poses.json.part"
        with pytest.raises(KeyboardInterrupt):
            predict_poses(work, path, progress=stop)
        if cut:
            part.write_bytes(part.read_bytes()[:-cut])
        before, steps = seen(work), list[int]()
        predict_poses(work, path, progress=lambda what, done, total: steps.append(done))
        assert steps[0] == (2 if cut else 3)
        assert seen(work) - before == 4 + 5 - steps[0]
        assert path.read_bytes() == whole.read_bytes()
        assert not part.exists()

    def test_several_processes_write_the_same(self, work: PoseWork, tmp_path: Path) -> None:
        alone, side_by_side = (
            predict_poses(work, tmp_path / f"{count}.json", engine=Local(count)) for count in (1, 2)
        )
        assert side_by_side == alone == predict_poses(work, engine=Local(2))
        assert (tmp_path / "2.json").read_bytes() == (tmp_path / "1.json").read_bytes()

    def test_other_work_is_refused_and_nothing_is_lost(self, work: PoseWork, tmp_path: Path) -> None:
        path = tmp_path / "poses.json"
        predict_poses(work, path)
        before = path.read_bytes()
        other = PoseWork(work.matcher, work.templates, work.images, PoseSettings("mutual-nn"), work.about)
        with pytest.raises(InputError, match=r"another run \(different: settings\.metric\); choose another"):
            predict_poses(other, path)
        object_image(77).save(tmp_path / "sets" / "a" / "back.png")
        with pytest.raises(InputError, match=r"different: hashes\.templates"):
            predict_poses(work, path)
        object_image(78).save(work.images[0].path)
        with pytest.raises(InputError, match=r"different: hashes\.pictures, hashes\.templates"):
            predict_poses(work, path)
        assert path.read_bytes() == before
        assert predict_poses(work, path, restart=True)
        assert path.read_bytes() != before

    def test_each_category_has_its_own_templates(
        self, work: PoseWork, tmp_path: Path, templates: dict
    ) -> None:

        write_set(tmp_path / "more" / "b", 1)
        other = read_template_sets(tmp_path / "more")
        images = [
            replace(templates["a"]["left"], category="x"),
            replace(other["b"]["back"], category="y"),
            replace(templates["a"]["right"], category="x"),
        ]
        found = predict_poses(PoseWork(work.matcher, {"x": templates, "y": other}, images))
        assert [(each.category, each.pose, list(each.distances)) for each in found] == [
            ("x", "left", ["a"]),
            ("y", "back", ["b"]),
            ("x", "right", ["a"]),
        ]

    @pytest.mark.parametrize("content", ["no json", "[1]", '{"format": "geoaware poses"}'])
    def test_a_file_of_something_else_is_refused(self, work: PoseWork, tmp_path: Path, content: str) -> None:
        path = tmp_path / "poses.json"
        path.write_text(content)
        with pytest.raises(InputError, match=r"was not written by geoaware; choose|belongs to another run"):
            predict_poses(work, path)
        assert path.read_text() == content

    @pytest.mark.parametrize("name", ["poses.json", "poses.json.part"])
    def test_a_restart_throws_away_nothing_of_others(self, work: PoseWork, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("precious")
        with pytest.raises(InputError, match=f"{name}: exists and was not written by geoaware; choose"):
            predict_poses(work, tmp_path / "poses.json", restart=True)
        assert [each.read_text() for each in tmp_path.glob("poses*")] == ["precious"]

    def test_a_second_run_on_the_same_file_is_refused(self, work: PoseWork, tmp_path: Path) -> None:
        tried = []

        def second(*_: Any) -> None:
            with pytest.raises(InputError, match=r"poses.json.part: another process is at work on it; wait"):
                predict_poses(work, tmp_path / "poses.json", restart=True)
            tried.append(True)

        predict_poses(work, tmp_path / "poses.json", progress=second)
        assert tried

    def test_damage_in_what_is_done_is_named(self, work: PoseWork, tmp_path: Path) -> None:
        path, part = tmp_path / "poses.json", tmp_path / "poses.json.part"
        for line in ('{"picture": "0.png"}', '{"picture": "0.png", "category": "", "distances": {}}'):
            part.write_text(f"{json.dumps(work.header())}\n{line}\n")
            with pytest.raises(InputError, match=r"poses\.json\.part, line 2: is damaged; restart to begin"):
                predict_poses(work, path)

    def test_nothing_to_do(self, work: PoseWork) -> None:
        with pytest.raises(InputError, match="no images"):
            predict_poses(PoseWork(work.matcher, work.templates, []))
        with pytest.raises(InputError, match="category '' has images to predict and no template set"):
            predict_poses(PoseWork(work.matcher, {}, work.images))
