from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from geoaware.features.efficientnet_lite import imagenet_network
from geoaware.features.one import SHARE, One, OneNetwork, OneSettings
from geoaware.features.tuned import TunedNetwork, TunedShape
from geoaware.runs.errors import InputError

pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module")
def network() -> OneNetwork:
    torch.manual_seed(0)
    shape = TunedShape(descriptor=8, width=16, context=(1,), detail=1, plain=12)
    made = OneNetwork(shape, imagenet_network(weights=False)).eval()
    torch.nn.init.normal_(made.correction.weight, std=0.05)
    return made


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_descriptors_are_unit_and_mix_the_similarities_by_presence(network: OneNetwork) -> None:
    trained, plain, presence = network.parts(images())
    joined, logit = network(images())
    assert joined.shape == (2, 8 + 12, 8, 8)
    assert torch.equal(logit, presence)
    torch.testing.assert_close(torch.linalg.vector_norm(joined, dim=1), torch.ones(2, 8, 8))
    share = SHARE * torch.sigmoid(presence)[:, 0]
    one, other = share[0, 2, 3], share[1, 4, 5]
    wanted = (one * other).sqrt() * (trained[0, :, 2, 3] @ trained[1, :, 4, 5])
    wanted += ((1 - one) * (1 - other)).sqrt() * (plain[0, :, 2, 3] @ plain[1, :, 4, 5])
    assert float(joined[0, :, 2, 3] @ joined[1, :, 4, 5]) == pytest.approx(float(wanted), abs=1e-5)


@torch.inference_mode()
def test_where_nothing_is_that_was_trained_on_only_plain_descriptors_count(network: OneNetwork) -> None:
    trained, plain, _ = network.parts(images())
    joined = network.joined(trained, plain, torch.full((2, 1, 8, 8), -30.0))
    assert joined[:, :8].abs().max() < 2e-3
    torch.testing.assert_close(joined[:, 8:], plain, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_fixed_blocks_give_the_same_but_for_bfloat16_and_no_gradient(network: OneNetwork) -> None:
    before = network.parts(images())
    network.fixed = 2
    try:
        after = network.parts(images())
    finally:
        network.fixed = -1
    for a, b in zip(before[:2], after[:2], strict=True):
        assert float(F.cosine_similarity(a, b, dim=1).mean()) > 0.98


@torch.inference_mode()
def test_folded_is_the_same(network: OneNetwork) -> None:
    torch.testing.assert_close(network.folded()(images())[0], network(images())[0], atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_saved_and_read_again(network: OneNetwork, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    again = OneNetwork.from_pretrained(tmp_path)
    torch.testing.assert_close(again(images())[0], network(images())[0], atol=2e-2, rtol=0)
    extractor = One("one", OneSettings(str(tmp_path), canvas=64), again)
    found = extractor.combine_on(extractor.levels(images()), 6)
    assert found.shape == (2, 20, 6, 6)
    with pytest.raises(InputError, match="cannot be read"):
        OneNetwork.from_pretrained(tmp_path / "nowhere")


@torch.inference_mode()
def test_a_tuned_network_gives_its_descriptors(network: OneNetwork) -> None:
    torch.manual_seed(0)
    shape = TunedShape(descriptor=8, width=16, context=(1,), detail=1, keypoints=(3,))
    tuned = TunedNetwork(shape, imagenet_network(weights=False)).eval()
    made = OneNetwork.from_tuned(tuned, plain=12).eval()
    wanted, presence = tuned(images())
    trained, _, logit = made.parts(images())
    torch.testing.assert_close(trained, wanted)
    torch.testing.assert_close(logit, presence)
    assert made.shape.plain == 12
    assert made.shape.keypoints == ()
