"""`geoaware extract` as a user runs it: whole processes, one and several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from geoaware.commands import extract as command
from geoaware.features import EXTRACTORS, Entry
from geoaware.runs.errors import InputError
from geoaware.store.feature_store import FeatureStore
from tests.command_line import Done, assert_refused, geoaware
from tests.store.toy_extraction import Toy, photos, snapshot

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.commands.toy_program"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", MODULE, "extract", *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def extract(*arguments: object) -> Done:
    with mock.patch.dict(EXTRACTORS, toy=Entry("tests.store.toy_extraction", "Toy", "a toy")):
        return geoaware("extract", *arguments)


def common(folder: Path, cache: Path) -> tuple[object, ...]:
    return folder, "--extractor", "toy", "--cache", cache, "--poses", "flip,identity", "--device", "cpu"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images, one of them unreadable, and the cache that one process makes of it."""
    folder, cache = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("cache")
    photos(folder, 7)
    photos(folder / "more", 2, size=(30, 30))
    (folder / "007.jpg").write_text("not an image")
    done = extract(*common(folder, cache), "--recursive")
    assert done.returncode == 1, done.stderr
    assert "10 images, 0 files already there; 18 files to extract" in done.stderr
    assert "MB on disk" in done.stderr
    assert "007.jpg: not an image" in done.stderr
    assert "18 extracted, 0 already there, 1 failed" in done.stderr
    store = FeatureStore.open(cache)
    assert done.stdout.strip() == str(store.folder)
    return folder, cache


def test_features_are_those_of_the_extractor(alone: tuple[Path, Path]) -> None:
    import torch

    from geoaware.data.images import load_image
    from geoaware.method.geometry import pose_image

    folder, cache = alone
    store = FeatureStore.open(cache)
    image = folder / "more" / "001.png"
    for pose in ("identity", "flip"):
        exact = Toy()(pose_image(load_image(image), pose)).levels
        read = store.read(store.image(image), pose).levels
        assert all(torch.equal(a.half(), b) for a, b in zip(exact, read, strict=True))
    assert json.loads((store.folder / "manifest.json").read_text())["files"] == 18


def test_a_second_run_skips_a_check_lists_and_a_third_mends(tmp_path: Path) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    assert extract(*common(folder, cache)).returncode == 0
    before = snapshot(cache)
    done = extract(*common(folder, cache), "--check")
    assert done.returncode == 0, done.stdout
    assert "8 files read: 0 missing, 0 damaged" in done.stderr
    cut, lost, *_ = sorted(cache.rglob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:-7])
    lost.unlink()
    done = extract(*common(folder, cache), "--check")
    assert done.returncode == 2
    assert f"{cut}: damaged or cut off" in done.stdout
    assert "no features (" in done.stdout
    assert "7 files read: 1 missing, 1 damaged" in done.stderr
    assert "without --check" in done.stderr
    done = extract(*common(folder, cache))
    assert "2 extracted, 6 already there" in done.stderr
    assert snapshot(cache) == before


def test_several_processes_make_what_one_makes(alone: tuple[Path, Path], tmp_path: Path) -> None:
    folder, cache = alone
    process = start(*common(folder, tmp_path), "--recursive", "--workers", 2)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1, error
    assert "18 extracted, 0 already there, 1 failed" in error
    assert snapshot(tmp_path) == snapshot(cache)
    manifests = [(FeatureStore.open(each).folder / "manifest.json").read_text() for each in (tmp_path, cache)]
    assert manifests[0] == manifests[1]


def test_two_runs_fill_one_cache(alone: tuple[Path, Path], tmp_path: Path) -> None:
    folder, cache = alone
    both = [start(*common(folder, tmp_path), "--recursive") for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [1, 1], ends
    assert snapshot(tmp_path) == snapshot(cache)


def test_bad_input_is_refused_in_one_line(alone: tuple[Path, Path], tmp_path: Path) -> None:
    toy = ("--extractor", "toy", "--device", "cpu")
    assert_refused(extract(alone[0], "--cache", alone[0] / "000.png", *toy), "000.png", "choose another")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folder": "empty"}, "empty: no images in this folder; the folders inside it were not"),
        ({"folder": "nowhere"}, "nowhere: no such folder"),
        ({"poses": "flip,spin"}, "unknown poses 'flip,spin'; choose among identity, flip"),
        ({"batch": "0"}, "--batch takes a number of images or auto, got '0'"),
        ({"max_memory": -1.0}, "--max-memory takes gigabytes, above 0 and below a million, got -1"),
        ({"max_memory": 1e308}, "--max-memory takes gigabytes, above 0 and below a million, got 1e+308"),
        ({"max_memory": 1e-9}, "the weights of toy take 0.00 GB, --max-memory allows 0.00"),
        ({"max_memory": 1e-5, "recursive": True}, "one image takes 0.00 GB on cpu"),
        ({"stored": "int4"}, "cannot be stored as 'int4'; choose fp16, fp32, int8"),
        ({"extractor": "resnet"}, "unknown extractor 'resnet'"),
    ],
)
def test_options_that_cannot_be(
    alone: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict, message: str
) -> None:
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    (tmp_path / "empty").mkdir()
    folder = tmp_path / given.pop("folder") if "folder" in given else alone[0]
    with pytest.raises(InputError) as caught:
        command.extract(folder=folder, cache=tmp_path / "c", **{"extractor": "toy", "device": "cpu", **given})
    assert message in str(caught.value)
    assert not snapshot(tmp_path)
