"""`geoaware transfer` as a user runs it: with a toy extractor, and once with `lite`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from geoaware.commands import transfer as command
from geoaware.evaluation import score_file
from geoaware.features import EXTRACTORS, Entry
from geoaware.runs.errors import InputError
from tests.apps.transfer.test_evaluate import annotated
from tests.apps.transfer.test_masks import masked
from tests.apps.transfer.tiny import photos, write_sources
from tests.command_line import geoaware
from tests.shared_data import shared
from tests.store.toy_extraction import Toy

app = typer.Typer()
app.command()(command.transfer)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: object, code: int = 0) -> Any:
    options = ("--extractor", "toy", "--device", "cpu")
    result = CliRunner().invoke(app, [*map(str, arguments), *options], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def refused(message: str, *arguments: object) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_sources(tmp_path / "s", [(0, 0), (9, 9)])


def test_a_folder_is_annotated(tmp_path: Path, source: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out.json"
    (folder / "002.png").write_bytes(b"")
    result = run(source, folder, "--out", out, "--review", tmp_path / "r.html", "--threshold", "0.1", code=1)
    assert result.stdout.strip() == str(out)
    assert "cat: 5 keypoints, 2 sources, 5 targets" in result.stderr
    assert "flip pairs inferred from the names" in result.stderr
    assert "failed: 002.png: not an image that can be read" in result.stderr
    assert "4 annotated, 1 failed" in result.stderr
    content = json.loads(out.read_text())
    assert [each["file_name"] for each in content["images"]] == ["000.png", "001.png", "003.png", "004.png"]
    assert content["info"]["run"]["settings"]["threshold"] == 0.1
    assert "003.png" in (tmp_path / "r.html").read_text()
    # The same command again only says what came out.
    before = out.stat().st_mtime_ns
    assert "4 annotated, 1 failed" in run(source, folder, "--out", out, "--threshold", "0.1", code=1).stderr
    assert out.stat().st_mtime_ns == before


def test_the_end_says_how_much_was_found(tmp_path: Path) -> None:
    """Of five images with three keypoints each, one fails and none of the others is empty."""
    hidden = {0: [3, 4], 1: [3, 4]}
    source = write_sources(tmp_path / "s", [(0, 0), (9, 9)], hide=hidden)
    folder, out = photos(tmp_path / "photos"), tmp_path / "out.json"
    (folder / "002.png").write_bytes(b"")
    said = run(source, folder, "--out", out, "--threshold", "0", code=1).stderr
    assert "4 annotated, 1 failed; 12 of 12 keypoints shown, 0 empty" in said
    assert "note: no source shows left paw, right paw" in said
    assert "warning" not in said
    info = json.loads(out.read_text())["info"]
    names = ("failed_targets", "empty_targets", "shown_keypoints", "sought_keypoints")
    assert [info[each] for each in names] == [1, 0, 12, 12]


@pytest.mark.parametrize("name", ["out.json", "out.parquet"])
def test_a_result_that_shows_nothing_is_no_success(tmp_path: Path, source: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    folder, out = photos(tmp_path / "photos"), tmp_path / name
    said = run(source, folder, "--out", out, "--threshold", "1", code=1).stderr
    assert "5 annotated, 0 failed; 0 of 25 keypoints shown, 5 empty" in said
    assert "warning: no keypoint is probable enough to be shown; annotate more sources" in said
    assert out.exists()


def test_sources_among_the_images_are_left_out(tmp_path: Path, source: Path) -> None:
    photos(source.parent / "images", 2)
    result = run(source, source.parent / "images", "--out", tmp_path / "out.json")
    assert "note: 2 targets left out, their images are sources" in result.stderr
    assert "2 annotated, 0 failed" in result.stderr


def test_options_reach_the_run(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.json"
    run(
        source, photos(tmp_path / "photos", 1), "--out", out, "--root", tmp_path, "--nearest", 1,
        "--keep-guesses", "--no-crop", "--no-masks", "--pose", "off", "--set", "window=3", "--batch", 3,
    )  # fmt: skip
    content = json.loads(out.read_text())
    settings = content["info"]["run"]["settings"]
    assert content["images"][0]["file_name"] == "photos/000.png"
    assert settings["vote"]["nearest"] == 1
    assert (settings["keep_guesses"], settings["below"], settings["masks"]) == (True, 0.0, False)
    assert (settings["pose"], settings["matching"]["window"], settings["batch"]) == ("off", 3, 3)
    assert len(content["annotations"][0]["guesses"]) == 5


def test_masks_are_carried_where_the_result_can_hold_them(tmp_path: Path, source: Path) -> None:
    path = masked(tmp_path / "m", without=(1,))
    folder, out = photos(tmp_path / "photos", 1), tmp_path / "out.json"
    result = run(path, folder, "--masks", "--out", out)
    assert "note: 1 of 2 sources have no mask" in result.stderr
    (entry,) = json.loads(out.read_text())["annotations"]
    assert entry["segmentation"]["size"] == [117, 117]
    result = run(path, folder, "--masks", "--out", tmp_path / "out.xml", "--below", "hidden")
    assert "a CVAT XML is written without masks; the COCO file beside it has them" in result.stderr
    assert json.loads((tmp_path / "out.coco.json").read_text())["annotations"][0]["segmentation"]
    refused("Parquet has no column for masks", path, folder, "--masks", "--out", tmp_path / "out.parquet")
    refused("no source has a mask to carry", source, folder, "--masks", "--out", tmp_path / "none.json")
    assert not [*tmp_path.glob("none*"), *tmp_path.glob("*.parquet*")]


def test_an_evaluation(tmp_path: Path, source: Path) -> None:
    truth, out, folder = annotated(tmp_path), tmp_path / "out.json", tmp_path / "figures"
    result = run(source, "--targets", truth, "--out", out, "--evaluate", "--report", folder)
    assert "PCK in per cent" in result.stdout
    words = " ".join(result.stdout.split())
    assert "Marked visible, in per cent" in words
    assert "15 keypoints, 14 of them visible" in words
    assert "Expected calibration error" in words
    predictions = folder / "out.predictions.jsonl"
    assert str(score_file(predictions)) in result.stdout
    assert {"evaluation.json", "reliability.png"} <= {each.name for each in folder.iterdir()}
    again = run(source, "--targets", truth, "--out", out, "--evaluate")
    assert again.stdout == result.stdout
    assert (tmp_path / "out.predictions.jsonl").read_bytes() == predictions.read_bytes()


def test_mistakes_are_found_before_the_work(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(name: str, **options: Any) -> None:
        raise AssertionError("the extractor was loaded")

    monkeypatch.setattr(Toy, "load", never)
    folder, truth, out = photos(tmp_path / "photos", 1), annotated(tmp_path), tmp_path / "out.json"
    empty = tmp_path / "empty"
    empty.mkdir()
    either = "either as files and folders or by --targets"
    refused(either, source, "--out", out)
    refused(either, source, folder, "--targets", truth, "--out", out)
    refused("give --evaluate too", source, folder, "--out", out, "--report", tmp_path / "r")
    refused("two results would go there", source, folder, "--out", out, "--review", out)
    refused("--review-count must be at least 1", source, folder, "--out", out, "--review-count", 0)
    refused("an evaluation needs annotated targets", source, folder, "--out", out, "--evaluate")
    refused("unknown protocol 'x'", source, "--targets", truth, "--out", out, "--evaluate", "--protocol", "x")
    refused("the threshold is a probability", source, folder, "--out", out, "--threshold", 2)
    refused("nearest sources must be 0", source, folder, "--out", out, "--nearest", -1)
    refused("no images in this folder", source, empty, "--out", out)
    refused("no such file; give a COCO-keypoints JSON", tmp_path / "x.json", folder, "--out", out)
    refused("no category 'dog'", source, folder, "--out", out, "--category", "dog")
    assert not list(tmp_path.glob("out.json*"))


def test_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = geoaware("transfer", "nowhere.json", "photos", "--out", "out.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere.json: no such file")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_people_of_lspet(tmp_path: Path) -> None:
    """With the shipped weights: five annotated people find the joints of others far better than chance."""
    root = shared("lspet")
    for name, start, count in (("train", 100, 5), ("val", 0, 6)):
        content = json.loads((root / f"{name}.json").read_text())
        content["images"] = content["images"][start : start + count]
        kept = {each["id"] for each in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    arguments = [
        tmp_path / "train.json", "--source-images", root / "images", "--targets", tmp_path / "val.json",
        "--targets-images", root / "images", "--out", tmp_path / "out.json", "--evaluate", "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "adapted to" in json.loads((tmp_path / "out.json").read_text())["info"]["calibration"]["origin"]
    assert score_file(tmp_path / "out.predictions.jsonl", draws=0).value(0.1) > 0.2
    assert "Marked visible, in per cent" in result.stdout
    assert re.search(r"\b84 keypoints, \d+ of them visible", " ".join(result.stdout.split()))


def test_what_came_in_goes_out(tmp_path: Path, source: Path) -> None:
    """Sources of labelme: a folder of labelme, which a second run leaves as it is."""
    folder, labels, out = photos(tmp_path / "photos"), tmp_path / "labels", tmp_path / "found"
    run(source, folder, "--out", labels, "--to", "labelme", "--threshold", "0.05")
    arguments = (labels, folder, "--out", out, "--recursive", "--threshold", "0.05")
    with pytest.raises(InputError, match="every target image is one of the sources"):
        run(*arguments)
    more = photos(tmp_path / "more", 7)
    for each in ("000", "001", "002", "003", "004"):
        (more / f"{each}.png").unlink()
    arguments = (labels, more, "--out", out, "--threshold", "0.05", "--below", "hidden")
    result = run(*arguments, "--review", tmp_path / "r.html")
    assert result.stdout.strip() == str(out)
    assert f"the same as COCO, with what is known of the run: {tmp_path / 'found.coco.json'}" in result.stderr
    assert "cat: 5 keypoints, 5 sources, 2 targets" in result.stderr
    assert sorted(each.name for each in out.iterdir()) == [
        "005.json",
        "006.json",
        "geoaware.json",
        "labels.txt",
    ]
    assert "005.png" in (tmp_path / "r.html").read_text()
    content = json.loads((out / "005.json").read_text())
    assert content["imagePath"] == "../more/005.png"
    (out / "005.json").write_text("corrected")
    run(*arguments)
    assert (out / "005.json").read_text() == "corrected"
    refused("belongs to another run", *arguments[:-2])


def test_formats_and_names_go_together(tmp_path: Path, source: Path) -> None:
    folder = photos(tmp_path / "photos", 1)
    run(source, folder, "--out", tmp_path / "found.slp")
    assert (tmp_path / "found.slp").read_bytes().startswith(b"\x89HDF")
    refused("needs a name that ends in .xml", source, folder, "--out", tmp_path / "a.json", "--to", "cvat")
    refused("there is no format 'png'", source, folder, "--out", tmp_path / "a.json", "--to", "png")
    refused("absent or hidden, not 'x'", source, folder, "--out", tmp_path / "a.json", "--below", "x")
    assert not (tmp_path / "a.json").exists()


def test_a_result_that_is_a_folder_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    refused("is a folder; give the name of a file to write", source, folder, "--out", ".")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos", "s"]


def test_boxes_of_a_detector(tmp_path: Path, source: Path) -> None:
    folder, out = photos(tmp_path / "photos", 3), tmp_path / "out.json"
    boxes = [{"category": "1", "conf": score, "bbox": [0, 0, 1, 1]} for score in (0.9, 0.3)]
    images = [{"file": f"C:\\p\\00{each}.png", "detections": boxes[:each]} for each in range(3)]
    detector = tmp_path / "md.json"
    detector.write_text(json.dumps({"images": images, "detection_categories": {"1": "animal"}}))
    given = (source, folder, "--detections", detector, "--out", out, "--threshold", 0)
    result = run(*given)
    assert "note: 1 images without a box, so without an object (000.png)" in result.stderr
    assert "3 objects in 3 images, 1 without any" in result.stderr
    content = json.loads(out.read_text())
    assert [each["file_name"] for each in content["images"]] == ["000.png", "001.png", "002.png"]
    assert [each["image_id"] for each in content["annotations"]] == [2, 3, 3]
    higher = run(*given[:-4], "--out", tmp_path / "b.json", "--threshold", 0, "--min-detection", 0.5)
    assert "left out: 1 boxes of scores below 0.5" in higher.stderr
    assert "2 objects in 3 images, 1 without any" in higher.stderr


def test_what_does_not_go_with_detections(tmp_path: Path, source: Path) -> None:
    given = (source, photos(tmp_path / "photos", 1), "--out", tmp_path / "out.json")
    refused("give either --find or --detections FILE", *given, "--find", "--detections", "md.json")
    refused("--min-detection belongs to --detections or --find", *given, "--min-detection", 0.5)
    refused("--detection-category belongs to --detections", *given, "--detection-category", "cat")
    refused("--evaluate compares objects that --targets gives", *given, "--find", "--evaluate")
    refused("md.json: no such file; expected boxes of a detector", *given, "--detections", "md.json")
    refused("toy does not see where objects are, as lite does; give boxes", *given, "--find")
    assert not list(tmp_path.glob("out*"))


def test_what_is_accepted_becomes_the_sources(tmp_path: Path) -> None:
    source, images = write_sources(tmp_path, [(0, 0), (9, 9), (18, 18)]), photos(tmp_path / "photos")
    words = [source, images, "--out", tmp_path / "out.json", "--accepted"]
    with pytest.raises(InputError, match="no annotation in it is accepted; accept some with geoaware review"):
        run(*words)
    content = json.loads(source.read_text())
    for each, accepted in zip(content["annotations"], (True, False, True), strict=True):
        each["accepted"] = accepted
    source.write_text(json.dumps(content))
    assert "2 sources" in run(*words).output
