"""The weights that come with the package: whole, documented, and worth having."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoaware import data
from geoaware.evaluation.predict import PredictSettings, choose_pairs, matching_settings, predict
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.score import score_file
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
    assert {"familiar", "kinds", "training", "figures", "data", "choices", "licence"} <= set(network.info)
    assert len(network.info["familiar"]) == len(network.shape.keypoints)
    assert (folder / "README.md").read_text(encoding="utf-8") == network.card()


@pytest.mark.parametrize("kind", [PostProcessor, TunedNetwork])
def test_a_folder_of_the_same_name_is_meant_with_a_separator_or_as_a_path_only(
    kind: type[PostProcessor] | type[TunedNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_hash = kind.from_pretrained("lite").weights_hash()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite").mkdir()
    assert kind.from_pretrained("lite").weights_hash() == shipped_hash
    for place in ("./lite", str(tmp_path / "lite"), Path("lite")):
        with pytest.raises(InputError, match=r"lite/config\.json: (no such file|cannot be read)"):
            kind.from_pretrained(place)


def test_the_preset_of_the_tuned_network_has_no_post_processor() -> None:
    matcher = Matcher.from_pretrained("lite-tuned", device="cpu")
    assert matcher.post_processor is None
    assert matcher.extractor.name == "efficientnet-lite0-tuned"
    assert matcher.pose == "flip"


def test_the_preset_brings_it_and_the_bare_extractor_does_not() -> None:
    assert Matcher.from_pretrained("lite", device="cpu").post_processor is not None
    assert Matcher.from_pretrained(PRESETS["lite"], device="cpu").post_processor is None


def evaluated(name: str, case: tuple[str, str, str, str, dict[str, object]], out: Path) -> PCKResult:
    loader, folder, split, protocol, options = case
    pairs = choose_pairs(data.load(loader, shared(folder), split, **options), 60)
    matcher = Matcher.from_pretrained(name, device="cpu")
    matcher.settings = matching_settings(
        matcher.extractor.name, protocol, post_processor=matcher.post_processor
    )
    return score_file(predict(pairs, matcher, out / f"{name}.jsonl", PredictSettings(protocol=protocol)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "gain"),
    [
        (("coco", "lspet", "val", "paper", {"pairs": 100}), 0.03),
        (("coco", "quaternius", "val", "paper", {"pairs": 20}), 0.1),
        (("pf-willow", "PF-dataset-WILLOW", "test", "pf-willow", {}), -0.03),
    ],
    ids=["people", "quadrupeds", "other objects"],
)
def test_it_helps_where_it_was_taught_and_does_no_harm_elsewhere(
    case: tuple[str, str, str, str, dict[str, object]], gain: float, tmp_path: Path
) -> None:
    """Sixty pairs are few: the margins are wide. The full figures are those of the model card."""
    names = ("lite", "lite-tuned", PRESETS["lite"])
    refined, tuned, plain = (evaluated(name, case, tmp_path).value(0.1) for name in names)
    assert refined > plain + gain
    assert tuned > plain + 2 * gain
