"""Annotation tools end to end: five annotated images in, four hundred annotated out, in each format.

    python benchmarks/formats.py DATA [--images 400] [--out FOLDER]

The images are people of lspet. Five of them are written in each format, and `geoaware transfer` carries their
keypoints to the others and writes the result in the same format, in a process of its own with one worker.
Printed are its CPU seconds, those beyond COCO's, and its peak of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from geoaware.data import formats
from geoaware.data.formats.hub import Result

NAMES = {
    "coco": "found.json",
    "cvat": "found.xml",
    "labelstudio": "found.ls.json",
    "dlc": "found-dlc",
    "slp": "found.slp",
    "yolo": "found-yolo",
    "labelme": "found-labelme",
}


def sources(data: Path, count: int = 5) -> dict[str, Any]:
    """The first annotated images of lspet, as COCO."""
    content = json.loads((data / "lspet" / "val.json").read_text(encoding="utf-8"))
    chosen = content["annotations"][:count]
    wanted = {each["image_id"] for each in chosen}
    images = [each for each in content["images"] if each["id"] in wanted]
    return {**content, "images": images, "annotations": chosen}


def written(content: dict[str, Any], name: str, folder: Path, images: Path) -> Path:
    """Annotations in a format."""
    path = folder / f"source-{NAMES[name]}"
    if name == "coco":
        path.write_text(json.dumps(content), encoding="utf-8")
        return path
    of = {each["id"]: each for each in content["images"]}
    pairs = [(of[each["image_id"]], [each]) for each in content["annotations"]]
    formats.write(name, path, Result(content["categories"], lambda: iter(pairs), folder=images))
    return path


def measured(words: list[str]) -> tuple[float, float]:
    """CPU seconds of the command line, with all that it starts, and its peak of memory in GB."""
    process = os.fork()
    if not process:
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "geoaware", *words])
    _, status, used = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: geoaware {' '.join(words[:3])} …")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--formats", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--out", type=Path, default=Path("out/formats"))
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    content, images = sources(given.data), given.data / "lspet" / "images"
    used = {each["file_name"] for each in content["images"]}
    targets = [each for each in sorted(images.iterdir()) if each.name not in used][: given.images]
    print("| format | images | CPU s | beyond COCO | peak GB |\n|---|---|---|---|---|")
    plain = None
    for name in given.formats:
        folder = given.out / name
        folder.mkdir()
        source = written(content, name, folder, images)
        words = ["transfer", str(source), *map(str, targets), "--source-images", str(images)]
        words += ["--hidden", "--to", name, "--workers", "1", "--out", str(folder / NAMES[name])]
        seconds, peak = measured(words)
        plain = seconds if plain is None else plain
        print(
            f"| {name} | {len(targets)} | {seconds:.1f} | {seconds - plain:+.1f} | {peak:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
