from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from geoaware.commands import evaluate as commands
from geoaware.errors import InputError
from tests.data import shared
from tests.evaluation.test_score import write
from tests.metrics.records import make_records

app = typer.Typer()
for command in (commands.predict, commands.score, commands.evaluate):
    app.command()(command)


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_score_prints_tables_and_writes_files(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(40))
    files = {"--csv": tmp_path / "a.csv", "--markdown": tmp_path / "a.md"}
    text = run("score", path, "--by", "category", *[each for pair in files.items() for each in pair])
    assert "per image *" in text
    assert "PCK by category" in text
    assert all(each.stat().st_size > 500 for each in files.values())
    assert "PCK by keypoint" in run("score", path, "--by", "keypoint")
    assert "Sensitivity to azimuth" in run("score", path, "--by", "azimuth")


def test_score_as_json_is_json_alone(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(40))
    content = json.loads(run("score", path, "--json", "--alpha", 0.1, "--alpha", 0.02, "--draws", 10))
    assert content["alphas"] == [0.02, 0.1]


def test_plot_against_window(tmp_path):
    settings = [{"matching": {"window": window}} for window in (1, 5)]
    paths = [
        write(tmp_path / f"{n}.jsonl", make_records(20), settings=each) for n, each in enumerate(settings)
    ]
    run("score", paths[0], "--window-run", paths[1], "--plots", tmp_path / "plots", "--draws", 0)
    assert (tmp_path / "plots" / "pck_against_window.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "colour"], "--by 'colour': choose category, azimuth or keypoint"),
        (["--by", "azimuth", "--csv", "made.csv"], "hold no azimuth difference"),
        (["--window-run", "x"], "give --plots DIR too"),
        (["--protocol", "dift"], "predicted under protocol paper, not dift"),
    ],
)
def test_score_refuses(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "p.jsonl", make_records(10, azimuth=False))
    with pytest.raises(InputError, match=message):
        run("score", path, *options)
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


def test_evaluate_real_pictures(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    root = shared("PF-dataset-WILLOW")
    out = tmp_path / "willow.jsonl"
    asked = [
        "--dataset",
        "pf-willow",
        "--root",
        root,
        "--split",
        "test",
        "--pairs",
        6,
        "--device",
        "cpu",
        "--out",
        out,
    ]
    text = run("evaluate", *asked)
    assert "protocol pf-willow" in text
    assert "PCK by category" in text
    assert len(out.read_text(encoding="utf-8").splitlines()) == 7
    content = json.loads(run("score", out, "--json"))
    # Ten points a pair, and the network finds far more of them than chance would.
    assert content["overall"]["standard"]["keypoints"] == 60
    assert content["overall"]["standard"]["per_image"][2] > 0.3
    with pytest.raises(InputError, match=r"--pairs 'few': give a number or all"):
        run("predict", *asked[:7], "few")
    with pytest.raises(InputError, match="another run"):
        run("predict", *asked, "--set", "window=3")
