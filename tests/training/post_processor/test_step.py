from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.method.post_processor import PostProcessor
from geoaware.training.post_processor.augment import Example, make_example
from geoaware.training.post_processor.config import Flips, Loss
from geoaware.training.post_processor.groups import Group
from geoaware.training.post_processor.step import Step, group_losses
from tests.reference.training import group_loss
from tests.training.toy_sets import SCHEMA, image

SIZE, GRID, WIDTH = 64, 8, 16
QUIET = Loss(noise=0.0)


def pair_group(number: int = 0) -> Group:
    images = (image("a", (0, 1, 2, 4)), image("b", (0, 2, 3, 4), size=(60, 90)))
    return Group("a>b", number, images, ((0, 1),), SCHEMA)


def image_group(number: int = 0) -> Group:
    """Four images, of which not all go together; the last shows nothing that a flip leaves in common."""
    seen = {"a": (0, 1, 2, 3, 4), "b": (0, 2, 3), "c": (1, 3, 4), "d": (0, 2)}
    images = tuple(image(name, ids, size=(70 + 9 * len(ids), 80)) for name, ids in seen.items())
    pairs = tuple(
        (i, j)
        for i, j in permutations(range(4), 2)
        if len({*images[i].keypoints.visible_ids} & {*images[j].keypoints.visible_ids}) >= 2
    )
    assert 0 < len(pairs) < 12
    return Group("a b c d", number, images, pairs, SCHEMA)


GROUPS = {"pair": pair_group, "images": image_group}


def random_maps(example: Example, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(len(example.views), WIDTH, GRID, GRID, requires_grad=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOSSES = {
    "paper": QUIET,
    "sum": QUIET.model_copy(update={"reduction": "sum"}),
    "window": QUIET.model_copy(update={"window": 3}),
    "warm": QUIET.model_copy(update={"temperature": 0.1}),
}


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("flips", [Flips(), Flips(double=0, single=0, self=0), Flips(double=0, self=2)])
def test_losses_and_gradients_are_those_of_single_terms(kind: str, loss: Loss, flips: Flips) -> None:
    group = GROUPS[kind]()
    example = make_example(group, flips, SIZE, GRID)
    maps = random_maps(example)
    scale = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    found = group_losses(maps, example, loss, scale, generator())
    row = {view: number for number, view in enumerate(example.views)}
    wanted = group_loss(
        lambda place, mirrored: maps[row[place, "flip" if mirrored else "identity"]],
        group.images, group.pairs, SCHEMA.partners, loss, flips, SIZE, GRID, scale,
    )  # fmt: skip
    torch.testing.assert_close(found, wanted)
    assert found[0] > 0.1
    assert found[1] > 0.1
    gradients = [torch.autograd.grad(sum(each), (maps, scale)) for each in (found, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert gradients[0][0].abs().amax(dim=(1, 2, 3)).min() > 0, "a map without a gradient"


def test_a_weight_of_nothing_leaves_out_the_term() -> None:
    example = make_example(pair_group(), Flips(), SIZE, GRID)
    maps, scale = random_maps(example), torch.tensor(2.0)
    dense, sparse = group_losses(maps, example, QUIET, scale, generator())
    for name, left in (("dense", sparse), ("sparse", dense)):
        values = group_losses(maps, example, QUIET.model_copy(update={name: 0.0}), scale, generator())
        assert values[name == "sparse"] == 0
        torch.testing.assert_close(sum(values), left)


def network(seed: int = 0) -> PostProcessor:
    torch.manual_seed(seed)
    return PostProcessor((12, 20), width=128, grid=GRID).eval()


def levels_of(*examples: Example) -> list[Tensor]:
    count = sum(len(example.views) for example in examples)
    torch.manual_seed(5)
    return [torch.randn(count, 12, 4, 4), torch.randn(count, 20, 6, 6)]


def test_several_groups_are_the_same_as_one_at_a_time() -> None:
    """Groups of 2, 3 and 5 common keypoints, two and four images: nothing is padded, nothing mixed up."""
    few = Group("few", 3, (image("x", (0, 1)), image("y", (0, 1, 4))), ((0, 1),), SCHEMA)
    all_of = Group("all", 4, (image("u"), image("v")), ((0, 1),), SCHEMA)
    examples = [
        make_example(each, Flips(), SIZE, GRID) for each in (few, image_group(7), all_of, pair_group())
    ]
    net = network()
    step = Step(net, Loss(dense=0.7, sparse=1.3), seed=2)
    levels = levels_of(*examples)

    def gradients(total: Tensor) -> list[Tensor]:
        net.zero_grad()
        total.backward()
        return [each.grad.clone() for each in net.parameters() if each.grad is not None]

    together, parts = step(levels, examples)
    assert together.shape == parts["dense"].shape == parts["sparse"].shape == (4,)
    assert not parts["dense"].requires_grad
    torch.testing.assert_close(together.detach(), 0.7 * parts["dense"] + 1.3 * parts["sparse"])
    whole = gradients(together.sum())
    alone, summed, start = [], None, 0
    for example in examples:
        end = start + len(example.views)
        loss, one = step([level[start:end] for level in levels], [example])
        alone.append((loss.detach(), one))
        found = gradients(loss.sum())
        summed = found if summed is None else [a + b for a, b in zip(summed, found, strict=True)]
        start = end
    torch.testing.assert_close(together.detach(), torch.cat([each for each, _ in alone]))
    torch.testing.assert_close(parts["dense"], torch.cat([each["dense"] for _, each in alone]))
    torch.testing.assert_close(whole, summed, atol=1e-5, rtol=1e-3)


def test_the_loss_of_blended_descriptors() -> None:
    """Cosines are 0.6 of the network's and 0.4 of the extractor's own; only the network has gradients."""
    example = make_example(pair_group(), Flips(), SIZE, GRID)
    levels, net = levels_of(example), network()

    def combine(given: Sequence[Tensor], grid: int) -> Tensor:
        return F.interpolate(given[1], size=(grid, grid), mode="bilinear")

    found, parts = Step(net, QUIET, 0, 0.6, combine)(levels, [example])
    refined = net(levels)
    unit, own = (F.normalize(each, dim=1) for each in (refined, combine(levels, GRID)))
    both = torch.cat([math.sqrt(0.6) * unit, math.sqrt(0.4) * own], dim=1)
    wanted = group_losses(both, example, QUIET, net.logit_scale, generator())
    torch.testing.assert_close((parts["dense"][0], parts["sparse"][0]), wanted)
    weight = net.bottleneck_layers[0][0].conv1.weight
    torch.testing.assert_close(*(torch.autograd.grad(sum(each), weight) for each in ([found.sum()], wanted)))
    assert not parts["dense"].equal(Step(net, QUIET, 0)(levels, [example])[1]["dense"])


def losses(seed: int, number: int, loss: Loss | None = None) -> dict[str, Tensor]:
    example = make_example(pair_group(number), Flips(), SIZE, GRID)
    return Step(network(), loss or Loss(), seed)(levels_of(example), [example])[1]


def test_noise_depends_on_the_seed_and_the_number_of_the_group_alone() -> None:
    first = losses(1, 5)
    torch.manual_seed(99)
    assert losses(1, 5)["dense"].equal(first["dense"])
    different = {float(losses(seed, number)["dense"]) for seed, number in ((1, 5), (1, 6), (2, 5), (0, 0))}
    assert len(different) == 4
    assert losses(1, 6)["sparse"].equal(first["sparse"])
    assert losses(1, 5, QUIET)["dense"].equal(losses(2, 6, QUIET)["dense"])


def test_the_noise_has_the_paper_s_size() -> None:
    """sigma = 0.1 x half the longer side of the target's box: seen where the match is exactly the truth."""
    group = pair_group()
    flips = Flips(double=0, single=0, self=0)
    example = make_example(group, flips, SIZE, GRID)
    assert example.terms[0].target == 1
    sigma = 0.1 * example.labels[1].reach
    labels = list(example.labels)
    labels[1] = replace(labels[1], xy=torch.full_like(labels[1].xy, 3.0))
    example.labels = labels
    maps = torch.zeros(2, WIDTH, GRID, GRID)
    maps[0, 0], maps[1, 0, 3, 3], maps[1, 1] = 1.0, 1.0, 1.0
    maps[1, 1, 3, 3] = 0.0
    loss = Loss(temperature=1e-3)
    drawn = [
        float(group_losses(maps, example, loss, torch.tensor(0.0), generator(seed))[0]) for seed in range(400)
    ]
    # The mean length of a normal vector in the plane is sigma times the root of pi / 2.
    assert sum(drawn) / len(drawn) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.05)
    quiet = group_losses(maps, example, QUIET, torch.tensor(0.0), generator())[0]
    assert float(quiet) < 1e-3


def test_bfloat16_changes_the_network_only() -> None:
    example = make_example(image_group(), Flips(), SIZE, GRID)
    step, levels = Step(network(), QUIET, 0), levels_of(example)
    exact, _ = step(levels, [example])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, parts = step(levels, [example])
    assert rough.dtype == parts["dense"].dtype == torch.float32
    assert not rough.equal(exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.05)
