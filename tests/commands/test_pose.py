"""`geoaware pose` as a user runs it, and its ways of refusing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from geoaware.commands import pose as command
from geoaware.data import load, object_mask
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError
from tests.apps.pose.test_pose import SIZE, columns, object_image, write_set
from tests.command_line import assert_refused, geoaware, program
from tests.evaluation.tiny import Sided
from tests.shared_data import shared


@pytest.fixture(autouse=True)
def sided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small extractor in place of the real one; whole processes are not touched by this."""
    monkeypatch.setattr(command, "load_matcher", lambda features, run, pose: Matcher(Sided()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two template sets, and photos that show the first set's objects from known sides."""
    for shift, name in enumerate("ab"):
        write_set(tmp_path / "sets" / name, shift)
    (tmp_path / "photos").mkdir()
    for pose in ("left", "right", "front", "back"):
        for name in "ab":
            image = Image.open(tmp_path / "sets" / name / f"{pose}.png")
            image.save(tmp_path / "photos" / f"{name}-{pose}.png")
    return tmp_path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.pose)
    return CliRunner().invoke(app, list(map(str, arguments)))


def refusal(result: Result) -> str:
    assert isinstance(result.exception, InputError), result.output
    message = str(result.exception)
    assert len(message.splitlines()) <= 2
    return message


def accuracy_cells(text: str) -> list[str]:
    """The row of the four accuracies."""
    row = next(line for line in text.splitlines() if line.strip().startswith("all "))
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


def test_poses_are_printed(folder: Path) -> None:
    done = run(folder / "photos", "--templates", folder / "sets")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line]
    assert [line.split(":")[0] for line in lines] == sorted(
        path.name for path in (folder / "photos").iterdir()
    )
    # One set holds the very image; the other may say anything, and the nearer one decides.
    assert [line.split(":")[1].split()[0] for line in lines] == ["back", "front", "left", "right"] * 2
    assert lines[0].startswith("a-back.png: back (")
    assert "of 2 sets; left " in lines[0]


def test_labels_give_accuracies(folder: Path) -> None:
    labels = folder / "labels.csv"
    labels.write_text(
        "image,pose\na-left.png,left\na-right.png,left\n\na-front.png, front\nb-back.png,back\n"
    )
    done = run(folder / "photos", "--templates", folder / "sets", "--labels", labels)
    assert done.exit_code == 0, done.output
    assert "a-right.png: right, labelled left (" in done.stdout
    assert "a-left.png: left (" in done.stdout
    both = "75.0 (30.1 to 95.4)"
    assert accuracy_cells(done.stdout) == [
        "all",
        "50.0 (9.5 to 90.5)",
        "100.0 (34.2 to 100.0)",
        both,
        both,
        "4",
    ]
    confusion = done.stdout[done.stdout.index("True pose") :]
    assert next(line for line in confusion.splitlines() if line.strip().startswith("left ")).split() == [
        "left", "1", "1", "0", "0",
    ]  # fmt: skip


def test_json_labels_and_a_file_that_is_read_again(folder: Path) -> None:
    labels, out = folder / "labels.json", folder / "made" / "poses.json"
    labels.write_text(json.dumps({"a-left.png": "left"}))
    first = run(folder / "photos", "--templates", folder / "sets", "--out", out)
    assert first.exit_code == 0, first.output
    before = out.read_bytes()
    content = json.loads(before)
    assert {each["picture"]: each["pose"] for each in content["poses"]}["b-right.png"] == "right"
    assert content["poses"][0]["votes"].keys() == content["poses"][0]["distances"]["a"].keys()
    again = run(folder / "photos", "--templates", folder / "sets", "--out", out, "--labels", labels)
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith(first.stdout.rstrip("\n"))
    assert "accuracy in per cent" in again.stdout
    assert out.read_bytes() == before


def test_masks(folder: Path) -> None:
    both = Image.open(folder / "photos" / "a-front.png")
    both.paste(Image.open(folder / "photos" / "a-back.png").crop((63, 0, SIZE, SIZE)), (63, 0))
    both.save(folder / "both.jpg", quality=95)
    (folder / "masks").mkdir()
    for first, last, wanted in ((0, 50, "front"), (80, SIZE, "back")):
        Image.fromarray(columns(first, last).astype(np.uint8) * 255).save(folder / "masks" / "both.png")
        done = run(folder / "both.jpg", "--templates", folder / "sets", "--masks", folder / "masks")
        assert done.stdout.startswith(f"both.jpg: {wanted} ("), done.output


def test_images_of_two_folders_keep_apart(folder: Path) -> None:
    (folder / "other").mkdir()
    object_image(1).save(folder / "other" / "a-left.png")
    done = run(folder / "photos" / "a-left.png", folder / "other", "--templates", folder / "sets")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "photos/a-left.png",
        "other/a-left.png",
    ]


CSV, JSON = ("--labels", "l.csv"), ("--labels", "l.json")


@pytest.mark.parametrize(
    ("path", "content", "extra", "message"),
    [
        ("sets/b/front.png", "not an image", (), "front.png: not an image"),
        ("masks/other.png", "", ("--masks", "masks"), "no mask of a-back.png in it; add a-back.png"),
        ("", "", ("--masks", "masks"), "masks: no such folder"),
        ("", "", ("--template-masks",), "only with masks of the images"),
        ("", "", ("--metric", "cosine"), "unknown metric 'cosine'; choose imd or mutual-nn"),
        ("", "", CSV, "l.csv: no such file"),
        ("l.csv", "z.png,left", CSV, "'z.png' is not among the images (a-back.png,"),
        ("l.csv", "a-left.png,up", CSV, "'a-left.png' has the pose 'up'; choose left"),
        ("l.csv", "a-left.png", CSV, "l.csv, line 1: expected image,pose, got 1"),
        ("l.csv", '\n"a\nb"\n', CSV, "l.csv, line 3: expected image,pose, got 1"),
        ("l.csv", "image,pose\n", CSV, "has no labels; write image and pose"),
        ("l.json", "[1]", JSON, "is no JSON object"),
        ("l.json", '{"a-left.png": ["left"]}', JSON, "has the pose ['left']"),
        ("l.json", '{"a-left.png": "left", "a-left.png": "back"}', JSON, "'a-left.png' stands there twice"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    content: str,
    extra: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    if path:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(content)
    done = run("photos", "--templates", "sets", "--out", "poses.json", *extra)
    assert message in refusal(done)
    assert not Path("poses.json").exists()


def test_a_mask_of_another_size(folder: Path) -> None:
    (folder / "masks").mkdir()
    Image.new("L", (9, 9), 255).save(folder / "masks" / "a-left.png")
    done = run(folder / "photos" / "a-left.png", "--templates", folder / "sets", "--masks", folder / "masks")
    assert "a-left.png: mask of 9x9 pixels, image of 117x117" in refusal(done)


def test_images_that_fail_do_not_stop_the_rest(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "x.png").write_text("not an image")
    Image.effect_noise((117, 117), 60).save(photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:1500])
    arguments = (photos, "--templates", folder / "sets", "--out", folder / "poses.json")
    for _ in range(2):  # found, and read again
        done = run(*arguments)
        assert done.exit_code == 1, done.output
        assert "x.png: not an image" in done.output
        assert "cut.jpg: damaged" in done.output
        assert "8 images predicted, 2 failed" in done.output
    content = json.loads((folder / "poses.json").read_text(encoding="utf-8"))
    assert {each["picture"] for each in content["poses"]} > {"b-left.png", "a-front.png"}
    assert list(content["failed"]) == ["cut.jpg"]


def test_empty_folders_and_absent_images(folder: Path) -> None:
    (folder / "none").mkdir()
    assert "no images in this folder" in refusal(run(folder / "none", "--templates", folder / "sets"))
    assert "no template sets" in refusal(run(folder / "photos", "--templates", folder / "none"))
    assert "x.jpg: no such file" in refusal(run(folder / "x.jpg", "--templates", folder / "sets"))


def test_exit_code_and_one_line(folder: Path) -> None:
    (folder / "sets" / "a" / "back.png").unlink()
    done = geoaware("pose", folder / "photos", "--templates", folder / "sets")
    assert_refused(done, "a: has no template of the pose back; add back.jpg")


@pytest.mark.slow
def test_real_images_end_to_end(tmp_path: Path) -> None:
    """Shipped weights on rendered alpacas: two templates themselves, whose pose must be found, and others."""
    known = ("left", "back")
    data = load("coco", shared("quaternius"), "val", pairs="all")
    by_pose: dict[str, list[Any]] = {"left": [], "right": [], "front": [], "back": []}
    names = {0: "front", 2: "left", 4: "back", 6: "right"}
    for image in sorted(data.images, key=lambda each: each.id):
        number = image.attributes["azimuth_id"]
        if number in names and image.category == "alpaca":
            by_pose[names[number]].append(image)
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    labels: dict[str, str] = {}
    for pose, images in by_pose.items():
        template, other = images[:2]
        (tmp_path / "sets" / "one").mkdir(parents=True, exist_ok=True)
        Image.open(template.path).save(tmp_path / "sets" / "one" / f"{pose}.png")
        query = template if pose in known else other
        (tmp_path / "photos" / query.path.name).write_bytes(query.path.read_bytes())
        mask = Image.fromarray(object_mask(query)).convert("L")
        mask.save(tmp_path / "masks" / f"{query.path.stem}.png")
        labels[query.path.name] = pose
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(labels.items())
    done = program(
        "pose", tmp_path / "photos", "--templates", tmp_path / "sets", "--masks", tmp_path / "masks",
        "--labels", tmp_path / "labels.csv", "--out", tmp_path / "poses.json", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "poses.json").read_text(encoding="utf-8"))
    assert content["settings"]["masks"] is True
    assert content["extractor"].startswith("efficientnet-lite0-tuned(weights=lite")
    assert len(content["poses"]) == 4
    found = {each["picture"]: each["pose"] for each in content["poses"]}
    assert all(found[by_pose[pose][0].path.name] == pose for pose in known)
    right = sum(found[name] == pose for name, pose in labels.items())
    cells = accuracy_cells(done.stdout)
    assert cells[4].startswith(f"{100 * right / 4:.1f} (")
    assert cells[5] == "4"
