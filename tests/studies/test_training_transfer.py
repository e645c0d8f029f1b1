from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from geoaware.data import DataSet
from geoaware.evaluation import get_protocol, score_file
from geoaware.evaluation.predictions import Header, describe_schema, make_record, read, record_line
from geoaware.features.refined import load_post_processor, shipped
from geoaware.presets import defaults_of
from geoaware.runs.errors import InputError
from geoaware.studies import training_transfer
from geoaware.studies.case import Outcome, Run
from geoaware.studies.catalogue import ANALYSES
from geoaware.studies.study import SetConfig, StudySet, load_set, load_study
from geoaware.studies.trained import Trainer
from geoaware.studies.training_transfer import BLENDS, WEIGHTS, transfer_table, unseen
from geoaware.training.post_processor.config import TrainConfig, load_config
from tests.shared_data import shared
from tests.training.tiny import config, draw_data
from tests.training.toy_sets import SCHEMA, data_set, image, pairs_of

pytest.importorskip("efficientnet_lite_pytorch")

SEEN = ["left ear", "right ear", "nose"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("transfer") / "faces")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer_cache")


def small(data: Path, cache: Path, **changes) -> TrainConfig:
    """Three steps on the drawn faces; refined maps of 4 cells a side, the extractor's are of 8."""
    chosen = {
        "stages__0__steps": 3,
        "save_every": 1,
        "network": {"width": 128, "grid": 4},
        "matching": {"window": 3, "temperature": 0.05},
        **changes,
    }
    return config(data, cache, **chosen)


def halved(data: Path, cache: Path, **changes) -> TrainConfig:
    return small(data, cache, stages__0__data__0__keypoints=SEEN, **changes)


def faces(data: Path, label: str = "faces") -> StudySet:
    """Pairs of the drawn faces that no run is trained on."""
    given = SetConfig(
        label=label, title="Faces", name="coco", root=Path(), split="val", options={"across": True}
    )
    return load_set(given, data)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Weights and predictions with the time that they were written."""
    paths = sorted([*folder.rglob("*.jsonl"), *folder.rglob("model.safetensors")])
    kept = [path for path in paths if path.name != "log.jsonl"]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in kept
    }


def no_step(what: str, *_: object) -> None:
    assert not what.endswith("training"), "trained again"


# Known predictions in the place of a trained network's.

IMAGES = [image(name, box=(0.0, 0.0, 100.0, 80.0)) for name in "abcd"]


def known_set(label: str) -> StudySet:
    given = SetConfig(label=label, title=label.title(), name="coco", split="val")
    return StudySet(given, data_set(pairs_of(IMAGES)), get_protocol("paper"))


def written(path: Path, data: DataSet, right: Callable[[int], bool]) -> Path:
    """Predictions that are exact where ``right`` of the keypoint's id says so, else 50 pixels away."""
    header = Header(protocol="paper", pairs=len(data), schemas={"cat": describe_schema(SCHEMA)})
    lines = []
    for pair in data.pairs:
        truth = pair.target.keypoints.at(pair.common_ids).tolist()
        found = [
            [x + (0 if right(each) else 50), y] for each, (x, y) in zip(pair.common_ids, truth, strict=True)
        ]
        lines.append(record_line(make_record(pair, SCHEMA, get_protocol("paper"), found, "identity")))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header.to_line() + "".join(lines), encoding="utf-8")
    return path


def known(monkeypatch, tmp_path: Path, right: Mapping[tuple[str, str], Callable[[int], bool]]) -> None:
    """No training; predictions by label of the data set and name of the row."""

    def predicted(trainer, test, row, out, network, blend) -> Run:
        path = written(
            tmp_path / f"{test.config.label}-{row}.jsonl", test.data, right[test.config.label, row]
        )
        return Run(row, path, score_file(path))

    monkeypatch.setattr(Trainer, "network", lambda *_: None)
    monkeypatch.setattr(training_transfer, "_predicted", predicted)


def everything(_: int) -> bool:
    return True


def nothing(_: int) -> bool:
    return False


def ears(each: int) -> bool:
    return each in (0, 1)


def test_transfer_of_known_predictions(monkeypatch, tmp_path) -> None:
    rows = {"zero-shot": (nothing, everything, ears), "trained on faces": (everything, nothing, ears)}
    labels = ("better", "worse", "same")
    known(
        monkeypatch,
        tmp_path,
        {(label, row): each for row, of in rows.items() for label, each in zip(labels, of, strict=True)},
    )
    given = small(tmp_path, tmp_path, stages__0__data__0__root="data/faces")
    found = transfer_table(Trainer(given), [known_set(each) for each in labels], tmp_path, blends=[1])
    assert found.title == "Trained on faces, tested on each data set"
    assert found.finding == (
        "Trained on faces, against zero-shot at PCK@0.10: Better: higher (+100.0 points, 95 % +100.0 to "
        "+100.0); Worse: lower (-100.0 points, 95 % -100.0 to -100.0); Same: the same."
    )
    better, worse, same = found.grids
    assert better.title == "Better"
    assert better.columns == (
        "features", "0.01", "0.05", "0.1", "geo. 0.01", "geo. 0.05", "geo. 0.1", "gain, PCK@0.05",
        "gain, PCK@0.10", "gain, geo. PCK@0.10",
    )  # fmt: skip
    assert better.rows == (
        ("zero-shot", *["0.0"] * 6, *["–"] * 3),
        ("trained on faces", *["100.0"] * 6, *["+100.0 (+100.0 to +100.0)"] * 3),
    )
    assert worse.rows[1][-3:] == ("-100.0 (-100.0 to -100.0)",) * 3
    # Two of five keypoints are ears, which are the geometry-aware ones.
    assert same.rows[0][1:7] == ("40.0",) * 3 + ("100.0",) * 3
    assert "12 pairs of 4 images" in same.note
    row = found.figures["better"]["trained on faces"]
    assert row["standard"]["per_image"] == [1.0, 1.0, 1.0]
    assert row["gain"]["pck@0.1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert len(found.predictions) == 6
    assert json.dumps(found.figures, allow_nan=False)


def test_unseen_with_known_predictions(monkeypatch, tmp_path) -> None:
    rows = {
        "zero-shot": (nothing, everything),
        "distillation 0": (everything, nothing),
        "distillation 0.6": (ears, everything),
    }
    halves = ("toy-seen", "toy-unseen")
    known(
        monkeypatch,
        tmp_path,
        {(label, row): each for row, of in rows.items() for label, each in zip(halves, of, strict=True)},
    )
    found = unseen(Trainer(halved(tmp_path, tmp_path)), known_set("toy"), tmp_path, blends=[1])
    assert [grid.title for grid in found.grids] == ["Keypoints trained on", "Keypoints never trained on"]
    assert found.finding == (
        "Keypoints trained on, against zero-shot at PCK@0.10: distillation 0: higher (+100.0 points, 95 % "
        "+100.0 to +100.0); distillation 0.6: higher (+66.7 points, 95 % +66.7 to +66.7). "
        "Keypoints never trained on, against zero-shot at PCK@0.05: distillation 0: lower (-100.0 points, 95 "
        "% -100.0 to -100.0); distillation 0.6: the same. "
        "Keypoints never trained on, against zero-shot at PCK@0.10: distillation 0: lower (-100.0 points, 95 "
        "% -100.0 to -100.0); distillation 0.6: the same. "
        "There, distillation 0.6, against distillation 0: higher (+100.0 points, 95 % +100.0 to +100.0)."
    )
    # Both eyes are in the other half, and only the ears are a subgroup.
    assert found.grids[1].rows[0][4:7] == ("–",) * 3
    assert found.figures["toy-unseen"]["distillation 0"]["gain"]["geometry_aware_pck@0.1"]["value"] is None


# Real runs, as small as can be.


@pytest.fixture(scope="module")
def finished(data, cache, tmp_path_factory) -> tuple[Path, Outcome]:
    """An analysis of unseen keypoints that ran through; tests leave it as it is."""
    out = tmp_path_factory.mktemp("unseen")
    return out, unseen(Trainer(halved(data, cache)), faces(data), out)


def test_a_whole_analysis_of_unseen_keypoints(finished) -> None:
    out, found = finished
    rows = [
        "zero-shot",
        "distillation 0",
        "distillation 0, blend 0.6",
        "distillation 0.6",
        "distillation 0.6, blend 0.6",
    ]
    assert [row[0] for row in found.grids[0].rows] == [row[0] for row in found.grids[1].rows] == rows
    assert sorted(path.name for path in (out / "runs").iterdir()) == [
        ".gitignore",
        "distillation-0",
        "distillation-0-6",
    ]
    configs = [
        load_config(out / "runs" / name / "config.yaml") for name in ("distillation-0", "distillation-0-6")
    ]
    assert [each.loss.distillation for each in configs] == list(WEIGHTS)
    assert configs[0].model_copy(update={"loss": configs[1].loss}) == configs[1], "nothing else differs"
    weights = {path.read_bytes() for path in out.rglob("model.safetensors")}
    assert len(weights) == 2
    for half, ids in (("seen", {0, 1, 4}), ("unseen", {2, 3})):
        for path in sorted((out / "predictions" / f"faces-{half}" / "training").iterdir()):
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
            assert {each for line in lines for each in json.loads(line)["keypoint_ids"]} == ids


def test_the_figures_are_those_of_the_files(finished) -> None:
    out, found = finished
    for label in ("faces-seen", "faces-unseen"):
        for row, figures in found.figures[label].items():
            name = row.replace(", ", "-").replace(" ", "-").replace(".", "-")
            result = score_file(out / "predictions" / label / "training" / f"{name}.jsonl")
            assert figures["standard"]["per_image"] == pytest.approx(
                result.overall.standard.values["per_image"]
            )
            if row != "zero-shot":
                zero = score_file(out / "predictions" / label / "training" / "zero-shot.jsonl")
                apart = result.value(averaging="per_image") - zero.value(averaging="per_image")
                assert figures["gain"]["pck@0.1"]["value"] == pytest.approx(apart, abs=1e-6)


def test_what_lies_on_the_extractors_grid_is_matched_as_the_extractor(finished) -> None:
    out, _ = finished
    folder = out / "predictions" / "faces-unseen" / "training"
    files = {path.stem: read(path)[0].settings for path in folder.iterdir()}
    assert {each["pose"] for each in files.values()} == {"off"}
    assert files["zero-shot"]["matching"] == files["distillation-0-blend-0-6"]["matching"]
    assert (files["zero-shot"]["matching"]["window"], files["distillation-0"]["matching"]["window"]) == (9, 3)
    assert "blend" not in files["zero-shot"]
    assert (files["distillation-0"]["blend"], files["distillation-0-blend-0-6"]["blend"]) == (1.0, 0.6)


def test_what_is_finished_is_not_done_again(finished, data, cache) -> None:
    out, found = finished
    before = contents(out)
    again = unseen(Trainer(halved(data, cache), tell=no_step), faces(data), out)
    assert contents(out) == before
    assert (again.finding, again.grids, again.figures) == (found.finding, found.grids, found.figures)


def test_an_interrupted_analysis_goes_on(finished, data, cache, tmp_path) -> None:
    out, found = finished
    done: list[int] = []

    def stop(what: str, step: int, *_: object) -> None:
        if not what.endswith("training"):
            return
        done.append(step)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unseen(Trainer(halved(data, cache), tell=stop), faces(data), tmp_path)
    again = unseen(Trainer(halved(data, cache), tell=stop), faces(data), tmp_path)
    assert done == [1, 2, 3, 1, 2, 3], "the second run goes on after its second step"
    assert {name: each for name, (_, each) in contents(tmp_path).items()} == {
        name: each for name, (_, each) in contents(out).items()
    }
    assert again.figures == found.figures


def test_restart_trains_and_predicts_again(data, cache, tmp_path) -> None:
    steps: list[int] = []

    def tell(what: str, step: int, *_: object) -> None:
        if what.endswith("training"):
            steps.append(step)

    first = small(data, cache, stages__0__steps=1)
    transfer_table(Trainer(first, tell=tell), [faces(data)], tmp_path)
    other = small(data, cache, stages__0__steps=1, loss__noise=0.3)
    with pytest.raises(InputError, match=r"belongs to another run \(different: loss.noise\)"):
        transfer_table(Trainer(other), [faces(data)], tmp_path)
    before = contents(tmp_path)
    found = transfer_table(Trainer(first, restart=True, tell=tell), [faces(data)], tmp_path)
    assert steps == [1, 1]
    after = contents(tmp_path)
    assert {name: each for name, (_, each) in before.items()} == {
        name: each for name, (_, each) in after.items()
    }
    assert all(after[name][0] > before[name][0] for name in before)
    assert [row[0] for row in found.grids[0].rows] == [
        "zero-shot",
        "trained on coco",
        "trained on coco, blend 0.6",
    ]
    assert set(found.plots) == {""}


def test_a_configuration_that_leaves_nothing_out(data, cache, tmp_path) -> None:
    with pytest.raises(InputError, match="unseen needs a configuration that leaves keypoints out"):
        unseen(Trainer(small(data, cache)), faces(data), tmp_path / "out")
    every = ["left ear", "right ear", "left eye", "right eye", "nose"]
    given = small(data, cache, stages__0__data__0__keypoints=every)
    with pytest.raises(
        InputError, match=r"Faces: none of its keypoints was never trained on \(left ear, .*nose\)"
    ):
        unseen(Trainer(given), faces(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_test_set_without_the_trained_keypoints(data, cache, tmp_path) -> None:
    given = small(data, cache, stages__0__data__0__keypoints=["beak"])
    with pytest.raises(InputError, match=r"Faces: none of its keypoints was trained on \(left ear"):
        unseen(Trainer(given), faces(data), tmp_path / "out")


def test_unknown_keypoints_of_the_training(data, cache, tmp_path) -> None:
    given = small(data, cache, stages__0__data__0__keypoints=["nose", "beak"])
    with pytest.raises(
        InputError, match="coco, split train: there is no keypoint 'beak'; its keypoints: left ear"
    ):
        unseen(Trainer(given), faces(data), tmp_path / "out")


def test_data_that_is_not_there(data, cache, tmp_path) -> None:
    absent = small(tmp_path / "nowhere", cache)
    with pytest.raises(InputError, match=r"nowhere.*: no such folder"):
        transfer_table(Trainer(absent), [faces(data)], tmp_path / "out")
    with pytest.raises(InputError, match="there is no data set to test on; name one"):
        transfer_table(Trainer(small(data, cache)), [], tmp_path / "out")


# What is shipped.


def test_constants_are_those_of_the_shipped_weights() -> None:
    network = load_post_processor(shipped()["lite-frozen"])
    assert defaults_of("efficientnet-lite0", network).blend == BLENDS[1]
    assert load_config("lite-frozen").loss.distillation == WEIGHTS[1]
    assert (BLENDS[0], WEIGHTS[0]) == (1.0, 0.0)


def test_what_the_tables_name_is_shipped() -> None:
    paper, small = load_study("paper"), load_study("shared")
    labels = {each.label for each in paper.sets}
    for name in ("table10", "table11"):
        tests = paper.trainings[name].tests
        assert set(tests) <= labels
        assert set(tests) == set(ANALYSES[name].needs)
        trained = {
            choice.name for stage in load_config(paper.trainings[name].config).stages for choice in stage.data
        }
        assert not any(label.startswith(each) for label in tests for each in trained)
        assert load_config(small.trainings[name].config).extractor == "efficientnet-lite0"


def test_the_small_configurations_differ_in_data_alone() -> None:
    configs = [load_config(each.config) for each in load_study("shared").trainings.values()]
    assert len(configs) == 3
    for each in configs:
        same = configs[0].model_copy(update={"stages": each.stages, "validation": each.validation})
        assert each == same
        assert [stage.steps for stage in each.stages] == [stage.steps for stage in configs[0].stages]


def test_partners_are_trained_together() -> None:
    found = json.loads((shared("lspet") / "val.json").read_text(encoding="utf-8"))
    names = found["categories"][0]["keypoints"]
    (choice,) = load_config("analysis-unseen").stages[0].data
    trained = set(choice.keypoints or ())
    assert trained < set(names)
    assert len(trained) == math.ceil(len(names) / 2)
    for a, b in found["flip_pairs"]:
        assert (names[a] in trained) == (names[b] in trained)
