from __future__ import annotations

import torch
from torch import Tensor

from geoaware.method.losses import distillation_loss
from geoaware.method.matching import read_descriptors
from geoaware.method.post_processor import PostProcessor
from geoaware.training.post_processor.augment import Example, make_example
from geoaware.training.post_processor.config import Flips, Loss
from geoaware.training.post_processor.groups import Group
from geoaware.training.post_processor.step import Step, _unannotated, view_distillation
from tests.training.toy_sets import SCHEMA, image

SIZE, GRID = 64, 8


def example(flips: Flips | None = None) -> Example:
    images = (image("a", (0, 1, 2, 4)), image("b", (0, 2, 3, 4), size=(60, 90)))
    return make_example(Group("a>b", 3, images, ((0, 1),), SCHEMA), flips or Flips(), SIZE, GRID)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def random_maps(channels: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(len(example().views), channels, GRID, GRID)


def test_points_lie_about_the_object_and_away_from_its_keypoints() -> None:
    labels = example().labels[0]
    drawn = _unannotated(labels, GRID, generator())
    assert 2 < len(drawn) <= 32
    annotated = labels.xy[labels.visible]
    assert float(torch.cdist(drawn, annotated).min()) > 1.25
    low, high = annotated.amin(dim=0), annotated.amax(dim=0)
    assert bool(((drawn >= low - 1.5) & (drawn <= high + 1.5)).all())
    assert bool(((drawn >= 0) & (drawn <= GRID - 1)).all())


def test_every_view_is_searched_from_one_of_another_image() -> None:
    """The same draws, made by hand."""
    refined, plain = random_maps(6, 0), random_maps(9, 1)
    made, draws, total = example(), generator(), 0.0
    for target, (place, _) in enumerate(made.views):
        others = [row for row, (other, _) in enumerate(made.views) if other != place]
        source = others[int(torch.randint(len(others), (1,), generator=draws))]
        xy = _unannotated(made.labels[source], GRID, draws)
        ends = [read_descriptors(each[source], xy) for each in (refined, plain)]
        total += float(distillation_loss(ends[0], refined[target], ends[1], plain[target]))
    found = view_distillation(refined, plain, made, generator())
    torch.testing.assert_close(float(found), total / len(made.views), rtol=1e-5, atol=0)


def test_maps_that_agree_with_the_plain_ones_cost_nothing() -> None:
    plain = random_maps(9, 1)
    assert abs(float(view_distillation(plain * 2, plain, example(), generator()))) < 1e-5


def test_a_image_alone_has_nothing_to_be_searched_from() -> None:
    alone = Group("a", 0, (image("a", (0, 1, 2)),), ((0, 0),), SCHEMA)
    made = make_example(alone, Flips(), SIZE, GRID)
    maps = torch.randn(len(made.views), 4, GRID, GRID, requires_grad=True)
    found = view_distillation(maps, torch.randn(len(made.views), 5, GRID, GRID), made, generator())
    assert found.item() == 0
    found.backward()


def test_the_step_adds_it_with_its_weight_and_asks_for_plain_maps_only_then() -> None:
    asked = []

    def combine(levels: object, grid: int) -> Tensor:
        asked.append(grid)
        return random_maps(9, 1)

    torch.manual_seed(0)
    network = PostProcessor((3,), 128, GRID).eval()
    levels = [torch.randn(len(example().views), 3, 4, 4)]
    without, _ = Step(network, Loss(), 0, 1.0, combine)(levels, [example()])
    assert not asked
    total, losses = Step(network, Loss(distillation=0.5), 0, 1.0, combine)(levels, [example()])
    assert asked == [GRID]
    assert losses["distillation"].item() > 0.01
    torch.testing.assert_close(total, without + 0.5 * losses["distillation"])
    blended, _ = Step(network, Loss(), 0, 0.5, combine)(levels, [example()])
    assert asked == [GRID, GRID]
    assert abs((blended - without).item()) > 1e-3
