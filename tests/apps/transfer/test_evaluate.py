from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, read_targets, transfer
from geoaware.apps.transfer.evaluate import (
    evaluate,
    read_truth,
    reliability_diagram,
    save_report,
    to_text,
    visibility,
)
from geoaware.evaluation import score_file
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import POINTS, annotation, category, matcher, photos, write_sources


def figures(threshold: float = 0.5) -> Any:
    """Ten keypoints by hand: probability, visible, right."""
    rows = [
        (0.95, 1, 1), (0.95, 1, 1), (0.95, 1, 0), (0.95, 0, 0),
        (0.65, 1, 1), (0.65, 1, 0),
        (0.25, 1, 1), (0.25, 1, 0), (0.25, 0, 0), (0.25, 0, 0),
    ]  # fmt: skip
    chances, seen, right = (np.array(column) for column in zip(*rows, strict=True))
    return visibility(chances, seen.astype(bool), right.astype(bool), threshold)


def test_visibility_by_hand() -> None:
    found = figures()
    assert (found.keypoints, found.visible) == (10, 7)
    at = found.at
    assert (at.shown, at.precision, at.recall, at.right) == pytest.approx((0.6, 5 / 6, 5 / 7, 0.5))
    assert [each.threshold for each in found.others] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert found.others[4] == at
    assert found.others[8].precision == pytest.approx(3 / 4)
    assert [(each.low, each.keypoints) for each in found.bins] == [(0.2, 4), (0.6, 2), (0.9, 4)]
    assert [each.right for each in found.bins] == pytest.approx([0.25, 0.5, 0.5])
    # 4 x |0.25 - 0.25| + 2 x |0.65 - 0.5| + 4 x |0.95 - 0.5|, over 10.
    assert found.calibration_error == pytest.approx(0.21)


def test_nothing_shown_and_nothing_at_all() -> None:
    at = figures(threshold=0.99).at
    assert (at.shown, at.recall) == (0, 0)
    assert math.isnan(at.precision)
    assert math.isnan(at.right)
    empty = visibility(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), 0.5)
    assert empty.bins == ()
    assert math.isnan(empty.calibration_error)
    assert "–" in to_text(empty)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    found = visibility(np.array([1.0]), np.array([True]), np.array([True]), 0.5)
    assert [(each.low, each.high) for each in found.bins] == [(0.9, 1.0)]
    assert found.calibration_error == 0


def test_text() -> None:
    lines = to_text(figures()).splitlines()
    words = " ".join(" ".join(lines).split())
    assert lines[0] == "Marked visible, in per cent"
    assert "10 keypoints, 7 of them visible" in words
    assert next(line for line in lines if line.strip().startswith("0.5*")).split() == [
        "0.5*",
        "60.0",
        "83.3",
        "71.4",
        "50.0",
    ]
    assert words.endswith("Expected calibration error: 21.0 %.")
    assert len([line for line in lines if "*" in line]) == 2


def test_the_diagram_shows_the_bins() -> None:
    figure = reliability_diagram(figures())
    upper, lower = figure.axes
    line = next(each for each in upper.get_lines() if str(each.get_label()).startswith("found"))
    assert np.asarray(line.get_xydata()).ravel().tolist() == pytest.approx([0.25, 0.25, 0.65, 0.5, 0.95, 0.5])
    assert [bar.get_height() for bar in lower.patches] == [4, 2, 4]
    assert "21.0 %" in str(line.get_label())


def annotated(folder: Path, shift: float = 0.0, **changes: Any) -> Path:
    """Three views with their true keypoints, moved by ``shift``; the last one's nose is hidden."""
    photos(folder / "images", 3)
    entries = []
    for n in range(3):
        flat: list[float] = []
        for each, (x, y) in enumerate(POINTS):
            flat += [x - 9 * n + shift, y - 4 * n, 1 if (n, each) == (2, 2) else 2]
        entries.append(annotation(n + 1, n + 1, flat))
    content = {
        "images": [{"id": n + 1, "file_name": f"{n:03}.png"} for n in range(3)],
        "annotations": entries,
        "categories": [category()],
        **changes,
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def sources(tmp_path: Path) -> Any:
    return read_sources(write_sources(tmp_path / "s", [(0, 0), (4, 4)]))


SETTINGS = TransferSettings(threshold=0.0, keep_guesses=True)


def test_an_evaluation_by_hand(tmp_path: Path, sources: Any) -> None:
    targets = read_targets(annotated(tmp_path), sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    # Nearly all are found within 0.1 x 80 pixels, less than a cell; the hidden nose does not count.
    assert found.places.overall.standard.keypoints == 14
    assert found.places.protocol == "paper"
    assert found.places.value(0.1) > 0.8
    assert found.places.overall.geometry_aware.keypoints == 12
    at = found.visibility.at
    assert (found.visibility.keypoints, found.visibility.visible) == (15, 14)
    assert (at.shown, at.precision, at.recall) == pytest.approx((1.0, 14 / 15, 1.0))
    assert at.right == pytest.approx(14 / 15 * found.places.value(0.1, "per_point"))
    assert (found.targets, found.failed) == (3, 0)
    again = score_file(found.predictions, draws=0)
    assert str(again) == str(found.places)
    hidden = evaluate(out, sources, targets, tmp_path / "h.jsonl", hidden=True, draws=0)
    assert hidden.places.overall.standard.keypoints == 15


def test_wrong_places_are_found_wrong(tmp_path: Path, sources: Any) -> None:
    targets = read_targets(annotated(tmp_path, shift=20.0), sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    assert found.places.value(0.1) == 0
    assert (found.visibility.at.right, found.visibility.at.precision) == (0, pytest.approx(14 / 15))


def test_without_boxes_the_image_is_the_base(tmp_path: Path, sources: Any) -> None:
    path = annotated(tmp_path)
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        del each["bbox"]
    path.write_text(json.dumps(content))
    targets = read_targets(path, sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    assert evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0).places.protocol == "pf-pascal"
    with pytest.raises(InputError, match="no object box, from which protocol paper takes its threshold"):
        evaluate(out, sources, targets, tmp_path / "p.jsonl", "paper")


def test_a_failed_target_counts_nowhere(tmp_path: Path, sources: Any) -> None:
    path = annotated(tmp_path)
    (tmp_path / "images" / "001.png").write_bytes(b"")
    targets = read_targets(path, sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    assert (found.targets, found.failed, found.visibility.keypoints) == (2, 1, 10)


def test_what_cannot_be_evaluated(tmp_path: Path, sources: Any) -> None:
    with pytest.raises(InputError, match=r"an evaluation needs annotated targets; give their COCO"):
        read_truth(sources, list_targets([photos(tmp_path / "x")]))
    path = annotated(tmp_path)
    targets = read_targets(path, sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json").out
    assert out is not None
    with pytest.raises(InputError, match="holds no guesses to evaluate"):
        evaluate(out, sources, targets, tmp_path / "p.jsonl")
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        each["keypoints"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no target has keypoints annotated; an evaluation needs them"):
        read_truth(sources, read_targets(path, sources))


def test_a_report(tmp_path: Path, sources: Any) -> None:
    targets = read_targets(annotated(tmp_path), sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    paths = save_report(found, tmp_path / "report")
    assert {"evaluation.json", "reliability.png", "pck_against_alpha.png"} <= {each.name for each in paths}
    content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert content["visibility"]["at"]["precision"] == pytest.approx(14 / 15)
    assert content["places"]["protocol"] == "paper"
    assert (tmp_path / "report" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_targets_without_box_or_keypoints_are_left_out_and_counted(
    tmp_path: Path, sources: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = annotated(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [0, 0, 0, 0]
    path.write_text(json.dumps(content))
    targets = read_targets(path, sources)
    said = f"left out: 1 boxes without extent, which count as none ({path}: annotation 1)"
    assert targets.notes == (said,)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    with caplog.at_level("INFO"):
        found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    assert (found.places.protocol, found.targets, found.visibility.keypoints) == ("paper", 2, 10)
    assert "1 targets have no box and are not evaluated" in caplog.messages
    caplog.clear()
    with caplog.at_level("INFO"):
        by_image = evaluate(out, sources, targets, tmp_path / "i.jsonl", "pf-pascal", draws=0)
    assert (by_image.places.protocol, by_image.targets) == ("pf-pascal", 3)
    assert "box" not in caplog.text
    content["annotations"][1]["keypoints"] = None
    path.write_text(json.dumps(content))
    with caplog.at_level("INFO"):
        found = evaluate(out, sources, read_targets(path, sources), tmp_path / "p.jsonl", draws=0)
    assert found.targets == 1
    assert "1 targets have no keypoints annotated and are not evaluated" in caplog.messages


def test_flags_of_targets_are_read_as_in_data_sets(
    tmp_path: Path, sources: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = annotated(tmp_path)
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        each["keypoints"][2::3] = ["1"] * 5
    path.write_text(json.dumps(content))
    targets = read_targets(path, sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", SETTINGS).out
    assert out is not None
    with caplog.at_level("INFO"):
        found = evaluate(out, sources, targets, tmp_path / "p.jsonl", draws=0)
    assert found.visibility.visible == 15
    assert "no keypoint has flag 2, so flag 1 counts as visible" in caplog.messages
    content["annotations"][0]["keypoints"][2] = 0.7
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"000.png, annotation 1: the flag 0.7 of a keypoint"):
        read_truth(sources, read_targets(path, sources))
