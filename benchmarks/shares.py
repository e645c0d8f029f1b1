"""How much the trained descriptors of `lite` count in images of other objects, and in those of its own kinds.

    python benchmarks/shares.py DATA [--worst 10]

Of DATA, every second image of `unlabelled` from the second on (the others are trained on), PF-WILLOW, and the
validation images of animalpose, lspet and quaternius. Small objects are cut out, as by default. The share is
0.97 at most. The images of other objects with the largest shares are named, to be looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from geoaware import data
from geoaware.data.images import list_images, load_image
from geoaware.features.framed import FramedExtractor
from geoaware.features.tuned import Tuned
from geoaware.matcher import Matcher
from geoaware.training.backbone.unlabelled import is_negative


def images(root: Path) -> dict[str, list[Path]]:
    """The images of each row."""
    rest = list_images(root / "unlabelled")[1::2]
    found = {
        "unlabelled, other objects": [path for path in rest if is_negative(path.name)],
        "unlabelled, mammals and people": [path for path in rest if not is_negative(path.name)],
    }
    sets = {
        "PF-WILLOW": data.load("pf-willow", root / "PF-dataset-WILLOW", "test"),
        "animalpose val": data.load("coco", root / "animalpose", "val", annotations="val_single.json"),
        "lspet val": data.load("coco", root / "lspet", "val"),
        "quaternius val": data.load("coco", root / "quaternius", "val"),
    }
    return found | {
        name: list(dict.fromkeys(each.path for each in kept.images)) for name, kept in sets.items()
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--worst", type=int, default=10)
    arguments = parser.parse_args()
    matcher = Matcher.from_pretrained("lite")
    assert isinstance(matcher.extractor, FramedExtractor)
    tuned = matcher.extractor.extractor
    assert isinstance(tuned, Tuned)

    def share(path: Path) -> float:
        image = load_image(path)
        (features,) = matcher.extractor.framed([image], [matcher.canvas(image)])
        return tuned.share([level[None] for level in features.levels]).item()

    print("| images | number | mean share | median | 90 % are below | 10 % are below |")
    print("|---|---|---|---|---|---|")
    for name, paths in images(arguments.data).items():
        shares = np.array([share(path) for path in paths])
        low, middle, high = np.quantile(shares, (0.1, 0.5, 0.9))
        print(
            f"| {name} | {len(paths)} | {shares.mean():.2f} | {middle:.2f} | {high:.2f} | {low:.2f} |",
            flush=True,
        )
        if name == "unlabelled, other objects":
            worst = [(shares[row], paths[row].stem) for row in np.argsort(-shares)[: arguments.worst]]
    print("largest of other objects: " + ", ".join(f"{stem} {share:.2f}" for share, stem in worst))


if __name__ == "__main__":
    main()
