"""Do two checkouts write the same bytes? Predictions, scores, transfers, matches and short trainings.

A change of the code that is to change no result is checked with this. The code of each checkout runs the same
commands on the same annotated images, one thread each, and the files are compared. It takes ten minutes a
checkout on one core; WORDs choose the commands that contain one of them.

    python benchmarks/same_bytes.py run CHECKOUT DATA OUT [WORD ...]
    python benchmarks/same_bytes.py compare OLD NEW
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

CONFIGS = {
    "train.yaml": """
extractor: efficientnet-lite0
network: {width: 128, grid: 12, dropout: 0.2, context: [1, 2], centred: true}
loss: {distillation: 0.6}
stages:
  - data:
      - {name: coco, root: badja, split: val, options: {annotations: annotations.json, pairs: 60}, share: 0.5}
      - {name: coco, root: quaternius, split: val, options: {pairs: 20}, share: 0.5}
    images: 4
    mix: schema
    batch: 2
    steps: 6
  - data: [{name: coco, root: lspet, split: val, options: {pairs: 40}}]
    images: 4
    steps: 4
validation:
  data: [{name: coco, root: badja, split: val, options: {annotations: annotations.json, pairs: 20}}]
  every: 5
matching: {window: 5, temperature: 0.03, inside_picture: true, interpolate: true}
save_every: 3
""",
    "pairs.yaml": """
extractor: efficientnet-lite0
network: {width: 128, grid: 12}
stages:
  - data: [{name: spair71k, root: SPair-mini, split: trn}]
    steps: 5
loss: {window: 5}
validation:
  data: [{name: spair71k, root: SPair-mini, split: test}]
  every: 5
""",
    "tune.yaml": """
data:
  - name: coco
    root: badja
    split: val
    options: {annotations: annotations.json, pairs: 60}
    objects: 2
    twice: 1
  - {name: coco, root: quaternius, split: val, options: {pairs: 20}, objects: 2}
unlabelled: {root: unlabelled, every: 50}
steps: 3
validation:
  data: [{name: coco, root: badja, split: val, options: {annotations: annotations.json, pairs: 10}}]
  every: 3
""",
}

SETS = {
    "badja": "coco --root {data}/badja --split val --annotations annotations.json",
    "lspet": "coco --root {data}/lspet --split val",
    "quaternius": "coco --root {data}/quaternius --split val",
    "willow": "pf-willow --root {data}/PF-dataset-WILLOW --split test",
    "spair": "spair71k --root {data}/SPair-mini --split test",
}

PREDICTIONS = {
    "willow-plain": "--extractor efficientnet-lite0 --pairs 40",
    "willow-frozen": "--extractor lite-frozen --pairs 40",
    "willow-lite": "--pairs 40",
    "badja-plain": "--extractor efficientnet-lite0 --pairs 20 --masks",
    "badja-frozen": "--extractor lite-frozen --pairs 20 --pose flip --pose-rule mutual-nn",
    "badja-nolabels": "--pairs 20 --pose flip --no-labels --extractor lite-frozen --blend 0.8",
    "badja-rotate": "--pairs 10 --pose rotate --extractor efficientnet-lite0",
    "badja-lite": "--pairs 20",
    "badja-paper": "--pairs 10 --matching paper --protocol dift",
    "lspet-released": "--pairs 20 --protocol released",
    "lspet-frozen": "--extractor lite-frozen --pairs 30 --blend 1 --set window=3 --cache cache",
    "lspet-lite": "--pairs 30 --zoom auto",
    "quaternius-frozen": "--extractor lite-frozen --pairs 6",
    "quaternius-lite": "--pairs 6",
    "spair-lite": "",
    "spair-plain": "--extractor efficientnet-lite0",
}

SCORED = {
    "willow-lite": ("category", "keypoint"),
    "badja-lite": ("category", "keypoint"),
    "badja-frozen": ("category", "keypoint"),
    "lspet-released": ("category", "keypoint"),
    "quaternius-lite": ("category", "keypoint", "azimuth"),
    "spair-lite": ("category", "keypoint", "azimuth"),
}

OTHERS = (
    "train train.yaml --set root={data} --set cache=features --out train",
    "train pairs.yaml --set root={data} --set cache=features --out pairs",
    "tune tune.yaml --set root={data} --out tune",
    "predict --dataset {badja} --pairs 10 --extractor efficientnet-lite0 --post-processor train/best"
    " --out badja-own.jsonl",
    "match {first} {second} --point 200,200 --point 300,250 --json match.json",
    "match {first} {second} --point 200,200 --extractor lite-frozen --pose flip --json match-frozen.json",
    "transfer source.json --targets {data}/badja/annotations.json --out transfer.json --keep-guesses",
    "transfer source.json --targets {data}/badja/annotations.json --out evaluated.json --evaluate --nearest 2"
    " --pose flip --report transfer-report",
    "transfer source.json {data}/SPair-mini/JPEGImages --recursive --extractor efficientnet-lite0"
    " --out folder.json",
    "transfer source.json {data}/SPair-mini/JPEGImages --recursive --find --out found.json",
    "pose {data}/badja/images --templates templates --extractor efficientnet-lite0 --out poses.json",
    "extract {data}/badja/images --extractor efficientnet-lite0 --poses identity,flip --cache stored",
)

KEPT = (".jsonl", ".csv", ".json", ".safetensors")
"""Files that are compared; pictures are not, nor the logs of trainings, which hold seconds."""


def commands(data: Path) -> list[str]:
    """What is run, in this order; a command after ``>`` prints to that file."""
    first, second = sorted((data / "badja" / "images").iterdir())[:13:12]
    sets = {name: text.format(data=data) for name, text in SETS.items()}
    given = {"data": data, "first": first, "second": second, **sets}
    found = [
        f"predict --dataset {sets[name.partition('-')[0]]} {options} --out {name}.jsonl"
        for name, options in PREDICTIONS.items()
    ]
    for name, breakdowns in SCORED.items():
        found += [
            f"score {name}.jsonl --by {each} --json --csv {name}-{each}.csv > {name}-{each}.json"
            for each in breakdowns
        ]
    return [*found, *(each.format(**given) for each in OTHERS)]


def write_source(data: Path, out: Path) -> None:
    """The first three images of BADJA as the annotated sources of a transfer, four as templates of poses."""
    content = json.loads((data / "badja" / "annotations.json").read_text(encoding="utf-8"))
    images = content["images"][:3]
    chosen = {each["id"] for each in images}
    annotations = [each for each in content["annotations"] if each["image_id"] in chosen]
    (out / "source.json").write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    (out / "images").symlink_to(data / "badja" / "images")
    (out / "templates" / "dogs").mkdir(parents=True)
    for pose, each in zip(("left", "right", "front", "back"), content["images"][10:], strict=False):
        image = data / "badja" / "images" / each["file_name"]
        (out / "templates" / "dogs" / f"{pose}{image.suffix}").symlink_to(image)


def run(checkout: Path, data: Path, out: Path, words: list[str]) -> int:
    """Run the commands with the code of a checkout; the number of those that failed."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in CONFIGS.items():
        (out / name).write_text(text)
    if not (out / "source.json").exists():
        write_source(data, out)
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    failed = 0
    for command in commands(data):
        if words and not any(word in command for word in words):
            continue
        arguments, _, printed = command.partition(" > ")
        done = subprocess.run(
            [sys.executable, "-m", "geoaware.cli", *arguments.split()],
            env=environment,
            capture_output=True,
            text=True,
            cwd=out,
        )
        if done.returncode:
            failed += 1
            print(f"failed: {command}\n{done.stderr[-800:]}", flush=True)
        elif printed:
            (out / printed).write_text(done.stdout)
    return failed


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that counts, by name; the folder's own name in it does not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in KEPT and not name.startswith("images/") and path.name != "log.jsonl":
            found[name] = hashlib.sha256(path.read_bytes().replace(str(folder).encode(), b"")).hexdigest()
    return found


def compare(old: Path, new: Path) -> int:
    """Print what differs; the number of files that do."""
    before, after = digests(old), digests(new)
    different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    for name in different:
        print("missing" if name not in after else "new" if name not in before else "differs", name)
    print(f"{len(before)} files before, {len(after)} after, {len(different)} not the same")
    return len(different)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    running = parts.add_parser("run")
    for name in ("checkout", "data", "out"):
        running.add_argument(name, type=lambda text: Path(text).resolve())
    running.add_argument("words", nargs="*")
    comparing = parts.add_parser("compare")
    for name in ("old", "new"):
        comparing.add_argument(name, type=lambda text: Path(text).resolve())
    given = parser.parse_args()
    if given.part == "run":
        return int(run(given.checkout, given.data, given.out, given.words) > 0)
    return int(compare(given.old, given.new) > 0)


if __name__ == "__main__":
    sys.exit(main())
