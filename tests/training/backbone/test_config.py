from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from geoaware.features.tuned import TunedShape
from geoaware.runs.errors import InputError
from geoaware.training.backbone.config import (
    CONFIGS,
    Checks,
    Objective,
    Shape,
    Trained,
    TuneConfig,
    Unlabelled,
    Views,
    load_config,
    run_folder,
)

NEEDED = {
    "data": [{"name": "coco", "root": "faces", "objects": 3}],
    "unlabelled": {"root": "others"},
    "steps": 3,
}
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def file(folder: Path, content: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


class TestShipped:
    def test_there_is_one_for_the_weights_of_the_embedded_extractor(self) -> None:
        assert "lite" in SHIPPED

    @pytest.mark.parametrize("name", SHIPPED)
    def test_it_can_be_run(self, name: str) -> None:
        config = load_config(name)
        TunedShape(**config.shape.model_dump())
        assert config.steps > 0
        assert config.validation.data
        trained = {(choice.root, choice.split) for choice in config.data}
        checked = {(choice.root, choice.split) for choice in config.validation.data}
        assert not trained & checked
        assert not any("test" in split for _, split in trained | checked)

    def test_lite(self) -> None:
        config = load_config("lite")
        assert [(each.name, each.root, each.objects, each.twice) for each in config.data] == [
            ("coco", "animalpose", 10, 2),
            ("coco", "lspet", 6, 1),
            ("coco", "quaternius", 4, 0),
        ]
        assert (config.unlabelled.every, config.unlabelled.negatives) == (2, 2)
        assert config.start is None
        assert config.size == 256
        assert config.cooling < config.steps
        assert config.objective == Objective()

    def test_the_shape_without_settings_is_the_network_s(self) -> None:
        assert TunedShape(**Shape().model_dump()) == TunedShape()


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("epochs", 1, TuneConfig),
            ("shape.depth", 3, Shape),
            ("views.blur", 0.1, Views),
            ("objective.sparse", 1, Objective),
            ("data.0.path", "x", Trained),
            ("unlabelled.folder", "x", Unlabelled),
            ("validation.often", 5, Checks),
        ],
    )
    def test_an_unknown_one_at_any_depth_lists_the_valid_ones(self, tmp_path, key, value, kind) -> None:
        path = file(tmp_path, NEEDED)
        with pytest.raises(InputError) as caught:
            load_config(path, {key: value})
        valid = ", ".join(kind.model_fields)
        assert str(caught.value) == f"{path}: unknown key {key!r}; there are {valid}"

    def test_changes_go_before_the_file_and_the_file_before_the_defaults(self, tmp_path: Path) -> None:
        path = file(tmp_path, {**NEEDED, "views": {"turn": 10, "mirror": 0.1}, "seed": 7})
        config = load_config(path, {"views.mirror": 0.3, "shape.context": [1, 3], "data.0.twice": 2})
        assert (config.views.turn, config.views.mirror, config.views.cover) == (10, 0.3, Views().cover)
        assert config.shape.context == (1, 3)
        assert config.data[0].twice == 2
        assert config.seed == 7

    def test_a_way_that_leads_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"^data\.3\.twice: there is no '3' to set something in"):
            load_config(file(tmp_path, NEEDED), {"data.3.twice": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "steps: input should be a valid integer (got None)"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1 (got 0)"),
        ({"data.0.objects": 0}, "data.0.objects: input should be greater than or equal to 1 (got 0)"),
        ({"data.0.twice": 4}, "data.0: twice (4) must not be above objects (3)"),
        ({"data.0.share": 0.5}, "data.0.share: input should be None (got 0.5)"),
        ({"unlabelled.every": 0}, "unlabelled.every: input should be greater than or equal to 1 (got 0)"),
        (
            {"unlabelled.negatives": -1},
            "unlabelled.negatives: input should be greater than or equal to 0",
        ),
        ({"validation.window": 4}, "validation.window: must be odd, or the whole map, got 4"),
        ({"size": 250}, "size: input should be a multiple of 32 (got 250)"),
        ({"size": 352}, "size: input should be less than or equal to 320 (got 352)"),
        ({"data": []}, "data: "),
        ({"views.mirror": 1.5}, "views.mirror: input should be less than or equal to 1 (got 1.5)"),
        ({"views.smaller": 2}, "views: smaller (2.0) must not be above larger (1.3)"),
        ({"views.smaller": 0}, "views.smaller: input should be greater than 0 (got 0)"),
        ({"objective.points": -1}, "objective.points: "),
        ({"objective.cells": -0.5}, "objective.cells: "),
        ({"objective.familiar": -0.1}, "objective.familiar: "),
        ({"shape.descriptor": 0}, "shape.descriptor: "),
        ({"average": 1}, "average: input should be less than 1 (got 1)"),
        ({"warmup": 0}, "warmup: input should be greater than or equal to 1 (got 0)"),
        ({"precision": "fp16"}, "precision: input should be 'fp32' or 'bf16' (got 'fp16')"),
        ({"learning_rate": "fast"}, "learning_rate: "),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, changes: dict, message: str) -> None:
    path = file(tmp_path, NEEDED)
    with pytest.raises(InputError) as caught:
        load_config(path, changes)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("missing", ["data", "unlabelled", "steps"])
def test_what_is_needed_is_asked_for(tmp_path: Path, missing: str) -> None:
    path = file(tmp_path, {key: value for key, value in NEEDED.items() if key != missing})
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: {missing}: field required"


def test_a_missing_file_lists_what_is_shipped(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config("nothing.yaml")
    assert str(caught.value) == (
        f"nothing.yaml: no such file; give a YAML file or one that is shipped: {', '.join(SHIPPED)}"
    )
    with pytest.raises(InputError, match="no such file"):
        load_config("spair71k")  # which is of geoaware train
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path)


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"run\.yaml: is no configuration; expected keys such as root, start"
    ):
        load_config(file(tmp_path, ["a", "b"]))


def test_it_survives_being_written(tmp_path: Path) -> None:
    config = load_config("lite", {"shape.context": [1, 2], "views.turn": 12.5, "start": "somewhere"})
    path = file(tmp_path, config.model_dump(mode="json"))
    assert load_config(path) == config


def test_the_folder_of_a_run_that_was_given_none() -> None:
    assert run_folder("lite") == Path("runs/tune-lite")
    assert run_folder("configs/mine.yaml") == Path("runs/tune-mine")


TRANSFORMER = {**NEEDED, "backbone": "dinov2-base", "lora": {}, "unlabelled": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": None}, "backbone: of dinov2-base either lora or unfreeze is trained; set one of them"),
        ({"unfreeze": 2}, "backbone: of dinov2-base either lora or unfreeze is trained; set one of them"),
        ({"lora.rank": 0}, "lora.rank: input should be greater than or equal to 1 (got 0)"),
        ({"lora.targets": ["head"]}, "lora.targets.0: input should be 'attention' or 'mlp' (got 'head')"),
        ({"lora.targets": []}, "lora.targets: "),
        ({"lora.dropout": 1}, "lora.dropout: input should be less than 1 (got 1)"),
        ({"shape.width": 8}, "shape: is of the decoder of efficientnet-lite0; leave it out"),
        (
            {"unlabelled": {"root": "others"}},
            "unlabelled.negatives: only efficientnet-lite0 learns",
        ),
        ({"objective.presence": 1}, "objective.presence: only efficientnet-lite0 learns it; leave it out"),
        ({"backbone_settings.facet": "key"}, "backbone_settings.facet: only token can be trained"),
        ({"backbone_settings.adapter": "x"}, "backbone_settings.adapter: give it as start"),
        ({"size": 334}, "size: input should be less than or equal to 320 (got 334)"),
        (
            {"crop": 518, "unlabelled": {"root": "others", "negatives": 0}},
            "crop: can be 448 at most with images without labels, got 518",
        ),
        ({"data.0.categories": 0}, "data.0.categories: "),
        ({"backbone": "efficientnet-lite0"}, "unlabelled: field required"),
        (
            {"backbone": "efficientnet-lite0", "unlabelled": {"root": "others"}},
            "lora: is for transformers; leave it out, or set backbone (dinov2-base, …)",
        ),
    ],
)
def test_values_that_no_transformer_can_have(tmp_path: Path, changes: dict, message: str) -> None:
    path = file(tmp_path, TRANSFORMER)
    with pytest.raises(InputError) as caught:
        load_config(path, changes)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_how_the_weights_of_a_run_are_used(tmp_path: Path) -> None:
    assert load_config("lite").use == "--extractor lite --set weights="
    changes = {"backbone_settings": {"weights": "folder", "canvas": 518}}
    found = load_config("spair71k-dinov2", changes).use
    assert found == "--extractor dinov2-base --set weights=folder --set canvas=518 --set adapter="


@pytest.mark.parametrize(("name", "patch"), [("spair71k-dinov2", 14), ("spair71k-dinov3", 16)])
def test_those_of_transformers(name: str, patch: int) -> None:
    config = load_config(name)
    assert config.precision == "bf16"
    assert config.size % patch == 0
    assert (config.data[0].name, config.data[0].split) == ("spair71k", "trn")
    # Keypoints are compared within a category, so a step needs several objects of each.
    assert config.data[0].objects >= 3 * (config.data[0].categories or 99)
