from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geoaware.features.refined import RefinedExtractor, blended, load_post_processor, shipped
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from tests.toys import Patches, noise

LITE_CHANNELS = (80, 112, 192, 112, 192, 320)


def random_network(grid: int = 13, channels: tuple[int, ...] = (18,), **info: object) -> PostProcessor:
    """A post-processor with random weights, by default for the toy extractor."""
    torch.manual_seed(grid)
    network = PostProcessor(channels, width=128, grid=grid)
    network.info = info
    return network.eval()


@pytest.mark.parametrize(("refined_grid", "plain_grid"), [(6, 6), (12, 5), (4, 9)])
@pytest.mark.parametrize("blend", [0.1, 0.5, 0.85])
def test_cosines_of_the_blend_are_the_weighted_mean_of_both(refined_grid, plain_grid, blend) -> None:
    torch.manual_seed(0)
    refined, plain = (
        torch.randn(2, channels, grid, grid) * torch.rand(2, 1, grid, grid) * 30
        for channels, grid in ((16, refined_grid), (7, plain_grid))
    )
    grid = max(refined_grid, plain_grid)

    def cosines(maps: torch.Tensor) -> torch.Tensor:
        large = F.interpolate(maps, size=(grid, grid), mode="bilinear").flatten(2)
        return F.cosine_similarity(large[0, :, :, None], large[1, :, None, :], dim=0)

    a, b = (blended(refined[row, None], plain[row, None], blend)[0] for row in (0, 1))
    assert a.shape == (23, grid, grid)
    expected = blend * cosines(refined) + (1 - blend) * cosines(plain)
    found = F.cosine_similarity(a.flatten(1)[:, :, None], b.flatten(1)[:, None, :], dim=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert a.permute(1, 2, 0).is_contiguous()


def test_shares_of_a_hand_made_blend() -> None:
    refined, plain = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([-2.0]).view(1, 1, 1, 1)
    found = blended(refined, plain, 0.36).flatten().tolist()
    assert found == pytest.approx([0.6 * 0.6, 0.6 * 0.8, -0.8])


def test_a_blend_of_one_is_the_network_alone() -> None:
    extractor, net = Patches().eval(), random_network(grid=20)
    plain = extractor(noise(60, 40, 0))
    found = RefinedExtractor(extractor, net)(noise(60, 40, 0))
    with torch.inference_mode():
        assert found.data.equal(net([level[None] for level in plain.levels])[0])
    assert found.extractor == net.refine(plain).extractor == f"patches(13, 9) + {net.identity}"
    assert found.levels == ()
    assert found.canvas == plain.canvas
    assert found.data.permute(1, 2, 0).is_contiguous()


def test_the_identity_tells_extractor_weights_and_blend_apart() -> None:
    extractor, other = Patches().eval(), Patches(13, 11).eval()
    net, changed = random_network(), random_network(grid=12)
    names = {
        RefinedExtractor(features, made, blend).identity
        for made in (net, changed)
        for features in (extractor, other)
        for blend in (0.5, 0.50001, 1.0)
    }
    assert len(names) == 12
    assert RefinedExtractor(extractor, net, 0.5).identity.endswith(" (blend 0.5)")
    assert RefinedExtractor(extractor, net).weights == net.weights_hash()


def test_the_network_is_put_to_work_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    net = PostProcessor((18,), width=128, grid=13, dropout=0.9).train()
    extractor = Patches().eval()
    refined, image = RefinedExtractor(extractor, net), noise(60, 40, 0)
    assert refined(image).data.equal(refined(image).data)


@pytest.mark.parametrize(
    ("refined_grid", "blend", "shape"), [(20, 1.0, (128, 20)), (20, 0.5, (146, 20)), (7, 0.5, (146, 13))]
)
def test_shape_is_that_of_the_maps(refined_grid, blend, shape) -> None:
    extractor = Patches().eval()
    refined = RefinedExtractor(extractor, random_network(grid=refined_grid), blend)
    data = refined(noise(60, 40, 0)).data
    assert (refined.layout.channels, refined.layout.grid) == shape == data.shape[:2]


def test_a_post_processor_for_other_features_is_refused() -> None:
    extractor = Patches().eval()
    RefinedExtractor(extractor, random_network(extractor="patches(13, 9)"))
    with pytest.raises(InputError, match=r"trained on features of patches\(9, 9\), not of patches\(13, 9\)"):
        RefinedExtractor(extractor, random_network(extractor="patches(9, 9)"))
    with pytest.raises(InputError, match=r"raw maps of 30 channels in all, patches gives 18"):
        RefinedExtractor(extractor, random_network(channels=(10, 20)))
    # As many channels, other maps: told by the first image.
    refined = RefinedExtractor(extractor, random_network(channels=(10, 8)))
    with pytest.raises(InputError, match=r"takes maps of \(10, 8\) channels, got \(18,\)"):
        refined(noise(60, 40, 0))


@pytest.mark.parametrize("blend", [0.0, -0.1, 1.01, math.nan])
def test_the_blend_is_a_share(blend) -> None:
    with pytest.raises(InputError, match=r"the blend must be 0 .* to 1 .* got"):
        RefinedExtractor(Patches().eval(), random_network(), blend)


def test_loading_from_a_folder_and_from_a_released_file(tmp_path, monkeypatch) -> None:
    net = random_network(extractor="patches(13, 9)")
    net.save_pretrained(tmp_path / "saved.pt")  # a folder, whatever its name
    saved = load_post_processor(tmp_path / "saved.pt")
    assert (saved.weights_hash(), saved.info) == (net.weights_hash(), {"extractor": "patches(13, 9)"})
    torch.save(net.state_dict(), tmp_path / "best.PTH")
    released = load_post_processor(str(tmp_path / "best.PTH"))
    torch.testing.assert_close(released.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert released.info == {}
    with pytest.raises(InputError, match=r"none.PTH: no such file"):
        load_post_processor(tmp_path / "none.PTH")


def test_shipped_ones_are_listed_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path)
    assert shipped() == {}
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path / "absent")
    assert shipped() == {}
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path)
    for name in ("b", "a"):
        random_network().save_pretrained(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert list(shipped().items()) == [("a", tmp_path / "a"), ("b", tmp_path / "b")]
