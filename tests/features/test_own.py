"""Extractors of the user's own, as MODULE:CLASS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from geoaware.features import load_extractor
from geoaware.runs.errors import InputError
from tests.toys import face

OWN = '''
import torch
from geoaware.features import Extractor, Layout

class Colours(Extractor):
    """The mean colour of each cell."""

    def __init__(self, grid=8):
        super().__init__("colours", f"colours({grid})", Layout(8 * grid, grid, 3))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def levels(self, pixels):
        return (torch.nn.functional.avg_pool2d(pixels, 8) * self.scale,)

class Named(Colours):
    @classmethod
    def load(cls, name, grid=8):
        found = cls(grid)
        found.name = name
        return found

class Broken(Extractor):
    """No levels."""

other = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "of_mine.py").write_text(OWN)
    (tmp_path / "half.py").write_text("def broken(:\n")
    (tmp_path / "needs.py").write_text("import nothing_like_it\n")
    face().save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("of_mine", "half", "needs"):
        sys.modules.pop(name, None)


def test_a_class_in_the_present_folder(folder: Path) -> None:
    extractor = load_extractor("of_mine:Colours", device="cpu", grid=10)
    assert extractor.identity == "colours(10)"
    features = extractor(folder / "a.png")
    assert features.data.shape == (3, 10, 10)
    assert not extractor.training
    assert load_extractor("of_mine:Named", device="cpu").name == "of_mine:Named"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Colours", "there is no module 'nowhere', neither installed nor in the present folder"),
        ("needs:Colours", "there is no module 'nothing_like_it'"),
        ("half:Colours", "the module cannot be loaded"),
        ("of_mine:Lines", "the module has no 'Lines'"),
        ("of_mine:other", "is no subclass of geoaware.features.Extractor"),
        ("of_mine:Broken", "cannot be made with these settings"),
        (":Colours", "the module cannot be loaded"),
    ],
)
def test_classes_that_cannot_be_had(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_extractor(name, device="cpu")


def test_settings_that_it_does_not_take(folder: Path) -> None:
    with pytest.raises(InputError, match=r"of_mine:Colours: cannot be made with these settings .*'lines'"):
        load_extractor("of_mine:Colours", device="cpu", lines=3)


def run(words: str) -> str:
    """What the command says, started in the present folder without having it on its path."""
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    command = [sys.executable, *safe, "-c", "from geoaware.cli import main; main()", *words.split()]
    done = subprocess.run([*command, "--extractor", "of_mine:Colours"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_on_the_command_line_and_in_several_processes(folder: Path) -> None:
    """The command finds the module in the present folder, and so do the processes that it starts."""
    for number in range(4):
        face(width=100 + number).save(folder / f"more{number}.png")
    assert "5 extracted" in run("extract . --set grid=10 --cache kept --workers 2")
    run("match a.png more1.png --point 80,80 --json m.json")
    assert json.loads((folder / "m.json").read_text())["extractor"] == "colours(8)"
