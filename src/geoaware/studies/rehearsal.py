"""A rehearsal of `reproduce paper`: the same steps on a few images with tiny networks.

Networks are of the real classes with random weights, and data sets have their real layout, so that every step
does what it does in earnest. Only the canvas is encoded in one pass. The figures mean nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from geoaware.data.ap10k_pairs import ANNOTATION_FILES, Rules
from geoaware.data.spair import VOC
from geoaware.method.keypoints import AP10K, SPAIR71K
from geoaware.runs.files import new_folder
from geoaware.runs.weights import write_safetensors
from geoaware.studies.planned import Widths
from geoaware.studies.tiny_networks import (
    DINOV2,
    WIDTHS,
    odise_state,
    tiny_clip,
    tiny_dinov2,
    tiny_stable_diffusion,
)

MINI = "SPair-mini"
"""Twelve images of SPair-71k; where the root has them, they are taken instead of drawn ones."""

RULES = Rules(test_images=2, val_images=2, train_pairs_per_image=1)
"""Of AP-10K's pairs, for species of six images."""

_PREFIX = "backbone.feature_extractor."
_SPECIES = (("dog", "Canidae"), ("fox", "Canidae"), ("horse", "Equidae"))
_IMAGES = 6


@dataclass(frozen=True)
class Rehearsal:
    """What takes the place of the real thing: the root of the data, settings, changes of configurations."""

    root: Path
    settings: Mapping[str, Any]
    changes: Mapping[str, Any]
    widths: Widths


def rehearse(root: Path, out: Path) -> Rehearsal:
    """Make images and networks in a folder, as far as they are not there.

    Args:
        root: folder that may hold `MINI`.
        out: gets the folders ``data`` and ``networks``.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    data, networks = out / "data", out / "networks"
    if not data.is_dir():
        with new_folder(data) as draft:
            if (root / MINI).is_dir():
                shutil.copytree(root / MINI, draft / "SPair-71k")
            else:
                _spair(draft / "SPair-71k")
            _ap10k(draft / "ap-10k")
            _pf_pascal(draft / "PF-PASCAL")
    if not networks.is_dir():
        with new_folder(networks) as draft:
            tiny_stable_diffusion(draft / "sd15")
            tiny_clip(draft / "clip")
            tiny_dinov2(draft / "dinov2")
            captioner = {key.removeprefix(_PREFIX): each for key, each in odise_state().items()}
            write_safetensors(draft / "captioner.safetensors", captioner)
    settings = {
        "sd15.weights": str(networks / "sd15"),
        "sd15.captioner": str(networks / "captioner.safetensors"),
        "sd15.clip_weights": str(networks / "clip"),
        "sd15.canvas": 128,
        "sd15.crops": "none",
        "dinov2-base.weights": str(networks / "dinov2"),
        "dinov2-base.canvas": 112,
    }
    changes = {
        "network.width": 128,
        "network.grid": 8,
        "matching.window": 5,
        "stages.0.epochs": None,
        "stages.0.steps": 2,
        "validation.every": 2,
        "validation.pairs": 2,
    }
    return Rehearsal(data, settings, changes, (WIDTHS[1], WIDTHS[2], WIDTHS[3], DINOV2))


def _spair(root: Path) -> None:
    """Three categories of four images; every other ordered pair is for training."""
    lines: dict[str, list[str]] = {"trn": [], "val": [], "test": []}
    for category in ("cat", "car", "bottle"):
        names = [f"{category}_{number}" for number in range(4)]
        for number, name in enumerate(names):
            folder = root / "JPEGImages" / category
            points, size, box = _draw(folder / f"{name}.jpg", len(SPAIR71K[category].names), number)
            annotation = {
                "filename": f"{name}.jpg",
                "image_width": size[0],
                "image_height": size[1],
                "bndbox": box,
                "kps": {str(key): list(place) for key, place in enumerate(points)},
                "azimuth_id": number,
            }
            _write(root / "ImageAnnotation" / category / f"{name}.json", json.dumps(annotation))
            mask = Image.new("L", size)
            ImageDraw.Draw(mask).rectangle(box, fill=VOC.index(category) + 1)
            place = root / "Segmentation" / category / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            mask.save(place)
        for number, (source, target) in enumerate(permutations(names, 2)):
            split = ("trn", "test", "trn", "val")[number % 4]
            lines[split].append(f"{len(lines[split]):06d}-{source}-{target}:{category}\n")
    for split, pairs in lines.items():
        _write(root / "Layout" / "large" / f"{split}.txt", "".join(pairs))


def _ap10k(root: Path) -> None:
    """Three species of two families."""
    categories = [
        {"id": number, "name": name, "supercategory": family, "keypoints": list(AP10K.names)}
        for number, (name, family) in enumerate(_SPECIES, start=1)
    ]
    images, annotations = [], []
    for number in range(1, 1 + _IMAGES * len(_SPECIES)):
        name = f"{number:012d}.jpg"
        points, size, (left, top, right, bottom) = _draw(root / "data" / name, len(AP10K.names), number)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        annotations.append({
            "id": number, "image_id": number, "category_id": 1 + number % len(_SPECIES), "iscrowd": 0,
            "bbox": [left, top, right - left, bottom - top], "num_keypoints": len(points),
            "keypoints": [value for x, y in points for value in (x, y, 2)],
        })  # fmt: skip
    for part, file in enumerate(ANNOTATION_FILES):
        content = {"images": images[part::3], "annotations": annotations[part::3], "categories": categories}
        _write(root / file, json.dumps(content))


def _pf_pascal(root: Path) -> None:
    """One class of four images."""
    import scipy.io

    names = [f"2008_{number:06d}" for number in range(4)]
    for number, name in enumerate(names):
        points, _, box = _draw(root / "JPEGImages" / f"{name}.jpg", 9, 10 + number)
        place = root / "Annotations" / "car" / f"{name}.mat"
        place.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(place, {"kps": np.array(points, float), "bbox": np.array([box], float)})
    pairs = list(permutations(names, 2))
    for split, chosen in (("trn", pairs[:4]), ("val", pairs[4:6]), ("test", pairs[6:9])):
        rows = "".join(f"JPEGImages/{a}.jpg,JPEGImages/{b}.jpg,7\n" for a, b in chosen)
        _write(root / f"{split}_pairs.csv", f"source_image,target_image,class\n{rows}")


def _draw(
    path: Path, count: int, seed: int
) -> tuple[Sequence[tuple[int, int]], tuple[int, int], tuple[int, int, int, int]]:
    """An image of as many coloured spots; their places, its size, and a box around them (x1, y1, x2, y2)."""
    generator = np.random.default_rng(seed)
    width, height = (int(each) for each in generator.integers(90, 130, 2))
    image = Image.fromarray(generator.integers(60, 120, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    draw = ImageDraw.Draw(image)
    places, points = np.random.default_rng(count).uniform(0.2, 0.8, (count, 2)), []
    for number, place in enumerate(places):
        x, y = (int(each) for each in (place + generator.normal(0, 0.04, 2)).clip(0.1, 0.9) * (width, height))
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=f"hsl({360 * number // count}, 90%, 60%)")
        points.append((x, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return points, (width, height), (5, 5, width - 5, height - 5)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
