from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from geoaware.evaluation.predict import PredictSettings, matching_settings, predict
from geoaware.evaluation.protocols import get_protocol
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError
from geoaware.studies.catalogue import ANALYSES
from geoaware.studies.study import STUDIES, SetConfig, Study, StudySet, load_set, load_study
from geoaware.studies.variants import ALONE, POST_PROCESSOR, WHOLE, ZERO_SHOT, Bench, Variant
from geoaware.training.post_processor.config import load_config
from tests.evaluation.tiny import Sided, tiny_dataset
from tests.features.test_refined import random_network

POSES = 2


def tiny_set(folder: Path) -> StudySet:
    return StudySet(
        SetConfig(label="tiny", name="tiny", split="test"), tiny_dataset(folder), get_protocol("paper")
    )


def tiny_study(folder: Path, bench: Bench | None = None, **settings: object) -> Study:
    return Study((tiny_set(folder / "images"),), bench or Bench(Sided()), folder / "out", **settings)


def name_of(bench: Bench, **changes: object) -> str:
    return bench.setup(Variant(**changes), "paper").name


def test_equal_work_has_equal_names():
    bench = Bench(Sided())  # default window 11 of 13 cells, mirrored by mutual nearest neighbours
    assert name_of(bench) == name_of(bench, window=11) == name_of(bench, pose="mutual-nn") == "zero-shot"
    assert name_of(bench, window=WHOLE, pose="off") == "zero-shot-window-13-pose-off"
    assert name_of(bench, sigma=2.5) == "zero-shot-kernel-2.5"
    assert name_of(bench, pose="imd") == "zero-shot-pose-imd"
    assert name_of(bench, pose="masks") == "zero-shot-pose-masks"


def test_names_tell_work_apart():
    network = random_network(channels=(9,), matching={"blend": 0.5, "window": 7})
    bench = Bench(Sided(), network)
    variants = [
        Variant(subject, window, sigma, pose)
        for subject in bench.subjects
        for window, sigma in ((None, None), (1, None), (WHOLE, None), (None, 5.0))
        for pose in ("default", "off", "imd", "masks")
    ]
    setups: dict[str, set] = {}
    for each in variants:
        setup = bench.setup(each, "paper")
        matcher = setup.matcher
        rule = matcher.pose_rule if matcher.pose != "off" else None
        work = (matcher.identity, matcher.settings, matcher.pose, rule, setup.masks)
        setups.setdefault(setup.name, set()).add(work)
    assert all(len(works) == 1 for works in setups.values())
    assert len({work for works in setups.values() for work in works}) == len(setups)


def test_subjects():
    assert Bench(Sided()).subjects == (ZERO_SHOT,)
    assert Bench(Sided(), random_network(channels=(9,))).subjects == (ZERO_SHOT, POST_PROCESSOR)
    blended = Bench(Sided(), random_network(grid=6, channels=(9,), matching={"blend": 0.5}))
    assert blended.subjects == (ZERO_SHOT, POST_PROCESSOR, ALONE)
    alone = blended.setup(Variant(ALONE), "paper").matcher
    assert (alone.blend, alone.settings.window, alone.settings.temperature, alone.pose) == (
        1.0,
        3,
        0.03,
        "off",
    )
    assert blended.grid(POST_PROCESSOR) == 13
    assert blended.grid(ALONE) == 6


def test_a_file_is_what_plain_prediction_writes(tmp_path):
    study = tiny_study(tmp_path)
    ours = study.run(study.sets[0], Variant()).path
    matcher = Matcher(Sided(), matching_settings("sided", "paper"))
    theirs = predict(study.sets[0].data, matcher, tmp_path / "plain.jsonl", PredictSettings())
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours == tmp_path / "out" / "predictions" / "tiny" / "zero-shot.jsonl"
    assert (tmp_path / "out" / "predictions" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_variants_share_features_and_poses(tmp_path, monkeypatch):
    extractor = Sided()
    study = tiny_study(tmp_path, Bench(extractor))
    aligned = []
    plain = Matcher.align
    monkeypatch.setattr(Matcher, "align", lambda *given: aligned.append(1) or plain(*given))
    for window in (1, 3, None):
        study.run(study.sets[0], Variant(window=window))
    images, pairs = len(study.sets[0].data.images), len(study.sets[0].data)
    assert extractor.count == POSES * images
    assert len(aligned) == pairs


def test_a_remembered_pose_matches_as_the_first_time(tmp_path):
    pair = tiny_set(tmp_path).data.pairs[0]
    mirrored = ImageOps.mirror(Image.open(pair.target.path).convert("RGB"))
    points = [(20.0, 30.0), (60.0, 50.0)]
    matcher = Bench(Sided()).setup(Variant(), "paper").matcher
    first, again = (matcher.match(mirrored, pair.target.path, points) for _ in range(2))
    assert first.pose == again.pose == "flip"
    assert again.distances == first.distances
    assert torch.equal(again.points, first.points)
    # The source's own maps are there too, for points that have no partner and for its heat map.
    assert set(again.source.maps) >= {"identity"}
    assert again.heatmap(0).size == first.heatmap(0).size


def test_without_room_the_figures_are_the_same(tmp_path):
    small, large = (
        tiny_study(tmp_path / name, Bench(Sided(), memory=limit))
        for name, limit in (("a", 1), ("b", 1 << 30))
    )
    for variant in (Variant(window=1), Variant(pose="off"), Variant()):
        a, b = (each.run(each.sets[0], variant).path for each in (small, large))
        assert a.read_bytes() == b.read_bytes()


def test_a_second_study_predicts_nothing(tmp_path):
    first = tiny_study(tmp_path)
    before = first.run(first.sets[0], Variant()).path.read_bytes()
    extractor = Sided()
    second = tiny_study(tmp_path, Bench(extractor))
    found = second.run(second.sets[0], Variant(window=11))
    assert extractor.count == 0
    assert found.path.read_bytes() == before
    again = tiny_study(tmp_path, Bench(extractor), restart=True)
    again.run(again.sets[0], Variant())
    assert extractor.count > 0


def test_an_interrupted_run_goes_on(tmp_path):
    whole = tiny_study(tmp_path / "whole")
    expected = whole.run(whole.sets[0], Variant()).path.read_bytes()
    study = tiny_study(tmp_path)
    path = study.run(study.sets[0], Variant()).path
    lines = path.with_name(path.name).read_bytes().splitlines(keepends=True)
    path.unlink()
    path.with_name(path.name + ".part").write_bytes(b"".join(lines[:8]) + lines[8][:20])
    extractor = Sided()
    again = tiny_study(tmp_path, Bench(extractor))
    assert again.run(again.sets[0], Variant()).path.read_bytes() == expected
    assert not list(path.parent.glob("*.part"))


def test_a_file_of_other_work_is_refused(tmp_path):
    study = tiny_study(tmp_path)
    study.run(study.sets[0], Variant())
    other = tiny_study(tmp_path, settings=PredictSettings(labels=False))
    with pytest.raises(
        InputError, match=r"zero-shot.jsonl: belongs to another run \(different: settings.labels"
    ):
        other.run(other.sets[0], Variant())


def test_what_a_set_lacks(tmp_path):
    whole = tiny_set(tmp_path)
    assert whole.lacks("azimuth") is None
    assert whole.lacks("subgroups") is None
    assert "tiny: no object masks" in whole.lacks("masks")
    bare = replace(
        whole,
        data=replace(
            whole.data,
            pairs=tuple(replace(each, azimuth_difference=None) for each in whole.data.pairs),
            schemas={"cat": replace(whole.data.schemas["cat"], subgroups={})},
        ),
    )
    assert "no azimuth_id" in bare.lacks("azimuth")
    assert "no subgroups" in bare.lacks("subgroups")


def test_shipped_studies_can_be_read():
    names = sorted(each.stem for each in STUDIES.glob("*.yaml"))
    assert names == ["paper", "shared"]
    for name in names:
        study = load_study(name)
        labels = {each.label for each in study.sets}
        for training in (*study.trainings.values(), *study.networks.values()):
            assert load_config(training.config).stages
            assert set(training.tests) <= labels
        assert set(study.trainings) <= {each.name for each in ANALYSES.values() if each.trains}
    assert [each.start for each in load_study("paper").networks.values()] == ["", "ap10k", "ap10k"]
    paper = {each.label for each in load_study("paper").sets}
    for analysis in ANALYSES.values():
        assert set(analysis.needs) <= paper, analysis.name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sets: []", "a study needs sets whose labels differ, got"),
        (
            "sets: [{label: a, name: coco, split: x}, {label: a, name: coco, split: x}]",
            r"labels differ, got \['a'",
        ),
        ("sets: [{label: A b, name: coco, split: x}]", "sets.0.label: string should match pattern"),
        ("sets: [{label: a, name: coco}]", "sets.0.split: field required"),
        (
            "sets: [{label: a, name: coco, split: x, colour: red}]",
            "unknown key 'sets.0.colour'; there are label, title, about, name, root, split",
        ),
        ("sets: [{label: a, name: coco, split: x, protocol: mine}]", "unknown protocol 'mine'"),
        ("[1, 2", "no valid YAML"),
        ("3", "study.yaml: is no configuration; expected keys such as about, sets"),
    ],
)
def test_studies_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_study(path)


def test_no_such_study(tmp_path):
    with pytest.raises(InputError, match=r"no such file; give a YAML file .* paper, shared"):
        load_study("mine.yaml")


def test_data_that_is_not_there(tmp_path):
    (config,) = [each for each in load_study("paper").sets if each.label == "spair71k"]
    with pytest.raises(InputError) as caught:
        load_set(config, tmp_path)
    message = str(caught.value)
    assert message.startswith("SPair-71k test (data set spair71k, split test) is needed: ")
    assert "geoaware data check spair71k DIR" in message
    assert caught.value.parameter == "root"
