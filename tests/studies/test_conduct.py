from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace

import pytest
import typer
from matplotlib.figure import Figure
from typer.testing import CliRunner

from geoaware.commands.evaluate import score as score_command
from geoaware.evaluation import get_protocol, score_file
from geoaware.evaluation.formats import to_dict
from geoaware.runs.errors import InputError
from geoaware.studies import training_transfer
from geoaware.studies.case import Outcome
from geoaware.studies.catalogue import ANALYSES, choose
from geoaware.studies.conduct import conduct, to_text, write
from geoaware.studies.study import SetConfig, Study, StudySet, Training
from geoaware.studies.variants import Bench
from geoaware.training.post_processor.config import load_config
from tests.evaluation.tiny import Sided
from tests.features.test_refined import random_network
from tests.studies.test_pose_prediction import data_set, four_poses
from tests.studies.test_study import tiny_set, tiny_study

COMPUTED = [each for each in choose("all") if not each.trains]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder and report of every analysis but those that train, with a post-processor of random weights."""
    folder = tmp_path_factory.mktemp("report")
    network = random_network(channels=(9,), matching={"blend": 0.5, "window": 7, "pose": "flip"})
    study = tiny_study(folder, Bench(Sided(), network))
    report = conduct(study, "all", COMPUTED, about="Noise.")
    write(report, study.out)
    return study.out, report


def rows_of(figures):
    """Every row of figures in an outcome, wherever it stands."""
    if isinstance(figures, dict):
        if "predictions" in figures:
            yield figures
        for each in figures.values():
            yield from rows_of(each)
    elif isinstance(figures, list):
        for each in figures:
            yield from rows_of(each)


def test_figures_are_what_score_prints(made):
    """The report's figures, `score_file`'s and those of the command line are the same."""
    out, _ = made
    content = json.loads((out / "all.json").read_text(encoding="utf-8"))
    app = typer.Typer()
    app.command()(score_command)
    printed = {}
    checked = 0
    for outcome in content["outcomes"]:
        for row in rows_of(outcome["figures"]):
            path = out / "predictions" / row["predictions"]
            assert f"predictions/{row['predictions']}" in outcome["predictions"]
            expected = to_dict(score_file(path))
            if path not in printed:
                done = CliRunner().invoke(app, [str(path), "--json", "--draws", "0"], catch_exceptions=False)
                printed[path] = json.loads(done.stdout)
            for kind in ("standard", "geometry_aware"):
                for averaging, values in row[kind].items():
                    assert values == expected["overall"][kind][averaging]
                    assert values == printed[path]["overall"][kind][averaging]
            gaps = expected["overall"]["relative_gap"][expected["averaging"]]
            assert row["relative_gap"] == gaps
            checked += 1
    assert checked > 50
    assert {path.name for path in printed} >= {"zero-shot.jsonl", "post-processor.jsonl"}


def test_printed_figures_are_those_of_the_json(made):
    out, report = made
    (table3,) = [each for each in report.outcomes if each.name == "table3"]
    row = next(each for each in table3.grids[0].rows if each[0] == "tiny: zero-shot, pose")
    result = score_file(out / "predictions" / "tiny" / "zero-shot.jsonl")
    assert list(row[2:5]) == [f"{100 * result.value(alpha):.1f}" for alpha in (0.01, 0.05, 0.1)]


def test_the_report_is_whole(made):
    out, report = made
    text = (out / "README.md").read_text(encoding="utf-8")
    names = {each.name for each in report.outcomes}
    assert names == {each.name for each in COMPUTED} - {"table1"}  # the images say no azimuth
    for name in names:
        assert f"## {name} · " in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (out / link).is_file()
    assert len(list((out / "plots").glob("*.png"))) == len(set(re.findall(r"\(plots/[^)]+\)", text)))
    for word in ("sided()", "blend", "30", "paper", "per image", "geoaware 0.", "Noise.", "SHA-256"):
        assert word in text
    assert "tiny: no object masks" in text.split("## Left out")[1]
    assert "a row of table13" in text.split("## Left out")[1]
    assert "IMD on the given mask" not in text
    for each in report.outcomes:
        assert f"> {each.finding}" in text
        assert each.finding in to_text(report)


def test_the_same_again_gives_the_same_bytes(made, tmp_path):
    out, _ = made
    network = random_network(channels=(9,), matching={"blend": 0.5, "window": 7, "pose": "flip"})
    extractor = Sided()
    again = Study((tiny_set(out.parent / "images"),), Bench(extractor, network), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write(conduct(again, "all", COMPUTED, about="Noise."), out)
    assert extractor.count == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_single_analysis_has_files_of_its_name(tmp_path):
    study = tiny_study(tmp_path)
    path = write(conduct(study, "fig15", choose("fig15")), study.out)
    assert path.name == "fig15.md"
    content = json.loads((study.out / "fig15.json").read_text(encoding="utf-8"))
    assert content["outcomes"][0]["plots"] == ["plots/fig15-tiny.png"]
    assert sorted(each.name for each in (study.out / "predictions" / "tiny").iterdir()) == ["zero-shot.jsonl"]


def test_what_cannot_be_made_stops_a_single_analysis(tmp_path):
    study = tiny_study(tmp_path)
    with pytest.raises(InputError, match=r"table13 .* cannot be made: tiny: no object masks .*\nremedy"):
        conduct(study, "table13", choose("table13"))
    with pytest.raises(InputError, match=r"table10 .* cannot be made: no training is named"):
        conduct(study, "table10", choose("table10"))
    with pytest.raises(InputError, match="azimuth"):
        conduct(study, "table1", choose("table1"))
    assert not (study.out / "predictions").exists() or not list((study.out / "predictions").glob("*/*.jsonl"))


def test_a_reason_of_the_study_is_given(tmp_path):
    study = tiny_study(tmp_path)
    config = study.sets[0].config.model_copy(update={"skip": {"fig5": "the angles are guesses"}})
    skipping = Study((StudySet(config, study.sets[0].data, study.sets[0].protocol),), study.bench, study.out)
    with pytest.raises(InputError, match="cannot be made: tiny: the angles are guesses"):
        conduct(skipping, "fig5", choose("fig5"))
    report = conduct(skipping, "all", choose("fig5") + choose("fig15"))
    assert report.left_out == ("tiny: the angles are guesses (fig5)",)
    assert [each.name for each in report.outcomes] == ["fig15"]


def test_the_papers_data_sets_go_to_the_analyses_that_are_about_them(tmp_path):
    (of,) = tiny_study(tmp_path).sets
    labels = ("spair71k", "pf-pascal")
    sets = [StudySet(of.config.model_copy(update={"label": each}), of.data, of.protocol) for each in labels]
    study = Study(tuple(sets), Bench(Sided()), tmp_path / "out", as_in_paper=True)
    report = conduct(study, "all", choose("table3") + choose("fig15"))
    folders = [{path.parent.name for path in each.predictions} for each in report.outcomes]
    assert folders == [{"spair71k", "pf-pascal"}, {"spair71k"}]


def test_restart_predicts_poses_again(tmp_path):
    toys = data_set(four_poses(tmp_path, each=2))
    toys = replace(toys, pairs=tuple(replace(each, azimuth_difference=0) for each in toys.pairs))
    of = StudySet(SetConfig(label="toys", name="toys", split="test"), toys, get_protocol("paper"))
    counts = []
    for restart in (False, False, True):
        extractor = Sided()
        study = Study((of,), Bench(extractor), tmp_path / "out", restart=restart)
        report = conduct(study, "table1", choose("table1"))
        counts.append(extractor.count)
        (path,) = report.outcomes[0].predictions
        assert path.parent == tmp_path / "out" / "predictions" / "toys"
    assert counts[0] > 0
    assert counts[1:] == [0, counts[0]]


def test_unknown_names():
    with pytest.raises(InputError, match=r"there is no analysis 'table6'; choose table1, .* or all"):
        choose("table6")
    assert {"table10", "table11", "unseen"} == {each.name for each in ANALYSES.values() if each.trains}


@pytest.fixture
def trained(monkeypatch):
    """The functions that train replaced by what notes how they were called, as far as they could be."""
    calls = []
    for name in ("transfer_table", "unseen"):
        signature = inspect.signature(getattr(training_transfer, name))

        def call(*given, signature=signature, **named):
            calls.append(signature.bind(*given, **named).arguments)
            return Outcome((), "Done.", plots={"": Figure()})

        monkeypatch.setattr(training_transfer, name, call)
    return calls


def test_analyses_that_train_get_the_study(tmp_path, trained):
    config = load_config("analysis-unseen", {"cache": str(tmp_path)})
    trainings = {
        "table10": Training(config),
        "unseen": Training(config, ("tiny",)),
        "table11": Training(config, ("b",)),
    }
    study = tiny_study(tmp_path, trainings=trainings, restart=True)
    report = conduct(study, "all", [each for each in choose("all") if each.trains])
    table10, unseen = trained
    assert (table10["tests"], table10["trainer"].config) == (study.sets, config)
    assert (unseen["test"], unseen["out"]) == (study.sets[0], study.out)
    for each in trained:
        assert each["trainer"].restart is True
        assert each["trainer"].device == "cpu"
        assert each["trainer"].tell is study.tell
    assert [list(each.plots) for each in report.outcomes] == [["table10"], ["unseen-tiny"]]
    assert [each.name for each in report.outcomes] == ["table10", "unseen"]
    assert [each.data for each in report.outcomes] == ["", "tiny"]
    assert report.left_out == ("none of the data sets that the training is tested on (b) (table11)",)
    with pytest.raises(InputError, match=r"table11 .* cannot be made: none of the data sets"):
        conduct(study, "table11", choose("table11"))


def test_a_training_that_cannot_be_made_stops_all(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise InputError("no training images")

    monkeypatch.setattr(training_transfer, "unseen", fail)
    study = tiny_study(tmp_path, trainings={"unseen": Training(load_config("analysis-unseen"))})
    with pytest.raises(InputError, match="no training images"):
        conduct(study, "all", choose("unseen"))
