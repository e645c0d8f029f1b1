"""What other programs import by old names, and by names that are promised to stay."""

from __future__ import annotations

import importlib
import sys

import pytest

import geoaware
from geoaware._moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_gives_the_module_at_its_new_place_and_warns(old: str) -> None:
    if old == "demo":
        pytest.importorskip("gradio")
    sys.modules.pop(f"geoaware.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"geoaware.{old} is now geoaware.{MOVED[old]}"):
        module = importlib.import_module(f"geoaware.{old}")
    new = importlib.import_module(f"geoaware.{MOVED[old]}")
    names = [each for each in vars(new) if not each.startswith("__")]
    assert module.__doc__ == new.__doc__
    assert all(getattr(module, each) is getattr(new, each) for each in names)


def test_what_lies_inside_an_old_path_is_the_same_object() -> None:
    with pytest.warns(DeprecationWarning, match=r"metrics\.pck is now"):
        from geoaware.metrics.pck import pck as inside
    from geoaware.metrics import pck as old

    from geoaware.method.metrics.pck import pck as new

    assert inside is old is new


def test_an_unknown_name_is_still_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("geoaware.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        _ = geoaware.nothing


def test_old_names_of_values_warn() -> None:
    from geoaware.data import images
    from geoaware.method import types

    with pytest.warns(DeprecationWarning, match="Picture is now AnnotatedImage"):
        assert types.Picture is types.AnnotatedImage
    with pytest.warns(DeprecationWarning, match="PictureLike is now ImageLike"):
        assert images.PictureLike is images.ImageLike


@pytest.mark.filterwarnings("error")
def test_names_that_other_programs_import() -> None:
    from geoaware import alignment, geometry, keypoints, losses, matching, metrics

    assert geometry.Canvas is geoaware.Canvas
    for module, names in {
        matching: "similarity argmax soft_argmax window_soft_argmax kernel_soft_argmax",
        alignment: "instance_matching_distance mutual_nn_distance",
        losses: "contrastive_loss dense_loss",
        metrics: "pck error_types",
        keypoints: "Schema",
        geoaware: "PostProcessor Matcher load_extractor match score",
    }.items():
        assert all(callable(getattr(module, name)) for name in names.split())
