from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from geoaware import cli
from geoaware.commands import reproduce as command
from geoaware.commands import train
from geoaware.evaluation import score_file
from tests.toys import save_face

COLOURS = ("orange", "gray", "white", "black")
NAMES = ["left_eye", "right_eye", "nose"]
EYES = [[56, 80], [104, 80], [80, 110]]

app = typer.Typer()
app.command()(command.reproduce)
app.command()(train.train)


def faces(root: Path, categories: int = 1) -> Path:
    """A COCO folder of four drawn cats, spread over some categories; no azimuth and no masks."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, colour in enumerate(COLOURS):
        save_face(root / "images" / f"{number}.png", colour=colour)
        images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 160})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": number % categories,
                "keypoints": [value for x, y in EYES for value in (x, y, 2)],
                "bbox": [20, 10, 120, 140],
            }
        )
    named = [{"id": each, "name": f"cat {each}", "keypoints": NAMES} for each in range(categories)]
    content = {"images": images, "annotations": annotations, "categories": named}
    (root / "val.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def options(root: Path, out: Path, *more: object) -> list[str]:
    given = ["--dataset", "coco", "--root", root, "--split", "val", "--out", out, "--device", "cpu"]
    return [str(each) for each in [*given, "--post-processor", "none", *more]]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a command says that ends with exit code 2."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["geoaware", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr().err
        assert caught.value.code == 2, said
        assert "Traceback" not in said
        return said

    return call


def test_a_table_of_ones_own_images(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    out = tmp_path / "out"
    text = run("reproduce", "table3", *options(faces(tmp_path / "cats"), out, "--pairs", 5))
    assert "table3 · Every data set at every alpha" in text
    assert "paper, SPair-71k: supervised, AP-10K first" in text
    files = sorted((out / "predictions" / "cats-val").glob("*.jsonl"))
    assert [each.name for each in files] == ["zero-shot-pose-off.jsonl", "zero-shot.jsonl"]
    (outcome,) = json.loads((out / "table3.json").read_text(encoding="utf-8"))["outcomes"]
    for row in outcome["figures"]["cats-val"]:
        result = score_file(out / "predictions" / row["predictions"])
        assert row["standard"]["per_image"] == list(result.overall.standard.values["per_image"])
    assert (out / "features" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert "cats-val: zero-shot, pose" in (out / "table3.md").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in files}
    run("reproduce", "table3", *options(tmp_path / "cats", out, "--pairs", 5))
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_study_of_ones_own(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    sets = [
        {"label": name, "title": name.capitalize(), "name": "coco", "root": name, "split": "val"}
        for name in ("cats", "pets")
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"about": "Drawn.", "sets": sets}), encoding="utf-8")
    for each in sets:
        faces(tmp_path / each["root"])
    out = tmp_path / "out"
    given = ["--dataset", tmp_path / "mine.yaml", "--root", tmp_path, "--out", out, "--device", "cpu"]
    text = run("reproduce", "fig15", *given, "--post-processor", "none", "--pairs", 3)
    assert "fig15 · Share of the geometry-aware subset · Cats" in text
    assert "fig15 · Share of the geometry-aware subset · Pets" in text
    # Two of three keypoints are eyes, and both are always there.
    assert text.count("100.0 % of the pairs and 66.7 % of the keypoints are geometry-aware") == 2
    assert "Drawn." in (out / "fig15.md").read_text(encoding="utf-8")
    assert sorted(each.name for each in (out / "plots").iterdir()) == ["fig15-cats.png", "fig15-pets.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fig5", "cannot be made: cats-val: no azimuth_id"),
        ("table1", "cannot be made: cats-val: no azimuth_id"),
        ("table13", "cannot be made: cats-val: no object masks"),
        ("unseen", "cannot be made: no training is named; give its configuration (config)"),
        ("table6", "there is no analysis 'table6'; choose table1"),
    ],
)
def test_what_the_data_does_not_allow(tmp_path, refused, name, message):
    root = faces(tmp_path / "cats")
    assert message in refused("reproduce", name, *options(root, tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.jsonl"))


def test_one_image_a_category_makes_no_pairs(tmp_path, refused):
    root = faces(tmp_path / "cats", categories=4)
    assert "no pairs" in refused("reproduce", "table3", *options(root, tmp_path / "out"))


def test_an_empty_predictions_file_is_in_the_way(tmp_path, refused):
    path = tmp_path / "out" / "predictions" / "cats-val" / "zero-shot.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    said = refused("reproduce", "fig15", *options(faces(tmp_path / "cats"), tmp_path / "out"))
    assert "zero-shot.jsonl: exists and is no predictions file" in said
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table12", "--root", "ROOT"], "SPair-71k test (data set spair71k, split test) is needed"),
        (
            ["all", "--dataset", "shared", "--root", "ROOT"],
            "LSPET val, people (data set coco, split val) is needed",
        ),
        (["fig4", "--dataset", "coco", "--root", "ROOT"], "--dataset coco needs --split"),
        (["fig4", "--dataset", "shared", "--root", "ROOT", "--split", "val"], "go with --dataset NAME"),
        (["fig4", "--dataset", "other.yaml", "--root", "ROOT"], "no such file; give a YAML file"),
        (["fig4", "--dataset", "shared", "--root", "ROOT", "--pairs", "few"], "--pairs 'few': give a number"),
        (["fig4", "--dataset", "nothing", "--root", "ROOT", "--split", "val"], "unknown data set 'nothing'"),
        (["fig4", "--root", "ROOT", "--protocol", "mine"], "unknown protocol 'mine'"),
    ],
)
def test_usage_that_is_refused(tmp_path, refused, arguments, message):
    given = [str(tmp_path) if each == "ROOT" else each for each in arguments]
    said = refused("reproduce", *given, "--out", tmp_path / "out")
    assert message in " ".join(said.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "window=3"], "--set window: the analyses vary how similarity is read; use --matching"),
        (["--config", "lite"], "--config is for an analysis that trains"),
        (["--post-processor", "absent.PTH"], "absent.PTH: no such file"),
        (["--extractor", "nothing"], "nothing"),
    ],
)
def test_settings_that_are_refused(tmp_path, refused, more, message):
    given = options(faces(tmp_path / "cats"), tmp_path / "out", *more)
    assert message in " ".join(refused("reproduce", "fig4", *given).split())
