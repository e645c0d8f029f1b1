"""Results in the formats of other tools, made of the COCO result beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
from PIL import Image

from geoaware.apps.transfer import (
    Outcome,
    TransferSettings,
    list_targets,
    read_sources,
    read_targets,
    transfer,
    voters,
)
from geoaware.data import formats
from geoaware.runs.errors import InputError
from tests.apps.transfer.tiny import NAMES, job, matcher, photos, write_sources

OTHERS = ("cvat", "labelstudio", "dlc", "slp", "yolo", "labelme")
SOME = TransferSettings(threshold=0.05)


def named(folder: Path, to: str) -> Path:
    return folder / f"found{formats.SUFFIXES.get(to, '')}"


def run(
    folder: Path, to: str | None, out: Path, settings: TransferSettings = SOME, **options: Any
) -> Outcome:
    return transfer(*job(folder), matcher(), out, settings, to=to, **options)


def points_of(content: dict[str, Any]) -> list[dict[str, tuple[float, ...]]]:
    """Of every object the keypoints that are visible, by name."""
    (category,) = [each for each in content["categories"] if each["keypoints"]]
    return [
        {
            name: (round(x, 2), round(y, 2))
            for name, x, y, flag in zip(
                category["keypoints"], *(each["keypoints"][n::3] for n in range(3)), strict=True
            )
            if flag == 2
        }
        for each in content["annotations"]
    ]


@pytest.mark.parametrize("to", OTHERS)
def test_a_result_says_the_same_in_every_format(tmp_path: Path, to: str) -> None:
    outcome = run(tmp_path, to, named(tmp_path, to))
    assert (outcome.out, outcome.found) == (named(tmp_path, to), tmp_path / "found.coco.json")
    assert (outcome.targets, outcome.failed) == (5, 1)
    whole = json.loads(outcome.found.read_text())
    found = formats.read(outcome.out)
    assert found.format == to
    shown = points_of(whole)
    assert sum(map(len, shown)) > 8
    assert points_of(found.content) == shown
    names = [Path(each["file_name"]).name for each in found.content["images"]]
    assert names == [each["file_name"] for each in whole["images"]]
    again = read_sources(outcome.out, tmp_path / "photos")
    assert {*again.schema.names} <= {*NAMES}
    assert [each.path.name for each in again.images] == names


@pytest.mark.parametrize("to", ["labelstudio", "slp"])
def test_probabilities_go_along(tmp_path: Path, to: str) -> None:
    outcome = run(tmp_path, to, named(tmp_path, to))
    whole, found = json.loads(outcome.found.read_text()), formats.read(outcome.out).content
    (category,) = found["categories"]
    for wanted, each in zip(whole["annotations"], found["annotations"], strict=True):
        flags = wanted["keypoints"][2::3]
        chances = {
            name: p for name, p, flag in zip(NAMES, wanted["keypoint_scores"], flags, strict=True) if flag
        }
        got = dict(zip(category["keypoints"], each["keypoint_scores"], strict=True))
        assert {name: got[name] for name in chances} == pytest.approx(chances)


@pytest.mark.parametrize("to", ["cvat", "slp", "yolo", "labelme"])
def test_what_is_below_may_be_hidden(tmp_path: Path, to: str) -> None:
    settings = TransferSettings(threshold=0.9, unshown="hidden")
    outcome = run(tmp_path, to, named(tmp_path, to), settings)
    whole = json.loads(outcome.found.read_text())
    flags = [flag for each in whole["annotations"] for flag in each["keypoints"][2::3]]
    assert flags.count(1) > flags.count(0) == 0
    assert all(each["num_keypoints"] == len(NAMES) for each in whole["annotations"])
    found = formats.read(outcome.out).content
    assert [flag for each in found["annotations"] for flag in each["keypoints"][2::3]] == flags


def test_absent_by_default_and_the_run_is_called_as_before(tmp_path: Path) -> None:
    outcome = run(tmp_path, None, tmp_path / "found.json", TransferSettings(threshold=0.9))
    content = json.loads(outcome.found.read_text())
    assert {flag for each in content["annotations"] for flag in each["keypoints"][2::3]} <= {0, 2}
    assert "unshown" not in content["info"]["run"]["settings"]
    with pytest.raises(InputError, match="are absent or hidden, not 'away'"):
        TransferSettings(unshown="away")


def test_another_format_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, "cvat", tmp_path / "found.xml")
    monkeypatch.setattr(voters, "encode_sources", lambda *_: pytest.fail("works again"))
    second = run(tmp_path, "yolo", tmp_path / "found")
    assert second.found == first.found
    before = first.out.read_bytes()
    first.out.write_bytes(before + b"<!-- edited -->\n")
    run(tmp_path, "cvat", first.out)
    assert first.out.read_bytes() == before + b"<!-- edited -->\n"  # as it was left


@pytest.mark.parametrize("to", OTHERS)
def test_what_others_wrote_is_not_replaced(tmp_path: Path, to: str) -> None:
    out = named(tmp_path, to)
    if to in formats.FOLDERS:
        (out / "mine").mkdir(parents=True)
    else:
        out.write_text("mine")
    for restart in (False, True):
        with pytest.raises(InputError, match="exists and was not written by geoaware transfer"):
            run(tmp_path, to, out, restart=restart)
    assert (out / "mine").is_dir() if out.is_dir() else out.read_text() == "mine"
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("to", OTHERS)
def test_files_are_replaced_and_no_folders(tmp_path: Path, to: str) -> None:
    out = named(tmp_path, to)
    run(tmp_path, to, out)
    other = TransferSettings(threshold=0.2)
    if to in formats.FOLDERS:
        for restart in (False, True):
            message = "belongs to another run; choose another place, or remove it"
            with pytest.raises(InputError, match=message):
                run(tmp_path, to, out, other, restart=restart)
        return
    run(tmp_path, to, out, other)
    run(tmp_path, to, out, other, restart=True)
    run(tmp_path, to, out, other)
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(draft: Path, result: Any) -> None:
        (draft / "half").write_text("")
        raise InputError("no")

    monkeypatch.setattr(formats.labelme, "write", fail)
    with pytest.raises(InputError, match="no"):
        run(tmp_path, "labelme", tmp_path / "found")
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "found.coco.json",
        "found.coco.json.records",
        "photos",
        "sources",
    ]


@pytest.mark.parametrize(
    ("to", "out", "source", "wanted"),
    [
        (None, "a.json", "coco", "coco"),
        (None, "a", "coco", "coco"),
        (None, "a.slp", "coco", "slp"),
        (None, "a.xml", "labelme", "cvat"),
        (None, "a.parquet", "cvat", "coco"),
        (None, "a.json", "labelstudio", "labelstudio"),
        (None, "a.json", "cvat", "coco"),
        (None, "a.json", "dlc", "coco"),
        (None, "a", "dlc", "dlc"),
        (None, "a", "yolo", "yolo"),
        (None, "a.XML", "cvat", "cvat"),
        ("coco", "a.json", "yolo", "coco"),
        ("dlc", "cats.2026", "coco", "dlc"),
    ],
)
def test_the_format_is_that_of_name_and_sources(to: str | None, out: str, source: str, wanted: str) -> None:
    assert formats.choose(to, Path(out), source) == wanted


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("slp", "a.json", "a SLEAP file needs a name that ends in .slp"),
        ("cvat", "a", "a CVAT XML needs a name that ends in .xml"),
        ("yolo", "a.json", "a YOLO data set needs a name without such a suffix, it is a folder"),
        ("coco", "a.slp", "a COCO file needs a name that ends in .json"),
        ("cvat", "a.parquet", "needs a name that ends in .xml"),
        (
            "png",
            "a.json",
            "there is no format 'png'; choose coco, cvat, labelstudio, dlc, slp, yolo, labelme",
        ),
    ],
)
def test_names_of_other_formats_are_refused(to: str, out: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        formats.choose(to, Path(out), "coco")


def test_names_that_lead_out_stay_inside(tmp_path: Path) -> None:
    """A COCO file of targets may call its images by any path."""
    sources = read_sources(write_sources(tmp_path / "s"))
    photos(tmp_path / "far", 1)
    listed = [{"id": 1, "file_name": "../far/000.png", "width": 117, "height": 117}]
    path = tmp_path / "t" / "targets.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": listed}))
    targets = read_targets(path, sources)
    for to in ("dlc", "yolo", "labelme"):
        out = tmp_path / to / "out"
        transfer(sources, targets, matcher(), out, TransferSettings(threshold=0.0), to=to)
        assert [each.name for each in (tmp_path / to).iterdir() if "." not in each.name] == ["out"]
        written = {"dlc": "labeled-data/far/CollectedData_geoaware.csv", "yolo": "labels/far/000.txt"}
        assert (out / written.get(to, "far/000.json")).is_file()


def test_two_images_with_one_name_of_labels(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 1)
    Image.open(folder / "000.png").convert("RGB").save(folder / "000.jpg")
    sources = read_sources(write_sources(tmp_path / "s"))
    for to in ("yolo", "labelme"):
        with pytest.raises(InputError, match=r"000.jpg and 000.png would share .*; rename one"):
            transfer(sources, list_targets([folder]), matcher(), tmp_path / "found", SOME, to=to)
        assert not (tmp_path / "found").exists()


def test_sleap_finds_the_images(tmp_path: Path) -> None:
    outcome = run(tmp_path, "slp", tmp_path / "found.slp")
    with h5py.File(outcome.out) as file:
        (video,) = [json.loads(each) for each in file["videos_json"][()]]
        assert file["instances"]["instance_type"].tolist() == [1] * 4
    assert video["filename"][0] == str(tmp_path / "photos/000.png")


def test_targets_of_another_order(tmp_path: Path) -> None:
    """Label Studio's files hold no order of keypoints; an evaluation compares by name all the same."""
    sources = read_sources(write_sources(tmp_path / "s"))
    sizes = {"original_width": 117, "original_height": 117, "to_name": "image"}
    box = {"x": 10, "y": 10, "width": 80, "height": 80, "rectanglelabels": ["cat"]}
    regions = [{"id": "b", "type": "rectanglelabels", "value": box, **sizes}]
    for place, name in ((30, "nose"), (20, "left ear")):
        value = {"x": place, "y": place, "keypointlabels": [name]}
        regions.append({"id": name, "parentID": "b", "type": "keypointlabels", "value": value, **sizes})
    photos(tmp_path / "images", 1)
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{"data": {"image": "000.png"}, "annotations": [{"result": regions}]}]))
    (target,) = read_targets(path, sources)
    assert target.box == pytest.approx((11.7, 11.7, 105.3, 105.3))
    assert target.annotation["keypoints"] == [23.4, 23.4, 2, 0, 0, 0, 35.1, 35.1, 2, 0, 0, 0, 0, 0, 0]
