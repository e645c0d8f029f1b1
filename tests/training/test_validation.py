from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geoaware.data import DataSet, load
from geoaware.evaluation.predict import predict
from geoaware.evaluation.score import score_file
from geoaware.features import Extractor, load_extractor
from geoaware.features.refined import RefinedExtractor
from geoaware.matcher import Matcher
from geoaware.method.geometry import Canvas
from geoaware.method.keypoints import Schema
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import AnnotatedImage, FeatureMap
from geoaware.runs.progress import silent
from geoaware.store.feature_store import CachedExtractor, FeatureStore
from geoaware.training.post_processor.features import StoredFeatures, complete
from geoaware.training.validation import RecentMaps, Score, validate
from tests.training.tiny import CHANNELS, EXTRACTOR
from tests.training.toy_sets import image

pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    torch.set_num_threads(1)
    return load_extractor("efficientnet-lite0", device="cpu", **EXTRACTOR)


@pytest.fixture(scope="module")
def sets(data: Path) -> list[DataSet]:
    return [load("coco", data, "train", pairs=5), load("coco", data, "val")]


@pytest.fixture(scope="module")
def store(extractor: Extractor, sets: list[DataSet], cache: Path) -> FeatureStore:
    store = FeatureStore.of(cache, extractor)
    complete(store, extractor, [each.path for data in sets for each in data.images], ["identity"], silent)
    return store


def test_a_manifest_that_a_killed_run_left_behind_the_files_is_brought_up_to_date(
    extractor: Extractor, store: FeatureStore, sets: list[DataSet]
) -> None:
    manifest, paths = store.folder / "manifest.json", [each.path for data in sets for each in data.images]
    manifest.unlink(missing_ok=True)
    complete(store, extractor, paths, ["identity"], silent)
    assert json.loads(manifest.read_text())["pictures"] == len(set(paths))
    before = manifest.stat()
    complete(store, extractor, paths, ["identity"], silent)
    assert manifest.stat() == before


@pytest.fixture(scope="module")
def network() -> PostProcessor:
    torch.manual_seed(1)
    return PostProcessor(CHANNELS, width=128, grid=16, dropout=0.5)


def maker(
    extractor: Extractor, store: FeatureStore, network: PostProcessor, blend: float = 1.0
) -> Callable[[AnnotatedImage], FeatureMap]:
    refined, features = RefinedExtractor(extractor, network, blend), StoredFeatures(store)
    return lambda of: refined.feature_map(features.levels(of.path), of.size)


@pytest.mark.parametrize(
    ("settings", "alpha", "blend"),
    [
        (MatchSettings(), 0.3, 1.0),
        (MatchSettings(window=3, temperature=0.1), 0.25, 1.0),
        (MatchSettings(window=5, inside_picture=True, interpolate=True), 0.35, 0.6),
    ],
)
def test_figures_are_those_of_an_evaluation_without_pose_alignment(
    settings: MatchSettings, alpha: float, blend: float, extractor, sets, store, network, tmp_path: Path
) -> None:
    found = validate(maker(extractor, store, network, blend), sets, settings, alpha)
    cached = CachedExtractor(extractor, store)
    matcher = Matcher(cached, settings, pose="off", post_processor=network, blend=blend)
    for data, score in zip(sets, found, strict=True):
        result = score_file(predict(data, matcher, tmp_path / f"{data.split}.jsonl"), alphas=[alpha], draws=0)
        assert score.standard == pytest.approx(result.value(alpha, "per_image"))
        assert score.geometry_aware == pytest.approx(result.value(alpha, "per_image", geometry_aware=True))
        assert 0 < score.standard < 1
        assert score.standard != score.geometry_aware


def score(data: DataSet, extractor: Extractor, store: FeatureStore, network: PostProcessor) -> Score:
    (found,) = validate(maker(extractor, store, network), [data], MatchSettings(), 0.1)
    return found


def test_the_threshold_is_what_the_data_set_takes_it_from(sets, extractor, store, network) -> None:
    """Shares of the image are wider than shares of the object's box."""
    box = score(sets[1], extractor, store, network)
    whole = score(replace(sets[1], threshold_base="image"), extractor, store, network)
    assert whole.standard > box.standard


def test_without_geometry_aware_keypoints_there_is_no_such_figure(sets, extractor, store, network) -> None:
    names = sets[1].schemas["cat"].names
    plain = replace(sets[1], schemas=dict.fromkeys(sets[1].schemas, Schema(names)))
    found, wanted = (score(data, extractor, store, network) for data in (plain, sets[1]))
    assert math.isnan(found.geometry_aware)
    assert found.standard == wanted.standard


def test_maps_are_kept_while_their_bytes_fit() -> None:
    """Maps of 4 kB each, in room for two and a half; the raw maps are let go."""
    made: list[str] = []

    def make(of: AnnotatedImage) -> FeatureMap:
        made.append(of.id)
        return FeatureMap(torch.zeros(10, 10, 10), Canvas(*of.size, 20), "toy", (torch.zeros(999, 9, 9),))

    maps = RecentMaps(make, room=10_000)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert maps(image(name)).levels == ()
        assert maps.bytes <= 10_000
    assert made == ["a", "b", "c", "b"], "b was used the longest ago when c came"
    maps(image("b", size=(30, 10)))
    assert made[-1] == "b", "of another size"


def test_a_map_larger_than_the_room_is_given_all_the_same() -> None:
    maps = RecentMaps(lambda _: FeatureMap(torch.ones(10, 10, 10), Canvas(20, 10, 20), "toy"), room=1)
    for name in "aab":
        assert maps(image(name)).data.sum() == 1000
    assert maps.bytes == 4000
