"""AP-10K annotation files made up for tests: real species, families and keypoints, invented images."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoaware.method.keypoints import AP10K

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Bovidae": ("antelope", "argali sheep", "bison", "buffalo", "cow", "sheep"),
    "Canidae": ("arctic fox", "dog", "fox", "wolf"),
    "Castoridae": ("beaver",),
    "Cercopithecidae": ("alouatta", "monkey", "noisy night monkey", "spider monkey", "uakari"),
    "Cervidae": ("deer", "moose"),
    "Cricetidae": ("hamster",),
    "Elephantidae": ("elephant",),
    "Equidae": ("horse", "zebra"),
    "Felidae": (
        "bobcat", "cat", "cheetah", "jaguar", "king cheetah",
        "leopard", "lion", "panther", "snow leopard", "tiger",
    ),
    "Giraffidae": ("giraffe",),
    "Hippopotamidae": ("hippo",),
    "Hominidae": ("chimpanzee", "gorilla", "orangutan"),
    "Leporidae": ("rabbit",),
    "Mephitidae": ("skunk",),
    "Muridae": ("mouse", "rat"),
    "Mustelidae": ("otter", "weasel"),
    "Procyonidae": ("raccoon",),
    "Rhinocerotidae": ("rhino",),
    "Sciuridae": ("marmot", "squirrel"),
    "Suidae": ("pig",),
    "Talpidae": ("mole",),
    "Ursidae": ("black bear", "brown bear", "panda", "polar bear"),
    "Vespertilionidae": ("bat",),
}  # fmt: skip
"""AP-10K's 23 families and 54 species, in the order of their category ids."""

SPECIES = {name: (number, family) for number, (family, name) in enumerate(
    ((family, name) for family, names in FAMILIES.items() for name in names), start=1
)}  # fmt: skip


def annotation(
    image_id: int,
    species: str,
    visible: str | list[int] = "all",
    annotation_id: int | None = None,
    flag: int = 2,
) -> dict[str, Any]:
    """One instance; keypoint i lies at (10 + i, 20 + i)."""
    ids = range(17) if visible == "all" else visible
    triples = [(10 + each, 20 + each, flag) if each in ids else (0, 0, 0) for each in range(17)]
    return {
        "id": image_id if annotation_id is None else annotation_id,
        "image_id": image_id,
        "category_id": SPECIES[species][0],
        "bbox": [5, 6, 50, 60],
        "iscrowd": 0,
        "num_keypoints": len(list(ids)),
        "keypoints": [value for triple in triples for value in triple],
    }


def image(image_id: int) -> dict[str, Any]:
    return {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": 100, "height": 80}


def write_files(root: Path, annotations: list[dict[str, Any]], shuffle: int | None = None) -> Path:
    """AP-10K's folder with the three files of split 1; the annotations are dealt out to them by image."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    categories = [
        {"id": number, "name": name, "supercategory": family, "keypoints": list(AP10K.names), "skeleton": []}
        for name, (number, family) in SPECIES.items()
    ]
    for place, part in enumerate(("train", "val", "test")):
        mine = [each for each in annotations if each["image_id"] % 3 == place]
        images = [image(number) for number in sorted({each["image_id"] for each in mine})]
        content: dict[str, list[Any]] = {
            "images": images,
            "annotations": mine,
            "categories": list(categories),
        }
        if shuffle is not None:
            dice = random.Random(shuffle + place)
            for entries in content.values():
                dice.shuffle(entries)
        path = root / "annotations" / f"ap10k-{part}-split1.json"
        path.write_text(json.dumps({"info": {}, **content}), encoding="utf-8")
    return root


def full_size(seed: int = 1) -> list[dict[str, Any]]:
    """Annotations of 10,015 images: 50 of the 54 species, a few small ones, some with several instances."""
    dice = random.Random(seed)
    unannotated = {"alouatta", "mole", "bat", "noisy night monkey"}
    small = {"king cheetah": 31, "argali sheep": 44, "black bear": 47}
    counts = {name: small.get(name, 0) for name in SPECIES if name not in unannotated}
    large = [name for name in counts if name not in small]
    for _ in range(10_015 - sum(counts.values())):
        counts[dice.choice(large)] += 1
    numbers = list(range(1, 60_000))
    dice.shuffle(numbers)
    made = []
    for name, count in counts.items():
        for _ in range(count):
            number = numbers.pop()
            ids = sorted(dice.sample(range(17), min(17, max(2, round(dice.gauss(11, 4))))))
            made.append(annotation(number, name, ids))
            if dice.random() < 0.1 and name not in small:
                made.append(annotation(number, name, ids, annotation_id=100_000 + number))
    return made
