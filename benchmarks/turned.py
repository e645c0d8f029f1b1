"""PCK on images that lie on their side or stand on their head, with and without ``upright="auto"``.

    python benchmarks/turned.py DATA [--extractor lite] [--sets animalpose] [--pairs 20] [--out FOLDER]

The sets are those of `accuracy.py`. The source of each pair is as it is, and the target is a copy turned by
0, 90, 180 and 270 degrees. The columns are PCK@0.10 standard / geometry-aware, per image, in per cent.
Turned copies and predictions files are kept in --out; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from accuracy import CASES, Case
from PIL import Image

from geoaware import data
from geoaware.data import DataSet
from geoaware.data.exif import turned_box, turned_pixels, turned_points, turned_size
from geoaware.data.images import load_image
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.score import score_file
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage

TURNS = {0: 1, 90: 6, 180: 3, 270: 8}
"""EXIF's orientation for each turn in degrees, clockwise."""


def turned(image: AnnotatedImage, degrees: int, folder: Path) -> AnnotatedImage:
    """A turned copy of an image in a folder, with its annotation; the image itself for 0 degrees."""
    turn, size = TURNS[degrees], image.size
    path = folder / f"{image.path.stem}-{degrees}.png"
    if turn == 1:
        return image
    if not path.exists():
        Image.fromarray(turned_pixels(np.asarray(load_image(image.path)), turn)).save(path)
    keypoints = replace(image.keypoints, xy=turned_points(image.keypoints.xy, size, turn).clamp(min=0))
    box = None if image.box is None else turned_box(image.box, size, turn)
    return replace(image, path=path, size=turned_size(size, turn), keypoints=keypoints, box=box)


def turned_targets(pairs: DataSet, degrees: int, folder: Path) -> DataSet:
    """The data set with its targets turned."""
    folder.mkdir(parents=True, exist_ok=True)
    made = tuple(replace(pair, target=turned(pair.target, degrees, folder)) for pair in pairs.pairs)
    return replace(pairs, pairs=made)


def row(
    case: Case, root: Path, extractor: str, upright: str, count: int, out: Path, settings: dict[str, str]
) -> list[str]:
    """The cells of a line of the table."""
    options = {**case.options, "pairs": count} if "pairs" in case.options else case.options
    pairs = data.load(case.loader, root / case.folder, case.split, **options)
    matcher = Matcher.from_pretrained(extractor, upright=upright, **settings)
    cells = [str(len(pairs))]
    for degrees in TURNS:
        path = out / f"{extractor}-{case.folder}-{count}-{upright}-{degrees}.jsonl"
        targets = turned_targets(pairs, degrees, out / case.folder)
        result = score_file(predict(targets, matcher, path, PredictSettings(protocol=case.protocol)))
        figures = (100 * result.value(0.1), 100 * result.value(0.1, geometry_aware=True))
        cells.append(" / ".join("–" if each != each else f"{each:.1f}" for each in figures))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--extractor", default="lite")
    parser.add_argument(
        "--sets", nargs="+", choices=list(CASES), default=["animalpose", "lspet", "quaternius"]
    )
    parser.add_argument("--weights", help="of the extractor: a folder that `geoaware tune` wrote")
    parser.add_argument("--pairs", type=int, default=20, help="of each category")
    parser.add_argument("--upright", nargs="+", default=["off", "auto"])
    parser.add_argument("--out", type=Path, default=Path("out/turned"))
    arguments = parser.parse_args()
    settings = {} if arguments.weights is None else {"weights": arguments.weights}
    print("| data | `upright` | pairs | " + " | ".join(f"{each}°" for each in TURNS) + " |")
    print("|---|---|---|" + "---|" * len(TURNS))
    for name in arguments.sets:
        for upright in arguments.upright:
            case = CASES[name]
            cells = row(
                case, arguments.data, arguments.extractor, upright, arguments.pairs, arguments.out, settings
            )
            print("| " + " | ".join([name, upright, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
