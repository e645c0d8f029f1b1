from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from geoaware.evaluation.score import score_file
from geoaware.method.metrics.errors import ERROR_TYPES
from geoaware.method.types import AnnotatedImage
from geoaware.report.gallery import Entry, entries, find_images, judge
from geoaware.report.gallery.entries import figures
from geoaware.runs.errors import InputError
from tests.report.gallery.small import (
    EVIL,
    EXACT,
    LOST,
    MIXED,
    NEAR,
    RECORDS,
    record,
    write_data,
    write_predictions,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def images(root: Path) -> dict[str, AnnotatedImage]:
    return find_images("coco", root, "val")


def shown(path: Path, images: dict[str, AnnotatedImage]) -> list[Entry]:
    return list(entries([judge(path)], images))


def test_hand_computed(tmp_path: Path, images: dict[str, AnnotatedImage], root: Path) -> None:
    mixed, exact, lost, near = shown(write_predictions(tmp_path / "p.jsonl"), images)
    left, right, nose = mixed.matches
    assert (left.name, left.keypoint, left.kind, left.types) == ("left_ear", 0, "correct", ())
    assert (left.source, left.predicted, left.truth) == ((20.0, 20.0), (20.0, 25.0), (20.0, 20.0))
    assert left.error == pytest.approx(0.05)
    assert left.geometry_aware
    assert (right.kind, right.types) == ("swap_lr", ("swap", "swap_lr"))
    assert right.error == pytest.approx(0.38)
    assert (nose.kind, nose.types) == ("jitter", ("jitter", "miss"))
    assert not nose.geometry_aware
    assert [each.kind for each in exact.matches] == ["correct"] * 3
    assert (exact.azimuth_difference, exact.pose) == (3, "flip")
    assert [(each.kind, each.types) for each in lost.matches] == [("miss", ()), ("miss", ())]
    assert (lost.id, lost.category, lost.azimuth_difference) == (EVIL, f"dog {EVIL}", None)
    assert [each.keypoint for each in near.matches] == [0, 2]
    assert (mixed.source, mixed.target_name) == (root / "images" / "a.png", "b.png")
    assert figures(mixed.matches) == {
        "points": 3,
        "correct": 1,
        "pck": 1 / 3,
        "mean": pytest.approx((0.05 + 0.38 + 0.15) / 3, abs=1e-6),
        "worst": pytest.approx(0.38, abs=1e-6),
        "lowest": None,
    }


def test_a_correct_match_can_be_a_swap_too(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    # The right ear is 9 px away (correct), the left ear, moved for this, 3 px (a swap).
    near = record("near", "a.png", "b.png", {1: [51.0, 20.0]})
    near["target_keypoints"]["0"] = [48.0, 20.0]
    (entry,) = shown(write_predictions(tmp_path / "p.jsonl", [near]), images)
    assert entry.matches[0].kind == "correct"
    assert entry.matches[0].types == ("correct", "swap", "swap_lr")


def test_figures_are_those_of_score(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    path = write_predictions(tmp_path / "p.jsonl")
    result = score_file(path, draws=0)
    made = [figures(each.matches) for each in shown(path, images)]
    assert sum(each["pck"] for each in made) / 4 == pytest.approx(result.value(0.1, "per_image"))
    assert sum(each["correct"] for each in made) / 10 == pytest.approx(result.value(0.1, "per_point"))
    matches = [match for each in shown(path, images) for match in each.matches]
    assert result.errors is not None
    for column, kind in enumerate(ERROR_TYPES[:4]):
        share = sum(kind in (match.types or (match.kind,)) for match in matches) / len(matches)
        assert share == pytest.approx(result.errors.standard.values["per_point"][column])


def test_another_threshold(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    path = write_predictions(tmp_path / "p.jsonl", [MIXED])
    (entry,) = entries([judge(path, alpha=0.04)], images)
    assert [each.kind for each in entry.matches] == ["jitter", "swap_lr", "miss"]
    # "paper" wants less than the threshold: an error of exactly alpha is wrong.
    (entry,) = entries([judge(path, alpha=0.05)], images)
    assert entry.matches[0].kind == "jitter"
    with pytest.raises(InputError, match="alpha is a share of the threshold base, above 0"):
        judge(path, alpha=0.0)


def test_files_without_target_keypoints_know_right_and_wrong(
    tmp_path: Path, images: dict[str, AnnotatedImage]
) -> None:
    bare = {key: value for key, value in MIXED.items() if key != "target_keypoints"}
    (entry,) = shown(write_predictions(tmp_path / "p.jsonl", [bare], schemas={}), images)
    assert [each.kind for each in entry.matches] == ["correct", "wrong", "wrong"]
    assert [each.name for each in entry.matches] == ["keypoint 0", "keypoint 1", "keypoint 2"]


def test_a_pair_without_points(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    run = judge(write_predictions(tmp_path / "p.jsonl", [record("none", "a.png", "b.png", {}), MIXED]))
    first, _ = entries([run], images)
    assert first.matches == ()
    assert figures(first.matches)["mean"] is None
    assert run.worst(1) == [1]


def test_the_worst_pairs_come_in_the_files_order(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    # Mean errors 0.193, 0, 0.45, 0.045.
    run = judge(write_predictions(tmp_path / "p.jsonl"))
    assert run.worst(2) == [0, 2]
    assert run.worst(9) == [0, 1, 2, 3]
    assert [each.id for each in entries([run], images, run.worst(1))] == [EVIL]


def test_two_files_of_the_same_pairs(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    better = {**MIXED, "predicted": MIXED["truth"], "pose": "rot90"}
    a = judge(write_predictions(tmp_path / "a.jsonl", [MIXED, EXACT]))
    b = judge(write_predictions(tmp_path / "b.jsonl", [EXACT, better]))
    mixed, exact = entries([a, b], images)
    assert mixed.other is not None
    assert [each.kind for each in mixed.other] == ["correct"] * 3
    assert (mixed.pose, mixed.other_pose, exact.other_pose) == ("identity", "rot90", "flip")
    for records, message in (
        ([EXACT], "1 pairs are in one only, such as 'mixed'"),
        ([EXACT, record("mixed", "a.png", "b.png", {0: [1.0, 1.0]})], "has other keypoints"),
    ):
        with pytest.raises(InputError, match=message):
            entries([a, judge(write_predictions(tmp_path / "c.jsonl", records))], images)
    with pytest.raises(InputError, match="is of protocol dift"):
        entries([a, judge(write_predictions(tmp_path / "d.jsonl", [MIXED, EXACT], protocol="dift"))], images)
    with pytest.raises(InputError, match="3 predictions files"):
        entries([a, a, a], images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "z.png"}, "image 'z.png' of pair 'mixed' is not one of the data set; give the"),
        ({"source": "c.png"}, "keypoint 1 of pair 'mixed' is not annotated in 'c.png'"),
        ({"pose": "upside-down"}, "line 2: pair, source and target must be names and pose one of identity"),
        ({"source": None}, "line 2: pair, source and target must be names"),
        (
            {"truth": [[21.0, 20.0], [60.0, 20.0], [40.0, 50.0]], "target_keypoints": None},
            "the true points of pair 'mixed' are not those of 'b.png' in the data set",
        ),
    ],
)
def test_another_data_set(
    tmp_path: Path, images: dict[str, AnnotatedImage], change: dict[str, object], message: str
) -> None:
    path = write_predictions(tmp_path / "p.jsonl", [{**MIXED, **change}])
    with pytest.raises(InputError) as caught:
        shown(path, images)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_images_of_predictions_are_found_as_other_systems_spell_them(
    tmp_path: Path, images: dict[str, AnnotatedImage], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_predictions(tmp_path / "p.jsonl", [{**MIXED, "source": "C:\\photos\\A.png"}])
    with caplog.at_level("INFO"):
        (entry,) = shown(path, images)
    assert (entry.source, entry.source_name) == (images["a.png"].path, "C:\\photos\\A.png")
    assert f"{path}: names spelled in another way (folders of another place and capitals): 1" in caplog.text


def test_missing_image_files(tmp_path: Path, images: dict[str, AnnotatedImage]) -> None:
    gone = {**images, "b.png": replace(images["b.png"], path=tmp_path / "gone.png")}
    run = judge(write_predictions(tmp_path / "p.jsonl"))
    with pytest.raises(InputError, match=r"gone\.png: no such image"):
        entries([run], gone)
    # Only those of the pairs to be shown count.
    assert [each.id for each in entries([run], gone, [2])] == [LOST["pair"]]


def test_images_of_no_drawn_pair_are_found(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    assert list(find_images("coco", root, "val", pairs=1, seed=3)) == ["a.png", "b.png", "c.png"]
    with pytest.raises(InputError, match="has no option 'colour'"):
        find_images("coco", root, "val", colour=1)


def test_other_loaders(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    line = {"source": "images/a.png", "target": "images/b.png"}
    line |= {"source_points": [[1, 2]], "target_points": [[3, 4]]}
    (root / "pairs.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert list(find_images("pairs", root, "all")) == ["images/a.png", "images/b.png"]


def test_the_small_records_are_as_described() -> None:
    assert [each["pair"] for each in RECORDS] == ["mixed", "exact", EVIL, "near"]
    assert NEAR["source"] == "c.png"
