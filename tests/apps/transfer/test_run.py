from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from geoaware.apps.transfer import (
    TransferSettings,
    Voters,
    VoteSettings,
    list_targets,
    read_sources,
    read_targets,
    transfer,
)
from geoaware.apps.transfer.calibration import shipped
from geoaware.matcher import Matcher
from geoaware.method.geometry import pose_image, pose_points
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.records import Records
from geoaware.runs.work import Local
from tests.apps.transfer.tiny import (
    CELL,
    NAMES,
    POINTS,
    SIDE,
    category,
    job,
    matcher,
    photos,
    view,
    write_sources,
)
from tests.evaluation.tiny import Blind, Sided

ROOT = Path(__file__).resolve().parents[3]
ALL = TransferSettings(threshold=0.0)


def placed(path: Path) -> dict[str, np.ndarray]:
    """Keypoints (k, 3) by image."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {each["id"]: each["file_name"] for each in content["images"]}
    return {
        names[each["image_id"]]: np.array(each["keypoints"]).reshape(-1, 3) for each in content["annotations"]
    }


def moved(dx: float, dy: float) -> np.ndarray:
    return np.array(POINTS) - [dx, dy]


@pytest.mark.parametrize("offsets", [[(0, 0)], [(0, 0), (9, 9), (5, 12)]])
def test_keypoints_move_with_the_image(tmp_path: Path, offsets: list[tuple[int, int]]) -> None:
    sources = read_sources(write_sources(tmp_path / "s", offsets))
    target = tmp_path / "t" / "shifted.png"
    target.parent.mkdir()
    view(18, 9).save(target)
    out = transfer(sources, list_targets([target]), matcher(), tmp_path / "out.json", ALL).out
    assert out is not None
    found = placed(out)["shifted.png"]
    assert (found[:, 2] == 2).all()
    assert np.abs(found[:, :2] - moved(18, 9)).max() < CELL


def test_left_and_right_keep_their_names_in_a_mirror(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path / "s"))
    target = tmp_path / "t" / "mirrored.png"
    target.parent.mkdir()
    pose_image(view(0, 0), "flip").save(target)
    out = transfer(sources, list_targets([target]), matcher(), tmp_path / "out.json", ALL).out
    assert out is not None
    (entry,) = json.loads(out.read_text())["annotations"]
    assert entry["pose"] == "flip"
    partner = [1, 0, 2, 4, 3]
    expected = pose_points([POINTS[each] for each in partner], (SIDE, SIDE), "flip").numpy()
    assert np.abs(placed(out)["mirrored.png"][:, :2] - expected).max() < CELL
    without = transfer(sources, list_targets([target]), matcher("off"), tmp_path / "off.json", ALL).out
    assert without is not None
    assert np.abs(placed(without)["mirrored.png"][:, :2] - expected).max() > CELL


def test_a_source_of_something_else_is_outvoted(tmp_path: Path) -> None:
    path = write_sources(tmp_path / "s", [(0, 0), (9, 0), (0, 9), (9, 9)])
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(
        path.parent / "images" / "s1.png"
    )
    target = tmp_path / "t.png"
    view(18, 9).save(target)
    sources = read_sources(path)
    out = transfer(sources, list_targets([target]), matcher(), tmp_path / "out.json", ALL).out
    assert out is not None
    assert np.abs(placed(out)["t.png"][:, :2] - moved(18, 9)).max() < CELL
    nearest = replace(ALL, vote=VoteSettings(nearest=1))
    out = transfer(sources, list_targets([target]), matcher(), tmp_path / "one.json", nearest).out
    assert out is not None
    (entry,) = json.loads(out.read_text())["annotations"]
    assert entry["source"] in ("s2.png", "s3.png", "s4.png")


def test_a_small_object_is_cut_out_and_its_points_come_back(tmp_path: Path) -> None:
    """A view stands small in a large image; its box is given."""
    sources = read_sources(write_sources(tmp_path / "s"))
    folder = tmp_path / "images"
    folder.mkdir()
    large = Image.new("RGB", (400, 300), "gray")
    large.paste(view(0, 0), (210, 100))
    large.save(folder / "large.png")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "large.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [210, 100, SIDE, SIDE]}],
        "categories": [category()],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    targets, settings = read_targets(path, sources), replace(ALL, margin=0.0)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", settings).out
    assert out is not None
    assert np.abs(placed(out)["large.png"][:, :2] - moved(-210, -100)).max() < CELL
    (entry,) = json.loads(out.read_text())["annotations"]
    assert entry["bbox"] == [210, 100, SIDE, SIDE]
    whole = transfer(sources, targets, matcher(), tmp_path / "whole.json", replace(settings, below=0.0)).out
    assert whole is not None
    assert np.abs(placed(whole)["large.png"][:, :2] - moved(-210, -100)).max() > CELL


def test_keypoints_are_found_on_the_mask_only(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path / "s"))
    photos(tmp_path / "images", 1)
    corner = [[90, 90, 116, 90, 116, 116, 90, 116]]
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "000.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": corner}],
        "categories": [category()],
    }
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(content))
    targets = read_targets(path, sources)
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", ALL).out
    assert out is not None
    assert placed(out)["000.png"][:, :2].min() >= 85
    free = transfer(sources, targets, matcher(), tmp_path / "free.json", replace(ALL, masks=False)).out
    assert free is not None
    assert np.abs(placed(free)["000.png"][:, :2] - moved(0, 0)).max() < CELL


def test_unreadable_images_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    ended = transfer(sources, targets, matcher(), tmp_path / "out.json", ALL)
    assert ended.out is not None
    assert (ended.targets, ended.failed) == (5, 1)
    (reason,) = ended.reasons
    assert reason.startswith("002.png: not an image that can be read")
    content = json.loads(ended.out.read_text())
    assert [each["file_name"] for each in content["info"]["failed"]] == ["002.png"]
    assert str(tmp_path) not in ended.out.read_text()
    assert [each["id"] for each in content["images"]] == [1, 2, 4, 5]
    assert [each["id"] for each in content["annotations"]] == [1, 2, 4, 5]
    assert not (tmp_path / "out.json.part").exists()


def test_targets_of_stored_pixels_are_found_there(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    straight = transfer(sources, list_targets([targets.path("001.png")]), matcher(), tmp_path / "a.json", ALL)
    turned, exif = tmp_path / "turned", Image.Exif()
    turned.mkdir()
    exif[0x0112] = 3
    with Image.open(targets.path("001.png")) as image:
        size = image.size
        image.transpose(Image.Transpose.ROTATE_180).save(turned / "001.png", exif=exif)
    (turned / os.fsdecode(b"caf\xe9.png")).write_bytes((turned / "001.png").read_bytes())
    ended = transfer(sources, list_targets([turned], exif="stored"), matcher(), tmp_path / "b.json", ALL)
    assert ended.failed == 1
    assert "caf\\udce9.png: its name is not UTF-8" in ended.reasons[0]
    a, b = (json.loads((tmp_path / name).read_text())["annotations"][0] for name in ("a.json", "b.json"))
    xs, ys, us, vs = (each["keypoints"][axis::3] for each in (a, b) for axis in (0, 1))
    assert us == pytest.approx([size[0] - 1 - x for x in xs], abs=0.02)
    assert vs == pytest.approx([size[1] - 1 - y for y in ys], abs=0.02)
    assert straight.failed == 0


def test_a_whole_file_is_left_as_it_is(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    first = transfer(sources, targets, matcher(), tmp_path / "out.json")
    stamp = (tmp_path / "out.json").stat().st_mtime_ns
    assert transfer(sources, targets, matcher(), tmp_path / "out.json") == first
    assert (tmp_path / "out.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_an_interrupted_run_goes_on_and_writes_the_same(tmp_path: Path, stop: int, batch: int) -> None:
    sources, targets = job(tmp_path)
    settings = replace(ALL, batch=batch)
    whole = transfer(sources, targets, matcher(), tmp_path / "whole.json", settings).out
    out, part = tmp_path / "out.json", tmp_path / "out.json.part"

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "annotating" and done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(sources, targets, matcher(), out, settings, progress=interrupt)
    assert not out.exists()
    assert part.read_bytes().count(b"\n") == stop + 1
    with part.open("ab") as file:
        file.write(b'{"target": "9')
    counting = matcher()
    assert transfer(sources, targets, counting, out, settings).out == out
    assert whole is not None
    assert out.read_bytes() == whole.read_bytes()
    # Two sources in two poses, and the targets that were missing, by whole batches.
    assert isinstance(counting.extractor, Sided)
    left = [each for each in range(stop - stop % batch, 5) if each != 2]
    assert counting.extractor.count == 4 + len(left)


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    alone, side_by_side = (
        transfer(sources, targets, matcher(), tmp_path / f"{count}.json", ALL, engine=Local(count))
        for count in (1, 2)
    )
    assert side_by_side.out.read_bytes() == alone.out.read_bytes()
    assert side_by_side.reasons == alone.reasons


def damage(part: Path, row: int, harm: Callable[[dict], object]) -> None:
    """Change a line of a part file."""
    rows = part.read_text(encoding="utf-8").splitlines()
    content = json.loads(rows[row])
    changed = harm(content)  # only a text stands for the whole line
    rows[row] = changed if isinstance(changed, str) else json.dumps(content)
    part.write_text("\n".join(rows) + "\n", encoding="utf-8")


DAMAGES: list[tuple[int, Callable[[dict], object]]] = [
    (1, lambda record: '{"target": "1", "siz'),
    (1, lambda record: record["points"].pop()),
    (1, lambda record: record["probability"].append(0.5)),
    (2, lambda record: record.update(target=[7])),
    (2, lambda record: record.update(points=[[1, 2, 3]] * len(record["points"]))),
    (2, lambda record: record.update(size="big")),
    (2, lambda record: record.pop("distance")),
    (2, lambda record: record.update(distance=float("nan"))),
    (2, lambda record: "3"),
    (0, lambda head: head["calibration"].update(mass="heavy")),
    (0, lambda head: head["calibration"].pop("mass")),
]


@pytest.mark.parametrize(("row", "harm"), DAMAGES)
def test_damage_in_what_is_done_is_named(tmp_path: Path, row: int, harm: Callable[[dict], object]) -> None:
    sources, targets = job(tmp_path)
    out, part = tmp_path / "out.json", tmp_path / "out.json.part"

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "annotating" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(sources, targets, matcher(), out, ALL, progress=interrupt)
    damage(part, row, harm)
    with pytest.raises(InputError, match=r"out\.json\.part, line \d: is damaged|calibration") as caught:
        transfer(sources, targets, matcher(), out, ALL)
    assert not out.exists()
    assert f"line {row + 1}" in str(caught.value) or row == 0


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.apps.transfer.tiny", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    part, patience = tmp_path / "out.json.part", time.monotonic() + 100
    while time.monotonic() < patience and (not part.exists() or part.read_bytes().count(b"\n") < 8):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = part.read_bytes().count(b"\n")
    assert 8 <= lines < 41
    sources, targets = job(tmp_path, 40)
    transfer(sources, targets, matcher(), tmp_path / "out.json")
    transfer(sources, targets, matcher(), tmp_path / "whole.json")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out, others = tmp_path / "out.json", TransferSettings(VoteSettings(nearest=1))
    transfer(sources, targets, matcher(), out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"belongs to another run \(different: settings.vote.nearest\)"):
        transfer(sources, targets, matcher(), out, others)
    assert out.read_bytes() == before
    transfer(sources, targets, matcher(), out, others, restart=True)
    assert json.loads(out.read_text())["info"]["run"]["settings"]["vote"]["nearest"] == 1


def idle() -> Matcher:
    """One that computes nothing."""
    made = matcher()
    made.extractor.levels = Mock(side_effect=AssertionError("an image was encoded"))  # type: ignore[method-assign]
    return made


SHOWN = [
    TransferSettings(threshold=0.9),
    TransferSettings(threshold=0.2, keep_guesses=True),
    TransferSettings(threshold=0.9, unshown="hidden"),
]


@pytest.mark.parametrize("name", ["out.json", "out.parquet"])
def test_a_finished_run_shows_more_or_less_without_work(tmp_path: Path, name: str) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / name
    transfer(sources, targets, matcher(), out)
    first = out.read_bytes()
    for settings in SHOWN:
        transfer(sources, targets, idle(), out, settings)
        anew = transfer(sources, targets, matcher(), tmp_path / f"anew-{name}", settings, restart=True)
        assert out.read_bytes() == anew.out.read_bytes() != first
        assert not out.with_name(f"{name}.part").exists()
    transfer(sources, targets, idle(), out)
    assert out.read_bytes() == first


def test_only_new_images_are_computed(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    fewer, out, counting = replace(targets, rows=targets.rows[::2]), tmp_path / "out.json", matcher()
    transfer(sources, fewer, matcher(), out, ALL)
    transfer(sources, targets, counting, out, ALL)
    assert isinstance(counting.extractor, Sided)
    assert counting.extractor.count == 4 + len(targets) - len(fewer)
    anew = transfer(sources, targets, matcher(), tmp_path / "anew.json", ALL).out
    assert out.read_bytes() == anew.read_bytes()
    assert lines_of(out).read_bytes() == lines_of(anew).read_bytes().replace(b"anew.json", b"out.json")
    with pytest.raises(InputError, match=r"out.json: is of other targets too; give these too, choose"):
        transfer(sources, fewer, matcher(), out, ALL)
    assert out.read_bytes() == anew.read_bytes()


def lines_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.records")


def test_a_result_that_was_changed_by_hand_is_not_replaced(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / "out.json"
    transfer(sources, targets, matcher(), out)
    changed = out.read_bytes().replace(b'"iscrowd":0', b'"iscrowd":1', 1)
    assert changed != out.read_bytes()
    out.write_bytes(changed)
    transfer(sources, targets, matcher(), out)
    with pytest.raises(InputError, match=r"out.json: was changed after it was written; choose another place"):
        transfer(sources, targets, matcher(), out, TransferSettings(threshold=0.9))
    assert out.read_bytes() == changed
    transfer(sources, targets, matcher(), out, TransferSettings(threshold=0.9), restart=True)
    assert json.loads(out.read_text())["info"]["run"]["settings"]["threshold"] == 0.9


def test_without_its_lines_a_result_of_other_settings_stays(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / "out.json"
    transfer(sources, targets, matcher(), out)
    lines_of(out).unlink()
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"belongs to another run \(different: settings.threshold\)"):
        transfer(sources, targets, matcher(), out, TransferSettings(threshold=0.9))
    assert out.read_bytes() == before
    precious = lines_of(tmp_path / "other.json")
    precious.write_text("mine")
    with pytest.raises(InputError, match=r"other.json.records: exists and was not written by geoaware"):
        transfer(sources, targets, matcher(), tmp_path / "other.json", restart=True)
    assert precious.read_text() == "mine"


def test_another_format_follows_unless_somebody_changed_it(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out, high = tmp_path / "out.xml", TransferSettings(threshold=0.99)
    transfer(sources, targets, matcher(), out, to="cvat")
    first = out.read_bytes()
    transfer(sources, targets, idle(), out, high, to="cvat")
    second = out.read_bytes()
    assert second != first
    out.write_bytes(second + b"<!-- mine -->")
    with pytest.raises(InputError, match=r"out.xml: belongs to another run; choose another, or restart"):
        transfer(sources, targets, idle(), out, to="cvat")
    assert out.read_bytes() == second + b"<!-- mine -->"
    out.unlink()
    transfer(sources, targets, idle(), out, to="cvat")
    assert out.read_bytes() == first


def test_a_run_that_was_killed_before_its_lines_were_kept(tmp_path: Path, monkeypatch: Any) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / "out.json"
    with monkeypatch.context() as patch:
        patch.setattr(Records, "keep", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            transfer(sources, targets, matcher(), out)
    assert out.exists()
    assert not lines_of(out).exists()
    transfer(sources, targets, idle(), out)
    transfer(sources, targets, idle(), out, TransferSettings(threshold=0.9))
    anew = transfer(sources, targets, matcher(), tmp_path / "anew.json", TransferSettings(threshold=0.9))
    assert out.read_bytes() == anew.out.read_bytes()


def test_what_is_in_the_way_is_never_lost(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    precious = tmp_path / "mine.json"
    precious.write_text('{"images": []}')
    for restart in (False, True):
        with pytest.raises(InputError, match="exists and was not written by geoaware; choose another file"):
            transfer(sources, targets, matcher(), precious, restart=restart)
        with pytest.raises(InputError, match="is what is read from; choose another place"):
            transfer(sources, targets, matcher(), sources.path, restart=restart)
    assert precious.read_text() == '{"images": []}'
    with pytest.raises(InputError, match="is a folder"):
        transfer(sources, targets, matcher(), tmp_path)
    for text in ("nonsense\n", "no line"):
        (tmp_path / "out.json.part").write_text(text)
        for restart in (False, True):
            with pytest.raises(InputError, match=r"out.json.part: exists and was not written by geoaware"):
                transfer(sources, targets, matcher(), tmp_path / "out.json", restart=restart)
        assert (tmp_path / "out.json.part").read_text() == text


def test_a_second_run_on_the_same_file_waits_outside(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    first, out, tried = (
        transfer(sources, targets, matcher(), tmp_path / "first.json"),
        tmp_path / "out.json",
        [],
    )

    def second(*_: Any) -> None:
        for restart in (False, True):
            with pytest.raises(InputError, match=r"out.json.part: another process is at work on it; wait"):
                transfer(sources, targets, matcher(), out, restart=restart)
        tried.append(out)

    transfer(sources, targets, matcher(), out, progress=second)
    assert tried
    assert first.out is not None
    assert out.read_bytes() == first.out.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"failed_targets":', '"failed_targest":'),
        ('"count":', '"cuont":'),
        ('"failed":[', '"failed":[\n{"x"'),
    ],
)
def test_a_damaged_result_is_named_with_the_remedy(tmp_path: Path, old: str, new: str) -> None:
    sources, targets = job(tmp_path)
    out = tmp_path / "out.json"
    transfer(sources, targets, matcher(), out)
    out.write_text(out.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        transfer(sources, targets, matcher(), out)
    assert caught.value.parameter == "restart"
    transfer(sources, targets, matcher(), out, restart=True)


def test_probabilities_are_adapted_where_sources_are_enough(tmp_path: Path) -> None:
    offsets = [(0, 0), (9, 0), (0, 9), (9, 9), (4, 4), (12, 3)]
    few = Voters(read_sources(write_sources(tmp_path / "few", offsets[:2])), matcher())
    assert few.calibrate() is shipped(2)
    voters = Voters(read_sources(write_sources(tmp_path / "many", offsets)), matcher())
    found = voters.calibrate()
    assert "adapted to 30 keypoints of the sources" in found.origin
    evidence, right = voters.leave_out(0)
    # The views are of one scene: every keypoint is found, so the same evidence is worth more.
    assert right == [True] * 5
    assert (found.probability(evidence) > shipped(6).probability(evidence)).all()


def test_a_keypoint_that_no_source_has_gets_no_guess(tmp_path: Path) -> None:
    sources = read_sources(write_sources(tmp_path / "s", hide={0: [2]}))
    target = tmp_path / "t.png"
    view(0, 0).save(target)
    settings = replace(ALL, keep_guesses=True)
    out = transfer(sources, list_targets([target]), matcher(), tmp_path / "out.json", settings).out
    assert out is not None
    (entry,) = json.loads(out.read_text())["annotations"]
    assert entry["guesses"][2] is None
    assert entry["keypoints"][6:9] == [0, 0, 0]
    assert entry["keypoint_scores"][2] == 0
    assert entry["num_keypoints"] == 4
    assert len(entry["guesses"]) == len(NAMES)


def test_a_source_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    sources.images[1].path.write_bytes(b"")
    with pytest.raises(InputError, match=r"s2\.png: not an image that can be read"):
        transfer(sources, targets, matcher(), tmp_path / "new" / "out.json")
    assert not list((tmp_path / "new").iterdir())


def test_a_target_whose_features_are_not_finite_fails_alone(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    out, fine = tmp_path / "out.json", tmp_path / "fine.json"
    transfer(sources, targets, matcher(), fine)
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "photos" / "001.png")
    blind = Matcher(Blind(), matcher().settings, "flip")
    found = transfer(sources, list_targets([tmp_path / "photos"]), blind, out)
    assert (found.targets, found.failed) == (5, 2)
    assert found.reasons[0] == "001.png: the features of the target are not finite; try another dtype"
    here, wanted = placed(out), placed(fine)
    assert list(here) == ["000.png", "003.png", "004.png"]
    assert all((here[each] == wanted[each]).all() for each in here)


def test_a_source_whose_features_are_not_finite_ends_the_run(tmp_path: Path) -> None:
    sources, targets = job(tmp_path)
    Image.new("RGB", (SIDE, SIDE)).save(sources.images[1].path)
    blind = Matcher(Blind(), matcher().settings, "flip")
    with pytest.raises(NotFiniteError, match=r"s2\.png: the features of this source are not finite"):
        transfer(sources, targets, blind, tmp_path / "out.json")
    assert not (tmp_path / "out.json.part").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 1.5}, "the threshold is a probability, 0 to 1, got 1.5"),
        ({"batch": -1}, "a batch must hold at least one image, got -1"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransferSettings(**given)
