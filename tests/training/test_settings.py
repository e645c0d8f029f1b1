from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoaware.runs.errors import InputError
from geoaware.studies.study import load_study
from geoaware.training.backbone.config import load_config as load_tuning
from geoaware.training.post_processor.config import load_config as load_training
from geoaware.training.settings import shares_of


@pytest.mark.parametrize(
    ("given", "sizes", "shares"),
    [
        ([None, None, None], [6, 3, 1], [0.6, 0.3, 0.1]),
        ([1.0, 4.0], [6, 3], [0.2, 0.8]),
        ([0.25, 0.75], [6, 3], [0.25, 0.75]),
        ([0.25, None], [9, 1], [0.25, 0.75]),
        ([None, 0.5, None], [1, 9, 3], [0.125, 0.5, 0.375]),
        ([3.0], [2], [1.0]),
        ([None], [2], [1.0]),
    ],
)
def test_shares(given: list[float | None], sizes: list[int], shares: list[float]) -> None:
    """Data sets without a share divide what the others leave, by their sizes."""
    assert shares_of(given, sizes) == pytest.approx(shares)


@pytest.mark.parametrize("given", [[1.0, None], [0.7, None, 0.5]])
def test_nothing_is_left(given: list[float | None]) -> None:
    with pytest.raises(InputError, match=r"add up to 1(\.2)? and leave nothing to the data sets without one"):
        shares_of(given, [5] * len(given))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("min_common: .nan", "min_common: input should be a finite number (got nan)"),
        ("min_common: 1.5", "min_common: input should be a valid integer, got a number with a fractional"),
        ("min_common: true", "min_common: input should be a number (got True)"),
        ("seed: .inf", "seed: input should be a finite number (got inf)"),
        ("pairs: [[]]", "pairs"),
        ("hidden: maybe", "hidden: input should be a valid boolean"),
        ("images: [1]", "images: input should be a text; put it in quotes (got [1])"),
        ("colour: red", "data set coco has no option 'colour'; its options: annotations, images"),
    ],
)
@pytest.mark.parametrize(
    ("load", "text", "key"),
    [
        (load_training, "stages: [{steps: 3, data: [CHOICE]}]", "stages.0.data.0"),
        (load_tuning, "steps: 3\nunlabelled: {root: u}\ndata: [OBJECT]", "data.0"),
        (
            load_tuning,
            "steps: 3\nunlabelled: {root: u}\nvalidation: {data: [CHOICE]}\n"
            "data: [{name: coco, root: x, objects: 1}]",
            "validation",
        ),
        (load_study, "sets: [CHOICE]", "sets.0"),
    ],
)
def test_options_of_loaders_are_checked_where_they_stand(
    tmp_path: Path, load: Callable[..., Any], text: str, key: str, option: str, message: str
) -> None:
    path = tmp_path / "run.yaml"
    where = "label: cats, split: val" if load is load_study else "root: cats"
    choice = f"{{name: coco, {where}, options: {{{option}}}"
    path.write_text(text.replace("CHOICE", choice + "}").replace("OBJECT", choice + ", objects: 1}"))
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {key}")
    assert message in str(caught.value)
