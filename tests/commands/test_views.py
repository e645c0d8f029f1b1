"""`--zoom` and `--upright`, in every command that has them, with a toy extractor that sees."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from geoaware.apps.demo.server import DemoSettings, load_matchers
from geoaware.apps.demo.session import Features, Session
from geoaware.commands import demo, evaluate, match, pose, reproduce, serve, transfer
from geoaware.commands.options import FeatureOptions, PoseOptions, RunOptions, ViewOptions, load_matcher
from geoaware.features import EXTRACTORS, Entry
from geoaware.method.geometry import Canvas, pose_image, pose_points
from geoaware.runs.errors import InputError
from geoaware.studies.variants import ZERO_SHOT, Bench, Variant
from tests.toys import Seeing, beacon, placed

app = typer.Typer()
for command in (
    match.match,
    transfer.transfer,
    evaluate.predict,
    evaluate.evaluate,
    demo.demo,
    serve.serve,
):
    app.command()(command)

SIZE = (585, 405)
CORNERS = ((270, 45), (90, 180))
"""Of the object, 90 pixels a side, in the source and in the target, which then lies on its side."""

CELL = 11.0
"""Pixels of a cell of what is cut out; of the whole image it has 45."""

NAMES = ["left ear", "right ear", "nose"]
KEYPOINTS = torch.tensor([(20.0, 30.0), (70.0, 12.0), (45.0, 60.0)], dtype=torch.float64)
SOURCE = KEYPOINTS + torch.tensor(CORNERS[0])
TARGET = pose_points(KEYPOINTS + torch.tensor(CORNERS[1]), SIZE, "rot90")
AUTO = ("--zoom", "auto", "--upright", "auto")


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "seeing", Entry("tests.toys", "Seeing", "a toy that sees"))
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy that does not"))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A source and a target, each in a folder of its own, with a COCO file for each and one for both."""
    annotations, images = [], []
    for number, (xy, turn) in enumerate(((SOURCE, "identity"), (TARGET, "rot90")), start=1):
        image = pose_image(placed(beacon(90), CORNERS[number - 1], SIZE), turn)  # type: ignore[arg-type]
        name = ("source", "target")[number - 1]
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / f"{name}.png")
        size = dict(zip(("width", "height"), image.size, strict=True))
        images.append({"id": number, "file_name": f"{name}/{name}.png", **size})
        low, high = xy.amin(dim=0) - 10, xy.amax(dim=0) + 10
        flat = [value for x, y in xy.tolist() for value in (x, y, 2)]
        box = [*low.tolist(), *(high - low).tolist()]
        about = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0}
        annotations.append({**about, "keypoints": flat, "bbox": box, "num_keypoints": 3})
    category = {"id": 1, "name": "beacon", "keypoints": NAMES, "skeleton": []}
    for name, rows in (("sources", slice(0, 1)), ("both", slice(0, 2))):
        content = {"images": images[rows], "annotations": annotations[rows], "categories": [category]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def run(*arguments: object) -> Any:
    """With the toy that sees; its matching is sharp enough for single cells."""
    options = ("--extractor", "seeing", "--device", "cpu", "--set", "window=3", "--set", "temperature=0.001")
    given = [*map(str, arguments), *options]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def away(points: Any, truth: torch.Tensor = TARGET) -> float:
    return float((torch.tensor(points, dtype=torch.float64) - truth).norm(dim=1).max())


def test_match(photos: Path) -> None:
    given = ["match", photos / "source" / "source.png", photos / "target" / "target.png", "--pose", "off"]
    given += [text for x, y in SOURCE.tolist() for text in ("--point", f"{x},{y}")]
    found = {}
    for name, views in (("auto", AUTO), ("off", ())):
        run(
            *given, *views, "--json", photos / f"{name}.json", "--out", photos / f"{name}.png", "--heatmap", 0
        )
        content = json.loads((photos / f"{name}.json").read_text())
        found[name] = away([each["match"] for each in content["matches"]])
        assert content["extractor"] == "seeing()" + " (upright auto) (zoom auto)" * (name == "auto")
    assert found["auto"] < CELL < 2 * CELL < found["off"]


def test_evaluate_and_predict(photos: Path) -> None:
    given = ["--dataset", "coco", "--root", photos, "--annotations", "both.json", "--split", "val"]
    given += ["--option", "images=.", "--pose", "off", "--matching", "extractor", "--out", photos / "p.jsonl"]
    run("evaluate", *given, *AUTO)
    header, *records = map(json.loads, (photos / "p.jsonl").read_text().splitlines())
    assert header["extractor"] == "seeing() (upright auto) (zoom auto)"
    assert len(records) > 0
    assert all(away(each["predicted"], torch.tensor(each["truth"])) < CELL for each in records)
    # The same again reads them; predictions of other settings are refused.
    before = (photos / "p.jsonl").read_bytes()
    run("predict", *given, *AUTO)
    with pytest.raises(InputError, match=r"belongs to another run \(different: extractor\)"):
        run("predict", *given, "--zoom", "auto")
    assert (photos / "p.jsonl").read_bytes() == before


def test_predictions_by_pose_and_from_a_cache(photos: Path) -> None:
    given = ["predict", "--dataset", "coco", "--root", photos, "--annotations", "both.json", "--split", "val"]
    given += ["--option", "images=.", "--pose", "flip", "--matching", "extractor", *AUTO]
    for name in ("one", "two"):
        run(*given, "--cache", photos / "cache", "--out", photos / f"{name}.jsonl")
    assert (photos / "one.jsonl").read_bytes() == (photos / "two.jsonl").read_bytes()
    _, *records = map(json.loads, (photos / "one.jsonl").read_text().splitlines())
    assert all(each["pose"] in ("identity", "flip") for each in records)
    straight = [each for each in records if each["pose"] == "identity"]
    assert len(straight) > 0
    assert all(away(each["predicted"], torch.tensor(each["truth"])) < CELL for each in straight)


def test_transfer(photos: Path) -> None:
    # What `auto` finds in the target is what is found in the part that it cuts out and turns, made by hand.
    canvas = Canvas(405, 585, 117, "rot-90", (157, 382, 293, 518))
    (photos / "part").mkdir()
    with Image.open(photos / "target" / "target.png") as image:
        canvas.view(image).save(photos / "part" / "part.png")
    found = {}
    for name, views in (("target", AUTO), ("part", ())):
        out = photos / f"{name}.json"
        given = ["transfer", photos / "sources.json", photos / name, "--source-images", photos, "--out", out]
        run(*given, "--pose", "off", "--keep-guesses", *views)
        content = json.loads(out.read_text())
        assert content["info"]["run"]["extractor"].endswith("(zoom auto)") == (name == "target")
        found[name] = content["annotations"][0]["guesses"]
    points = torch.tensor(found["part"])[:, :2].double()
    whole = canvas.to_pixels(Canvas(*canvas.shown, 117).to_canvas(points))
    assert away([each[:2] for each in found["target"]], whole) < 0.02
    assert [each[2] for each in found["target"]] == [each[2] for each in found["part"]]


def test_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    matchers = load_matchers(DemoSettings(features=Features("seeing"), zoom="auto", upright="auto"))
    session = Session(matchers, Features("seeing"))
    session.bring("source", placed(beacon(90), CORNERS[0], SIZE))
    session.bring("target", pose_image(placed(beacon(90), CORNERS[1], SIZE), "rot90"))
    session.click(*SOURCE[0].tolist())
    assert session.result is not None
    assert session.result.target.maps["identity"].canvas.turn == "rot-90"
    assert session.result.source.maps["identity"].canvas.box == (247, 22, 383, 158)
    # A click beside the object shows the whole source from now on, encoded once more and no more than that.
    session.click(20.0, 20.0)
    assert session.result.source.maps["identity"].canvas.box == (0, 0, *SIZE)
    inside = matchers.get(Features("seeing")).extractor.extractor  # type: ignore[union-attr]
    assert isinstance(inside, Seeing)
    before = inside.count
    session.click(30.0, 20.0)
    assert inside.count == before
    # The other extractors on the page are as they are.
    assert matchers.get(Features("efficientnet-lite0")).identity.startswith("efficientnet-lite0(")
    assert "zoom" not in matchers.get(Features("efficientnet-lite0")).identity

    # The command gives its options on.
    served = []
    monkeypatch.setattr("geoaware.apps.demo.server.serve", lambda settings, *_: served.append(settings))
    given = ["demo", "--extractor", "seeing", "--zoom", "auto"]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    assert (served[0].zoom, served[0].upright) == ("auto", "off")
    monkeypatch.setattr("geoaware.apps.serve.server.serve", lambda settings, _: served.append(settings))
    done = CliRunner().invoke(app, ["serve", *given[1:]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (served[1].extractor, served[1].zoom, served[1].upright) == ("seeing", "auto", "off")


@pytest.mark.parametrize("option", ["zoom", "upright"])
def test_an_extractor_that_does_not_see_is_refused(photos: Path, option: str) -> None:
    source, target = photos / "source" / "source.png", photos / "target" / "target.png"
    coco = ["--dataset", "coco", "--root", photos, "--annotations", "both.json", "--split", "val"]
    out = photos / "out.json"
    for given in (
        ["match", source, target, "--point", "300,60"],
        ["evaluate", *coco, "--option", "images=.", "--out", out],
        ["predict", *coco, "--option", "images=.", "--out", out],
        ["transfer", photos / "sources.json", photos / "target", "--source-images", photos, "--out", out],
        ["demo", "--port", "0"],
        ["serve", "--port", "0"],
    ):
        asked = [*map(str, given), "--extractor", "toy", "--device", "cpu", f"--{option}", "auto"]
        with pytest.raises(
            InputError, match=f"toy does not see .* with these weights; leave {option} off"
        ) as error:
            CliRunner().invoke(app, asked, catch_exceptions=False)
        assert error.value.parameter == option
        assert not out.exists()


def test_commands_that_do_not_have_the_options() -> None:
    for command in (pose.pose, reproduce.reproduce):
        names = inspect.signature(command).parameters
        assert not {"zoom", "upright"} & set(names)
        assert "extractor" in names


def test_what_follows_the_paper_looks_at_whole_images() -> None:
    whole, cut = (
        load_matcher(features, RunOptions(device="cpu"), PoseOptions("off")).extractor
        for features in (FeatureOptions(), FeatureOptions(views=ViewOptions()))
    )
    assert cut.identity == f"{whole.identity} (zoom auto)"
    assert Bench(whole).setup(Variant(ZERO_SHOT), "paper").matcher.identity == whole.identity
