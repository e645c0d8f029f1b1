"""The weights that come with the package: whole, documented, and worth having."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from torch import Tensor

from geoaware import data
from geoaware.data import DataSet
from geoaware.evaluation.predict import PredictSettings, choose_pairs, predict
from geoaware.evaluation.score import score_file
from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.features.refined import shipped
from geoaware.features.tuned import SHIPPED as TUNED
from geoaware.features.tuned import TunedNetwork
from geoaware.matcher import Matcher
from geoaware.method.post_processor import PostProcessor
from geoaware.presets import PRESETS
from geoaware.runs.errors import InputError
from tests.shared_data import shared


@pytest.mark.parametrize("name", shipped())
def test_it_is_small_and_says_where_it_comes_from(name: str) -> None:
    folder = shipped()[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 16e6
    network = PostProcessor.from_pretrained(name)
    assert {"extractor", "matching", "training", "figures", "data", "command", "licence"} <= set(network.info)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == network.card()


@pytest.mark.parametrize("folder", sorted(TUNED.iterdir()), ids=lambda folder: folder.name)
def test_tuned_weights_are_small_and_say_where_they_come_from(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) < 16e6
    network = TunedNetwork.from_pretrained(folder.name)
    assert {"training", "figures", "data", "choices", "licence"} <= set(network.info)
    assert (folder / "README.md").read_text(encoding="utf-8") == network.card()


@pytest.mark.parametrize(("kind", "name"), [(PostProcessor, "lite-frozen"), (TunedNetwork, "lite")])
def test_a_folder_of_the_same_name_is_meant_with_a_separator_or_as_a_path_only(
    kind: type[PostProcessor] | type[TunedNetwork], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_hash = kind.from_pretrained(name).weights_hash()
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert kind.from_pretrained(name).weights_hash() == shipped_hash
    for place in (f"./{name}", str(tmp_path / name), Path(name)):
        with pytest.raises(InputError, match=rf"{name}/config\.json: (no such file|cannot be read)"):
            kind.from_pretrained(place)


def test_lite_is_the_tuned_network_without_a_post_processor() -> None:
    matcher = Matcher.from_pretrained("lite", device="cpu")
    assert matcher.post_processor is None
    assert matcher.extractor.name == "efficientnet-lite0-tuned"
    assert matcher.pose == "flip"


def test_the_old_name_of_lite_says_the_new_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="geoaware"):
        matcher = Matcher.from_pretrained("lite-tuned", device="cpu")
    assert matcher.identity == Matcher.from_pretrained("lite", device="cpu").identity
    assert [record.getMessage() for record in caplog.records] == [
        "lite-tuned is now called lite; the old name goes with the next release"
    ]


def test_lite_frozen_brings_its_post_processor_and_the_bare_extractor_does_not() -> None:
    assert Matcher.from_pretrained("lite-frozen", device="cpu").post_processor is not None
    assert Matcher.from_pretrained(PRESETS["lite-frozen"], device="cpu").post_processor is None


def among_few(dataset: DataSet, count: int) -> DataSet:
    """The pairs among so many images of each category, so that few images are to be extracted."""
    ids = defaultdict[str, set[str]](set)
    for pair in dataset.pairs:
        ids[pair.category] |= {pair.source.id, pair.target.id}
    few = {each for found in ids.values() for each in Random(0).sample(sorted(found), count)}
    return replace(dataset, pairs=tuple(p for p in dataset.pairs if {p.source.id, p.target.id} <= few))


def remember(matchers: Sequence[Matcher]) -> None:
    """Let the network that these have in common run once for each image, whatever refines its features."""
    known = dict[bytes, tuple[Tensor, ...]]()
    for matcher in matchers:
        (network,) = (each for each in matcher.extractor.modules() if isinstance(each, EfficientNetLite))
        network.levels = partial(_recalled, network.levels, known)  # type: ignore[method-assign]


def _recalled(levels: Callable[..., Any], known: dict[bytes, Any], pixels: Tensor) -> tuple[Tensor, ...]:
    key = sha256(pixels.numpy().tobytes()).digest()
    if key not in known:
        known[key] = levels(pixels)
    return known[key]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "images", "gain"),
    [
        (("coco", "lspet", "val", "paper", {"pairs": "all"}), 12, 0.03),
        (("coco", "quaternius", "val", "paper", {"pairs": "all"}), 4, 0.1),
        (("pf-willow", "PF-dataset-WILLOW", "test", "pf-willow", {}), 7, -0.03),
    ],
    ids=["people", "quadrupeds", "other objects"],
)
def test_it_helps_where_it_was_taught_and_does_no_harm_elsewhere(
    case: tuple[str, str, str, str, dict[str, object]], images: int, gain: float, tmp_path: Path
) -> None:
    """Sixty pairs are few: the margins are wide. The full figures are those of the model card."""
    loader, folder, split, protocol, options = case
    pairs = choose_pairs(among_few(data.load(loader, shared(folder), split, **options), images), 60)
    assert len(pairs.pairs) == 60
    refined, tuned, plain = (
        Matcher.from_pretrained(name, device="cpu")
        for name in ("lite-frozen", "lite", PRESETS["lite-frozen"])
    )
    remember([refined, plain])

    def pck(matcher: Matcher, name: str) -> float:
        file = predict(pairs, matcher, tmp_path / name, PredictSettings(protocol=protocol))
        return score_file(file).value(0.1)

    base = pck(plain, "plain.jsonl")
    assert pck(refined, "refined.jsonl") > base + gain
    assert pck(tuned, "tuned.jsonl") > base + 2 * gain
