from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from geoaware.evaluation.predict import matching_settings
from geoaware.features import load_extractor
from geoaware.runs.errors import InputError, quoted, shortened
from geoaware.runs.settings import Part, checked, parse, read_yaml
from geoaware.training.backbone.config import TuneConfig
from geoaware.training.post_processor.config import TrainConfig


@dataclass(frozen=True)
class Kitchen:
    size: int = 3
    heat: float = 0.5
    lit: bool = False
    pots: tuple[int, ...] = ()
    fuel: Literal["gas", "wood"] = "gas"
    place: str | None = None
    shelf: Path | None = None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size": "1e9"}, "size: input should be a valid integer, unable to parse string as an integer"),
    ({"size": 3.5}, "size: input should be a valid integer, got a number with a fractional part (got 3.5)"),
    ({"size": float("nan")}, "size: input should be a finite number (got nan)"),
    ({"size": True}, "size: input should be a number (got True)"),
    ({"heat": float("inf")}, "heat: input should be a finite number (got inf)"),
    ({"heat": "warm"}, "heat: input should be a valid number"),
    ({"lit": "maybe"}, "lit: input should be a valid boolean, unable to interpret input (got 'maybe')"),
    ({"pots": 7}, "pots: input should be a list, as in [1, 2] (got 7)"),
    ({"pots": [1, 1.5]}, "pots.1: input should be a valid integer"),
    ({"pots": [1, True]}, "pots: input should be a number (got [1, True])"),
    ({"pots": [[[[1]]]]}, "pots.0: input should be a valid integer (got [[[1]]])"),
    ({"fuel": "coal"}, "fuel: input should be 'gas' or 'wood' (got 'coal')"),
    ({"shelf": [0]}, "shelf: input is not a valid path (got [0])"),
    ({"place": 7}, "place: input should be a text; put it in quotes (got 7)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_value_of_another_kind_is_named_with_what_is_allowed(given: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(Kitchen, given, "kitchen")
    assert str(caught.value).startswith(f"kitchen: {message}")


def test_what_can_be_understood_in_one_way_is_taken() -> None:
    given = {"size": 4.0, "heat": "1e-3", "pots": ["1", 2], "place": Path("shelf"), "lit": "no"}
    assert checked(Kitchen, given, "kitchen") == {
        "size": 4, "heat": 0.001, "pots": (1, 2), "place": "shelf", "lit": False,
    }  # fmt: skip
    assert checked(Kitchen, {}, "kitchen") == {}


def test_an_unknown_setting_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"kitchen has no setting sise; it has: size, heat, lit, pots"):
        checked(Kitchen, {"sise": 3}, "kitchen")


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        checked(Kitchen, {"size": "9" * 100_000 + "x"}, "kitchen")
    assert len(str(caught.value)) < 250
    assert shortened("short") == "short"
    assert shortened("a" * 90 + "end").endswith("end")
    assert len(shortened("a" * 90)) == 80


class Meal(Part):
    courses: int = 3
    kitchen: Kitchen = Kitchen()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"courses": False}, "meal: courses: input should be a number"),
        ({"courses": float("inf")}, "meal: courses: input should be a finite number"),
        ({"kitchen": {"size": True}}, "meal: kitchen: input should be a number"),
    ],
)
def test_models_keep_to_the_same_rules(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(Meal, given, "meal")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2001-99-99", "2001-99-99"),
        ("2001-01-01", "2001-01-01"),
        ("[1, 2.5, no]", [1, 2.5, False]),
        ("1e9", "1e9"),
    ],
)
def test_yaml_gives_plain_values(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize("text", ["!!bool maybe", "[" * 5000, "!!int ''", "a: [", "!!set {a}", "*nobody"])
def test_yaml_that_is_none_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$"):
        read_yaml(text)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (TuneConfig, {"learning_rate": float("nan")}, "learning_rate: input should be a finite number"),
        (TuneConfig, {"validation.window": 4}, "validation.window: must be odd, or the whole map, got 4"),
        (TuneConfig, {"steps": True}, "steps: input should be a number"),
        (TrainConfig, {"loss.noise": float("inf")}, "loss.noise: input should be a finite number"),
        (TrainConfig, {"matching.inside_picture": "maybe"}, "matching.inside_picture: input should be a "),
    ],
)
def test_trainings(config: type[Part], given: dict, message: str) -> None:
    data = {"name": "coco", "root": "faces"}
    whole = {"stages": [{"data": [data], "steps": 3}]}
    if config is TuneConfig:
        whole = {"data": [{**data, "objects": 1}], "steps": 3, "unlabelled": {"root": "others"}}
    with pytest.raises(InputError, match=message):
        parse(config, whole, "run.yaml", given)


@pytest.mark.usefixtures("unchecked_types")
def test_extractors_and_matching() -> None:
    with pytest.raises(InputError, match=r"efficientnet-lite0: blocks: input should be a list.*got 7"):
        load_extractor("efficientnet-lite0", "cpu", blocks=7)
    with pytest.raises(InputError, match="matching: outside: input should be 'exclude' or 'zero'"):
        matching_settings("efficientnet-lite0", "paper", changes={"outside": "x"})


_TOO_MUCH = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "message"), [(_TOO_MUCH, "more than 100,000 values"), ("steps: &a [*a]", "nested too deeply")]
)
def test_yaml_that_stands_for_more_than_it_says(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


@pytest.mark.parametrize("value", ["x" * 5000, "long word " * 500, ["a", 1] * 900])
def test_values_are_cut_in_messages(value: object) -> None:
    text = str(InputError(f"a.yaml: steps is {quoted(value)}; give a number"))
    assert text.startswith("a.yaml: steps is ")
    assert text.endswith("; give a number")
    assert len(text) < 120
    assert not isinstance(value, str) or len(str(InputError(f"there is no {value!r}"))) < 120


def test_paths_and_lists_of_choices_are_not_cut() -> None:
    text = f"/home/o'brien/{'deep/' * 30}a.json: no category 'cat'; choose {', '.join(map(str, range(99)))}"
    assert str(InputError(text)) == text
