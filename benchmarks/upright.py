"""Fits how the network of `lite` sees the turn that an image needs, and says how well it does.

    python benchmarks/upright.py DATA WEIGHTS OUT

WEIGHTS is a shipped name or a folder that ``geoaware tune`` wrote; OUT is the same network with a fitted
``upright``, nothing else changed. Each training image of animalpose, lspet and quaternius, and every second
one of unlabelled, is encoded at four turns; the turn is a logistic function of the network's mean over the
image. The table is of validation images, and of the unlabelled ones that were not fitted on: *left alone* is
how many upright images stay as they are by ``upright="auto"``, the others are how many turned ones are put
upright. It takes about 15 minutes of a core.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.data.images import load_image
from geoaware.data.sampling import permutation
from geoaware.features.framed import UPRIGHT, turn_needed
from geoaware.features.tuned import Tuned, TunedNetwork, TunedSettings
from geoaware.method.geometry import Canvas

DECAY = 3e-4
"""Weight of the squared coefficients of standardised features, chosen on the validation images."""


def drawn(folder: Path, file: str, count: int) -> list[Path]:
    """So many images that an annotation file names, drawn at random."""
    listed = json.loads((folder / file).read_text(encoding="utf-8"))["images"]
    names = sorted({each["file_name"] for each in listed})
    order = list(permutation(len(names), "upright"))[:count]
    return [folder / "images" / names[row] for row in order]


def encoded(extractor: Tuned, paths: Sequence[Path]) -> Tensor:
    """What the network's turn is read from, of each image at four turns: (images, turns, channels).

    The turn of a row is the place in `UPRIGHT` of what makes the image stand upright again.
    """
    pooled: list[Tensor] = []
    hook = extractor.network.upright.register_forward_pre_hook(lambda _, given: pooled.append(given[0]))
    with torch.inference_mode():
        for path in paths:
            image = load_image(path)
            board = np.array(Canvas(*image.size, extractor.layout.size).render(image))
            upright = torch.from_numpy(board).permute(2, 0, 1).float() / 255
            views = torch.stack([upright.rot90(-turn, (1, 2)) for turn in range(len(UPRIGHT))])
            # The plain descriptors, which take a third of the time, are not needed.
            extractor.network(extractor.plain.early((views - extractor.mean) / extractor.std))
    hook.remove()
    return torch.stack(pooled).float()


def fit(features: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the logistic regression of the turn on the features of `encoded`."""
    rows, turns = features.flatten(0, 1), torch.arange(len(UPRIGHT)).repeat(len(features))
    mean, deviation = rows.mean(dim=0), rows.std(dim=0) + 1e-6
    rows = (rows - mean) / deviation
    layer = torch.nn.Linear(rows.shape[1], len(UPRIGHT))
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(layer(rows), turns) + DECAY * layer.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    weight = layer.weight.detach() / deviation
    return weight, layer.bias.detach() - weight @ mean


def put_upright(seen: Tensor) -> Tensor:
    """The share of images that stand upright in the end, by the turn at which they come.

    Args:
        seen: the log-probabilities of the turns that each image needs at four turns, (images, turns, turns).
    """
    quarters = torch.arange(len(UPRIGHT))
    return torch.tensor(
        [
            statistics.fmean(turn_needed(each[(turn - quarters) % len(UPRIGHT)]) == turn for each in seen)
            for turn in range(len(UPRIGHT))
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, network = arguments.data, TunedNetwork.from_pretrained(arguments.weights)
    unlabelled = sorted((data / "unlabelled").glob("*.jpg"))
    extractor = Tuned("lite", TunedSettings(), network).eval()
    sets = {
        "animalpose": ("train.json", 2000, "val_single.json", 300),
        "lspet": ("train.json", 600, "val.json", 150),
        "quaternius": ("train.json", 300, "val.json", 150),
    }
    seen = [encoded(extractor, drawn(data / name, each[0], each[1])) for name, each in sets.items()]
    network.upright.weight.data, network.upright.bias.data = fit(
        torch.cat([*seen, encoded(extractor, unlabelled[::2])])
    )
    print(f"saved {network.save_pretrained(arguments.out)}")
    print("| images | number | left alone | 90° | 180° | 270° |")
    print("|---|---|---|---|---|---|")
    for name in (*sets, "unlabelled"):
        others = drawn(data / name, *sets[name][2:]) if name in sets else unlabelled[1::4]
        ends = put_upright(network.upright(encoded(extractor, others)).detach().log_softmax(dim=2))
        print(f"| {name} | {len(others)} | " + " | ".join(f"{100 * end:.1f}" for end in ends.tolist()) + " |")


if __name__ == "__main__":
    main()
