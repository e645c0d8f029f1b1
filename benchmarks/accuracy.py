"""PCK of an extractor on the annotated images, without and with pose alignment, as a Markdown table.

    python benchmarks/accuracy.py DATA [--extractor lite] [--sets lspet] [--out FOLDER]

DATA holds the folders animalpose, lspet, quaternius, badja, PF-dataset-WILLOW and SPair-mini; those that are
absent are left out. Every row is a predictions file in --out: an interrupted run goes on, a finished one is
scored again. Per image, per cent, with the 95 % interval of a bootstrap over pairs; labels are used (the
paper's dagger). The gap is how much lower the geometry-aware figure is, relative to the standard one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from geoaware import data
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.result import PCKResult
from geoaware.evaluation.score import score_file
from geoaware.matcher import Matcher
from geoaware.method.alignment import PoseRule


@dataclass(frozen=True)
class Case:
    """A data set as it is evaluated here: pairs are all, or a seeded choice of so many a category."""

    loader: str
    folder: str
    split: str
    protocol: str
    options: dict[str, Any]


CASES = {
    "animalpose": Case("coco", "animalpose", "val", "paper", {"annotations": "val_single.json", "pairs": 60}),
    "lspet": Case("coco", "lspet", "val", "paper", {"annotations": "val.json", "pairs": 500}),
    "quaternius": Case("coco", "quaternius", "val", "paper", {"annotations": "val.json", "pairs": 60}),
    "badja": Case("coco", "badja", "val", "paper", {"annotations": "annotations.json", "pairs": 150}),
    "pf-willow": Case("pf-willow", "PF-dataset-WILLOW", "test", "pf-willow", {}),
    "spair-mini": Case("spair71k", "SPair-mini", "test", "paper", {}),
    "spair-mini, back": Case("spair71k", "SPair-mini", "trn", "paper", {}),
}
ALIGNMENTS = {
    "off": ("off", None),
    "default": ("auto", None),
    "mutual-NN flip": ("flip", PoseRule("mutual-nn")),
}


def evaluate(
    case: Case, root: Path, extractor: str, post_processor: str, alignment: str, path: Path
) -> PCKResult:
    """Predict, or go on predicting, to a file and score it."""
    pose, rule = ALIGNMENTS[alignment]
    pairs = data.load(case.loader, root / case.folder, case.split, **case.options)
    matcher = Matcher.from_pretrained(extractor, pose=pose, pose_rule=rule, post_processor=post_processor)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{case.folder}, {alignment}", total=len(pairs))
        predict(
            pairs,
            matcher,
            path,
            PredictSettings(protocol=case.protocol),
            progress=lambda _, done, total, *__: bar.update(task, completed=done, total=total),
        )
    return score_file(path)


def row(name: str, extractor: str, alignment: str, result: PCKResult, path: Path) -> str:
    """A line of the table."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    turned = sum(record["pose"] != "identity" for record in records) / len(records)
    interval = result.overall.standard.intervals[result.averaging][result.column(0.1)]
    cells = [name, extractor, alignment, str(len(records)), f"{100 * turned:.0f} %"]
    cells += [_percent(result.value(alpha)) for alpha in (0.05, 0.1)]
    standard, aware = result.value(0.1), result.value(0.1, geometry_aware=True)
    cells.append(f"{100 * interval.low:.1f} to {100 * interval.high:.1f}")
    cells += [_percent(aware), _percent((standard - aware) / standard if standard else float("nan"))]
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--extractor", nargs="+", default=["efficientnet-lite0", "lite-frozen", "lite"])
    parser.add_argument("--post-processor", default="auto", help="a folder, none, or auto: as shipped")
    parser.add_argument("--alignment", nargs="+", choices=list(ALIGNMENTS), default=list(ALIGNMENTS))
    parser.add_argument("--sets", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("out/accuracy"))
    arguments = parser.parse_args()
    print(
        "| data | features | pose | pairs | turned | @0.05 | @0.10 | 95 % CI | geometry-aware @0.10 | gap |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        case = CASES[name]
        if not (arguments.data / case.folder).is_dir():
            print(f"left out {name}: no folder {case.folder}")
            continue
        for extractor, alignment in product(arguments.extractor, arguments.alignment):
            path = arguments.out / f"{extractor}-{name}-{alignment}.jsonl".replace(" ", "-").replace(",", "")
            result = evaluate(case, arguments.data, extractor, arguments.post_processor, alignment, path)
            print(row(name, extractor, alignment, result, path), flush=True)


if __name__ == "__main__":
    main()
