from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoaware.method import matching
from geoaware.method.geometry import Canvas
from geoaware.method.matching import (
    MatchSettings,
    argmax,
    cycle_error,
    descriptors,
    kernel_soft_argmax,
    match,
    positions,
    similarity,
    soft_argmax,
    window_mass,
    window_soft_argmax,
)
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import NotFiniteError
from tests.reference import matching as slow

MODES = ["argmax", "soft", "window", "kernel"]


def maps(seed: int, q: int = 3, h: int = 9, w: int = 7, c: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(q, c, generator=generator), torch.randn(c, h, w, generator=generator)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(MODES), st.sampled_from([1, 3, 5]), st.sampled_from([0.02, 0.2])
)
def test_fast_equals_slow(seed: int, mode, window: int, temperature: float) -> None:
    queries, target = maps(seed)
    sim = similarity(queries, target)
    torch.testing.assert_close(sim.double(), slow.similarity(queries, target), atol=1e-5, rtol=0)
    chosen = MatchSettings(mode, window, temperature, sigma=2.0)
    expected = slow.positions(sim, mode, window, temperature, 2.0)
    torch.testing.assert_close(positions(sim, chosen).double(), expected, atol=1e-5, rtol=0)
    mass = torch.tensor(slow.window_mass(sim, window, temperature))
    torch.testing.assert_close(window_mass(sim, window, temperature), mass, atol=1e-5, rtol=0)


def test_released_window_equals_its_slow_form() -> None:
    sim = similarity(*maps(4))
    fast = window_soft_argmax(sim, 3, 0.2, outside="zero")
    torch.testing.assert_close(fast.double(), slow.positions(sim, "zero", 3, 0.2, 0), atol=1e-5, rtol=0)


def test_by_hand() -> None:
    sim = torch.zeros(1, 2, 3)
    sim[0, 1, 2] = 0.02 * torch.tensor(3.0).log()  # weight 3 against five ones
    assert argmax(sim).tolist() == [[2.0, 1.0]]
    # x: (0 + 1 + 2 + 0 + 1 + 2*3) / 8, y: (1 + 1 + 3) / 8
    torch.testing.assert_close(soft_argmax(sim), torch.tensor([[10 / 8, 5 / 8]]))
    torch.testing.assert_close(window_mass(sim, window=1), torch.tensor([3 / 8]))
    # a 3x3 window around (2, 1) holds columns 1 and 2: weights 1, 1, 1, 3
    torch.testing.assert_close(
        window_soft_argmax(torch.cat([sim, sim], 1)[:, :2], 1), torch.tensor([[2.0, 1.0]])
    )


@pytest.mark.parametrize("window", [7, 8, 9, 16, 17])
def test_window_as_wide_as_the_map_is_soft_argmax(window: int) -> None:
    sim = torch.randn(4, 7, 7)
    torch.testing.assert_close(window_soft_argmax(sim, window), soft_argmax(sim))


def test_window_of_one_is_argmax() -> None:
    sim = torch.randn(4, 9, 7)
    torch.testing.assert_close(window_soft_argmax(sim, 1), argmax(sim))


def test_weak_matches_are_pulled_to_the_middle_only_by_the_released_window() -> None:
    sim = torch.full((1, 31, 31), -0.1)
    sim[0, 1, 1] = 0.05
    assert (window_soft_argmax(sim, 3) - 1).abs().max() < 0.05
    assert (window_soft_argmax(sim, 3, outside="zero") - 1).abs().min() > 5


@pytest.mark.parametrize("mode", ["argmax", "window", "kernel"])
def test_a_shift_is_recovered_to_a_tenth_of_a_patch(mode) -> None:
    torch.manual_seed(0)
    features = torch.nn.functional.avg_pool2d(torch.randn(1, 256, 60, 60), 3, stride=1, padding=1)[0]
    cells = torch.tensor([[20, 20], [30, 25], [40, 33]])
    queries = features[:, cells[:, 1], cells[:, 0]].T
    whole = torch.roll(features, shifts=(4, 7), dims=(1, 2))
    found = positions(similarity(queries, whole), MatchSettings(mode))
    assert (found - (cells + torch.tensor([7, 4]))).abs().max() < 0.1
    if mode == "window":
        halfway = (whole + torch.roll(whole, 1, dims=2)) / 2
        found = positions(similarity(queries, halfway), MatchSettings(mode, temperature=0.1))
        assert (found - (cells + torch.tensor([7.5, 4]))).abs().max() < 0.1


@pytest.mark.parametrize("function", [soft_argmax, window_soft_argmax, kernel_soft_argmax])
def test_gradients(function) -> None:
    sim = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: function(s, temperature=0.5), (sim,))


@pytest.mark.parametrize("function", [argmax, soft_argmax, window_soft_argmax, kernel_soft_argmax])
def test_no_query_gives_no_position(function) -> None:
    assert function(torch.zeros(0, 4, 4)).shape == (0, 2)
    assert similarity(torch.zeros(0, 3), torch.zeros(3, 4, 4)).shape == (0, 4, 4)
    assert window_mass(torch.zeros(0, 4, 4)).shape == (0,)


@pytest.mark.usefixtures("unchecked_types")
def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        window_soft_argmax(torch.zeros(1, 9, 9), window=4)
    with pytest.raises(ValueError, match="at least one cell"):
        argmax(torch.zeros(1, 0, 4))
    with pytest.raises(ValueError, match="unknown mode"):
        MatchSettings(mode="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        MatchSettings(temperature=0)
    with pytest.raises(ValueError, match="outside"):
        window_soft_argmax(torch.zeros(1, 9, 9), 3, outside="drop")  # type: ignore[arg-type]


def test_a_zero_descriptor_is_like_nothing() -> None:
    assert similarity(torch.zeros(1, 3), torch.ones(3, 2, 2)).abs().sum() == 0


def feature_map(data: torch.Tensor, width: int, height: int, size: int) -> FeatureMap:
    return FeatureMap(data, Canvas(width, height, size), "toy")


def test_match_in_pixels_by_hand() -> None:
    # Every cell its own direction: the match of a cell in a shifted copy is exact under argmax.
    data = torch.eye(16).reshape(16, 4, 4)
    source = feature_map(data, 8, 8, 8)
    target = feature_map(torch.roll(data, 1, dims=2), 80, 80, 8)
    found = match(source, target, [(2.0, 2.0)], MatchSettings("argmax"))
    # Pixel 2 is in cell 1; its copy in column 2, row 1: canvas 2*2+1, 1*2+1, of an image 10 times as large.
    assert found.points.tolist() == [[50.0, 30.0]]
    assert found.cycle_error.tolist() == pytest.approx([((3 - 2) ** 2 * 2) ** 0.5 / 8])
    assert found.confidence.item() == pytest.approx(1.0)
    assert found.accepted(min_confidence=0.5, max_cycle_error=0.1).tolist() == [False]


def test_matches_stay_on_the_image_when_asked() -> None:
    torch.manual_seed(1)
    query = torch.randn(4)
    data = torch.randn(4, 8, 8) * 0.1
    data[:, 0, 3] = query  # in the padding of a landscape image
    source = feature_map(query[:, None, None].expand(4, 8, 8), 8, 8, 8)
    target = feature_map(data, 80, 40, 8)
    anywhere = match(source, target, [(4, 4)], MatchSettings("argmax"))
    inside = match(source, target, [(4, 4)], MatchSettings("argmax", inside_picture=True))
    assert anywhere.points[0, 1] < 0
    assert 0 <= inside.points[0, 1] <= 39


def test_interpolated_descriptor_is_the_mean_between_cell_centres() -> None:
    data = torch.arange(4.0).reshape(1, 1, 4).expand(1, 4, 4).contiguous()
    features = feature_map(data, 40, 40, 40)
    # cells are 10 wide, centres at 5, 15, 25, 35
    assert descriptors(features, [(10, 5), (15, 5)], interpolate=True)[:, 0].tolist() == pytest.approx(
        [0.5, 1.0]
    )
    assert descriptors(features, [(10, 5), (9.9, 5)])[:, 0].tolist() == [1.0, 0.0]


def test_maps_of_different_extractors_do_not_match() -> None:
    one = feature_map(torch.ones(1, 2, 2), 2, 2, 2)
    other = FeatureMap(one.data, one.canvas, "else")
    with pytest.raises(ValueError, match="same extractor"):
        match(one, other, [(0, 0)])


def test_no_points_match_to_nothing() -> None:
    one = feature_map(torch.ones(1, 2, 2), 2, 2, 2)
    found = match(one, one, [])
    assert len(found) == 0
    assert found.points.shape == (0, 2)
    assert cycle_error(one, one, [], []).shape == (0,)


@pytest.mark.parametrize("q", [0, 1, 10, 64, 65])
def test_similarity_does_not_depend_on_the_memory_layout(q: int) -> None:
    queries, target = maps(8, q=q, c=33)
    last = target[None].contiguous(memory_format=torch.channels_last)[0]
    torch.testing.assert_close(similarity(queries, last), similarity(queries, target), atol=1e-6, rtol=0)
    given = similarity(queries, last, last.norm(dim=0))
    torch.testing.assert_close(given, similarity(queries, target), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["argmax", "soft", "window", "kernel"])
def test_points_in_blocks_are_those_at_once(mode, monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(0))
    source, target = (feature_map(each, 90, 70, 90) for each in data)
    xy = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)) * 69
    settings = MatchSettings(mode=mode, window=5)
    whole = match(source, target, xy, settings)
    monkeypatch.setattr(matching, "_TOGETHER", 81 * 7)
    blocks = match(source, target, xy, settings)
    for name in ("points", "confidence", "cycle_error"):
        assert torch.allclose(getattr(whole, name), getattr(blocks, name), atol=1e-4), name


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize(("width", "height", "grid"), [(90, 60, 9), (50, 90, 6), (90, 90, 1)])
def test_many_points_are_found_where_few_are(
    interpolate: bool, width: int, height: int, grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = torch.randn(2, 6, grid, grid, generator=torch.Generator().manual_seed(grid))
    data[:, :, 0, 0] = 0  # a descriptor of no length
    source, target = (feature_map(each, width, height, 90) for each in data)
    xy = torch.rand(500, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([width, height])
    xy[:4] = torch.tensor([[0.0, 0.0], [width - 1, 0.0], [0.0, height - 1], [width - 1, height - 1]])
    chosen = MatchSettings(window=3, temperature=0.1, interpolate=interpolate, inside_picture=True)
    many = match(source, target, xy, chosen)
    monkeypatch.setattr(matching, "_MANY", 1000)
    few = match(source, target, xy, chosen)
    for name in ("points", "confidence", "cycle_error"):
        assert torch.allclose(getattr(many, name), getattr(few, name), atol=1e-4), name


def test_features_that_are_no_numbers_are_refused() -> None:
    good, bad = (feature_map(torch.full((2, 3, 3), value), 9, 9, 9) for value in (1.0, float("nan")))
    for source, target in ((good, bad), (bad, good)):
        with pytest.raises(NotFiniteError, match="are not finite"):
            match(source, target, [(1, 1)])


_MANY = """
import resource, torch
from geoaware.method.geometry import Canvas
from geoaware.method.matching import match
from geoaware.method.types import FeatureMap
torch.set_num_threads(1)
maps = [FeatureMap(torch.randn(8, 60, 60), Canvas(900, 700, 840), "toy") for _ in "ab"]
match(*maps, torch.rand(10, 2) * 600)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
match(*maps, torch.rand(20_000, 2) * 600)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_does_not_grow_with_the_points() -> None:
    done = subprocess.run([sys.executable, "-c", _MANY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300e6
