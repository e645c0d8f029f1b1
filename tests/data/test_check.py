from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from geoaware.commands.data import app
from geoaware.data import LOADERS
from geoaware.data.check import SHOWN, SOURCES, check
from geoaware.runs.errors import InputError
from tests.data import test_coco as coco
from tests.data import test_pairs as pairs
from tests.data import test_proposal_flow as flow
from tests.data import test_spair as spair
from tests.data.ap10k_files import annotation, write_files
from tests.data.kinds import KINDS, Kind
from tests.data.test_ap10k import species, with_images
from tests.shared_data import shared


def test_every_data_set_has_a_check_and_a_source() -> None:
    assert set(LOADERS) == set(SOURCES)
    assert all(callable(source.inspect) for source in SOURCES.values())


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [
        ("spair71k", "SPair-mini", None),
        ("pf-willow", "PF-dataset-WILLOW", None),
        ("coco", "lspet", "val"),
        ("coco", "badja", None),
        ("coco", "quaternius", "val"),
    ],
)
def test_real_folders_are_fine(name: str, folder: str, split: str | None) -> None:
    findings = check(name, shared(folder), split)
    assert findings.problems == []
    assert findings.facts


def test_made_up_folders_are_fine(tmp_path: Path) -> None:
    assert check("spair71k", spair.made_up(tmp_path / "s"), "test").problems == []
    assert check("pf-pascal", flow.pascal(tmp_path / "p")).problems == []
    assert check("pf-willow", flow.willow(tmp_path / "w")).problems == []
    assert check("pairs", pairs.written(tmp_path / "o", pairs.PAIR)).problems == []
    root = with_images(tmp_path / "a", [*species("cat", 52), *species("lion", 52, first=100),
                                          *species("dog", 52, first=200)])  # fmt: skip
    findings = check("ap10k", root)
    assert findings.problems == []
    assert any("cross-family" in fact for fact in findings.facts)


def test_inferred_flip_pairs_and_subgroups_are_shown(tmp_path: Path) -> None:
    findings = check("coco", coco.made_up(tmp_path))
    assert "all: cat: flip pairs inferred from the names: left_ear / right_ear" in findings.facts
    assert "all: cat: subgroups inferred from the names: ear (left_ear, right_ear)" in findings.facts


def test_spair_lists_all_that_is_wrong(tmp_path: Path) -> None:
    root = spair.made_up(tmp_path)
    own = root / "PairAnnotation/test"
    own.mkdir(parents=True)
    kept = {"kps_ids": ["2", "7"], "src_kps": [[2, 5], [7, 5]], "trg_kps": [[2, 5], [7, 6]]}
    (own / "000001-2008_000001-2008_000002_bus.json").write_text(json.dumps(kept), encoding="utf-8")
    (root / "JPEGImages/bus/2008_000001.jpg").write_bytes(b"cut short")
    spair.change(root / "ImageAnnotation/bus/2008_000002.json", image_width=61)
    problems = "\n".join(check("spair71k", root, "test").problems)
    assert "points differ from those of bus/2008_000002" in problems
    assert "2008_000001.jpg: not an image" in problems
    assert "2008_000002.jpg: has 60x40 pixels, its annotation is for 61x40; give the image" in problems
    (root / "ImageAnnotation/bus/2008_000002.json").unlink()
    (root / "ImageAnnotation/bus/2008_000001.json").write_text("{", encoding="utf-8")
    problems = "\n".join(check("spair71k", root, "test").problems)
    assert "2008_000001.json: damaged" in problems
    assert "2008_000002.json: no such file" in problems


def test_left_out_things_are_problems_in_ones_own_data_only(tmp_path: Path) -> None:
    root = spair.made_up(tmp_path / "s")
    spair.change(root / "ImageAnnotation/bus/2008_000001.json", kps={"2": [99, 5], "7": [7, 5]})
    findings = check("spair71k", root, "test")
    assert findings.problems == []
    assert "left out: 1 keypoints outside their image" in findings.warnings[0]
    root = coco.made_up(tmp_path / "c")
    text = (root / "annotations.json").read_text(encoding="utf-8")
    (root / "annotations.json").write_text(text.replace("[5, 7, 2,", "[99, 7, 2,"), encoding="utf-8")
    assert "left out: 1 keypoints outside their image" in check("coco", root).problems[0]
    apart = {**pairs.PAIR, "source_points": [[1, 1]], "target_points": [None]}
    findings = check("pairs", pairs.written(tmp_path / "p", pairs.PAIR, apart))
    assert "left out: 1 pairs with too few common keypoints" in findings.problems[0]


def test_categories_without_subgroups_are_named(tmp_path: Path) -> None:
    findings = check("pf-willow", flow.willow(tmp_path))
    assert findings.warnings == ["test: no subgroups, so no geometry-aware keypoints: car(S)"]


def test_willow_lists_every_damaged_file(tmp_path: Path) -> None:
    root = flow.willow(tmp_path)
    (root / "car(S)/a.mat").write_bytes(b"nothing")
    savemat(root / "car(S)/c.mat", {"other": [1]})
    problems = "\n".join(check("pf-willow", root).problems)
    assert "a.mat: damaged" in problems
    assert "c.mat: has no matrix 'pts_coord'" in problems


def test_images_that_no_pair_uses_are_looked_at_too(tmp_path: Path) -> None:
    root = coco.made_up(tmp_path)
    (root / "images/3.png").write_bytes(b"")
    (root / "own.jsonl").write_text('{"source": "1.png", "target": "2.png"}', encoding="utf-8")
    (problem,) = check("coco", root, pairs="own.jsonl").problems
    assert "3.png" in problem


def test_many_problems_are_counted(tmp_path: Path) -> None:
    root = with_images(tmp_path, species("cat", 50))
    for number in range(21, 51):
        (root / f"data/{number:012d}.jpg").write_bytes(b"")
    problems = check("ap10k", root, "test", benchmark="intra-species").problems
    assert len(problems) == SHOWN + 1
    assert problems[-1] == f"… and {30 - SHOWN} more like the last"


def test_ap10k_not_built(tmp_path: Path) -> None:
    problems = check("ap10k", write_files(tmp_path, [annotation(1, "cat")])).problems
    assert problems == [
        f"{tmp_path / 'correspondence'}: not built yet; run geoaware data build-ap10k {tmp_path}"
    ]


def test_wrong_name_and_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown data set 'nope'"):
        check("nope", tmp_path)
    for name in LOADERS:
        assert not check(name, tmp_path / "nowhere").fine
        assert not check(name, tmp_path).fine, name


def test_command_check(tmp_path: Path) -> None:
    root = coco.made_up(tmp_path)
    result = CliRunner().invoke(app, ["check", "coco", str(root), "--pairs", "all", "--set", "seed=3"])
    assert result.exit_code == 0
    assert "all: 6 pairs, 3 images, 1 categories" in result.output
    assert "left_ear / right_ear" in result.output
    assert "coco: fine" in result.output
    result = CliRunner().invoke(app, ["check", "spair71k", str(tmp_path)])
    assert result.exit_code == 2
    assert "problem: " in result.output
    assert SOURCES["spair71k"].url in result.output


@pytest.mark.parametrize("kind", [pytest.param(each, id=f"{each.name}: {each.what}") for each in KINDS])
def test_command_check_says_what_is_unusual(tmp_path: Path, kind: Kind) -> None:
    kind.make(tmp_path)
    chosen = ["--pairs", "all"] if kind.name == "coco" else []
    result = CliRunner().invoke(app, ["check", kind.name, str(tmp_path), *chosen])
    assert (result.exit_code, kind.said in result.output) == (kind.code, True), result.output
    assert (f"{kind.name}: fine" in result.output) == (kind.code == 0)


def test_command_build(tmp_path: Path) -> None:
    write_files(tmp_path, [*species("cat", 60), *species("lion", 60, first=100)])
    result = CliRunner().invoke(
        app, ["build-ap10k", str(tmp_path), "--out", str(tmp_path / "out"), "--seed", "4"]
    )
    assert result.exit_code == 0, result.output
    for text in ("260,950", "20,630", "870", "9,619", "900", "4,200", "120 annotated"):
        assert text in result.output
    assert json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["rules"]["seed"] == 4


def test_commands_start_without_the_heavy_imports() -> None:
    import subprocess

    code = "import sys, geoaware.commands.data; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
