from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from geoaware.features import check_name
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessorSettings
from geoaware.runs import settings
from geoaware.runs.errors import InputError
from geoaware.training.post_processor.config import (
    Flips,
    Loss,
    Matching,
    Stage,
    TrainConfig,
    load_config,
)
from geoaware.training.settings import CONFIGS, DataChoice, Validation

STAGES = [{"data": [{"name": "coco", "root": "faces"}], "steps": 3}]
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def file(folder: Path, content: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_defaults_are_the_paper_s() -> None:
    config = settings.parse(TrainConfig, {"stages": STAGES}, "here")
    stage = config.stages[0]
    assert (config.flips.double, config.flips.single, config.flips.self) == (1.0, 1.0, 0.25)
    assert (config.loss.dense, config.loss.sparse, config.loss.noise) == (1.0, 1.0, 0.1)
    assert (config.loss.temperature, config.loss.window, config.loss.reduction) == (0.02, None, "mean")
    assert config.loss.target == "position"
    assert (config.loss.distillation, config.network.context, config.network.centred) == (0.0, (), False), (
        "not in it"
    )
    assert (stage.learning_rate, stage.weight_decay, stage.rising) == (1.25e-3, 1e-3, 0.3)
    assert (stage.batch, stage.accumulate, stage.images) == (1, 1, None)
    assert (config.network.width, config.network.grid, config.network.dropout) == (768, 60, 0.2)
    assert config.extractor == "sd15+dinov2-base"
    assert config.matching.settings() == MatchSettings(window=15, temperature=0.02)
    assert config.matching.blend == 1.0
    assert config.validation.alpha == 0.1


def test_there_are_configs_for_the_paper_s_runs() -> None:
    assert {"spair71k", "ap10k", "ap10k-spair71k", "pf-pascal"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_can_be_run(name: str) -> None:
    config = load_config(name)
    check_name(config.extractor)
    config.matching.settings()
    assert config.validation.data, "nothing would choose the best weights"
    splits = {choice.split for choice in config.validation.data}
    assert not any("test" in split for split in splits)
    trained = {(choice.root, choice.split) for stage in config.stages for choice in stage.data}
    assert not trained & {(choice.root, choice.split) for choice in config.validation.data}


@pytest.mark.parametrize(("name", "epochs"), [("spair71k", [2]), ("ap10k", [1]), ("ap10k-spair71k", [1, 2])])
def test_the_paper_s_lengths(name: str, epochs: list[float]) -> None:
    assert [stage.epochs for stage in load_config(name).stages] == epochs


def test_pf_pascal_is_trained_without_flips() -> None:
    config = load_config("pf-pascal")
    assert not config.flips.used
    assert [stage.epochs for stage in config.stages] == [85]


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("losses", {}, TrainConfig),
        ("loss.tau", 1, Loss),
        ("network.depth", 3, PostProcessorSettings),
        ("flips.triple", 1, Flips),
        ("stages.0.lr", 1, Stage),
        ("stages.0.data.0.path", "x", DataChoice),
        ("validation.data.0.folder", "x", DataChoice),
        ("validation.often", 1, Validation),
        ("matching.mode", "argmax", Matching),
    ],
)
def test_an_unknown_key_at_any_depth_lists_the_valid_ones(tmp_path, key, value, kind) -> None:
    path = file(tmp_path, {"stages": STAGES, "validation": {"data": [{"name": "coco", "root": "faces"}]}})
    with pytest.raises(InputError) as caught:
        load_config(path, {key: value})
    names = kind.model_fields if issubclass(kind, BaseModel) else [each.name for each in fields(kind)]
    valid = ", ".join(names)
    assert str(caught.value) == f"{path}: unknown key {key!r}; there are {valid}"


def test_values_by_dotted_key_go_before_the_file_s(tmp_path: Path) -> None:
    path = file(tmp_path, {"stages": [*STAGES, {**STAGES[0], "steps": 9}], "loss": {"noise": 0.2}})
    config = load_config(
        path,
        {
            "loss.window": 7, "loss.noise": 0.3, "flips.self": 0, "stages.1.steps": 5, "seed": 4,
            "stages.0.data.0.options.pairs": "all", "extractor_settings.canvas": 64,
        },
    )  # fmt: skip
    assert (config.loss.window, config.loss.noise, config.flips.self, config.seed) == (7, 0.3, 0, 4)
    assert [stage.steps for stage in config.stages] == [3, 5]
    assert config.stages[0].data[0].options == {"pairs": "all"}
    assert config.extractor_settings == {"canvas": 64}
    assert load_config(path).loss.noise == 0.2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("stages.2.steps", "stages.2.steps: there is no '2' to set something in"),
        ("stages.last.steps", "there is no 'last' to set something in"),
        ("stages.5", "stages.5: there is no '5' to set"),
        ("seed.high", "seed.high: there is no 'high' to set"),
        ("seed.high.er", "seed.high.er: there is no 'high' to set something in"),
    ],
)
def test_a_key_that_leads_nowhere(tmp_path: Path, key: str, message: str) -> None:
    path = file(tmp_path, {"stages": [*STAGES, *STAGES], "seed": 3})
    with pytest.raises(InputError, match=message) as caught:
        load_config(path, {key: 1})
    assert caught.value.parameter == "set"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.0.epochs": 1}, "stages.0 needs either epochs or steps"),
        ({"stages.0.steps": None}, "stages.0 needs either epochs or steps"),
        ({"stages.0.steps": 0}, "stages.0.steps: input should be greater than or equal to 1 (got 0)"),
        ({"stages.0.images": 4, "stages.0.steps": None, "stages.0.epochs": 2}, "so needs steps"),
        ({"stages.0.images": 1}, "stages.0.images: "),
        ({"stages": []}, "stages: "),
        ({"loss.temperature": 0}, "loss.temperature: input should be greater than 0 (got 0)"),
        ({"loss.temperature": "warm"}, "loss.temperature: "),
        ({"network.dropout": 1.0}, "network: dropout must be at least 0 and below 1, got 1.0"),
        ({"network.channels": [3]}, "network.channels are those of the extractor; leave them out"),
        ({"precision": "fp8"}, "precision: input should be 'fp32' or 'bf16' (got 'fp8')"),
        ({"flips.double": -1}, "flips.double: "),
        ({"matching.blend": 1.5}, "matching.blend: "),
        ({"loss.window": 4}, "loss.window must be odd, or the whole grid, got 4"),
        ({"matching.window": 58}, "matching.window must be odd, or the whole grid, got 58"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0 (got -1)"),
        ({"seed": 2**32}, "seed: input should be less than 4294967296"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, changes: dict, message: str) -> None:
    path = file(tmp_path, {"stages": STAGES})
    with pytest.raises(InputError) as caught:
        load_config(path, changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_needed_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(file(tmp_path, {"seed": 1}))
    assert str(caught.value) == f"{tmp_path / 'run.yaml'}: stages: field required"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stages: [", "no valid YAML"),
        ("- a\n- b\n", "is no configuration; expected keys such as root, start"),
        ("", "is no configuration"),
        ("1: 2\nstages: [{data: [{name: coco, root: x}], steps: 1}]\n", "1: keys should be strings (got 1)"),
        ("stage: [{steps: 1}]\n", "unknown key 'stage'; there are root, start"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str, message: str) -> None:
    path = file(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_files_and_names(tmp_path: Path) -> None:
    assert settings.find("spair71k", CONFIGS) == CONFIGS / "spair71k.yaml"
    path = file(tmp_path, {"stages": STAGES})
    assert settings.find(path, CONFIGS) == path
    with pytest.raises(InputError, match=r"nothing\.yaml: no such file; give a YAML file or .*: .*spair71k"):
        load_config("nothing.yaml")
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path)


def test_a_config_survives_being_written(tmp_path: Path) -> None:
    config = load_config("ap10k-spair71k", {"extractor_settings.blocks": (1, 2), "loss.window": 5})
    path = file(tmp_path, config.model_dump(mode="json"))
    assert load_config(path).model_dump(mode="json") == config.model_dump(mode="json")


def test_lists_in_extractor_settings_are_tuples_as_from_the_command_line() -> None:
    config = settings.parse(
        TrainConfig, {"stages": STAGES, "extractor_settings": {"blocks": [1, 2], "canvas": 64}}, "here"
    )
    assert config.extractor_settings == {"blocks": (1, 2), "canvas": 64}


def test_the_released_preset() -> None:
    paper = settings.parse(TrainConfig, {"stages": STAGES}, "here")
    assert paper.as_released() == paper
    released = settings.parse(TrainConfig, {"stages": STAGES, "preset": "released"}, "here").as_released()
    assert released.loss.target == "flow"
    assert (released.flips.double, released.flips.single, released.flips.self) == (1.0, 0.0, 0.25)
    assert released.as_released() == released
    kept = {"loss": {"target"}, "flips": {"single"}, "preset": True}
    assert released.model_dump(exclude=kept) == paper.model_dump(exclude=kept)
    assert isinstance(released, TrainConfig)


def test_keys_of_before_are_taken_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = [{**STAGES[0], "pictures": 4}, {**STAGES[0], "images": 3}]
    path = file(tmp_path, {"stages": stages, "loss": {"keep": 0.6, "noise": 0.2}})
    config = load_config(path)
    assert [stage.images for stage in config.stages] == [4, 3]
    assert (config.loss.distillation, config.loss.noise) == (0.6, 0.2)
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{path}: loss.keep is now called loss.distillation",
        f"{path}: stages.0.pictures is now called stages.0.images",
    ]


@pytest.mark.parametrize("changes", [{"loss.keep": 0.3}, {"loss": {"keep": 0.3}}, {"loss.distillation": 0.3}])
def test_a_key_of_before_on_the_command_line_goes_before_the_file(tmp_path: Path, changes: dict) -> None:
    path = file(tmp_path, {"stages": STAGES, "loss": {"keep": 0.6}})
    assert load_config(path, changes).loss.distillation == 0.3
    path = file(tmp_path, {"stages": STAGES, "loss": {"distillation": 0.6}})
    assert load_config(path, {**changes, "stages.0.pictures": 5}).loss.distillation == 0.3


def test_a_value_under_both_names(tmp_path: Path) -> None:
    path = file(tmp_path, {"stages": STAGES, "loss": {"keep": 0.6, "distillation": 0.5}})
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"{path}: loss.keep is now called loss.distillation, and both are there; leave loss.keep out"
    )
