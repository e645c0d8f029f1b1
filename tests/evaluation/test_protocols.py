from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from geoaware.evaluation.protocols import FOR_BASE, PROTOCOLS, get_protocol
from geoaware.method.geometry import Canvas
from geoaware.method.types import AnnotatedImage, Keypoints
from geoaware.runs.errors import InputError

POINTS = Keypoints(
    (0, 1, 2), torch.tensor([[10.0, 20.0], [40.0, 25.0], [0.0, 90.0]]), torch.tensor([True, True, False])
)
PICTURE = AnnotatedImage("p", Path("p.png"), (200, 150), "cat", POINTS, box=(10, 20, 90, 120))


def test_the_five():
    assert list(PROTOCOLS) == ["paper", "released", "dift", "pf-pascal", "pf-willow"]
    rules = {name: (each.base, each.strict, each.averaging, each.flip) for name, each in PROTOCOLS.items()}
    assert rules == {
        "paper": ("box", True, "per_image", "pixel"),
        "released": ("box", True, "per_image", "edge"),
        "dift": ("box", False, "per_point", "pixel"),
        "pf-pascal": ("image", True, "per_image", "pixel"),
        "pf-willow": ("keypoints", False, "per_image", "pixel"),
    }
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
