"""All steps to the paper's tables on drawn images, with an extractor that costs nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch.nn.functional as F
from torch import Tensor

from geoaware.features.fused import Fused
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from geoaware.studies import paper_data
from geoaware.studies import reproduction as module
from geoaware.studies.costs import Rates
from geoaware.studies.paper import TABLE_9, TABLE_12
from geoaware.studies.planned import Planned, PlannedDiffusion, planned_extractor
from geoaware.studies.rehearsal import RULES, Rehearsal, rehearse
from geoaware.studies.reproduction import Choices, Reproduction
from geoaware.studies.steps import carry_out
from geoaware.studies.study import StudyConfig, load_study
from geoaware.training.post_processor import features, loop

SETTINGS = {"sd15.canvas": 128, "dinov2-base.canvas": 112, "sd15.captioner": None}
WIDTHS = (3, 3, 3, 3)
RATES = Rates(seconds={"extract": 1.0}, size={"run": 5, "record": 1})


class Colours(PlannedDiffusion):
    """Mean colours on three grids."""

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.adaptive_avg_pool2d(pixels, side) for side in (8, 4, 2))


class Coarse(Planned):
    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (F.adaptive_avg_pool2d(pixels, 8),)


class Counted(Fused):
    """How many images were encoded by all extractors of this kind."""

    count = 0

    def levels_of(self, images):
        Counted.count += len(images)
        return super().levels_of(images)


def load_cheap(*_: object, **__: object) -> Fused:
    diffusion, dino = planned_extractor(SETTINGS, WIDTHS).parts
    return Counted([Colours("sd15", diffusion.layout), Coarse("dinov2-base", dino.layout)]).eval()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Rehearsal:
    """Data sets in their real layout; no networks."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "networks").mkdir()
    return rehearse(folder, folder)


@pytest.fixture
def cheap(monkeypatch):
    for each in (module, loop, features):
        monkeypatch.setattr(each, "load_extractor", load_cheap)
    monkeypatch.setattr(Counted, "count", 0)


def reproduction(drawn, out, root=None, study=None, **changes) -> Reproduction:
    choices = Choices(settings=SETTINGS, changes=drawn.changes, rules=RULES, widths=WIDTHS, device="cpu")
    study = study or load_study("paper")
    return Reproduction(root or drawn.root, out, out / "features", study, replace(choices, **changes), RATES)


def states(work: Reproduction) -> dict[str, str]:
    return {each.name: each.line.state for each in work.steps()}


def small_study() -> StudyConfig:
    """Two data sets and a training for each, the second from the first one's weights."""
    whole = load_study("paper")
    networks = {name: whole.networks[name] for name in ("ap10k", "spair71k")}
    return whole.model_copy(update={"sets": whole.sets[:2], "networks": networks, "ablation": None})


def test_interrupted_and_gone_on(drawn, tmp_path, cheap):
    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, total: int, note: str = "", /) -> None:
        if what == "spair71k, training" and done == 1:
            raise StoppedError

    changes = {**drawn.changes, "save_every": 1}
    work = reproduction(drawn, tmp_path, study=small_study(), changes=changes)
    work.tell = stop
    work.check()
    with pytest.raises(StoppedError):
        carry_out(work.steps, RATES, work.say)
    encoded = Counted.count
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "predictions").rglob("*.jsonl")}
    assert made
    said: list[str] = []
    work = reproduction(drawn, tmp_path, study=small_study(), changes=changes)
    found = states(work)
    assert found["predictions of spair71k, zero-shot"] == found["training ap10k"] == "done"
    assert found["training spair71k"] == "1 of 2 steps"
    assert found["predictions of spair71k, post-processor"].startswith("0 of ")
    work.say = said.append
    work.check()
    carry_out(work.steps, RATES, work.say)
    assert "going on at step 1" in said
    assert set(states(work).values()) == {"done"}
    # Nothing that was finished was done again.
    assert Counted.count == encoded
    assert {path: path.stat().st_mtime_ns for path in made} == made
    _check_report(work)


def _check_report(work: Reproduction) -> None:
    report = work.report()
    names = ["table2", "table3", "table4", "table5", "table9", "table12", "table13"]
    assert list(dict.fromkeys(each.name for each in report.outcomes)) == names
    rows = {each.name: {row[0] for grid in each.grids for row in grid.rows} for each in report.outcomes}
    assert {each.label for each in TABLE_12} <= rows["table12"]
    assert {each.label for each in TABLE_9} <= rows["table9"]
    for title in ("SPair-71k", "AP-10K intra-species"):
        assert f"{title} test: post-processor" in rows["table3"]
        assert f"{title} test: zero-shot, pose" in rows["table3"]
    # Every data set has the weights that were trained for it; those that go on from AP-10K's say so.
    assert set(report.subjects) == {
        "zero-shot",
        *(f"post-processor ({each.label})" for each in work.study.sets),
    }
    written = (work.out / "runs" / "spair71k" / "config.yaml").read_text(encoding="utf-8")
    assert f"start: {work.out / 'runs' / 'ap10k' / 'last'}\n" in written


def test_without_training(drawn, tmp_path, cheap):
    without = states(reproduction(drawn, tmp_path, training=False))
    assert not [name for name in without if "training" in name or "ablation" in name]
    given = tmp_path / "given"
    PostProcessor(WIDTHS, width=128, grid=8).save_pretrained(given)
    with_given = states(reproduction(drawn, tmp_path, post_processor=str(given)))
    assert "ablation" in with_given
    assert not [name for name in with_given if name.startswith("training")]
    assert "predictions of pf-pascal, post-processor" in with_given


def test_nothing_is_there(drawn, tmp_path):
    """A plan has all steps, counted as published, and says what has to be brought by hand."""
    work = reproduction(drawn, tmp_path / "out", tmp_path, settings={})
    steps = {each.name: each for each in work.steps()}
    assert [name for name, each in steps.items() if each.missing] == ["weights", "data ap-10k"]
    assert steps["features of SPair-71k"].line.state == "0 of 3,600 files"
    assert steps["features of SPair-71k"].left.units == {"extract": 3600}
    # Twelve strategies of table 12 and the alignments of table 13, on 12,234 pairs.
    assert sum(steps["predictions of spair71k, zero-shot"].left.units.values()) % 12_234 == 0
    assert steps["predictions of ap10k-cross-family, zero-shot"].left.units["zero-shot, pose off"] == 6300
    with pytest.raises(InputError, match=r"no implicit captioner is given.*\(a dry run lists 1 more\)"):
        work.check()
    with pytest.raises(InputError, match=r"ap-10k: no such folder; ap10k must be fetched by hand"):
        reproduction(drawn, tmp_path / "out", tmp_path).check()
    assert not (tmp_path / "out").exists()


def test_data_is_fetched_and_built(drawn, tmp_path, monkeypatch):
    root = tmp_path / "data"
    shutil.copytree(drawn.root, root)
    shutil.rmtree(root / "SPair-71k")
    shutil.rmtree(root / "ap-10k" / "correspondence", ignore_errors=True)
    asked = []

    def get(name, folder, *, tell):
        asked.append((name, folder))
        shutil.copytree(drawn.root / "SPair-71k", folder / "SPair-71k")

    monkeypatch.setattr(paper_data, "get", get)
    work = reproduction(drawn, tmp_path / "out", root)
    carry_out(lambda: list(work.data.steps(RATES)), RATES, work.say)
    assert asked == [("spair71k", root)]
    found = states(work)
    assert found["pairs of ap-10k"] == "done"
    assert found["features of SPair-71k"] == "0 of 24 files"  # 12 images, upright and mirrored


def test_too_little_room_is_found_before_anything_is_computed(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_disk", lambda _: 1000)
    work = reproduction(drawn, tmp_path / "out")
    with pytest.raises(InputError, match=r"features take 0\.\d GB more, 0.0 GB are free; make room"):
        work.check()
    assert not (tmp_path / "out").exists()


def test_steps_of_full_runs_are_counted(drawn, tmp_path):
    """53,339 pairs for two epochs of SPair-71k, 260,950 for one of AP-10K (appendix A)."""
    work = reproduction(drawn, tmp_path / "out", tmp_path, changes={})
    steps = {each.name: each for each in work.steps()}
    assert steps["training ap10k"].line.state == "0 of 260,950 steps"
    assert steps["training spair71k"].line.state == "0 of 106,678 steps"
    # 22 validations of 1,800 pairs.
    assert steps["training spair71k"].left.units == {"step": 106_678, "post-processor, pose off": 22 * 1800}
    assert steps["training pf-pascal"].left.units is None  # its pairs are nowhere published
    # Five runs for six rows, which are compared on the test split.
    assert steps["ablation"].left.units == {"step": 5 * 106_678, "post-processor, pose off": 6 * 12_234}


def test_a_list_of_training_pairs_that_is_missing(drawn, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(drawn.root, root)
    (root / "PF-PASCAL" / "trn_pairs.csv").unlink()
    work = reproduction(drawn, tmp_path / "out", root)
    with pytest.raises(InputError, match=r"PF-PASCAL: no list of pairs 'trn_pairs.csv'.*trn_pairs.csv comes"):
        work.check()
    (step,) = [each for each in work.steps() if each.missing]
    assert step.name == "data PF-PASCAL"
    assert not [
        each for each in reproduction(drawn, tmp_path / "out", root, training=False).steps() if each.missing
    ]
