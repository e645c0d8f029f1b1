from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.predictions import Header
from geoaware.evaluation.protocols import FOR_BASE, PROTOCOLS, Protocol, get_protocol
from geoaware.evaluation.score import score_file
from geoaware.matcher import Matcher
from geoaware.method.geometry import Canvas
from geoaware.method.types import AnnotatedImage, Keypoints
from geoaware.runs.errors import InputError
from tests.evaluation.tiny import Sided, tiny_dataset

POINTS = Keypoints(
    (0, 1, 2), torch.tensor([[10.0, 20.0], [40.0, 25.0], [0.0, 90.0]]), torch.tensor([True, True, False])
)
PICTURE = AnnotatedImage("p", Path("p.png"), (200, 150), "cat", POINTS, box=(10, 20, 90, 120))


def test_the_eight():
    assert list(PROTOCOLS) == [
        *("paper", "released", "dift", "pf-pascal", "pf-willow", "cub", "tss", "soco"),
    ]
    rules = {name: (each.base, each.strict, each.averaging, each.flip) for name, each in PROTOCOLS.items()}
    assert rules == {
        "paper": ("box", True, "per_image", "pixel"),
        "released": ("box", True, "per_image", "edge"),
        "dift": ("box", False, "per_point", "pixel"),
        "pf-pascal": ("image", True, "per_image", "pixel"),
        "pf-willow": ("keypoints", False, "per_image", "pixel"),
        "cub": ("box", False, "per_image", "pixel"),
        "tss": ("image", False, "category_per_image", "pixel"),
        "soco": ("box", True, "category_per_image", "pixel"),
    }
    assert get_protocol("tss").alphas == (0.05,)
    assert get_protocol("paper").alphas == (0.01, 0.05, 0.1)
    assert get_protocol("pf-pascal").alphas == (0.05, 0.1, 0.15)
    assert set(FOR_BASE.values()) <= set(PROTOCOLS)


def test_threshold_bases_by_hand():
    assert get_protocol("paper").size(PICTURE) == 100
    assert get_protocol("pf-pascal").size(PICTURE) == 200
    # Between the two visible points: 30 wide, 5 high; the third does not count.
    assert get_protocol("pf-willow").size(PICTURE) == 30


def test_the_canvas_changes_no_comparison():
    canvas = Canvas(200, 150, 840)
    a, b = canvas.to_canvas([(10, 20), (40, 60)])
    assert float((a - b).norm()) / (100 * canvas.scale) == pytest.approx(50 / 100)


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        get_protocol("paper").strict = False  # type: ignore[misc]


def test_unknown():
    with pytest.raises(InputError, match="unknown protocol 'papr'; choose paper, released"):
        get_protocol("papr")


def test_no_box_and_no_extent():
    with pytest.raises(InputError, match=r"p: has no object box.*choose another protocol, such as pf-pascal"):
        get_protocol("paper").size(replace(PICTURE, box=None))
    alone = Keypoints((0,), torch.tensor([[1.0, 2.0]]), torch.tensor([True]))
    with pytest.raises(InputError, match=r"the keypoints that protocol pf-willow .* has no extent"):
        get_protocol("pf-willow").size(replace(PICTURE, keypoints=alone))


MINE = Protocol(
    "mine", base="keypoints", strict=False, alphas=(0.5, 0.25), averaging="per_point", inside_picture=True
)


def test_a_protocol_of_ones_own_stands_wherever_one_is_named(tmp_path: Path) -> None:
    """Its file is scored by its rules wherever it is read, and as matches in memory are."""
    dataset = tiny_dataset(tmp_path)
    path = predict(dataset, Matcher(Sided()), tmp_path / "mine.jsonl", PredictSettings(MINE))
    header = json.loads(path.read_text().splitlines()[0])
    assert header["protocol"] == "mine"
    assert header["settings"]["matching"]["inside_picture"] is True
    found, given = score_file(path, draws=0), score_file(path, MINE, draws=0)
    assert (found.protocol, found.alphas, found.averaging) == ("mine", (0.25, 0.5), "per_point")
    assert found.value(0.25) == given.value(0.25)
    known = replace(MINE, name="pf-willow", about=PROTOCOLS["pf-willow"].about, averaging="per_image")
    same = predict(
        dataset,
        Matcher(Sided()),
        tmp_path / "willow.jsonl",
        PredictSettings(replace(known, alphas=(0.05, 0.1, 0.15))),
    )
    assert "protocol" not in json.loads(same.read_text().splitlines()[0])["settings"]
    assert score_file(same, draws=0, alphas=(0.25,)).value(0.25, "per_point") == found.value(0.25)
    with pytest.raises(InputError, match="was predicted under protocol mine, not paper"):
        score_file(path, "paper")
    with pytest.raises(InputError, match="was predicted under protocol mine, not mine with these rules"):
        score_file(path, replace(MINE, strict=True))


def test_a_protocol_with_the_name_of_another_is_refused() -> None:
    with pytest.raises(InputError, match="another protocol is called 'paper' already; choose another name"):
        PredictSettings(Protocol("paper", base="image"))
    assert get_protocol(PROTOCOLS["paper"]) is PROTOCOLS["paper"]


@pytest.mark.parametrize("given", [{"base": "moon"}, {"colour": 1}, {"alphas": 3}])
def test_damaged_rules_of_a_file_are_named(given: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the protocol"):
        _ = Header("mine", settings={"protocol": given}).rules
    with pytest.raises(InputError, match="unknown protocol 'mine'"):
        _ = Header("mine").rules
