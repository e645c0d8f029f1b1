from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from geoaware import cli
from geoaware.commands import ablation as commands
from geoaware.evaluation.comparison import judge
from geoaware.evaluation.statistics import Estimate
from geoaware.runs.errors import InputError
from geoaware.studies import ablation
from geoaware.studies.ablation_table import ROWS, Ablation, Figure, SetFigures
from geoaware.studies.metrics import METRICS

app = typer.Typer()
app.command()(commands.ablation)

NAMES = tuple(row.name for row in ROWS)


def made(seeds: tuple[int, ...] = (0, 1, 2)) -> Ablation:
    """Of two rows and one set without geometry-aware points; the row is worse in everything."""
    rows, figures = ROWS[:2], {}
    for row, apart in zip(rows, (0.0, 0.02), strict=True):
        figures[row.name] = {}
        for metric in METRICS:
            sign = -1 if metric.higher_is_better else 1
            level = Estimate(0.25 + sign * apart, 0.23 + sign * apart, 0.27 + sign * apart)
            difference = Estimate(sign * apart, sign * apart - apart / 2, sign * apart + apart / 2)
            if metric.key.startswith("geometry_aware"):
                level = difference = Estimate(math.nan, math.nan, math.nan)
            figures[row.name][metric.key] = Figure(
                level, difference, judge(difference, metric.higher_is_better)
            )
    return Ablation(rows, seeds, (SetFigures("cats val", "paper", 1234, 56, figures),))


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """What the command asks for; it gets `made` at once."""
    asked: list[dict] = []

    def fake(config, out, **options):
        asked.append({"config": config, "out": out, **options})
        options["tell"]("run 1 of 1", 1, 2)
        options["tell"]("run 1 of 1, training", 1, 2)
        options["say"]("note: a note")
        return made(tuple(range(options["seeds"])))

    monkeypatch.setattr(ablation, "ablate", fake)
    return asked


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|").split("|")]


def test_options_reach_the_ablation(calls, tmp_path) -> None:
    run(
        "ablation-lite",
        *("--out", tmp_path, "--seeds", 5, "--device", "cpu", "--restart"),
        *("--rows", "without dense,sparse only", "--rows", "without-flips"),
        *("--set", "stages.0.steps=7", "--set", "loss.temperature=0.05"),
    )
    (asked,) = calls
    assert asked["out"] == Path(tmp_path)
    assert (asked["seeds"], asked["device"], asked["restart"]) == (5, "cpu", True)
    assert asked["rows"] == ["without dense", "sparse only", "without-flips"]
    assert asked["config"].stages[0].steps == 7
    assert asked["config"].loss.temperature == 0.05
    run("ablation-lite", "--out", tmp_path)
    assert calls[1]["rows"] is None
    assert (calls[1]["seeds"], calls[1]["restart"]) == (3, False)


def test_the_shipped_configuration_can_be_ablated(calls, tmp_path) -> None:
    run("ablation-lite", "--out", tmp_path)
    config = calls[0]["config"]
    assert config.extractor == "efficientnet-lite0"
    assert [each.root for each in config.validation.data] == ["lspet", "quaternius"]
    assert {each.split for each in config.validation.data} == {"val"}
    assert {each.split for stage in config.stages for each in stage.data} == {"train"}
    full = ROWS[0].configure(config, 0)
    assert all(row.configure(config, 0) != full for row in ROWS[1:4])
    assert config.matching.window < config.network.grid


def test_tables_in_the_terminal(calls, tmp_path) -> None:
    lines = [line.rstrip() for line in run("ablation-lite", "--out", tmp_path).splitlines()]
    assert lines[0] == "cats val: 1,234 pairs of 56 images, protocol paper, in per cent"
    full = next(line for line in lines if line.strip().startswith("full"))
    assert full.split("  ")[-1].strip() == "25.0 ± 2.0"
    # Columns in the order of METRICS; no figure is cut however narrow the terminal.
    assert full.split()[1:] == ["25.0", "±", "2.0"] * 2 + ["–"] * 2 + ["25.0", "±", "2.0"] * 5
    assert lines[-3].startswith("without dense, by PCK@0.10: worse than full on cats val (-2.0 points, 95 %")
    assert lines[-1].startswith("Order by PCK@0.10, best first. cats val: full, without dense; paper: full")


def test_markdown(calls, tmp_path) -> None:
    path = tmp_path / "new" / "table.md"
    text = run("ablation-lite", "--out", tmp_path, "--markdown", path)
    content = path.read_text(encoding="utf-8")
    lines = content.splitlines()
    head = next(line for line in lines if line.startswith("| row"))
    assert cells(head) == ["row", *(metric.label for metric in METRICS)]
    rows = [cells(line) for line in lines if line.startswith("| without dense")]
    assert len(rows) == 3
    level, difference, paper = rows
    assert level[1:] == ["23.0 ± 2.0"] * 2 + ["–"] * 2 + ["27.0 ± 2.0"] * 4 + ["23.0 ± 2.0"]
    assert difference[1:] == ["-2.0 ± 1.0 ▼"] * 2 + ["–"] * 2 + ["+2.0 ± 1.0 ▼"] * 4 + ["-2.0 ± 1.0 ▼"]
    assert paper[1:] == ["64.5", "78.3", "8.3", "11.8", "13.7", "8.5", "74.5"]
    # Full is not compared with itself.
    assert len([line for line in lines if line.startswith("| full")]) == 2
    assert "- without dense, by PCK@0.10: worse" in content
    assert "seeds 0, 1, 2." in content
    assert text.splitlines()[-1] in content


def test_one_seed_is_said(calls, tmp_path) -> None:
    text = run("ablation-lite", "--out", tmp_path, "--seeds", 1)
    assert "seed 0. ± is" in text
    assert "not of other seeds, because there is only one" in text


def test_json_is_json_alone(calls, tmp_path) -> None:
    content = json.loads(run("ablation-lite", "--out", tmp_path, "--json"))
    assert content["rows"] == ["full", "without dense"]
    assert content["seeds"] == [0, 1, 2]
    (data,) = content["sets"]
    assert (data["name"], data["pairs"], data["images"]) == ("cats val", 1234, 56)
    cell = data["figures"]["without dense"]["pck@0.1"]
    assert cell["value"] == pytest.approx(0.23)
    assert cell["verdict"] == "worse"
    assert cell["difference"] == pytest.approx({"value": -0.02, "low": -0.03, "high": -0.01})
    unknown = data["figures"]["full"]["geometry_aware_pck@0.1"]
    assert unknown["value"] is None
    assert unknown["difference"]["low"] is None
    assert content["paper"]["full"]["pck_dagger"] == 78.7
    assert len(content["sentences"]) == 2


def test_mistakes_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="there is no row 'without loss'; choose full, without dense"):
        run("ablation-lite", "--out", tmp_path / "out", "--rows", "without loss")
    with pytest.raises(InputError, match=r"nowhere.yaml: no such file; .*ablation-lite"):
        run("nowhere.yaml", "--out", tmp_path / "out")
    with pytest.raises(InputError, match=r"there is no validation\.data"):
        run("ablation-lite", "--out", tmp_path / "out", "--set", "validation.data=[]")
    assert not (tmp_path / "out").exists()


def test_the_command_is_registered_and_explains_itself() -> None:
    assert commands.ablation in [each.callback for each in cli.app.registered_commands]
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert "geoaware ablation ablation-lite" in result.stdout
    for name in NAMES:
        assert name in " ".join(result.stdout.split())
