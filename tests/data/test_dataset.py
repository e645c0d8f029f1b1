from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from geoaware.data import LOADERS, load, options
from geoaware.data.dataset import with_keypoints
from geoaware.evaluation.predictions import hash_pairs
from geoaware.method.keypoints import Schema
from geoaware.runs.errors import InputError
from tests.training.toy_sets import SCHEMA, data_set, image, pairs_of

# Ids 0 and 1 are ears, 2 and 3 eyes, 4 the nose.
ALL, EARS, RIGHT = image("all"), image("ears", (0, 1, 4)), image("right", (1, 3))
DATA = data_set(pairs_of([ALL, EARS, RIGHT]))


def test_others_become_invisible_and_nothing_else_changes() -> None:
    found = with_keypoints(DATA, ["right ear", "nose"])
    assert found.schemas == DATA.schemas
    assert [pair.id for pair in found.pairs] == [pair.id for pair in DATA.pairs]
    assert [pair.common_ids for pair in found.pairs] == [(1, 4), (1,), (1, 4), (1,), (1,), (1,)]
    for new, old in zip(found.images, DATA.images, strict=True):
        assert new.keypoints.ids == old.keypoints.ids == (0, 1, 2, 3, 4)
        assert new.keypoints.xy.equal(old.keypoints.xy)
        assert replace(new, keypoints=old.keypoints) == old
    assert hash_pairs(found.pairs) != hash_pairs(DATA.pairs), "predictions of the two must not be mixed up"
    assert found.notes == ("restricted to the keypoints right ear, nose: 6 of 6 pairs show one",)
    # What was given is as it was.
    assert DATA.pairs[0].common_ids == (0, 1, 4)


def test_images_stay_shared() -> None:
    found = with_keypoints(DATA, ["left ear"])
    assert found.pairs[0].source is found.pairs[1].target


def test_pairs_without_a_common_keypoint_go() -> None:
    found = with_keypoints(DATA, ["left ear", "left eye"])
    assert [pair.id for pair in found.pairs] == ["all>ears", "ears>all"]
    assert found.notes[-1].endswith("2 of 6 pairs show one")


def test_the_geometry_aware_subset_is_that_of_the_kept_keypoints() -> None:
    source, target = DATA.pairs[0].source.keypoints, DATA.pairs[0].target.keypoints
    assert SCHEMA.geometry_aware_ids(source, target) == (0, 1)
    kept = with_keypoints(DATA, ["left ear", "nose"]).pairs[0]
    assert SCHEMA.geometry_aware_ids(kept.source.keypoints, kept.target.keypoints) == ()


def test_names_are_looked_up_in_each_category() -> None:
    mixed = data_set([*DATA.pairs, *pairs_of([image(name, category="bird") for name in "xy"])])
    mixed.schemas["bird"] = Schema(("beak", "left ear", "right ear", "tail", "crest"))  # type: ignore[index]
    found = with_keypoints(mixed, ["left ear", "tail"])
    assert {(pair.category, pair.common_ids) for pair in found.pairs} == {("cat", (0,)), ("bird", (1, 3))}


def test_names_that_cannot_be() -> None:
    known = "its keypoints: left ear, right ear, left eye, right eye, nose"
    with pytest.raises(InputError, match=f"toy, split trn: there is no keypoint 'tail'; {known}"):
        with_keypoints(DATA, ["nose", "tail"])
    with pytest.raises(InputError, match=f"toy, split trn: no keypoint is named; {known}"):
        with_keypoints(DATA, [])
    apart = data_set(pairs_of([image("a", (0, 1)), image("b", (1, 2))]))
    with pytest.raises(
        InputError, match="none of 2 pairs shows one of the keypoints left ear, left eye in both"
    ):
        with_keypoints(apart, ["left ear", "left eye"])


def test_a_loader_is_imported_when_its_data_set_is_asked_for() -> None:
    code = (
        "import sys, geoaware.data as data; data.options('pairs'); "
        "print(*sorted(name for name in sys.modules if name.startswith('geoaware.data.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needed = ("dataset", "exif", "fields", "files", "images", "masks", "names", "pairs")
    assert done.stdout.split() == [f"geoaware.data.{name}" for name in needed]


def test_options_of_every_loader() -> None:
    assert {name: options(name) for name in LOADERS} == {
        "spair71k": ("categories", "layout"),
        "pf-pascal": ("pairs",),
        "pf-willow": ("pairs",),
        "ap10k": ("benchmark", "built", "images"),
        "spair-u": ("categories", "images"),
        "cub": ("pairs", "across", "categories", "seed"),
        "awa-pose": ("pairs", "across", "categories", "seed"),
        "tss": ("categories", "step"),
        "soco": ("match", "categories"),
        "coco": ("annotations", "images", "masks", "pairs", "min_common", "across", "hidden", "seed", "exif"),
        "pairs": ("pairs", "images", "exif"),
    }


def test_what_the_system_refuses_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = PermissionError(13, "Permission denied", str(tmp_path / "SPair"))

    def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr(Path, "stat", refuse)
    for name in LOADERS:
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
            load(name, tmp_path / "SPair", "test")
